//! Keys that encrypt snapshots.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Result;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Key {
    /// `arn:aws:kms:REGION:ACCOUNT:key/ID`: what the EBS direct APIs want, and no alias.
    pub arn: String,
    /// Whether it can be used now.
    pub enabled: bool,
    /// `PendingDeletion` and the like.
    pub state: String,
    /// Whether it encrypts by one secret, as EBS needs it.
    pub symmetric: bool,
    /// Whether AWS keeps it for a service (`aws/ebs`): what is under it can never be shared.
    pub aws_managed: bool,
}

#[async_trait]
pub trait Keys: Send + Sync {
    /// `DescribeKey` of an id, an alias or an ARN of either. One that does not exist is
    /// [`NotFound`](super::ErrorKind::NotFound).
    async fn describe(&self, key: &str) -> Result<Key>;
}
