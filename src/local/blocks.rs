//! Blocks on disk, each in a file named by its SHA-256: stored once, whatever number of snapshots has it. A block of
//! zeros has no file. Knows nothing of snapshots; what may be deleted is for garbage.rs to say.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::durable;
use super::store::StoreError;
use crate::cloud::{BLOCK_SIZE, Block, Digest, ZERO_BLOCK, ZEROS};
use crate::host::threads;

#[derive(Debug)]
pub(super) struct Blocks {
    folder: PathBuf,
}

impl Blocks {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.folder.join(&hex[..2]).join(hex)
    }

    /// Stores a block. `digest` is its own: the caller has verified it, and holds [`Store::writing`].
    ///
    /// Not durable by itself: completing a snapshot syncs all of its blocks at once.
    ///
    /// [`Store::writing`]: super::Store::writing
    pub(super) fn put(&self, digest: &Digest, data: &[u8]) -> Result<(), StoreError> {
        if *digest == *ZERO_BLOCK {
            return Ok(());
        }
        let path = self.path(digest);
        // Compared, and not only looked for: after a power cut a file that nobody had synced may be short or empty.
        if let Ok(there) = fs::read(&path)
            && there == data
        {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        let fresh = durable::hidden_name(folder);
        let written = File::create_new(&fresh)
            .and_then(|mut file| file.write_all(data))
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(StoreError::io("write", &path));
        durable::or_remove(&fresh, written)
    }

    /// Makes the named blocks durable, whoever wrote them, and the folders down to them, whoever made those. Each on its
    /// own, since a sync of the whole file system would write out everything that a bake has in its work folder as well.
    pub(super) fn sync(&self, digests: &HashSet<Digest>) -> Result<(), StoreError> {
        let paths: Vec<PathBuf> =
            digests.iter().filter(|digest| **digest != *ZERO_BLOCK).map(|digest| self.path(digest)).collect();
        let folders: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
        let sync = |path: &Path| {
            File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", path))
        };
        threads::for_each(&paths, |path| sync(path))?;
        // Their names, once their content is there, and then the names of those folders.
        threads::for_each(&Vec::from_iter(&folders), |folder| sync(folder))?;
        if folders.is_empty() {
            return Ok(());
        }
        sync(&self.folder)?;
        sync(self.folder.parent().unwrap_or(&self.folder))
    }

    /// A block's bytes as they are on disk; whether they are the right ones is for the caller to check.
    pub(super) fn get(&self, digest: &Digest) -> Result<Block, StoreError> {
        if *digest == *ZERO_BLOCK {
            return Ok(ZEROS.clone());
        }
        let path = self.path(digest);
        let data = fs::read(&path).map_err(StoreError::io("read", &path))?;
        sized(&path, data.len())?;
        Ok(data.into())
    }

    /// Reads a block into `buffer`, one block long, and checks its digest.
    pub(super) fn read(&self, digest: &Digest, buffer: &mut [u8]) -> Result<(), StoreError> {
        if *digest == *ZERO_BLOCK {
            buffer.fill(0);
            return Ok(());
        }
        let path = self.path(digest);
        let mut file = File::open(&path).map_err(StoreError::io("read", &path))?;
        let length = file.metadata().map_err(StoreError::io("read", &path))?.len();
        sized(&path, usize::try_from(length).unwrap_or(usize::MAX))?;
        file.read_exact(buffer).map_err(StoreError::io("read", &path))?;
        if Digest::of(buffer) == *digest {
            Ok(())
        } else {
            Err(StoreError::Damaged {
                path,
                why: "its content does not have the digest that it is named by".to_owned(),
            })
        }
    }

    pub(super) fn delete(&self, digest: &Digest) -> Result<bool, StoreError> {
        durable::take(&self.path(digest))
    }

    /// Every folder of blocks with the digests in it. The caller holds [`Store::alone`](super::Store::alone).
    pub(super) fn folders(&self) -> Result<Vec<(PathBuf, Vec<Digest>)>, StoreError> {
        let mut folders = Vec::new();
        for name in durable::names(&self.folder)? {
            let folder = self.folder.join(name);
            let digests = durable::names(&folder)?.iter().filter_map(|name| Digest::from_hex(name)).collect();
            folders.push((folder, digests));
        }
        Ok(folders)
    }
}

fn sized(path: &Path, length: usize) -> Result<(), StoreError> {
    if length == BLOCK_SIZE {
        return Ok(());
    }
    Err(StoreError::Damaged {
        path: path.to_owned(),
        why: format!("it has {length} bytes and not {BLOCK_SIZE}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_stored_once_and_a_damaged_one_is_seen_and_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = Blocks::new(dir.path().join("blocks"));
        let data = vec![7; BLOCK_SIZE];
        let digest = Digest::of(&data);
        blocks.put(&digest, &data).unwrap();
        blocks.put(&digest, &data).unwrap();
        blocks.sync(&HashSet::from([digest])).unwrap();
        assert_eq!(blocks.folders().unwrap()[0].1, [digest]);
        let mut buffer = vec![0; BLOCK_SIZE];
        blocks.read(&digest, &mut buffer).unwrap();
        assert_eq!(buffer, data);

        for wrong in [vec![8; BLOCK_SIZE], vec![7; 9], Vec::new()] {
            fs::write(blocks.path(&digest), &wrong).unwrap();
            assert!(blocks.read(&digest, &mut buffer).is_err());
            blocks.put(&digest, &data).unwrap();
            assert_eq!(blocks.get(&digest).unwrap(), data);
        }
    }

    #[test]
    fn zeros_take_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = Blocks::new(dir.path().join("blocks"));
        blocks.put(&ZERO_BLOCK, &ZEROS).unwrap();
        blocks.sync(&HashSet::from([*ZERO_BLOCK])).unwrap();
        assert!(blocks.folders().unwrap().is_empty());
        assert!(blocks.get(&ZERO_BLOCK).unwrap().iter().all(|byte| *byte == 0));
        let mut buffer = vec![1; BLOCK_SIZE];
        blocks.read(&ZERO_BLOCK, &mut buffer).unwrap();
        assert!(buffer.iter().all(|byte| *byte == 0));
    }
}
