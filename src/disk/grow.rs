//! Making a disk larger: the file, the table's end, the root's partition, its file system; or the last three, where a
//! volume is larger than what it was made from. Never makes anything smaller.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::MountFlags;

use super::btrfs;
use super::filesystem::FilesystemKind;
use super::ids::Volume;
use super::layout::{Layout, LayoutError};
use super::mount::{Mount, MountError, Target};
use super::sparse::{SparseDisk, SparseError};
use super::table::{TableError, TableKind, sfdisk};
use crate::host::exec::{Cmd, ExecError};
use crate::host::loop_device::{Access, LoopDevice, LoopError};
use crate::host::stop::Stop;

/// Checking reads every inode table: minutes on the largest volumes.
const LIMIT: Duration = Duration::from_secs(3600);

/// Makes a disk file `bytes` large and lets its root have the new room. Its file systems are not mounted.
///
/// # Errors
/// [`GrowError`]: smaller than it is, a root that is not the last partition, or a tool's failure.
pub async fn grow(disk: &Path, layout: &Layout, bytes: u64, stop: &Stop) -> Result<Layout, GrowError> {
    if bytes == layout.disk_size {
        return Ok(layout.clone());
    }
    let tool = tool(disk, layout)?;
    SparseDisk::open(disk)?.grow(bytes)?;
    into_room(disk, layout, tool, stop).await
}

/// Lets the root of a disk that is as large as it is to be have the room behind it. Its file systems are not mounted.
///
/// # Errors
/// [`GrowError`]: a root that is not the last partition, or a tool's failure.
pub async fn fill(disk: &Path, layout: &Layout, stop: &Stop) -> Result<Layout, GrowError> {
    let tool = tool(disk, layout)?;
    into_room(disk, layout, tool, stop).await
}

/// What grows the root, where that can be.
fn tool(disk: &Path, layout: &Layout) -> Result<Tool, GrowError> {
    let root = &layout.root;
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
    Tool::of(root).ok_or_else(|| GrowError::Unsupported { disk: disk.to_owned(), root: root.to_string() })
}

async fn into_room(disk: &Path, layout: &Layout, tool: Tool, stop: &Stop) -> Result<Layout, GrowError> {
    let root = &layout.root;
    if layout.ids.kind == TableKind::Gpt {
        // The second copy of a GPT lies in the disk's last sectors.
        let relocate = sfdisk().args(["--no-reread", "--no-tell-kernel", "--relocate", "gpt-bak-std"]);
        relocate.arg(disk).run(stop).await?;
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
    let part = &grown.root.partition;
    let device = LoopDevice::attach(disk, part.start, part.size, Access::ReadWrite)?;
    let resized = match tool {
        Tool::Ext4 => grow_ext4(disk, &grown.root, &device, stop).await,
        Tool::Xfs => grow_mounted(&device, FilesystemKind::Xfs, &["xfs_growfs"], stop).await,
        Tool::Btrfs => {
            let command = ["btrfs", "filesystem", "resize", "max"];
            grow_mounted(&device, FilesystemKind::Btrfs, &command, stop).await
        }
    };
    // Also where it failed: then the first error is the one to tell.
    let closed = device.close().await;
    resized?;
    closed?;
    Ok(grown)
}

/// Each file system grows by its own tool: ext4 as it lies there, the others while they are mounted.
#[derive(Clone, Copy)]
enum Tool {
    Ext4,
    Xfs,
    Btrfs,
}

impl Tool {
    fn of(root: &Volume) -> Option<Self> {
        match root.filesystem.as_ref()?.kind {
            FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => Some(Self::Ext4),
            FilesystemKind::Xfs => Some(Self::Xfs),
            FilesystemKind::Btrfs => Some(Self::Btrfs),
            _ => None,
        }
    }
}

async fn grow_mounted(
    device: &LoopDevice,
    kind: FilesystemKind,
    command: &[&str],
    stop: &Stop,
) -> Result<(), GrowError> {
    let at = tempfile::tempdir().map_err(|source| GrowError::Temporary { source })?;
    let (target, flags) =
        (Target::Host(at.path()), MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID);
    let data = kind.driver().map(|driver| driver.read_write).unwrap_or_default();
    let mount = if kind == FilesystemKind::Btrfs {
        btrfs::mount(device, target, flags, data, stop).await?
    } else {
        Mount::new(device.node(), target, kind.as_str(), flags, data)?
    };
    let mut resize = Cmd::new(command[0]).timeout(LIMIT);
    resize = resize.args(&command[1..]).arg(at.path());
    let resized = resize.run(stop).await;
    let synced = mount.sync();
    mount.unmount(&Stop::never()).await?;
    if kind == FilesystemKind::Btrfs {
        btrfs::forget(device).await;
    }
    resized?;
    Ok(synced?)
}

async fn grow_ext4(disk: &Path, root: &Volume, device: &LoopDevice, stop: &Stop) -> Result<(), GrowError> {
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
    Ok(())
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
    #[error("the root of {} ({root}) cannot grow: ext2, ext3, ext4, xfs and btrfs can here", disk.display())]
    Unsupported { disk: PathBuf, root: String },
    #[error("the table of {} was not written as asked: {root} is not where it was", disk.display())]
    Moved { disk: PathBuf, root: String },
    #[error(
        "the file system on {root} of {} is damaged (e2fsck ended with {code}): {tail}",
        disk.display()
    )]
    Damaged { disk: PathBuf, root: String, code: i32, tail: String },
    #[error("cannot make a folder to mount at among the temporary files (TMPDIR)")]
    Temporary { source: std::io::Error },
    #[error(transparent)]
    Mount(#[from] MountError),
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

impl GrowError {
    /// Whether this root can never grow where it lies. The disk is then as it was.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        matches!(self, Self::NotLast { .. } | Self::Logical { .. } | Self::Unsupported { .. })
    }
}
