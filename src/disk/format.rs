//! From a finished root folder to a whole disk that boots: partitions, file systems, boot loaders, all in a file and
//! without a mount. The same folder, ids and time give the same bytes as far as mke2fs can.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::MIB;
use super::boot_config::ScratchIds;
use super::boot_loader::{self, BootLoaderError, Platform};
use super::layout::{Layout, LayoutError};
use super::sparse::{SparseDisk, SparseError};
use super::table::{TYPE_BIOS_BOOT, TYPE_ESP, TYPE_ROOT_ARM64, TYPE_ROOT_X86_64, Table, TableError};
use crate::host::exec::{Cmd, ExecError};
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

/// ext4's block, and the inode that mke2fs makes.
const BLOCK: u64 = 4096;
const INODE: u64 = 256;
/// The journal: what mke2fs gives file systems of this size at most.
const JOURNAL: u64 = 64 * MIB;
/// Room for the first boot, which writes before it grows the root: host keys, logs, package lists.
const ROOM: u64 = 128 * MIB;
const ROOM_PERCENT: u64 = 15;
/// One inode for so many bytes, mke2fs's own default: a root with many small files gets more.
const BYTES_PER_INODE: u64 = 16 * 1024;

/// Writing some GiB; a slow disk takes minutes.
const LIMIT: Duration = Duration::from_secs(3600);

/// What to make.
#[derive(Debug)]
pub struct Spec<'a> {
    /// The finished root, with its boot configuration.
    pub root: &'a Path,
    /// The file to make; there must be none.
    pub disk: &'a Path,
    pub ids: &'a ScratchIds,
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
    let plan = plan(&needs, spec.size)
        .map_err(|least| FormatError::TooSmall { size: spec.size.unwrap_or(0), least })?;
    let disk = SparseDisk::create(spec.disk, plan.disk)?;
    let made = fill(spec, &root, &platforms, &plan, &disk, stop).await;
    if made.is_err() {
        // Half a disk is of no use; the first error is the one to tell.
        let _ = std::fs::remove_file(spec.disk);
    }
    let layout = made?;
    Ok(Made { size: plan.disk, layout, platforms })
}

async fn fill(
    spec: &Spec<'_>,
    root: &RootDir,
    platforms: &[Platform],
    plan: &Plan,
    disk: &SparseDisk,
    stop: &Stop,
) -> Result<Layout, FormatError> {
    Table::write(spec.disk, &table_script(spec.ids, platforms, plan), stop).await?;
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
    mke2fs(spec, plan, stop).await?;
    disk.sync().map_err(|source| FormatError::Root { path: spec.disk.to_owned(), source })?;
    Ok(Layout::find(spec.disk, stop).await?)
}

const ROOT_NUMBER: u32 = 1;
const BIOS_NUMBER: u32 = 14;
const ESP_NUMBER: u32 = 15;

/// The table in sfdisk's script language, in sectors.
fn table_script(ids: &ScratchIds, platforms: &[Platform], plan: &Plan) -> String {
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
        sector(plan.root),
        ids.root_partition,
    )
}

async fn mke2fs(spec: &Spec<'_>, plan: &Plan, stop: &Stop) -> Result<(), FormatError> {
    let extended = format!(
        "offset={ROOT_START},hash_seed={},lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0",
        spec.ids.hash_seed
    );
    Cmd::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-L", "root"])
        .args(["-b", &BLOCK.to_string(), "-I", &INODE.to_string()])
        .args(["-N", &plan.inodes.to_string()])
        .args(["-J", &format!("size={}", JOURNAL / MIB)])
        .args(["-U", &spec.ids.root.to_string()])
        // GRUB 2.06 and older kernels know neither.
        .args(["-O", "^metadata_csum_seed,^orphan_file"])
        .args(["-E", &extended])
        .arg("-d")
        .arg(spec.root)
        .arg(spec.disk)
        .arg(format!("{}k", plan.root / 1024))
        // mke2fs takes its time from the first since 1.47.1, and from the second before.
        .env("SOURCE_DATE_EPOCH", spec.epoch.max(0).to_string())
        .env("E2FSPROGS_FAKE_TIME", spec.epoch.max(1).to_string())
        // Without a file mke2fs takes its built-in settings; the host's own must not decide on features.
        .env("MKE2FS_CONFIG", "/nonexistent")
        .timeout(LIMIT)
        .run(stop)
        .await?;
    Ok(())
}

/// What a folder's files take on ext4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Needs {
    inodes: u64,
    /// Bytes in whole blocks.
    data: u64,
}

