//! Partition tables, read by sfdisk and checked: GPT, MBR, or none. Never trusts what a table says of itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SECTOR;
use super::filesystem::{self, ProbeError};
use crate::host::exec::{Cmd, ExecError};
use crate::host::stop::Stop;

/// Reading or writing a table is a matter of milliseconds; a tool that takes longer has lost its way in a hostile one.
const LIMIT: Duration = Duration::from_secs(60);

/// The GPT type of an EFI system partition (UEFI specification, table of partition types).
pub const TYPE_ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
/// The GPT type of a BIOS boot partition (GRUB manual, "BIOS installation").
pub const TYPE_BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";
/// The GPT type of an extended boot loader partition (UAPI Discoverable Partitions Specification).
pub const TYPE_XBOOTLDR: &str = "BC13C2FF-59E6-4262-A352-B275FD6F7172";
/// The GPT type of an x86-64 root (UAPI Discoverable Partitions Specification).
pub const TYPE_ROOT_X86_64: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";
/// The GPT type of an arm64 root (UAPI Discoverable Partitions Specification).
pub const TYPE_ROOT_ARM64: &str = "B921B045-1DF0-41C3-AF44-4C6F280D3FAE";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    Gpt,
    Mbr,
    /// The whole disk is one file system, or empty.
    None,
}

/// What a disk is divided into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub kind: TableKind,
    /// The GPT's UUID, or the MBR's signature as 8 hexadecimal digits.
    pub disk_id: Option<String>,
    /// In order of where they begin.
    pub partitions: Vec<Partition>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// As in the kernel's device names. 0 where the disk has no table and this is all of it.
    pub number: u32,
    /// In bytes from the disk's beginning.
    pub start: u64,
    /// In bytes.
    pub size: u64,
    /// GPT: the type's UUID in upper case; MBR: hexadecimal digits without `0x`.
    pub type_id: String,
    /// What `PARTUUID=` names, in lower case; MBR: `SIGNATURE-NN`, as the kernel makes it.
    pub uuid: Option<String>,
    /// What `PARTLABEL=` names.
    pub name: Option<String>,
    pub bootable: bool,
}

impl Partition {
    /// All of a disk that has no table.
    #[must_use]
    pub fn whole(size: u64) -> Self {
        Self { number: 0, start: 0, size, type_id: String::new(), uuid: None, name: None, bootable: false }
    }

    /// The first byte after it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// An MBR's extended partition: holds other partitions and no file system.
    #[must_use]
    pub fn is_container(&self) -> bool {
        matches!(self.type_id.as_str(), "5" | "f" | "85")
    }

    #[must_use]
    pub fn is_esp(&self) -> bool {
        self.type_id.eq_ignore_ascii_case(TYPE_ESP) || self.type_id.eq_ignore_ascii_case("ef")
    }
}

impl Table {
    /// Reads a disk file's table.
    ///
    /// # Errors
    /// [`TableError`]: cannot be read, or says what cannot be: partitions that overlap or lie beyond the disk's end.
    pub async fn read(disk: &Path, stop: &Stop) -> Result<Self, TableError> {
        let size = super::size_of(disk).map_err(|source| TableError::Io { disk: disk.to_owned(), source })?;
        match filesystem::probe_table(disk, stop).await?.as_deref() {
            None => Ok(Self { kind: TableKind::None, disk_id: None, partitions: Vec::new() }),
            Some("gpt" | "dos") => {
                let json = sfdisk().arg("--json").arg(disk).run(stop).await?.text();
                parse(&json, size).map_err(|reason| TableError::Invalid { disk: disk.to_owned(), reason })
            }
            // What blkid makes of the MBR of a GPT whose own table it does not find.
            Some("PMBR") => Err(TableError::Invalid {
                disk: disk.to_owned(),
                reason:
                    "its MBR says that there is a GPT, and there is none that is whole; was the file cut off?"
                        .to_owned(),
            }),
            Some(other) => Err(TableError::Unsupported { disk: disk.to_owned(), kind: other.to_owned() }),
        }
    }

