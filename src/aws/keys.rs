//! Keys, as KMS keeps them.

use async_trait::async_trait;
use aws_sdk_kms::types::{KeyManagerType, KeySpec};

use super::place::AwsPlace;
use crate::cloud::{Key, Keys, Result};

const DESCRIBE: &str = "DescribeKey";

#[derive(Clone, Debug)]
pub(super) struct AwsKeys(pub(super) AwsPlace);

#[async_trait]
impl Keys for AwsKeys {
    async fn describe(&self, key: &str) -> Result<Key> {
        let sent = self.0.kms.describe_key().key_id(key).send().await;
        let answer = sent.map_err(self.0.failed(DESCRIBE))?;
        let found = answer.key_metadata().ok_or_else(|| self.0.odd(DESCRIBE, "no key"))?;
        Ok(Key {
            arn: found.arn().ok_or_else(|| self.0.odd(DESCRIBE, "no ARN"))?.to_owned(),
            enabled: found.enabled(),
            state: found.key_state().map(|state| state.as_str().to_owned()).unwrap_or_default(),
            symmetric: found.key_spec() == Some(&KeySpec::SymmetricDefault),
            aws_managed: found.key_manager() == Some(&KeyManagerType::Aws),
        })
    }
}
