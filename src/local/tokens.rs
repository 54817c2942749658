//! The tokens of a listing: opaque to the caller, checked when they come back, different in every listing, and good
//! for a while only. Nothing is kept of them; all that is needed is inside.
//!
//! They guard against mistakes, not against an attacker: whoever can call can also read the folder.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::refusal::Refusal;
use crate::cloud::{BlockIndex, BlockToken, Digest, PageToken, SnapshotId};

/// How long a block's token is good, as on AWS (EBS direct APIs, FAQ).
const BLOCK_DAYS: i64 = 7;
/// How long a page's token is good, as on AWS (EBS direct APIs, FAQ).
const PAGE_MINUTES: i64 = 60;

const NONCE: usize = 8;
const TIME: usize = 8;
const SEAL: usize = 16;

/// One page of one listing of a snapshot: what its tokens have in common.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    snapshot: &'a SnapshotId,
    nonce: [u8; NONCE],
    issued: i64,
}

impl<'a> Listing<'a> {
    pub(super) fn new(snapshot: &'a SnapshotId, now: Timestamp) -> Self {
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&uuid::Uuid::new_v4().as_bytes()[..NONCE]);
        Self { snapshot, nonce, issued: now.as_second() }
    }

    pub(super) fn block(&self, index: BlockIndex, digest: &Digest) -> BlockToken {
        BlockToken(URL_SAFE_NO_PAD.encode(self.sealed(&[&index.0.to_be_bytes(), &digest.0])))
    }

    pub(super) fn page(&self, next: BlockIndex) -> PageToken {
        let mut bytes = next.0.to_be_bytes().to_vec();
        bytes.extend(self.sealed(&[b"page", &next.0.to_be_bytes()]));
        PageToken(URL_SAFE_NO_PAD.encode(bytes))
    }

    fn sealed(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut seal = Sha256::new();
        seal.update(self.snapshot.as_str());
        seal.update(self.nonce);
        seal.update(self.issued.to_be_bytes());
        for part in parts {
            seal.update(part);
        }
        [&self.nonce[..], &self.issued.to_be_bytes(), &seal.finalize()[..SEAL]].concat()
    }
}

/// Checks that `token` was given for this block of this snapshot.
pub(super) fn check_block(
    token: &BlockToken,
    snapshot: &SnapshotId,
    index: BlockIndex,
    digest: &Digest,
    now: Timestamp,
) -> Result<(), Refusal> {
    let good = URL_SAFE_NO_PAD.decode(&token.0).is_ok_and(|bytes| {
        read(&bytes, snapshot).is_some_and(|listing| {
            listing.is_younger_than(SignedDuration::from_hours(BLOCK_DAYS * 24), now)
                && listing.block(index, digest) == *token
        })
    });
    if good {
        return Ok(());
    }
    Err(Refusal::invalid(
        "ValidationException",
        format!(
            "the block token is not one for block {index} of {snapshot}, or expired: list the blocks again"
        ),
    ))
}

/// The index that a page's token names.
pub(super) fn open_page(
    token: &PageToken,
    snapshot: &SnapshotId,
    now: Timestamp,
) -> Result<BlockIndex, Refusal> {
    let opened = || {
        let bytes = URL_SAFE_NO_PAD.decode(&token.0).ok()?;
        let (next, rest) = bytes.split_first_chunk()?;
        let next = BlockIndex(u32::from_be_bytes(*next));
        let listing = read(rest, snapshot)?;
        let good = listing.is_younger_than(SignedDuration::from_mins(PAGE_MINUTES), now)
            && listing.page(next) == *token;
        good.then_some(next)
    };
    opened().ok_or_else(|| {
        Refusal::invalid(
            "ValidationException",
            format!(
                "the page token is not one of a listing of {snapshot}, or expired: list the blocks again"
            ),
        )
    })
}

impl Listing<'_> {
    fn is_younger_than(&self, age: SignedDuration, now: Timestamp) -> bool {
        let left = now.as_second().checked_sub(self.issued);
        left.is_some_and(|seconds| seconds <= age.as_secs())
    }
}

fn read<'a>(bytes: &[u8], snapshot: &'a SnapshotId) -> Option<Listing<'a>> {
    let (nonce, rest) = bytes.split_first_chunk()?;
    let (issued, _) = rest.split_first_chunk::<TIME>()?;
    Some(Listing { snapshot, nonce: *nonce, issued: i64::from_be_bytes(*issued) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(digit: char) -> SnapshotId {
        SnapshotId::parse(&format!("snap-{}", digit.to_string().repeat(17))).unwrap()
    }

    #[test]
    fn a_block_token_fits_its_own_block_only_and_expires() {
        let (id, now, digest) = (snapshot('a'), Timestamp::UNIX_EPOCH, Digest::of(b"x"));
        let token = Listing::new(&id, now).block(BlockIndex(7), &digest);
        let check = |id: &SnapshotId, index, digest: &Digest, days: i64| {
            let then = now + SignedDuration::from_hours(24 * days);
            check_block(&token, id, BlockIndex(index), digest, then).is_ok()
        };
        assert!(check(&id, 7, &digest, 7));
        assert!(!check(&id, 7, &digest, 8));
        assert!(!check(&id, 8, &digest, 0));
        assert!(!check(&snapshot('b'), 7, &digest, 0));
        assert!(!check(&id, 7, &Digest::of(b"y"), 0));
        assert_ne!(Listing::new(&id, now).block(BlockIndex(7), &digest), token);
    }

    #[test]
    fn a_page_token_names_its_page_and_expires() {
        let (id, now) = (snapshot('a'), Timestamp::UNIX_EPOCH);
        let token = Listing::new(&id, now).page(BlockIndex(1000));
        assert_eq!(open_page(&token, &id, now).unwrap(), BlockIndex(1000));
        assert!(open_page(&token, &snapshot('b'), now).is_err());
        assert!(open_page(&token, &id, now + SignedDuration::from_mins(61)).is_err());
    }

    #[test]
    fn any_other_text_is_refused() {
        let (id, now) = (snapshot('a'), Timestamp::UNIX_EPOCH);
        let far = URL_SAFE_NO_PAD.encode([0x80; 36]);
        let block = Listing::new(&id, now).block(BlockIndex(0), &Digest::of(b"x"));
        for text in ["", "AAAA", "not base64!", "ä", &far, &block.0, &"A".repeat(100_000)] {
            assert!(open_page(&PageToken(text.to_owned()), &id, now).is_err(), "{text}");
            let token = BlockToken(text.to_owned());
            assert!(check_block(&token, &id, BlockIndex(1), &Digest::of(b"x"), now).is_err());
        }
    }
}
