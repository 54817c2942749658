//! `base`: what the image is made from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Exactly one way to say what the image is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Base {
    pub scratch: Option<Scratch>,
    /// An image's id: `ami-0123456789abcdef0`.
    pub image: Option<String>,
    /// The name of a parameter whose value is an image's id.
    pub parameter: Option<String>,
    pub newest: Option<Newest>,
    /// The newest available image of this family of our own; with `channel`, the one that the channel names.
    pub family: Option<String>,
    /// With `family`: `release`, `candidate` or any other channel.
    pub channel: Option<String>,
    /// With `family`: the account that has it, where it is not this one. Twelve digits.
    pub account: Option<String>,
    /// With `account`: the role to take there, where `accounts` does not name one.
    pub role: Option<String>,
    /// A raw or qcow2 disk in the recipe's folder.
    pub file: Option<FileBase>,
}

/// A path to a disk, relative to the recipe's folder.
pub type FileBase = String;

/// A distribution installed from its packages onto an empty disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scratch {
    pub distribution: Distribution,
    /// `bookworm`, `trixie`, `noble`.
    pub suite: String,
    /// Archive components; unset: `main` (Debian), `main universe` (Ubuntu).
    #[serde(default)]
    pub components: Vec<String>,
    /// Packages installed besides what a machine image needs.
    #[serde(default)]
    pub packages: Vec<String>,
    /// The archive to install from; unset: the distribution's own.
    pub mirror: Option<String>,
    /// An HTTP proxy for the archive.
    pub proxy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    Debian,
    Ubuntu,
}

/// The newest image that fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Newest {
    /// Account ids, or `self`, `amazon`, `aws-marketplace`. Never empty: anybody can publish an image of any name.
    pub owners: Vec<String>,
    /// With `*` and `?` as wildcards.
    pub name: String,
}
