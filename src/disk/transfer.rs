//! Blocks between a disk and a snapshot: one pipeline with bounded memory. Requests in flight are bounded by what the
//! cloud says it handles well, hashing is off the async threads, and the first error that lasts stops all.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::Disk;
use super::block_map::BlockMap;
use super::delta::{Delta, read_block};
use crate::cloud::{
    BLOCK_SIZE, Block, BlockIndex, CloudError, Digest, LinearChecksum, ListedBlock, SnapshotId, Snapshots,
    ZERO_BLOCK, retrying,
};
use crate::host::stop::Stop;
use crate::report::{Event, Reporter};

/// Events of progress come once in this many blocks: 64 MiB.
const PROGRESS_EVERY: u64 = 128;

/// Where blocks come from or go to.
#[derive(Clone)]
pub struct Pipe {
    pub snapshots: Arc<dyn Snapshots>,
    pub reporter: Reporter,
    pub stop: Stop,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pipe")
    }
}

impl Pipe {
    /// Reads all blocks of a snapshot into `disk`, verifies each, and gives their digests. Blocks of zeros stay holes.
    ///
    /// # Errors
    /// [`TransferError`]
    pub async fn download(&self, from: &SnapshotId, disk: &Arc<dyn Disk>) -> Result<BlockMap, TransferError> {
        let (blocks, volume_size) = self.list(from).await?;
        let total = blocks.len() as u64;
        let mut done = stream::iter(blocks)
            .map(|block| self.fetch(from, block, Some(disk)))
            .buffer_unordered(self.snapshots.concurrency());
        let mut map = BlockMap::new(volume_size);
        let mut count = 0;
        while let Some((index, digest)) = done.try_next().await? {
            map.insert(index, digest);
            count += 1;
            self.progress("blocks read", count, total);
        }
        Ok(map)
    }

    /// Puts the blocks of `delta` from `disk` into a snapshot that was started, and gives their linear checksum.
    ///
    /// # Errors
    /// [`TransferError`]
    pub async fn upload(
        &self,
        disk: &Arc<dyn Disk>,
        delta: &Delta,
        to: &SnapshotId,
    ) -> Result<Digest, TransferError> {
        let total = delta.len() as u64;
        let mut done = stream::iter(delta.iter().copied())
            .map(|(index, digest)| self.store(disk, index, digest, to))
            .buffer_unordered(self.snapshots.concurrency());
        let mut count = 0;
        while let Some(()) = done.try_next().await? {
            count += 1;
            self.progress("blocks stored", count, total);
        }
        let mut sum = LinearChecksum::default();
        for (_, digest) in delta {
            sum.add(digest);
        }
        Ok(sum.finish())
    }

    /// Reads up to `count` blocks of `delta` back from a completed snapshot, spread over it, and compares them.
    ///
    /// # Errors
    /// [`TransferError::Differs`] where one is not what was put.
    pub async fn read_back(
        &self,
        from: &SnapshotId,
        delta: &Delta,
        count: usize,
    ) -> Result<(), TransferError> {
        let (listed, _) = self.list(from).await?;
        let every = (delta.len() / count.max(1)).max(1);
        for (index, digest) in delta.iter().step_by(every).take(count) {
            let at = listed.binary_search_by_key(index, |block| block.index);
            let block = at
                .map(|at| listed[at].clone())
                .map_err(|_| TransferError::Differs { snapshot: from.clone(), index: *index })?;
            let (_, found) = self.fetch(from, block, None).await?;
            if found != *digest {
                return Err(TransferError::Differs { snapshot: from.clone(), index: *index });
            }
        }
        Ok(())
    }

    async fn list(&self, of: &SnapshotId) -> Result<(Vec<ListedBlock>, u32), TransferError> {
        let mut blocks = Vec::new();
        let mut next = None;
        loop {
            let page = retrying(&self.stop, || self.snapshots.list_blocks(of, next.as_ref())).await?;
            blocks.extend(page.blocks);
            next = page.next;
            if next.is_none() {
                return Ok((blocks, page.volume_size));
            }
            if self.stop.is_requested() {
                return Err(TransferError::Stopped);
            }
        }
    }

    /// Gets a block, verifies it and writes it to `into`; bytes that do not have the digest that came with them are asked
    /// for once more.
    async fn fetch(
        &self,
        from: &SnapshotId,
        block: ListedBlock,
        into: Option<&Arc<dyn Disk>>,
    ) -> Result<(BlockIndex, Digest), TransferError> {
        let index = block.index;
        for _ in 0..2 {
            if self.stop.is_requested() {
                return Err(TransferError::Stopped);
            }
            let (bytes, claimed) =
                retrying(&self.stop, || self.snapshots.get_block(from, index, &block.token))
                    .await
                    .map_err(|source| TransferError::Get { snapshot: from.clone(), index, source })?;
            let into = into.cloned();
            let good = blocking(move || {
                if bytes.len() != BLOCK_SIZE || Digest::of(&bytes) != claimed {
                    return Ok(false);
                }
                if let Some(disk) = into.filter(|_| claimed != *ZERO_BLOCK) {
                    if index.offset() + BLOCK_SIZE as u64 > disk.size() {
                        return Err(TransferError::Outside { index });
                    }
                    disk.write_at(&bytes, index.offset()).map_err(TransferError::Write)?;
                }
                Ok(true)
            })
            .await?;
            if good {
                return Ok((index, claimed));
            }
        }
        Err(TransferError::Corrupt { snapshot: from.clone(), index })
    }

    async fn store(
        &self,
        disk: &Arc<dyn Disk>,
        index: BlockIndex,
        digest: Digest,
        to: &SnapshotId,
    ) -> Result<(), TransferError> {
        if self.stop.is_requested() {
            return Err(TransferError::Stopped);
        }
        let source = disk.clone();
        let bytes = blocking(move || {
            let mut buffer = vec![0; BLOCK_SIZE];
            read_block(&*source, index, &mut buffer)?;
            Ok(Block::from(buffer))
        })
        .await?;
        retrying(&self.stop, || self.snapshots.put_block(to, index, bytes.clone(), digest))
            .await
            .map_err(|source| TransferError::Put { snapshot: to.clone(), index, source })
    }

    fn progress(&self, name: &str, done: u64, total: u64) {
        if done.is_multiple_of(PROGRESS_EVERY) || done == total {
            self.reporter.emit(Event::Progress { name: name.to_owned(), done, total });
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    // A task that cannot be joined has panicked or the runtime is going down: either way there is no result.
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(TransferError::Stopped))
}

/// Why blocks did not get from one side to the other.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("{0}")]
    Cloud(#[from] CloudError),
    #[error("cannot read block {index} of {snapshot}")]
    Get { snapshot: SnapshotId, index: BlockIndex, source: CloudError },
    #[error("cannot store block {index} of {snapshot}")]
    Put { snapshot: SnapshotId, index: BlockIndex, source: CloudError },
    #[error("cannot read the disk")]
    Read(#[source] std::io::Error),
    #[error("cannot write the disk")]
    Write(#[source] std::io::Error),
    #[error(
        "block {index} of {snapshot} does not have the checksum that it came with; the snapshot is damaged"
    )]
    Corrupt { snapshot: SnapshotId, index: BlockIndex },
    #[error("block {index} lies outside of the disk")]
    Outside { index: BlockIndex },
    #[error("block {index} of {snapshot} is not what was stored")]
    Differs { snapshot: SnapshotId, index: BlockIndex },
    #[error("a stop was asked for")]
    Stopped,
}
