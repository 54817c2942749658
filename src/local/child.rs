//! The disk of an instance, or of a volume, as a snapshot: a child of the one that the disk was made from, with the blocks
//! that changed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk::Noise;
use super::map::blocks_of;
use super::place::LocalPlace;
use super::refusal::Refusal;
use super::snapshots::{self, completed};
use super::store::StoreError;
use crate::cloud::{
    BLOCK_SIZE, Block, BlockIndex, Digest, ErrorKind, LinearChecksum, NewSnapshot, SnapshotId, Token,
};

/// Minutes; it is completed by the same call.
pub(super) const TIMEOUT: u32 = 60;

/// GiB of a disk file.
pub(super) fn size_of(disk: &Path) -> Result<u32, StoreError> {
    let bytes = disk.metadata().map_err(StoreError::io("look at", disk))?.len();
    Ok(u32::try_from(bytes >> 30).unwrap_or(u32::MAX))
}

/// Stores a disk that was made from `base` as the snapshot `new`, and completes it. Where that is no child of the base,
/// since the base is gone, all is stored that was ever there.
pub(super) fn store(
    here: &LocalPlace,
    disk: &Path,
    base: &SnapshotId,
    new: &NewSnapshot,
    token: &Token,
) -> Result<SnapshotId, Refusal> {
    let file = File::open(disk).map_err(StoreError::io("open", disk))?;
    let parent = match &new.parent {
        Some(parent) => {
            Some(completed(here, parent, ("InvalidSnapshot.NotFound", "IncorrectState"))?.0.map()?)
        }
        None => None,
    };
    let snapshot = snapshots::start(here, new, token)?;
    let noise = Noise::of(base);
    let (mut sum, mut count) = (LinearChecksum::default(), 0);
    for number in 0..blocks_of(new.volume_size) {
        let index = BlockIndex(number);
        let mut bytes = vec![0; BLOCK_SIZE];
        file.read_exact_at(&mut bytes, index.offset()).map_err(StoreError::io("read", disk))?;
        let before = match &parent {
            Some(map) => map.get(index)?,
            None => None,
        };
        // Never put, and never written since.
        if before.is_none() && bytes == noise.block(index) {
            continue;
        }
        let digest = Digest::of(&bytes);
        if before == Some(digest) {
            continue;
        }
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
    Ok(snapshot)
}
