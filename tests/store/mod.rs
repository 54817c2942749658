//! The local cloud's store as such: what a folder adds to a cloud. Locks between processes, kills, garbage, disks.

#![expect(clippy::unwrap_used, reason = "a test panics where something is not as it should be")]

mod disk;
mod garbage;
mod kill;
mod laws;
mod process;
mod sharing;
mod two;

use std::path::{Path, PathBuf};

use bakehouse::cloud::{Cloud, Clouds, SnapshotId};
use bakehouse::local::{LocalClouds, Store};

/// A store of its own, and its home.
pub(crate) struct Local {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clouds: LocalClouds,
    pub(crate) cloud: Cloud,
}

impl Local {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clouds = open(folder.path());
        let cloud = clouds.at(&clouds.home()).unwrap();
        Self { folder, clouds, cloud }
    }

    pub(crate) fn store(&self) -> &Store {
        self.clouds.store()
    }

    pub(crate) fn snapshot_dir(&self, id: &SnapshotId) -> PathBuf {
        let place = self.store().place_dir(&self.cloud.place);
        place.join("snapshots").join(id.as_str())
    }

    /// Every block's file.
    pub(crate) fn block_files(&self) -> Vec<PathBuf> {
        files(&self.store().folder().join("blocks"))
    }
}

pub(crate) fn open(folder: &Path) -> LocalClouds {
    LocalClouds::open(&folder.join("store"), None, None).unwrap()
}

/// Every file below `folder`; none where it is missing.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
