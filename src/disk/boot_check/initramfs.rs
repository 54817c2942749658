//! Which kernel modules an initramfs holds: reads the names in its cpio archives, one after another, the last of them
//! compressed. Unpacks no file, and bounds what it reads: an image can hold anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use crate::host::exec::{Cmd, ExecError};
use crate::host::stop::Stop;

/// Bounds. The largest that distributions make, with all firmware, are near 200 MiB, unpacked 600 MiB.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the file.
    pub packed: u64,
    /// Bytes after decompression, which lie in the folder for temporary files for a moment.
    pub unpacked: u64,
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { packed: 512 << 20, unpacked: 2 << 30, entries: 500_000 }
    }
}

/// A file's name in an archive: `PATH_MAX` of Linux, as in its own reader.
const LONGEST_NAME: u64 = 4096;
const LIMIT: Duration = Duration::from_secs(120);
/// SIGXFSZ: the file that a program writes became larger than it may.
const TOO_LARGE: i32 = 128 + 25;

/// Modules by the kernel version that they are for; named as modprobe does, with `_` for `-`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    pub by_version: BTreeMap<String, BTreeSet<String>>,
    /// Whether systemd in it finds a root by its partition's type, without being told.
    pub finds_root: bool,
}

impl Modules {
    /// Adds those of another image: the kernel unpacks all of them into one place.
    pub fn extend(&mut self, other: &Self) {
        for (version, names) in &other.by_version {
            self.by_version.entry(version.clone()).or_default().extend(names.iter().cloned());
        }
        self.finds_root |= other.finds_root;
    }

    fn add(&mut self, path: &str) {
        let path = path.trim_start_matches("./").trim_start_matches('/');
        let path = path.strip_prefix("usr/").unwrap_or(path);
        self.finds_root |= path == "lib/systemd/system-generators/systemd-gpt-auto-generator";
        if let Some((version, file)) = path.strip_prefix("lib/modules/").and_then(|rest| rest.split_once('/'))
            && let Some(name) = module_name(file)
        {
            self.by_version.entry(version.to_owned()).or_default().insert(name);
        }
    }
}

/// The module in a path such as `kernel/drivers/nvme/host/nvme-core.ko.zst`; `None` where it is none.
#[must_use]
pub fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let stem = [".zst", ".xz", ".gz"].iter().find_map(|end| file.strip_suffix(end)).unwrap_or(file);
    Some(stem.strip_suffix(".ko")?.replace('-', "_"))
}

/// Reads the modules of an initramfs.
///
/// # Errors
/// [`InitramfsError`]: it is none, it is broken, or beyond the limits.
pub async fn modules(file: File, limits: Limits, stop: &Stop) -> Result<Modules, InitramfsError> {
    let size = file.metadata()?.len();
    if size > limits.packed {
        return Err(InitramfsError::TooLarge { what: "the file", limit: limits.packed });
    }
    let mut modules = Modules::default();
    let mut entries = limits.entries;
    let mut reader = BufReader::new(file);
    let rest = archives(&mut reader, size, &mut entries, &mut modules)?;
    let Some((at, magic)) = rest else {
        return Ok(modules);
    };
    let tool = decompressor(&magic).ok_or_else(|| InitramfsError::Format {
        at,
        reason: format!("{} begins no archive and no known compression", hex::encode(&magic)),
    })?;
    let work = tempfile::tempdir()?;
    let packed = work.path().join("packed");
    reader.seek(SeekFrom::Start(at))?;
    io::copy(&mut reader, &mut File::create(&packed)?)?;
    let unpacked = work.path().join("unpacked");
    let complaint = unpack(tool, &packed, &unpacked, limits.unpacked, stop).await?;
    let size = std::fs::metadata(&unpacked)?.len();
    let mut reader = BufReader::new(File::open(&unpacked)?);
    match archives(&mut reader, size, &mut entries, &mut modules) {
        // What follows the compressed archive is not the kernel's, which would have stopped there too; the tool's
        // complaint about it does not matter where the archive is whole.
        Ok(None) if size > 0 => Ok(modules),
        Ok(Some((at, _))) => Err(InitramfsError::Format {
            at,
            reason: "an archive inside of the compressed one is compressed again".to_owned(),
        }),
        Ok(None) => Err(InitramfsError::Broken { tool: tool.0, message: complaint }),
        Err(error) if complaint.is_empty() => Err(error),
        Err(_) => Err(InitramfsError::Broken { tool: tool.0, message: complaint }),
    }
}

