//! Images.

use bakehouse::cloud::{Cloud, ErrorKind, Image, ImageId, ImageQuery, ImageState, NewCopy, SnapshotId, Tags};

use super::*;

on_every_cloud!(
    every_attribute_is_kept,
    a_name_is_taken_once,
    a_snapshot_that_an_image_uses_cannot_be_deleted,
    the_snapshot_must_be_there_completed_and_fit,
    an_image_that_was_deregistered_is_gone_and_its_name_free,
    images_are_found_by_owner_name_and_tag,
    the_newest_image_comes_first,
    tags_are_added_and_replaced,
    an_image_without_its_root_is_refused,
    a_copy_has_all_that_its_source_has_but_the_name_and_tags,
    one_token_is_one_copy,
    a_copy_takes_no_name_that_exists,
);

async fn every_attribute_is_kept(cloud: &Cloud) {
    let name = unique("web (1) [a] x/y'z@_.");
    let snapshot = make(cloud, &new_snapshot(1, None), &numbered(&[(0, 1)])).await;
    let mut new = new_image(&name, &snapshot);
    new.tags = Tags::from([("team".to_owned(), "web".to_owned())]);
    new.attributes.boot_mode = Some(bakehouse::cloud::BootMode::Uefi);
    new.attributes.tpm = true;
    new.attributes.uefi_data = Some("QUJD".to_owned());
    new.attributes.devices.push(BlockDevice {
        name: "/dev/sdb".to_owned(),
        ebs: None,
        virtual_name: Some("ephemeral0".to_owned()),
    });
    new.attributes.devices.push(BlockDevice {
        name: "/dev/sdc".to_owned(),
        ebs: Some(EbsDisk {
            snapshot: None,
            size: 20,
            kind: DiskType::Io2,
            iops: Some(4000),
            throughput: None,
            delete_on_termination: false,
        }),
        virtual_name: None,
    });
    let id = cloud.images.register(&new).await.unwrap();
    let image = find_image(cloud, &id).await.unwrap();
    assert_eq!(cloud.images.uefi_data(&id).await.unwrap(), new.attributes.uefi_data);
    // A look does not show it, as DescribeImages does not.
    new.attributes.uefi_data = None;
    assert_eq!(image.attributes, new.attributes);
    assert_eq!((image.name, image.description, image.tags), (name, new.description, new.tags));
    assert_eq!(image.owner, cloud.place.account);
    assert_eq!((image.usage_operation.as_str(), image.platform.as_str()), ("RunInstances", "Linux/UNIX"));
    assert!(image.product_codes.is_empty());
}

async fn a_name_is_taken_once(cloud: &Cloud) {
    let name = unique("web");
    let (snapshot, id) = make_image(cloud, &name).await;
    let error = refused(cloud.images.register(&new_image(&name, &snapshot)).await, ErrorKind::Exists);
    assert_eq!(error.code.as_deref(), Some("InvalidAMIName.Duplicate"));
    assert_eq!(find_image(cloud, &id).await.unwrap().name, name);
}

async fn a_snapshot_that_an_image_uses_cannot_be_deleted(cloud: &Cloud) {
    let (snapshot, id) = make_image(cloud, &unique("web")).await;
    let error = refused(cloud.snapshots.delete(&snapshot).await, ErrorKind::InUse);
    assert_eq!(error.code.as_deref(), Some("InvalidSnapshot.InUse"));
    assert_eq!(read_all(cloud, &snapshot).await, digests(&numbered(&[(0, 1)])));
    cloud.images.deregister(&id).await.unwrap();
    cloud.snapshots.delete(&snapshot).await.unwrap();
}

async fn the_snapshot_must_be_there_completed_and_fit(cloud: &Cloud) {
    let nobody = SnapshotId::parse("snap-0123456789abcdef0").unwrap();
    let error =
        refused(cloud.images.register(&new_image(&unique("web"), &nobody)).await, ErrorKind::NotFound);
    assert_eq!(error.code.as_deref(), Some("InvalidSnapshot.NotFound"));
    let pending = cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    refused(cloud.images.register(&new_image(&unique("web"), &pending)).await, ErrorKind::Invalid);
    let large = make(cloud, &new_snapshot(2, None), &numbered(&[(0, 1)])).await;
    refused(cloud.images.register(&new_image(&unique("web"), &large)).await, ErrorKind::Invalid);
}

