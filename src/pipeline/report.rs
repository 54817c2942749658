//! A job's result on its way: exactly one is taken, however often it must be sent.

use std::time::Duration;

use super::answer::JobResult;
use crate::cloud::{CloudError, ErrorKind, JobFailure, JobFailureKind, JobId, Jobs, Result};
use crate::host::error::chain;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How long it is tried. Hours of work may hang on it.
const WITHIN: Duration = Duration::from_secs(300);

/// How a result was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Now,
    /// The answer to an earlier try was lost: the job has a result, and only this process could give it one.
    Before,
    /// CodePipeline would not have it as it was, and took a failure that says so.
    Instead,
}

/// What follows a try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Again,
    TakenBefore,
    /// What was refused may be said otherwise: nothing was taken.
    FailInstead,
    GiveUp,
}

/// `lost`: whether an earlier try may have taken effect.
fn next(error: &CloudError, lost: bool, is_success: bool, in_time: bool) -> Next {
    match error.kind {
        ErrorKind::Exists if lost => Next::TakenBefore,
        ErrorKind::Transient
        | ErrorKind::Throttled
        | ErrorKind::Unknown
        | ErrorKind::NotYet
        | ErrorKind::Capacity
            if in_time =>
        {
            Next::Again
        }
        ErrorKind::Invalid | ErrorKind::Quota if is_success && !lost => Next::FailInstead,
        ErrorKind::Exists
        | ErrorKind::Transient
        | ErrorKind::Throttled
        | ErrorKind::Unknown
        | ErrorKind::NotYet
        | ErrorKind::Capacity
        | ErrorKind::Invalid
        | ErrorKind::Quota
        | ErrorKind::NotFound
        | ErrorKind::InUse
        | ErrorKind::Denied => Next::GiveUp,
    }
}