impl Needs {
    /// Counts a folder and all in it, without following links. A file of many names
    /// counts once, and holes do not count.
    fn of(root: &Path) -> Result<Self, FormatError> {
        let mut needs = Self::default();
        let mut seen = HashSet::new();
        let mut folders = vec![root.to_owned()];
        let own =
            std::fs::metadata(root).map_err(|source| FormatError::Root { path: root.to_owned(), source })?;
        while let Some(folder) = folders.pop() {
            let at = |source| FormatError::Root { path: folder.clone(), source };
            // One block holds some 100 entries of usual names; each costs 8 bytes and its name.
            let mut entries = 0_u64;
            for entry in std::fs::read_dir(&folder).map_err(at)? {
                let entry = entry.map_err(at)?;
                entries += 16 + entry.file_name().len() as u64;
                let found = entry.metadata().map_err(at)?;
                if found.is_dir() {
                    // mke2fs would take all of a `/proc` that was left mounted into the image.
                    if found.dev() != own.dev() {
                        return Err(FormatError::Mounted { path: entry.path() });
                    }
                    folders.push(entry.path());
                    continue;
                }
                if found.nlink() > 1 && !seen.insert((found.dev(), found.ino())) {
                    continue;
                }
                needs.inodes += 1;
                if found.is_file() {
                    let whole = found.len().next_multiple_of(BLOCK);
                    needs.data += whole.min((found.blocks() * 512).next_multiple_of(BLOCK));
                } else if found.is_symlink() && found.len() >= 60 {
                    // A shorter target lies in the inode.
                    needs.data += BLOCK;
                }
            }
            needs.inodes += 1;
            needs.data += entries.next_multiple_of(BLOCK).max(BLOCK);
        }
        Ok(needs)
    }
}

/// The sizes that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    /// The whole disk, in bytes.
    disk: u64,
    /// The root's partition and file system, in bytes.
    root: u64,
    inodes: u64,
}

/// Decides the sizes. `Err` is the least size of the whole disk where the asked one is less.
fn plan(needs: &Needs, asked: Option<u64>) -> Result<Plan, u64> {
    let inodes_for = |bytes: u64| (bytes / BYTES_PER_INODE).max(needs.inodes * 5 / 4 + 1024);
    let files = needs.data + JOURNAL;
    let with_room = files + files * ROOM_PERCENT / 100 + ROOM;
    let root = (with_room + inodes_for(with_room) * INODE).next_multiple_of(MIB);
    let least = (ROOT_START + root + END_ROOM).next_multiple_of(GIB);
    let (disk, root) = match asked {
        None => (least, root),
        Some(asked) if asked < ROOT_START + root + END_ROOM => return Err(least),
        // A file system of the asked size: the recipe wants the room in the image already, and has to store it.
        Some(asked) => (asked, (asked - ROOT_START - END_ROOM) / MIB * MIB),
    };
    Ok(Plan { disk, root, inodes: inodes_for(root) })
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
        "a disk of {} MiB is too small for the root's files; ask for at least {} GiB",
        size / MIB,
        least.div_ceil(GIB)
    )]
    TooSmall { size: u64, least: u64 },
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
    Exec(#[from] ExecError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_whole_gib_and_its_root_as_small_as_its_files_allow() {
        let needs = Needs { inodes: 20_000, data: 560 * MIB };
        let small = plan(&needs, None).unwrap();
        assert_eq!(small.disk, GIB);
        assert!(small.root > needs.data + JOURNAL && small.root < 900 * MIB);
        assert!(small.inodes > needs.inodes);
        let asked = plan(&needs, Some(4 * GIB)).unwrap();
        assert_eq!(asked.disk, 4 * GIB);
        assert_eq!(asked.root, 4 * GIB - 69 * MIB);
        assert_eq!(plan(&needs, Some(512 * MIB)), Err(GIB));
    }

    #[test]
    fn many_small_files_get_inodes_for_each() {
        let needs = Needs { inodes: 1_000_000, data: MIB };
        let made = plan(&needs, None).unwrap();
        assert!(made.inodes >= 1_250_000);
        assert!(made.root > made.inodes * INODE);
    }

    #[test]
    fn holes_and_second_names_take_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("sparse")).unwrap();
        file.set_len(1 << 40).unwrap();
        std::fs::write(dir.path().join("one"), [1; 5000]).unwrap();
        std::fs::hard_link(dir.path().join("one"), dir.path().join("two")).unwrap();
        std::os::unix::fs::symlink("x".repeat(70), dir.path().join("long")).unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let needs = Needs::of(dir.path()).unwrap();
        assert_eq!(needs, Needs { inodes: 5, data: 8192 + 4096 + 2 * 4096 });
    }
}
