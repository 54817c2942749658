//! What an account is set to, as EC2, STS and Service Quotas tell it.

use async_trait::async_trait;
use aws_sdk_ec2::types::{ImageBlockPublicAccessEnabledState, SnapshotBlockPublicAccessState};

use super::place::AwsPlace;
use crate::cloud::{Account, AccountId, Identity, Quota, Result};

const IDENTITY: &str = "GetCallerIdentity";
const QUOTAS: &str = "ListServiceQuotas";

#[derive(Clone, Debug)]
pub(super) struct AwsAccount(pub(super) AwsPlace);

/// The service of a quota and the name that its list gives it. The codes are nowhere published in one place; the names
/// are (Service Quotas, defaults of `ec2` and `ebs`).
fn named(quota: Quota) -> (&'static str, &'static str) {
    match quota {
        Quota::Images => ("ec2", "AMIs"),
        Quota::Snapshots => ("ebs", "Snapshots per Region"),
        Quota::PendingSnapshots => ("ebs", "Pending snapshots per account"),
    }
}

#[async_trait]
impl Account for AwsAccount {
    async fn identity(&self) -> Result<Identity> {
        let answer = self.0.sts.get_caller_identity().send().await.map_err(self.0.failed(IDENTITY))?;
        let account = answer.account().and_then(AccountId::parse);
        Ok(Identity {
            account: account.ok_or_else(|| self.0.odd(IDENTITY, "no account"))?,
            arn: answer.arn().unwrap_or_default().to_owned(),
        })
    }

    async fn encrypts_by_default(&self) -> Result<bool> {
        let sent = self.0.ec2.get_ebs_encryption_by_default().send().await;
        let answer = sent.map_err(self.0.failed("GetEbsEncryptionByDefault"))?;
        Ok(answer.ebs_encryption_by_default().unwrap_or_default())
    }

    async fn default_key(&self) -> Result<Option<String>> {
        let sent = self.0.ec2.get_ebs_default_kms_key_id().send().await;
        let answer = sent.map_err(self.0.failed("GetEbsDefaultKmsKeyId"))?;
        Ok(answer.kms_key_id().map(str::to_owned))
    }

    async fn blocks_public_images(&self) -> Result<bool> {
        let sent = self.0.ec2.get_image_block_public_access_state().send().await;
        let answer = sent.map_err(self.0.failed("GetImageBlockPublicAccessState"))?;
        Ok(answer.image_block_public_access_state()
            == Some(ImageBlockPublicAccessEnabledState::BlockNewSharing.as_str()))
    }

    async fn blocks_public_snapshots(&self) -> Result<bool> {
        let sent = self.0.ec2.get_snapshot_block_public_access_state().send().await;
        let answer = sent.map_err(self.0.failed("GetSnapshotBlockPublicAccessState"))?;
        Ok(answer.state().is_some_and(|state| *state != SnapshotBlockPublicAccessState::Unblocked))
    }

    async fn quota(&self, of: Quota) -> Result<Option<u64>> {
        let (service, name) = named(of);
        let mut pages = self.0.quotas.list_service_quotas().service_code(service).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(self.0.failed(QUOTAS))?;
            let mut quotas = page.quotas().iter();
            let found =
                quotas.find(|quota| quota.quota_name().is_some_and(|one| one.eq_ignore_ascii_case(name)));
            if let Some(quota) = found {
                return Ok(quota.value().and_then(whole));
            }
        }
        Ok(None)
    }
}

/// Quotas are whole numbers that come as floating point.
fn whole(value: f64) -> Option<u64> {
    format!("{value:.0}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_whole_number() {
        assert_eq!(whole(100_000.0), Some(100_000));
        assert_eq!(whole(-1.0), None);
        assert_eq!(whole(f64::NAN), None);
    }
}
