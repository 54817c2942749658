//! One account and region of a store: where its things are, its lock, and how a call on it runs.

use std::path::PathBuf;

use super::durable;
use super::instances::LocalInstances;
use super::refusal::Refusal;
use super::snapshot_folder::SnapshotFolder;
use super::store::{Store, StoreError};
use crate::cloud::{CloudError, ErrorKind, ImageId, Place, Result, SnapshotId};
use crate::host::lock::FileLock;

#[derive(Clone, Debug)]
pub(super) struct LocalPlace {
    pub(super) store: Store,
    pub(super) place: Place,
}

impl LocalPlace {
    pub(super) fn snapshots(&self) -> PathBuf {
        self.store.place_dir(&self.place).join("snapshots")
    }

    pub(super) fn snapshot(&self, id: &SnapshotId) -> SnapshotFolder {
        SnapshotFolder::at(self.snapshots().join(id.as_str()))
    }

    pub(super) fn images(&self) -> PathBuf {
        self.store.place_dir(&self.place).join("images")
    }

    pub(super) fn image(&self, id: &ImageId) -> PathBuf {
        self.images().join(id.as_str())
    }

    pub(super) fn volumes(&self) -> PathBuf {
        self.store.place_dir(&self.place).join("volumes")
    }

    pub(super) fn parameters(&self) -> PathBuf {
        self.store.place_dir(&self.place).join("parameters")
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.store.place_dir(&self.place).join("objects")
    }

    pub(super) fn instances(&self) -> LocalInstances {
        LocalInstances::new(self.store.clone(), self.place.clone())
    }

    /// The only availability zone.
    pub(super) fn zone(&self) -> String {
        format!("{}a", self.place.region)
    }

    /// Held, briefly, by whoever registers or deletes something here. Readers need no lock: everything that they read
    /// is renamed into place as a whole.
    pub(super) fn lock(&self) -> std::result::Result<FileLock, StoreError> {
        let folder = self.store.place_dir(&self.place);
        durable::make_folders(&folder)?;
        let lock = folder.join("lock");
        FileLock::exclusive(&lock).map_err(StoreError::io("lock", &lock))
    }

    /// Runs one call of the API off the async threads. A caller that goes away does not undo it, as on AWS.
    pub(super) async fn call<T, F>(&self, operation: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> std::result::Result<T, Refusal> + Send + 'static,
    {
        let here = self.clone();
        match tokio::task::spawn_blocking(move || work(&here)).await {
            Ok(result) => result.map_err(|refusal| refusal.into_error(operation, &self.place)),
            Err(error) => Err(CloudError::new(
                ErrorKind::Unknown,
                operation,
                &self.place,
                "the call was ended before it was done",
            )
            .with_source(error)),
        }
    }
}
