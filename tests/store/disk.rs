//! Disks written out of the store.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use bakehouse::cloud::{BLOCK_SIZE, ErrorKind, SnapshotId};
use bakehouse::host::stop::Stop;

use super::{Local, files};
use crate::conformance::*;

fn read(disk: &File, index: u32) -> Vec<u8> {
    let mut data = vec![0; BLOCK_SIZE];
    disk.read_exact_at(&mut data, u64::from(index) * BLOCK_SIZE as u64).unwrap();
    data
}

#[tokio::test]
async fn what_was_never_put_reads_as_noise_and_zeros_are_holes() {
    let local = Local::new();
    // Zeros everywhere but in block 3 and the last one; nothing at all in 5.
    let mut blocks: std::collections::BTreeMap<u32, Block> =
        (0..2048).map(|index| (index, block(0))).collect();
    blocks.insert(3, block(7));
    blocks.insert(2047, block(8));
    blocks.remove(&5);
    let id = make(&local.cloud, &new_snapshot(1, None), &blocks).await;
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("disk.raw");
    std::fs::write(&path, "what was here before").unwrap();
    local.store().write_disk(&local.cloud.place, &id, &path, 1, &Stop::never()).await.unwrap();

    let disk = File::open(&path).unwrap();
    assert_eq!(disk.metadata().unwrap().len(), 1 << 30);
    assert!(read(&disk, 3) == block(7));
    assert!(read(&disk, 2047) == block(8));
    assert!(read(&disk, 0) == block(0));
    assert!(read(&disk, 5).chunks(512).all(|sector| sector.iter().any(|byte| *byte != 0)));
    let used = disk.metadata().unwrap().blocks() * 512;
    assert!(used <= 4 * BLOCK_SIZE as u64, "{used} bytes for three blocks");
    assert_eq!(files(out.path()), std::slice::from_ref(&path));

    // Grown: the same at first, noise behind.
    let grown = out.path().join("grown.raw");
    local.store().write_disk(&local.cloud.place, &id, &grown, 2, &Stop::never()).await.unwrap();
    let grown = File::open(&grown).unwrap();
    assert_eq!(grown.metadata().unwrap().len(), 2 << 30);
    for index in [0, 3, 5, 2047] {
        assert!(read(&grown, index) == read(&disk, index), "block {index}");
    }
    for index in [2048, 3000, 4095] {
        assert!(read(&grown, index).chunks(512).all(|sector| sector.iter().any(|byte| *byte != 0)));
    }
    assert!(read(&grown, 2048) != read(&grown, 2049));
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_whole_is_not_left_behind() {
    let local = Local::new();
    let id = make(&local.cloud, &new_snapshot(2, None), &numbered(&[(0, 7)])).await;
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("disk.raw");
    let write = async |id: &SnapshotId, size, stop: &Stop| {
        local.store().write_disk(&local.cloud.place, id, &path, size, stop).await
    };
    refused(write(&id, 1, &Stop::never()).await, ErrorKind::Invalid);
    let nobody = SnapshotId::parse("snap-0123456789abcdef0").unwrap();
    refused(write(&nobody, 1, &Stop::never()).await, ErrorKind::NotFound);
    let pending = local.cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    refused(write(&pending, 1, &Stop::never()).await, ErrorKind::Invalid);
    let stop = Stop::never();
    stop.request(libc::SIGTERM);
    refused(write(&id, 2, &stop).await, ErrorKind::NotYet);
    std::fs::write(&local.block_files()[0], block(8)).unwrap();
    let error = refused(write(&id, 2, &Stop::never()).await, ErrorKind::Unknown);
    assert!(error.source.unwrap().to_string().contains("damaged"));
    assert!(files(out.path()).is_empty());
}
