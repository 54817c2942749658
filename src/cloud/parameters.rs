//! Parameters with versions and labels: the registry of channels.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Result;

#[derive(Clone, Debug)]
pub struct NewParameter {
    /// `/bakehouse/web/x86_64/release`.
    pub name: String,
    pub value: String,
    /// `text`, or `aws:ec2:image`, which must name an image of this place.
    pub data_type: String,
    pub overwrite: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Parameter {
    pub name: String,
    pub value: String,
    pub data_type: String,
    /// Counts from 1.
    pub version: u64,
    pub labels: Vec<String>,
}

#[async_trait]
pub trait Parameters: Send + Sync {
    /// `GetParameter`. `name` may end in `:version` or `:label`.
    async fn get(&self, name: &str) -> Result<Parameter>;

    /// `PutParameter`: the new version. Without `overwrite` a name that exists is
    /// [`Exists`](super::ErrorKind::Exists).
    async fn put(&self, new: &NewParameter) -> Result<u64>;

    /// `LabelParameterVersion`: the label leaves the version that had it, in one step.
    async fn label(&self, name: &str, version: u64, label: &str) -> Result<()>;

    /// `GetParameterHistory`, oldest first; the newest 100 versions.
    async fn history(&self, name: &str) -> Result<Vec<Parameter>>;
}
