//! The seam: what a bake needs from a cloud, as narrow traits over plain types. Two clouds implement it, `aws` and
//! `local`. A trait method is one call; waiting, paging, retrying and pacing live above, so that both share them.
//!
//! Invariant: no type of an SDK and no path of the local store crosses this seam.

mod account;
mod block;
mod commands;
mod error;
pub mod faulty;
mod id;
mod images;
mod instances;
mod jobs;
mod keys;
mod networks;
mod objects;
pub mod paced;
mod parameters;
mod place;
mod registry;
mod retry;
mod sha256_pair;
mod snapshots;
mod tags;
mod volumes;
mod vpcs;
mod wait;

use std::sync::Arc;
use std::time::Duration;

pub use account::{Account, Identity, Quota};
pub use block::{BLOCK_SIZE, Block, BlockIndex, Digest, LinearChecksum, ZERO_BLOCK, ZEROS};
pub use commands::{BUILD_KEY, CommandId, CommandState, Commands, Execution, NewCommand, OutputTo, REBOOT};
pub use error::{CloudError, ErrorKind, Result};
pub use id::{ImageId, InstanceId, SnapshotId, Token, VolumeId};
pub use images::{
    Architecture, BlockDevice, BootMode, DiskType, EbsDisk, Image, ImageAttributes, ImageQuery, ImageState,
    Images, NewCopy, NewImage, NewImageOf,
};
pub use instances::{
    BuildInstance, Instance, InstanceQuery, InstanceState, Instances, NewInstance, VolumeKind,
};
pub use jobs::{
    ActionCategory, ActionType, ArtifactCredentials, Artifacts, Configuration, Job, JobArtifact, JobFailure,
    JobFailureKind, JobId, JobSuccess, Jobs, OfferedJob, PipelineContext, Revision,
};
pub use keys::{Key, Keys};
pub use networks::{Networks, Subnet, SubnetQuery};
pub use objects::{ObjectContent, ObjectVersion, Objects, ObjectsId};
pub use parameters::{NewParameter, Parameter, Parameters};
pub use place::{AccountId, ImageRef, Partition, Place, Region};
pub use registry::{Login, Registry, Repository};
pub use retry::retrying;
pub use snapshots::{
    BlockPage, BlockSink, BlockToken, ListedBlock, NewSnapshot, PageToken, Snapshot, SnapshotQuery,
    SnapshotState, Snapshots,
};
pub use tags::{TAG_PREFIX, Tags, tag};
pub use volumes::{Attachment, Machine, NewSnapshotOf, NewVolume, Volume, VolumeQuery, VolumeState, Volumes};
pub use vpcs::{
    Association, Interface, NewPart, PartChange, PartDetail, PartId, PartKind, PartQuery, VpcPart, Vpcs,
};
pub use wait::{Wait, until};

/// Every place that the credentials at hand can reach.
pub trait Clouds: Send + Sync {
    /// What tells this cloud from every other: `local /var/lib/store`. The ledger of one is never unwound in another.
    fn name(&self) -> String;

    /// Where the caller is when it names no place.
    fn home(&self) -> Place;

    /// The cloud in one account and region.
    ///
    /// # Errors
    /// Where the place is unknown or may not be entered.
    fn at(&self, place: &Place) -> Result<Cloud>;

    /// How long a look may not show, and a deletion not find, what was just made.
    fn settles_within(&self) -> Duration;
}

/// One account in one region.
#[derive(Clone)]
pub struct Cloud {
    pub place: Place,
    pub snapshots: Arc<dyn Snapshots>,
    pub images: Arc<dyn Images>,
    pub instances: Arc<dyn Instances>,
    pub volumes: Arc<dyn Volumes>,
    pub parameters: Arc<dyn Parameters>,
    pub account: Arc<dyn Account>,
    pub keys: Arc<dyn Keys>,
    pub commands: Arc<dyn Commands>,
    pub objects: Arc<dyn Objects>,
    pub networks: Arc<dyn Networks>,
    pub vpcs: Arc<dyn Vpcs>,
    /// `None` where a cloud has no pipelines: the local one.
    pub jobs: Option<Arc<dyn Jobs>>,
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud").field("place", &self.place).finish_non_exhaustive()
    }
}
