//! Volumes. Attaching one to this machine wants root where the machine is the local cloud's own.

use bakehouse::cloud::{
    InstanceId, InstanceState, NewInstance, NewSnapshotOf, NewVolume, SubnetQuery, Volume, VolumeId,
    VolumeQuery, VolumeState,
};

use super::*;

on_every_cloud!(
    an_unknown_volume_is_not_found,
    no_volume_has_a_tag_that_was_never_set,
    a_volume_is_of_its_snapshot_and_found_by_its_tags,
    one_token_is_one_volume,
    a_volume_is_no_smaller_than_its_snapshot_and_in_a_zone_that_there_is,
    a_snapshot_of_a_volume_has_what_is_on_it,
    a_volume_that_is_attached_is_in_use_and_so_is_its_name,
);

async fn zone(cloud: &Cloud) -> String {
    cloud.networks.subnets(&SubnetQuery::Default).await.unwrap().remove(0).zone
}

async fn new_volume(cloud: &Cloud) -> NewVolume {
    let snapshot = make(cloud, &new_snapshot(1, None), &numbered(&[(0, 1), (7, 2)])).await;
    NewVolume {
        snapshot,
        size: 1,
        zone: zone(cloud).await,
        tags: Tags::from([(unique("key"), "*".to_owned())]),
    }
}

async fn made(cloud: &Cloud, new: &NewVolume) -> VolumeId {
    let id = cloud.volumes.create(new, &new_token()).await.unwrap();
    available(cloud, &id).await;
    id
}

async fn seen(cloud: &Cloud, id: &VolumeId) -> Result<Option<Volume>> {
    let query = VolumeQuery { ids: vec![id.clone()], ..VolumeQuery::default() };
    match cloud.volumes.find(&query).await {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        found => Ok(found?.into_iter().next()),
    }
}

async fn available(cloud: &Cloud, id: &VolumeId) {
    until(soon("volume available"), &cloud.place, &Stop::never(), || async {
        Ok(seen(cloud, id).await?.filter(|volume| volume.state == VolumeState::Available))
    })
    .await
    .unwrap();
}

fn unknown() -> VolumeId {
    VolumeId::parse("vol-0123456789abcdef0").unwrap()
}

async fn an_unknown_volume_is_not_found(cloud: &Cloud) {
    let query = VolumeQuery { ids: vec![unknown()], ..VolumeQuery::default() };
    refused(cloud.volumes.find(&query).await, ErrorKind::NotFound);
    refused(cloud.volumes.detach(&unknown()).await, ErrorKind::NotFound);
    refused(cloud.volumes.delete(&unknown()).await, ErrorKind::NotFound);
    let new = NewSnapshotOf { description: String::new(), tags: Tags::new() };
    refused(cloud.volumes.snapshot(&unknown(), &new).await, ErrorKind::NotFound);
}

async fn no_volume_has_a_tag_that_was_never_set(cloud: &Cloud) {
    let key = unique("key");
    let by_key = VolumeQuery { tag_keys: vec![key.clone()], ..VolumeQuery::default() };
    assert!(cloud.volumes.find(&by_key).await.unwrap().is_empty());
    let by_value = VolumeQuery { tags: Tags::from([(key, String::new())]), ..VolumeQuery::default() };
    assert!(cloud.volumes.find(&by_value).await.unwrap().is_empty());
}

async fn a_volume_is_of_its_snapshot_and_found_by_its_tags(cloud: &Cloud) {
    let new = NewVolume { size: 2, ..new_volume(cloud).await };
    let id = made(cloud, &new).await;
    let query = VolumeQuery { tags: new.tags.clone(), ..VolumeQuery::default() };
    let found = cloud.volumes.find(&query).await.unwrap().remove(0);
    assert_eq!((&found.id, found.size, &found.zone), (&id, 2, &new.zone));
    assert_eq!((&found.snapshot, &found.attachment), (&Some(new.snapshot.clone()), &None));
    assert_eq!(found.tags, new.tags);
    refused(cloud.volumes.detach(&id).await, ErrorKind::Invalid);
    // The snapshot is not needed any more.
    cloud.snapshots.delete(&new.snapshot).await.unwrap();
    cloud.volumes.delete(&id).await.unwrap();
    assert!(seen(cloud, &id).await.unwrap().is_none_or(|volume| volume.state == VolumeState::Deleting));
}

async fn one_token_is_one_volume(cloud: &Cloud) {
    let (new, token) = (new_volume(cloud).await, new_token());
    let first = cloud.volumes.create(&new, &token).await.unwrap();
    assert_eq!(cloud.volumes.create(&new, &token).await.unwrap(), first);
    let other = NewVolume { size: 2, ..new.clone() };
    refused(cloud.volumes.create(&other, &token).await, ErrorKind::Exists);
    assert_ne!(cloud.volumes.create(&new, &new_token()).await.unwrap(), first);
}

