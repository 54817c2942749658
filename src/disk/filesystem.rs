//! What lies in a part of a disk: a file system, swap, or a layer that is refused by name. Found by blkid's low-level
//! probing, which reads the disk itself and no cache.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::exec::{Cmd, ExecError, Stream};
use crate::host::stop::Stop;

/// Probing reads some hundred kilobytes.
const LIMIT: Duration = Duration::from_secs(60);
/// blkid's exit codes: nothing found, and more than one thing found (blkid(8), "EXIT STATUS").
const NOTHING: i32 = 2;
const AMBIVALENT: i32 = 8;

/// A kind of content, by blkid's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum FilesystemKind {
    Ext2,
    Ext3,
    Ext4,
    Xfs,
    Btrfs,
    Vfat,
    Swap,
    /// A physical volume of LVM.
    Lvm,
    Luks,
    /// A member of a Linux software array.
    Raid,
    Other(String),
}

/// How a kind is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The kernel's name of it.
    pub name: &'static str,
    /// The option that keeps a read-only mount from writing (replaying a journal).
    pub read_only: &'static str,
    /// The options that keep a writing mount from writing more than it is told to, and from waiting for the host's disk:
    /// what a bake mounts is its own copy, which is thrown away after a crash. Without `nobarrier` each fsync of a package
    /// manager would write out all of the disk file that the host's kernel still has in memory.
    pub read_write: &'static str,
}

impl FilesystemKind {
    /// How it is mounted as a root or below one; `None` for what cannot be. The one place that says which kinds are
    /// supported.
    #[must_use]
    pub fn driver(&self) -> Option<Driver> {
        match self {
            Self::Ext2 | Self::Ext3 | Self::Ext4 => Some(Driver {
                name: "ext4",
                // `errors`: an image may say that its first error is to panic the kernel, and the kernel is the host's.
                read_only: "noload,errors=remount-ro",
                // Else a kernel thread goes on to zero inode tables behind the bake's back, and every block of them
                // would be in the delta.
                read_write: "noinit_itable,nobarrier,errors=remount-ro",
            }),
            Self::Vfat => Some(Driver { name: "vfat", read_only: "", read_write: "" }),
            // A copy of a disk has the UUID of the disk that it was made from, which this machine may have mounted.
            Self::Xfs => Some(Driver { name: "xfs", read_only: "norecovery,nouuid", read_write: "nouuid" }),
            Self::Btrfs => {
                Some(Driver { name: "btrfs", read_only: "rescue=nologreplay", read_write: "nobarrier" })
            }
            Self::Swap | Self::Lvm | Self::Luks | Self::Raid | Self::Other(_) => None,
        }
    }

    /// Whether a root can lie on it, supported here or not.
    #[must_use]
    pub fn may_be_root(&self) -> bool {
        !matches!(self, Self::Vfat | Self::Swap)
    }

    /// The kernel module that mounts it as a root.
    #[must_use]
    pub fn module(&self) -> Option<&'static str> {
        match self {
            Self::Ext2 | Self::Ext3 | Self::Ext4 => Some("ext4"),
            Self::Xfs => Some("xfs"),
            Self::Btrfs => Some("btrfs"),
            _ => None,
        }
    }

    /// blkid's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Vfat => "vfat",
            Self::Swap => "swap",
            Self::Lvm => "LVM2_member",
            Self::Luks => "crypto_LUKS",
            Self::Raid => "linux_raid_member",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for FilesystemKind {
    fn from(name: String) -> Self {
        match name.as_str() {
            "ext2" => Self::Ext2,
            "ext3" => Self::Ext3,
            "ext4" => Self::Ext4,
            "xfs" => Self::Xfs,
            "btrfs" => Self::Btrfs,
            "vfat" => Self::Vfat,
            "swap" => Self::Swap,
            "LVM2_member" | "LVM1_member" => Self::Lvm,
            "crypto_LUKS" => Self::Luks,
            "linux_raid_member" => Self::Raid,
            _ => Self::Other(name),
        }
    }
}

impl From<FilesystemKind> for String {
    fn from(kind: FilesystemKind) -> Self {
        kind.as_str().to_owned()
    }
}

impl std::fmt::Display for FilesystemKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was found in a part of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    pub kind: FilesystemKind,
    /// What `UUID=` names.
    pub uuid: Option<String>,
    /// What `LABEL=` names.
    pub label: Option<String>,
}

