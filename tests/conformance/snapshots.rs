//! Snapshots and their blocks.

use std::collections::BTreeMap;

use bakehouse::cloud::{
    Block, BlockIndex, BlockToken, Cloud, Digest, ErrorKind, NewSnapshot, PageToken, SnapshotId,
    SnapshotQuery, SnapshotState, Tags,
};

use super::*;

on_every_cloud!(
    what_is_put_is_read_back,
    a_snapshot_is_pending_until_it_is_completed,
    a_pending_snapshot_cannot_be_read,
    a_completed_snapshot_takes_no_more_blocks,
    completing_again_alike_is_answered_alike,
    a_put_that_is_not_one_block_of_the_volume_is_refused,
    a_put_with_another_checksum_is_refused,
    putting_an_index_again_replaces_it,
    completing_with_a_wrong_count_or_checksum_is_refused,
    the_same_token_gives_the_same_snapshot,
    a_child_has_its_parents_blocks_and_its_own,
    deleting_a_parent_does_not_hurt_its_child,
    a_child_is_no_smaller_than_its_parent_and_takes_no_key,
    a_parent_must_be_there_and_completed,
    a_block_that_was_never_put_is_refused,
    a_listing_is_ascending_over_many_pages,
    tokens_are_checked_and_differ_between_listings,
    snapshots_are_found_by_tag,
    a_pending_snapshot_can_be_deleted,
    an_unknown_snapshot_is_not_found,
    a_deleted_snapshot_is_gone,
    a_request_beyond_the_limits_is_refused,
    an_empty_snapshot_can_be_completed,
);

async fn what_is_put_is_read_back(cloud: &Cloud) {
    let blocks = numbered(&[(0, 1), (7, 2), (2047, 3), (100, 0), (101, 1)]);
    let id = make(cloud, &new_snapshot(1, None), &blocks).await;
    assert_eq!(read_all(cloud, &id).await, digests(&blocks));
    let snapshot = snapshot_state(cloud, &id).await.unwrap();
    assert_eq!((snapshot.volume_size, snapshot.parent, snapshot.encrypt), (1, None, None));
    assert_eq!(snapshot.description, "made by a test");
    assert_eq!(snapshot.tags["made-by"], "test");
}

async fn a_snapshot_is_pending_until_it_is_completed(cloud: &Cloud) {
    let id = cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    let blocks = numbered(&[(3, 1)]);
    for _ in 0..3 {
        assert_eq!(snapshot_state(cloud, &id).await.unwrap().state, SnapshotState::Pending);
    }
    put(cloud, &id, 3, &blocks[&3]).await.unwrap();
    cloud.snapshots.complete(&id, 1, checksum(&blocks)).await.unwrap();
    wait_completed(cloud, &id).await;
    assert_eq!(snapshot_state(cloud, &id).await.unwrap().state, SnapshotState::Completed);
}

async fn a_pending_snapshot_cannot_be_read(cloud: &Cloud) {
    let id = cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    put(cloud, &id, 0, &block(1)).await.unwrap();
    refused(cloud.snapshots.list_blocks(&id, None).await, ErrorKind::Invalid);
    let token = BlockToken("AAAA".to_owned());
    refused(get(cloud, &id, BlockIndex(0), &token).await, ErrorKind::Invalid);
}

async fn a_completed_snapshot_takes_no_more_blocks(cloud: &Cloud) {
    let id = make(cloud, &new_snapshot(1, None), &numbered(&[(0, 1)])).await;
    refused(put(cloud, &id, 1, &block(2)).await, ErrorKind::Invalid);
    assert_eq!(read_all(cloud, &id).await, digests(&numbered(&[(0, 1)])));
}

async fn completing_again_alike_is_answered_alike(cloud: &Cloud) {
    let blocks = numbered(&[(0, 1)]);
    let id = make(cloud, &new_snapshot(1, None), &blocks).await;
    cloud.snapshots.complete(&id, 1, checksum(&blocks)).await.unwrap();
    refused(cloud.snapshots.complete(&id, 2, checksum(&blocks)).await, ErrorKind::Invalid);
}

async fn a_put_that_is_not_one_block_of_the_volume_is_refused(cloud: &Cloud) {
    let id = cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    let whole = block(1);
    for data in [Block::new(), whole.slice(1..), [&whole[..], &[0]].concat().into()] {
        refused(put(cloud, &id, 0, &data).await, ErrorKind::Invalid);
    }
    for index in [2048, u32::MAX] {
        refused(put(cloud, &id, index, &whole).await, ErrorKind::Invalid);
    }
    put(cloud, &id, 2047, &whole).await.unwrap();
}