async fn an_image_that_was_deregistered_is_gone_and_its_name_free(cloud: &Cloud) {
    let name = unique("web");
    let (snapshot, id) = make_image(cloud, &name).await;
    cloud.images.deregister(&id).await.unwrap();
    let error = refused(find_image(cloud, &id).await, ErrorKind::NotFound);
    assert_eq!(error.code.as_deref(), Some("InvalidAMIID.NotFound"));
    refused(cloud.images.deregister(&id).await, ErrorKind::NotFound);
    refused(
        cloud.images.tag(&id, &Tags::from([("a".to_owned(), "b".to_owned())])).await,
        ErrorKind::NotFound,
    );
    cloud.images.register(&new_image(&name, &snapshot)).await.unwrap();
}

async fn found(cloud: &Cloud, query: ImageQuery) -> Vec<ImageId> {
    let images = cloud.images.find(&query).await.unwrap();
    images.into_iter().map(|image| image.id).collect()
}

async fn images_are_found_by_owner_name_and_tag(cloud: &Cloud) {
    let name = unique("web");
    let (snapshot, id) = make_image(cloud, &format!("{name}-1")).await;
    let mut other = new_image(&format!("{name}-2"), &snapshot);
    other.tags = Tags::from([("team".to_owned(), name.clone())]);
    let other = cloud.images.register(&other).await.unwrap();
    // A look for many gives what shows, and an image that was just registered may show late: it is looked for by its id first.
    find_image(cloud, &other).await.unwrap();

    let named = |pattern: String| ImageQuery { name: Some(pattern), ..ImageQuery::default() };
    // Newest first; EC2 tells no fraction of a second, so that two may be as old.
    let both = cloud.images.find(&named(format!("{name}-?"))).await.unwrap();
    assert!(both.is_sorted_by(|first, second| first.created >= second.created), "{both:?}");
    let created = |of: &ImageId| both.iter().find(|image| image.id == *of).unwrap().created;
    assert!(both.len() == 2 && created(&other) >= created(&id), "{both:?}");
    assert_eq!(found(cloud, named(format!("*{}-1", &name[4..]))).await, std::slice::from_ref(&id));
    assert!(found(cloud, named(name.clone())).await.is_empty());

    let owned = |owner: &str| ImageQuery { owners: vec![owner.to_owned()], ..named(format!("{name}-*")) };
    assert_eq!(found(cloud, owned("self")).await.len(), 2);
    assert_eq!(found(cloud, owned(cloud.place.account.as_str())).await.len(), 2);
    assert!(found(cloud, owned("amazon")).await.is_empty());

    let tagged =
        ImageQuery { tags: Tags::from([("team".to_owned(), name.clone())]), ..ImageQuery::default() };
    assert_eq!(found(cloud, tagged.clone()).await, std::slice::from_ref(&other));
    let keyed = |key: &str| ImageQuery { tag_keys: vec![key.to_owned()], ..tagged.clone() };
    assert_eq!(found(cloud, keyed("team")).await, [other]);
    assert!(found(cloud, keyed("nobody's")).await.is_empty());

    let unknown = ImageQuery {
        ids: vec![id, ImageId::parse("ami-0123456789abcdef0").unwrap()],
        ..ImageQuery::default()
    };
    refused(cloud.images.find(&unknown).await, ErrorKind::NotFound);
}

