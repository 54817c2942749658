//! Blocks: the unit of the EBS direct APIs, their digests and the checksum of a whole snapshot.

use std::fmt;
use std::sync::LazyLock;

use base64::Engine;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::sha256_pair;

/// Bytes of a block. The only value that the EBS direct APIs know ([EBS API model], `BlockSize`).
pub const BLOCK_SIZE: usize = 524_288;

/// A block's bytes: always [`BLOCK_SIZE`] of them.
pub type Block = Bytes;

/// A block of zeros: most blocks of a new disk are one.
pub static ZEROS: LazyLock<Block> = LazyLock::new(|| Bytes::from(vec![0; BLOCK_SIZE]));

/// The digest of a block of zeros.
pub static ZERO_BLOCK: LazyLock<Digest> = LazyLock::new(|| Digest(Sha256::digest(&*ZEROS).into()));

/// Which block of a disk: its byte offset divided by [`BLOCK_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockIndex(pub u32);

impl BlockIndex {
    /// Where the block begins, in bytes.
    #[must_use]
    pub fn offset(self) -> u64 {
        u64::from(self.0) * BLOCK_SIZE as u64
    }
}

impl fmt::Display for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The SHA-256 of a block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        // Comparing is ten times as fast as hashing, and ends at once where the first byte is none.
        if *bytes == **ZEROS {
            return *ZERO_BLOCK;
        }
        Self(Sha256::digest(bytes).into())
    }

    /// Whether those of two blocks take little longer than that of one.
    #[must_use]
    pub fn gains_by_two() -> bool {
        sha256_pair::is_there()
    }

    /// Those of two blocks.
    #[must_use]
    pub fn of_two(blocks: [&[u8]; 2]) -> [Self; 2] {
        let are_zeros = blocks.iter().any(|block| **block == **ZEROS);
        let both = if are_zeros { None } else { sha256_pair::digests(blocks) };
        both.map_or_else(|| blocks.map(Self::of), |both| both.map(Self))
    }

    /// As the APIs carry it.
    #[must_use]
    pub fn base64(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(self.0)
    }

    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Reads the form that [`Digest::hex`] writes.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", &self.hex()[..12])
    }
}

/// The checksum of a snapshot: SHA-256 over the raw digests of its blocks in ascending order, as `CompleteSnapshot`
/// takes it with the aggregation method `LINEAR`.
#[derive(Clone, Debug, Default)]
pub struct LinearChecksum(Sha256);

impl LinearChecksum {
    /// Adds the next block's digest. The caller goes in ascending order of index.
    pub fn add(&mut self, digest: &Digest) {
        self.0.update(digest.0);
    }

    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_its_hex_form() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Digest::from_hex(&digest.hex()), Some(digest));
        assert_eq!(Digest::from_hex("zz"), None);
    }

    #[test]
    fn a_block_of_zeros_has_the_digest_of_its_bytes() {
        // What `head -c 524288 /dev/zero | sha256sum` says.
        let known = "07854d2fef297a06ba81685e660c332de36d5d18d546927d30daad6d7fda1541";
        assert_eq!(Digest::of(&ZEROS).hex(), known);
        let mut last = ZEROS.to_vec();
        last[BLOCK_SIZE - 1] = 1;
        assert_ne!(Digest::of(&last), *ZERO_BLOCK);
        assert_ne!(Digest::of(&ZEROS[1..]), *ZERO_BLOCK);
    }

    #[test]
    fn the_linear_checksum_is_the_digest_of_the_raw_digests() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let mut sum = LinearChecksum::default();
        sum.add(&a);
        sum.add(&b);
        assert_eq!(sum.finish(), Digest::of(&[a.0, b.0].concat()));
    }
}
