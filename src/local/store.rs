//! The folder that a local cloud lives in: its layout's version and its locks.
//!
//! Lock order, always: a place's, then a snapshot's, then the store's. Whoever holds the store's lock waits for nothing.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blocks::Blocks;
use super::durable;
use crate::cloud::{AccountId, Partition, Place, Region};
use crate::host::file;
use crate::host::lock::FileLock;

/// The layout that this program reads and writes. A change that an older program would misread gets the next number.
const FORMAT: u32 = 1;
/// What the `format` file says before the number.
const FORMAT_WORD: &str = "bakehouse-store";
/// It is one line.
const LARGEST: u64 = 4096;

/// A store: all accounts and regions of one local cloud. Cheap to clone; any number of processes may use one folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: Arc<Path>,
}

impl Store {
    /// Opens the store in `folder`; a missing or empty folder becomes a store that only its owner can enter.
    ///
    /// # Errors
    /// Where the folder holds something else, or a newer program's store, or cannot be used.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(StoreError::io("create", folder))?;
        // Absolute, so that the store stays the same when the process changes its folder.
        let folder = folder.canonicalize().map_err(StoreError::io("find", folder))?;
        let store = Self { folder: folder.into() };
        let format = store.folder.join("format");
        if !format.exists() {
            store.make(&format)?;
        }
        let bytes =
            file::read(&format, LARGEST).map_err(|why| StoreError::io("read", &format)(why.into()))?;
        let text = String::from_utf8_lossy(&bytes);
        let version =
            text.trim_end().strip_prefix(FORMAT_WORD).and_then(|number| number.trim().parse::<u32>().ok());
        match version {
            Some(FORMAT) => Ok(store),
            Some(found) if found > FORMAT => {
                Err(StoreError::Newer { path: store.folder.to_path_buf(), found })
            }
            _ => Err(StoreError::Damaged {
                path: format,
                why: format!("it says {:?} and not which layout this is", text.trim_end()),
            }),
        }
    }

    /// Two processes may make one store at once: the second finds it made.
    fn make(&self, format: &Path) -> Result<(), StoreError> {
        const OWN: [&str; 2] = ["gate", "lock"];
        let strange = |names: Vec<String>| names.into_iter().find(|name| !OWN.contains(&name.as_str()));
        // Looked at before the lock file is made, so that a folder of something else stays as it is.
        if let Some(strange) = strange(durable::names(&self.folder)?).filter(|_| !format.exists()) {
            return Err(StoreError::NotAStore { path: self.folder.to_path_buf(), strange });
        }
        let _alone = self.alone()?;
        if format.exists() {
            return Ok(());
        }
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))
            .map_err(StoreError::io("protect", &self.folder))?;
        durable::write(format, format!("{FORMAT_WORD} {FORMAT}\n").as_bytes())
    }

    /// Where the store is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where everything of one place is; it may not exist yet.
    #[must_use]
    pub fn place_dir(&self, place: &Place) -> PathBuf {
        self.folder
            .join("places")
            .join(place.partition.as_str())
            .join(place.account.as_str())
            .join(place.region.as_str())
    }

    /// Every place in which something was ever made.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn places(&self) -> Result<Vec<Place>, StoreError> {
        let partition = Partition::local();
        let accounts = self.folder.join("places").join(partition.as_str());
        let mut places = Vec::new();
        for account in durable::names(&accounts)? {
            for region in durable::names(&accounts.join(&account))? {
                // A folder that is named otherwise was not made by this program.
                if let (Some(account), Some(region)) = (AccountId::parse(&account), Region::parse(&region)) {
                    places.push(Place { partition: partition.clone(), account, region });
                }
            }
        }
        Ok(places)
    }

    /// Makes everything durable that was written into the store so far: one call, whatever the number of files.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let folder = fs::File::open(&self.folder).map_err(StoreError::io("open", &self.folder))?;
        rustix::fs::syncfs(&folder).map_err(|error| StoreError::io("sync", &self.folder)(error.into()))
    }

    pub(super) fn blocks(&self) -> Blocks {
        Blocks::new(self.folder.join("blocks"))
    }

    /// Held from before a block is stored, or found stored, until a map names it: no garbage is collected meanwhile.
    pub(super) fn writing(&self) -> Result<FileLock, StoreError> {
        let _turn = self.turn()?;
        let lock = self.folder.join("lock");
        FileLock::shared(&lock).map_err(StoreError::io("lock", &lock))
    }

    /// Held while unreferenced blocks are deleted: nobody is writing meanwhile.
    pub(super) fn alone(&self) -> Result<FileLock, StoreError> {
        let _turn = self.turn()?;
        let lock = self.folder.join("lock");
        FileLock::exclusive(&lock).map_err(StoreError::io("lock", &lock))
    }

    /// The kernel lets new shared holders pass one that waits for the exclusive lock, for ever if they keep coming.
    /// Everybody queues at the gate, so that they do not.
    fn turn(&self) -> Result<FileLock, StoreError> {
        let gate = self.folder.join("gate");
        FileLock::exclusive(&gate).map_err(StoreError::io("lock", &gate))
    }
}

/// Runs blocking work off the async threads.
pub(super) async fn blocking<T, F>(work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StoreError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Ended(error)),
    }
}

/// Why the store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} holds {strange:?} and is not a store of the local cloud: name a folder that is empty or missing"
    )]
    NotAStore { path: PathBuf, strange: String },
    #[error(
        "the store in {path} has layout {found} and this program knows {FORMAT}: use the newer program that made it"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error("{path} in the store is damaged: {why}")]
    Damaged { path: PathBuf, why: String },
    #[error("stopped")]
    Stopped,
    #[error("the work in the store was ended before it was done")]
    Ended(#[source] tokio::task::JoinError),
}

impl StoreError {
    /// For `map_err`: what was being done with which path.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    /// Whether something on the way to a path is not there.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Io { source, .. } if durable::gone(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_made_once_and_only_in_an_empty_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/store");
        let store = Store::open(&folder).unwrap();
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(store.places().unwrap().is_empty());
        Store::open(&folder).unwrap();

        let other = dir.path().join("photos");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("cat.jpg"), "").unwrap();
        assert!(matches!(Store::open(&other), Err(StoreError::NotAStore { .. })));
        assert_eq!(durable::names(&other).unwrap(), ["cat.jpg"]);
    }

    #[test]
    fn a_newer_layout_and_an_unreadable_one_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        Store::open(dir.path()).unwrap();
        fs::write(dir.path().join("format"), "bakehouse-store 2\n").unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Newer { found: 2, .. })));
        for text in ["", "bakehouse-store 0", "bakehouse-store x", "else 1"] {
            fs::write(dir.path().join("format"), text).unwrap();
            assert!(matches!(Store::open(dir.path()), Err(StoreError::Damaged { .. })), "{text}");
        }
    }
}
