//! What AWS does late or now and then, the local cloud does each time, so that every caller meets it in every run.

use std::time::{Duration, SystemTime};

use bakehouse::cloud::{
    AccountId, BlockIndex, Clouds, Digest, ErrorKind, ImageState, NewSnapshot, Partition, Place, Region,
    SnapshotState,
};
use bakehouse::local::LocalClouds;

use super::Local;
use crate::conformance::*;

#[tokio::test]
async fn the_first_put_after_a_start_comes_too_early_and_no_other() {
    let local = Local::new();
    let snapshots = &local.cloud.snapshots;
    let token = new_token();
    let id = snapshots.start(&new_snapshot(1, None), &token).await.unwrap();
    let data = block(1);
    let put = || snapshots.put_block(&id, BlockIndex(0), data.clone(), Digest::of(&data));
    let error = refused(put().await, ErrorKind::NotYet);
    assert_eq!(error.code.as_deref(), Some("ResourceNotFoundException"));
    put().await.unwrap();
    snapshots.start(&new_snapshot(1, None), &token).await.unwrap();
    put().await.unwrap();
}

#[tokio::test]
async fn the_first_describe_after_completing_still_says_pending() {
    let local = Local::new();
    let snapshots = &local.cloud.snapshots;
    let id = snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    put(&local.cloud, &id, 0, &block(1)).await.unwrap();
    snapshots.complete(&id, 1, checksum(&numbered(&[(0, 1)]))).await.unwrap();
    refused(snapshots.list_blocks(&id, None).await, ErrorKind::Invalid);
    refused(local.cloud.images.register(&new_image("web", &id)).await, ErrorKind::Invalid);
    let state = |found: bakehouse::cloud::Snapshot| found.state;
    assert_eq!(state(snapshot_state(&local.cloud, &id).await.unwrap()), SnapshotState::Pending);
    assert_eq!(state(snapshot_state(&local.cloud, &id).await.unwrap()), SnapshotState::Completed);
    snapshots.list_blocks(&id, None).await.unwrap();
}

#[tokio::test]
async fn the_first_describe_of_an_image_says_pending() {
    let local = Local::new();
    let snapshot = make(&local.cloud, &new_snapshot(1, None), &numbered(&[(0, 1)])).await;
    let id = local.cloud.images.register(&new_image("web", &snapshot)).await.unwrap();
    let look = || local.store().image(&local.cloud.place, &id).unwrap().state;
    assert_eq!(look(), ImageState::Pending);
    assert_eq!(find_image(&local.cloud, &id).await.unwrap().state, ImageState::Pending);
    assert_eq!(look(), ImageState::Available);
    assert_eq!(find_image(&local.cloud, &id).await.unwrap().state, ImageState::Available);
}

#[tokio::test]
async fn the_first_page_of_a_listing_is_empty_though_more_follow() {
    let local = Local::new();
    let id = make(&local.cloud, &new_snapshot(1, None), &numbered(&[(0, 1)])).await;
    let page = local.cloud.snapshots.list_blocks(&id, None).await.unwrap();
    assert!(page.blocks.is_empty());
    let page = local.cloud.snapshots.list_blocks(&id, page.next.as_ref()).await.unwrap();
    assert_eq!((page.blocks.len(), page.next), (1, None));
}

