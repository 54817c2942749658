//! `CreateImage`: the disk of a stopped instance becomes a snapshot, a child of the one that the disk was made from, with
//! the blocks that changed; and an image with all that the instance's own image had.

use super::instance_folder::InstanceFolder;
use super::place::LocalPlace;
use super::refusal::Refusal;
use super::store::StoreError;
use super::{child, images};
use crate::cloud::{
    ImageId, InstanceId, InstanceState, NewImage, NewImageOf, NewSnapshot, Token, VolumeKind,
};

pub(super) fn create(here: &LocalPlace, of: &InstanceId, new: &NewImageOf) -> Result<ImageId, Refusal> {
    let folder = here.store.place_dir(&here.place).join("instances").join(of.as_str());
    let home = InstanceFolder(folder.clone());
    let record = home.read().map_err(StoreError::io("read", &folder))?.ok_or_else(|| {
        Refusal::not_found("InvalidInstanceID.NotFound", format!("there is no instance {of}"))
    })?;
    let (state, _) = home.state(&record).map_err(StoreError::io("look at", &folder))?;
    if state != InstanceState::Stopped {
        return Err(Refusal::invalid("IncorrectInstanceState", format!("{of} is not stopped")));
    }
    let image = here
        .store
        .image(&here.place, &record.image)
        .map_err(|error| Refusal::not_found("InvalidAMIID.NotFound", error.to_string()))?;
    let Some((_, base)) = image.root() else {
        return Err(Refusal::invalid("InvalidAMIID.Unavailable", format!("{} has no root volume", image.id)));
    };
    images::name_is_free(here, &new.name)?;
    let disk = folder.join("disk.raw");
    let size = child::size_of(&disk)?;
    let new_child = NewSnapshot {
        volume_size: size,
        parent: Some(base.clone()),
        description: format!("Created by CreateImage({of}) for {}", new.name),
        tags: new.snapshot_tags.clone(),
        encrypt: None,
        timeout_minutes: child::TIMEOUT,
    };
    let snapshot = child::store(here, &disk, base, &new_child, &Token::of(of.as_str(), &new.name, 1))?;
    // Who waits for the image does not look at its snapshot.
    here.snapshot(&snapshot).take_settling()?;
    let mut attributes = image.attributes.clone();
    let root = attributes.root_device.clone();
    for device in &mut attributes.devices {
        if let Some(ebs) = device.ebs.as_mut().filter(|_| device.name == root) {
            ebs.snapshot = Some(snapshot.clone());
            ebs.size = size;
            if let Some(VolumeKind { kind, iops, throughput }) = record.root {
                (ebs.kind, ebs.iops, ebs.throughput) = (kind, iops, throughput);
            }
        }
    }
    let new = NewImage {
        name: new.name.clone(),
        description: new.description.clone(),
        attributes,
        tags: new.image_tags.clone(),
    };
    images::register(here, &new)
}
