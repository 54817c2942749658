//! Tables and identifiers of real disk files, broken ones too.

use crate::gate;
use bakehouse::disk::filesystem::FilesystemKind;
use bakehouse::disk::ids::{DeviceName, DiskIds};
use bakehouse::disk::sparse::SparseDisk;
use bakehouse::disk::table::{Table, TableError, TableKind};
use bakehouse::host::stop::Stop;

use super::fixture::{BOOT_UUID, Disk, MIB, ROOT_PARTUUID, ROOT_UUID, TOOLS};

#[tokio::test]
async fn every_name_of_every_part_is_found() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let disk = Disk::two_parts().await;
    let ids = DiskIds::read(&disk.path, &Stop::never()).await.unwrap();
    assert_eq!(ids.kind, TableKind::Gpt);
    let numbers: Vec<u32> = ids.volumes.iter().map(|one| one.number()).collect();
    assert_eq!(numbers, [2, 1]);
    for (name, number) in [
        (format!("UUID={}", ROOT_UUID.to_uppercase()), 1),
        (format!("PARTUUID={ROOT_PARTUUID}"), 1),
        ("PARTLABEL=the root".to_owned(), 1),
        ("/dev/disk/by-partlabel/the\\x20root".to_owned(), 1),
        (format!("UUID={BOOT_UUID}"), 2),
        ("LABEL=boot".to_owned(), 2),
        ("/dev/nvme0n1p2".to_owned(), 2),
    ] {
        let found = ids.find(&DeviceName::parse(&name).unwrap()).unwrap();
        assert_eq!(found.number(), number, "{name}");
    }
    assert!(ids.find(&DeviceName::Uuid("no-such".into())).is_none());
    assert_eq!(ids.volume(1).unwrap().filesystem.as_ref().unwrap().kind, FilesystemKind::Ext4);
}

#[tokio::test]
async fn an_mbr_and_no_table_at_all_are_read() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let stop = Stop::never();
    let disk = Disk::with_table(
        64 * MIB,
        "label: dos\nlabel-id: 0x8004b731\nunit: sectors\n1: start=2048, size=20480, type=83, bootable\n\
         2: start=22528, size=40960, type=5\n5: start=24576, size=2048, type=83\n",
    )
    .await;
    let table = Table::read(&disk.path, &stop).await.unwrap();
    assert_eq!(table.kind, TableKind::Mbr);
    assert!(table.partition(1).unwrap().bootable);
    assert_eq!(table.partition(5).unwrap().uuid.as_deref(), Some("8004b731-05"));
    assert!(table.partition(2).unwrap().is_container());

    let whole = Disk::empty(16 * MIB);
    let folder = whole.dir.path().join("empty");
    std::fs::create_dir(&folder).unwrap();
    let ids = DiskIds::read(&whole.path, &stop).await.unwrap();
    assert_eq!((ids.kind, ids.volumes.len()), (TableKind::None, 1));
    assert!(ids.volumes[0].filesystem.is_none());
    whole.ext4(0, 16 * MIB, ROOT_UUID, "x y\"z", &folder).await;
    let ids = DiskIds::read(&whole.path, &stop).await.unwrap();
    assert_eq!(ids.kind, TableKind::None);
    assert_eq!(ids.volumes[0].label(), Some("x y\"z"));
    assert_eq!(ids.volumes[0].number(), 0);
}

#[tokio::test]
async fn a_damaged_table_is_an_error_or_none_and_never_a_hang() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let stop = Stop::never();
    // A disk that was cut off: its partition reaches beyond the end, and the table's copy is gone.
    let disk = Disk::two_parts().await;
    std::fs::File::options().write(true).open(&disk.path).unwrap().set_len(32 * MIB).unwrap();
    assert!(Table::read(&disk.path, &stop).await.is_err());
    // Noise where the first copy of the table is.
    let disk = Disk::two_parts().await;
    let file = SparseDisk::open(&disk.path).unwrap();
    file.write_at(&[0x5a; 4096], 512).unwrap();
    if let Ok(table) = Table::read(&disk.path, &stop).await {
        assert!(table.partitions.iter().all(|one| one.end() <= 64 * MIB));
    }
    // An MBR whose extended partition leads back to itself.
    let disk = Disk::empty(64 * MIB);
    let file = SparseDisk::open(&disk.path).unwrap();
    let mut mbr = [0; 512];
    mbr[0x1b8..0x1bc].copy_from_slice(&[1, 2, 3, 4]);
    mbr[0x1be + 4] = 5;
    mbr[0x1be + 8..0x1be + 12].copy_from_slice(&2048_u32.to_le_bytes());
    mbr[0x1be + 12..0x1be + 16].copy_from_slice(&65536_u32.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_at(&mbr, 0).unwrap();
    let mut chain = mbr;
    chain[0x1be + 8..0x1be + 12].copy_from_slice(&0_u32.to_le_bytes());
    file.write_at(&chain, 2048 * 512).unwrap();
    drop(Table::read(&disk.path, &stop).await);
    let gone = Table::read(&disk.dir.path().join("none"), &stop).await;
    assert!(matches!(gone, Err(TableError::Io { .. })));
}
