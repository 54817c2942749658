//! The instance that this program runs on, as its metadata service (IMDSv2) tells. Where that service is asked says the SDK:
//! `AWS_EC2_METADATA_SERVICE_ENDPOINT`, or the profile.

use aws_config::SdkConfig;
use aws_config::imds;
use aws_config::provider_config::ProviderConfig;
use serde::Deserialize;

use crate::cloud::{CloudError, ErrorKind, InstanceId, Machine, Place, Result};
use crate::host::error::chain;

const ASK: &str = "GET instance-identity/document";
const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";
/// It is on the same machine: whoever does not answer at once is not there.
const ATTEMPTS: u32 = 2;

/// What of the document is read (EC2 user guide, "Instance identity documents").
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    account_id: String,
    region: String,
    availability_zone: String,
    instance_id: String,
}

#[derive(Clone, Debug)]
pub(super) struct Metadata(imds::Client);

impl Metadata {
    pub(super) fn new(config: &SdkConfig) -> Self {
        let mut provider = ProviderConfig::without_region();
        if let Some(client) = config.http_client() {
            provider = provider.with_http_client(client);
        }
        Self(imds::Client::builder().configure(&provider).max_attempts(ATTEMPTS).build())
    }

    /// This machine, where it is an instance of `place`.
    pub(super) async fn machine(&self, place: &Place) -> Result<Machine> {
        let refused = |text: String| {
            CloudError::new(ErrorKind::Invalid, ASK, place, text).with_advice(
                "write `method: direct`, which needs no instance, or bake on an instance of that place",
            )
        };
        let text = self.0.get(DOCUMENT).await.map_err(|error| {
            refused(format!(
                "this machine is no EC2 instance, or its metadata service does not answer (in a container the instance's hop \
                 limit must be 2): {}",
                chain(&error)
            ))
        })?;
        read(text.as_ref(), place).map_err(refused)
    }
}

fn read(text: &str, place: &Place) -> std::result::Result<Machine, String> {
    let document: Document = serde_json::from_str(text)
        .map_err(|error| format!("its metadata service gives no identity document: {error}"))?;
    let Document { account_id, region, availability_zone: zone, instance_id } = document;
    if account_id != place.account.as_str() || region != place.region.as_str() {
        return Err(format!("this machine is {instance_id} of the account {account_id} in {region}"));
    }
    let instance =
        InstanceId::parse(&instance_id).ok_or_else(|| format!("`{instance_id}` is no instance's id"))?;
    Ok(Machine { instance, zone })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{AccountId, Partition, Region};

    #[test]
    fn an_instance_of_another_account_or_region_is_none_of_this_place() {
        let place = Place {
            partition: Partition::parse("aws").unwrap(),
            account: AccountId::parse("123456789012").unwrap(),
            region: Region::parse("eu-west-1").unwrap(),
        };
        let document = |account: &str, region: &str| {
            format!(
                r#"{{"accountId": "{account}", "region": "{region}", "availabilityZone": "{region}b",
                    "instanceId": "i-0123456789abcdef0", "privateIp": "10.0.0.1"}}"#
            )
        };
        let found = read(&document("123456789012", "eu-west-1"), &place).unwrap();
        assert_eq!((found.instance.as_str(), found.zone.as_str()), ("i-0123456789abcdef0", "eu-west-1b"));
        let other = read(&document("123456789012", "us-east-1"), &place).unwrap_err();
        assert!(other.contains("us-east-1"), "{other}");
        assert!(read(&document("210987654321", "eu-west-1"), &place).is_err());
        assert!(read("<html>", &place).is_err());
    }
}
