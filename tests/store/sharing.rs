//! Two accounts of one store: what one shares with the other, and what not.

use bakehouse::cloud::{
    AccountId, Cloud, Clouds, ErrorKind, Image, ImageQuery, ImageState, NewCopy, SnapshotQuery, Tags,
};
use bakehouse::local::{LocalClouds, Sharing};

use crate::conformance::{
    digests, make, new_image, new_snapshot, new_token, numbered, read_all, unique, wait_completed,
};

/// A store, the account whose image it is, and another one.
struct Two {
    clouds: LocalClouds,
    owner: Cloud,
    other: Cloud,
    image: Image,
    _folder: tempfile::TempDir,
}

async fn two() -> Two {
    let folder = tempfile::tempdir().unwrap();
    let clouds = LocalClouds::open(&folder.path().join("store"), None, None).unwrap();
    let mut place = clouds.home();
    let other = clouds.at(&place).unwrap();
    place.account = AccountId::parse("111111111111").unwrap();
    let owner = clouds.at(&place).unwrap();
    let snapshot = make(&owner, &new_snapshot(1, None), &numbered(&[(0, 1), (5, 2)])).await;
    let mut new = new_image(&unique("web"), &snapshot);
    new.tags = Tags::from([("secret".to_owned(), "plan".to_owned())]);
    let id = owner.images.register(&new).await.unwrap();
    let query = ImageQuery { ids: vec![id], ..ImageQuery::default() };
    owner.images.find(&query).await.unwrap();
    let image = owner.images.find(&query).await.unwrap().remove(0);
    Two { clouds, owner, other, image, _folder: folder }
}

impl Two {
    fn share(&self, with: &[&str], storage: bool) {
        let accounts = with.iter().map(|account| AccountId::parse(account).unwrap()).collect();
        let sharing = Sharing { accounts, storage };
        self.clouds.store().share(&self.owner.place, &self.image.id, &sharing).unwrap();
    }

    fn by_id(&self) -> ImageQuery {
        ImageQuery { ids: vec![self.image.id.clone()], ..ImageQuery::default() }
    }

    fn copy(&self) -> NewCopy {
        NewCopy {
            source: self.image.id.clone(),
            source_region: self.owner.place.region.clone(),
            name: unique("copy"),
            description: String::new(),
            encrypt: None,
            tags: Tags::from([("mine".to_owned(), "yes".to_owned())]),
        }
    }
}

#[tokio::test]
async fn an_image_is_seen_by_those_that_it_is_shared_with_and_without_its_tags() {
    let two = two().await;
    let unseen = two.other.images.find(&two.by_id()).await.unwrap_err();
    assert_eq!(unseen.kind, ErrorKind::NotFound);
    two.share(&["222222222222"], true);
    assert_eq!(two.other.images.find(&two.by_id()).await.unwrap_err().kind, ErrorKind::NotFound);
    two.share(&["000000000000"], true);
    let seen = two.other.images.find(&two.by_id()).await.unwrap();
    assert_eq!((seen.len(), seen[0].tags.len()), (1, 0));
    assert_eq!((&seen[0].owner, &seen[0].id), (&two.owner.place.account, &two.image.id));
    let of = |owner: &str| ImageQuery { owners: vec![owner.to_owned()], ..ImageQuery::default() };
    assert_eq!(two.other.images.find(&of("111111111111")).await.unwrap().len(), 1);
    // Neither among the own ones nor anybody's to change.
    assert!(two.other.images.find(&ImageQuery::default()).await.unwrap().is_empty());
    assert!(two.other.images.find(&of("self")).await.unwrap().is_empty());
    assert_eq!(two.other.images.deregister(&two.image.id).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn storage_is_copied_where_it_is_shared_and_its_blocks_are_read_by_nobody_else() {
    let two = two().await;
    let (_, snapshot) = two.image.root().unwrap();
    let query = SnapshotQuery { ids: vec![snapshot.clone()], ..SnapshotQuery::default() };
    two.share(&[], false);
    let refused = two.other.images.copy(&two.copy(), &new_token()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Denied);
    assert!(refused.to_string().contains("storage of this ami"), "{refused}");
    assert_eq!(two.other.snapshots.describe(&query).await.unwrap_err().kind, ErrorKind::NotFound);
    two.share(&[], true);
    assert_eq!(two.other.snapshots.describe(&query).await.unwrap().len(), 1);
    assert!(two.other.snapshots.list_blocks(snapshot, None).await.is_err());
    let copied = two.other.images.copy(&two.copy(), &new_token()).await.unwrap();
    let query = ImageQuery { ids: vec![copied], ..ImageQuery::default() };
    let copied = two.other.images.find(&query).await.unwrap().remove(0);
    assert_eq!((copied.owner.as_str(), copied.tags.len()), ("000000000000", 1));
    let (_, own) = copied.root().unwrap();
    wait_completed(&two.other, own).await;
    assert_eq!(read_all(&two.other, own).await, digests(&numbered(&[(0, 1), (5, 2)])));
    // It is whole without its source.
    two.owner.images.deregister(&two.image.id).await.unwrap();
    two.owner.snapshots.delete(snapshot).await.unwrap();
    two.clouds.store().collect_garbage().await.unwrap();
    assert_eq!(read_all(&two.other, own).await.len(), 2);
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_found_out_after_the_call() {
    let two = two().await;
    two.share(&[], true);
    let key = "arn:aws:kms:eu-west-1:000000000000:key/none".to_owned();
    let copied = two
        .other
        .images
        .copy(&NewCopy { encrypt: Some(key.clone()), ..two.copy() }, &new_token())
        .await
        .unwrap();
    let query = ImageQuery { ids: vec![copied], ..ImageQuery::default() };
    two.other.images.find(&query).await.unwrap();
    let image = two.other.images.find(&query).await.unwrap().remove(0);
    assert_eq!(image.state, ImageState::Failed);
    assert!(image.state_reason.unwrap().contains(&key));
}