impl Filesystem {
    /// Reads what blkid wrote in its udev form. `None` where it names no file system.
    #[must_use]
    pub fn parse(output: &str) -> Option<Self> {
        Some(Self {
            kind: value(output, "ID_FS_TYPE")?.into(),
            uuid: value(output, "ID_FS_UUID_ENC"),
            label: value(output, "ID_FS_LABEL_ENC"),
        })
    }
}

/// Looks at `size` bytes of a disk file from byte `offset`. `None` where blkid knows nothing of what is there.
///
/// # Errors
/// [`ProbeError`]: two things at once, or blkid's failure.
pub async fn probe(
    disk: &Path,
    offset: u64,
    size: u64,
    stop: &Stop,
) -> Result<Option<Filesystem>, ProbeError> {
    let found = blkid(disk, &["--offset", &offset.to_string(), "--size", &size.to_string()], stop).await?;
    Ok(Filesystem::parse(&found))
}

/// The kind of partition table of a disk file, by blkid's name: `gpt`, `dos`. `None` where there is none.
pub(super) async fn probe_table(disk: &Path, stop: &Stop) -> Result<Option<String>, ProbeError> {
    let found = blkid(disk, &[], stop).await?;
    let table = value(&found, "ID_PART_TABLE_TYPE");
    // The boot sector of a file system that fills the disk may pass for an MBR; for a GPT it cannot.
    if table.as_deref() == Some("dos") && value(&found, "ID_FS_TYPE").is_some() {
        return Ok(None);
    }
    Ok(table)
}

async fn blkid(disk: &Path, options: &[&str], stop: &Stop) -> Result<String, ProbeError> {
    let mut lines = String::new();
    // The udev form alone tells every byte of a label apart: `\x20`.
    let exit = Cmd::new("blkid")
        .args(["--probe", "--output", "udev"])
        .args(options)
        .arg(disk)
        .env("LC_ALL", "C")
        .timeout(LIMIT)
        .stream(stop, &mut |stream, line| {
            if stream == Stream::Out {
                lines.push_str(line);
                lines.push('\n');
            }
        })
        .await?;
    match exit.code {
        0 => Ok(lines),
        NOTHING if std::fs::metadata(disk).is_ok() => Ok(String::new()),
        AMBIVALENT => Err(ProbeError::Ambivalent { disk: disk.to_owned() }),
        code => Err(ProbeError::Failed { disk: disk.to_owned(), code, message: exit.tail.join("; ") }),
    }
}

/// The first value of a name in blkid's output.
fn value(output: &str, name: &str) -> Option<String> {
    let (_, value) = output.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| *key == name)?;
    Some(if name.ends_with("_ENC") { unescape(value) } else { value.to_owned() })
}

/// Reads udev's escapes: `\x20` is a space. What is no whole escape stays as it is.
pub(super) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'\\'
            && tail.first() == Some(&b'x')
            && let Some(digits) = tail.get(1..3)
            && digits.iter().all(u8::is_ascii_hexdigit)
            && let Ok(digits) = std::str::from_utf8(digits)
            && let Ok(byte) = u8::from_str_radix(digits, 16)
        {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Why a part of a disk could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "{} looks like two things at once; wipe the stale signature (wipefs shows them)",
        disk.display()
    )]
    Ambivalent { disk: PathBuf },
    #[error("blkid failed on {} with exit code {code}: {message}", disk.display())]
    Failed { disk: PathBuf, code: i32, message: String },
    #[error(transparent)]
    Exec(#[from] ExecError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_byte_for_byte() {
        assert_eq!(unescape(r"x\x20y\x22z"), "x y\"z");
        assert_eq!(unescape(r"\x2"), r"\x2");
        assert_eq!(unescape(r"\xzz\"), r"\xzz\");
        let output = "nothing\nID_FS_TYPE=ext4\nID_FS_LABEL_ENC=a=\\x20b\n";
        let found = Filesystem::parse(output).unwrap();
        assert_eq!((found.label.as_deref(), found.uuid), (Some("a= b"), None));
        assert_eq!(Filesystem::parse("nothing"), None);
    }

    #[test]
    fn a_kind_survives_its_name() {
        for name in ["ext4", "xfs", "LVM2_member", "crypto_LUKS", "zfs_member"] {
            assert_eq!(FilesystemKind::from(name.to_owned()).as_str(), name);
        }
    }
}
