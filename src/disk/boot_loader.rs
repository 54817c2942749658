//! GRUB on a disk, without ever running its installer: a core image for the BIOS behind the MBR, and one for UEFI in the
//! EFI system partition. Made from the modules of the root that will boot. Touches nothing inside the root's partition.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::SECTOR;
use super::boot_config;
use super::sparse::SparseDisk;
use super::table::Partition;
use crate::host::exec::{Cmd, ExecError};
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

/// A sector as the length of an array.
const SECTOR_BYTES: usize = 512;

const LIMIT: Duration = Duration::from_secs(120);

/// What every core has: it must find and read the root and show the menu on the serial console.
const MODULES: [&str; 30] = [
    "part_gpt",
    "ext2",
    "xfs",
    "btrfs",
    "zstd",
    "fat",
    "search",
    "search_fs_uuid",
    "search_label",
    "normal",
    "configfile",
    "linux",
    "serial",
    "terminal",
    "echo",
    "test",
    "ls",
    "cat",
    "gzio",
    "boot",
    "minicmd",
    "reboot",
    "halt",
    "loadenv",
    "regexp",
    "all_video",
    "gfxterm",
    "part_msdos",
    "sleep",
    "probe",
];

/// A platform of GRUB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    Bios,
    UefiX86,
    UefiArm,
}

impl Platform {
    const ALL: [Self; 3] = [Self::Bios, Self::UefiX86, Self::UefiArm];

    /// GRUB's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bios => "i386-pc",
            Self::UefiX86 => "x86_64-efi",
            Self::UefiArm => "arm64-efi",
        }
    }

    /// Modules that only it has.
    fn own_modules(self) -> &'static [&'static str] {
        match self {
            Self::Bios => &["biosdisk"],
            Self::UefiX86 | Self::UefiArm => &["efi_gop"],
        }
    }

    /// What UEFI starts from a disk that it knows nothing of (UEFI specification, "Removable Media Boot Behavior").
    fn efi_name(self) -> Option<&'static str> {
        match self {
            Self::Bios => None,
            Self::UefiX86 => Some("BOOTX64.EFI"),
            Self::UefiArm => Some("BOOTAA64.EFI"),
        }
    }
}

/// The platforms whose modules a root has: those that its disk can be made to boot on.
#[must_use]
pub fn platforms(root: &RootDir) -> Vec<Platform> {
    Platform::ALL
        .into_iter()
        .filter(|platform| root.exists(&format!("{}/modinfo.sh", modules_at(*platform))))
        .collect()
}

fn modules_at(platform: Platform) -> String {
    format!("/usr/lib/grub/{}", platform.name())
}

/// Makes a platform's core image from a root's modules.
///
/// # Errors
/// [`BootLoaderError`]: modules that cannot be read, or grub-mkimage's failure.
pub async fn core_image(
    root: &RootDir,
    root_uuid: uuid::Uuid,
    platform: Platform,
    stop: &Stop,
) -> Result<Vec<u8>, BootLoaderError> {
    let work = tempfile::tempdir().map_err(BootLoaderError::temporary)?;
    let modules = work.path().join("modules");
    copy_modules(root, &modules_at(platform), &modules)?;
    let early = work.path().join("early.cfg");
    std::fs::write(&early, boot_config::early_grub(root_uuid)).map_err(BootLoaderError::temporary)?;
    let core = work.path().join("core.img");
    let wanted = MODULES
        .iter()
        .chain(platform.own_modules())
        // Not every version of GRUB has each of them.
        .filter(|name| modules.join(format!("{name}.mod")).exists());
    Cmd::new("grub-mkimage")
        .args(["-O", platform.name(), "-p", "/boot/grub", "-d"])
        .arg(&modules)
        .arg("-c")
        .arg(&early)
        .arg("-o")
        .arg(&core)
        .args(wanted)
        .timeout(LIMIT)
        .run(stop)
        .await?;
    std::fs::read(&core).map_err(BootLoaderError::temporary)
}

/// Takes the modules out of the root through its own view, so that no link in it leads grub-mkimage to files of the host.
fn copy_modules(root: &RootDir, from: &str, to: &Path) -> Result<(), BootLoaderError> {
    let unreadable = |path: &str, source| BootLoaderError::Modules { path: path.to_owned(), source };
    std::fs::create_dir(to).map_err(BootLoaderError::temporary)?;
    for name in root.list(from).map_err(|source| unreadable(from, source))? {
        if ![".mod", ".lst", ".img", ".sh"].iter().any(|end| name.ends_with(end)) {
            continue;
        }
        let path = format!("{from}/{name}");
        let bytes = root.read(&path).map_err(|source| unreadable(&path, source))?;
        std::fs::write(to.join(&name), bytes).map_err(BootLoaderError::temporary)?;
    }
    Ok(())
}

