//! The cloud `aws`: the seam's traits on the AWS SDK, which nothing else names. A trait method is one operation (a
//! listing follows its pages); tries, waits, pace and undoing are above the seam.

mod account;
mod advice;
mod blocks;
mod commands;
mod config;
mod device;
mod error;
mod http;
mod images;
mod instances;
mod jobs;
mod keys;
mod machine;
mod networks;
mod objects;
mod parameters;
mod place;
mod registry;
mod settings;
mod snapshots;
mod volumes;
mod vpcs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};

pub use account::{Role, Roles};

use crate::cloud::{
    AccountId, Cloud, CloudError, Clouds, ErrorKind, Partition, Place, Region, Registry, Result,
};
use place::AwsPlace;

/// Bakehouse's own, which calls are known by.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long EC2 may not show what was just made, where nothing else is said. The EBS team's advice for a snapshot that
/// was just started is two minutes (awslabs/coldsnap#43); for the rest of EC2 no figure is published.
pub const SETTLES_WITHIN: Duration = Duration::from_secs(120);

/// What is asked for besides what the SDK reads from its environment.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// `None`: the one of the environment or the profile.
    pub region: Option<Region>,
    /// `None`: the caller's.
    pub account: Option<AccountId>,
    /// How other accounts are entered.
    pub roles: Roles,
    pub settles_within: Duration,
    /// One endpoint and its keys, instead of whatever the environment says.
    pub fixed: Option<Fixed>,
}

/// An endpoint for every service, and the keys for it.
#[derive(Clone)]
pub struct Fixed {
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
}

impl std::fmt::Debug for Fixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fixed").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Why there is no cloud to work on.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "no region is set: give --region, or set AWS_REGION, or a region in the profile (`aws configure`); --local works without AWS"
    )]
    NoRegion,
    #[error("`{0}` is no region; one looks like eu-west-1")]
    Region(String),
    #[error(
        "there are no AWS credentials that can be used: {0}\nhint: set AWS_PROFILE or AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY, log in (`aws sso login`), or run where a role gives them; --local works without"
    )]
    Credentials(String),
    #[error(
        "the credentials are of account {caller} and cannot work in {account}: name a role there with --role"
    )]
    NoRole { caller: AccountId, account: AccountId },
    #[error("GetCallerIdentity answers `{0}`, which is no ARN of an account")]
    Identity(String),
    #[error(transparent)]
    Cloud(#[from] CloudError),
}

/// Every account and region that the caller's credentials and roles reach.
pub struct AwsClouds {
    caller: Caller,
    home: Place,
    config: SdkConfig,
    roles: BTreeMap<AccountId, SharedCredentialsProvider>,
    settles_within: Duration,
}

impl std::fmt::Debug for AwsClouds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsClouds")
            .field("caller", &self.caller)
            .field("home", &self.home)
            .finish_non_exhaustive()
    }
}

/// Whose credentials these are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Caller {
    partition: Partition,
    account: AccountId,
}

impl Caller {
    /// Of what GetCallerIdentity answers: `arn:aws:sts::123456789012:assumed-role/Bake/session`.
    fn of_arn(arn: &str) -> Option<Self> {
        let mut parts = arn.split(':');
        let (Some("arn"), Some(partition)) = (parts.next(), parts.next()) else { return None };
        let account = parts.nth(2)?;
        Some(Self { partition: Partition::parse(partition)?, account: AccountId::parse(account)? })
    }
}

