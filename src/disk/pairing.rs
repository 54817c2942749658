//! Blocks that are hashed two at once, which takes little longer than one ([`Digest::of_two`]): whoever has a block to hash
//! gives others the time to come with theirs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::buffers::Buffer;
use crate::cloud::Digest;

/// Where a block waits for another one.
#[derive(Default)]
pub(super) struct Pairing(Mutex<Option<Waiting>>);

struct Waiting {
    block: Buffer,
    tell: oneshot::Sender<(Buffer, Digest)>,
}

impl Pairing {
    /// The digest of a block; `None` where whoever hashed it has panicked.
    pub(super) async fn digest(&self, block: Buffer) -> Option<(Buffer, Digest)> {
        if !Digest::gains_by_two() {
            let digest = Digest::of(&block);
            return Some((block, digest));
        }
        let at = block.as_ptr() as usize;
        let told = match self.hash_or_wait(block) {
            Ok(hashed) => return Some(hashed),
            Err(told) => told,
        };
        // What is ready to run now runs before this goes on. Nothing is waited for: there may be no other block.
        yield_now().await;
        match self.take_back(at) {
            Some(block) => {
                let digest = Digest::of(&block);
                Some((block, digest))
            }
            None => told.await.ok(),
        }
    }

    /// Hashes it with one that waits; else it waits itself.
    fn hash_or_wait(&self, block: Buffer) -> Result<(Buffer, Digest), oneshot::Receiver<(Buffer, Digest)>> {
        let mut waiting = self.waiting();
        let Some(other) = waiting.take() else {
            let (tell, told) = oneshot::channel();
            *waiting = Some(Waiting { block, tell });
            return Err(told);
        };
        drop(waiting);
        let [own, others] = Digest::of_two([&block, &other.block]);
        // Nobody hears it where a stop ended its task.
        let _ = other.tell.send((other.block, others));
        Ok((block, own))
    }

    /// The block at this address, if it still waits.
    fn take_back(&self, at: usize) -> Option<Buffer> {
        self.waiting().take_if(|one| one.block.as_ptr() as usize == at).map(|one| one.block)
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::buffers::Buffers;

    fn block(buffers: &Buffers, byte: u8) -> Buffer {
        let mut block = buffers.take();
        block.fill(byte);
        block
    }

    #[tokio::test]
    async fn a_block_is_hashed_alone_where_no_other_comes() {
        let (buffers, pairing) = (Buffers::default(), Pairing::default());
        for byte in [1, 0, 2] {
            let (hashed, digest) = pairing.digest(block(&buffers, byte)).await.unwrap();
            assert_eq!((hashed[0], digest), (byte, Digest::of(&hashed)));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_of_many_has_its_own_digest() {
        let (buffers, pairing) = (Buffers::default(), std::sync::Arc::new(Pairing::default()));
        let mut all = tokio::task::JoinSet::new();
        for byte in 0..101 {
            let (pairing, block) = (pairing.clone(), block(&buffers, byte));
            all.spawn(async move {
                let (hashed, digest) = pairing.digest(block).await.unwrap();
                (hashed[0], digest == Digest::of(&hashed))
            });
        }
        let mut hashed: Vec<u8> = Vec::new();
        while let Some(one) = all.join_next().await {
            let (byte, is_its_own) = one.unwrap();
            assert!(is_its_own, "{byte}");
            hashed.push(byte);
        }
        hashed.sort_unstable();
        assert_eq!(hashed, (0..101).collect::<Vec<u8>>());
    }
}
