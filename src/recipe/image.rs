//! `image` and `disk`: what comes out.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Size;
use crate::cloud::{BootMode, DiskType};

/// The image as it is registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImageOutput {
    /// With `{date}` (YYYYMMDD-HHMMSS, UTC), `{commit}`, `{name}` and `{architecture}`. Unset: `{name}-{date}`.
    pub name: Option<String>,
    pub description: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Whether instances must use IMDSv2. Unset: as the base; required for an image from scratch.
    pub imds: Option<Imds>,
    /// Unset: as the base; `uefi-preferred` for an image from scratch.
    pub boot_mode: Option<BootMode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Imds {
    Required,
    Optional,
}

/// The root volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Disk {
    /// Unset: as the base.
    pub size: Option<Size>,
    /// The root's file system, with `base.scratch` only: any other base brings its own. Unset: `ext4`.
    pub filesystem: Option<RootFilesystem>,
    /// A key (`alias/bakery`, an ARN), or `false`. Unset: as the base, or the account's default.
    pub encrypt: Option<Encrypt>,
    /// The volume's type. Unset: as the base; `gp3` where the base is no image.
    #[serde(rename = "type")]
    pub kind: Option<DiskType>,
    /// I/O operations a second. With `type`.
    pub iops: Option<u32>,
    /// A second: `250MiB`. With `type: gp3`.
    pub throughput: Option<Size>,
    /// Further volumes of the image. One that stands at a device of the base's takes the place of that.
    #[serde(default)]
    pub volumes: Vec<Volume>,
}

/// A further volume of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Volume {
    /// `/dev/sdf`.
    pub device: String,
    /// True: the image has no volume here, though the base has one.
    #[serde(default)]
    pub no_device: bool,
    /// Unset: as its snapshot, which there must be then.
    pub size: Option<Size>,
    /// Unset: `gp3`.
    #[serde(rename = "type")]
    pub kind: Option<DiskType>,
    /// I/O operations a second.
    pub iops: Option<u32>,
    /// A second: `250MiB`. With `gp3` only.
    pub throughput: Option<Size>,
    /// A snapshot of this account that it begins as: `snap-0123456789abcdef0`. Unset: empty.
    pub snapshot: Option<String>,
    /// Whether it goes with its instance. Unset: yes.
    pub delete_on_termination: Option<bool>,
}

/// The file systems that a root from scratch can be made on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RootFilesystem {
    #[default]
    Ext4,
    Xfs,
    Btrfs,
}

impl RootFilesystem {
    /// As the recipe writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Encrypt {
    Off(bool),
    Key(String),
}
