//! Blocks between a disk and a snapshot: one pipeline with bounded memory. Requests in flight are bounded by what the
//! cloud says it handles well, and the first error that lasts stops all.
//!
//! A block is read, hashed and written by the runtime's threads, which also send and receive it: less than a millisecond's
//! work. To hand it to a thread of its own took two wake-ups for each block, and the processors idled meanwhile
//! (docs/speed.md).

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Disk;
use super::arrival::Arrival;
use super::block_map::BlockMap;
use super::buffers::{Buffer, Buffers};
use super::delta::{Blocks, Delta, read_block};
use super::pairing::Pairing;
use crate::cloud::{
    BLOCK_SIZE, BlockIndex, BlockToken, CloudError, Digest, LinearChecksum, ListedBlock, SnapshotId,
    Snapshots, ZERO_BLOCK, ZEROS, retrying,
};
use crate::host::stop::Stop;
use crate::report::{Event, Reporter};

/// Events of progress come once in this many blocks: 64 MiB.
const PROGRESS_EVERY: usize = 128;

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

/// Which blocks of a disk need not be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unless {
    /// All are.
    Never,
    /// Those of zeros.
    Zero,
}

impl Pipe {
    /// Reads all blocks of a snapshot into `disk`, verifies each, and gives their digests. Blocks of zeros stay holes.
    ///
    /// # Errors
    /// [`TransferError`]
    pub async fn download(&self, from: &SnapshotId, disk: &Arc<dyn Disk>) -> Result<BlockMap, TransferError> {
        let (blocks, volume_size) = self.list(from).await?;
        let work = Arc::new(Work::new(self, disk, from));
        let fetch = move |block: ListedBlock| {
            let work = work.clone();
            async move { Ok((block.index, work.fetch(block.index, &block.token, true).await?)) }
        };
        let mut map = BlockMap::new(volume_size);
        for (index, digest) in self.each(blocks, self.snapshots.gets_at_once(), "blocks read", fetch).await? {
            map.insert(index, digest);
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
        let work = Arc::new(Work::new(self, disk, to));
        let store = move |(index, digest): (BlockIndex, Digest)| {
            let work = work.clone();
            async move { work.put(index, None, digest).await }
        };
        self.each(delta.clone(), self.snapshots.puts_at_once(), "blocks stored", store).await?;
        Ok(checksum(delta))
    }

    /// Puts blocks of `disk` into a snapshot that was started, each read and hashed once on its way, and gives those that
    /// were put, ascending.
    ///
    /// # Errors
    /// [`TransferError`]
    pub async fn upload_unless(
        &self,
        disk: &Arc<dyn Disk>,
        blocks: Vec<BlockIndex>,
        unless: Unless,
        to: &SnapshotId,
    ) -> Result<Delta, TransferError> {
        let written = disk.written().map_err(TransferError::Read)?;
        let written = Arc::new(Blocks::of(&written));
        let work = Arc::new(Work::new(self, disk, to));
        let keep_zero = unless != Unless::Zero;
        let store = move |index: BlockIndex| {
            let (work, written) = (work.clone(), written.clone());
            async move {
                let (block, digest) = work.hashed(index, &written).await?;
                if digest == *ZERO_BLOCK && !keep_zero {
                    return Ok(None);
                }
                work.put(index, block, digest).await?;
                Ok(Some((index, digest)))
            }
        };
        let at_once = self.snapshots.puts_at_once();
        let looked_at = self.each(blocks, at_once, "blocks looked at and stored", store).await?;
        Ok(ascending(looked_at))
    }

    /// Which of these blocks of `disk` a completed snapshot does not have, or has with another content, ascending.
    ///
    /// # Errors
    /// [`TransferError`]
    pub async fn differing(
        &self,
        disk: &Arc<dyn Disk>,
        blocks: Vec<BlockIndex>,
        from: &SnapshotId,
    ) -> Result<Delta, TransferError> {
        let written = disk.written().map_err(TransferError::Read)?;
        let written = Arc::new(Blocks::of(&written));
        let (listed, _) = self.list(from).await?;
        let tokens: HashMap<_, _> = listed.into_iter().map(|block| (block.index, block.token)).collect();
        let (work, tokens) = (Arc::new(Work::new(self, disk, from)), Arc::new(tokens));
        let compare = move |index: BlockIndex| {
            let (work, tokens, written) = (work.clone(), tokens.clone(), written.clone());
            async move {
                let (_, digest) = work.hashed(index, &written).await?;
                let same = match tokens.get(&index) {
                    Some(token) => work.fetch(index, token, false).await? == digest,
                    None => false,
                };
                Ok((!same).then_some((index, digest)))
            }
        };
        let at_once = self.snapshots.gets_at_once();
        let compared = self.each(blocks, at_once, "blocks compared", compare).await?;
        Ok(ascending(compared))
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
        let differs = |index| TransferError::Differs { snapshot: from.clone(), index };
        let mut sample = Vec::new();
        for (index, digest) in delta.iter().step_by(every).take(count) {
            let at = listed.binary_search_by_key(index, |block| block.index);
            sample.push((listed[at.map_err(|_| differs(*index))?].clone(), *digest));
        }
        let nowhere: Arc<dyn Disk> = Arc::new(Nowhere);
        let work = Arc::new(Work::new(self, &nowhere, from));
        let fetch = move |(block, digest): (ListedBlock, Digest)| {
            let work = work.clone();
            async move { Ok((block.index, work.fetch(block.index, &block.token, false).await? == digest)) }
        };
        let at_once = self.snapshots.gets_at_once();
        let read = self.each(sample, at_once, "blocks read back", fetch).await?;
        read.into_iter().find(|(_, good)| !good).map_or(Ok(()), |(index, _)| Err(differs(index)))
    }

    /// Which blocks a completed snapshot has, ascending, and its size in GiB.
    ///
    /// # Errors
    /// [`TransferError`]
    pub async fn list(&self, of: &SnapshotId) -> Result<(Vec<ListedBlock>, u32), TransferError> {
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

    /// Does `work` with each item, so many at once, on all threads of the runtime, tells how far it is, and gives what came
    /// of all, in no order. The first error ends all, and so does a stop, whatever is under way.
    async fn each<T, R, F, Fut>(
        &self,
        items: Vec<T>,
        at_once: usize,
        name: &'static str,
        work: F,
    ) -> Result<Vec<R>, TransferError>
    where
        T: Clone + Send + Sync + 'static,
        R: Send + 'static,
        F: Fn(T) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R, TransferError>> + Send + 'static,
    {
        let total = items.len();
        let (items, next) = (Arc::new(items), Arc::new(AtomicUsize::new(0)));
        let (tell, mut told) = watch::channel(0_usize);
        // Dropping it, as an error does, ends them.
        let mut workers: JoinSet<Result<Vec<R>, TransferError>> = JoinSet::new();
        for _ in 0..at_once.min(total) {
            let (items, next, tell, work) = (items.clone(), next.clone(), tell.clone(), work.clone());
            workers.spawn(async move {
                // What comes of the items is gathered by their worker: to hand each of them on took two wake-ups.
                let mut results = Vec::new();
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    results.push(work(item.clone()).await?);
                    tell.send_if_modified(|done| {
                        *done += 1;
                        done.is_multiple_of(PROGRESS_EVERY)
                    });
                }
                Ok(results)
            });
        }
        drop(tell);
        let progress = |done: usize| {
            let (done, total) = (done as u64, total as u64);
            self.reporter.emit(Event::Progress { name: name.to_owned(), done, total });
        };
        let (mut all, mut shown) = (Vec::with_capacity(total), 0);
        loop {
            tokio::select! {
                ended = workers.join_next() => match ended {
                    // One that cannot be joined has panicked, or the runtime is going down: what it had is not done.
                    Some(ended) => all.extend(ended.map_err(|_| TransferError::Stopped)??),
                    None => break,
                },
                Ok(()) = told.changed() => {
                    shown = *told.borrow_and_update();
                    progress(shown);
                }
                () = self.stop.requested() => return Err(TransferError::Stopped),
            }
        }
        if shown < total {
            progress(total);
        }
        Ok(all)
    }
}

/// Those of the blocks that are there, ascending.
fn ascending(blocks: Vec<Option<(BlockIndex, Digest)>>) -> Delta {
    let mut delta: Delta = blocks.into_iter().flatten().collect();
    delta.sort_unstable_by_key(|(index, _)| *index);
    delta
}

/// The checksum of a snapshot into which `delta` was put.
#[must_use]
pub fn checksum(delta: &Delta) -> Digest {
    let mut sum = LinearChecksum::default();
    for (_, digest) in delta {
        sum.add(digest);
    }
    sum.finish()
}

/// What the blocks on their way between one disk and one snapshot share.
struct Work {
    pipe: Pipe,
    disk: Arc<dyn Disk>,
    snapshot: SnapshotId,
    buffers: Buffers,
    pairing: Pairing,
    /// Held by whoever writes to the disk: the kernel lets one write to a file at a time, and lets the others spin meanwhile.
    writing: Mutex<()>,
}

impl Work {
    fn new(pipe: &Pipe, disk: &Arc<dyn Disk>, snapshot: &SnapshotId) -> Self {
        Self {
            pipe: pipe.clone(),
            disk: disk.clone(),
            snapshot: snapshot.clone(),
            buffers: Buffers::default(),
            pairing: Pairing::default(),
            writing: Mutex::default(),
        }
    }

