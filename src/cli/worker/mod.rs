//! `bakehouse worker`: does the jobs of a custom action of CodePipeline, several at once, until it is stopped.

mod build;
mod source;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::bake::clear_orphans;
use super::exit::{Failure, chain};
use super::session::{self, Global, Mounts, Session};
use crate::cloud::{
    ActionCategory, ActionType, CloudError, ErrorKind, Job, JobFailure, JobFailureKind, JobId, Jobs,
    OfferedJob, retrying,
};
use crate::host::stop::Stop;
use crate::host::survivors;
use crate::ledger::Left;
use crate::method::WorkDir;
use crate::pipeline::{self, JobResult, Taken};
use crate::recipe::Span;
use crate::report::Reporter;
use build::Builder;

/// Where a build's programs find the file that they answer into.
const ANSWER_VARIABLE: &str = "BAKEHOUSE_ANSWER";
/// How long the build of a worker that was killed has to end.
const ENDING: Duration = Duration::from_secs(60);
/// The file in a job's folder that names the job: a worker that was killed is found by it.
const NAME: &str = "job";

/// Do the jobs of a custom action of CodePipeline: fetch its input, run its buildspec or recipe, give its output.
///
/// It runs until it is stopped by a signal; then the jobs at hand are ended, cleaned up, and told to the pipeline as
/// failed. docs/jobs.md says how to make the action type, and what a job's configuration may hold.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The action type's provider.
    #[arg(long, value_name = "NAME", env = "BAKEHOUSE_PROVIDER", default_value = "Bakehouse")]
    provider: String,
    /// The action type's version.
    #[arg(long, value_name = "VERSION", env = "BAKEHOUSE_PROVIDER_VERSION", default_value = "1")]
    version: String,
    /// The action type's category.
    #[arg(long, value_enum, env = "BAKEHOUSE_CATEGORY", ignore_case = true, default_value = "build")]
    category: Category,
    /// How many jobs are done at once.
    #[arg(long, value_name = "N", env = "BAKEHOUSE_JOBS", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// How often is asked for jobs.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = Span::parse, env = "BAKEHOUSE_POLL")]
    every: Span,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Category {
    Build,
    Test,
    Deploy,
}

impl Category {
    fn meant(self) -> ActionCategory {
        match self {
            Self::Build => ActionCategory::Build,
            Self::Test => ActionCategory::Test,
            Self::Deploy => ActionCategory::Deploy,
        }
    }
}

/// The verb.
pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let of = ActionType {
        category: args.category.meant(),
        provider: args.provider.clone(),
        version: args.version.clone(),
    };
    session::run(global, Mounts::No, |session| async move {
        let jobs = global.jobs().await?;
        clear_killed(&*jobs, &session, global).await;
        let worker = Worker {
            most: args.jobs.into(),
            every: args.every.duration(),
            builder: Arc::new(Builder::new(&session, global, of.category, jobs.clone())?),
            of,
            jobs,
            running: JoinSet::new(),
            doubtful: Vec::new(),
            reporter: session.reporter.clone(),
            stop: session.stop.clone(),
        };
        worker.work().await
    })
}

struct Worker {
    of: ActionType,
    most: usize,
    every: Duration,
    jobs: Arc<dyn Jobs>,
    builder: Arc<Builder>,
    running: JoinSet<()>,
    /// Jobs whose acknowledgement has not been answered: they may be this worker's.
    doubtful: Vec<OfferedJob>,
    reporter: Reporter,
    stop: Stop,
}

