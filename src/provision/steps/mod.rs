//! Running the recipe's steps in a root, one after the other: time limits, repeats, what they wrote, how long they
//! took. Each kind of step is a file here; this one knows only what they have in common.
//!
//! A step never gets more than its own environment, and nothing that it started outlives it.

mod advice;
mod ansible;
mod attempt;
mod files;
mod hold;
mod metadata;
mod modes;
mod packages;
mod reboot;
mod secrets;
mod services;
mod shell;
mod update;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use attempt::Attempt;
use serde::{Deserialize, Serialize};

use super::installed::InstalledError;
use super::packages::PackagesError;
use super::root::{Root, RootError};
use crate::host::stop::Stop;
use crate::recipe::{Limits, Span, Step};
use crate::report::{Event, Reporter};

/// A step without a `timeout` of its own has this long for each try.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What steps need besides the root.
#[derive(Clone)]
pub struct StepContext {
    /// What the recipe's paths are relative to. No step reads a file beyond it, but for secrets.
    pub recipe_dir: PathBuf,
    pub reporter: Reporter,
    pub stop: Stop,
    /// How many steps to leave out at the beginning: they are in the root already.
    pub from: usize,
    /// The environment in which Bakehouse runs: where secrets and, for `aws: true`, credentials are taken from, and
    /// what programs of the host find. No step inherits it.
    pub environment: BTreeMap<String, String>,
    /// What packages' scripts can do with the disk's EFI system partition.
    pub esp: EspAccess,
}

/// What can be done with the EFI system partition in a root. Packages that need more are held at their versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EspAccess {
    /// All: it is mounted, or the disk has none.
    Full,
    /// Its files can be read and changed, but it is no mounted FAT: programs that look for its device find none.
    Files,
    /// Nothing: it is not there.
    None,
}

/// The environment holds secrets.
impl fmt::Debug for StepContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("recipe_dir", &self.recipe_dir)
            .field("from", &self.from)
            .field("esp", &self.esp)
            .finish_non_exhaustive()
    }
}

impl StepContext {
    #[must_use]
    pub fn new(recipe_dir: impl Into<PathBuf>) -> Self {
        Self {
            recipe_dir: recipe_dir.into(),
            reporter: Reporter::silent(),
            stop: Stop::never(),
            from: 0,
            environment: BTreeMap::new(),
            esp: EspAccess::None,
        }
    }
}

/// How long a step took, tries and pauses together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StepTiming {
    /// From 1, as in the recipe.
    pub number: usize,
    pub name: String,
    pub seconds: f64,
}

/// What one run of steps remembers from step to step.
struct Session<'a> {
    root: &'a dyn Root,
    context: &'a StepContext,
    metadata: metadata::Metadata,
}

/// Runs the steps in their order, and stops at the first that fails.
///
/// # Errors
/// [`StepFailed`]: which step, and why. What packages were held is released in any case.
pub async fn run_steps(
    root: &dyn Root,
    steps: &[Step],
    context: &StepContext,
) -> Result<Vec<StepTiming>, StepFailed> {
    if steps.len() <= context.from {
        return Ok(Vec::new());
    }
    let around = |source| StepFailed {
        number: context.from + 1,
        name: "holding back packages that write to the boot partition".to_owned(),
        done: Vec::new(),
        source,
    };
    let held = hold::hold(root, context).await.map_err(around)?;
    let done = run_all(root, steps, context).await;
    let released = hold::release(root, &held).await;
    let done = done?;
    released.map_err(|source| StepFailed {
        number: steps.len(),
        name: "releasing packages that were held back".to_owned(),
        done: done.clone(),
        source,
    })?;
    Ok(done)
}

async fn run_all(
    root: &dyn Root,
    steps: &[Step],
    context: &StepContext,
) -> Result<Vec<StepTiming>, StepFailed> {
    let session = Session { root, context, metadata: metadata::Metadata::default() };
    let mut done = Vec::new();
    for (index, step) in steps.iter().enumerate().skip(context.from) {
        let (number, name) = (index + 1, context.reporter.masked(&step.title()));
        context.reporter.emit(Event::Step { number, of: steps.len(), name: name.clone() });
        let began = Instant::now();
        let label = format!("{number} {}", step.as_kind().key());
        let result = run_one(&session, &label, step).await;
        let seconds = began.elapsed().as_secs_f64();
        if let Err(source) = result {
            return Err(StepFailed { number, name, done, source });
        }
        context.reporter.emit(Event::StepDone { number, name: name.clone(), seconds });
        done.push(StepTiming { number, name, seconds });
    }
    Ok(done)
}

