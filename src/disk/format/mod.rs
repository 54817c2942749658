//! From a finished root folder to a whole disk that boots: partitions, file systems, boot loaders, all in a file. One
//! file for each file system that a root can be made on; the same folder, ids and time give the same bytes as far as its
//! tools can (ext4's come near, the others' do not).

mod btrfs;
mod copy;
mod ext4;
mod needs;
mod xfs;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

pub use btrfs::Btrfs;
pub use ext4::Ext4;
pub use needs::Needs;
pub use xfs::Xfs;

use super::MIB;
use super::boot_config::ScratchIds;
use super::boot_loader::{self, BootLoaderError, Platform};
use super::filesystem::FilesystemKind;
use super::layout::{Layout, LayoutError};
use super::mount::MountError;
use super::sparse::{SparseDisk, SparseError};
use super::table::{TYPE_BIOS_BOOT, TYPE_ESP, TYPE_ROOT_ARM64, TYPE_ROOT_X86_64, Table, TableError};
use crate::host::exec::ExecError;
use crate::host::loop_device::LoopError;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

/// EBS volumes come in whole GiB.
const GIB: u64 = 1024 * MIB;
/// Byte offsets and sizes of the partitions: the layout of Debian's and Ubuntu's cloud images, the root last so that it
/// can grow.
const BIOS_START: u64 = MIB;
const ESP_START: u64 = 4 * MIB;
const ESP_SIZE: u64 = 64 * MIB;
const ROOT_START: u64 = ESP_START + ESP_SIZE;
/// A GPT's copy takes the last 33 sectors; a whole MiB keeps the end aligned.
const END_ROOM: u64 = MIB;

/// Room for the first boot, which writes before it grows the root: host keys, logs, package lists.
const ROOM: u64 = 128 * MIB;

/// Writing some GiB; a slow disk takes minutes.
const LIMIT: Duration = Duration::from_secs(3600);

/// A file system that a root can be made on: one file each. `method/scratch.rs` has the table by the recipe's names.
#[async_trait]
pub trait RootFormat: std::fmt::Debug + Send + Sync {
    /// What blkid and the kernel call it.
    fn kind(&self) -> FilesystemKind;

    /// The last three fields of the root's line in fstab: options, dump, and the order of the check at boot.
    fn fstab(&self) -> &'static str;

    /// Bytes of the least partition that takes the files and leaves room for the first boot, which writes before it grows.
    fn least(&self, needs: &Needs) -> u64;

    /// Makes it from the root folder, at its place in the disk file, labelled `root`. Leaves no mount and no loop device,
    /// on an error neither.
    ///
    /// # Errors
    /// [`FormatError`]: a tool's failure, or what the kernel cannot mount.
    async fn make(&self, part: &Part<'_>, stop: &Stop) -> Result<(), FormatError>;
}

/// Where a root's file system is made, and of what.
#[derive(Debug)]
pub struct Part<'a> {
    pub root: &'a Path,
    pub disk: &'a Path,
    /// Its place in the disk file, in bytes.
    pub start: u64,
    pub size: u64,
    pub ids: &'a ScratchIds,
    /// The time in all that is made, in seconds since 1970.
    pub epoch: i64,
    pub needs: &'a Needs,
}

/// What to make.
#[derive(Debug)]
pub struct Spec<'a> {
    /// The finished root, with its boot configuration.
    pub root: &'a Path,
    /// The file to make; there must be none.
    pub disk: &'a Path,
    pub ids: &'a ScratchIds,
    /// The root's file system.
    pub format: &'a dyn RootFormat,
    /// The time in all that is made, in seconds since 1970.
    pub epoch: i64,
    /// The whole disk's size in bytes where the recipe says one; else the least whole GiB that holds the files.
    pub size: Option<u64>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// The whole disk's, in bytes.
    pub size: u64,
    pub layout: Layout,
    /// What it boots on.
    pub platforms: Vec<Platform>,
}

/// Makes the disk. On an error no file stays.
///
/// # Errors
/// [`FormatError`]: no boot loader in the root, too small a disk, or a tool's failure.
pub async fn make(spec: &Spec<'_>, stop: &Stop) -> Result<Made, FormatError> {
    let root = RootDir::open(spec.root)
        .map_err(|source| FormatError::Root { path: spec.root.to_owned(), source })?;
    let platforms = boot_loader::platforms(&root);
    if platforms.is_empty() {
        return Err(FormatError::NoBootLoader { root: spec.root.to_owned() });
    }
    let needs = Needs::of(spec.root)?;
    let sizes = Sizes::of(spec.format, &needs, spec.size)?;
    let disk = SparseDisk::create(spec.disk, sizes.disk)?;
    let part = Part {
        root: spec.root,
        disk: spec.disk,
        start: ROOT_START,
        size: sizes.root,
        ids: spec.ids,
        epoch: spec.epoch,
        needs: &needs,
    };
    let made = fill(spec, &part, &root, &platforms, &disk, stop).await;
    if made.is_err() {
        // Half a disk is of no use; the first error is the one to tell.
        let _ = std::fs::remove_file(spec.disk);
    }
    let layout = made?;
    Ok(Made { size: sizes.disk, layout, platforms })
}

