//! A cloud in a folder: snapshots as blocks addressed by content, images and parameters as files, instances in QEMU.
//! Users rely on it, and it is as strict as AWS: what AWS refuses, or answers late, it refuses or answers late too.
//!
//! Must never: write outside its folder but to the path that a caller names; acknowledge what a `kill -9` could undo.
//!
//! ```text
//! format                       the layout's version
//! gate, lock                   the store's locks (store.rs)
//! blocks/ab/abcdef…            one block, named by its SHA-256, whatever number of snapshots has it
//! places/PARTITION/ACCOUNT/REGION/
//!   lock                       held while something is registered or deleted
//!   snapshots/SNAPSHOT/        snapshot.json and its block maps (snapshot_folder.rs)
//!   images/IMAGE/              image.json, and who else may have it (sharing.rs)
//!   volumes/VOLUME/            volume.json, its disk, and where it is attached (volumes.rs)
//!   parameters/SHA-256.json    all versions of one parameter
//!   objects/SHA-256            an object, and SHA-256.json with its key
//!   instances/
//! ```
//! Names that begin with a dot are unfinished or already deleted; `Store::collect_garbage` takes them away.

mod accelerator;
mod blocks;
mod child;
mod commands;
mod create_image;
mod disk;
mod durable;
mod firmware;
mod garbage;
mod images;
mod instance_folder;
mod instances;
mod laws;
mod map;
pub mod metadata;
mod networks;
mod objects;
mod parameters;
mod place;
pub mod qemu;
mod refusal;
mod settings;
mod sharing;
mod snapshot_folder;
mod snapshots;
mod store;
mod tokens;
mod verify;
mod volumes;
mod vpcs;
mod workers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use accelerator::{Accelerator, Emulator};
pub use firmware::{Firmware, Ovmf};
pub use garbage::Collected;
pub use instances::LocalInstances;
pub use sharing::Sharing;
pub use store::{Store, StoreError};
pub use verify::{Damage, Verified};

use crate::cloud::{AccountId, Cloud, CloudError, Clouds, ErrorKind, Partition, Place, Region, Result};
use place::LocalPlace;

/// The account of a store's home where none is named.
const HOME_ACCOUNT: &str = "000000000000";
/// The region of a store's home where none is named.
const HOME_REGION: &str = "local";

/// Every account and region of one store: in a folder of one's own, all may be entered.
#[derive(Clone, Debug)]
pub struct LocalClouds {
    store: Store,
    home: Place,
}

impl LocalClouds {
    /// Opens the store in `folder`, making it where it is missing. Without an account or region the home is account
    /// 000000000000 in region `local`.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open(
        folder: &Path,
        account: Option<AccountId>,
        region: Option<Region>,
    ) -> std::result::Result<Self, StoreError> {
        let store = Store::open(folder)?;
        let account = account.or_else(|| AccountId::parse(HOME_ACCOUNT));
        let region = region.or_else(|| Region::parse(HOME_REGION));
        let (Some(account), Some(region)) = (account, region) else {
            return Err(StoreError::Damaged { path: folder.to_owned(), why: "it has no home".to_owned() });
        };
        let home = Place { partition: Partition::local(), account, region };
        Ok(Self { store, home })
    }

    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
}

impl Clouds for LocalClouds {
    fn name(&self) -> String {
        format!("{} {}", Partition::local(), self.store.folder().display())
    }

    fn home(&self) -> Place {
        self.home.clone()
    }

    /// What a call has made is in the folder when it answers.
    fn settles_within(&self) -> Duration {
        Duration::ZERO
    }

    fn at(&self, place: &Place) -> Result<Cloud> {
        if place.partition != Partition::local() {
            return Err(CloudError::new(
                ErrorKind::Invalid,
                "at",
                place,
                format!(
                    "the local cloud has no partition {}; its only one is {}",
                    place.partition,
                    Partition::local()
                ),
            ));
        }
        let here = LocalPlace { store: self.store.clone(), place: place.clone() };
        Ok(Cloud {
            place: place.clone(),
            snapshots: Arc::new(snapshots::LocalSnapshots(here.clone())),
            images: Arc::new(images::LocalImages(here.clone())),
            instances: Arc::new(here.instances()),
            volumes: Arc::new(volumes::LocalVolumes(here.clone())),
            parameters: Arc::new(parameters::LocalParameters(here.clone())),
            account: Arc::new(settings::LocalAccount(here.clone())),
            keys: Arc::new(settings::LocalKeys(here.clone())),
            commands: Arc::new(commands::LocalCommands::new(here.clone())),
            objects: Arc::new(objects::LocalObjects(here.clone())),
            networks: Arc::new(networks::LocalNetworks(here.clone())),
            vpcs: Arc::new(vpcs::LocalVpcs(here)),
            // A pipeline is no part of a laptop.
            jobs: None,
        })
    }
}
