//! Finding the root, and refusing by name what cannot be baked.

use crate::gate;
use std::fs;

use bakehouse::disk::layout::{Layout, LayoutError};
use bakehouse::disk::sparse::SparseDisk;
use bakehouse::host::stop::Stop;

use super::fixture::{BOOT_UUID, Disk, MIB, ROOT_UUID, TABLE, TOOLS, small_root};

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
    let luks = Disk::with_table(64 * MIB, TABLE).await;
    let mut header = [0; 592];
    header[..8].copy_from_slice(b"LUKS\xba\xbe\x00\x01");
    SparseDisk::open(&luks.path).unwrap().write_at(&header, 17 * MIB).unwrap();
    let error = Layout::find(&luks.path, &stop).await.unwrap_err();
    assert!(error.to_string().contains("LUKS"), "{error}");
    // A superblock without a file system behind it.
    let xfs = Disk::with_table(64 * MIB, TABLE).await;
    SparseDisk::open(&xfs.path).unwrap().write_at(&xfs_superblock(), 17 * MIB).unwrap();
    let error = Layout::find(&xfs.path, &stop).await.unwrap_err();
    assert!(matches!(&error, LayoutError::NotMounted { kind, .. } if kind == "xfs"), "{error}");
    assert!(error.to_string().contains("method: launch"), "{error}");
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
    bytes.iter().fold(0xf597_a6cf, |mut crc: u32, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1));
        }
        crc
    })
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
