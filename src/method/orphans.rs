//! What was left on this host by a bake that was killed: its work folder, whose lock is free, and what is known by it: the
//! ledger, processes that outlived it, mounts, loop devices.
//!
//! Must never: touch a folder whose lock is held, or one that is not named as work folders are.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;

use super::work::{is_name, own_folder};
use super::{WorkDir, WorkError};
use crate::cloud::{Clouds, ImageId};
use crate::host::error::chain;
use crate::host::loop_device;
use crate::host::survivors;
use crate::ledger::{Ledger, LedgerError, Left, Undo};

/// A work folder that is nobody's. While this lives, its lock is held.
#[derive(Debug)]
pub struct Orphan {
    work: WorkDir,
}

/// Who brings the record of an image that a killed bake registered to where its user wants it.
#[async_trait]
pub trait Deliver: Send + Sync {
    /// # Errors
    /// Why it cannot be, in words: what it needs stays then.
    async fn deliver(&self, folder: &Path, image: &ImageId) -> Result<(), String>;
}

/// What came of clearing one.
#[derive(Debug, Default)]
pub struct Cleared {
    pub path: PathBuf,
    /// What became of the things in its ledger.
    pub undone: Vec<Undo>,
    /// What was ended and taken away on this host, in words.
    pub removed: Vec<String>,
    /// Its things are in another cloud: only there can they be undone.
    pub elsewhere: Option<String>,
    pub left: Left,
}

/// The folders in `base` that killed bakes left.
///
/// # Errors
/// [`WorkError`]: they cannot be listed.
pub fn find(base: &Path) -> Result<Vec<Orphan>, WorkError> {
    let failed = |source| WorkError::Create { path: base.to_owned(), source };
    if std::fs::symlink_metadata(base).is_err() {
        return Ok(Vec::new());
    }
    own_folder(base)?;
    // So that a folder that was just made, and is about to be locked, is not taken for one that was left.
    let _still = WorkDir::base_lock(base)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(base).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(name) = entry.file_name().to_str().filter(|name| is_name(name)).map(str::to_owned) else {
            continue;
        };
        if !entry.file_type().map_err(failed)?.is_dir() {
            continue;
        }
        match WorkDir::open(base, &name) {
            Ok(work) => found.push(Orphan { work }),
            // Somebody's, or gone meanwhile.
            Err(WorkError::InUse { .. } | WorkError::Gone { .. }) => {}
            Err(WorkError::Create { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

impl Orphan {
    #[must_use]
    pub fn path(&self) -> &Path {
        self.work.path()
    }

    /// Its ledger, where it left one.
    ///
    /// # Errors
    /// [`LedgerError`]: it cannot be read.
    pub fn ledger(&self) -> Result<Option<Ledger>, LedgerError> {
        Ledger::open(&self.work.ledger())
    }

    /// Leaves it as it is.
    pub fn leave(self) {
        let _path = self.work.keep();
    }

    /// What of it is on this host, in words.
    #[must_use]
    pub fn on_host(&self) -> Vec<String> {
        let path = self.work.path();
        let loops = loop_device::backed_below(path);
        let devices: Vec<_> = loops.iter().map(|number| (loop_device::LOOP_MAJOR, *number)).collect();
        let processes = survivors::of(path, &devices).into_iter().map(|one| one.to_string());
        let loops = loops.iter().map(|number| format!("loop device {number}"));
        let folder = self.work.has_more_than_a_ledger().then(|| path.display().to_string());
        processes.chain(loops).chain(folder).collect()
    }

    /// Ends what still runs of it, undoes what its ledger names, and removes the folder. Where an image was registered,
    /// `deliver` is given the folder before, and the image; as long as it cannot do its work, what it needs stays.
    pub async fn clear(self, clouds: &dyn Clouds, now: Timestamp, deliver: &dyn Deliver) -> Cleared {
        let path = self.work.path().to_owned();
        let mut cleared = Cleared { path: path.clone(), ..Cleared::default() };
        // First: a process of it could still write to what is undone next.
        let loops = loop_device::backed_below(&path);
        let devices: Vec<_> = loops.iter().map(|number| (loop_device::LOOP_MAJOR, *number)).collect();
        for survivor in survivors::end(&path, &devices).await {
            match survivor {
                Ok(ended) => cleared.removed.push(ended.to_string()),
                Err(error) => cleared.left.add(error.to_string()),
            }
        }
        match Ledger::open(&self.work.ledger()) {
            Ok(None) => {
                // A file that announces nothing.
                let _ = std::fs::remove_file(self.work.ledger());
            }
            Ok(Some(ledger)) if ledger.header().cloud != clouds.name() => {
                cleared.elsewhere = Some(ledger.header().cloud.clone());
            }
            Ok(Some(ledger)) => {
                cleared.undone = ledger.undo_all(clouds, now).await;
                let delivered = match ledger.image() {
                    Some(image) => deliver.deliver(&path, &image).await,
                    None => Ok(()),
                };
                match delivered {
                    // A file that cannot be removed is read again by the next, who finds nothing to undo.
                    Ok(()) => drop(ledger.close()),
                    Err(why) => cleared.left.add(format!("{}: {why}", path.display())),
                }
                for undo in &cleared.undone {
                    undo.add_stuck(&mut cleared.left);
                }
            }
            Err(error) => cleared.left.add(chain(&error)),
        }
        let had_more = self.work.has_more_than_a_ledger();
        match self.work.close() {
            Ok(()) if had_more || !path.exists() => cleared.removed.push(path.display().to_string()),
            Ok(()) => {}
            Err(error) => cleared.left.add(chain(&error)),
        }
        let stuck = loop_device::release_below(&path).await;
        for number in loops {
            if stuck.contains(&number) {
                cleared.left.add(format!("loop device {number} of {} is still in use", path.display()));
            } else {
                cleared.removed.push(format!("loop device {number}"));
            }
        }
        cleared
    }
}
