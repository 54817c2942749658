//! Blocks between a disk and a snapshot: one pipeline with bounded memory. Requests in flight are bounded by what the
//! cloud says it handles well, and the first error that lasts stops all.
//!
//! A block is read, hashed and written by the runtime's thread that also sends or received it: about a millisecond's work.
//! To hand it to a thread of its own took two wake-ups for each block, and the processors idled meanwhile (docs/speed.md).

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Disk;
use super::arrival::Arrival;
use super::block_map::BlockMap;
use super::delta::{Delta, read_block};
use crate::cloud::{
    BLOCK_SIZE, Block, BlockIndex, BlockToken, CloudError, Digest, LinearChecksum, ListedBlock, SnapshotId,
    Snapshots, ZERO_BLOCK, ZEROS, retrying,
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
        let total = blocks.len() as u64;
        let work = Arc::new(Work::new(self, disk, from));
        let fetch = move |block: ListedBlock| {
            let work = work.clone();
            async move { Ok((block.index, work.fetch(block.index, &block.token, true).await?)) }
        };
        let mut map = BlockMap::new(volume_size);
        let mut count = 0;
        self.each(blocks, fetch, |(index, digest)| {
            map.insert(index, digest);
            count += 1;
            self.progress("blocks read", count, total);
        })
        .await?;
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
        let work = Arc::new(Work::new(self, disk, to));
        let store = move |(index, digest): (BlockIndex, Digest)| {
            let work = work.clone();
            async move {
                let (data, _) = work.read(index, Some(digest))?;
                work.put(index, data, digest).await
            }
        };
        let mut count = 0;
        self.each(delta.clone(), store, |()| {
            count += 1;
            self.progress("blocks stored", count, total);
        })
        .await?;
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
        let total = blocks.len() as u64;
        let written = disk.written().map_err(TransferError::Read)?;
        let written = Arc::new(super::delta::Blocks::of(&written));
        let work = Arc::new(Work::new(self, disk, to));
        let keep_zero = unless != Unless::Zero;
        let store = move |index: BlockIndex| {
            let (work, written) = (work.clone(), written.clone());
            async move {
                let known = (!written.has(index)).then_some(*ZERO_BLOCK);
                if known.is_some() && !keep_zero {
                    return Ok(None);
                }
                let (data, digest) = work.read(index, known)?;
                if digest == *ZERO_BLOCK && !keep_zero {
                    work.buffers.give(data);
                    return Ok(None);
                }
                work.put(index, data, digest).await?;
                Ok(Some((index, digest)))
            }
        };
        let (mut delta, mut count) = (Delta::new(), 0);
        self.each(blocks, store, |put| {
            delta.extend(put);
            count += 1;
            self.progress("blocks looked at and stored", count, total);
        })
        .await?;
        delta.sort_by_key(|(index, _)| *index);
        Ok(delta)
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
        let total = blocks.len() as u64;
        let written = disk.written().map_err(TransferError::Read)?;
        let written = Arc::new(super::delta::Blocks::of(&written));
        let (listed, _) = self.list(from).await?;
        let tokens: HashMap<_, _> = listed.into_iter().map(|block| (block.index, block.token)).collect();
        let (work, tokens) = (Arc::new(Work::new(self, disk, from)), Arc::new(tokens));
        let compare = move |index: BlockIndex| {
            let (work, tokens, written) = (work.clone(), tokens.clone(), written.clone());
            async move {
                let known = (!written.has(index)).then_some(*ZERO_BLOCK);
                let (data, digest) = work.read(index, known)?;
                work.buffers.give(data);
                let same = match tokens.get(&index) {
                    Some(token) => work.fetch(index, token, false).await? == digest,
                    None => false,
                };
                Ok((!same).then_some((index, digest)))
            }
        };
        let (mut delta, mut count) = (Delta::new(), 0);
        self.each(blocks, compare, |differs| {
            delta.extend(differs);
            count += 1;
            self.progress("blocks compared", count, total);
        })
        .await?;
        delta.sort_by_key(|(index, _)| *index);
        Ok(delta)
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
        let mut wrong = None;
        self.each(sample, fetch, |(index, good)| {
            if !good {
                wrong.get_or_insert(index);
            }
        })
        .await?;
        wrong.map_or(Ok(()), |index| Err(differs(index)))
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

    /// Does `work` with each item, as many at once as the cloud handles well, on all threads of the runtime, and gives
    /// what comes of each to `done`. The first error ends all.
    async fn each<T, R, F, Fut>(
        &self,
        items: Vec<T>,
        work: F,
        mut done: impl FnMut(R),
    ) -> Result<(), TransferError>
    where
        T: Clone + Send + Sync + 'static,
        R: Send + 'static,
        F: Fn(T) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R, TransferError>> + Send + 'static,
    {
        let at_once = self.snapshots.concurrency().min(items.len());
        let (items, next) = (Arc::new(items), Arc::new(AtomicUsize::new(0)));
        let (tell, mut told) = mpsc::channel(at_once.max(1));
        // Dropping it, as an error does, ends them.
        let mut workers = JoinSet::new();
        for _ in 0..at_once {
            let (items, next, work, tell) = (items.clone(), next.clone(), work.clone(), tell.clone());
            let stop = self.stop.clone();
            workers.spawn(async move {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let stopped = stop.is_requested();
                    let result = if stopped { Err(TransferError::Stopped) } else { work(item.clone()).await };
                    let over = result.is_err();
                    if tell.send(result).await.is_err() || over {
                        return;
                    }
                }
            });
        }
        drop(tell);
        while let Some(result) = told.recv().await {
            done(result?);
        }
        while let Some(ended) = workers.join_next().await {
            // One that cannot be joined has panicked, or the runtime is going down: what it had is not done.
            ended.map_err(|_| TransferError::Stopped)?;
        }
        Ok(())
    }

    fn progress(&self, name: &str, done: u64, total: u64) {
        if done.is_multiple_of(PROGRESS_EVERY) || done == total {
            self.reporter.emit(Event::Progress { name: name.to_owned(), done, total });
        }
    }
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
    /// Held by whoever writes to the disk.
    writing: Mutex<()>,
}

