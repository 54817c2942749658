//! The direct bake: by the program itself, as a user runs it, in a folder of its own.

#![expect(clippy::disallowed_methods, reason = "the program is started here as a user starts it")]

use std::fmt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use bakehouse::cloud::{Architecture, Cloud, Image, ImageId, ImageQuery, Region, retrying};
use bakehouse::host::stop::Stop;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::findings::Findings;
use crate::run::Run;

/// What is baked on.
pub enum Base {
    Image(String),
    Parameter(String),
}

impl Base {
    pub fn new(named: &str) -> Self {
        let is_image = named.starts_with("ami-");
        if is_image { Self::Image(named.to_owned()) } else { Self::Parameter(named.to_owned()) }
    }

    /// Debian's own, of this machine's architecture: its snapshot is public, so that it can be imported, and small.
    pub fn debian() -> Self {
        let machine = if own_architecture() == Architecture::Arm64 { "arm64" } else { "amd64" };
        Self::Parameter(format!("/aws/service/debian/release/12/latest/{machine}"))
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Image(name) | Self::Parameter(name)) = self;
        f.write_str(name)
    }
}

fn own_architecture() -> Architecture {
    if std::env::consts::ARCH == "aarch64" { Architecture::Arm64 } else { Architecture::X86_64 }
}

pub struct DirectBake<'a> {
    pub program: &'a Path,
    pub base: &'a Base,
    pub run: &'a Run,
    pub region: &'a Region,
}

impl DirectBake<'_> {
    /// Bakes, and compares the image with its base.
    pub async fn run(&self, cloud: &Cloud, stop: &Stop, findings: &mut Findings) -> anyhow::Result<()> {
        // Not in memory: a base is as large as its volume.
        let folder = tempfile::Builder::new().prefix("bakehouse-live-").tempdir_in("/var/tmp")?;
        let recipe = folder.path().join("recipe");
        std::fs::create_dir(&recipe)?;
        std::fs::write(recipe.join("bake.yml"), self.recipe())?;
        self.run.makes();
        let ended = self.program(folder.path(), &recipe, stop).await;
        self.run.makes();
        ended?;
        let record = std::fs::read(recipe.join("bakehouse-out/image.json"))?;
        let record: Value = serde_json::from_slice(&record)?;
        let image = found(&record["images"][0]["image"], cloud).await?;
        let base = found(&record["lineage"][0], cloud).await?;
        let kept = |image: &Image| {
            let of = &image.attributes;
            let root = (of.root_device.clone(), of.devices.len());
            (of.architecture, of.boot_mode, of.ena, of.imds_v2, of.tpm, root)
        };
        let (own, its) = (kept(&image), kept(&base));
        findings.add(
            "AMI-DEFAULTS",
            own == its,
            &format!("a direct bake of {} keeps {its:?}: {own:?}", base.id),
        );
        let billing = |image: &Image| format!("{} ({})", image.usage_operation, image.platform);
        let (own, its) = (billing(&image), billing(&base));
        findings.add("AMI-BILLING", own == its, &format!("of {its} a direct bake makes {own}"));
        Ok(())
    }

    fn recipe(&self) -> String {
        let base = match self.base {
            Base::Image(id) => format!("image: {id}"),
            Base::Parameter(name) => format!("parameter: {name}"),
        };
        format!(
            "version: 1\nname: {}\narchitecture: {}\nbase: {{ {base} }}\nmethod: direct\nprovision:\n  \
             - shell: {{ run: 'echo live >/etc/bakehouse-live' }}\n",
            self.run.family,
            own_architecture(),
        )
    }

    /// Runs it to its end. It undoes what it made itself where a signal ends it: it is given one, and waited for.
    async fn program(&self, folder: &Path, recipe: &Path, stop: &Stop) -> anyhow::Result<()> {
        let mut command = tokio::process::Command::new(self.program);
        // What else the user has set for bakes is not meant for this one.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"BAKEHOUSE_") && name != "BAKEHOUSE_AWS_SETTLES" {
                command.env_remove(name);
            }
        }
        command.arg("bake").arg(recipe).args(["--region", self.region.as_str()]);
        command.arg("--work").arg(folder.join("work")).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?;
        let status = tokio::select! {
            status = child.wait() => status?,
            () = stop.requested() => {
                if let Some(process) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
                    // It may have ended meanwhile.
                    let _ = kill_process(process, Signal::TERM);
                }
                child.wait().await?
            }
        };
        if !status.success() {
            bail!("the bake ended with {status}");
        }
        Ok(())
    }
}

/// The image that a record names.
async fn found(id: &Value, cloud: &Cloud) -> anyhow::Result<Image> {
    let id = id.as_str().and_then(ImageId::parse).context("the record names no image")?;
    let query = ImageQuery { ids: vec![id.clone()], ..ImageQuery::default() };
    let images = retrying(&Stop::never(), || cloud.images.find(&query)).await?;
    images.into_iter().next().with_context(|| format!("{id} is not there"))
}
