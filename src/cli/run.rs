//! `bakehouse run [DIR]`: runs a buildspec as CodeBuild does, on this machine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::exit::Failure;
use super::print;
use super::session::{self, Global, Mounts, absolute};
use crate::cloud::Cloud;
use crate::host::clock;
use crate::host::exec::Cmd;
use crate::host::stop::Stop;
use crate::ledger::Left;
use crate::pipeline::{self, Build, Identity, Outcome, SecretsError, Source, Status};
use crate::recipe::buildspec::{self, LoadedBuildspec};
use crate::report::Reporter;

/// Run a buildspec as CodeBuild does: its phases, in one shell.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The source's folder.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// The buildspec, by its path in that folder.
    #[arg(long, value_name = "FILE", default_value = buildspec::FILE)]
    buildspec: PathBuf,
    /// Where artifacts go, each into a folder of its own; unset: they are not collected.
    #[arg(long, value_name = "FOLDER")]
    artifacts: Option<PathBuf>,
    /// A variable for the commands, in place of the buildspec's own.
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::plan::variable)]
    env: Vec<(String, String)>,
    /// Another source: its folder is in CODEBUILD_SRC_DIR_NAME, as that of an action's other input artifact.
    #[arg(long, value_name = "NAME=DIR", value_parser = super::plan::variable)]
    source: Vec<(String, String)>,
}

/// The verb.
pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let dir = args.dir.canonicalize().map_err(|error| {
        Failure::Input(format!("{}: {error}; name the folder of the source", args.dir.display()))
    })?;
    let loaded = buildspec::load(&args.dir.join(&args.buildspec)).map_err(|errors| Failure::from(&errors))?;
    if let Some(folder) = &args.artifacts
        && folder.read_dir().is_ok_and(|mut all| all.next().is_some())
    {
        let message = format!("--artifacts: {} is not empty; name another folder", folder.display());
        return Err(Failure::Input(message).into());
    }
    let mut secondary = BTreeMap::new();
    for (name, folder) in &args.source {
        let there = Path::new(folder).canonicalize();
        let there = there.map_err(|error| Failure::Input(format!("--source {name}: {folder}: {error}")))?;
        secondary.insert(name.clone(), there);
    }
    let given = args.env.iter().cloned().collect();
    let work = Work { args, global, dir, loaded, given, secondary };
    // A cloud is opened where the buildspec asks for something of it, and not otherwise.
    if pipeline::asks_for_parameters(&work.loaded.buildspec, &work.given) {
        session::run(global, Mounts::No, |session| async move {
            work.run(Some(&session.cloud), &session.reporter, &session.stop).await
        })
    } else {
        let reporter = global.reporter();
        session::block_on(|stop| async move { work.run(None, &reporter, &stop).await })
    }
}

struct Work<'a> {
    args: &'a Args,
    global: &'a Global,
    dir: PathBuf,
    loaded: LoadedBuildspec,
    given: BTreeMap<String, String>,
    /// The folders of the other sources, by name.
    secondary: BTreeMap<String, PathBuf>,
}

impl Work<'_> {
    async fn run(&self, cloud: Option<&Cloud>, reporter: &Reporter, stop: &Stop) -> anyhow::Result<()> {
        let ended = self.build(cloud, reporter, stop).await;
        // No secret may stand in a message.
        let outcome = ended.map_err(|error| Failure::from(error).masked(|text| reporter.masked(text)))?;
        if self.global.json {
            print(&format!("{:#}", serde_json::to_value(&outcome)?))?;
        } else {
            for (name, value) in &outcome.exported_variables {
                print(&format!("{name}={value}"))?;
            }
        }
        match outcome.status {
            Status::Succeeded => Ok(()),
            Status::Failed => Err(Failure::Build(outcome.failure().unwrap_or_default()).into()),
            Status::Stopped => {
                let message = "the build was stopped".to_owned();
                Err(Failure::Work { message, left: Left::Nothing }.into())
            }
        }
    }

    async fn build(
        &self,
        cloud: Option<&Cloud>,
        reporter: &Reporter,
        stop: &Stop,
    ) -> anyhow::Result<Outcome> {
        let spec = &self.loaded.buildspec;
        for warning in &self.loaded.warnings {
            reporter.warning(format!(
                "{}:{}: {}; {}",
                warning.file.display(),
                warning.line,
                warning.message,
                warning.hint
            ));
        }
        let mut inherited: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        // What this program was told goes for the ones that the commands start.
        inherited.extend(self.global.environment());
        let secrets = pipeline::from_parameters(spec, cloud, &self.given, &inherited, reporter, stop);
        let secrets = secrets.await.map_err(|error| match &error {
            SecretsError::Unread(_) => anyhow::Error::from(error),
            SecretsError::Refused { .. } | SecretsError::NoCloud { .. } => {
                Failure::Input(error.to_string()).into()
            }
        })?;
        let source = Source { secondary: self.secondary.clone(), ..source(&self.dir, stop).await };
        let identity = identity(&self.dir, cloud, &inherited);
        let environment = pipeline::variables(inherited, spec, &secrets, &self.given, &source, &identity);
        let artifacts = self.args.artifacts.as_deref().map(absolute);
        let build = Build {
            spec,
            source: &self.dir,
            id: &identity.id,
            environment,
            artifacts: artifacts.as_deref(),
            reporter,
            stop,
        };
        Ok(pipeline::run(&build).await.map_err(|error| Failure::Input(error.to_string()))?)
    }
}

/// What git says of the folder; a folder that is none of git's has no version.
async fn source(dir: &Path, stop: &Stop) -> Source {
    let git = async |args: &[&str]| {
        let output = Cmd::new("git").arg("-C").arg(dir).args(args).run(stop).await.ok()?;
        Some(output.text()).filter(|text| !text.is_empty())
    };
    let commit = git(&["rev-parse", "--verify", "--quiet", "HEAD"]).await;
    let repository = git(&["config", "--get", "remote.origin.url"]).await;
    Source { dir: dir.to_owned(), version: commit.clone(), resolved: commit, repository, ..Source::default() }
}

/// As CodeBuild would name a build of this folder, in the place that is worked on. Its number is always 1: nobody counts.
fn identity(dir: &Path, cloud: Option<&Cloud>, inherited: &BTreeMap<OsString, OsString>) -> Identity {
    let project =
        dir.file_name().map_or_else(|| "source".to_owned(), |name| name.to_string_lossy().into_owned());
    let id = format!("{project}:{}", uuid::Uuid::new_v4());
    let place = cloud.map(|cloud| &cloud.place);
    let (partition, region, account) = match place {
        Some(place) => (place.partition.to_string(), place.region.to_string(), place.account.to_string()),
        None => ("local".to_owned(), "local".to_owned(), "000000000000".to_owned()),
    };
    let text =
        |name: &str| inherited.get(&OsString::from(name)).map(|value| value.to_string_lossy().into_owned());
    Identity {
        arn: format!("arn:{partition}:codebuild:{region}:{account}:build/{id}"),
        id,
        number: 1,
        initiator: text("USER").or_else(|| text("LOGNAME")).unwrap_or_else(|| "bakehouse".to_owned()),
        started: clock::wall(),
    }
}
