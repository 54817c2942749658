//! A block on its way from a cloud to a disk: hashed and written piece by piece as it arrives, so that no copy of the whole
//! is made, and each piece is still in the processor's cache.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Disk;
use crate::cloud::{BLOCK_SIZE, BlockSink, Digest, Digesting, ZERO_BLOCK, ZEROS};

/// One block, of which every attempt to get it begins anew.
pub(super) struct Arrival<'a> {
    /// Where it goes, and what is held by whoever writes there. The kernel lets one write to a file at a time, and lets
    /// the others spin meanwhile.
    to: Option<(&'a dyn Disk, &'a Mutex<()>)>,
    /// In bytes.
    offset: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    claimed: Option<Digest>,
    seen: Digesting,
    /// Whether all bytes so far are zero; looked at only where they should be.
    zeros: bool,
    length: usize,
    /// Whether bytes were written, in this attempt or in one before.
    written: bool,
    failed: Option<io::Error>,
}

impl<'a> Arrival<'a> {
    pub(super) fn new(to: Option<(&'a dyn Disk, &'a Mutex<()>)>, offset: u64) -> Self {
        Self { to, offset, state: Mutex::default() }
    }

    /// The digest of what arrived, or `None` where it is not what was announced.
    ///
    /// # Errors
    /// Where the disk could not be written.
    pub(super) fn end(&self) -> io::Result<Option<Digest>> {
        let mut state = self.state();
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        let Some(claimed) = state.claimed.filter(|_| state.length == BLOCK_SIZE) else { return Ok(None) };
        let sound = if claimed == *ZERO_BLOCK {
            state.zeros
        } else {
            std::mem::take(&mut state.seen).finish() == claimed
        };
        Ok(sound.then_some(claimed))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockSink for Arrival<'_> {
    fn begin(&self, claimed: Digest) {
        let mut state = self.state();
        let written = state.written;
        *state = State { claimed: Some(claimed), zeros: true, written, ..State::default() };
    }

    fn piece(&self, bytes: &[u8]) {
        let mut state = self.state();
        let begin = state.length;
        state.length = begin.saturating_add(bytes.len());
        if state.length > BLOCK_SIZE || state.failed.is_some() {
            return;
        }
        let of_zeros = state.claimed == Some(*ZERO_BLOCK);
        if of_zeros {
            // Comparing is ten times as fast as hashing.
            state.zeros = state.zeros && *bytes == ZEROS[..bytes.len()];
        } else {
            state.seen.add(bytes);
        }
        // A block of zeros stays a hole, where an attempt that was damaged has written nothing.
        let Some((disk, writing)) = self.to.filter(|_| !of_zeros || state.written) else { return };
        state.written = true;
        // Not to be waited for with other blocks in hand: memory would hold them all.
        let _alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed = disk.write_at(bytes, self.offset + begin as u64).err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes from an offset on, as a disk.
    struct Memory(Mutex<Vec<u8>>);

    impl Disk for Memory {
        fn size(&self) -> u64 {
            self.0.lock().unwrap().len() as u64
        }

        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let begin = usize::try_from(offset).unwrap();
            let mut all = self.0.lock().unwrap();
            let to = all.get_mut(begin..begin + bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            to.copy_from_slice(bytes);
            Ok(())
        }

        fn written(&self) -> io::Result<Vec<std::ops::Range<u64>>> {
            Ok(Vec::new())
        }
    }

    const OFFSET: u64 = 10;

    fn memory(fill: u8) -> Memory {
        Memory(Mutex::new(vec![fill; BLOCK_SIZE + 20]))
    }

    fn arrive(arrival: &Arrival, claimed: Digest, bytes: &[u8]) -> io::Result<Option<Digest>> {
        arrival.begin(claimed);
        // Pieces as a connection gives them: of any size.
        for piece in bytes.chunks(100_003) {
            arrival.piece(piece);
        }
        arrival.end()
    }

    fn noise() -> Vec<u8> {
        (0..BLOCK_SIZE).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    #[test]
    fn a_block_is_verified_and_written_where_it_belongs() {
        let (disk, writing, noise) = (memory(7), Mutex::new(()), noise());
        let arrival = Arrival::new(Some((&disk, &writing)), OFFSET);
        assert_eq!(arrive(&arrival, Digest::of(&noise), &noise).unwrap(), Some(Digest::of(&noise)));
        let all = disk.0.lock().unwrap();
        assert_eq!(all[10..10 + BLOCK_SIZE], noise);
        assert!(all[..10].iter().chain(&all[10 + BLOCK_SIZE..]).all(|byte| *byte == 7));
    }

    #[test]
    fn what_is_not_what_was_announced_is_none_and_may_come_again() {
        let (noise, nowhere) = (noise(), Arrival::new(None, OFFSET));
        let good = Digest::of(&noise);
        let mut damaged = noise.clone();
        damaged[BLOCK_SIZE - 1] ^= 1;
        let longer = [&noise[..], &[0]].concat();
        for wrong in [&damaged, &noise[1..], &longer, &[][..]] {
            assert_eq!(arrive(&nowhere, good, wrong).unwrap(), None);
        }
        assert_eq!(arrive(&nowhere, *ZERO_BLOCK, &noise).unwrap(), None);
        assert_eq!(arrive(&nowhere, good, &noise).unwrap(), Some(good));
        assert_eq!(Arrival::new(None, OFFSET).end().unwrap(), None, "nothing came");
    }

    #[test]
    fn zeros_are_written_only_over_what_an_attempt_before_has_written() {
        let (disk, writing) = (memory(7), Mutex::new(()));
        let arrival = Arrival::new(Some((&disk, &writing)), OFFSET);
        assert_eq!(arrive(&arrival, *ZERO_BLOCK, &ZEROS).unwrap(), Some(*ZERO_BLOCK));
        assert_eq!(disk.0.lock().unwrap()[10], 7);
        assert_eq!(arrive(&arrival, Digest::of(b"other"), &noise()).unwrap(), None);
        assert_eq!(arrive(&arrival, *ZERO_BLOCK, &ZEROS).unwrap(), Some(*ZERO_BLOCK));
        assert!(disk.0.lock().unwrap()[10..10 + BLOCK_SIZE].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_told() {
        let (disk, writing, noise) = (memory(7), Mutex::new(()), noise());
        let arrival = Arrival::new(Some((&disk, &writing)), 1000);
        let error = arrive(&arrival, Digest::of(&noise), &noise).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
