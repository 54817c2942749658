//! What an account is and how it is set: who calls, what it encrypts by default, what may be made public, its quotas.
//! Reads only.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{AccountId, Result};

/// Who the credentials are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Identity {
    pub account: AccountId,
    /// The role's or user's ARN.
    pub arn: String,
}

/// A limit that AWS can raise. Each is a number of the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quota {
    /// Images of the account.
    Images,
    /// Snapshots of the account.
    Snapshots,
    /// Snapshots that `StartSnapshot` began and that are not completed.
    PendingSnapshots,
}

impl Quota {
    pub const ALL: [Self; 3] = [Self::Images, Self::Snapshots, Self::PendingSnapshots];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Snapshots => "snapshots",
            Self::PendingSnapshots => "pending snapshots",
        }
    }
}

#[async_trait]
pub trait Account: Send + Sync {
    /// `GetCallerIdentity`.
    async fn identity(&self) -> Result<Identity>;

    /// `GetEbsEncryptionByDefault`: whether every new volume and snapshot is encrypted.
    async fn encrypts_by_default(&self) -> Result<bool>;

    /// `GetEbsDefaultKmsKeyId`: the key by which, as its alias, id or ARN; `None` where the cloud has no keys.
    async fn default_key(&self) -> Result<Option<String>>;

    /// `GetImageBlockPublicAccessState`: whether no image can be made public.
    async fn blocks_public_images(&self) -> Result<bool>;

    /// `GetSnapshotBlockPublicAccessState`: whether no snapshot can be made public.
    async fn blocks_public_snapshots(&self) -> Result<bool>;

    /// `GetServiceQuota`; `None` where there is no such limit.
    async fn quota(&self, of: Quota) -> Result<Option<u64>>;
}
