//! `CreateImage`: the disk of a stopped instance becomes a snapshot, a child of the one that the disk was made from, with
//! the blocks that changed; and an image with all that the instance's own image had.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::disk::Noise;
use super::images;
use super::instance_folder::InstanceFolder;
use super::map::blocks_of;
use super::place::LocalPlace;
use super::refusal::Refusal;
use super::snapshots::{self, completed};
use super::store::StoreError;
use crate::cloud::{
    BLOCK_SIZE, Block, BlockIndex, Digest, ErrorKind, ImageId, InstanceId, InstanceState, LinearChecksum,
    NewImage, NewImageOf, NewSnapshot, Token, ZERO_BLOCK,
};

/// Minutes; it is completed by the same call.
const TIMEOUT: u32 = 60;

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
    let file = File::open(&disk).map_err(StoreError::io("open", &disk))?;
    let size = file.metadata().map_err(StoreError::io("look at", &disk))?.len() >> 30;
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let child = NewSnapshot {
        volume_size: size,
        parent: Some(base.clone()),
        description: format!("Created by CreateImage({of}) for {}", new.name),
        tags: new.snapshot_tags.clone(),
        encrypt: None,
        timeout_minutes: TIMEOUT,
    };
    let (parent, _) = completed(here, base, ("InvalidSnapshot.NotFound", "IncorrectState"))?;
    let map = parent.map()?;
    let token = Token::of(of.as_str(), &new.name, 1);
    let snapshot = snapshots::start(here, &child, &token)?;
    let noise = Noise::of(base);
    let (mut sum, mut count) = (LinearChecksum::default(), 0);
    for number in 0..blocks_of(size) {
        let index = BlockIndex(number);
        let mut bytes = vec![0; BLOCK_SIZE];
        file.read_exact_at(&mut bytes, index.offset()).map_err(StoreError::io("read", &disk))?;
        let digest = match map.get(index)? {
            // Never put, and never written since.
            None if bytes == noise.block(index) => continue,
            None => Digest::of(&bytes),
            Some(before) => {
                let now = Digest::of(&bytes);
                if now == before || (before == *ZERO_BLOCK && now == *ZERO_BLOCK) {
                    continue;
                }
                now
            }
        };
        let block = Block::from(bytes);
        loop {
            match snapshots::put(here, &snapshot, index, &block, &digest) {
                Err(refusal) if refusal.kind() == ErrorKind::NotYet => {}
                done => break done?,
            }
        }
        sum.add(&digest);
        count += 1;
    }
    snapshots::complete(here, &snapshot, count, &sum.finish())?;
    // Who waits for the image does not look at its snapshot.
    here.snapshot(&snapshot).take_settling()?;
    let mut attributes = image.attributes.clone();
    let root = attributes.root_device.clone();
    for device in &mut attributes.devices {
        if let Some(ebs) = device.ebs.as_mut().filter(|_| device.name == root) {
            ebs.snapshot = Some(snapshot.clone());
            ebs.size = size;
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
