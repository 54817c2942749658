//! One snapshot's folder:
//!
//! - `snapshot.json`: what it is. Renamed into place; it alone says that the snapshot is completed.
//! - `blocks.map`: its whole content, that of its parent included, so that deleting the parent does not hurt it.
//! - `changed.map`: what was put, while it is pending. Its time of change is the time of the last put.
//! - `fresh`: it was just started, and the first put does not find it yet. `settling`: it was just completed, and the
//!   first describe still calls it pending.
//! - `lock`: shared by puts, exclusive for completing.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::durable;
use super::map::BlockMap;
use super::store::StoreError;
use crate::cloud::{Digest, Snapshot, SnapshotState};
use crate::host::clock;
use crate::host::lock::FileLock;

/// What `snapshot.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Kept {
    /// With the state as of the last write; [`SnapshotFolder::state`] is the state now.
    pub(super) snapshot: Snapshot,
    /// A digest of what was asked for: the same token with another request is refused.
    pub(super) request: String,
    pub(super) timeout_minutes: u32,
    /// How it was completed: the same call again is answered alike.
    pub(super) completion: Option<Completion>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Completion {
    pub(super) changed: u32,
    pub(super) checksum: String,
}

impl Completion {
    pub(super) fn new(changed: u32, checksum: &Digest) -> Self {
        Self { changed, checksum: checksum.hex() }
    }
}

#[derive(Debug)]
pub(super) struct SnapshotFolder {
    path: PathBuf,
}

impl SnapshotFolder {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills an empty folder, not in place yet, as that of a snapshot just started.
    pub(super) fn fill(&self, kept: &Kept, parent: Option<&Self>) -> Result<(), StoreError> {
        let whole = BlockMap::create(&self.whole())?;
        if let Some(parent) = parent {
            parent.map()?.copy_into(&whole)?;
        }
        whole.sync()?;
        BlockMap::create(&self.changes())?.sync()?;
        durable::write(&self.path.join("fresh"), b"")?;
        self.keep(kept)
    }

    /// Fills an empty folder, not in place yet, as that of a completed snapshot with another one's content.
    pub(super) fn fill_copy(&self, kept: &Kept, source: &Self) -> Result<(), StoreError> {
        let whole = BlockMap::create(&self.whole())?;
        source.map()?.copy_into(&whole)?;
        whole.sync()?;
        durable::write(&self.settling(), b"")?;
        self.keep(kept)
    }

    /// `None` where there is no such snapshot.
    pub(super) fn kept(&self) -> Result<Option<Kept>, StoreError> {
        durable::read_json(&self.path.join("snapshot.json"))
    }

    pub(super) fn keep(&self, kept: &Kept) -> Result<(), StoreError> {
        durable::write_json(&self.path.join("snapshot.json"), kept)
    }

    /// The state as a describe would show it now, without being one.
    pub(super) fn state(&self, kept: &Kept) -> Result<SnapshotState, StoreError> {
        Ok(match kept.snapshot.state {
            SnapshotState::Pending if self.is_given_up(kept)? => SnapshotState::Error,
            SnapshotState::Completed if self.settling().exists() => SnapshotState::Pending,
            state => state,
        })
    }

    /// Whether a pending snapshot saw no put for longer than its time limit.
    fn is_given_up(&self, kept: &Kept) -> Result<bool, StoreError> {
        let changes = self.changes();
        let last_put = match fs::metadata(&changes).and_then(|about| about.modified()) {
            Ok(time) => time,
            // Completed or deleted by another process since `kept` was read.
            Err(error) if durable::gone(&error) => return Ok(false),
            Err(error) => return Err(StoreError::io("look at", &changes)(error)),
        };
        // A time that cannot be told is not a reason to give anything up.
        let Ok(last_put) = Timestamp::try_from(last_put) else {
            return Ok(false);
        };
        let limit = SignedDuration::from_mins(i64::from(kept.timeout_minutes));
        Ok(clock::wall().duration_since(last_put) > limit)
    }

    /// The map of the whole content.
    pub(super) fn map(&self) -> Result<BlockMap, StoreError> {
        required(&self.whole())
    }

    /// The map of what was put.
    pub(super) fn changed(&self) -> Result<BlockMap, StoreError> {
        required(&self.changes())
    }

    /// The maps that are there: all that names a block for this snapshot.
    pub(super) fn maps(&self) -> Result<Vec<BlockMap>, StoreError> {
        let maps = [BlockMap::open(&self.whole())?, BlockMap::open(&self.changes())?];
        Ok(maps.into_iter().flatten().collect())
    }

    /// Makes the content whole and the snapshot completed. Its blocks are durable already; the caller holds the
    /// snapshot's lock alone, and [`Store::writing`](super::Store::writing).
    pub(super) fn complete(&self, kept: &mut Kept, completion: Completion) -> Result<(), StoreError> {
        let fresh = durable::hidden_name(&self.path);
        let merge = || {
            let merged = BlockMap::create(&fresh)?;
            self.map()?.copy_into(&merged)?;
            self.changed()?.copy_into(&merged)?;
            merged.sync()?;
            durable::move_in(&fresh, &self.whole())
        };
        durable::or_remove(&fresh, merge())?;
        durable::write(&self.settling(), b"")?;
        kept.snapshot.state = SnapshotState::Completed;
        kept.completion = Some(completion);
        self.keep(kept)?;
        durable::take(&self.changes())?;
        Ok(())
    }

    /// Ends a pending snapshot that was given up: from now on it is in error for good and has no blocks.
    pub(super) fn give_up(&self) -> Result<bool, StoreError> {
        let _alone = match self.lock_alone() {
            Ok(lock) => lock,
            Err(error) if error.is_gone() => return Ok(false),
            Err(error) => return Err(error),
        };
        durable::clear_hidden(&self.path)?;
        let Some(mut kept) = self.kept()? else {
            return Ok(false);
        };
        if kept.snapshot.state == SnapshotState::Pending && self.is_given_up(&kept)? {
            kept.snapshot.state = SnapshotState::Error;
            self.keep(&kept)?;
        }
        if kept.snapshot.state != SnapshotState::Error {
            return Ok(false);
        }
        let whole = durable::take(&self.whole())?;
        let changes = durable::take(&self.changes())?;
        Ok(whole || changes)
    }

    /// Says once that the snapshot was just started.
    pub(super) fn take_fresh(&self) -> Result<bool, StoreError> {
        durable::take(&self.path.join("fresh"))
    }

    /// Says once that the snapshot was just completed.
    pub(super) fn take_settling(&self) -> Result<bool, StoreError> {
        durable::take(&self.settling())
    }

    pub(super) fn lock_shared(&self) -> Result<FileLock, StoreError> {
        let lock = self.path.join("lock");
        FileLock::shared(&lock).map_err(StoreError::io("lock", &lock))
    }

    pub(super) fn lock_alone(&self) -> Result<FileLock, StoreError> {
        let lock = self.path.join("lock");
        FileLock::exclusive(&lock).map_err(StoreError::io("lock", &lock))
    }

    fn whole(&self) -> PathBuf {
        self.path.join("blocks.map")
    }

    fn changes(&self) -> PathBuf {
        self.path.join("changed.map")
    }

    fn settling(&self) -> PathBuf {
        self.path.join("settling")
    }
}

fn required(path: &Path) -> Result<BlockMap, StoreError> {
    BlockMap::open(path)?
        .ok_or_else(|| StoreError::io("open", path)(std::io::Error::from(std::io::ErrorKind::NotFound)))
}
