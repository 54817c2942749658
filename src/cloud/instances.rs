//! Instances: launched from an image, looked at through their console, terminated.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{BootMode, DiskType, ImageId, InstanceId, Result, Tags, Token};

/// What `RunInstances` is asked for: always one instance.
#[derive(Clone, Debug)]
pub struct NewInstance {
    pub image: ImageId,
    /// `t3.small`; `None`: the cloud's choice for a short test.
    pub kind: Option<String>,
    /// Raw bytes, at most 16 KiB; may be gzip, which cloud-init unpacks.
    pub user_data: Vec<u8>,
    /// The firmware to boot with where the image allows both. `None`: the image's own boot mode.
    pub boot_mode: Option<BootMode>,
    /// GiB of the root volume where it is to be larger than the image's.
    pub root_size: Option<u32>,
    /// Seconds after which the instance ends by itself, whatever becomes of its launcher.
    pub lifetime_seconds: u32,
    /// What one that is changed and made an image of needs; `None` for one that only runs.
    pub build: Option<BuildInstance>,
    pub tags: Tags,
}

/// An instance whose disk is to become an image: commands are sent to it, and when it powers itself off it is stopped and
/// not terminated. It has no port that is open to the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildInstance {
    /// The instance profile's name or ARN: what lets commands in.
    pub profile: Option<String>,
    /// `subnet-…`; `None`: the cloud's choice.
    pub subnet: Option<String>,
    /// `sg-…`; empty: the network's default one.
    pub security_groups: Vec<String>,
    pub spot: bool,
    /// `None`: as the image's.
    pub root: Option<VolumeKind>,
    /// The ARN of the key that its volumes are encrypted with. `None`: as the image's, or as the account encrypts by default.
    pub encrypt: Option<String>,
}

/// Of which kind a volume is, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VolumeKind {
    pub kind: DiskType,
    pub iops: Option<u32>,
    /// MiB/s.
    pub throughput: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    Pending,
    Running,
    Stopping,
    Stopped,
    ShuttingDown,
    Terminated,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Instance {
    pub id: InstanceId,
    pub image: ImageId,
    pub state: InstanceState,
    /// Why it is in that state, where the cloud says so.
    pub reason: Option<String>,
    /// Whether it ended by the cloud's own doing, as where there was no room for it: another one may live.
    #[serde(default)]
    pub ended_by_cloud: bool,
    pub tags: Tags,
}

/// Which instances `find` gives; an empty query is all of the account's own.
#[derive(Clone, Debug, Default)]
pub struct InstanceQuery {
    pub ids: Vec<InstanceId>,
    /// All of these tags, with exactly these values.
    pub tags: Tags,
    /// All of these tags, whatever their values.
    pub tag_keys: Vec<String>,
}

#[async_trait]
pub trait Instances: Send + Sync {
    /// `RunInstances`.
    async fn launch(&self, new: &NewInstance, token: &Token) -> Result<InstanceId>;

    /// `DescribeInstances`. An id that does not exist is [`NotFound`](super::ErrorKind::NotFound). A terminated instance
    /// is still found for a while.
    async fn find(&self, query: &InstanceQuery) -> Result<Vec<Instance>>;

    /// [`find`](Self::find) of one id.
    async fn describe(&self, id: &InstanceId) -> Result<Instance>;

    /// `GetConsoleOutput` with `Latest`: the newest 64 KiB of the serial console.
    async fn console(&self, id: &InstanceId) -> Result<Vec<u8>>;

    /// `StopInstances`. One that is stopped already is fine.
    async fn stop(&self, id: &InstanceId) -> Result<()>;

    /// `TerminateInstances`. One that is terminated already is fine.
    async fn terminate(&self, id: &InstanceId) -> Result<()>;
}