    /// Gets a block, verifies it and writes it to the disk, if it is to go there; bytes that do not have the digest that
    /// came with them are asked for once more.
    async fn fetch(
        &self,
        index: BlockIndex,
        token: &BlockToken,
        to_disk: bool,
    ) -> Result<Digest, TransferError> {
        let Pipe { snapshots, stop, .. } = &self.pipe;
        if to_disk && index.offset() + BLOCK_SIZE as u64 > self.disk.size() {
            return Err(TransferError::Outside { index });
        }
        let arrival = Arrival::new(&self.buffers);
        for _ in 0..2 {
            retrying(stop, || snapshots.get_block(&self.snapshot, index, token, &arrival))
                .await
                .map_err(|source| TransferError::Get { snapshot: self.snapshot.clone(), index, source })?;
            let Some((block, claimed)) = arrival.end() else { continue };
            let (block, digest) = self.digest(block).await?;
            if digest != claimed {
                continue;
            }
            // One of zeros stays a hole.
            if to_disk && digest != *ZERO_BLOCK {
                self.write(index, &block)?;
            }
            return Ok(digest);
        }
        Err(TransferError::Corrupt { snapshot: self.snapshot.clone(), index })
    }

    fn write(&self, index: BlockIndex, block: &Buffer) -> Result<(), TransferError> {
        // Not to be waited for with other blocks in hand: memory would hold them all.
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.disk.write_at(block, index.offset()).map_err(TransferError::Write)
    }

