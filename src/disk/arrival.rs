//! A block on its way from a cloud, gathered from the pieces in which it comes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::buffers::{Buffer, Buffers};
use crate::cloud::{BLOCK_SIZE, BlockSink, Digest};

/// One block, of which every attempt to get it begins anew.
pub(super) struct Arrival<'a> {
    buffers: &'a Buffers,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    claimed: Option<Digest>,
    /// There from the first piece on: while an answer is waited for no memory is needed.
    block: Option<Buffer>,
    length: usize,
}

impl<'a> Arrival<'a> {
    pub(super) fn new(buffers: &'a Buffers) -> Self {
        Self { buffers, state: Mutex::default() }
    }

    /// What arrived, with the digest that was announced, or `None` where it is no whole block.
    pub(super) fn end(&self) -> Option<(Buffer, Digest)> {
        let State { claimed, block, length } = std::mem::take(&mut *self.state());
        block.zip(claimed).filter(|_| length == BLOCK_SIZE)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockSink for Arrival<'_> {
    fn begin(&self, claimed: Digest) {
        let mut state = self.state();
        state.claimed = Some(claimed);
        state.length = 0;
    }

    fn piece(&self, bytes: &[u8]) {
        let mut state = self.state();
        let begin = state.length;
        state.length = begin.saturating_add(bytes.len());
        let end = state.length;
        let block = state.block.get_or_insert_with(|| self.buffers.take());
        if let Some(to) = block.get_mut(begin..end) {
            to.copy_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_gathered_from_its_pieces_and_another_attempt_begins_anew() {
        let buffers = Buffers::default();
        let noise: Vec<u8> = (0..BLOCK_SIZE).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let longer = [&noise[..], &[0]].concat();
        let arrival = Arrival::new(&buffers);
        assert!(arrival.end().is_none(), "nothing came");
        // The last one comes after one that broke off.
        for (bytes, is_whole) in [(&noise[1..], false), (&longer, false), (&[], false), (&noise, true)] {
            arrival.begin(Digest::of(b"another"));
            arrival.piece(&noise[..1000]);
            arrival.begin(Digest::of(&noise));
            // Pieces as a connection gives them: of any size.
            for piece in bytes.chunks(100_003) {
                arrival.piece(piece);
            }
            let arrived = arrival.end();
            assert_eq!(arrived.is_some(), is_whole, "{}", bytes.len());
            if let Some((block, claimed)) = arrived {
                assert!(*block == *noise && claimed == Digest::of(&noise));
            }
        }
    }
}
