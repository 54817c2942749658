//! What a local account is set to: it belongs to whoever has the folder, encrypts nothing and has no limits.

use async_trait::async_trait;

use super::place::LocalPlace;
use crate::cloud::{Account, CloudError, ErrorKind, Identity, Key, Keys, Quota, Result};

#[derive(Debug)]
pub(super) struct LocalAccount(pub(super) LocalPlace);

#[async_trait]
impl Account for LocalAccount {
    async fn identity(&self) -> Result<Identity> {
        let account = self.0.place.account.clone();
        Ok(Identity { arn: format!("arn:local:iam::{account}:root"), account })
    }

    async fn encrypts_by_default(&self) -> Result<bool> {
        Ok(false)
    }

    async fn default_key(&self) -> Result<Option<String>> {
        Ok(None)
    }

    async fn blocks_public_images(&self) -> Result<bool> {
        Ok(false)
    }

    async fn blocks_public_snapshots(&self) -> Result<bool> {
        Ok(false)
    }

    async fn quota(&self, _: Quota) -> Result<Option<u64>> {
        Ok(None)
    }
}

#[derive(Debug)]
pub(super) struct LocalKeys(pub(super) LocalPlace);

#[async_trait]
impl Keys for LocalKeys {
    async fn describe(&self, key: &str) -> Result<Key> {
        let why = format!("there is no key {key}: the local cloud has none");
        Err(CloudError::new(ErrorKind::NotFound, "DescribeKey", &self.0.place, why)
            .with_code("NotFoundException"))
    }
}
