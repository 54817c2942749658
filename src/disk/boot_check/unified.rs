//! Unified kernel images: a UEFI program with a kernel, an initramfs and a command line in sections of its file (UAPI
//! Unified Kernel Image specification). Reads the table of sections and believes no length in it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use crate::host::root_dir::RootDir;

/// As many as the Windows loader takes; real ones have about ten.
const MOST_SECTIONS: u16 = 96;
/// The kernel's own bound of a command line is 2 KiB on x86, 64 KiB nowhere exceeded.
const LONGEST_LINE: u64 = 64 << 10;

/// Where its parts are, in bytes from the file's beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unified {
    pub linux: Range<u64>,
    pub initrd: Option<Range<u64>>,
    pub command_line: String,
}

/// Looks into a file. `None` where it is another program: one without a kernel in it.
///
/// # Errors
/// Where it cannot be read, is no UEFI program, or says that a part lies beyond its end.
pub(super) fn read(root: &RootDir, path: &str) -> io::Result<Option<Unified>> {
    let mut file = root.open_file(path)?;
    let sections = sections(&mut file)?;
    // A file can carry several profiles: the first of each name is the one without a choice.
    let part =
        |wanted: &str| sections.iter().find(|(name, _)| name == wanted).map(|(_, range)| range.clone());
    let Some(linux) = part(".linux") else {
        return Ok(None);
    };
    let command_line = match part(".cmdline") {
        Some(range) => {
            file.seek(SeekFrom::Start(range.start))?;
            let mut bytes = Vec::new();
            file.take((range.end - range.start).min(LONGEST_LINE)).read_to_end(&mut bytes)?;
            String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
        }
        None => String::new(),
    };
    Ok(Some(Unified { linux, initrd: part(".initrd"), command_line }))
}

/// The sections of a PE file (Microsoft, "PE Format"): names and the bytes that they have in the file.
fn sections(file: &mut File) -> io::Result<Vec<(String, Range<u64>)>> {
    let broken =
        |reason: &str| io::Error::new(io::ErrorKind::InvalidData, format!("it is no UEFI program: {reason}"));
    let size = file.metadata()?.len();
    let mut at = |offset: u64, bytes: &mut [u8]| -> io::Result<()> {
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(bytes).map_err(|_| broken("it ends within its headers"))
    };
    let mut dos = [0; 0x40];
    at(0, &mut dos)?;
    if &dos[..2] != b"MZ" {
        return Err(broken("it does not begin with `MZ`"));
    }
    let header = u64::from(number(&dos[0x3c..0x40]));
    let mut coff = [0; 24];
    at(header, &mut coff)?;
    if &coff[..4] != b"PE\0\0" {
        return Err(broken("it has no PE header"));
    }
    let count = u16::from_le_bytes([coff[6], coff[7]]);
    if count > MOST_SECTIONS {
        return Err(broken("it has more sections than any program"));
    }
    let table = header + 24 + u64::from(u16::from_le_bytes([coff[20], coff[21]]));
    let mut sections = Vec::new();
    for index in 0..u64::from(count) {
        let mut section = [0; 40];
        at(table + index * 40, &mut section)?;
        let name = String::from_utf8_lossy(&section[..8]).trim_end_matches('\0').to_owned();
        // The file's bytes are padded; the length in memory is that of the content.
        let length = u64::from(number(&section[8..12]).min(number(&section[16..20])));
        let start = u64::from(number(&section[20..24]));
        if start + length > size {
            return Err(broken("a section lies beyond its end"));
        }
        sections.push((name, start..start + length));
    }
    Ok(sections)
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |so_far, byte| so_far << 8 | u32::from(*byte))
}
