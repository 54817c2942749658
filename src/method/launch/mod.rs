//! The launch method: an instance of the base, on which the same provisioner runs the recipe's steps and the seal; then an
//! image of it. Knows of no cloud how commands and files get in: that is the seam's.

mod bundle;
mod finish;
mod image;
mod instance;
mod provisioner;
mod remote;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::{BakeCause, BakeError, Baked, Bench, Method, made};
use crate::cloud::{Cloud, CloudError, CommandState, ObjectContent, ObjectsId, Partition, retrying};
use crate::ledger::{Intent, Kind, Role};
use crate::plan::{BasePlan, Plan};
use crate::provision::{BundleError, OutcomeEnd};
use crate::report::Timing;
use remote::Remote;

/// The bucket of the local cloud.
const LOCAL_BUCKET: &str = "bakehouse";
/// For the seal alone, which has labels to set where the root uses SELinux.
const SEALING: Duration = Duration::from_secs(1800);

#[derive(Debug)]
pub(super) struct Launch;

#[async_trait]
impl Method for Launch {
    async fn bake(&self, plan: &Plan, bench: &Bench) -> Result<Baked, BakeError> {
        Ok(bake(plan, bench).await?)
    }
}

async fn bake(plan: &Plan, bench: &Bench) -> Result<Baked, BakeCause> {
    let BasePlan::Image { id: base, .. } = &plan.base else {
        return Err(BakeCause::Other { what: "the launch method needs an image as its base".to_owned() });
    };
    let launch = plan.launch.clone().unwrap_or_default();
    let local = bench.cloud.place.partition == Partition::local();
    let mut timings = Vec::new();
    // Whatever is wrong here costs nothing yet.
    let program = provisioner::find(plan.architecture(), bench)?;
    let packed = bundle::pack(plan, bench)?;
    let secrets = bundle::secrets(plan, bench)?;

    let phase = bench.reporter.phase("bringing the steps to where the instance finds them");
    let bucket = launch.bucket.clone().unwrap_or_else(|| LOCAL_BUCKET.to_owned());
    let objects = Objects::announce(&bucket, secrets.is_some(), plan, bench).await?;
    objects.put("provisioner", ObjectContent::File(program), plan, bench).await?;
    objects.put("bundle", ObjectContent::File(packed), plan, bench).await?;
    if let Some(secrets) = &secrets {
        let text =
            serde_json::to_vec(secrets).map_err(|error| BakeCause::Other { what: error.to_string() })?;
        objects.put("secrets", ObjectContent::Bytes(text.into()), plan, bench).await?;
    }
    timings.push(Timing::new("bring the steps in", phase.done()));

    let phase = bench.reporter.phase(format!("launching an instance of {base}"));
    let (id, deadline) = instance::launch(plan, &launch, base, bench).await?;
    bench.reporter.note(format!("{id} was launched; it ends by itself when its time is over"));
    instance::ready(&id, deadline, bench).await?;
    // A spot instance that turns itself off is terminated, and EC2 stops none: its image is made while it runs, by a
    // CreateImage that reboots it.
    let runs = launch.spot && !local;
    if runs {
        finish::has_console(&id, bench).await?;
    }
    timings.push(Timing::new("launch", phase.done()));

    let mut remote = Remote { instance: id.clone(), objects: &objects, bench, seen: 0 };
    let phase = bench.reporter.phase("running the steps on the instance");
    let outcome = remote.provision(deadline).await?;
    phase.done();
    let OutcomeEnd::Done(installed) = outcome.end else { return Err(LaunchError::Unfinished.into()) };
    timings.extend(
        outcome.timings.into_iter().map(|step| Timing {
            name: format!("step {}: {}", step.number, step.name),
            seconds: step.seconds,
        }),
    );

    let phase = bench.reporter.phase("sealing");
    remote.seal(SEALING).await?;
    finish::finish(&remote, &plan.bake, runs).await?;
    timings.push(Timing::new("seal", phase.done()));

    let phase = bench.reporter.phase("making the image");
    let (image, snapshot, size) = image::create(plan, &id, bench).await?;
    timings.push(Timing::new("make the image", phase.done()));
    let phase = bench.reporter.phase(format!("reading {snapshot} for the record"));
    let map = made::map(&snapshot, size, bench).await?;
    timings.push(Timing::new("read the image", phase.done()));
    Ok(Baked { snapshot, image: Some(image), base: None, changed: map.len() as u64, map, installed, timings })
}

/// By when the steps have to be done: `launch.within` after the launch, whatever the boot took of it.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: tokio::time::Instant,
    within: Duration,
}

impl Deadline {
    fn after(within: Duration) -> Self {
        Self { at: tokio::time::Instant::now() + within, within }
    }

