//! The account: what a run made in it is found by its tag and taken away, until nothing of it is seen any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use bakehouse::cloud::{
    Cloud, ErrorKind, Image, ImageId, ImageQuery, Result, SnapshotId, SnapshotQuery, retrying, tag,
};
use bakehouse::host::stop::Stop;
use bakehouse::plan::IMPORT;

use crate::run::Run;

/// How often is looked, and for how long at most: a copy that is under way ends first.
const LOOK: Duration = Duration::from_secs(1);
const WITHIN: Duration = Duration::from_secs(900);

pub struct Account {
    cloud: Cloud,
    run: Arc<Run>,
    settles_within: Duration,
    /// The imports that were there before.
    imports: BTreeSet<ImageId>,
    /// The seam deletes no parameters: nothing but this does.
    ssm: aws_sdk_ssm::Client,
}

impl Account {
    /// Looks at what is there before.
    pub async fn new(cloud: Cloud, run: Arc<Run>, settles_within: Duration) -> anyhow::Result<Self> {
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https();
        let region = Region::new(cloud.place.region.as_str().to_owned());
        let config = aws_config::defaults(BehaviorVersion::latest()).region(region).http_client(http);
        let ssm = aws_sdk_ssm::Client::new(&config.load().await);
        let mut account = Self { cloud, run, settles_within, imports: BTreeSet::new(), ssm };
        account.imports = account.imports().await?.into_iter().map(|image| image.id).collect();
        Ok(account)
    }

    /// Takes away what the run made, and answers what is left of it. Nothing is, where two looks find nothing that are as far
    /// apart as AWS may take to show what was made.
    pub async fn clean(&self) -> Vec<String> {
        let began = Instant::now();
        loop {
            let left = match self.round().await {
                Ok(left) => left,
                Err(error) => vec![format!("what is left cannot be seen: {error}")],
            };
            let settled = self.run.last().is_none_or(|last| last.elapsed() > self.settles_within);
            if left.is_empty() && settled {
                let place = &self.cloud.place;
                eprintln!("nothing with the tag {} is left in {place}", self.run.mark());
                return left;
            }
            if began.elapsed() > WITHIN {
                return left;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Looks once, and deletes what is there: what is told may be gone by the next look.
    async fn round(&self) -> Result<Vec<String>> {
        let (never, mut seen) = (Stop::never(), Vec::new());
        let mut refused = |what: String, ended: Result<()>| match ended {
            // A snapshot is in use until EC2 has forgotten its image.
            Err(error) if !matches!(error.kind, ErrorKind::NotFound | ErrorKind::InUse) => {
                seen.push(format!("{what}: {error}"));
            }
            _ => seen.push(what),
        };
        let query = ImageQuery { tags: self.run.own(), ..ImageQuery::default() };
        let mut images = retrying(&never, || self.cloud.images.find(&query)).await?;
        let imports = self.imports().await?;
        images.extend(imports.into_iter().filter(|image| !self.imports.contains(&image.id)));
        for image in &images {
            let ended = retrying(&never, || self.cloud.images.deregister(&image.id)).await;
            refused(format!("the image {}", image.id), ended);
        }
        let query = SnapshotQuery { tags: self.run.own(), ..SnapshotQuery::default() };
        let found = retrying(&never, || self.cloud.snapshots.describe(&query)).await?;
        let mut snapshots: BTreeSet<SnapshotId> = found.into_iter().map(|snapshot| snapshot.id).collect();
        snapshots.extend(images.iter().flat_map(snapshots_of));
        for id in snapshots {
            let ended = retrying(&never, || self.cloud.snapshots.delete(&id)).await;
            refused(format!("the snapshot {id}"), ended);
        }
        for name in self.run.parameters() {
            match retrying(&never, || self.cloud.parameters.get(&name)).await {
                // A name that nobody may have is nobody's.
                Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Invalid) => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    let deleted = self.ssm.delete_parameter().name(&name).send().await;
                    let why = deleted.err().map(|error| format!(": {error}")).unwrap_or_default();
                    refused(format!("the parameter {name}{why}"), Ok(()));
                }
            }
        }
        Ok(seen)
    }

    async fn imports(&self) -> Result<Vec<Image>> {
        let query = ImageQuery { tag_keys: vec![tag(IMPORT)], ..ImageQuery::default() };
        retrying(&Stop::never(), || self.cloud.images.find(&query)).await
    }
}

fn snapshots_of(image: &Image) -> impl Iterator<Item = SnapshotId> + '_ {
    image.attributes.devices.iter().filter_map(|device| device.ebs.as_ref()?.snapshot.clone())
}