    /// Reads a block, when there is memory for it.
    async fn read(&self, index: BlockIndex) -> Result<Buffer, TransferError> {
        let mut block = self.buffers.wait().await;
        read_block(&*self.disk, index, &mut block)?;
        Ok(block)
    }

    async fn digest(&self, block: Buffer) -> Result<(Buffer, Digest), TransferError> {
        // As of a task that cannot be joined.
        self.pairing.digest(block).await.ok_or(TransferError::Stopped)
    }

    /// A block of the disk with its digest. What was never written is known to be zeros and not read.
    async fn hashed(
        &self,
        index: BlockIndex,
        written: &Blocks,
    ) -> Result<(Option<Buffer>, Digest), TransferError> {
        if !written.has(index) {
            return Ok((None, *ZERO_BLOCK));
        }
        let (block, digest) = self.digest(self.read(index).await?).await?;
        Ok((Some(block), digest))
    }

    /// Puts a block, which is read where it is not at hand. Its memory is free as soon as it is sent: another try reads it
    /// again.
    async fn put(
        &self,
        index: BlockIndex,
        mut at_hand: Option<Buffer>,
        digest: Digest,
    ) -> Result<(), TransferError> {
        let Pipe { snapshots, stop, .. } = &self.pipe;
        let try_it = || {
            let at_hand = at_hand.take();
            async move {
                let block = match at_hand {
                    _ if digest == *ZERO_BLOCK => Ok(ZEROS.clone()),
                    Some(block) => Ok(block.into_block()),
                    None => self.read(index).await.map(Buffer::into_block),
                };
                match block {
                    Ok(block) => snapshots.put_block(&self.snapshot, index, block, digest).await.map(Ok),
                    Err(error) => Ok(Err(error)),
                }
            }
        };
        retrying(stop, try_it).await.map_err(|source| TransferError::Put {
            snapshot: self.snapshot.clone(),
            index,
            source,
        })?
    }
}

/// No disk: for blocks that are only compared.
struct Nowhere;

impl Disk for Nowhere {
    fn size(&self) -> u64 {
        0
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::InvalidInput.into())
    }

    fn written(&self) -> std::io::Result<Vec<std::ops::Range<u64>>> {
        Ok(Vec::new())
    }
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