    /// The time that is left.
    fn left(self) -> Result<Duration, LaunchError> {
        let left = self.at.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() { Err(self.over()) } else { Ok(left) }
    }

    fn over(self) -> LaunchError {
        LaunchError::Over { seconds: self.within.as_secs() }
    }
}

/// The objects of one bake, all below one prefix.
#[derive(Debug)]
struct Objects {
    id: ObjectsId,
    cloud: Cloud,
    has_secrets: bool,
}

impl Objects {
    /// In the ledger before there is any.
    async fn announce(
        bucket: &str,
        has_secrets: bool,
        plan: &Plan,
        bench: &Bench,
    ) -> Result<Self, BakeCause> {
        let prefix = format!("bakehouse/{}", plan.bake);
        let id = ObjectsId::new(bucket, &prefix).ok_or_else(|| BakeCause::Other {
            what: format!("launch.bucket: `{bucket}` is no bucket's name"),
        })?;
        // Of a bucket that takes nothing from here, another account's or one that is not there, nothing is to be undone.
        retrying(&bench.stop, || bench.cloud.objects.list(bucket, &prefix)).await?;
        let intent = Intent {
            kind: Kind::Objects,
            place: bench.cloud.place.clone(),
            what: "what the instance fetches and writes".to_owned(),
            token: None,
            tags: plan.temporary_tags(),
            role: Role::Temporary,
        };
        bench.ledger.adopt(intent, id.clone())?;
        Ok(Self { id, cloud: bench.cloud.clone(), has_secrets })
    }

    fn bucket(&self) -> &str {
        self.id.bucket()
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.id.prefix())
    }

    async fn put(
        &self,
        name: &str,
        content: ObjectContent,
        plan: &Plan,
        bench: &Bench,
    ) -> Result<(), CloudError> {
        // S3 takes ten tags of an object: ours are enough.
        let own = plan.temporary_tags().into_iter().filter(|(key, _)| {
            ["bakehouse:bake", "bakehouse:stage", "bakehouse:expires"].contains(&key.as_str())
        });
        let (key, tags) = (self.key(name), own.collect());
        retrying(&bench.stop, || self.cloud.objects.put(self.bucket(), &key, &content, &tags)).await
    }

    async fn link(&self, name: &str, lasting: Duration) -> Result<String, CloudError> {
        self.cloud.objects.link(self.bucket(), &self.key(name), lasting).await
    }
}

/// Why no image came of an instance.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(
        "the program for instances is not at {}: build it by `make provisioner`, or name it by BAKEHOUSE_PROVISIONER",
        path.display()
    )]
    NoProvisioner { path: PathBuf },
    #[error("cannot use {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("step {step}: `secret-env: {name}` {wrong}")]
    Secret { step: usize, name: String, wrong: String },
    #[error(
        "launch.subnet: no subnet with a free address was found; name one, or give the region a default VPC"
    )]
    NoSubnet,
    #[error("launch.instance-types: no instance came up, of any of them; name more, or try later")]
    Capacity { source: CloudError },
    #[error(
        "commands do not reach {instance}: its subnet needs a way out to SSM and S3 (a NAT gateway, or VPC endpoints), \
         launch.profile the policy AmazonSSMManagedInstanceCore, and the base an SSM agent or cloud-init to install it \
         (on the local cloud: cloud-init and an ssh server)"
    )]
    Unreached { instance: String, source: CloudError },
    #[error(
        "launch.within: the steps were not done {seconds} s after the launch, the boot included; give them more"
    )]
    Over { seconds: u64 },
    #[error("step {number} ({name}) failed: {why}")]
    Step { number: usize, name: String, why: String },
    #[error("provisioning the instance failed: {why}")]
    Failed { why: String },
    #[error("the instance gave no result ({state:?}); its last lines:\n    {tail}")]
    NoResult { state: CommandState, tail: String },
    #[error("the instance did not come back from a reboot that a step asked for ({state:?})")]
    NoReboot { state: CommandState },
    #[error(
        "whether {instance} is sealed cannot be seen, as it would be by its console: name types of the Nitro system in \
         launch.instance-types, or set launch.spot to false"
    )]
    NoConsole { instance: String, source: CloudError },
    #[error("{instance} neither turned itself off nor said on its console that it is sealed: bake again")]
    Unsealed { instance: String, source: CloudError },
    #[error("the instance did not finish its steps")]
    Unfinished,
    #[error("a stop was asked for")]
    Stopped,
    #[error(
        "disk.encrypt: {snapshot} is encrypted, as the base is, which cannot be undone; take `encrypt` out, or name a key"
    )]
    Encrypted { snapshot: String },
    #[error("{image} has no root volume with a snapshot")]
    NoRoot { image: String },
}