impl Worker {
    async fn work(mut self) -> anyhow::Result<()> {
        self.reporter.note(format!("waiting for jobs of {}, {} at once", self.of, self.most));
        let mut away = false;
        let ended = loop {
            if self.stop.is_requested() {
                break Ok(());
            }
            for offered in std::mem::take(&mut self.doubtful) {
                self.take(offered).await;
            }
            let free = self.most.saturating_sub(self.running.len() + self.doubtful.len());
            if free > 0 {
                match self.jobs.poll(&self.of, free).await {
                    Ok(offered) => {
                        if std::mem::take(&mut away) {
                            self.reporter.note("CodePipeline answers again");
                        }
                        for one in offered {
                            self.take(one).await;
                        }
                    }
                    Err(error) if passes(&error) => {
                        if !std::mem::replace(&mut away, true) {
                            self.reporter.warning(format!("CodePipeline is asked again: {}", chain(&error)));
                        }
                    }
                    Err(error) => break Err(error),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                () = self.stop.requested() => {}
                Some(_) = self.running.join_next(), if !self.running.is_empty() => {}
            }
        };
        if !self.running.is_empty() {
            self.reporter.note(format!("waiting for the jobs at hand ({})", self.running.len()));
        }
        // A stop ends what they do, and each tells its pipeline. Nobody waits for the others but this.
        while self.running.join_next().await.is_some() {}
        for offered in std::mem::take(&mut self.doubtful) {
            self.give_back(&offered).await;
        }
        match ended {
            Ok(()) => {
                let signal = self.stop.signal().unwrap_or(libc::SIGTERM);
                Err(Failure::Interrupted { signal, left: Left::Nothing }.into())
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                let category = self.of.category.as_str();
                Err(Failure::Input(format!(
                    "{}\nhint: there is no action type {} in this account and region; make it with `aws codepipeline \
                     create-custom-action-type`, category {category} (examples/worker), or name another by --provider, --version and \
                     --category",
                    chain(&error),
                    self.of
                ))
                .into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Acknowledges a job and begins it, where it is this worker's then.
    async fn take(&mut self, offered: OfferedJob) {
        let OfferedJob { job, nonce } = &offered;
        let id = job.id.clone();
        match retrying(&self.stop, || self.jobs.acknowledge(&id, nonce)).await {
            Ok(true) => self.begin(offered.job),
            Ok(false) => self.reporter.note(format!("the job {id} was over before it was begun")),
            // Another worker has it, or will have.
            Err(error) if error.kind == ErrorKind::InUse => {
                self.reporter.note(format!("the job {id} is another worker's"));
            }
            Err(error) if passes(&error) => {
                self.reporter.warning(format!("the job {id} is asked for again: {}", chain(&error)));
                self.doubtful.push(offered);
            }
            Err(error) => self.reporter.warning(format!("the job {id} is not begun: {}", chain(&error))),
        }
    }

    fn begin(&mut self, job: Job) {
        let (builder, jobs, reporter) = (self.builder.clone(), self.jobs.clone(), self.reporter.clone());
        self.running.spawn(async move {
            let id = job.id.clone();
            // On a thread of its own: a panic of one job is that job's failure.
            let here = Handle::current();
            let done = tokio::task::spawn_blocking(move || here.block_on(builder.result(&job)));
            let result = match done.await {
                Ok(result) => result,
                Err(broken) => JobResult::Failure(JobFailure {
                    kind: JobFailureKind::JobFailed,
                    message: format!("the job ended by a mistake in Bakehouse ({broken}); please report it, with the worker's log"),
                    external_id: None,
                }),
            };
            tell(&*jobs, &id, &result, &reporter).await;
        });
    }

    /// What may have become this worker's while nobody answered, and will not be begun any more.
    async fn give_back(&self, offered: &OfferedJob) {
        let OfferedJob { job, nonce } = offered;
        if retrying(&Stop::never(), || self.jobs.acknowledge(&job.id, nonce)).await.is_ok_and(|own| own) {
            tell(
                &*self.jobs,
                &job.id,
                &unavailable("the worker was stopped before it began"),
                &self.reporter,
            )
            .await;
        }
    }
}

/// Whether an error of a call passes, and the call is worth another try some time later.
fn passes(error: &CloudError) -> bool {
    matches!(
        error.kind,
        ErrorKind::Transient
            | ErrorKind::Throttled
            | ErrorKind::Unknown
            | ErrorKind::NotYet
            | ErrorKind::Capacity
    )
}

fn unavailable(why: &str) -> JobResult {
    let message = format!("{why}; retry the stage");
    JobResult::Failure(JobFailure { kind: JobFailureKind::SystemUnavailable, message, external_id: None })
}

/// Gives a job its result, and says so.
async fn tell(jobs: &dyn Jobs, id: &JobId, result: &JobResult, reporter: &Reporter) {
    let what = match result {
        JobResult::Success(success) if success.continuation.is_some() => "goes on later".to_owned(),
        JobResult::Success(_) => "succeeded".to_owned(),
        JobResult::Failure(failure) => format!("failed ({:?}): {}", failure.kind, failure.message),
    };
    let told = match pipeline::put(jobs, id, result).await {
        Ok(Taken::Now | Taken::Before) => return reporter.note(format!("the job {id} {what}")),
        Ok(Taken::Instead) => "but CodePipeline does not take that result".to_owned(),
        Err(error) => format!("and CodePipeline was not told: {}", chain(&error)),
    };
    reporter.warning(format!("the job {id} {what}, {told}"));
}

/// Fails the jobs of workers on this host that were killed, and takes away what they left.
async fn clear_killed(jobs: &dyn Jobs, session: &Session, global: &Global) {
    for entry in std::fs::read_dir(global.work()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Nobody else's, while this holds its lock.
        let Some(work) = killed(&global.work(), &name) else { continue };
        // Its builds have outlived it: a bake takes away what it made.
        let answer = work.path().join(build::ANSWER);
        for ended in survivors::end_by_variable(ANSWER_VARIABLE, answer.as_os_str(), ENDING).await {
            session.reporter.note(format!("ended {ended}, of a worker that was killed"));
        }
        let text = std::fs::read_to_string(work.path().join(NAME)).unwrap_or_default();
        if let Some(id) = JobId::parse(text.trim()) {
            let result = unavailable(
                "the worker was killed, and what it had begun ended; what that left is taken away by sweep",
            );
            match pipeline::put(jobs, &id, &result).await {
                Ok(_) => session.reporter.note(format!("the job {id} was told that its worker was killed")),
                // Its result was told before, or its time is over.
                Err(error) if matches!(error.kind, ErrorKind::Exists | ErrorKind::NotFound) => {}
                Err(error) => {
                    session.reporter.warning(format!(
                        "the job {id} was not told that its worker was killed: {}",
                        chain(&error)
                    ));
                }
            }
        }
        // For whoever clears what was left.
        let _path = work.keep();
    }
    clear_orphans(session, global).await;
}

fn killed(base: &Path, name: &str) -> Option<WorkDir> {
    let is_job = name.starts_with(&format!("{NAME}-"));
    if is_job { WorkDir::open(base, name).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{AccountId, Partition, Place, Region};

    #[test]
    fn what_passes_is_waited_for_and_what_does_not_ends_the_worker() {
        let place = Place {
            partition: Partition::local(),
            account: AccountId::parse("000000000000").unwrap(),
            region: Region::parse("local").unwrap(),
        };
        let error = |kind| CloudError::new(kind, "PollForJobs", &place, "no");
        for kind in [ErrorKind::Transient, ErrorKind::Throttled, ErrorKind::Unknown] {
            assert!(passes(&error(kind)), "{kind:?}");
        }
        for kind in [ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::Invalid, ErrorKind::InUse] {
            assert!(!passes(&error(kind)), "{kind:?}");
        }
    }
}
