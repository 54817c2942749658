//! Memory for blocks, used again: a new half MiB costs the kernel as much as hashing a tenth of it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cloud::{BLOCK_SIZE, Block};

/// So many are in use at once by those that wait for memory: enough for all that a line takes at a time, while those that
/// were sent wait for their answers without any.
const MOST: usize = 48;

/// Memory that no block is in. Cloning shares it.
#[derive(Clone)]
pub(super) struct Buffers(Arc<Shared>);

struct Shared {
    free: Mutex<Vec<Box<[u8]>>>,
    room: Arc<Semaphore>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self(Arc::new(Shared { free: Mutex::default(), room: Arc::new(Semaphore::new(MOST)) }))
    }
}

impl Buffers {
    /// Memory for a block, when some is free; what is in it is anything.
    pub(super) async fn wait(&self) -> Buffer {
        // Nobody closes it.
        self.with(self.0.room.clone().acquire_owned().await.ok())
    }

    /// The same at once, for a block that is coming already.
    pub(super) fn take(&self) -> Buffer {
        self.with(None)
    }

    fn with(&self, room: Option<OwnedSemaphorePermit>) -> Buffer {
        let free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = free.unwrap_or_else(|| vec![0; BLOCK_SIZE].into());
        Buffer { bytes, home: self.clone(), _room: room }
    }
}

/// The bytes of one block. Their memory goes back where it came from.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    home: Buffers,
    _room: Option<OwnedSemaphorePermit>,
}

impl Buffer {
    /// To be sent; its memory goes back as soon as it is.
    pub(super) fn into_block(self) -> Block {
        Block::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.home.0.free.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_from_a_block_that_was_sent() {
        let buffers = Buffers::default();
        let (mut one, other) = (buffers.take(), buffers.take());
        one[0] = 7;
        let at = one.as_ptr();
        let block = one.into_block();
        assert_eq!((block.len(), block[0]), (BLOCK_SIZE, 7));
        let again = block.clone();
        drop(block);
        assert_ne!(buffers.take().as_ptr(), at, "somebody still has it");
        drop((again, other));
        let all = [buffers.take(), buffers.take(), buffers.take()];
        assert!(all.iter().any(|buffer| buffer.as_ptr() == at));
    }

    #[tokio::test]
    async fn who_waits_for_memory_has_some_when_a_block_was_sent() {
        let buffers = Buffers::default();
        let mut all = Vec::new();
        for _ in 0..MOST {
            all.push(buffers.wait().await.into_block());
        }
        let one_more = buffers.wait();
        tokio::pin!(one_more);
        assert!(futures::poll!(&mut one_more).is_pending());
        // Nor does what is coming already.
        drop(buffers.take());
        assert!(futures::poll!(&mut one_more).is_pending());
        all.pop();
        assert_eq!(one_more.await.len(), BLOCK_SIZE);
    }
}
