//! Finding the root, and refusing by name what cannot be baked.

use crate::gate;
use std::fs;

use bakehouse::disk::layout::{Layout, LayoutError};
use bakehouse::disk::sparse::SparseDisk;
use bakehouse::host::exec::Cmd;
use bakehouse::host::stop::Stop;

use super::fixture::{BOOT_UUID, Disk, KIND_TOOLS, MIB, ROOT_UUID, TABLE, TOOLS, small_root};

#[tokio::test]
async fn the_root_and_its_mounts_are_found_and_the_disk_stays_as_it_was() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let disk = Disk::two_parts().await;
    let before = fs::read(&disk.path).unwrap();
    let layout = Layout::find(&disk.path, &Stop::never()).await.unwrap();
    assert_eq!(layout.root.number(), 1);
    assert_eq!(layout.root.uuid(), Some(ROOT_UUID));
    assert_eq!(layout.boot.as_ref().unwrap().uuid(), Some(BOOT_UUID));
    let paths: Vec<&str> = layout.mounts.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["/boot"]);
    assert_eq!((layout.os.id.as_str(), layout.os.version_id.as_str()), ("debian", "12"));
    assert!(fs::read(&disk.path).unwrap() == before, "looking changed the disk");
    let json = serde_json::to_string(&layout).unwrap();
    assert_eq!(serde_json::from_str::<Layout>(&json).unwrap(), layout);
}

#[tokio::test]
async fn a_root_without_a_table_is_found() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let disk = Disk::empty(32 * MIB);
    let root = disk.dir.path().join("root");
    small_root(&root);
    disk.ext4(0, 32 * MIB, ROOT_UUID, "root", &root).await;
    let layout = Layout::find(&disk.path, &Stop::never()).await.unwrap();
    assert_eq!((layout.root.number(), layout.mounts.len()), (0, 0));
}

/// Images that systemd's tools make have no fstab.
#[tokio::test]
async fn an_esp_that_no_fstab_names_is_mounted_where_systemd_has_it() {
    if !gate::has_root(&[TOOLS, &["mformat"]].concat()) {
        return;
    }
    let script = "label: gpt\nunit: sectors\n15: start=2048, size=81920, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n\
        1: start=83968, size=40960\n";
    let disk = Disk::with_table(64 * MIB, script).await;
    let root = disk.dir.path().join("root");
    small_root(&root);
    fs::remove_file(root.join("etc/fstab")).unwrap();
    fs::create_dir(root.join("efi")).unwrap();
    disk.ext4(41 * MIB, 20 * MIB, ROOT_UUID, "root", &root).await;
    let esp = format!("{}@@{MIB}", disk.path.display());
    Cmd::new("mformat")
        .args(["-i", &esp, "-F", "-T", "81920", "-h", "255", "-s", "63", "::"])
        .run(&Stop::never())
        .await
        .unwrap();
    let layout = Layout::find(&disk.path, &Stop::never()).await.unwrap();
    let mounts: Vec<_> = layout.mounts.iter().map(|one| (one.path.as_str(), one.volume.number())).collect();
    assert_eq!(mounts, [("/efi", 15)]);
}