async fn the_newest_image_comes_first(cloud: &Cloud) {
    let name = unique("web");
    let (snapshot, first) = make_image(cloud, &format!("{name}-z")).await;
    let mut ids = vec![first];
    for letter in ["b", "y", "a"] {
        if !is_local(cloud) {
            // Whole seconds: the order of images of one second is nobody's.
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        let new = new_image(&format!("{name}-{letter}"), &snapshot);
        ids.insert(0, cloud.images.register(&new).await.unwrap());
    }
    find_image(cloud, &ids[0]).await.unwrap();
    let query = ImageQuery { name: Some(format!("{name}-*")), ..ImageQuery::default() };
    assert_eq!(found(cloud, query).await, ids);
}

async fn tags_are_added_and_replaced(cloud: &Cloud) {
    let (_, id) = make_image(cloud, &unique("web")).await;
    let tags = |pairs: &[(&str, &str)]| -> Tags {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    cloud.images.tag(&id, &tags(&[("a", "1"), ("b", "2")])).await.unwrap();
    cloud.images.tag(&id, &tags(&[("b", "3")])).await.unwrap();
    let image = find_image(cloud, &id).await.unwrap();
    assert_eq!(image.tags, tags(&[("a", "1"), ("b", "3")]));
    assert_eq!(image.state, ImageState::Available);
    let many: Tags = (0..49).map(|number| (format!("key-{number}"), String::new())).collect();
    refused(cloud.images.tag(&id, &many).await, ErrorKind::Invalid);
    assert_eq!(find_image(cloud, &id).await.unwrap().tags.len(), 2);
}

async fn an_image_without_its_root_is_refused(cloud: &Cloud) {
    let snapshot = make(cloud, &new_snapshot(1, None), &numbered(&[(0, 1)])).await;
    let mut new = new_image(&unique("web"), &snapshot);
    new.attributes.root_device = "/dev/sda1".to_owned();
    refused(cloud.images.register(&new).await, ErrorKind::Invalid);
    for name in ["ab", "web:1", "web\n1", "wéb"] {
        refused(cloud.images.register(&new_image(name, &snapshot)).await, ErrorKind::Invalid);
    }
}

fn new_copy(cloud: &Cloud, source: &ImageId, name: &str) -> NewCopy {
    NewCopy {
        source: source.clone(),
        source_region: cloud.place.region.clone(),
        name: name.to_owned(),
        description: "copied by a test".to_owned(),
        encrypt: None,
        tags: Tags::from([("copied-by".to_owned(), "test".to_owned())]),
    }
}

async fn available(cloud: &Cloud, id: &ImageId) -> Image {
    until(soon("image available"), &cloud.place, &Stop::never(), || async {
        Ok(Some(find_image(cloud, id).await?).filter(|image| image.state == ImageState::Available))
    })
    .await
    .unwrap()
}

async fn a_copy_has_all_that_its_source_has_but_the_name_and_tags(cloud: &Cloud) {
    let blocks = numbered(&[(0, 1), (7, 2)]);
    let snapshot = make(cloud, &new_snapshot(1, None), &blocks).await;
    let mut new = new_image(&unique("web"), &snapshot);
    new.attributes.boot_mode = Some(bakehouse::cloud::BootMode::Uefi);
    new.attributes.uefi_data = Some("QUJD".to_owned());
    new.tags = Tags::from([("team".to_owned(), "web".to_owned())]);
    let source = cloud.images.register(&new).await.unwrap();
    let source = available(cloud, &source).await;
    let name = unique("copy");
    let id = cloud.images.copy(&new_copy(cloud, &source.id, &name), &new_token()).await.unwrap();
    let copy = available(cloud, &id).await;
    assert_eq!((copy.name.as_str(), copy.description.as_str()), (name.as_str(), "copied by a test"));
    assert_eq!(copy.tags, Tags::from([("copied-by".to_owned(), "test".to_owned())]));
    assert_eq!(cloud.images.uefi_data(&id).await.unwrap().as_deref(), Some("QUJD"));
    let (_, copied) = copy.root().unwrap();
    assert_ne!(copied, &snapshot);
    let seen = snapshot_state(cloud, copied).await.unwrap();
    assert_eq!((seen.volume_size, seen.tags.contains_key("copied-by")), (1, true));
    wait_completed(cloud, copied).await;
    assert_eq!(read_all(cloud, copied).await, digests(&blocks));
    // All else is the source's.
    let mut attributes = copy.attributes.clone();
    attributes.devices[0].ebs.as_mut().unwrap().snapshot = Some(snapshot);
    assert_eq!(attributes, source.attributes);
    assert_eq!(
        (copy.usage_operation, copy.platform, copy.product_codes),
        (source.usage_operation, source.platform, source.product_codes)
    );
}

async fn one_token_is_one_copy(cloud: &Cloud) {
    let (_, source) = make_image(cloud, &unique("web")).await;
    available(cloud, &source).await;
    let (new, token) = (new_copy(cloud, &source, &unique("copy")), new_token());
    let id = cloud.images.copy(&new, &token).await.unwrap();
    assert_eq!(cloud.images.copy(&new, &token).await.unwrap(), id);
    let other = new_copy(cloud, &source, &unique("copy"));
    assert!(cloud.images.copy(&other, &token).await.is_err());
}

async fn a_copy_takes_no_name_that_exists(cloud: &Cloud) {
    let name = unique("web");
    let (_, source) = make_image(cloud, &name).await;
    available(cloud, &source).await;
    refused(cloud.images.copy(&new_copy(cloud, &source, &name), &new_token()).await, ErrorKind::Exists);
    refused(cloud.images.copy(&new_copy(cloud, &source, "a:b"), &new_token()).await, ErrorKind::Invalid);
    let unknown = ImageId::parse("ami-0123456789abcdef0").unwrap();
    let missing = new_copy(cloud, &unknown, &unique("copy"));
    refused(cloud.images.copy(&missing, &new_token()).await, ErrorKind::NotFound);
}
