//! Blocks that no snapshot has any more, and what killed processes left behind.
//!
//! A block is garbage when no map of any snapshot in any place names it. Maps and blocks are looked at while the store
//! is held alone, so that no process is between storing a block and naming it.

use std::collections::HashSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use super::durable;
use super::map::BlockMap;
use super::place::LocalPlace;
use super::snapshot_folder::SnapshotFolder;
use super::store::{Store, StoreError, blocking};
use crate::cloud::{BlockIndex, Digest};
use crate::host::threads;

/// What [`Store::collect_garbage`] took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blocks of 512 KiB that no snapshot had.
    pub blocks: u64,
    /// Pending snapshots that were given up: they stay, in error, but have no blocks any more.
    pub given_up: u64,
    /// Unfinished files and folders of processes that were killed.
    pub leftovers: u64,
}

impl Store {
    /// Takes away what nothing needs. Safe at any time, beside any other process; nothing that is referenced goes.
    ///
    /// # Errors
    /// Where the store cannot be read as a whole: then no block was deleted.
    pub async fn collect_garbage(&self) -> Result<Collected, StoreError> {
        let store = self.clone();
        blocking(move || store.collect()).await
    }

    /// What [`Store::collect_garbage`] would take away now. Snapshots that would be given up are not among it, since they
    /// stay.
    ///
    /// # Errors
    /// Where the store cannot be read as a whole.
    pub async fn find_garbage(&self) -> Result<Collected, StoreError> {
        let store = self.clone();
        blocking(move || {
            let mut found = Collected::default();
            for place in store.places()? {
                let here = LocalPlace { store: store.clone(), place };
                found.leftovers += each_folder(&here, durable::count_hidden)?;
                found.leftovers += here.instances().leftovers()?;
            }
            let _alone = store.alone()?;
            found.leftovers += durable::count_hidden(store.folder())?;
            store.unreferenced(
                &mut |folder| {
                    found.leftovers += durable::count_hidden(folder)?;
                    Ok(())
                },
                &mut |_| {
                    found.blocks += 1;
                    Ok(())
                },
            )?;
            Ok(found)
        })
        .await
    }

    fn collect(&self) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        for place in self.places()? {
            let here = LocalPlace { store: self.clone(), place };
            collected.leftovers += each_folder(&here, durable::clear_hidden)?;
            collected.leftovers += here.instances().clear_leftovers()?;
            for name in durable::names(&here.snapshots())? {
                if SnapshotFolder::at(here.snapshots().join(name)).give_up()? {
                    collected.given_up += 1;
                }
            }
        }
        let _alone = self.alone()?;
        collected.leftovers += durable::clear_hidden(self.folder())?;
        let blocks = self.blocks();
        self.unreferenced(
            &mut |folder| {
                collected.leftovers += durable::clear_hidden(folder)?;
                Ok(())
            },
            &mut |digest| {
                collected.blocks += u64::from(blocks.delete(digest)?);
                Ok(())
            },
        )?;
        Ok(collected)
    }

    /// Visits every folder of blocks, and every block that no map names. The caller holds the store alone.
    fn unreferenced(
        &self,
        folder: &mut dyn FnMut(&Path) -> Result<(), StoreError>,
        block: &mut dyn FnMut(&Digest) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let referenced = self.referenced()?;
        for (path, digests) in self.blocks().folders()? {
            folder(&path)?;
            for digest in digests.iter().filter(|digest| !referenced.contains(digest)) {
                block(digest)?;
            }
        }
        Ok(())
    }

    /// Deletes a snapshot's folder that was moved out of its place, and those of its blocks that only it had.
    pub(super) fn discard(&self, old: &Path) -> Result<(), StoreError> {
        let mut digests = HashSet::new();
        for map in SnapshotFolder::at(old.to_owned()).maps()? {
            gather(&map, &mut digests)?;
        }
        if !digests.is_empty() {
            let _alone = self.alone()?;
            self.each_map(&mut |map| {
                map.walk(BlockIndex(0), &mut |_, digest| {
                    digests.remove(&digest);
                    ControlFlow::Continue(())
                })
            })?;
            let blocks = self.blocks();
            threads::for_each(&Vec::from_iter(digests), |digest| blocks.delete(digest).map(drop))?;
        }
        match fs::remove_dir_all(old) {
            Err(error) if !durable::gone(&error) => Err(StoreError::io("delete", old)(error)),
            _ => Ok(()),
        }
    }

    fn referenced(&self) -> Result<HashSet<Digest>, StoreError> {
        let mut digests = HashSet::new();
        self.each_map(&mut |map| gather(map, &mut digests))?;
        Ok(digests)
    }

    /// Visits every map of every snapshot of every place, one open file at a time.
    fn each_map(&self, visit: &mut dyn FnMut(&BlockMap) -> Result<(), StoreError>) -> Result<(), StoreError> {
        for place in self.places()? {
            let snapshots = self.place_dir(&place).join("snapshots");
            for name in durable::names(&snapshots)? {
                for map in SnapshotFolder::at(snapshots.join(name)).maps()? {
                    visit(&map)?;
                }
            }
        }
        Ok(())
    }
}

fn gather(map: &BlockMap, into: &mut HashSet<Digest>) -> Result<(), StoreError> {
    map.walk(BlockIndex(0), &mut |_, digest| {
        into.insert(digest);
        ControlFlow::Continue(())
    })
}

/// Sums up what `count` says of each folder of a place in which killed processes may have left something. Its lock keeps
/// those out that are at work.
fn each_folder(here: &LocalPlace, count: fn(&Path) -> Result<u64, StoreError>) -> Result<u64, StoreError> {
    let _registering = here.lock()?;
    let mut sum = 0;
    for folder in [here.snapshots(), here.images(), here.volumes(), here.parameters()] {
        sum += count(&folder)?;
    }
    for name in durable::names(&here.images())? {
        sum += count(&here.images().join(name))?;
    }
    Ok(sum)
}
