//! Making a disk larger: the file, the table's end, the root's partition, its file system. Never makes anything smaller.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::filesystem::FilesystemKind;
use super::ids::Volume;
use super::layout::{Layout, LayoutError};
use super::loop_device::{Access, LoopDevice, LoopError};
use super::sparse::{SparseDisk, SparseError};
use super::table::{TableError, TableKind, sfdisk};
use crate::host::exec::{Cmd, ExecError};
use crate::host::stop::Stop;

/// Checking reads every inode table: minutes on the largest volumes.
const LIMIT: Duration = Duration::from_secs(3600);

/// Makes a disk file `bytes` large and lets its root have the new room. Its file systems are not mounted.
///
/// # Errors
/// [`GrowError`]: smaller than it is, a root that is not the last partition, or a tool's failure.
pub async fn grow(disk: &Path, layout: &Layout, bytes: u64, stop: &Stop) -> Result<Layout, GrowError> {
    let root = &layout.root;
    if bytes == layout.disk_size {
        return Ok(layout.clone());
    }
    if let Some(behind) = layout.ids.volumes.iter().find(|one| one.partition.start > root.partition.start) {
        return Err(GrowError::NotLast {
            disk: disk.to_owned(),
            root: root.to_string(),
            behind: behind.to_string(),
        });
    }
    if layout.ids.kind == TableKind::Mbr && root.number() > 4 {
        return Err(GrowError::Logical { disk: disk.to_owned(), root: root.to_string() });
    }
    let kind = root.filesystem.as_ref().map(|found| &found.kind);
    if !matches!(kind, Some(FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4)) {
        return Err(GrowError::Unsupported { disk: disk.to_owned(), root: root.to_string() });
    }
    SparseDisk::open(disk)?.grow(bytes)?;
    if layout.ids.kind == TableKind::Gpt {
        // The second copy of a GPT lies in the disk's last sectors.
        sfdisk().args(["--relocate", "gpt-bak-std"]).arg(disk).run(stop).await?;
    }
    if layout.ids.kind != TableKind::None {
        sfdisk()
            .args(["--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never"])
            .args(["--wipe-partitions", "never"])
            .args(["-N", &root.number().to_string()])
            .arg(disk)
            .stdin(", +\n")
            .run(stop)
            .await?;
    }
    let grown = Layout::find(disk, stop).await?;
    if grown.root.partition.start != root.partition.start || grown.root.partition.size < root.partition.size {
        return Err(GrowError::Moved { disk: disk.to_owned(), root: root.to_string() });
    }
    grow_ext4(disk, &grown.root, stop).await?;
    Ok(grown)
}

async fn grow_ext4(disk: &Path, root: &Volume, stop: &Stop) -> Result<(), GrowError> {
    let device = LoopDevice::attach(disk, root.partition.start, root.partition.size, Access::ReadWrite)?;
    // resize2fs insists on a check since the last mount.
    let checked = Cmd::new("e2fsck")
        .args(["-f", "-p"])
        .arg(device.node())
        .timeout(LIMIT)
        .stream(stop, &mut |_, _| {})
        .await?;
    // 1: errors were corrected (e2fsck(8), "EXIT CODE").
    if checked.code > 1 {
        return Err(GrowError::Damaged {
            disk: disk.to_owned(),
            root: root.to_string(),
            code: checked.code,
            tail: checked.tail.join("; "),
        });
    }
    Cmd::new("resize2fs").arg(device.node()).timeout(LIMIT).run(stop).await?;
    Ok(device.close().await?)
}

/// Why a disk was not made larger.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    #[error(
        "the root of {} cannot grow: it is {root}, and {behind} lies behind it; leave the disk's size as it is",
        disk.display()
    )]
    NotLast { disk: PathBuf, root: String, behind: String },
    #[error(
        "the root of {} cannot grow: it is {root}, inside an extended partition; leave the disk's size as it is",
        disk.display()
    )]
    Logical { disk: PathBuf, root: String },
    #[error("the root of {} ({root}) cannot grow: only ext4 can here", disk.display())]
    Unsupported { disk: PathBuf, root: String },
    #[error("the table of {} was not written as asked: {root} is not where it was", disk.display())]
    Moved { disk: PathBuf, root: String },
    #[error(
        "the file system on {root} of {} is damaged (e2fsck ended with {code}): {tail}",
        disk.display()
    )]
    Damaged { disk: PathBuf, root: String, code: i32, tail: String },
    #[error(transparent)]
    Sparse(#[from] SparseError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Loop(#[from] LoopError),
    #[error(transparent)]
    Exec(#[from] ExecError),
}
