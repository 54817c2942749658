//! A stage that somebody waits for: a job of CodePipeline (`--job`), or a worker that started this process. Whatever becomes
//! of the stage, whoever waits is told once.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use super::exit::{Failure, chain};
use super::session::Global;
use crate::cloud::{CloudError, ErrorKind, Job, JobFailureKind, JobId, Jobs, retrying};
use crate::host::stop::Stop;
use crate::image::{Record, environment};
use crate::ledger::Left;
use crate::pipeline::{self, Done, JobResult, StageAnswer, Taken};
use crate::stage::Wait;

/// Who is told how a stage ended.
#[derive(clap::Args, Debug, Clone)]
pub struct JobArgs {
    /// The job of CodePipeline that this is: it is given its result, once, whatever happens.
    #[arg(long, value_name = "ID", env = "BAKEHOUSE_JOB_ID")]
    job: Option<JobId>,
    /// The file in which a worker looks for the answer.
    #[arg(long, hide = true, value_name = "FILE", env = "BAKEHOUSE_ANSWER")]
    answer: Option<PathBuf>,
}

/// How a stage ended that did not fail.
#[derive(Debug)]
pub enum Ended {
    /// With this record.
    Done(PathBuf),
    /// Without a record.
    Made(Done),
    Waits(Wait),
    /// It only showed something.
    Shown,
}

/// Runs a stage and tells whoever waits for it how it ended. The stage is given its job, where it has one.
///
/// # Errors
/// The stage's own; that a job's result was not taken.
pub fn told(
    args: &JobArgs,
    global: &Global,
    stage: &'static str,
    run: impl FnOnce(Option<&Job>) -> anyhow::Result<Ended>,
) -> anyhow::Result<()> {
    if args.job.is_none() && args.answer.is_none() {
        return run(None).map(drop);
    }
    // Of its own, since the stage's ends with the stage; its thread shares nothing with that but the signals.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let stop = runtime.block_on(async { Stop::on_signals() })?;
    let waiting = match &args.job {
        Some(id) => {
            let jobs = runtime.block_on(global.jobs())?;
            let job = runtime.block_on(retrying(&stop, || jobs.details(id)));
            Some((id, jobs, job))
        }
        None => None,
    };
    // The job itself may say why nothing is begun: then it is told, too.
    let began = match &waiting {
        _ if stop.is_requested() => Err(interrupted(&stop)),
        Some((id, _, Err(error))) => Err(no_job(id, error)),
        Some((_, _, Ok(job))) => Ok(Some(job)),
        None => Ok(None),
    };
    let caught = match began {
        Ok(job) => catch_unwind(AssertUnwindSafe(|| run(job))),
        Err(failure) => Ok(Err(failure.into())),
    };
    let caught = caught.map(|ended| ended.map_err(Failure::from));
    let answer = answer(&caught, stage);
    if let (Some(file), Some(answer)) = (&args.answer, &answer)
        && let Err(error) = answer.write(file)
    {
        global.reporter().warning(format!("the answer cannot be written into {}: {error}", file.display()));
    }
    let reported = match (waiting, answer) {
        (Some((id, jobs, _)), Some(answer)) => runtime.block_on(report(id, &*jobs, &answer.result(), global)),
        _ => Ok(()),
    };
    match caught {
        Err(panic) => resume_unwind(panic),
        Ok(Err(failure)) => {
            // The stage's own failure is what the exit code tells.
            if let Err(unreported) = reported {
                global.reporter().warning(unreported.to_string());
            }
            Err(failure.into())
        }
        Ok(Ok(_)) => Ok(reported?),
    }
}

/// Tells the job that the environment names that this command line is none, as far as the environment says where.
pub fn refused(why: &str, global: &Global) {
    let named = std::env::var("BAKEHOUSE_JOB_ID").ok().and_then(|id| JobId::parse(&id));
    let (Some(id), Ok(runtime)) = (named, tokio::runtime::Builder::new_current_thread().enable_all().build())
    else {
        return;
    };
    let failure = Failure::Input(why.to_owned());
    let (kind, code) = (failure.kind(), failure.code());
    let result = StageAnswer::Failed { kind, code, message: failure.to_string() }.result();
    let told = runtime.block_on(async {
        let jobs = global.jobs().await?;
        Ok::<_, anyhow::Error>(report(&id, &*jobs, &result, global).await?)
    });
    if let Err(error) = told {
        global.reporter().warning(format!("{error:#}"));
    }
}

fn interrupted(stop: &Stop) -> Failure {
    Failure::Interrupted { signal: stop.signal().unwrap_or(libc::SIGTERM), left: Left::Nothing }
}

fn no_job(id: &JobId, error: &CloudError) -> Failure {
    match error.kind {
        ErrorKind::NotFound => Failure::Input(format!(
            "--job: {}\nhint: is {id} of this account and region? nothing was begun",
            chain(error)
        )),
        _ => Failure::of(error, Left::Nothing),
    }
}