#[tokio::test]
async fn a_snapshot_without_a_put_for_too_long_is_in_error() {
    let local = Local::new();
    let snapshots = &local.cloud.snapshots;
    let new = NewSnapshot { timeout_minutes: 10, ..new_snapshot(1, None) };
    let id = snapshots.start(&new, &new_token()).await.unwrap();
    put(&local.cloud, &id, 0, &block(1)).await.unwrap();
    let age = |minutes: u64| {
        #[expect(
            clippy::disallowed_methods,
            reason = "a file's own time is wanted, whatever the environment says"
        )]
        let then = SystemTime::now() - Duration::from_secs(minutes * 60);
        let map =
            std::fs::File::options().write(true).open(local.snapshot_dir(&id).join("changed.map")).unwrap();
        map.set_modified(then).unwrap();
    };
    age(9);
    assert_eq!(snapshot_state(&local.cloud, &id).await.unwrap().state, SnapshotState::Pending);
    // Another put is another beginning.
    put(&local.cloud, &id, 1, &block(1)).await.unwrap();
    age(11);
    assert_eq!(snapshot_state(&local.cloud, &id).await.unwrap().state, SnapshotState::Error);
    refused(put(&local.cloud, &id, 2, &block(1)).await, ErrorKind::Invalid);
    let blocks = numbered(&[(0, 1), (1, 1)]);
    refused(snapshots.complete(&id, 2, checksum(&blocks)).await, ErrorKind::Invalid);

    assert_eq!(local.block_files().len(), 1);
    let collected = local.store().collect_garbage().await.unwrap();
    assert_eq!((collected.given_up, collected.blocks), (1, 1));
    assert_eq!(snapshot_state(&local.cloud, &id).await.unwrap().state, SnapshotState::Error);
    refused(put(&local.cloud, &id, 2, &block(1)).await, ErrorKind::Invalid);
    snapshots.delete(&id).await.unwrap();
}

#[tokio::test]
async fn places_know_nothing_of_each_other() {
    let local = Local::new();
    let (snapshot, image) = make_image(&local.cloud, "web").await;
    let place = |account: &str, region: &str| Place {
        partition: Partition::local(),
        account: AccountId::parse(account).unwrap(),
        region: Region::parse(region).unwrap(),
    };
    for place in [place("000000000000", "other"), place("111111111111", "local")] {
        let other = local.clouds.at(&place).unwrap();
        refused(snapshot_state(&other, &snapshot).await, ErrorKind::NotFound);
        refused(find_image(&other, &image).await, ErrorKind::NotFound);
        refused(other.images.register(&new_image("web", &snapshot)).await, ErrorKind::NotFound);
        // The same name, content and token are another image, another snapshot there.
        let (own, _) = make_image(&other, "web").await;
        assert_eq!(read_all(&other, &own).await, read_all(&local.cloud, &snapshot).await);
        other.snapshots.describe(&Default::default()).await.unwrap();
    }
    assert_eq!(local.block_files().len(), 1);

    let mut elsewhere = local.clouds.home();
    elsewhere.partition = Partition::parse("aws").unwrap();
    refused(local.clouds.at(&elsewhere), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_store_is_opened_at_the_home_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let account = AccountId::parse("123456789012").unwrap();
    let region = Region::parse("eu-west-1").unwrap();
    let clouds = LocalClouds::open(folder.path(), Some(account.clone()), Some(region.clone())).unwrap();
    assert_eq!((clouds.home().account, clouds.home().region), (account, region));
    let clouds = LocalClouds::open(folder.path(), None, None).unwrap();
    assert_eq!(clouds.home().to_string(), "000000000000/local");
}

#[tokio::test]
async fn a_damaged_file_of_the_store_is_an_error_that_names_it() {
    let local = Local::new();
    let (snapshot, image) = make_image(&local.cloud, "web").await;
    std::fs::write(local.snapshot_dir(&snapshot).join("snapshot.json"), "{").unwrap();
    let error = refused(snapshot_state(&local.cloud, &snapshot).await, ErrorKind::Unknown);
    assert!(error.source.unwrap().to_string().contains("snapshot.json"));
    let folder = local.store().place_dir(&local.cloud.place);
    let file = folder.join("images").join(image.as_str()).join("image.json");
    std::fs::write(file, r#"{"id": "../../x"}"#).unwrap();
    let error = refused(find_image(&local.cloud, &image).await, ErrorKind::Unknown);
    assert!(error.source.unwrap().to_string().contains("image.json"));
}