async fn fill(
    spec: &Spec<'_>,
    root_part: &Part<'_>,
    root: &RootDir,
    platforms: &[Platform],
    disk: &SparseDisk,
    stop: &Stop,
) -> Result<Layout, FormatError> {
    Table::write(spec.disk, &table_script(spec.ids, platforms, root_part.size), stop).await?;
    // Read back: tools that wrote no table and raised no error have been seen.
    let table = Table::read(spec.disk, stop).await?;
    let part = |number: u32| {
        table.partition(number).ok_or_else(|| FormatError::NoPartition { disk: spec.disk.to_owned(), number })
    };
    if part(ROOT_NUMBER)?.start != ROOT_START {
        return Err(FormatError::NoPartition { disk: spec.disk.to_owned(), number: ROOT_NUMBER });
    }
    let mut cores = Vec::new();
    for platform in platforms {
        let core = boot_loader::core_image(root, spec.ids.root, *platform, stop).await?;
        if *platform == Platform::Bios {
            boot_loader::embed_bios(disk, part(BIOS_NUMBER)?, &boot_loader::boot_image(root)?, core)?;
        } else {
            cores.push((*platform, core));
        }
    }
    boot_loader::make_esp(spec.disk, part(ESP_NUMBER)?, spec.ids.esp_serial, spec.epoch, &cores, stop)
        .await?;
    spec.format.make(root_part, stop).await?;
    Ok(Layout::find(spec.disk, stop).await?)
}

const ROOT_NUMBER: u32 = 1;
const BIOS_NUMBER: u32 = 14;
const ESP_NUMBER: u32 = 15;

/// The table in sfdisk's script language, in sectors.
fn table_script(ids: &ScratchIds, platforms: &[Platform], root_size: u64) -> String {
    let sector = |bytes: u64| bytes / super::SECTOR;
    let root_type = if platforms.contains(&Platform::UefiArm) { TYPE_ROOT_ARM64 } else { TYPE_ROOT_X86_64 };
    format!(
        "label: gpt\nlabel-id: {}\nunit: sectors\nfirst-lba: {}\n\
         {BIOS_NUMBER}: start={}, size={}, type={TYPE_BIOS_BOOT}, uuid={}\n\
         {ESP_NUMBER}: start={}, size={}, type={TYPE_ESP}, uuid={}\n\
         {ROOT_NUMBER}: start={}, size={}, type={root_type}, uuid={}\n",
        ids.disk,
        sector(BIOS_START),
        sector(BIOS_START),
        sector(ESP_START - BIOS_START),
        ids.bios_partition,
        sector(ESP_START),
        sector(ESP_SIZE),
        ids.esp_partition,
        sector(ROOT_START),
        sector(root_size),
        ids.root_partition,
    )
}

/// The sizes that follow from the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    /// The whole disk, in bytes.
    disk: u64,
    /// The root's partition and file system, in bytes.
    root: u64,
}

impl Sizes {
    fn of(format: &dyn RootFormat, needs: &Needs, asked: Option<u64>) -> Result<Self, FormatError> {
        let root = format.least(needs).next_multiple_of(MIB);
        let least = ROOT_START + root + END_ROOM;
        match asked {
            None => Ok(Self { disk: least.next_multiple_of(GIB), root }),
            Some(size) if size < least => Err(FormatError::TooSmall { size, kind: format.kind(), least }),
            // A file system of the asked size: the recipe wants the room in the image already, and has to store it.
            Some(disk) => Ok(Self { disk, root: (disk - ROOT_START - END_ROOM) / MIB * MIB }),
        }
    }
}

/// Why no disk was made.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("cannot read {}", path.display())]
    Root { path: PathBuf, source: std::io::Error },
    #[error("something is still mounted at {}; unmount it before the disk is made", path.display())]
    Mounted { path: PathBuf },
    #[error(
        "the root {} has no boot loader: install grub-pc-bin or grub-efi-amd64-bin (arm64: grub-efi-arm64-bin) in it",
        root.display()
    )]
    NoBootLoader { root: PathBuf },
    #[error(
        "a disk of {} MiB is too small for the root's files on {kind}; ask for at least {} GiB",
        size / MIB,
        least.div_ceil(GIB)
    )]
    TooSmall { size: u64, kind: FilesystemKind, least: u64 },
    #[error("mkfs.xfs does not say its version but `{said}`; install xfsprogs 5.19 or later")]
    NoVersion { said: String },
    #[error("the table of {} was not written as asked: partition {number} is not there", disk.display())]
    NoPartition { disk: PathBuf, number: u32 },
    #[error(transparent)]
    Sparse(#[from] SparseError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    BootLoader(#[from] BootLoaderError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Loop(#[from] LoopError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("nothing says how {kind} is mounted here, so no root can be made on it")]
    NoDriver { kind: FilesystemKind },
    #[error("cannot make a folder for temporary files (TMPDIR)")]
    Temporary { source: std::io::Error },
    #[error(transparent)]
    Exec(#[from] ExecError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&dyn RootFormat; 3] = [&Ext4, &Xfs, &Btrfs];

    #[test]
    fn a_disk_is_whole_gib_and_its_root_as_small_as_its_files_allow() {
        let needs = Needs { inodes: 20_000, data: 560 * MIB };
        for format in ALL {
            let small = Sizes::of(format, &needs, None).unwrap();
            assert_eq!(small.disk % GIB, 0, "{format:?}");
            assert!(small.root > needs.data + ROOM && small.root < 1200 * MIB, "{format:?}: {small:?}");
            let asked = Sizes::of(format, &needs, Some(4 * GIB)).unwrap();
            assert_eq!(asked, Sizes { disk: 4 * GIB, root: 4 * GIB - 69 * MIB });
            let error = Sizes::of(format, &needs, Some(512 * MIB)).unwrap_err();
            assert!(matches!(error, FormatError::TooSmall { least, .. } if least > small.root), "{error}");
        }
    }

    #[test]
    fn no_file_system_is_smaller_than_its_tools_make() {
        let nothing = Needs { inodes: 1, data: 4096 };
        for (format, least) in ALL.into_iter().zip([ROOM, xfs::LEAST, btrfs::LEAST]) {
            assert!(Sizes::of(format, &nothing, None).unwrap().root >= least, "{format:?}");
        }
    }
}
