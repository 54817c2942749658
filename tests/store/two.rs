//! Two processes at work on one store at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bakehouse::cloud::{Clouds, ErrorKind};
use bakehouse::host::lock::FileLock;
use bakehouse::host::stop::Stop;
use bakehouse::local::Collected;

use super::{Local, open, process};
use crate::conformance::*;

/// Starts two children at the same moment and gives the lines of each.
fn race(test: &str, folder: &Path) -> Vec<Vec<String>> {
    let children: Vec<_> = ["a", "b"].map(|part| process::start(test, folder, part)).into();
    std::fs::write(folder.join("go"), "").unwrap();
    let ended = children.into_iter().map(|child| {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        text.lines().map(str::to_owned).collect()
    });
    ended.collect()
}

async fn wait_for_the_other(folder: &Path, part: &str) {
    std::fs::write(folder.join(part), "").unwrap();
    while !["a", "b", "go"].iter().all(|name| folder.join(name).exists()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!();
}

#[tokio::test]
async fn of_two_that_register_a_name_one_wins() {
    const NAMES: usize = 30;
    if let Some((folder, part)) = process::part() {
        let clouds = open(&folder);
        let cloud = clouds.at(&clouds.home()).unwrap();
        let snapshot = std::fs::read_to_string(folder.join("snapshot")).unwrap();
        let snapshot = bakehouse::cloud::SnapshotId::parse(&snapshot).unwrap();
        wait_for_the_other(&folder, &part).await;
        for number in 0..NAMES {
            match cloud.images.register(&new_image(&format!("web-{number}"), &snapshot)).await {
                Ok(_) => println!("won {number}"),
                Err(error) => assert_eq!(error.kind, ErrorKind::Exists, "{error}"),
            }
        }
        return;
    }
    let local = Local::new();
    let snapshot = make(&local.cloud, &new_snapshot(1, None), &numbered(&[(0, 1)])).await;
    std::fs::write(local.folder.path().join("snapshot"), snapshot.as_str()).unwrap();
    let lines = race("store::two::of_two_that_register_a_name_one_wins", local.folder.path());
    let mut won: Vec<usize> =
        lines.iter().flatten().filter_map(|line| line.strip_prefix("won ")?.parse().ok()).collect();
    won.sort_unstable();
    assert_eq!(won, (0..NAMES).collect::<Vec<_>>());
    let images = local.cloud.images.find(&Default::default()).await.unwrap();
    assert_eq!(images.len(), NAMES);
}

/// While one deletes a content, the other puts it: whoever has completed a snapshot has all of it.
#[tokio::test]
async fn one_deletes_what_the_other_puts() {
    const ROUNDS: usize = 40;
    let blocks: BTreeMap<u32, Block> = numbered(&[(0, 1), (1, 2), (2, 3), (3, 4)]);
    if let Some((folder, part)) = process::part() {
        let clouds = open(&folder);
        let cloud = clouds.at(&clouds.home()).unwrap();
        wait_for_the_other(&folder, &part).await;
        for round in 0..ROUNDS {
            let id = make(&cloud, &new_snapshot(1, None), &blocks).await;
            assert_eq!(read_all(&cloud, &id).await, digests(&blocks));
            let child = make(&cloud, &new_snapshot(1, Some(&id)), &numbered(&[(3, 1)])).await;
            cloud.snapshots.delete(&id).await.unwrap();
            assert_eq!(read_all(&cloud, &child).await, digests(&numbered(&[(0, 1), (1, 2), (2, 3), (3, 1)])));
            cloud.snapshots.delete(&child).await.unwrap();
            if round % 8 == 0 {
                clouds.store().collect_garbage().await.unwrap();
            }
        }
        make(&cloud, &new_snapshot(1, None), &blocks).await;
        return;
    }
    let local = Local::new();
    race("store::two::one_deletes_what_the_other_puts", local.folder.path());
    let verified = local.store().verify(&Stop::never()).await.unwrap();
    assert_eq!((verified.snapshots, verified.blocks), (2, 4));
    assert_eq!(verified.damaged, []);
    assert_eq!(local.store().collect_garbage().await.unwrap(), Collected::default());
    assert_eq!(local.block_files().len(), 4);
}

/// What two processes seldom meet by chance: a put comes while blocks are being deleted, or blocks are to be deleted
/// while somebody is between storing one and naming it.
#[tokio::test]
async fn puts_and_deletions_keep_out_of_each_others_way() {
    // Long enough that a call which does not wait is done by then; how long exactly decides nothing else.
    const A_WHILE: Duration = Duration::from_millis(300);
    let local = Local::new();
    let id = local.cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    put(&local.cloud, &id, 0, &block(1)).await.unwrap();
    let gone = make(&local.cloud, &new_snapshot(1, None), &numbered(&[(0, 2)])).await;
    let lock = local.store().folder().join("lock");

    let deleting = FileLock::exclusive(&lock).unwrap();
    let data = block(3);
    let late = put(&local.cloud, &id, 1, &data);
    tokio::pin!(late);
    tokio::time::timeout(A_WHILE, &mut late).await.unwrap_err();
    drop(deleting);
    late.await.unwrap();

    let storing = FileLock::shared(&lock).unwrap();
    put(&local.cloud, &id, 2, &block(4)).await.unwrap();
    let delete = local.cloud.snapshots.delete(&gone);
    tokio::pin!(delete);
    tokio::time::timeout(A_WHILE, &mut delete).await.unwrap_err();
    let block_files = local.block_files().len();
    drop(storing);
    delete.await.unwrap();
    assert_eq!((block_files, local.block_files().len()), (4, 3));

    let storing = FileLock::shared(&lock).unwrap();
    let collect = local.store().collect_garbage();
    tokio::pin!(collect);
    tokio::time::timeout(A_WHILE, &mut collect).await.unwrap_err();
    drop(storing);
    collect.await.unwrap();
}

/// Two handles in one process are as two processes: each opens its own lock files.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn puts_to_one_snapshot_from_many_sides_all_arrive() {
    let local = Local::new();
    let blocks: BTreeMap<u32, Block> = (0..64).map(|index| (index, block(u64::from(index % 5)))).collect();
    let id = local.cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    let sides: Vec<_> = (0..4)
        .map(|side| {
            let clouds = open(local.folder.path());
            let (id, blocks) = (id.clone(), blocks.clone());
            tokio::spawn(async move {
                let cloud = clouds.at(&clouds.home()).unwrap();
                for (index, data) in blocks.iter().filter(|(index, _)| **index % 4 == side) {
                    put(&cloud, &id, *index, data).await.unwrap();
                    if index % 16 == side {
                        clouds.store().collect_garbage().await.unwrap();
                    }
                }
            })
        })
        .collect();
    for side in sides {
        side.await.unwrap();
    }
    local.cloud.snapshots.complete(&id, 64, checksum(&blocks)).await.unwrap();
    wait_completed(&local.cloud, &id).await;
    assert_eq!(read_all(&local.cloud, &id).await, digests(&blocks));
    assert_eq!(local.block_files().len(), 4);
}
