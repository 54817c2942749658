//! A snapshot as the disk that an instance would see: its blocks, and noise wherever nothing was ever put. On EC2 such
//! places of an encrypted volume read as noise too, and a file system that relies on zeros there does not mount.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::durable;
use super::map::blocks_of;
use super::place::LocalPlace;
use super::refusal::Refusal;
use super::snapshots::completed;
use super::store::{Store, StoreError};
use super::workers;
use crate::cloud::{BLOCK_SIZE, BlockIndex, CloudError, Digest, Place, SnapshotId, ZERO_BLOCK};
use crate::host::stop::Stop;

/// The call that would do this on EC2.
const OPERATION: &str = "CreateVolume";

impl Store {
    /// Writes a volume of `size_gib` GiB made from a completed snapshot as a raw file. A file at `to` is replaced once
    /// the new one is whole. Blocks of zeros become holes; blocks that were never put, and all beyond the snapshot's
    /// size, become noise, the same for the same snapshot each time. Every block's digest is verified.
    ///
    /// # Errors
    /// Where the snapshot does not exist, is not completed or is larger than `size_gib`; where the store is damaged or
    /// `to` cannot be written; `NotYet` where `stop` came. Then nothing is left beside `to`.
    pub async fn write_disk(
        &self,
        place: &Place,
        snapshot: &SnapshotId,
        to: &Path,
        size_gib: u32,
        stop: &Stop,
    ) -> Result<(), CloudError> {
        let here = LocalPlace { store: self.clone(), place: place.clone() };
        let id = snapshot.clone();
        let (folder, map) = here
            .call(OPERATION, move |here| {
                let (folder, kept) = completed(here, &id, ("InvalidSnapshot.NotFound", "IncorrectState"))?;
                let least = kept.snapshot.volume_size;
                if size_gib < least {
                    return Err(Refusal::invalid(
                        "InvalidParameterValue",
                        format!("a disk of {size_gib} GiB is smaller than the {least} GiB of snapshot {id}"),
                    ));
                }
                let map = folder.map()?;
                Ok((folder, map))
            })
            .await?;
        let partial = Partial(durable::hidden_name(to.parent().unwrap_or(Path::new("."))));
        let noise = Noise::of(snapshot);
        let blocks = self.blocks();
        let written = async {
            let file = File::create_new(&partial.0).map_err(StoreError::io("create", &partial.0))?;
            let size = u64::from(size_gib) << 30;
            file.set_len(size).map_err(StoreError::io("write", &partial.0))?;
            let path = to.to_owned();
            workers::for_each(blocks_of(size_gib), stop, move |number, buffer| {
                let index = BlockIndex(number);
                let bytes = match map.get(index)? {
                    Some(digest) if digest == *ZERO_BLOCK => return Ok(()),
                    Some(digest) => {
                        blocks.read(&digest, buffer)?;
                        buffer
                    }
                    None => noise.block(index),
                };
                file.write_all_at(bytes, index.offset()).map_err(StoreError::io("write", &path))
            })
            .await?;
            std::fs::rename(&partial.0, to).map_err(StoreError::io("rename into place", to))
        };
        written.await.map_err(|error| {
            let refusal = if error.is_gone() && !folder.path().exists() {
                Refusal::not_found(
                    "InvalidSnapshot.NotFound",
                    format!("snapshot {snapshot} was deleted meanwhile"),
                )
            } else {
                Refusal::from(error)
            };
            refusal.into_error(OPERATION, place)
        })
    }
}

/// A file that goes when it was not renamed away.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Renamed away, or gone with its folder: either is well.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What reads where nothing was put: for each block another piece of two blocks of pseudo-random bytes.
pub(super) struct Noise {
    seed: u64,
    pool: Vec<u8>,
}

impl Noise {
    pub(super) fn of(snapshot: &SnapshotId) -> Self {
        let digest = Digest::of(snapshot.as_str().as_bytes());
        let mut seed = [0; 8];
        seed.copy_from_slice(&digest.0[..8]);
        let seed = u64::from_le_bytes(seed);
        let pool = (0..2 * BLOCK_SIZE as u64 / 8)
            .flat_map(|number| split_mix(seed.wrapping_add(number)).to_le_bytes())
            .collect();
        Self { seed, pool }
    }

    pub(super) fn block(&self, index: BlockIndex) -> &[u8] {
        // Steps of 8 bytes: 65,536 different pieces. An odd constant, so that neighbours are far apart in the pool.
        let step = split_mix(self.seed ^ (u64::from(index.0) + 1).wrapping_mul(0xd134_2543_de82_ef95));
        let start = usize::try_from(step % (BLOCK_SIZE as u64 / 8)).unwrap_or(0) * 8;
        &self.pool[start..start + BLOCK_SIZE]
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): one step of a counter, well mixed.
fn split_mix(counter: u64) -> u64 {
    let mut mixed = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_noise_and_the_same_each_time() {
        let id = |digit: &str| SnapshotId::parse(&format!("snap-{}", digit.repeat(17))).unwrap();
        let (a, again, b) = (Noise::of(&id("a")), Noise::of(&id("a")), Noise::of(&id("b")));
        let mut seen = std::collections::HashSet::new();
        for index in (0..200).map(BlockIndex) {
            let block = a.block(index);
            assert_eq!(block.len(), BLOCK_SIZE);
            assert_eq!(block, again.block(index));
            assert_ne!(block, b.block(index));
            // Nowhere the zeros that a file system could take for its own.
            assert!(block.chunks(4096).all(|page| page.iter().any(|byte| *byte != 0)));
            seen.insert(block[..64].to_vec());
        }
        assert!(seen.len() > 190);
    }
}
