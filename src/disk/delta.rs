//! Which blocks of a disk have to be stored, and their digests. The rule behind it: **absent is not zero**. A block
//! that a snapshot never had may read as noise, so a block that the bake zeroed is stored like any other.
//!
//! The loop driver turns the kernel's "write zeroes" into a hole, which cannot be told from what was never written. Where
//! the parent has the block too, its content differs and it is stored; an image of our own has every block of its
//! partitions. One from elsewhere may lack some: there `zeroout.rs` keeps ext4 from zeroing so (where it cannot, every block
//! that the parent lacks is stored), and what lies beyond the partitions as they were, where a tool that makes a file system
//! larger zeroes its tables, is stored whole. What is left
//! is a step that zeroes a part of the disk's own device by such a call.

use std::ops::Range;
use std::sync::Arc;

use super::block_map::BlockMap;
use super::ids::DiskIds;
use super::transfer::TransferError;
use super::{Disk, MIB};
use crate::cloud::{BLOCK_SIZE, BlockIndex, Digest, ZERO_BLOCK};
use crate::host::stop::Stop;

/// Blocks to put, in ascending order.
pub type Delta = Vec<(BlockIndex, Digest)>;

/// What a child of `parent` has to put: every block whose content is not the parent's, a block that became zero
/// included, and everything from byte `grown_from` on, where the disk's partitions ended before they grew: it has no
/// content of the parent's that could be relied upon.
///
/// # Errors
/// Where the disk cannot be read, or a stop was asked for.
pub async fn against(
    disk: &Arc<dyn Disk>,
    parent: &BlockMap,
    grown_from: u64,
    stop: &Stop,
) -> Result<Delta, TransferError> {
    let written = Blocks::of(&disk.written().map_err(TransferError::Read)?);
    let (mut delta, mut to_hash) = (Delta::new(), Vec::new());
    for index in all(disk.size()) {
        match (written.has(index), parent.get(index)) {
            (true, _) => to_hash.push(index),
            // Zero now, and something else before.
            (false, Some(before)) if before != *ZERO_BLOCK => delta.push((index, *ZERO_BLOCK)),
            (false, None) if index.offset() + BLOCK_SIZE as u64 > grown_from => {
                delta.push((index, *ZERO_BLOCK));
            }
            (false, _) => {}
        }
    }
    let digests = digests(disk, to_hash, stop).await?;
    delta.extend(digests.into_iter().filter(|(index, digest)| parent.get(*index) != Some(*digest)));
    delta.sort_by_key(|(index, _)| *index);
    Ok(delta)
}

/// What a snapshot without a parent has to put: every block in one of `areas` (partitions, partition tables), zero or
/// not.
///
/// # Errors
/// Where the disk cannot be read, or a stop was asked for.
pub async fn whole(disk: &Arc<dyn Disk>, areas: &[Range<u64>], stop: &Stop) -> Result<Delta, TransferError> {
    let written = Blocks::of(&disk.written().map_err(TransferError::Read)?);
    let wanted = Blocks::of(areas);
    let (hash, zero): (Vec<_>, Vec<_>) =
        all(disk.size()).filter(|index| wanted.has(*index)).partition(|index| written.has(*index));
    let mut delta = digests(disk, hash, stop).await?;
    delta.extend(zero.into_iter().map(|index| (index, *ZERO_BLOCK)));
    delta.sort_by_key(|(index, _)| *index);
    Ok(delta)
}

/// Everything of a disk that may be read: the partition tables at both ends with what lies before the first partition,
/// where boot code is, and every partition.
#[must_use]
pub fn areas(ids: &DiskIds, size: u64) -> Vec<Range<u64>> {
    let mut areas: Vec<Range<u64>> = ids
        .volumes
        .iter()
        .map(|volume| &volume.partition)
        .map(|part| part.start..part.start + part.size)
        .collect();
    let first = areas.iter().map(|area| area.start).min().unwrap_or(0);
    areas.push(0..first.max(MIB));
    areas.push(size.saturating_sub(MIB)..size);
    areas
}

/// The blocks of a disk of so many bytes.
pub fn all(size: u64) -> impl Iterator<Item = BlockIndex> {
    // A volume of 64 TiB has 2^27 blocks.
    (0..u32::try_from(size.div_ceil(BLOCK_SIZE as u64)).unwrap_or(u32::MAX)).map(BlockIndex)
}

/// Sorted, disjoint ranges of block numbers.
pub(super) struct Blocks(Vec<Range<u64>>);

