//! `bakehouse ecr`: the repository of Bakehouse's own container image, for the build that pushes it. On AWS only.

use std::time::Duration;

use super::connect::to_aws;
use super::exit::Failure;
use super::print;
use super::session::{self, Global};
use crate::aws::ConnectOptions;
use crate::cloud::{Clouds, ErrorKind, Registry, Repository, retrying};
use crate::host::stop::Stop;
use crate::report::Reporter;

/// Keep Bakehouse's container image in ECR: its repository, the login for docker, the digest of what was pushed.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Make the repository where it is missing, with immutable tags and a scan of every image; print its URI.
    Prepare {
        /// `bakehouse`, or `team/bakehouse`.
        name: String,
    },
    /// Print the password for `docker login --username AWS --password-stdin REGISTRY`; it is good for twelve hours.
    Login,
    /// Print the digest of an image that was pushed.
    Digest {
        /// The repository's name and the image's tag.
        #[arg(value_name = "NAME:TAG")]
        image: String,
    },
}

/// The verb.
pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let (region, account) = global.region_and_account()?;
    let reporter = global.reporter();
    session::block_on(|stop| async move {
        let options = ConnectOptions {
            region,
            account,
            roles: std::collections::BTreeMap::new(),
            settles_within: Duration::ZERO,
            fixed: None,
        };
        let clouds = to_aws(&options).await?;
        let registry = clouds.registry(&clouds.home())?;
        match &args.what {
            What::Prepare { name } => {
                let (repository, made) = prepare(registry.as_ref(), name, &stop).await?;
                warn(&repository, &reporter);
                if global.json {
                    let mut all = serde_json::to_value(&repository)?;
                    all["made"] = made.into();
                    return print(&format!("{all:#}"));
                }
                print(&repository.uri)
            }
            What::Login => {
                let login = retrying(&stop, || registry.login()).await?;
                if global.json {
                    print(&serde_json::to_string_pretty(&login)?)
                } else {
                    print(&login.password)
                }
            }
            What::Digest { image } => {
                let (name, tag) = image.rsplit_once(':').ok_or_else(|| {
                    Failure::Input(format!("`{image}` names no tag; write NAME:TAG, as bakehouse:0.1.0"))
                })?;
                print(&retrying(&stop, || registry.digest(name, tag)).await?)
            }
        }
    })
}

/// The repository, and whether it was made. It is no bake's: nothing undoes it, and making it twice makes one.
async fn prepare(registry: &dyn Registry, name: &str, stop: &Stop) -> anyhow::Result<(Repository, bool)> {
    match retrying(stop, || registry.repository(name)).await {
        Ok(found) => return Ok((found, false)),
        Err(error) if error.kind == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    match retrying(stop, || registry.create(name)).await {
        Ok(made) => Ok((made, true)),
        // Another build was faster, or the answer to the first try was lost.
        Err(error) if error.kind == ErrorKind::Exists => {
            Ok((retrying(stop, || registry.repository(name)).await?, false))
        }
        Err(error) => Err(error.into()),
    }
}

/// A repository that was there is the user's: it is not changed, but said where it is not as one made here.
fn warn(repository: &Repository, reporter: &Reporter) {
    let name = &repository.name;
    if !repository.immutable_tags {
        reporter.warning(format!(
            "the repository {name} lets tags move to other images; `aws ecr put-image-tag-mutability \
             --repository-name {name} --image-tag-mutability IMMUTABLE` ends that"
        ));
    }
    if !repository.scans_on_push {
        reporter.warning(format!(
            "the repository {name} scans no image that is pushed; `aws ecr put-image-scanning-configuration \
             --repository-name {name} --image-scanning-configuration scanOnPush=true` changes that"
        ));
    }
}