    /// Writes a table from sfdisk's own script language, in place of what is there.
    ///
    /// # Errors
    /// sfdisk's.
    pub async fn write(disk: &Path, script: &str, stop: &Stop) -> Result<(), TableError> {
        sfdisk()
            .args(["--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "always"])
            .arg(disk)
            .stdin(script)
            .run(stop)
            .await?;
        Ok(())
    }

    #[must_use]
    pub fn partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.iter().find(|one| one.number == number)
    }
}

/// sfdisk with what all its uses share.
pub(super) fn sfdisk() -> Cmd {
    Cmd::new("sfdisk").env("LC_ALL", "C").timeout(LIMIT)
}

#[derive(Deserialize)]
struct Dump {
    partitiontable: DumpTable,
}

#[derive(Deserialize)]
struct DumpTable {
    label: String,
    id: Option<String>,
    device: String,
    unit: String,
    sectorsize: Option<u64>,
    #[serde(default)]
    partitions: Vec<DumpPartition>,
}

#[derive(Deserialize)]
struct DumpPartition {
    node: String,
    start: u64,
    size: u64,
    #[serde(rename = "type")]
    type_id: String,
    uuid: Option<String>,
    name: Option<String>,
    #[serde(default)]
    bootable: bool,
}

/// Reads what `sfdisk --json` wrote for a disk of `disk_size` bytes.
///
/// # Errors
/// What is wrong with it.
pub fn parse(json: &str, disk_size: u64) -> Result<Table, String> {
    let dump: Dump =
        serde_json::from_str(json).map_err(|error| format!("sfdisk wrote what is no table: {error}"))?;
    let dump = dump.partitiontable;
    let kind = match dump.label.as_str() {
        "gpt" => TableKind::Gpt,
        "dos" => TableKind::Mbr,
        other => return Err(format!("a table of kind `{other}`")),
    };
    if dump.unit != "sectors" || dump.sectorsize.is_some_and(|bytes| bytes != SECTOR) {
        return Err("its sectors are not of 512 bytes".to_owned());
    }
    let disk_id = dump.id.map(|id| match kind {
        TableKind::Mbr => id.trim_start_matches("0x").to_lowercase(),
        _ => id,
    });
    let mut partitions = Vec::new();
    for one in dump.partitions {
        let number = number(&dump.device, &one.node)?;
        let bytes = |sectors: u64| {
            sectors.checked_mul(SECTOR).ok_or_else(|| format!("partition {number} is beyond all bounds"))
        };
        let (start, size) = (bytes(one.start)?, bytes(one.size)?);
        let end =
            start.checked_add(size).ok_or_else(|| format!("partition {number} is beyond all bounds"))?;
        if start == 0 || size == 0 || end > disk_size {
            return Err(format!(
                "partition {number} reaches from byte {start} to {end} of a disk of {disk_size} bytes"
            ));
        }
        let uuid = match kind {
            TableKind::Mbr => disk_id.as_ref().map(|id| format!("{id}-{number:02x}")),
            _ => one.uuid.map(|uuid| uuid.to_lowercase()),
        };
        partitions.push(Partition {
            number,
            start,
            size,
            type_id: match kind {
                TableKind::Mbr => one.type_id.to_lowercase(),
                _ => one.type_id.to_uppercase(),
            },
            uuid,
            name: one.name.filter(|name| !name.is_empty()),
            bootable: one.bootable,
        });
    }
    partitions.sort_by_key(|one| (one.start, one.number));
    let mut last: Option<&Partition> = None;
    for one in partitions.iter().filter(|one| !one.is_container()) {
        if let Some(before) = last.filter(|before| before.end() > one.start) {
            return Err(format!("partitions {} and {} overlap", before.number, one.number));
        }
        last = Some(one);
    }
    let mut numbers: Vec<u32> = partitions.iter().map(|one| one.number).collect();
    numbers.sort_unstable();
    if numbers.windows(2).any(|two| two[0] == two[1]) {
        return Err("two partitions have one number".to_owned());
    }
    Ok(Table { kind, disk_id, partitions })
}

/// The number in a node's name: the disk's name, a `p` where that ends in a digit, the number.
fn number(device: &str, node: &str) -> Result<u32, String> {
    node.strip_prefix(device)
        .map(|rest| rest.strip_prefix('p').unwrap_or(rest))
        .and_then(|digits| digits.parse().ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("`{node}` is no partition of `{device}`"))
}

/// Why a disk's table cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("cannot read the disk file {}", disk.display())]
    Io { disk: PathBuf, source: std::io::Error },
    #[error("the partition table of {} is not valid: {reason}", disk.display())]
    Invalid { disk: PathBuf, reason: String },
    #[error("{} has a partition table of kind `{kind}`; only GPT and MBR are known", disk.display())]
    Unsupported { disk: PathBuf, kind: String },
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Exec(#[from] ExecError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpt(partitions: &[(&str, u64, u64)]) -> String {
        let partitions: Vec<String> = partitions
            .iter()
            .map(|(node, start, size)| {
                format!(
                    r#"{{"node":"{node}","start":{start},"size":{size},"type":"0fc63daf-8483-4772-8e79-3d69d8477de4","uuid":"AB","name":""}}"#
                )
            })
            .collect();
        format!(
            r#"{{"partitiontable":{{"label":"gpt","id":"X","device":"d1","unit":"sectors","sectorsize":512,"partitions":[{}]}}}}"#,
            partitions.join(",")
        )
    }

