//! Images, with every attribute that EC2 keeps of them.

use async_trait::async_trait;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AccountId, ImageId, InstanceId, Region, Result, SnapshotId, Tags, Token};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Architecture {
    #[serde(rename = "x86_64")]
    X86_64,
    #[serde(rename = "arm64")]
    Arm64,
}

impl Architecture {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BootMode {
    LegacyBios,
    Uefi,
    UefiPreferred,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskType {
    Gp2,
    Gp3,
    Io1,
    Io2,
    St1,
    Sc1,
    Standard,
}

/// A volume of an image, or nothing at its name (`no-device` hides one of the base).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BlockDevice {
    /// `/dev/xvda`.
    pub name: String,
    pub ebs: Option<EbsDisk>,
    /// `ephemeral0` for an instance store volume.
    pub virtual_name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EbsDisk {
    pub snapshot: Option<SnapshotId>,
    /// GiB; at least the snapshot's.
    pub size: u32,
    pub kind: DiskType,
    pub iops: Option<u32>,
    /// MiB/s.
    pub throughput: Option<u32>,
    pub delete_on_termination: bool,
}

/// What `RegisterImage` is told of an image besides its name and description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImageAttributes {
    pub architecture: Architecture,
    /// Unset: legacy BIOS on Intel and AMD, UEFI on Graviton.
    pub boot_mode: Option<BootMode>,
    pub ena: bool,
    /// `simple`, or unset. Cannot be undone.
    pub sriov: Option<String>,
    /// IMDSv2 required.
    pub imds_v2: bool,
    /// TPM 2.0; needs a UEFI boot mode.
    pub tpm: bool,
    /// The UEFI variable store, base64.
    pub uefi_data: Option<String>,
    /// `/dev/xvda`.
    pub root_device: String,
    pub devices: Vec<BlockDevice>,
}

#[derive(Clone, Debug)]
pub struct NewImage {
    /// Unique in its place; 3 to 128 of the characters that EC2 allows.
    pub name: String,
    pub description: String,
    pub attributes: ImageAttributes,
    pub tags: Tags,
}

/// What `CopyImage` is asked for: a copy in the place of the call.
#[derive(Clone, Debug)]
pub struct NewCopy {
    /// An image of any account that lets this one read its storage.
    pub source: ImageId,
    pub source_region: Region,
    /// Unique in its place, as that of any image.
    pub name: String,
    pub description: String,
    /// A key's ARN. `None`: as the source, or as the account encrypts by default.
    pub encrypt: Option<String>,
    /// Of the image and of its snapshots, set in the call itself.
    pub tags: Tags,
}

/// What `CreateImage` is asked for: an image of a stopped instance, with all that the instance's own image had.
#[derive(Clone, Debug)]
pub struct NewImageOf {
    pub name: String,
    pub description: String,
    pub image_tags: Tags,
    /// Of the snapshots that it makes.
    pub snapshot_tags: Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageState {
    Pending,
    Available,
    Failed,
    Disabled,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Image {
    pub id: ImageId,
    pub owner: AccountId,
    pub name: String,
    pub description: String,
    pub state: ImageState,
    /// Why it is in that state, where the cloud says so: a copy that failed says it here only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    pub created: Timestamp,
    /// But for the UEFI data, which no look shows: [`Images::uefi_data`] gives it.
    pub attributes: ImageAttributes,
    pub tags: Tags,
    /// `RunInstances` for plain Linux; `RunInstances:0010` and the like carry billing codes.
    pub usage_operation: String,
    /// `Linux/UNIX` and others.
    pub platform: String,
    pub product_codes: Vec<String>,
}

impl Image {
    /// The volume that holds the root, with its snapshot.
    #[must_use]
    pub fn root(&self) -> Option<(&EbsDisk, &SnapshotId)> {
        let device =
            self.attributes.devices.iter().find(|device| device.name == self.attributes.root_device)?;
        let ebs = device.ebs.as_ref()?;
        Some((ebs, ebs.snapshot.as_ref()?))
    }

    /// Whether one of its volumes is made from a snapshot.
    #[must_use]
    pub fn uses(&self, snapshot: &SnapshotId) -> bool {
        let mut disks = self.attributes.devices.iter().filter_map(|device| device.ebs.as_ref());
        disks.any(|disk| disk.snapshot.as_ref() == Some(snapshot))
    }
}

/// Which images `find` gives, newest first; an empty query is all of the account's own.
#[derive(Clone, Debug, Default)]
pub struct ImageQuery {
    pub ids: Vec<ImageId>,
    /// Account ids or `self`, `amazon`, `aws-marketplace`; empty: the account's own, and where ids are named whoever's
    /// may be seen.
    pub owners: Vec<String>,
    /// With `*` and `?` as wildcards.
    pub name: Option<String>,
    /// All of these tags, with exactly these values.
    pub tags: Tags,
    /// All of these tags, whatever their values.
    pub tag_keys: Vec<String>,
}

#[async_trait]
pub trait Images: Send + Sync {
    /// `DescribeImages`, newest first. An id that does not exist is [`NotFound`](super::ErrorKind::NotFound).
    async fn find(&self, query: &ImageQuery) -> Result<Vec<Image>>;

    /// `RegisterImage`. A name that exists is [`Exists`](super::ErrorKind::Exists).
    async fn register(&self, new: &NewImage) -> Result<ImageId>;

    /// `CopyImage`. The copy is pending until its blocks are there, which may take long; whether the key can be used is
    /// only known then. The same token with the same request gives the same image; a name that exists is
    /// [`Exists`](super::ErrorKind::Exists).
    async fn copy(&self, new: &NewCopy, token: &Token) -> Result<ImageId>;

    /// `DescribeImageAttribute` of `uefiData`, base64: of an image of the account's own.
    async fn uefi_data(&self, id: &ImageId) -> Result<Option<String>>;

    /// `DeregisterImage`. Its snapshots stay.
    async fn deregister(&self, id: &ImageId) -> Result<()>;

    /// `CreateImage`. A name that exists is [`Exists`](super::ErrorKind::Exists).
    async fn create(&self, of: &InstanceId, new: &NewImageOf) -> Result<ImageId>;

    /// `ModifyImageAttribute`: instances of it require IMDSv2, for good. One that says so already is fine.
    async fn require_imds_v2(&self, id: &ImageId) -> Result<()>;

    /// `CreateTags` on an image.
    async fn tag(&self, id: &ImageId, tags: &Tags) -> Result<()>;

    /// `DeleteTags` on an image: those with these keys.
    async fn untag(&self, id: &ImageId, keys: &[String]) -> Result<()>;
}