/// Gives a job its result. A stop does not keep it from that: whoever asked for one waits for this, too.
///
/// # Errors
/// The last try's. [`ErrorKind::Exists`]: somebody else gave it one, or it timed out.
pub async fn put(jobs: &dyn Jobs, id: &JobId, result: &JobResult) -> Result<Taken> {
    let began = tokio::time::Instant::now();
    let (mut pause, mut lost) = (FIRST_PAUSE, false);
    let mut instead: Option<JobResult> = None;
    loop {
        let sending = instead.as_ref().unwrap_or(result);
        let sent = match sending {
            JobResult::Success(success) => jobs.succeed(id, success).await,
            JobResult::Failure(failure) => jobs.fail(id, failure).await,
        };
        let Err(error) = sent else {
            return Ok(if instead.is_some() { Taken::Instead } else { Taken::Now });
        };
        let is_success = matches!(sending, JobResult::Success(_));
        match next(&error, lost, is_success, began.elapsed() < WITHIN) {
            Next::Again => {
                lost |= error.kind.may_hide_an_effect();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Next::TakenBefore => return Ok(Taken::Before),
            Next::FailInstead => {
                let message = format!("the work was done, but its result is not taken: {}", chain(&error));
                let failure = JobFailure { kind: JobFailureKind::JobFailed, message, external_id: None };
                instead = Some(JobResult::Failure(failure).within_limits());
            }
            Next::GiveUp => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;

    use super::*;
    use crate::cloud::{
        AccountId, ActionType, ArtifactCredentials, Artifacts, Job, JobArtifact, JobSuccess, OfferedJob,
        Partition, Place, Region,
    };

    fn error(kind: ErrorKind) -> CloudError {
        let place = Place {
            partition: Partition::local(),
            account: AccountId::parse("000000000000").unwrap(),
            region: Region::parse("local").unwrap(),
        };
        CloudError::new(kind, "PutJobSuccessResult", &place, "no")
    }

    /// Answers as it is told, the last first, and keeps what it was asked.
    struct Answers {
        answers: Mutex<Vec<Option<ErrorKind>>>,
        asked: Mutex<Vec<&'static str>>,
    }

    impl Answers {
        fn new(answers: &[Option<ErrorKind>]) -> Self {
            let answers = answers.iter().rev().copied().collect();
            Self { answers: Mutex::new(answers), asked: Mutex::new(Vec::new()) }
        }

        fn answer(&self, what: &'static str) -> Result<()> {
            self.asked.lock().unwrap().push(what);
            self.answers.lock().unwrap().pop().flatten().map_or(Ok(()), |kind| Err(error(kind)))
        }
    }

    struct Nothing;

    #[async_trait]
    impl Artifacts for Nothing {
        async fn fetch(&self, _: &JobArtifact, _: &Path, _: u64) -> Result<u64> {
            Err(error(ErrorKind::NotFound))
        }

        async fn store(&self, _: &Path, _: &JobArtifact, _: Option<&str>) -> Result<()> {
            Err(error(ErrorKind::NotFound))
        }
    }

    #[async_trait]
    impl Jobs for Answers {
        async fn poll(&self, _: &ActionType, _: usize) -> Result<Vec<OfferedJob>> {
            Ok(Vec::new())
        }

        async fn acknowledge(&self, _: &JobId, _: &str) -> Result<bool> {
            Ok(false)
        }

        async fn details(&self, _: &JobId) -> Result<Job> {
            Err(error(ErrorKind::NotFound))
        }

        async fn succeed(&self, _: &JobId, _: &JobSuccess) -> Result<()> {
            self.answer("success")
        }

        async fn fail(&self, _: &JobId, _: &JobFailure) -> Result<()> {
            self.answer("failure")
        }

        fn artifacts(&self, _: &ArtifactCredentials) -> Arc<dyn Artifacts> {
            Arc::new(Nothing)
        }
    }

    async fn given(
        answers: &[Option<ErrorKind>],
    ) -> (std::result::Result<Taken, ErrorKind>, Vec<&'static str>) {
        let id = JobId::parse("01234567-89ab-cdef-0123-456789abcdef").unwrap();
        let jobs = Answers::new(answers);
        let taken = put(&jobs, &id, &JobResult::Success(JobSuccess::default())).await;
        let asked = jobs.asked.lock().unwrap().clone();
        (taken.map_err(|error| error.kind), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_asked_for_again_and_one_result_is_taken() {
        use ErrorKind::{Denied, Exists, Invalid, Throttled, Transient, Unknown};
        assert_eq!(given(&[None]).await, (Ok(Taken::Now), vec!["success"]));
        // It was taken, and the answer was lost.
        for kind in [Transient, Unknown] {
            assert_eq!(given(&[Some(kind), Some(Exists)]).await, (Ok(Taken::Before), vec!["success"; 2]));
        }
        // It was not.
        assert_eq!(given(&[Some(Transient), None]).await, (Ok(Taken::Now), vec!["success"; 2]));
        // A call that was throttled did nothing: the result is somebody else's.
        assert_eq!(given(&[Some(Throttled), Some(Exists)]).await, (Err(Exists), vec!["success"; 2]));
        assert_eq!(given(&[Some(Exists)]).await, (Err(Exists), vec!["success"]));
        assert_eq!(given(&[Some(Denied)]).await, (Err(Denied), vec!["success"]));
        // What CodePipeline does not take as it is: the job must not wait for its time-out.
        assert_eq!(given(&[Some(Invalid), None]).await, (Ok(Taken::Instead), vec!["success", "failure"]));
        assert_eq!(given(&[Some(Invalid), Some(Invalid)]).await, (Err(Invalid), vec!["success", "failure"]));
        // After a lost answer nothing else is said: it may have been taken.
        assert_eq!(given(&[Some(Transient), Some(Invalid)]).await, (Err(Invalid), vec!["success"; 2]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_for_and_not_for_ever() {
        let (ended, asked) = given(&[Some(ErrorKind::Transient); 100]).await;
        assert_eq!(ended, Err(ErrorKind::Transient));
        assert!((15..30).contains(&asked.len()), "{}", asked.len());
    }
}