#[tokio::test]
async fn what_cannot_be_baked_is_refused_by_name() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let stop = Stop::never();
    // No root: no os-release anywhere.
    let disk = Disk::with_table(64 * MIB, TABLE).await;
    let error = Layout::find(&disk.path, &stop).await.unwrap_err();
    assert!(matches!(error, LayoutError::NoRoot { .. }), "{error}");
    assert!(error.to_string().contains("nothing that is known on partition 2, nothing"), "{error}");
    // A disk that was cut off in the middle of its table.
    fs::File::options().write(true).open(&disk.path).unwrap().set_len(2 * MIB).unwrap();
    let error = Layout::find(&disk.path, &stop).await.unwrap_err();
    assert!(error.to_string().contains("cut off"), "{error}");
    let disk = Disk::with_table(64 * MIB, TABLE).await;
    // Two roots.
    let root = disk.dir.path().join("root");
    small_root(&root);
    disk.ext4(17 * MIB, 30 * MIB, ROOT_UUID, "root", &root).await;
    disk.ext4(MIB, 16 * MIB, BOOT_UUID, "boot", &root).await;
    let error = Layout::find(&disk.path, &stop).await.unwrap_err();
    assert!(matches!(error, LayoutError::TwoRoots { .. }), "{error}");
    assert!(error.to_string().contains("partition 1") && error.to_string().contains("partition 2"));
    // Layers below a file system, by the signatures that blkid knows them by.
    let lvm = Disk::with_table(64 * MIB, TABLE).await;
    let mut label = [0; 512];
    label[..8].copy_from_slice(b"LABELONE");
    label[8..16].copy_from_slice(&1_u64.to_le_bytes());
    label[20..24].copy_from_slice(&32_u32.to_le_bytes());
    label[24..32].copy_from_slice(b"LVM2 001");
    label[32..64].copy_from_slice(&[b'a'; 32]);
    let sum = lvm_checksum(&label[20..512]);
    label[16..20].copy_from_slice(&sum.to_le_bytes());
    SparseDisk::open(&lvm.path).unwrap().write_at(&label, 17 * MIB + 512).unwrap();
    let error = Layout::find(&lvm.path, &stop).await.unwrap_err();
    assert!(error.to_string().contains("LVM"), "{error}");
    assert!(error.to_string().contains("a plain ext4, xfs or btrfs"), "{error}");
    let luks = Disk::with_table(64 * MIB, TABLE).await;
    let mut header = [0; 592];
    header[..8].copy_from_slice(b"LUKS\xba\xbe\x00\x01");
    SparseDisk::open(&luks.path).unwrap().write_at(&header, 17 * MIB).unwrap();
    let error = Layout::find(&luks.path, &stop).await.unwrap_err();
    assert!(error.to_string().contains("LUKS"), "{error}");
    let raid = Disk::with_table(64 * MIB, TABLE).await;
    SparseDisk::open(&raid.path).unwrap().write_at(&raid_superblock(), 17 * MIB + 4096).unwrap();
    let error = Layout::find(&raid.path, &stop).await.unwrap_err();
    assert!(error.to_string().contains("software RAID"), "{error}");
    // What could hold a root and is mounted by nothing here: F2FS's magic number and version.
    let f2fs = Disk::with_table(64 * MIB, TABLE).await;
    let mut superblock = [0; 512];
    superblock[..8].copy_from_slice(&[0x10, 0x20, 0xf5, 0xf2, 1, 0, 16, 0]);
    SparseDisk::open(&f2fs.path).unwrap().write_at(&superblock, 17 * MIB + 1024).unwrap();
    let error = Layout::find(&f2fs.path, &stop).await.unwrap_err();
    assert!(matches!(&error, LayoutError::Unsupported { kind, .. } if kind == "f2fs"), "{error}");
    assert!(error.to_string().contains("ext4, xfs and btrfs"), "{error}");
    // A superblock without a file system behind it.
    let xfs = Disk::with_table(64 * MIB, TABLE).await;
    SparseDisk::open(&xfs.path).unwrap().write_at(&xfs_superblock(), 17 * MIB).unwrap();
    let error = Layout::find(&xfs.path, &stop).await.unwrap_err();
    assert!(matches!(&error, LayoutError::NotMounted { kind, .. } if kind == "xfs"), "{error}");
    assert!(error.to_string().contains("bake on a machine with a newer kernel"), "{error}");
}

/// Bits of features that no kernel has yet, set in the superblock with a good checksum.
#[tokio::test]
async fn features_that_no_kernel_has_are_refused_with_its_reason() {
    if !gate::has_root(&[TOOLS, KIND_TOOLS, &["debugfs", "xfs_db"]].concat()) {
        return;
    }
    let ext4 = "umount \"$at\"; debugfs -w -R 'set_super_value feature_incompat 0x800002c2' \"$node\"";
    let xfs = "umount \"$at\"; xfs_db -x -c 'sb 0' -c 'write -d features_incompat 0x80000003' \"$node\"";
    for (kind, mib, then) in [("ext4", 64, ext4), ("xfs", 320, xfs), ("btrfs", 160, "umount \"$at\"")] {
        let disk = Disk::empty(mib * MIB);
        let root = disk.dir.path().join("root");
        small_root(&root);
        disk.filesystem(kind, 0, mib * MIB, &root, then).await;
        if kind == "btrfs" {
            // The superblock at 64 KiB: its incompatible features at 0xbc, and its CRC-32C in front of it all
            // (btrfs(5), "ON-DISK FORMAT"; Linux `include/uapi/linux/btrfs_tree.h`).
            let file = SparseDisk::open(&disk.path).unwrap();
            let mut sb = [0; 4096];
            file.read_at(&mut sb, 64 << 10).unwrap();
            sb[0xbc + 7] = 0x80;
            let sum = !crc(0x82f6_3b78, !0, &sb[32..]);
            sb[..4].copy_from_slice(&sum.to_le_bytes());
            file.write_at(&sb, 64 << 10).unwrap();
        }
        let error = Layout::find(&disk.path, &Stop::never()).await.unwrap_err();
        let LayoutError::NotMounted { kind: named, reason, .. } = &error else { panic!("{kind}: {error}") };
        assert_eq!(named, kind);
        assert!(error.to_string().contains("bake on a machine with a newer kernel"), "{error}");
        if fs::File::open("/dev/kmsg").is_ok() {
            let reason = reason.as_ref().unwrap();
            assert!(reason.contains("feature"), "{kind}: {reason}");
        }
    }
}

