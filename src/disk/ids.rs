//! The names by which a disk's parts are called: in fstab, on the kernel's command line, in GRUB's menu. Finds which
//! part a name means; knows nothing of what lies inside of it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::filesystem::{self, Filesystem, ProbeError, unescape};
use super::table::{Partition, Table, TableError, TableKind};
use crate::host::stop::Stop;

/// A partition, or a whole disk without a table, and what lies in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub partition: Partition,
    pub filesystem: Option<Filesystem>,
}

impl Volume {
    #[must_use]
    pub fn number(&self) -> u32 {
        self.partition.number
    }

    /// The file system's UUID.
    #[must_use]
    pub fn uuid(&self) -> Option<&str> {
        self.filesystem.as_ref()?.uuid.as_deref()
    }

    /// The file system's label.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.filesystem.as_ref()?.label.as_deref()
    }
}

impl std::fmt::Display for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number() {
            0 => f.write_str("the unpartitioned disk"),
            number => write!(f, "partition {number}"),
        }
    }
}

/// All parts of one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskIds {
    pub kind: TableKind,
    /// The GPT's UUID or the MBR's signature.
    pub disk_id: Option<String>,
    /// In order of where they begin.
    pub volumes: Vec<Volume>,
}

impl DiskIds {
    /// Reads the table of a disk file and looks into every partition.
    ///
    /// # Errors
    /// [`IdsError`]: the table's or the probe's.
    pub async fn read(disk: &Path, stop: &Stop) -> Result<Self, IdsError> {
        let table = Table::read(disk, stop).await?;
        let partitions = if table.kind == TableKind::None {
            let size = super::size_of(disk)
                .map_err(|source| IdsError::Table(TableError::Io { disk: disk.to_owned(), source }))?;
            vec![Partition::whole(size)]
        } else {
            table.partitions
        };
        let mut volumes = Vec::new();
        for partition in partitions {
            let filesystem = if partition.is_container() {
                None
            } else {
                filesystem::probe(disk, partition.start, partition.size, stop).await?
            };
            volumes.push(Volume { partition, filesystem });
        }
        Ok(Self { kind: table.kind, disk_id: table.disk_id, volumes })
    }

    /// The part that a name means; `None` where it means nothing on this disk.
    #[must_use]
    pub fn find(&self, name: &DeviceName) -> Option<&Volume> {
        let same = |own: Option<&str>, asked: &str| own.is_some_and(|own| own.eq_ignore_ascii_case(asked));
        self.volumes.iter().find(|one| match name {
            DeviceName::Uuid(uuid) => same(one.uuid(), uuid),
            DeviceName::PartUuid(uuid) => same(one.partition.uuid.as_deref(), uuid),
            DeviceName::Label(label) => one.label() == Some(label),
            DeviceName::PartLabel(label) => one.partition.name.as_ref() == Some(label),
            DeviceName::Number(number) => one.number() == *number && !one.partition.is_container(),
        })
    }

    #[must_use]
    pub fn volume(&self, number: u32) -> Option<&Volume> {
        self.volumes.iter().find(|one| one.number() == number)
    }
}

/// A name for a part of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceName {
    Uuid(String),
    Label(String),
    PartUuid(String),
    PartLabel(String),
    /// A partition of the disk that the machine boots from; 0 is the whole of it.
    Number(u32),
}

impl DeviceName {
    /// Reads a name as fstab has it: `UUID=…`, `LABEL="…"`, `/dev/disk/by-uuid/…`, `/dev/xvda1`. `None` for what
    /// names no part of the disk that the machine boots from: another disk, a network share, a pseudo file system.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((tag, value)) = text.split_once('=') {
            let value =
                value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value).to_owned();
            return match tag {
                "UUID" => Some(Self::Uuid(value)),
                "LABEL" => Some(Self::Label(value)),
                "PARTUUID" => Some(Self::PartUuid(value)),
                "PARTLABEL" => Some(Self::PartLabel(value)),
                _ => None,
            };
        }
        let device = text.strip_prefix("/dev/")?;
        if let Some(by) = device.strip_prefix("disk/") {
            let (by, value) = by.split_once('/')?;
            let value = unescape(value);
            return match by {
                "by-uuid" => Some(Self::Uuid(value)),
                "by-label" => Some(Self::Label(value)),
                "by-partuuid" => Some(Self::PartUuid(value)),
                "by-partlabel" => Some(Self::PartLabel(value)),
                _ => None,
            };
        }
        kernel_name(device).map(Self::Number)
    }
}

/// The partition that a kernel's device name means on the first disk, as it is called on Xen, NVMe, virtio and SCSI.
fn kernel_name(device: &str) -> Option<u32> {
    for (disk, separator) in [("nvme0n1", "p"), ("xvda", ""), ("sda", ""), ("vda", ""), ("hda", "")] {
        if let Some(rest) = device.strip_prefix(disk) {
            if rest.is_empty() {
                return Some(0);
            }
            let digits = rest.strip_prefix(separator)?;
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            return digits.parse().ok().filter(|number| *number > 0);
        }
    }
    None
}

/// Why a disk's parts could not be named.
#[derive(Debug, thiserror::Error)]
pub enum IdsError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_all_their_forms() {
        use DeviceName::*;
        for (text, name) in [
            ("UUID=AB-CD", Some(Uuid("AB-CD".into()))),
            ("LABEL=\"x y\"", Some(Label("x y".into()))),
            ("PARTUUID=1-01", Some(PartUuid("1-01".into()))),
            ("/dev/disk/by-label/x\\x20y", Some(Label("x y".into()))),
            ("/dev/disk/by-partlabel/a", Some(PartLabel("a".into()))),
            ("/dev/xvda1", Some(Number(1))),
            ("/dev/nvme0n1p15", Some(Number(15))),
            ("/dev/sda", Some(Number(0))),
            ("/dev/sda0", None),
            ("/dev/xvdb1", None),
            ("/dev/nvme1n1p1", None),
            ("/dev/nvme0n11", None),
            ("/dev/sda99999999999", None),
            ("/dev/mapper/vg-root", None),
            ("server:/export", None),
            ("tmpfs", None),
            ("ID=x", None),
            ("", None),
        ] {
            assert_eq!(DeviceName::parse(text), name, "{text}");
        }
    }
}