impl AwsClouds {
    /// Finds region and credentials as the AWS tools do, and asks whose they are: the one call that it makes.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub async fn connect(options: &ConnectOptions) -> std::result::Result<Self, ConnectError> {
        let config = config::load(options.region.as_ref(), options.fixed.as_ref()).await?;
        let region = config.region().map(ToString::to_string).ok_or(ConnectError::NoRegion)?;
        let region = Region::parse(&region).ok_or(ConnectError::Region(region))?;
        let provider = config
            .credentials_provider()
            .ok_or_else(|| ConnectError::Credentials("none are configured".to_owned()))?;
        provider
            .provide_credentials()
            .await
            .map_err(|error| ConnectError::Credentials(crate::host::error::chain(&error)))?;
        let caller = who(&config, &region).await?;
        let mut roles = BTreeMap::new();
        for (account, role) in &options.roles {
            let arn = role.arn(&caller.partition, account);
            roles.insert(account.clone(), role.credentials(arn, &config).await);
        }
        let account = options.account.clone().unwrap_or_else(|| caller.account.clone());
        if account != caller.account && !roles.contains_key(&account) {
            return Err(ConnectError::NoRole { caller: caller.account, account });
        }
        let home = Place { partition: caller.partition.clone(), account, region };
        Ok(Self { caller, home, config, roles, settles_within: options.settles_within })
    }

    /// The registry of container images in a place.
    ///
    /// # Errors
    /// Where the place may not be entered.
    pub fn registry(&self, place: &Place) -> Result<Arc<dyn Registry>> {
        let config = self.config_at(place)?;
        let ecr = aws_sdk_ecr::Client::new(&config);
        Ok(Arc::new(registry::AwsRegistry { here: AwsPlace::new(&config, place), ecr }))
    }

    /// The SDK's settings for a place.
    fn config_at(&self, place: &Place) -> Result<SdkConfig> {
        if place.partition != self.caller.partition {
            let message = format!(
                "these credentials are of the partition {} and reach nothing in {}",
                self.caller.partition, place.partition
            );
            return Err(CloudError::new(ErrorKind::Invalid, "AssumeRole", place, message)
                .with_advice("use credentials of that partition, or --local for the local cloud"));
        }
        let region = aws_config::Region::new(place.region.as_str().to_owned());
        let builder = self.config.to_builder().region(region);
        // An account of the caller's own may have a role too: then that is meant.
        Ok(match self.roles.get(&place.account) {
            Some(credentials) => builder.credentials_provider(credentials.clone()).build(),
            None if place.account == self.caller.account => builder.build(),
            None => {
                let message = format!(
                    "the credentials are of account {} and there is no role for {}",
                    self.caller.account, place.account
                );
                return Err(CloudError::new(ErrorKind::Denied, "AssumeRole", place, message)
                    .with_advice("name the account's role under `accounts:` in the recipe, or with --role"));
            }
        })
    }
}

async fn who(config: &SdkConfig, region: &Region) -> std::result::Result<Caller, ConnectError> {
    // Nothing is known of the place but its region; an error names that.
    let unknown = Partition::parse("aws").zip(AccountId::parse("000000000000"));
    let Some((partition, account)) = unknown else { return Err(ConnectError::NoRegion) };
    let place = Place { partition, account, region: region.clone() };
    let stop = crate::host::stop::Stop::never();
    let sts = aws_sdk_sts::Client::new(config);
    let answer = crate::cloud::retrying(&stop, || async {
        let sent = sts.get_caller_identity().send().await;
        sent.map_err(|error| error::failed("GetCallerIdentity", &place, error))
    })
    .await?;
    let arn = answer.arn().unwrap_or_default();
    Caller::of_arn(arn).ok_or_else(|| ConnectError::Identity(arn.to_owned()))
}

impl Clouds for AwsClouds {
    fn name(&self) -> String {
        format!("aws {}", self.home.account)
    }

    fn home(&self) -> Place {
        self.home.clone()
    }

    fn at(&self, place: &Place) -> Result<Cloud> {
        let config = self.config_at(place)?;
        let here = AwsPlace::new(&config, place);
        Ok(Cloud {
            place: place.clone(),
            snapshots: Arc::new(snapshots::AwsSnapshots(here.clone())),
            images: Arc::new(images::AwsImages(here.clone())),
            instances: Arc::new(instances::AwsInstances(here.clone())),
            volumes: Arc::new(volumes::AwsVolumes::new(&config, here.clone())),
            parameters: Arc::new(parameters::AwsParameters(here.clone())),
            account: Arc::new(settings::AwsAccount(here.clone())),
            keys: Arc::new(keys::AwsKeys(here.clone())),
            commands: Arc::new(commands::AwsCommands(here.clone())),
            objects: Arc::new(objects::AwsObjects(here.clone())),
            networks: Arc::new(networks::AwsNetworks(here.clone())),
            vpcs: Arc::new(vpcs::AwsVpcs(here.clone())),
            jobs: Some(Arc::new(jobs::AwsJobs::new(&config, here))),
        })
    }

    fn settles_within(&self) -> Duration {
        self.settles_within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_read_from_its_arn() {
        let caller = |arn: &str| Caller::of_arn(arn).map(|caller| (caller.partition, caller.account));
        let account = AccountId::parse("123456789012").unwrap();
        for (arn, partition) in [
            ("arn:aws:sts::123456789012:assumed-role/Bake/bakehouse", "aws"),
            ("arn:aws-cn:iam::123456789012:user/moto", "aws-cn"),
            ("arn:aws-us-gov:iam::123456789012:root", "aws-us-gov"),
        ] {
            assert_eq!(caller(arn), Some((Partition::parse(partition).unwrap(), account.clone())), "{arn}");
        }
        for bad in
            ["", "arn", "arn:aws:iam:::user/x", "arn:aws:iam::12:user/x", "x:aws:iam::123456789012:root"]
        {
            assert_eq!(caller(bad), None, "{bad}");
        }
    }
}
