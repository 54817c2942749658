//! Which cloud a verb works on: the store that `--local` names, or AWS.

use std::collections::BTreeMap;
#[cfg(feature = "aws")]
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::exit::{Failure, chain};
use crate::cloud::{AccountId, Clouds, Region};
use crate::local::{LocalClouds, Store};

/// What was asked for on the command line, in the environment and in the recipe.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The store's folder; `None`: AWS.
    pub local: Option<String>,
    pub region: Option<Region>,
    pub account: Option<AccountId>,
    #[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "only AWS has roles"))]
    pub roles: BTreeMap<AccountId, AccountRole>,
    #[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "only AWS has to settle"))]
    pub settles_within: Option<std::time::Duration>,
    #[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "only AWS has a quota of blocks"))]
    pub block_rate: Option<u32>,
}

/// The role by which an account is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRole {
    pub role: String,
    pub external_id: Option<String>,
}

/// The clouds of one run.
pub struct Connected {
    pub clouds: Arc<dyn Clouds>,
    /// What they are kept in, where they are local: for what only a store can do.
    pub store: Option<Store>,
}

/// Picks the cloud.
///
/// # Errors
/// [`Failure`]
pub async fn connect(asked: Asked) -> anyhow::Result<Connected> {
    let Some(store) = &asked.local else {
        return aws(asked).await;
    };
    let folder = if store.is_empty() { default_store()? } else { PathBuf::from(store) };
    let clouds = open(&folder, asked.account, asked.region)?;
    Ok(Connected { store: Some(clouds.store().clone()), clouds: Arc::new(clouds) })
}

fn open(folder: &Path, account: Option<AccountId>, region: Option<Region>) -> anyhow::Result<LocalClouds> {
    Ok(LocalClouds::open(folder, account, region).map_err(|error| {
        let message = format!("--local: cannot open the store {}: {}", folder.display(), chain(&error));
        if message.contains("Permission denied") {
            Failure::Refused(message)
        } else {
            Failure::Input(message)
        }
    })?)
}

fn default_store() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("bakehouse"));
    Ok(data.ok_or_else(|| {
        Failure::Input(
            "--local: neither XDG_DATA_HOME nor HOME is set; name the store: --local=FOLDER".to_owned(),
        )
    })?)
}

#[cfg(feature = "aws")]
async fn aws(asked: Asked) -> anyhow::Result<Connected> {
    use crate::aws::{ConnectOptions, Role, SETTLES_WITHIN};
    use crate::cloud::paced::{Paces, Rates};

    let role = |role: AccountRole| Role { role: role.role, external_id: role.external_id };
    let options = ConnectOptions {
        region: asked.region,
        account: asked.account,
        roles: asked.roles.into_iter().map(|(account, of)| (account, role(of))).collect(),
        settles_within: asked.settles_within.unwrap_or(SETTLES_WITHIN),
        fixed: None,
    };
    let connected = to_aws(&options).await?;
    let mut rates = Rates::default();
    if let Some(blocks) = asked.block_rate {
        (rates.put, rates.get) = (f64::from(blocks), f64::from(blocks));
    }
    Ok(Connected { clouds: Paces::new(rates).clouds(Arc::new(connected)), store: None })
}

/// AWS itself, for the verbs that work on nothing else too.
///
/// # Errors
/// [`Failure`]
#[cfg(feature = "aws")]
pub async fn to_aws(options: &crate::aws::ConnectOptions) -> anyhow::Result<crate::aws::AwsClouds> {
    use crate::aws::{AwsClouds, ConnectError};
    use crate::ledger::Left;

    if let Some(name) = empty_endpoint(std::env::vars_os()) {
        let message = format!("{} is set and empty: unset it, or write a URL", name.display());
        return Err(Failure::Input(message).into());
    }
    Ok(AwsClouds::connect(options).await.map_err(|error| match error {
        ConnectError::NoRegion | ConnectError::Region(_) | ConnectError::NoRole { .. } => {
            Failure::Input(chain(&error))
        }
        ConnectError::Credentials(_) => Failure::Refused(chain(&error)),
        ConnectError::Identity(_) => Failure::Work { message: chain(&error), left: Left::Nothing },
        ConnectError::Cloud(error) => Failure::of(&error, Left::Nothing),
    })?)
}

/// The variable that names an endpoint, of all services or of one, and is empty: the SDK would take that for one, and panic.
#[cfg(feature = "aws")]
fn empty_endpoint(mut all: impl Iterator<Item = (OsString, OsString)>) -> Option<OsString> {
    let empty = |(name, value): &(OsString, OsString)| {
        name.as_encoded_bytes().starts_with(b"AWS_ENDPOINT_URL") && value.is_empty()
    };
    all.find(empty).map(|(name, _)| name)
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "connecting to AWS waits")]
async fn aws(_: Asked) -> anyhow::Result<Connected> {
    anyhow::bail!(Failure::Input(
        "this build has no AWS cloud; build with the feature `aws`, or add --local to work on the local one"
            .to_owned(),
    ));
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_is_empty_is_named() {
        let found = |all: &[(&str, &str)]| {
            let all: Vec<(OsString, OsString)> =
                all.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            empty_endpoint(all.into_iter())
        };
        assert_eq!(found(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_REGION", "")]), None);
        for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_ECR"] {
            assert_eq!(found(&[("HOME", "/root"), (name, "")]), Some(name.into()));
        }
    }
}
