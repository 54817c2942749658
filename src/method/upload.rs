//! A disk file stored as a snapshot by hand: no recipe, nothing provisioned, the same blocks and the same undo as a bake's.

use std::path::Path;
use std::sync::Arc;

use super::BakeCause;
use super::store::{TIMEOUT_MINUTES, complete, start};
use crate::cloud::{
    BLOCK_SIZE, Cloud, NewSnapshot, SnapshotId, SnapshotQuery, SnapshotState, Tags, Token, retrying, tag,
};
use crate::disk::{Disk, Pipe, SparseDisk, Unless, delta};
use crate::ledger::Ledger;

/// EBS volumes are whole GiB.
const GIB: u64 = 1 << 30;
/// What the ledger and the tags call the stage.
pub const STAGE: &str = "snapshot";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Upload {
    /// What the work is called, in its tags and its token: `upload-0123456789ab`.
    pub name: String,
    /// The snapshot that the new one begins as.
    pub parent: Option<SnapshotId>,
    /// A key's ARN.
    pub encrypt: Option<String>,
    /// Leave blocks of zeros out: what is read there later may be noise.
    pub omit_zero: bool,
    pub description: String,
    pub tags: Tags,
}

/// What was stored.
#[derive(Clone, Debug)]
pub struct Uploaded {
    pub snapshot: SnapshotId,
    /// Blocks that were put.
    pub put: u32,
    /// Blocks that the disk has.
    pub of: usize,
    /// GiB.
    pub volume_size: u32,
}

impl Upload {
    /// Stores the raw disk at `path`. On an error what was created is in the ledger, for the caller to unwind.
    ///
    /// # Errors
    /// [`BakeCause`]
    pub async fn run(
        &self,
        path: &Path,
        cloud: &Cloud,
        ledger: &Ledger,
        pipe: &Pipe,
    ) -> Result<Uploaded, BakeCause> {
        let disk: Arc<dyn Disk> = Arc::new(SparseDisk::open_read_only(path)?);
        let size = disk.size();
        if size == 0 {
            return Err(BakeCause::Other { what: format!("{} is empty", path.display()) });
        }
        let mut volume_size = u32::try_from(size.div_ceil(GIB)).unwrap_or(u32::MAX);
        let mut blocks: Vec<_> = delta::all(size).collect();
        let differing = match &self.parent {
            Some(parent) => {
                let whole = self.parent_size(parent, cloud, pipe).await?;
                if u64::from(whole) * GIB > size.next_multiple_of(GIB) {
                    let what = format!(
                        "{} has {} MiB and its parent {parent} {whole} GiB: a snapshot is as large as its parent \
                         or larger; make the disk larger (`truncate -s {whole}G`)",
                        path.display(),
                        size >> 20
                    );
                    return Err(BakeCause::Other { what });
                }
                volume_size = volume_size.max(whole);
                // What the parent has in the last GiB beyond the disk's end is not the disk's: zeros.
                let (listed, _) = pipe.list(parent).await?;
                let end = size.div_ceil(BLOCK_SIZE as u64) * BLOCK_SIZE as u64;
                blocks.extend(
                    listed.into_iter().map(|block| block.index).filter(|index| index.offset() >= end),
                );
                // Before anything is started: a disk that is much like its parent may be compared for longer than EBS
                // waits for the next put.
                let phase = pipe.reporter.phase(format!("comparing {} with {parent}", path.display()));
                let differing = pipe.differing(&disk, blocks.clone(), parent).await?;
                phase.done();
                Some(differing)
            }
            None => None,
        };
        let of = blocks.len();
        let mut tags = self.tags.clone();
        // By these it is found where the answer was lost. No expiry: only EC2 could take that away again.
        tags.insert(tag("bake"), self.name.clone());
        tags.insert(tag("stage"), STAGE.to_owned());
        let new = NewSnapshot {
            volume_size,
            parent: self.parent.clone(),
            description: self.description.clone(),
            tags,
            encrypt: self.encrypt.clone(),
            timeout_minutes: TIMEOUT_MINUTES,
        };
        let token = Token::of(&self.name, STAGE, 1);
        let snapshot = start(&new, &token, cloud, ledger, &pipe.stop).await?;
        let phase =
            pipe.reporter.phase(format!("storing {} as {snapshot} ({volume_size} GiB)", path.display()));
        let delta = match differing {
            Some(delta) => {
                pipe.upload(&disk, &delta, &snapshot).await?;
                delta
            }
            None => {
                let unless = if self.omit_zero { Unless::Zero } else { Unless::Never };
                pipe.upload_unless(&disk, blocks, unless, &snapshot).await?
            }
        };
        let put = complete(&snapshot, &delta, cloud, pipe).await?;
        phase.done();
        Ok(Uploaded { snapshot, put, of, volume_size })
    }

    /// GiB.
    async fn parent_size(&self, parent: &SnapshotId, cloud: &Cloud, pipe: &Pipe) -> Result<u32, BakeCause> {
        let query = SnapshotQuery { ids: vec![parent.clone()], ..SnapshotQuery::default() };
        let found = retrying(&pipe.stop, || cloud.snapshots.describe(&query)).await?;
        let missing =
            || BakeCause::Other { what: format!("{parent}, the parent, is not in {}", cloud.place) };
        let found = found.into_iter().next().ok_or_else(missing)?;
        if found.state != SnapshotState::Completed {
            let what = format!("{parent}, the parent, is not completed; wait until it is");
            return Err(BakeCause::Other { what });
        }
        Ok(found.volume_size)
    }
}
