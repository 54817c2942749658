//! A block map: which block of a volume has which content. A file of digests, 32 bytes for each block of the volume in
//! order of index; a hole, or 32 zero bytes, where the block was never put.
//!
//! 32 divides a page, so that one digest is written as a whole or not at all, wherever a kill comes.

use std::fs::{File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

use super::durable;
use super::store::StoreError;
use crate::cloud::{BLOCK_SIZE, BlockIndex, Digest};

/// Bytes of a digest.
const ENTRY: usize = 32;
/// Bytes that are read at once: 2,048 entries, a GiB of the volume.
const CHUNK: usize = 2048 * ENTRY;

/// Blocks of a volume of so many GiB. At most 65,536 GiB, which is 134,217,728 blocks.
pub(super) fn blocks_of(size_gib: u32) -> u32 {
    const PER_GIB: usize = (1 << 30) / BLOCK_SIZE;
    size_gib.saturating_mul(u32::try_from(PER_GIB).unwrap_or(u32::MAX))
}

#[derive(Debug)]
pub(super) struct BlockMap {
    file: File,
    path: PathBuf,
}

impl BlockMap {
    /// A new map without entries.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(StoreError::io("create", path))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// The map at `path`, or `None` where there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Some(Self { file, path: path.to_owned() })),
            Err(error) if durable::gone(&error) => Ok(None),
            Err(error) => Err(StoreError::io("open", path)(error)),
        }
    }

    pub(super) fn set(&self, index: BlockIndex, digest: &Digest) -> Result<(), StoreError> {
        self.file.write_all_at(&digest.0, offset(index)).map_err(StoreError::io("write", &self.path))
    }

    /// The digest of a block, `None` where it was never put.
    pub(super) fn get(&self, index: BlockIndex) -> Result<Option<Digest>, StoreError> {
        let mut bytes = [0; ENTRY];
        let read = self.read(offset(index), &mut bytes)?;
        Ok(entry(&bytes[..read]))
    }

    /// Visits the blocks that were put, ascending, from `from` on, until `visit` breaks off.
    pub(super) fn walk(
        &self,
        from: BlockIndex,
        visit: &mut dyn FnMut(BlockIndex, Digest) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut buffer = vec![0; CHUNK];
        let mut at = offset(from);
        loop {
            // Holes are skipped: a large volume's map is mostly one.
            at = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) => at.max(data - data % ENTRY as u64),
                Err(rustix::io::Errno::NXIO) => return Ok(()),
                Err(error) => return Err(StoreError::io("read", &self.path)(error.into())),
            };
            let read = self.read(at, &mut buffer)?;
            for bytes in buffer[..read].chunks_exact(ENTRY) {
                let Ok(index) = u32::try_from(at / ENTRY as u64) else {
                    return Err(StoreError::Damaged {
                        path: self.path.clone(),
                        why: "it is longer than any volume's".to_owned(),
                    });
                };
                at += ENTRY as u64;
                let put = entry(bytes).map(|digest| visit(BlockIndex(index), digest));
                if put.is_some_and(|flow| flow.is_break()) {
                    return Ok(());
                }
            }
            if read < ENTRY {
                return Ok(());
            }
        }
    }

    /// Writes all entries into `into`; those that are there already and not here stay.
    pub(super) fn copy_into(&self, into: &Self) -> Result<(), StoreError> {
        let mut failed = None;
        self.walk(BlockIndex(0), &mut |index, digest| match into.set(index, &digest) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(StoreError::io("sync", &self.path))
    }

    /// Fills `buffer` from `at` on as far as the file goes.
    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::io("read", &self.path)(error)),
            }
        }
        Ok(filled)
    }
}

fn offset(index: BlockIndex) -> u64 {
    u64::from(index.0) * ENTRY as u64
}

/// No content has a digest of zeros that anybody could find, so zeros mean "never put".
fn entry(bytes: &[u8]) -> Option<Digest> {
    let bytes: [u8; ENTRY] = bytes.try_into().ok()?;
    (bytes != [0; ENTRY]).then_some(Digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(map: &BlockMap, from: u32) -> Vec<(u32, Digest)> {
        let mut found = Vec::new();
        map.walk(BlockIndex(from), &mut |index, digest| {
            found.push((index.0, digest));
            ControlFlow::Continue(())
        })
        .unwrap();
        found
    }

    #[test]
    fn entries_are_walked_in_order_over_holes_and_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let map = BlockMap::create(&dir.path().join("map")).unwrap();
        assert!(all(&map, 0).is_empty());
        let put: Vec<(u32, Digest)> = [3, 2047, 2048, 5000, 134_217_727]
            .into_iter()
            .map(|index: u32| (index, Digest::of(&index.to_le_bytes())))
            .collect();
        for (index, digest) in put.iter().rev() {
            map.set(BlockIndex(*index), digest).unwrap();
        }
        assert_eq!(all(&map, 0), put);
        assert_eq!(all(&map, 3), put);
        assert_eq!(all(&map, 4), put[1..]);
        assert_eq!(all(&map, 2049), put[3..]);
        assert_eq!(map.get(BlockIndex(5000)).unwrap(), Some(put[3].1));
        assert_eq!(map.get(BlockIndex(5001)).unwrap(), None);
        assert_eq!(map.get(BlockIndex(u32::MAX)).unwrap(), None);
    }

    #[test]
    fn a_copy_keeps_what_only_the_other_has() {
        let dir = tempfile::tempdir().unwrap();
        let base = BlockMap::create(&dir.path().join("base")).unwrap();
        let over = BlockMap::create(&dir.path().join("over")).unwrap();
        let (a, b, c) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c"));
        base.set(BlockIndex(1), &a).unwrap();
        base.set(BlockIndex(2), &a).unwrap();
        over.set(BlockIndex(2), &b).unwrap();
        over.set(BlockIndex(9), &c).unwrap();
        over.copy_into(&base).unwrap();
        assert_eq!(all(&base, 0), [(1, a), (2, b), (9, c)]);
    }

    #[test]
    fn sizes_count_in_blocks() {
        assert_eq!(blocks_of(1), 2048);
        assert_eq!(blocks_of(65_536), 134_217_728);
    }
}