/// Puts GRUB's BIOS core into the BIOS boot partition and its boot sector into the MBR. The partition table's own bytes
/// stay as they are.
///
/// # Errors
/// [`BootLoaderError`]: the core does not fit, or the images are not GRUB's.
pub fn embed_bios(
    disk: &SparseDisk,
    partition: &Partition,
    boot_image: &[u8],
    core: Vec<u8>,
) -> Result<(), BootLoaderError> {
    let (sector, core) = bios_images(partition.start / SECTOR, partition.size / SECTOR, boot_image, core)?;
    let write = || -> std::io::Result<()> {
        let mut mbr = sector;
        let mut own = [0; SECTOR_BYTES];
        disk.read_at(&mut own, 0)?;
        // The disk's signature, the partition entries and the last two bytes are the table's.
        mbr[0x1b8..].copy_from_slice(&own[0x1b8..]);
        disk.write_at(&mbr, 0)?;
        disk.write_at(&core, partition.start)
    };
    write().map_err(|source| BootLoaderError::Disk { disk: disk.path().to_owned(), source })
}

/// boot.img and core.img as they lie on a disk whose core begins at sector `start`. The offsets are GRUB's own
/// (`include/grub/i386/pc/boot.h` and `include/grub/offsets.h`); grub-install writes the same.
fn bios_images(
    start: u64,
    room: u64,
    boot_image: &[u8],
    mut core: Vec<u8>,
) -> Result<([u8; SECTOR_BYTES], Vec<u8>), BootLoaderError> {
    /// Where the core's first sector has its list of the sectors that follow: u64 start, u16 length, u16 segment.
    const BLOCK_LIST: usize = 0x1f4;
    /// GRUB_BOOT_MACHINE_KERNEL_SEG + 0x20: where the first sector loads the rest to.
    const LOAD_SEGMENT: u16 = 0x820;
    /// GRUB_BOOT_MACHINE_KERNEL_SECTOR, _BOOT_DRIVE and _DRIVE_CHECK in the boot sector.
    const KERNEL_SECTOR: usize = 0x5c;
    const BOOT_DRIVE: usize = 0x64;
    const DRIVE_CHECK: usize = 0x66;
    let mut mbr: [u8; SECTOR_BYTES] =
        boot_image.try_into().map_err(|_| BootLoaderError::NotGrub { what: "boot.img" })?;
    core.resize(core.len().next_multiple_of(SECTOR_BYTES), 0);
    let sectors = core.len() as u64 / SECTOR;
    if sectors < 2 {
        return Err(BootLoaderError::NotGrub { what: "core.img" });
    }
    let rest = u16::try_from(sectors - 1)
        .ok()
        .filter(|_| sectors <= room)
        .ok_or(BootLoaderError::TooLarge { sectors, room })?;
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(start + 1).to_le_bytes());
    core[BLOCK_LIST + 8..BLOCK_LIST + 10].copy_from_slice(&rest.to_le_bytes());
    core[BLOCK_LIST + 10..BLOCK_LIST + 12].copy_from_slice(&LOAD_SEGMENT.to_le_bytes());
    mbr[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&start.to_le_bytes());
    // The disk that the BIOS started from, without a look at its number.
    mbr[BOOT_DRIVE] = 0xff;
    mbr[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    Ok((mbr, core))
}

/// GRUB's boot sector, from the root's modules.
///
/// # Errors
/// [`BootLoaderError::Modules`].
pub fn boot_image(root: &RootDir) -> Result<Vec<u8>, BootLoaderError> {
    let path = format!("{}/boot.img", modules_at(Platform::Bios));
    root.read(&path).map_err(|source| BootLoaderError::Modules { path, source })
}

