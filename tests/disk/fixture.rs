//! Disks made by hand for the tests, and the gate for tests that need root and tools.

use std::fs;
use std::path::{Path, PathBuf};

use bakehouse::disk::sparse::SparseDisk;
use bakehouse::disk::table::Table;
use bakehouse::host::exec::Cmd;
use bakehouse::host::loop_device::{Access, LoopDevice};
use bakehouse::host::stop::Stop;
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;
pub const ROOT_UUID: &str = "0fe86d91-0f24-4f0c-a5a2-6e2ed4f0a001";
pub const BOOT_UUID: &str = "0fe86d91-0f24-4f0c-a5a2-6e2ed4f0a002";
pub const ROOT_PARTUUID: &str = "11111111-1111-4111-8111-111111111101";
/// Partition 1 of [`Disk::two_parts`]: the root. Partition 2: `/boot`, before it on the disk.
pub const TABLE: &str = "label: gpt\nunit: sectors\n\
    2: start=2048, size=32768, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n\
    1: start=34816, size=61440, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid=11111111-1111-4111-8111-111111111101, name=\"the root\"\n";

pub const TOOLS: &[&str] = &["sfdisk", "blkid", "mke2fs", "e2fsck", "resize2fs", "fstrim"];

/// The file systems that a root may lie on, with the least size in MiB that their tools make.
pub const KINDS: [(&str, u64); 3] = [("ext4", 64), ("xfs", 320), ("btrfs", 160)];
pub const KIND_TOOLS: &[&str] = &[
    "sfdisk",
    "blkid",
    "mkfs.ext4",
    "mkfs.xfs",
    "mkfs.btrfs",
    "e2fsck",
    "xfs_repair",
    "btrfs",
    "resize2fs",
    "xfs_growfs",
    "xfs_spaceman",
    "dumpe2fs",
    "fstrim",
    "losetup",
    "unshare",
];

/// A disk file in a folder of its own.
pub struct Disk {
    pub dir: TempDir,
    pub path: PathBuf,
}

impl Disk {
    /// An empty one.
    pub fn empty(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        SparseDisk::create(&path, bytes).unwrap();
        Self { dir, path }
    }

    pub async fn with_table(bytes: u64, script: &str) -> Self {
        let disk = Self::empty(bytes);
        Table::write(&disk.path, script, &Stop::never()).await.unwrap();
        disk
    }

    /// ext4 from a folder, at a byte offset.
    pub async fn ext4(&self, offset: u64, bytes: u64, uuid: &str, label: &str, from: &Path) {
        Cmd::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-U", uuid, "-L", label])
            .args(["-E", &format!("offset={offset},nodiscard"), "-O", "^metadata_csum_seed"])
            .arg("-d")
            .arg(from)
            .arg(&self.path)
            .arg(format!("{}k", bytes / 1024))
            .run(&Stop::never())
            .await
            .unwrap();
    }

    /// Makes a file system of any kind at a byte offset with the system's tools, with all that is in `from`; all in a
    /// mount namespace of its own, so that nothing stays. `then` is shell that runs while it is mounted at `$at`.
    pub async fn filesystem(&self, kind: &str, offset: u64, bytes: u64, from: &Path, then: &str) {
        let script = r#"set -eu
            node=$(losetup --find --show --offset "$OFFSET" --sizelimit "$BYTES" "$DISK")
            at=$(mktemp -d)
            trap 'umount "$at" 2>/dev/null || true; rmdir "$at"; losetup -d "$node"' EXIT
            case $KIND in ext4) force=-F ;; *) force=-f ;; esac
            mkfs.$KIND -q $force -L root "$node" >/dev/null
            mount -t $KIND "$node" "$at"
            cp -a "$FROM/." "$at"
            eval "$THEN""#;
        Cmd::new("unshare")
            .args(["--mount", "bash", "-c", script])
            .env("OFFSET", offset.to_string())
            .env("BYTES", bytes.to_string())
            .env("DISK", &self.path)
            .env("KIND", kind)
            .env("FROM", from)
            .env("THEN", then)
            .run(&Stop::never())
            .await
            .unwrap();
    }

    /// Runs the checker of the file system at a byte offset, which must find nothing to correct.
    pub async fn check(&self, kind: &str, offset: u64, bytes: u64) {
        let device = LoopDevice::attach(&self.path, offset, bytes, Access::ReadOnly).unwrap();
        let words: &[&str] = match kind {
            "ext4" => &["e2fsck", "-f", "-n"],
            "xfs" => &["xfs_repair", "-n"],
            _ => &["btrfs", "check", "--readonly"],
        };
        Cmd::new(words[0]).args(&words[1..]).arg(device.node()).run(&Stop::never()).await.unwrap();
        device.close().await.unwrap();
    }

    /// A root of [`small_root`] on partition 1 and a `/boot` on partition 2, 64 MiB in all.
    pub async fn two_parts() -> Self {
        let disk = Self::with_table(64 * MIB, TABLE).await;
        let root = disk.dir.path().join("root");
        small_root(&root);
        let boot = disk.dir.path().join("boot");
        fs::create_dir(&boot).unwrap();
        fs::write(boot.join("vmlinuz-6.1"), "a kernel").unwrap();
        disk.ext4(17 * MIB, 30 * MIB, ROOT_UUID, "root", &root).await;
        disk.ext4(MIB, 16 * MIB, BOOT_UUID, "boot", &boot).await;
        disk
    }
}

/// A folder that is a root to the eye.
pub fn small_root(at: &Path) {
    for folder in ["etc", "usr/lib", "boot", "srv"] {
        fs::create_dir_all(at.join(folder)).unwrap();
    }
    fs::write(
        at.join("usr/lib/os-release"),
        "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
    )
    .unwrap();
    std::os::unix::fs::symlink("../usr/lib/os-release", at.join("etc/os-release")).unwrap();
    fs::write(
        at.join("etc/fstab"),
        format!(
            "UUID={ROOT_UUID} / ext4 defaults 0 1\nLABEL=boot /boot ext4 defaults 0 2\ntmpfs /tmp tmpfs\n"
        ),
    )
    .unwrap();
}