async fn a_put_with_another_checksum_is_refused(cloud: &Cloud) {
    let id = cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    put(cloud, &id, 0, &block(1)).await.unwrap();
    let wrong = cloud.snapshots.put_block(&id, BlockIndex(1), block(2), Digest::of(b"else")).await;
    refused(wrong, ErrorKind::Invalid);
    let blocks = numbered(&[(0, 1)]);
    cloud.snapshots.complete(&id, 1, checksum(&blocks)).await.unwrap();
}

async fn putting_an_index_again_replaces_it(cloud: &Cloud) {
    let id = cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    for number in [1, 2, 3] {
        put(cloud, &id, 5, &block(number)).await.unwrap();
    }
    let blocks = numbered(&[(5, 3)]);
    cloud.snapshots.complete(&id, 1, checksum(&blocks)).await.unwrap();
    wait_completed(cloud, &id).await;
    assert_eq!(read_all(cloud, &id).await, digests(&blocks));
}

async fn completing_with_a_wrong_count_or_checksum_is_refused(cloud: &Cloud) {
    let id = cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    let blocks = numbered(&[(0, 1), (1, 2)]);
    for (index, data) in &blocks {
        put(cloud, &id, *index, data).await.unwrap();
    }
    let sum = checksum(&blocks);
    refused(cloud.snapshots.complete(&id, 1, sum).await, ErrorKind::Invalid);
    refused(cloud.snapshots.complete(&id, 3, sum).await, ErrorKind::Invalid);
    let swapped = checksum(&numbered(&[(0, 2), (1, 1)]));
    refused(cloud.snapshots.complete(&id, 2, swapped).await, ErrorKind::Invalid);
    cloud.snapshots.complete(&id, 2, sum).await.unwrap();
}

async fn the_same_token_gives_the_same_snapshot(cloud: &Cloud) {
    let token = new_token();
    let new = new_snapshot(1, None);
    let id = cloud.snapshots.start(&new, &token).await.unwrap();
    assert_eq!(cloud.snapshots.start(&new, &token).await.unwrap(), id);
    put(cloud, &id, 0, &block(1)).await.unwrap();
    cloud.snapshots.complete(&id, 1, checksum(&numbered(&[(0, 1)]))).await.unwrap();
    assert_eq!(cloud.snapshots.start(&new, &token).await.unwrap(), id);
    for other in [
        new_snapshot(2, None),
        NewSnapshot { description: "other".to_owned(), ..new.clone() },
        NewSnapshot { tags: Tags::new(), ..new.clone() },
        NewSnapshot { timeout_minutes: 61, ..new.clone() },
    ] {
        refused(cloud.snapshots.start(&other, &token).await, ErrorKind::Exists);
    }
    assert_ne!(cloud.snapshots.start(&new, &new_token()).await.unwrap(), id);
}

async fn a_child_has_its_parents_blocks_and_its_own(cloud: &Cloud) {
    let parent = make(cloud, &new_snapshot(1, None), &numbered(&[(0, 1), (1, 2), (2, 3)])).await;
    let child = make(cloud, &new_snapshot(2, Some(&parent)), &numbered(&[(1, 9), (4095, 4)])).await;
    assert_eq!(read_all(cloud, &child).await, digests(&numbered(&[(0, 1), (1, 9), (2, 3), (4095, 4)])));
    assert_eq!(read_all(cloud, &parent).await, digests(&numbered(&[(0, 1), (1, 2), (2, 3)])));
    // EC2 does not tell it.
    let told = is_local(cloud).then_some(parent);
    assert_eq!(snapshot_state(cloud, &child).await.unwrap().parent, told);
}

async fn deleting_a_parent_does_not_hurt_its_child(cloud: &Cloud) {
    let parent = make(cloud, &new_snapshot(1, None), &numbered(&[(0, 1), (1, 2)])).await;
    let child = make(cloud, &new_snapshot(1, Some(&parent)), &numbered(&[(1, 3)])).await;
    let pending = cloud.snapshots.start(&new_snapshot(1, Some(&child)), &new_token()).await.unwrap();
    cloud.snapshots.delete(&parent).await.unwrap();
    assert_eq!(read_all(cloud, &child).await, digests(&numbered(&[(0, 1), (1, 3)])));
    cloud.snapshots.delete(&child).await.unwrap();
    put(cloud, &pending, 2, &block(4)).await.unwrap();
    cloud.snapshots.complete(&pending, 1, checksum(&numbered(&[(2, 4)]))).await.unwrap();
    wait_completed(cloud, &pending).await;
    assert_eq!(read_all(cloud, &pending).await, digests(&numbered(&[(0, 1), (1, 3), (2, 4)])));
}

