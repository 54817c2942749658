//! The block map: which blocks a snapshot has and their digests. Written beside a record as `blocks.map`, so that a
//! child knows its parent's blocks without reading them.
//!
//! The file: the magic `BAKEMAP1`; the volume's size in GiB and the number of entries, 32 bits each; then an entry a
//! block in ascending order, 32 bits of index and 32 bytes of SHA-256; last the SHA-256 of all before it. Numbers are
//! little-endian.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::cloud::{BlockIndex, Digest, LinearChecksum};
use crate::host::file;

const MAGIC: &[u8; 8] = b"BAKEMAP1";
const HEAD: usize = 16;
const ENTRY: usize = 36;
const FOOT: usize = 32;
/// 4 TiB in use: more than any image's volume holds, and less than the memory of a machine that bakes.
const LARGEST: u64 = (ENTRY as u64) << 23;

/// A snapshot's blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockMap {
    /// GiB.
    pub volume_size: u32,
    blocks: BTreeMap<BlockIndex, Digest>,
}

impl BlockMap {
    #[must_use]
    pub fn new(volume_size: u32) -> Self {
        Self { volume_size, blocks: BTreeMap::new() }
    }

    pub fn insert(&mut self, index: BlockIndex, digest: Digest) {
        self.blocks.insert(index, digest);
    }

    #[must_use]
    pub fn get(&self, index: BlockIndex) -> Option<Digest> {
        self.blocks.get(&index).copied()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// In ascending order of index.
    pub fn iter(&self) -> impl Iterator<Item = (BlockIndex, Digest)> + '_ {
        self.blocks.iter().map(|(index, digest)| (*index, *digest))
    }

    /// One digest for the disk's whole content: the linear checksum over all of its blocks.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut sum = LinearChecksum::default();
        for digest in self.blocks.values() {
            sum.add(digest);
        }
        sum.finish()
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.blocks.len() * ENTRY + FOOT);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.volume_size.to_le_bytes());
        // A volume of 64 TiB has 2^27 blocks.
        bytes.extend_from_slice(&u32::try_from(self.blocks.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (index, digest) in &self.blocks {
            bytes.extend_from_slice(&index.0.to_le_bytes());
            bytes.extend_from_slice(&digest.0);
        }
        let foot = Digest::of(&bytes);
        bytes.extend_from_slice(&foot.0);
        bytes
    }

    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let body_len = bytes.len().checked_sub(FOOT).filter(|len| *len >= HEAD).ok_or("it is too short")?;
        let (body, foot) = bytes.split_at(body_len);
        if &body[..8] != MAGIC {
            return Err("it is no block map, or one of a newer version".to_owned());
        }
        if Digest::of(body).0 != foot {
            return Err("its checksum does not fit: it was cut or changed".to_owned());
        }
        let number =
            |at: usize| body[at..at + 4].iter().rev().fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte));
        let mut map = Self::new(number(8));
        if body.len() - HEAD != ENTRY * number(12) as usize {
            return Err("its length does not fit its count".to_owned());
        }
        for at in (HEAD..body.len()).step_by(ENTRY) {
            let mut digest = [0; 32];
            digest.copy_from_slice(&body[at + 4..at + ENTRY]);
            map.insert(BlockIndex(number(at)), Digest(digest));
        }
        Ok(map)
    }

    /// # Errors
    /// The file system's.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        file::replace(path, &self.to_bytes(), 0o644)
    }

    /// # Errors
    /// The file system's, or `InvalidData` with what is wrong.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = file::read(path, LARGEST)?;
        Self::from_bytes(&bytes).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> BlockMap {
        let mut map = BlockMap::new(8);
        map.insert(BlockIndex(7), Digest::of(b"seven"));
        map.insert(BlockIndex(0), Digest::of(b"zero"));
        map
    }

    #[test]
    fn a_map_survives_its_file() {
        assert_eq!(BlockMap::from_bytes(&map().to_bytes()), Ok(map()));
    }

    #[test]
    fn any_cut_or_changed_byte_is_seen() {
        let bytes = map().to_bytes();
        for at in 0..bytes.len() {
            assert!(BlockMap::from_bytes(&bytes[..at]).is_err());
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(BlockMap::from_bytes(&changed).is_err());
        }
    }

    #[test]
    fn the_digest_is_of_the_content_in_order() {
        let mut sum = LinearChecksum::default();
        sum.add(&Digest::of(b"zero"));
        sum.add(&Digest::of(b"seven"));
        assert_eq!(map().digest(), sum.finish());
    }
}