/// Makes the FAT of the EFI system partition at its place in the disk file, with the core images in it. The same input
/// gives the same bytes: `serial` and the time (seconds since 1970) are given.
///
/// # Errors
/// [`BootLoaderError`]: a tool's failure.
pub async fn make_esp(
    disk: &Path,
    partition: &Partition,
    serial: u32,
    epoch: i64,
    cores: &[(Platform, Vec<u8>)],
    stop: &Stop,
) -> Result<(), BootLoaderError> {
    let work = tempfile::tempdir().map_err(BootLoaderError::temporary)?;
    let image = format!("{}@@{}", disk.display(), partition.start);
    let tool = |name: &str| {
        Cmd::new(name)
            // mtools asks for geometries that only floppies have.
            .env("MTOOLS_SKIP_CHECK", "1")
            .env("SOURCE_DATE_EPOCH", epoch.max(0).to_string())
            .env("TZ", "UTC")
            .args(["-i", &image])
            .timeout(LIMIT)
    };
    let sectors = (partition.size / SECTOR).to_string();
    let hidden = (partition.start / SECTOR).to_string();
    tool("mformat")
        .args(["-F", "-T", &sectors, "-h", "255", "-s", "63", "-H", &hidden])
        .args(["-N", &format!("{serial:08x}"), "-v", "ESP", "::"])
        .run(stop)
        .await?;
    tool("mmd").args(["::EFI", "::EFI/BOOT"]).run(stop).await?;
    for (platform, core) in cores {
        let Some(name) = platform.efi_name() else {
            continue;
        };
        let file = work.path().join(name);
        write_dated(&file, core, epoch).map_err(BootLoaderError::temporary)?;
        tool("mcopy").arg("-m").arg(&file).arg(format!("::EFI/BOOT/{name}")).run(stop).await?;
    }
    Ok(())
}

fn write_dated(path: &Path, bytes: &[u8], epoch: i64) -> std::io::Result<()> {
    std::fs::write(path, bytes)?;
    let seconds = Duration::from_secs(u64::try_from(epoch).unwrap_or(0));
    std::fs::File::options().write(true).open(path)?.set_modified(SystemTime::UNIX_EPOCH + seconds)
}

/// Why a disk was not made to boot.
#[derive(Debug, thiserror::Error)]
pub enum BootLoaderError {
    #[error("cannot read GRUB's modules at {path} of the root; install grub-pc-bin or grub-efi-*-bin in it")]
    Modules { path: String, source: std::io::Error },
    #[error("the root's {what} is not GRUB's: it has the wrong size")]
    NotGrub { what: &'static str },
    #[error("GRUB's core takes {sectors} sectors, and the BIOS boot partition has {room}")]
    TooLarge { sectors: u64, room: u64 },
    #[error("cannot write the boot loader to {}", disk.display())]
    Disk { disk: PathBuf, source: std::io::Error },
    #[error("cannot work in the folder for temporary files (TMPDIR)")]
    Temporary { source: std::io::Error },
    #[error(transparent)]
    Exec(#[from] ExecError),
}

impl BootLoaderError {
    fn temporary(source: std::io::Error) -> Self {
        Self::Temporary { source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_points_at_the_core_and_the_core_at_its_rest() {
        let (mbr, core) = bios_images(2048, 6144, &[1; 512], vec![2; 1500]).unwrap();
        assert_eq!(core.len(), 1536);
        assert_eq!(mbr[0x5c..0x64], 2048_u64.to_le_bytes());
        assert_eq!(mbr[0x64], 0xff);
        assert_eq!(mbr[0x66..0x68], [0x90, 0x90]);
        assert_eq!(core[0x1f4..0x1fc], 2049_u64.to_le_bytes());
        assert_eq!(core[0x1fc..0x200], [2, 0, 0x20, 0x08]);
        assert_eq!(core[1499..1501], [2, 0]);
    }

    #[test]
    fn what_is_not_grub_or_does_not_fit_is_an_error() {
        assert!(matches!(
            bios_images(2048, 6144, &[0; 511], vec![0; 2000]),
            Err(BootLoaderError::NotGrub { what: "boot.img" })
        ));
        assert!(matches!(
            bios_images(2048, 6144, &[0; 512], vec![]),
            Err(BootLoaderError::NotGrub { what: "core.img" })
        ));
        assert!(matches!(
            bios_images(2048, 3, &[0; 512], vec![0; 2000]),
            Err(BootLoaderError::TooLarge { sectors: 4, room: 3 })
        ));
    }

    #[test]
    fn the_tables_bytes_in_the_mbr_stay() {
        let dir = tempfile::tempdir().unwrap();
        let disk = SparseDisk::create(&dir.path().join("d"), 4 << 20).unwrap();
        disk.write_at(&[0xaa; 512], 0).unwrap();
        let partition = Partition { start: 1 << 20, size: 1 << 20, ..Partition::whole(0) };
        embed_bios(&disk, &partition, &[1; 512], vec![2; 1024]).unwrap();
        let mut mbr = [0; 512];
        disk.read_at(&mut mbr, 0).unwrap();
        assert_eq!(mbr[0x1b7], 1);
        assert!(mbr[0x1b8..].iter().all(|byte| *byte == 0xaa));
    }
}
