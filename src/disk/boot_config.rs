//! The files by which a root made from scratch says how it boots: fstab, GRUB's settings and first menu, what goes into
//! the initramfs. Writes files into a root; runs nothing.

use std::fmt::Write as _;
use std::io;

use uuid::Uuid;

use super::format::RootFormat;
use crate::host::root_dir::RootDir;

/// The kernel's command line besides the root: what EC2 shows as the console, and a disk that answers late is waited
/// for (EC2 User Guide, "NVMe I/O operation timeout": the largest value that the kernel takes).
const COMMAND_LINE: &str = "console=tty0 console=ttyS0,115200n8 nvme_core.io_timeout=4294967295";

/// Where a distribution links its newest kernel and initramfs: Debian in `/`, Ubuntu in `/boot`.
const LINKS: [(&str, &str); 2] = [("/vmlinuz", "/initrd.img"), ("/boot/vmlinuz", "/boot/initrd.img")];

/// The identifiers of a disk that is made from scratch. One seed gives the same ones always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScratchIds {
    pub disk: Uuid,
    /// The root's file system.
    pub root: Uuid,
    pub root_partition: Uuid,
    pub esp_partition: Uuid,
    pub bios_partition: Uuid,
    /// The FAT's volume serial number: what `UUID=` names as `XXXX-XXXX`.
    pub esp_serial: u32,
    /// Orders the entries of ext4's folders.
    pub hash_seed: Uuid,
}

impl ScratchIds {
    /// Ids that follow from a seed, such as a bake's id: the same seed gives the same bytes.
    #[must_use]
    pub fn derived(seed: &str) -> Self {
        use sha2::{Digest as _, Sha256};
        let bytes = |purpose: &str| -> [u8; 32] {
            Sha256::digest(format!("bakehouse disk {purpose}\0{seed}")).into()
        };
        let id = |purpose: &str| {
            let mut sixteen = [0; 16];
            sixteen.copy_from_slice(&bytes(purpose)[..16]);
            // In the form of a random one: some tools check the version's digit.
            uuid::Builder::from_random_bytes(sixteen).into_uuid()
        };
        let serial = bytes("esp");
        Self {
            disk: id("disk"),
            root: id("root"),
            root_partition: id("root partition"),
            esp_partition: id("esp partition"),
            bios_partition: id("bios partition"),
            esp_serial: u32::from_le_bytes([serial[0], serial[1], serial[2], serial[3]]),
            hash_seed: id("hash seed"),
        }
    }

    /// The ESP's serial as `UUID=` has it.
    #[must_use]
    pub fn esp_uuid(&self) -> String {
        format!("{:04X}-{:04X}", self.esp_serial >> 16, self.esp_serial & 0xffff)
    }
}

/// Writes what goes into every initramfs of a root that will lie on `format`: where the root has no kernel yet, its
/// first one has it too.
///
/// # Errors
/// [`BootConfigError::Write`]
pub fn prepare_initramfs(root: &RootDir, format: &dyn RootFormat) -> Result<(), BootConfigError> {
    write_all(
        root,
        &["/etc/initramfs-tools/conf.d", "/etc/initramfs-tools/hooks"],
        &[
            ("/etc/initramfs-tools/conf.d/bakehouse", INITRAMFS_CONF.to_owned(), 0o644),
            ("/etc/initramfs-tools/hooks/bakehouse", initramfs_hook(format), 0o755),
        ],
    )
}

fn write_all(root: &RootDir, folders: &[&str], files: &[(&str, String, u32)]) -> Result<(), BootConfigError> {
    let failed = |path: &str, source| BootConfigError::Write { path: path.to_owned(), source };
    for folder in folders {
        root.make_dirs(folder, 0o755).map_err(|source| failed(folder, source))?;
    }
    for (path, text, mode) in files {
        root.write(path, text.as_bytes(), *mode).map_err(|source| failed(path, source))?;
    }
    Ok(())
}

/// Writes a scratch root's boot configuration. The root has its kernel and initramfs already; after this
/// `update-initramfs` may run, and `update-grub` too.
///
/// # Errors
/// [`BootConfigError`]: no kernel in the root, or a file that cannot be written.
pub fn prepare_root(
    root: &RootDir,
    ids: &ScratchIds,
    format: &dyn RootFormat,
) -> Result<(), BootConfigError> {
    let (kernel, initramfs) = *LINKS
        .iter()
        .find(|(kernel, initramfs)| root.exists(kernel) && root.exists(initramfs))
        .ok_or_else(|| BootConfigError::NoKernel { root: root.path().to_owned() })?;
    prepare_initramfs(root, format)?;
    write_all(
        root,
        &["/boot/efi", "/boot/grub", "/etc/default"],
        &[
            ("/etc/fstab", fstab(ids, format), 0o644),
            ("/etc/default/grub", grub_defaults(), 0o644),
            ("/boot/grub/grub.cfg", first_menu(ids, kernel, initramfs), 0o600),
        ],
    )
}

fn fstab(ids: &ScratchIds, format: &dyn RootFormat) -> String {
    // An ESP that is missing or slow must not stop the boot: nothing in it is needed once GRUB has run.
    format!(
        "# Made with the image.\n\
         UUID={} / {} {}\n\
         UUID={} /boot/efi vfat umask=0077,nofail,x-systemd.device-timeout=10 0 0\n",
        ids.root,
        format.kind(),
        format.fstab(),
        ids.esp_uuid()
    )
}