type Tool = (&'static str, &'static [&'static str]);

/// What unpacks a format, by its first bytes (Linux `lib/decompress.c`).
fn decompressor(magic: &[u8]) -> Option<Tool> {
    Some(match magic {
        [0x1f, 0x8b | 0x9e, ..] => ("gzip", &["-dcq"]),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", &["-dcq"]),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ("xz", &["-dcq", "-M512MiB"]),
        [0x5d, 0, 0, ..] => ("xz", &["-dcq", "-M512MiB", "--format=lzma"]),
        [0x02, 0x21, 0x4c, 0x18, ..] => ("lz4", &["-dcq"]),
        [b'B', b'Z', b'h', ..] => ("bzip2", &["-dcq"]),
        [0x89, b'L', b'Z', b'O', ..] => ("lzop", &["-dcq"]),
        _ => return None,
    })
}

/// Runs a tool on a file. Gives what it complained of; empty where it ended well.
async fn unpack(
    tool: Tool,
    from: &Path,
    to: &Path,
    limit: u64,
    stop: &Stop,
) -> Result<String, InitramfsError> {
    let (name, options) = tool;
    // The kernel ends a tool that writes too much, so that a bomb costs no more than the limit.
    let exit = Cmd::new("prlimit")
        .args([&format!("--fsize={limit}"), "sh", "-c"])
        .arg(r#"in=$1; out=$2; shift 2; exec "$@" <"$in" >"$out""#)
        .arg("sh")
        .arg(from)
        .arg(to)
        .arg(name)
        .args(options)
        .timeout(LIMIT)
        .stream(stop, &mut |_, _| {})
        .await?;
    match exit.code {
        0 => Ok(String::new()),
        TOO_LARGE => Err(InitramfsError::TooLarge { what: "what is in it", limit }),
        // A tool that catches the signal sees its write fail.
        _ if std::fs::metadata(to)?.len() >= limit => {
            Err(InitramfsError::TooLarge { what: "what is in it", limit })
        }
        code => Ok(format!("exit code {code}: {}", exit.tail.join("; "))),
    }
}

/// Reads plain cpio archives, with zeros between them, until the end or until something else begins: then its place and
/// first bytes.
fn archives(
    reader: &mut BufReader<File>,
    size: u64,
    entries: &mut u64,
    modules: &mut Modules,
) -> Result<Option<(u64, Vec<u8>)>, InitramfsError> {
    let mut at = 0;
    loop {
        at += skip_zeros(reader)?;
        if at >= size {
            return Ok(None);
        }
        let mut magic = Vec::new();
        reader.by_ref().take(6).read_to_end(&mut magic)?;
        reader.seek(SeekFrom::Start(at))?;
        if magic != b"070701" && magic != b"070702" {
            return Ok(Some((at, magic)));
        }
        at = archive(reader, at, size, entries, modules)?;
    }
}

fn skip_zeros(reader: &mut BufReader<File>) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let chunk = reader.fill_buf()?;
        let zeros = chunk.iter().take_while(|byte| **byte == 0).count();
        let whole = zeros == chunk.len();
        let end = chunk.is_empty();
        reader.consume(zeros);
        skipped += zeros as u64;
        if end || !whole {
            return Ok(skipped);
        }
    }
}

/// Reads one archive from byte `at`; gives where it ends. The format is Linux's
/// `Documentation/driver-api/early-userspace/buffer-format.rst`.
fn archive(
    reader: &mut BufReader<File>,
    mut at: u64,
    size: u64,
    entries: &mut u64,
    modules: &mut Modules,
) -> Result<u64, InitramfsError> {
    const HEADER: usize = 110;
    loop {
        let broken = |reason: &str| InitramfsError::Format { at, reason: reason.to_owned() };
        *entries = entries.checked_sub(1).ok_or(InitramfsError::TooMany)?;
        let mut header = [0; HEADER];
        reader.read_exact(&mut header).map_err(|_| broken("it ends within a file's header"))?;
        if &header[..6] != b"070701" && &header[..6] != b"070702" {
            return Err(broken("no file's header begins there"));
        }
        let field = |number: usize| {
            std::str::from_utf8(&header[6 + number * 8..14 + number * 8])
                .ok()
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                .map(u64::from)
                .ok_or_else(|| broken("a header holds what is no number"))
        };
        let (length, name_length) = (field(6)?, field(11)?);
        if name_length == 0 || name_length > LONGEST_NAME {
            return Err(broken("a file's name has no sensible length"));
        }
        let mut name = Vec::new();
        reader.by_ref().take(name_length).read_to_end(&mut name)?;
        let data = (at + HEADER as u64 + name_length).next_multiple_of(4);
        let next = (data + length).next_multiple_of(4);
        // The padding after the last file may be missing.
        if data + length > size {
            return Err(broken("it ends within a file"));
        }
        let name = String::from_utf8_lossy(&name);
        let name = name.trim_end_matches('\0');
        if name == "TRAILER!!!" {
            reader.seek(SeekFrom::Start(data))?;
            return Ok(data);
        }
        modules.add(name);
        // Not `seek`, which would throw the buffer away at every small file.
        let here = at + HEADER as u64 + name_length;
        let ahead = i64::try_from(next.min(size) - here).map_err(|_| broken("a file is too long"))?;
        reader.seek_relative(ahead)?;
        at = next;
    }
}

/// Why an initramfs could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    #[error("{what} is larger than {} MiB", limit >> 20)]
    TooLarge { what: &'static str, limit: u64 },
    #[error("it holds more files than any initramfs does")]
    TooMany,
    #[error("it is no initramfs: {reason} (at byte {at})")]
    Format { at: u64, reason: String },
    #[error("{tool} cannot unpack it ({message})")]
    Broken { tool: &'static str, message: String },
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Exec(#[from] ExecError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_as_modprobe_does() {
        for (path, name) in [
            ("kernel/drivers/nvme/host/nvme-core.ko", Some("nvme_core")),
            ("kernel/net/ena.ko.zst", Some("ena")),
            ("ext4.ko.xz", Some("ext4")),
            ("modules.dep", None),
            ("ko", None),
        ] {
            assert_eq!(module_name(path).as_deref(), name, "{path}");
        }
        let mut modules = Modules::default();
        for path in [
            "usr/lib/modules/6.1/kernel/a.ko",
            "./lib/modules/6.1/b.ko.gz",
            "lib/modules/5/c.ko",
            "lib/x/d.ko",
        ] {
            modules.add(path);
        }
        assert_eq!(modules.by_version["6.1"].len(), 2);
        assert_eq!(modules.by_version["5"].len(), 1);
    }
}