impl Blocks {
    pub(super) fn of(bytes: &[Range<u64>]) -> Self {
        let size = BLOCK_SIZE as u64;
        let mut ranges: Vec<Range<u64>> = bytes
            .iter()
            .filter(|range| !range.is_empty())
            .map(|range| range.start / size..range.end.div_ceil(size))
            .collect();
        ranges.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    pub(super) fn has(&self, index: BlockIndex) -> bool {
        let index = u64::from(index.0);
        let after = self.0.partition_point(|range| range.start <= index);
        after > 0 && self.0[after - 1].contains(&index)
    }
}

/// Digests of the given blocks, hashed on as many threads as the machine has processors.
async fn digests(
    disk: &Arc<dyn Disk>,
    indexes: Vec<BlockIndex>,
    stop: &Stop,
) -> Result<Vec<(BlockIndex, Digest)>, TransferError> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let share = indexes.len().div_ceil(workers).max(1);
    let tasks: Vec<_> = indexes
        .chunks(share)
        .map(|chunk| {
            let (disk, chunk, stop) = (disk.clone(), chunk.to_vec(), stop.clone());
            tokio::task::spawn_blocking(move || {
                let mut buffers = [vec![0; BLOCK_SIZE], vec![0; BLOCK_SIZE]];
                let mut digests = Vec::with_capacity(chunk.len());
                // Two at once take little longer than one.
                for two in chunk.chunks(2) {
                    if stop.is_requested() {
                        return Err(TransferError::Stopped);
                    }
                    for (index, buffer) in two.iter().zip(&mut buffers) {
                        read_block(&*disk, *index, buffer)?;
                    }
                    match *two {
                        [one, other] => {
                            let of_both = Digest::of_two([&buffers[0], &buffers[1]]);
                            digests.extend([one, other].into_iter().zip(of_both));
                        }
                        _ => digests.extend(two.iter().map(|last| (*last, Digest::of(&buffers[0])))),
                    }
                }
                Ok(digests)
            })
        })
        .collect();
    let mut all = Vec::with_capacity(indexes.len());
    for task in tasks {
        all.extend(task.await.map_err(|_| TransferError::Stopped)??);
    }
    Ok(all)
}

/// Reads a block; past the end of a disk that is no whole number of blocks it is zero.
pub(super) fn read_block(disk: &dyn Disk, index: BlockIndex, buffer: &mut [u8]) -> Result<(), TransferError> {
    let there = usize::try_from(disk.size().saturating_sub(index.offset())).unwrap_or(usize::MAX);
    let (head, rest) = buffer.split_at_mut(there.min(buffer.len()));
    rest.fill(0);
    disk.read_at(head, index.offset()).map_err(TransferError::Read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sparse::SparseDisk;

    fn block(byte: u8) -> Vec<u8> {
        vec![byte; BLOCK_SIZE]
    }

    /// A disk of 1 GiB with the given blocks written.
    fn disk(dir: &tempfile::TempDir, blocks: &[(u32, u8)]) -> Arc<dyn Disk> {
        let disk = SparseDisk::create(&dir.path().join("disk.raw"), 1 << 30).unwrap();
        for (index, byte) in blocks {
            disk.write_at(&block(*byte), BlockIndex(*index).offset()).unwrap();
        }
        Arc::new(disk)
    }

    fn indexes(delta: &Delta) -> Vec<u32> {
        delta.iter().map(|(index, _)| index.0).collect()
    }

    #[tokio::test]
    async fn only_changed_blocks_are_put_and_zeroed_ones_are_changed() {
        let dir = tempfile::tempdir().unwrap();
        let mut parent = BlockMap::new(1);
        for (index, byte) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
            parent.insert(BlockIndex(index), Digest::of(&block(byte)));
        }
        // 0 stays, 1 changes, 2 becomes a hole, 3 was zero and is a hole, 9 is new, 10 is written as zero.
        let disk = disk(&dir, &[(0, 1), (1, 9), (9, 9), (10, 0)]);
        let delta = against(&disk, &parent, 1 << 30, &Stop::never()).await.unwrap();
        assert_eq!(indexes(&delta), [1, 2, 9, 10]);
        assert_eq!(delta[1].1, *ZERO_BLOCK);
    }

    #[tokio::test]
    async fn the_whole_of_a_grown_area_is_put() {
        let dir = tempfile::tempdir().unwrap();
        let grown = SparseDisk::create(&dir.path().join("grown.raw"), 2 << 30).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(grown);
        let parent = BlockMap::new(1);
        let delta = against(&disk, &parent, 1 << 30, &Stop::never()).await.unwrap();
        assert_eq!((delta.len(), delta[0].0), (2048, BlockIndex(2048)));
        // The last partition ended within a block before the parent's own end.
        let end = (1 << 30) - 3 * BLOCK_SIZE as u64 + 1024;
        let delta = against(&disk, &parent, end, &Stop::never()).await.unwrap();
        assert_eq!((delta.len(), delta[0].0), (2051, BlockIndex(2045)));
    }

    #[tokio::test]
    async fn a_whole_disk_puts_every_block_of_its_areas() {
        let dir = tempfile::tempdir().unwrap();
        let size = BLOCK_SIZE as u64;
        // The second area begins in the middle of block 4.
        let areas = [0..10, 4 * size + 1..6 * size];
        let delta = whole(&disk(&dir, &[(4, 7), (8, 8)]), &areas, &Stop::never()).await.unwrap();
        assert_eq!(indexes(&delta), [0, 4, 5]);
    }
}