fn grub_defaults() -> String {
    // A machine without a keyboard must never wait in a menu, not after a failed boot either.
    format!(
        "# Made with the image; `update-grub` reads it.\n\
         GRUB_DEFAULT=0\n\
         GRUB_TIMEOUT=0\n\
         GRUB_TIMEOUT_STYLE=hidden\n\
         GRUB_RECORDFAIL_TIMEOUT=0\n\
         GRUB_HIDDEN_TIMEOUT_QUIET=true\n\
         GRUB_DISTRIBUTOR=`( . /etc/os-release; name=${{NAME:-Linux}}; echo ${{name%% *}} )`\n\
         GRUB_CMDLINE_LINUX_DEFAULT=\"\"\n\
         GRUB_CMDLINE_LINUX=\"{COMMAND_LINE}\"\n\
         GRUB_TERMINAL=\"console serial\"\n\
         GRUB_SERIAL_COMMAND=\"serial --speed=115200 --unit=0\"\n\
         GRUB_DISABLE_OS_PROBER=true\n\
         GRUB_DISABLE_RECOVERY=true\n"
    )
}

/// The menu until `update-grub` writes a better one: the kernel packages keep the two links to the newest kernel.
fn first_menu(ids: &ScratchIds, kernel: &str, initramfs: &str) -> String {
    let mut text = String::from(
        "# The first menu, until update-grub writes its own.\n\
         serial --speed=115200 --unit=0\n\
         terminal_input console serial\n\
         terminal_output console serial\n\
         set timeout=0\n\
         set default=0\n",
    );
    let root = ids.root;
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "menuentry 'Linux' {{\n\
         \tsearch --no-floppy --fs-uuid --set=root {root}\n\
         \tlinux {kernel} root=UUID={root} ro {COMMAND_LINE}\n\
         \tinitrd {initramfs}\n\
         }}\n"
    );
    text
}

/// What GRUB's core does first, on the BIOS and on UEFI: finds the root, wherever the firmware put the disk, and goes on
/// with the menu in it.
#[must_use]
pub fn early_grub(root: Uuid) -> String {
    format!(
        "search.fs_uuid {root} root\n\
         set prefix=($root)/boot/grub\n\
         configfile ($root)/boot/grub/grub.cfg\n"
    )
}

/// Not `dep`, which takes what the build host needs and not what EC2 needs.
const INITRAMFS_CONF: &str =
    "# The image boots on other machines than the one it was made on.\nMODULES=most\n";

/// `most` follows a list of the distribution; what EC2 needs is named all the same.
fn initramfs_hook(format: &dyn RootFormat) -> String {
    let kind = format.kind();
    format!(
        "#!/bin/sh\n\
         # The drivers of EC2's disks and network, and the root's file system.\n\
         set -e\n\
         case \"$1\" in prereqs) exit 0 ;; esac\n\
         . /usr/share/initramfs-tools/hook-functions\n\
         manual_add_modules ena nvme {}\n",
        kind.module().unwrap_or(kind.as_str())
    )
}

/// Why a root cannot be told how to boot.
#[derive(Debug, thiserror::Error)]
pub enum BootConfigError {
    #[error(
        "{} has no kernel with an initramfs (looked for /vmlinuz and /boot/vmlinuz); install a kernel package",
        root.display()
    )]
    NoKernel { root: std::path::PathBuf },
    #[error("cannot write {path} in the root")]
    Write { path: String, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::format::{Ext4, Xfs};

    #[test]
    fn one_seed_gives_one_set_of_ids() {
        let ids = ScratchIds::derived("a");
        assert_eq!(ids, ScratchIds::derived("a"));
        assert_ne!(ids.root, ScratchIds::derived("b").root);
        assert_ne!(ids.root, ids.disk);
        assert_eq!(ids.root.get_version_num(), 4);
        assert_eq!(ScratchIds { esp_serial: 0x1234_00ab, ..ids }.esp_uuid(), "1234-00AB");
    }

    #[test]
    fn every_file_names_the_root_by_its_uuid() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        let ids = ScratchIds::derived("x");
        assert!(matches!(prepare_root(&root, &ids, &Ext4), Err(BootConfigError::NoKernel { .. })));
        root.make_dirs("/boot", 0o755).unwrap();
        root.write("/boot/vmlinuz-1", b"k", 0o644).unwrap();
        root.write("/boot/initrd.img-1", b"i", 0o644).unwrap();
        root.symlink("vmlinuz-1", "/boot/vmlinuz").unwrap();
        root.symlink("initrd.img-1", "/boot/initrd.img").unwrap();
        prepare_root(&root, &ids, &Ext4).unwrap();
        let uuid = ids.root.to_string();
        let menu = root.read_text("/boot/grub/grub.cfg").unwrap();
        assert!(menu.contains(&format!("linux /boot/vmlinuz root=UUID={uuid} ")), "{menu}");
        assert!(menu.contains("initrd /boot/initrd.img\n"));
        assert!(root.read_text("/etc/fstab").unwrap().contains(&format!("UUID={uuid} / ext4")));
        assert!(early_grub(ids.root).contains(&uuid));
        use std::os::unix::fs::PermissionsExt;
        let hook = root.metadata("/etc/initramfs-tools/hooks/bakehouse").unwrap();
        assert_eq!(hook.permissions().mode() & 0o777, 0o755);
        prepare_root(&root, &ids, &Xfs).unwrap();
        let fstab = root.read_text("/etc/fstab").unwrap();
        assert!(fstab.contains(&format!("UUID={uuid} / xfs defaults 0 0\n")), "{fstab}");
        let hook = root.read_text("/etc/initramfs-tools/hooks/bakehouse").unwrap();
        assert!(hook.contains("manual_add_modules ena nvme xfs\n"), "{hook}");
    }
}
