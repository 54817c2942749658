//! Whether the store still holds what it promised: the digest of each block of each completed snapshot.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use super::durable;
use super::place::LocalPlace;
use super::store::{Store, StoreError, blocking};
use super::workers;
use crate::cloud::{BlockIndex, Digest, Place, SnapshotId, SnapshotState};
use crate::host::stop::Stop;

/// What [`Store::verify`] found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Completed snapshots.
    pub snapshots: u64,
    /// Different blocks of them, each read once.
    pub blocks: u64,
    pub damaged: Vec<Damage>,
}

/// A block that is missing or not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub place: Place,
    /// One of the snapshots that have it.
    pub snapshot: SnapshotId,
    pub index: BlockIndex,
    pub digest: Digest,
    pub why: String,
}

type Owners = HashMap<Digest, (Place, SnapshotId, BlockIndex)>;

impl Store {
    /// Reads every block of every completed snapshot and compares its digest. Damage is an answer, not an error.
    ///
    /// # Errors
    /// Where a snapshot's own files cannot be read, or `stop` came.
    pub async fn verify(&self, stop: &Stop) -> Result<Verified, StoreError> {
        let store = self.clone();
        let (snapshots, owners) = blocking(move || store.promised()).await?;
        let promised: Vec<_> = owners.into_iter().collect();
        let count = u32::try_from(promised.len()).unwrap_or(u32::MAX);
        let damaged = Arc::new(Mutex::new(Vec::new()));
        let (found, blocks) = (damaged.clone(), self.blocks());
        let store = self.clone();
        workers::for_each(count, stop, move |number, buffer| {
            let Some((digest, (place, snapshot, index))) = promised.get(number as usize) else {
                return Ok(());
            };
            let Err(error) = blocks.read(digest, buffer) else {
                return Ok(());
            };
            let here = LocalPlace { store: store.clone(), place: place.clone() };
            // Deleted meanwhile is not damaged.
            if here.snapshot(snapshot).kept()?.is_none() {
                return Ok(());
            }
            let why = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            found.lock().unwrap_or_else(PoisonError::into_inner).push(Damage {
                place: place.clone(),
                snapshot: snapshot.clone(),
                index: *index,
                digest: *digest,
                why,
            });
            Ok(())
        })
        .await?;
        let mut damaged = std::mem::take(&mut *damaged.lock().unwrap_or_else(PoisonError::into_inner));
        damaged.sort_by(|a, b| (&a.place, &a.snapshot, a.index).cmp(&(&b.place, &b.snapshot, b.index)));
        Ok(Verified { snapshots, blocks: u64::from(count), damaged })
    }

    /// How many snapshots are completed, and each digest that one of them has, with one that has it.
    fn promised(&self) -> Result<(u64, Owners), StoreError> {
        let mut snapshots = 0;
        let mut owners = Owners::new();
        for place in self.places()? {
            let here = LocalPlace { store: self.clone(), place };
            for name in durable::names(&here.snapshots())? {
                let Some(id) = SnapshotId::parse(&name) else {
                    continue;
                };
                let folder = here.snapshot(&id);
                let Some(kept) = folder.kept()? else { continue };
                if kept.snapshot.state != SnapshotState::Completed {
                    continue;
                }
                let map = match folder.map() {
                    Ok(map) => map,
                    Err(error) if error.is_gone() && !folder.path().exists() => continue,
                    Err(error) => return Err(error),
                };
                snapshots += 1;
                map.walk(BlockIndex(0), &mut |index, digest| {
                    owners.entry(digest).or_insert_with(|| (here.place.clone(), id.clone(), index));
                    ControlFlow::Continue(())
                })?;
            }
        }
        Ok((snapshots, owners))
    }
}
