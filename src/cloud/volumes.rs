//! Volumes: made from a snapshot, attached to the machine that this program runs on, snapshotted.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{InstanceId, Result, SnapshotId, Tags, Token, VolumeId};

/// The machine that this program runs on, as an instance of the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub instance: InstanceId,
    /// The availability zone, which its volumes are of too.
    pub zone: String,
}

/// What `CreateVolume` is asked for. Its key is the snapshot's.
#[derive(Clone, Debug)]
pub struct NewVolume {
    pub snapshot: SnapshotId,
    /// GiB; at least the snapshot's.
    pub size: u32,
    pub zone: String,
    /// Set in the call itself, so that nothing is ever untagged.
    pub tags: Tags,
}

/// What `CreateSnapshot` is asked for.
#[derive(Clone, Debug)]
pub struct NewSnapshotOf {
    pub description: String,
    pub tags: Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    Creating,
    Available,
    InUse,
    /// It is gone, or about to be.
    Deleting,
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Attachment {
    pub instance: InstanceId,
    /// The name that it was attached by: `/dev/sdf`.
    pub device: String,
    /// Whether attaching is done, and detaching not begun.
    pub attached: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Volume {
    pub id: VolumeId,
    pub state: VolumeState,
    /// GiB.
    pub size: u32,
    pub zone: String,
    pub snapshot: Option<SnapshotId>,
    pub attachment: Option<Attachment>,
    pub tags: Tags,
}

/// Which volumes `find` gives; an empty query is all of the account's own.
#[derive(Clone, Debug, Default)]
pub struct VolumeQuery {
    pub ids: Vec<VolumeId>,
    /// Those that are attached to it.
    pub attached_to: Option<InstanceId>,
    /// All of these tags, with exactly these values.
    pub tags: Tags,
    /// All of these tags, whatever their values.
    pub tag_keys: Vec<String>,
}

#[async_trait]
pub trait Volumes: Send + Sync {
    /// The machine that this program runs on. [`Invalid`] where it is no instance of this place.
    ///
    /// [`Invalid`]: super::ErrorKind::Invalid
    async fn machine(&self) -> Result<Machine>;

    /// `CreateVolume`. The same token with the same request gives the same volume; with another, [`Exists`].
    ///
    /// [`Exists`]: super::ErrorKind::Exists
    async fn create(&self, new: &NewVolume, token: &Token) -> Result<VolumeId>;

    /// `DescribeVolumes`. An id that does not exist is [`NotFound`](super::ErrorKind::NotFound).
    async fn find(&self, query: &VolumeQuery) -> Result<Vec<Volume>>;

    /// `AttachVolume`. [`Exists`] where the instance has something at `device` already, [`InUse`] where the volume is
    /// attached.
    ///
    /// [`Exists`]: super::ErrorKind::Exists
    /// [`InUse`]: super::ErrorKind::InUse
    async fn attach(&self, id: &VolumeId, to: &InstanceId, device: &str) -> Result<()>;

    /// The block device that a volume is on this machine, which it is attached to by the name `device`. `None` while the
    /// kernel does not show it yet. Asks the machine alone.
    async fn node(&self, id: &VolumeId, device: &str) -> Result<Option<PathBuf>>;

    /// `DetachVolume`. [`Invalid`](super::ErrorKind::Invalid) where it is not attached. What is in use is detached when
    /// its last user is gone.
    async fn detach(&self, id: &VolumeId) -> Result<()>;

    /// `DeleteVolume`. [`InUse`](super::ErrorKind::InUse) while it is attached.
    async fn delete(&self, id: &VolumeId) -> Result<()>;

    /// `CreateSnapshot`: of what was written to it so far. It has no idempotency token.
    async fn snapshot(&self, of: &VolumeId, new: &NewSnapshotOf) -> Result<SnapshotId>;
}