/// A file system that cannot be mounted and is not the root's does not matter.
#[tokio::test]
async fn what_is_beside_the_root_need_not_be_mountable() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let disk = Disk::two_parts().await;
    fs::write(disk.dir.path().join("root/etc/fstab"), format!("UUID={ROOT_UUID} / ext4 defaults 0 1\n"))
        .unwrap();
    disk.ext4(17 * MIB, 30 * MIB, ROOT_UUID, "root", &disk.dir.path().join("root")).await;
    SparseDisk::open(&disk.path).unwrap().write_at(&xfs_superblock(), MIB).unwrap();
    SparseDisk::open(&disk.path).unwrap().write_at(&[0; 1024], MIB + 1024).unwrap();
    let layout = Layout::find(&disk.path, &Stop::never()).await.unwrap();
    assert_eq!(layout.ids.volume(2).unwrap().filesystem.as_ref().unwrap().kind.as_str(), "xfs");
    assert_eq!(layout.root.uuid(), Some(ROOT_UUID));
}

#[tokio::test]
async fn a_damaged_file_system_is_an_error() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let disk = Disk::two_parts().await;
    // The root folder's inode and all around it; the superblock still says ext4.
    SparseDisk::open(&disk.path).unwrap().write_at(&vec![0xff; 1 << 20], 17 * MIB + 4096).unwrap();
    let error = Layout::find(&disk.path, &Stop::never()).await.unwrap_err();
    assert!(
        matches!(error, LayoutError::NotMounted { .. } | LayoutError::NoRoot { .. } | LayoutError::Io { .. }),
        "{error}"
    );
}

/// LVM's checksum: CRC-32 without the final complement, begun at 0xf597a6cf (LVM2 `lib/misc/crc.c`).
fn lvm_checksum(bytes: &[u8]) -> u32 {
    crc(0xedb8_8320, 0xf597_a6cf, bytes)
}

/// A CRC of 32 bits by its reversed polynomial.
fn crc(polynomial: u32, begin: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(begin, |mut crc: u32, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (polynomial & 0_u32.wrapping_sub(crc & 1));
        }
        crc
    })
}

/// As much of a superblock of Linux's software RAID, version 1.2, as blkid checks (util-linux
/// `libblkid/src/superblocks/linux_raid.c`).
fn raid_superblock() -> [u8; 512] {
    let mut sb = [0; 512];
    sb[..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
    sb[4..8].copy_from_slice(&1_u32.to_le_bytes());
    sb[16..32].copy_from_slice(&[7; 16]);
    // Where it lies, in sectors.
    sb[144..152].copy_from_slice(&8_u64.to_le_bytes());
    // The sum of its 32-bit words, folded (Linux `drivers/md/md.c`, calc_sb_1_csum).
    let sum: u64 = sb[..256]
        .chunks(4)
        .map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])))
        .sum();
    let sum = u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap();
    sb[216..220].copy_from_slice(&sum.to_le_bytes());
    sb
}

/// As much of an XFS superblock as blkid checks (util-linux `libblkid/src/superblocks/xfs.c`).
fn xfs_superblock() -> [u8; 512] {
    let mut sb = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| sb[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"XFSB");
    put(4, &4096_u32.to_be_bytes());
    put(8, &7680_u64.to_be_bytes());
    put(32, &[7; 16]);
    put(80, &1_u32.to_be_bytes());
    put(84, &7680_u32.to_be_bytes());
    put(88, &1_u32.to_be_bytes());
    put(100, &0x3084_u16.to_be_bytes());
    put(102, &512_u16.to_be_bytes());
    put(104, &512_u16.to_be_bytes());
    put(106, &8_u16.to_be_bytes());
    put(120, &[12, 9, 9, 3, 13, 0, 0, 25]);
    sb
}