async fn a_child_is_no_smaller_than_its_parent_and_takes_no_key(cloud: &Cloud) {
    let parent = make(cloud, &new_snapshot(2, None), &numbered(&[(0, 1)])).await;
    let smaller = new_snapshot(1, Some(&parent));
    refused(cloud.snapshots.start(&smaller, &new_token()).await, ErrorKind::Invalid);
    let with_key = NewSnapshot {
        encrypt: Some("arn:aws:kms:eu-west-1:123456789012:key/abc".to_owned()),
        ..new_snapshot(2, Some(&parent))
    };
    refused(cloud.snapshots.start(&with_key, &new_token()).await, ErrorKind::Invalid);
}

async fn a_parent_must_be_there_and_completed(cloud: &Cloud) {
    let pending = cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    let child = new_snapshot(1, Some(&pending));
    refused(cloud.snapshots.start(&child, &new_token()).await, ErrorKind::Invalid);
    let orphan = new_snapshot(1, Some(&nobody()));
    refused(cloud.snapshots.start(&orphan, &new_token()).await, ErrorKind::NotFound);
}

async fn a_block_that_was_never_put_is_refused(cloud: &Cloud) {
    let id = make(cloud, &new_snapshot(1, None), &numbered(&[(0, 1)])).await;
    let token = list_all(cloud, &id).await.unwrap().remove(0).token;
    for index in [1, 2048, u32::MAX] {
        refused(get(cloud, &id, BlockIndex(index), &token).await, ErrorKind::Invalid);
    }
}

async fn a_listing_is_ascending_over_many_pages(cloud: &Cloud) {
    let blocks: BTreeMap<u32, Block> = (0..1005).map(|number| (number * 2, block(0))).collect();
    let id = make(cloud, &new_snapshot(1, None), &blocks).await;
    let listed: Vec<u32> = list_all(cloud, &id).await.unwrap().iter().map(|block| block.index.0).collect();
    assert_eq!(listed, blocks.keys().copied().collect::<Vec<_>>());
    let page = cloud.snapshots.list_blocks(&id, None).await.unwrap();
    assert_eq!(page.volume_size, 1);
    assert!(page.next.is_some());
}

async fn tokens_are_checked_and_differ_between_listings(cloud: &Cloud) {
    let id = make(cloud, &new_snapshot(1, None), &numbered(&[(0, 1), (1, 2)])).await;
    let (first, second) = (list_all(cloud, &id).await.unwrap(), list_all(cloud, &id).await.unwrap());
    for (a, b) in first.iter().zip(&second) {
        assert_ne!(a.token, b.token);
        get(cloud, &id, a.index, &a.token).await.unwrap();
        get(cloud, &id, b.index, &b.token).await.unwrap();
    }
    let made_up = BlockToken("AAAABBBB".to_owned());
    for (index, token) in [(0, &first[1].token), (1, &first[0].token), (0, &made_up)] {
        refused(get(cloud, &id, BlockIndex(index), token).await, ErrorKind::Invalid);
    }
    let page = PageToken("AAAABBBB".to_owned());
    refused(cloud.snapshots.list_blocks(&id, Some(&page)).await, ErrorKind::Invalid);
}

async fn snapshots_are_found_by_tag(cloud: &Cloud) {
    let team = unique("team");
    let new = NewSnapshot {
        tags: Tags::from([("team".to_owned(), team.clone()), ("a".to_owned(), "b".to_owned())]),
        ..new_snapshot(1, None)
    };
    let id = cloud.snapshots.start(&new, &new_token()).await.unwrap();
    cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    // A look for many gives what shows, and one that was just started may show late.
    snapshot_state(cloud, &id).await.unwrap();
    let query = |value: &str| SnapshotQuery {
        tags: Tags::from([("team".to_owned(), value.to_owned())]),
        ..SnapshotQuery::default()
    };
    let found = cloud.snapshots.describe(&query(&team)).await.unwrap();
    assert_eq!(found.iter().map(|one| &one.id).collect::<Vec<_>>(), [&id]);
    assert!(cloud.snapshots.describe(&query("nobody's")).await.unwrap().is_empty());
    let keys = |keys: &[&str]| SnapshotQuery {
        tag_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..query(&team)
    };
    assert_eq!(cloud.snapshots.describe(&keys(&["a", "team"])).await.unwrap().len(), 1);
    assert!(cloud.snapshots.describe(&keys(&["a", "b"])).await.unwrap().is_empty());
    let all = cloud.snapshots.describe(&SnapshotQuery::default()).await.unwrap();
    assert!(all.len() >= 2);
}