/// What is told; `None` of a stage that only showed something.
fn answer(caught: &Result<Result<Ended, Failure>, Box<dyn Any + Send>>, stage: &str) -> Option<StageAnswer> {
    Some(match caught {
        Err(panic) => StageAnswer::Failed {
            kind: JobFailureKind::JobFailed,
            code: 101,
            message: format!(
                "{stage} ended by a mistake in Bakehouse: {}\nplease report it, with the log",
                said(panic)
            ),
        },
        Ok(Err(failure)) => {
            StageAnswer::Failed { kind: failure.kind(), code: failure.code(), message: failure.to_string() }
        }
        Ok(Ok(Ended::Waits(wait))) => StageAnswer::Waits {
            stage: stage.to_owned(),
            token: wait.token.as_str().to_owned(),
            percent: wait.percent,
        },
        Ok(Ok(Ended::Done(record))) => match Record::read(record) {
            Ok(found) => StageAnswer::Done(done(&found, record, stage)),
            Err(error) => StageAnswer::Failed {
                kind: JobFailureKind::JobFailed,
                code: 3,
                message: format!("the record is gone: {}", chain(&error)),
            },
        },
        Ok(Ok(Ended::Made(done))) => StageAnswer::Done(done.clone()),
        Ok(Ok(Ended::Shown)) => return None,
    })
}

/// What a panic said.
fn said(panic: &Box<dyn Any + Send>) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}

fn done(record: &Record, path: &Path, stage: &str) -> Done {
    let home = record.home();
    let image = home.map(|home| home.image.to_string());
    let named = format!("{} ({})", image.as_deref().unwrap_or("no image"), record.name);
    let summary = match (stage, &record.test) {
        ("test", Some(test)) => {
            format!("{named}: {} checks passed, {} not judged", test.passed, test.not_judged)
        }
        _ => format!("{named}, {}, by the method {}", record.architecture, record.method),
    };
    // Written with the record; one of another bake would name another image.
    let beside = std::fs::read_to_string(path.with_file_name("bakehouse.env")).unwrap_or_default();
    let mut variables = pipeline::exported(&beside);
    if variables.get("BAKEHOUSE_BAKE") != Some(&record.bake) {
        variables = pipeline::exported(&environment(record));
    }
    Done {
        summary,
        bake: record.bake.clone(),
        image,
        name: record.name.clone(),
        created: record.created.parse().ok(),
        variables,
    }
}

/// Gives the job its result; a signal does not end this.
async fn report(id: &JobId, jobs: &dyn Jobs, result: &JobResult, global: &Global) -> Result<(), Failure> {
    let what = match result {
        JobResult::Success(success) if success.continuation.is_some() => "that it goes on",
        JobResult::Success(_) => "that it succeeded",
        JobResult::Failure(_) => "that it failed",
    };
    match pipeline::put(jobs, id, result).await {
        Ok(Taken::Now | Taken::Before) => {
            global.reporter().note(format!("the job {id} was told {what}"));
            Ok(())
        }
        Ok(Taken::Instead) => Err(Failure::Work {
            message: format!("the job {id} does not take {what}, and was told that it failed"),
            left: Left::Nothing,
        }),
        Err(error) => {
            let failure = Failure::of(&error, Left::Nothing);
            let hint = match error.kind {
                ErrorKind::Exists => "it has a result already, was stopped, or took longer than it may",
                _ => {
                    "the pipeline waits until the action's time is over; stop that execution, or retry the stage then"
                }
            };
            Err(failure.masked(|text| format!("the job {id} was not told {what}: {text}\nhint: {hint}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every failure, as CodePipeline is told it.
    #[test]
    fn every_failure_has_its_kind_and_says_what_it_says_on_the_terminal() {
        use JobFailureKind::{ConfigurationError, JobFailed, PermissionError, SystemUnavailable};
        let left = || Left::Nothing;
        let text = || "bake.yml:3:5: unknown key".to_owned();
        for (failure, wanted, wanted_code) in [
            (Failure::Input(text()), ConfigurationError, 2),
            (Failure::Work { message: text(), left: left() }, JobFailed, 3),
            (Failure::Checks(text()), JobFailed, 6),
            (Failure::Build(text()), JobFailed, 3),
            (Failure::Refused(text()), PermissionError, 5),
            (Failure::Denied { message: text(), left: left() }, PermissionError, 5),
            (Failure::Unavailable { message: text(), left: left() }, SystemUnavailable, 75),
            (Failure::Interrupted { signal: libc::SIGTERM, left: left() }, SystemUnavailable, 143),
        ] {
            let shown = failure.to_string();
            let Some(StageAnswer::Failed { kind, code, message }) = answer(&Ok(Err(failure)), "bake") else {
                panic!("no failure")
            };
            assert_eq!((kind, code, message), (wanted, wanted_code, shown));
        }
    }

    #[test]
    fn a_panic_is_told_with_its_words() {
        for panic in [Box::new("words") as Box<dyn Any + Send>, Box::new("words".to_owned()), Box::new(7)] {
            let wanted = if panic.is::<i32>() { "a panic" } else { "words" };
            let Some(StageAnswer::Failed { kind, message, .. }) = answer(&Err(panic), "bake") else {
                panic!("no failure")
            };
            assert_eq!(kind, JobFailureKind::JobFailed);
            assert!(message.contains(wanted), "{message}");
        }
    }
}
