//! What a kernel's file says of it: its version, and what that version has built in. Judges nothing.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;

use rustix::fs::{Mode, OFlags};

use super::{Image, initramfs, read_text};
use crate::host::root_dir::RootDir;

/// A kernel's version: by its file's name, or its folder's (kernel-install: `VERSION/linux`), where modules of that version
/// are there, else by what the file says.
pub(super) fn version(root: &RootDir, image: &Image) -> Option<String> {
    let path = image.path.as_str();
    // The name at the end of all links.
    let fd = root.open_at(path, OFlags::PATH, Mode::empty()).ok()?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    let by_name = real
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.split_once('-'))
        .map(|(_, version)| version.to_owned());
    let has_modules = |version: &String| {
        !version.contains('/') && !version.starts_with('.') && root.exists(&format!("/lib/modules/{version}"))
    };
    let by_folder = real.parent().and_then(|folder| folder.file_name()?.to_str()).map(str::to_owned);
    let named = by_name.clone().into_iter().chain(by_folder).find(has_modules);
    named.or_else(|| version_in_header(root, image).ok().flatten()).or(by_name)
}

/// The version that an x86 kernel carries (Linux `Documentation/arch/x86/boot.rst`: `kernel_version`).
fn version_in_header(root: &RootDir, image: &Image) -> io::Result<Option<String>> {
    let mut file = root.open_file(&image.path)?;
    let start = image.part.as_ref().map_or(0, |part| part.start);
    let mut header = [0; 0x10];
    file.seek(SeekFrom::Start(start + 0x202))?;
    if file.read_exact(&mut header).is_err() || &header[..4] != b"HdrS" {
        return Ok(None);
    }
    let at = u64::from(u16::from_le_bytes([header[0xc], header[0xd]])) + 0x200;
    file.seek(SeekFrom::Start(start + at))?;
    let mut text = Vec::new();
    file.take(128).read_to_end(&mut text)?;
    let version: String = String::from_utf8_lossy(&text)
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "._-+~".contains(*c))
        .collect();
    Ok(Some(version).filter(|version| !version.is_empty() && !version.starts_with('.')))
}

/// The modules that a kernel has built in, by the list that comes with it.
pub(super) fn built_in(root: &RootDir, version: &str) -> BTreeSet<String> {
    if version.contains('/') || version.starts_with('.') {
        return BTreeSet::new();
    }
    read_text(root, &format!("/lib/modules/{version}/modules.builtin"))
        .map(|text| text.lines().filter_map(initramfs::module_name).collect())
        // Without the list nothing is known to be built in, and what is missing is then named.
        .unwrap_or_default()
}