async fn a_pending_snapshot_can_be_deleted(cloud: &Cloud) {
    for puts in [0, 2] {
        let id = cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
        for index in 0..puts {
            put(cloud, &id, index, &block(index.into())).await.unwrap();
        }
        cloud.snapshots.delete(&id).await.unwrap();
        refused(snapshot_state(cloud, &id).await, ErrorKind::NotFound);
        let data = block(1);
        let digest = Digest::of(&data);
        refused(cloud.snapshots.put_block(&id, BlockIndex(0), data, digest).await, unknown_to_writes(cloud));
        let empty = checksum(&BTreeMap::new());
        refused(cloud.snapshots.complete(&id, 0, empty).await, unknown_to_writes(cloud));
    }
}

/// What writing to a snapshot that is not there is. On AWS one that was just started may be as unknown for a while, and
/// nothing tells the one from the other.
fn unknown_to_writes(cloud: &Cloud) -> ErrorKind {
    if is_local(cloud) { ErrorKind::NotFound } else { ErrorKind::NotYet }
}

fn nobody() -> SnapshotId {
    SnapshotId::parse("snap-0123456789abcdef0").unwrap()
}

async fn an_unknown_snapshot_is_not_found(cloud: &Cloud) {
    let id = nobody();
    let snapshots = &cloud.snapshots;
    let error = refused(snapshot_state(cloud, &id).await, ErrorKind::NotFound);
    assert_eq!(error.code.as_deref(), Some("InvalidSnapshot.NotFound"));
    let error = refused(snapshots.delete(&id).await, ErrorKind::NotFound);
    assert_eq!(error.code.as_deref(), Some("InvalidSnapshot.NotFound"));
    let data = block(1);
    let digest = Digest::of(&data);
    for error in [
        refused(snapshots.complete(&id, 0, digest).await, unknown_to_writes(cloud)),
        refused(snapshots.list_blocks(&id, None).await, ErrorKind::NotFound),
        refused(snapshots.put_block(&id, BlockIndex(0), data, digest).await, unknown_to_writes(cloud)),
    ] {
        assert_eq!(error.code.as_deref(), Some("ResourceNotFoundException"));
    }
}

async fn a_deleted_snapshot_is_gone(cloud: &Cloud) {
    let id = make(cloud, &new_snapshot(1, None), &numbered(&[(0, 1)])).await;
    let twin = make(cloud, &new_snapshot(1, None), &numbered(&[(9, 1)])).await;
    cloud.snapshots.delete(&id).await.unwrap();
    refused(snapshot_state(cloud, &id).await, ErrorKind::NotFound);
    refused(cloud.snapshots.delete(&id).await, ErrorKind::NotFound);
    refused(cloud.snapshots.list_blocks(&id, None).await, ErrorKind::NotFound);
    // The same content in another snapshot stays.
    assert_eq!(read_all(cloud, &twin).await, digests(&numbered(&[(9, 1)])));
    let pending = cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    put(cloud, &pending, 0, &block(5)).await.unwrap();
    cloud.snapshots.delete(&pending).await.unwrap();
    let data = block(5);
    let digest = Digest::of(&data);
    refused(cloud.snapshots.put_block(&pending, BlockIndex(1), data, digest).await, unknown_to_writes(cloud));
}

async fn a_request_beyond_the_limits_is_refused(cloud: &Cloud) {
    let good = new_snapshot(1, None);
    for bad in [
        NewSnapshot { volume_size: 0, ..good.clone() },
        NewSnapshot { volume_size: 65_537, ..good.clone() },
        NewSnapshot { timeout_minutes: 1, ..good.clone() },
        NewSnapshot { description: "x".repeat(256), ..good.clone() },
        NewSnapshot {
            tags: (0..51).map(|number| (format!("key-{number}"), String::new())).collect(),
            ..good.clone()
        },
    ] {
        refused(cloud.snapshots.start(&bad, &new_token()).await, ErrorKind::Invalid);
    }
}

async fn an_empty_snapshot_can_be_completed(cloud: &Cloud) {
    let id = make(cloud, &new_snapshot(1, None), &BTreeMap::new()).await;
    assert!(list_all(cloud, &id).await.unwrap().is_empty());
}