impl Work {
    fn new(pipe: &Pipe, disk: &Arc<dyn Disk>, snapshot: &SnapshotId) -> Self {
        Self {
            pipe: pipe.clone(),
            disk: disk.clone(),
            snapshot: snapshot.clone(),
            buffers: Buffers::default(),
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
        let arrival = Arrival::new(to_disk.then_some((&*self.disk, &self.writing)), index.offset());
        for _ in 0..2 {
            retrying(stop, || snapshots.get_block(&self.snapshot, index, token, &arrival))
                .await
                .map_err(|source| TransferError::Get { snapshot: self.snapshot.clone(), index, source })?;
            if let Some(digest) = arrival.end().map_err(TransferError::Write)? {
                return Ok(digest);
            }
        }
        Err(TransferError::Corrupt { snapshot: self.snapshot.clone(), index })
    }

    /// Reads a block, and hashes it where its digest is not known. One that is known to be zeros is not read.
    fn read(&self, index: BlockIndex, known: Option<Digest>) -> Result<(Block, Digest), TransferError> {
        if known == Some(*ZERO_BLOCK) {
            return Ok((ZEROS.clone(), *ZERO_BLOCK));
        }
        let mut buffer = self.buffers.take();
        read_block(&*self.disk, index, &mut buffer)?;
        let digest = known.unwrap_or_else(|| Digest::of(&buffer));
        Ok((buffer.freeze(), digest))
    }

    async fn put(&self, index: BlockIndex, data: Block, digest: Digest) -> Result<(), TransferError> {
        let Pipe { snapshots, stop, .. } = &self.pipe;
        retrying(stop, || snapshots.put_block(&self.snapshot, index, data.clone(), digest))
            .await
            .map_err(|source| TransferError::Put { snapshot: self.snapshot.clone(), index, source })?;
        self.buffers.give(data);
        Ok(())
    }
}

/// Memory for blocks, used again: a new half MiB costs the kernel as much as hashing a tenth of it.
#[derive(Default)]
struct Buffers(Mutex<Vec<BytesMut>>);

impl Buffers {
    fn take(&self) -> BytesMut {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| BytesMut::zeroed(BLOCK_SIZE))
    }

    /// Takes a block's memory back, where nobody else has it.
    fn give(&self, data: Block) {
        if let Ok(buffer) = data.try_into_mut()
            && buffer.len() == BLOCK_SIZE
        {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
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
