//! The one retry layer. It alone decides by an error's kind whether a call is worth another try.

use std::future::Future;
use std::time::Duration;

use super::{CloudError, ErrorKind, Result};
use crate::host::stop::Stop;

/// Tries for a call that failed on the way or was throttled: with the pauses below about 6 s in all.
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long "not there yet" may last. The EBS team's advice for a snapshot that was just started is two minutes
/// (awslabs/coldsnap#43).
const NOT_YET_WITHIN: Duration = Duration::from_secs(120);

/// Calls until it succeeds, fails for good, is out of tries or time, or a stop is asked for.
///
/// # Errors
/// The last try's.
pub async fn retrying<T, F, Fut>(stop: &Stop, mut call: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let began = tokio::time::Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut failures = 0;
    loop {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        failures += 1;
        if !again(&error, failures, began.elapsed()) || stop.is_requested() {
            return Err(error);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.requested() => return Err(error),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn again(error: &CloudError, failures: u32, waited: Duration) -> bool {
    match error.kind {
        ErrorKind::NotYet => waited < NOT_YET_WITHIN,
        ErrorKind::Throttled | ErrorKind::Transient => failures < ATTEMPTS,
        ErrorKind::NotFound
        | ErrorKind::Exists
        | ErrorKind::InUse
        | ErrorKind::Denied
        | ErrorKind::Quota
        | ErrorKind::Capacity
        | ErrorKind::Invalid
        | ErrorKind::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{AccountId, Partition, Place, Region};

    fn error(kind: ErrorKind) -> CloudError {
        let place = Place {
            partition: Partition::local(),
            account: AccountId::parse("000000000000").unwrap(),
            region: Region::parse("local").unwrap(),
        };
        CloudError::new(kind, "PutSnapshotBlock", &place, "no")
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_call_is_tried_again_and_a_wrong_one_is_not() {
        let mut calls = 0;
        let done = retrying(&Stop::never(), || {
            calls += 1;
            let now = calls;
            async move { if now < 3 { Err(error(ErrorKind::Throttled)) } else { Ok(now) } }
        })
        .await;
        assert_eq!(done.unwrap(), 3);
        let mut calls = 0;
        let failed = retrying(&Stop::never(), || {
            calls += 1;
            async { Err::<(), _>(error(ErrorKind::Invalid)) }
        })
        .await;
        assert_eq!((failed.unwrap_err().kind, calls), (ErrorKind::Invalid, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn not_yet_lasts_two_minutes_and_no_longer() {
        let began = tokio::time::Instant::now();
        let failed = retrying(&Stop::never(), || async { Err::<(), _>(error(ErrorKind::NotYet)) }).await;
        assert_eq!(failed.unwrap_err().kind, ErrorKind::NotYet);
        assert!((120..130).contains(&began.elapsed().as_secs()));
    }
}