/// What a kind of step does. Its keys in the recipe are the implementor's own.
#[async_trait]
trait Runs: Sync {
    /// One try, in which nothing of an earlier one may be in the way.
    async fn run(&self, attempt: &Attempt<'_>) -> Result<(), StepError>;
}

/// The table of kinds.
fn runs(step: &Step) -> &dyn Runs {
    match step {
        Step::Update(update) => update,
        Step::Packages(packages) => packages,
        Step::Files(files) => files,
        Step::Shell(shell) => shell,
        Step::Ansible(ansible) => ansible,
        Step::Services(services) => services,
        Step::Reboot(reboot) => reboot,
    }
}

/// One step, with its repeats.
async fn run_one(session: &Session<'_>, label: &str, step: &Step) -> Result<(), StepError> {
    let Limits { timeout, retries } = step.as_kind().limits();
    let limit = timeout.map_or(TIMEOUT, Span::duration);
    let mut tries = 0;
    loop {
        let attempt = Attempt::new(session, label, step, limit);
        let error = match runs(step).run(&attempt).await {
            Ok(()) => return attempt.nothing_left(),
            Err(error) => error,
        };
        if tries == retries || !error.may_pass() {
            return Err(error);
        }
        let wait = pause(tries);
        tries += 1;
        session.context.reporter.warning(format!(
            "{}; try {} of {} follows in {} s",
            error.headline(),
            tries + 1,
            u64::from(retries) + 1,
            wait.as_secs()
        ));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = session.context.stop.requested() => return Err(StepError::Stopped),
        }
    }
}

/// Before the second try 2 s, then twice as long each time, and never more than 30 s: package mirrors and network
/// services that fail for a moment are what repeats are for.
fn pause(tries: u32) -> Duration {
    Duration::from_secs((2_u64 << tries.min(4)).min(30))
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("step {number} ({name}) failed")]
pub struct StepFailed {
    /// From 1, as in the recipe.
    pub number: usize,
    pub name: String,
    /// The steps before it.
    pub done: Vec<StepTiming>,
    pub source: StepError,
}

/// Why a step failed. Texts of commands have passed the reporter's mask: no secret is in them.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("`{command}` failed with exit code {code}{}{}", advice::on(tail), shown(tail))]
    Failed { command: String, code: i32, tail: Vec<String> },
    #[error("`{command}` did not end within {} s; give the step a longer `timeout`{}", limit.as_secs(), shown(tail))]
    TimedOut { command: String, limit: Duration, tail: Vec<String> },
    #[error("a stop was asked for")]
    Stopped,
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Installed(#[from] InstalledError),
    #[error(transparent)]
    Packages(#[from] PackagesError),
    #[error("the root has no {what}; {instead}")]
    Lacks { what: &'static str, instead: &'static str },
    #[error("`{key}: {value}` {wrong}")]
    Recipe { key: &'static str, value: String, wrong: String },
    #[error("cannot write {path} in the root{}", advice::DISK_FULL)]
    Full { path: String, source: io::Error },
    #[error("cannot {doing} {path}")]
    File { doing: &'static str, path: String, source: io::Error },
    #[error("processes were left over in the root: {}", processes.join(", "))]
    LeftOver { processes: Vec<String> },
}

impl StepError {
    fn recipe(key: &'static str, value: &str, wrong: impl Into<String>) -> Self {
        Self::Recipe { key, value: value.to_owned(), wrong: wrong.into() }
    }

    fn file(doing: &'static str, path: &str, source: io::Error) -> Self {
        Self::File { doing, path: path.to_owned(), source }
    }

    /// Whether another try could go better.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::TimedOut { .. })
    }

    fn headline(&self) -> String {
        let text = self.to_string();
        let first = text.lines().next().unwrap_or_default();
        first.strip_suffix(TAIL).unwrap_or(first).to_owned()
    }
}

const TAIL: &str = "; its last lines:";

fn shown(tail: &[String]) -> String {
    if tail.is_empty() { String::new() } else { format!("{TAIL}\n    {}", tail.join("\n    ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_two_seconds_to_thirty() {
        let seconds: Vec<u64> = (0..7).map(|tries| pause(tries).as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(pause(u32::MAX).as_secs(), 30);
    }
}