async fn a_volume_is_no_smaller_than_its_snapshot_and_in_a_zone_that_there_is(cloud: &Cloud) {
    let snapshot = make(cloud, &new_snapshot(2, None), &numbered(&[(0, 1)])).await;
    let new = NewVolume { snapshot, size: 1, zone: zone(cloud).await, tags: Tags::new() };
    refused(cloud.volumes.create(&new, &new_token()).await, ErrorKind::Invalid);
    let elsewhere = NewVolume { size: 2, zone: format!("{}z", cloud.place.region), ..new.clone() };
    let error = cloud.volumes.create(&elsewhere, &new_token()).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotFound | ErrorKind::Invalid), "{error}");
    let of_none = NewVolume { snapshot: SnapshotId::parse("snap-0123456789abcdef0").unwrap(), ..new };
    refused(cloud.volumes.create(&of_none, &new_token()).await, ErrorKind::NotFound);
}

async fn a_snapshot_of_a_volume_has_what_is_on_it(cloud: &Cloud) {
    let new = new_volume(cloud).await;
    let id = made(cloud, &new).await;
    let tags = Tags::from([(unique("key"), "value".to_owned())]);
    let of = NewSnapshotOf { description: "made by a test".to_owned(), tags: tags.clone() };
    let snapshot = cloud.volumes.snapshot(&id, &of).await.unwrap();
    wait_completed(cloud, &snapshot).await;
    let told = snapshot_state(cloud, &snapshot).await.unwrap();
    assert_eq!((told.volume_size, told.description.as_str(), &told.tags), (1, "made by a test", &tags));
    // What nobody ever wrote is none of it either.
    assert_eq!(read_all(cloud, &snapshot).await, digests(&numbered(&[(0, 1), (7, 2)])));
    cloud.volumes.delete(&id).await.unwrap();
    assert_eq!(read_all(cloud, &snapshot).await.len(), 2);
}

/// This machine in the local cloud, and an instance anywhere else.
async fn instance(cloud: &Cloud) -> InstanceId {
    if is_local(cloud) {
        return cloud.volumes.machine().await.unwrap().instance;
    }
    let (_, image) = make_image(cloud, &unique("image")).await;
    let new = NewInstance {
        image,
        kind: None,
        user_data: Vec::new(),
        boot_mode: None,
        root_size: None,
        lifetime_seconds: 600,
        build: None,
        tags: Tags::new(),
    };
    let id = cloud.instances.launch(&new, &new_token()).await.unwrap();
    until(soon("instance running"), &cloud.place, &Stop::never(), || async {
        Ok((cloud.instances.describe(&id).await?.state == InstanceState::Running).then_some(()))
    })
    .await
    .unwrap();
    id
}

async fn a_volume_that_is_attached_is_in_use_and_so_is_its_name(cloud: &Cloud) {
    #[cfg(test)]
    if is_local(cloud) && !crate::gate::has_root(&[]) {
        return;
    }
    let instance = instance(cloud).await;
    let new = new_volume(cloud).await;
    let (one, other) = (made(cloud, &new).await, made(cloud, &new).await);
    refused(cloud.volumes.attach(&unknown(), &instance, "/dev/sdf").await, ErrorKind::NotFound);
    cloud.volumes.attach(&one, &instance, "/dev/sdf").await.unwrap();
    let attached = until(soon("volume attached"), &cloud.place, &Stop::never(), || async {
        let found = seen(cloud, &one).await?.and_then(|volume| volume.attachment);
        Ok(found.filter(|attachment| attachment.attached))
    })
    .await
    .unwrap();
    assert_eq!((&attached.instance, attached.device.as_str()), (&instance, "/dev/sdf"));
    let query = VolumeQuery { attached_to: Some(instance.clone()), ..VolumeQuery::default() };
    assert!(cloud.volumes.find(&query).await.unwrap().iter().any(|volume| volume.id == one));
    refused(cloud.volumes.attach(&one, &instance, "/dev/sdg").await, ErrorKind::InUse);
    refused(cloud.volumes.attach(&other, &instance, "/dev/sdf").await, ErrorKind::Exists);
    refused(cloud.volumes.delete(&one).await, ErrorKind::InUse);
    if is_local(cloud) {
        let node = cloud.volumes.node(&one, "/dev/sdf").await.unwrap().unwrap();
        assert_eq!(bakehouse::disk::size_of(&node).unwrap(), 1 << 30);
        assert!(cloud.volumes.node(&other, "/dev/sdg").await.unwrap().is_none());
    }
    cloud.volumes.detach(&one).await.unwrap();
    available(cloud, &one).await;
    for id in [&one, &other] {
        cloud.volumes.delete(id).await.unwrap();
    }
    if !is_local(cloud) {
        cloud.instances.terminate(&instance).await.unwrap();
    }
}