    #[test]
    fn partitions_come_in_the_order_of_the_disk_and_in_bytes() {
        let table = parse(&gpt(&[("d1p1", 4096, 2048), ("d1p14", 2048, 2048)]), 64 << 20).unwrap();
        assert_eq!(table.kind, TableKind::Gpt);
        let found: Vec<_> = table.partitions.iter().map(|one| (one.number, one.start, one.size)).collect();
        assert_eq!(found, [(14, 1 << 20, 1 << 20), (1, 2 << 20, 1 << 20)]);
        assert_eq!(table.partitions[0].uuid.as_deref(), Some("ab"));
        assert_eq!(table.partitions[0].name, None);
    }

    #[test]
    fn a_hostile_table_is_an_error() {
        for (partitions, reason) in [
            (&[("d1p1", 2048, 4096), ("d1p2", 4096, 4096)][..], "overlap"),
            (&[("d1p1", 2048, 1 << 40)], "reaches"),
            (&[("d1p1", u64::MAX, 1)], "beyond all bounds"),
            (&[("d1p1", 1 << 54, u64::MAX >> 9)], "beyond all bounds"),
            (&[("d1p1", 0, 1)], "reaches"),
            (&[("d1p1", 2048, 0)], "reaches"),
            (&[("d1p0", 2048, 1)], "is no partition"),
            (&[("other1", 2048, 1)], "is no partition"),
            (&[("d1p1", 2048, 1), ("d1p1", 4096, 1)], "one number"),
        ] {
            let error = parse(&gpt(partitions), 64 << 20).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(parse("{}", 1).is_err());
        assert!(parse("", 1).is_err());
        assert!(parse(&gpt(&[]).replace(":512", ":4096"), 1).is_err());
        assert!(parse(&gpt(&[]).replace("\"gpt\"", "\"sun\""), 1).is_err());
    }

    #[test]
    fn an_extended_partition_may_hold_others() {
        let json = r#"{"partitiontable":{"label":"dos","id":"0x8004B731","device":"m.raw","unit":"sectors","sectorsize":512,
            "partitions":[{"node":"m.raw1","start":2048,"size":2048,"type":"83","bootable":true},
            {"node":"m.raw2","start":4096,"size":8192,"type":"5"},{"node":"m.raw5","start":6144,"size":2048,"type":"83"}]}}"#;
        let table = parse(json, 64 << 20).unwrap();
        assert_eq!(table.partition(5).unwrap().uuid.as_deref(), Some("8004b731-05"));
        assert!(table.partition(2).unwrap().is_container());
        assert!(table.partition(1).unwrap().bootable);
    }
}
