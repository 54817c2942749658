//! Room: what is stored once, what goes with the last snapshot that has it, what verifying finds.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use bakehouse::cloud::{BLOCK_SIZE, BlockIndex};
use bakehouse::host::stop::Stop;
use bakehouse::local::Collected;

use super::{Local, files};
use crate::conformance::*;

/// Bytes on disk of everything in the store.
fn room(local: &Local) -> u64 {
    let files = files(local.store().folder());
    files.iter().map(|file| file.metadata().unwrap().blocks() * 512).sum()
}

#[tokio::test]
async fn a_child_of_k_changed_blocks_takes_the_room_of_k_blocks() {
    let local = Local::new();
    let parent: BTreeMap<u32, Block> = (0..100).map(|number| (number * 163, block(number.into()))).collect();
    let parent = make(&local.cloud, &new_snapshot(8, None), &parent).await;
    let before = room(&local);
    let changed: BTreeMap<u32, Block> =
        (0..20).map(|number| (number * 815, block(1000 + u64::from(number)))).collect();
    let k = changed.len() as u64;
    make(&local.cloud, &new_snapshot(8, Some(&parent)), &changed).await;
    let grown = room(&local) - before;
    let block = BLOCK_SIZE as u64;
    assert!(grown >= k * block, "{grown} bytes cannot hold {k} blocks");
    assert!(grown * 10 <= 11 * k * block, "{grown} bytes for {k} blocks");
}

#[tokio::test]
async fn a_block_goes_with_the_last_snapshot_that_has_it() {
    let local = Local::new();
    let snapshots = &local.cloud.snapshots;
    let a = make(&local.cloud, &new_snapshot(1, None), &numbered(&[(0, 1), (1, 2), (2, 0)])).await;
    let b = make(&local.cloud, &new_snapshot(1, None), &numbered(&[(5, 2), (6, 3)])).await;
    let child = make(&local.cloud, &new_snapshot(1, Some(&b)), &numbered(&[(6, 4)])).await;
    let left = || local.block_files().len();
    assert_eq!(left(), 4);
    snapshots.delete(&a).await.unwrap();
    assert_eq!(left(), 3);
    snapshots.delete(&b).await.unwrap();
    assert_eq!(left(), 2);
    let pending = snapshots.start(&new_snapshot(1, Some(&child)), &new_token()).await.unwrap();
    snapshots.delete(&child).await.unwrap();
    assert_eq!(left(), 2);
    assert_eq!(local.store().collect_garbage().await.unwrap(), Collected::default());
    snapshots.delete(&pending).await.unwrap();
    assert_eq!(left(), 0);
}

#[tokio::test]
async fn what_is_left_behind_is_collected_and_nothing_else() {
    let local = Local::new();
    let blocks = numbered(&[(0, 1), (1, 2)]);
    let (_, image) = make_image(&local.cloud, "web").await;
    let id = make(&local.cloud, &new_snapshot(1, None), &blocks).await;
    let pending = local.cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    put(&local.cloud, &pending, 0, &block(3)).await.unwrap();
    // An orphan as a put that was killed leaves it, and unfinished things of each sort.
    let block_file = &local.block_files()[0];
    let orphan = local.store().folder().join("blocks/ab");
    std::fs::create_dir_all(&orphan).unwrap();
    std::fs::copy(block_file, orphan.join("ab".repeat(32))).unwrap();
    std::fs::write(block_file.with_file_name(".half"), "x").unwrap();
    std::fs::write(local.snapshot_dir(&id).join(".map"), "x").unwrap();
    let snapshots = local.snapshot_dir(&id).parent().unwrap().to_owned();
    std::fs::create_dir(snapshots.join(".staged")).unwrap();
    std::fs::write(snapshots.join(".staged/blocks.map"), "x").unwrap();
    std::fs::write(local.store().folder().join(".format"), "x").unwrap();

    // A launch that was killed before it wrote what it launches.
    let instance = snapshots.with_file_name("instances").join("i-0123456789abcdef0");
    std::fs::create_dir_all(&instance).unwrap();

    let found = local.store().find_garbage().await.unwrap();
    assert_eq!(local.store().find_garbage().await.unwrap(), found);
    let collected = local.store().collect_garbage().await.unwrap();
    assert_eq!((collected.blocks, collected.given_up), (1, 0));
    assert_eq!(collected, found);
    assert!(!instance.exists());
    assert_eq!(local.store().collect_garbage().await.unwrap(), Collected::default());
    let hidden = |file: &&std::path::PathBuf| {
        file.strip_prefix(local.folder.path()).unwrap().to_string_lossy().contains("/.")
    };
    assert_eq!(files(local.store().folder()).iter().find(hidden), None);
    assert_eq!(read_all(&local.cloud, &id).await, digests(&blocks));
    find_image(&local.cloud, &image).await.unwrap();
    let put_before = numbered(&[(0, 3)]);
    local.cloud.snapshots.complete(&pending, 1, checksum(&put_before)).await.unwrap();
    wait_completed(&local.cloud, &pending).await;
    assert_eq!(read_all(&local.cloud, &pending).await, digests(&put_before));
}

#[tokio::test]
async fn verifying_names_what_is_damaged_or_missing() {
    let local = Local::new();
    let id = make(&local.cloud, &new_snapshot(1, None), &numbered(&[(0, 1), (1, 2), (2, 3), (3, 0)])).await;
    make(&local.cloud, &new_snapshot(1, None), &numbered(&[(9, 3)])).await;
    let verified = local.store().verify(&Stop::never()).await.unwrap();
    assert_eq!((verified.snapshots, verified.blocks), (2, 4));
    assert!(verified.damaged.is_empty());

    let file = |number: u64| {
        let hex = bakehouse::cloud::Digest::of(&block(number)).hex();
        local.store().folder().join("blocks").join(&hex[..2]).join(hex)
    };
    std::fs::write(file(1), block(2)).unwrap();
    std::fs::remove_file(file(2)).unwrap();
    let damaged = local.store().verify(&Stop::never()).await.unwrap().damaged;
    let found: Vec<_> = damaged.iter().map(|damage| (&damage.snapshot, damage.index)).collect();
    assert_eq!(found, [(&id, BlockIndex(0)), (&id, BlockIndex(1))]);
    // Putting the same content again heals it.
    make(&local.cloud, &new_snapshot(1, None), &numbered(&[(0, 1), (1, 2)])).await;
    assert!(local.store().verify(&Stop::never()).await.unwrap().damaged.is_empty());

    let stop = Stop::never();
    stop.request(libc::SIGTERM);
    local.store().verify(&stop).await.unwrap_err();
}
