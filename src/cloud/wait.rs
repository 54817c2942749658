//! Waiting for a cloud: one loop, with a named deadline, that a stop ends.

use std::future::Future;
use std::time::Duration;

use super::{CloudError, ErrorKind, Place, Result};
use crate::host::stop::Stop;

/// How long to wait and how often to look.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// What is waited for, for the error: `snapshot completed`.
    pub what: &'static str,
    /// How often in the long run: it begins sixteen times as often, since most things are there nearly at once.
    pub every: Duration,
    pub within: Duration,
}

/// Looks until `look` gives something. `NotYet`, `Throttled` and `Transient` errors are looked at again; others end it.
///
/// # Errors
/// `look`'s own, or `NotYet` when the time is over or a stop was asked for.
pub async fn until<T, F, Fut>(wait: Wait, place: &Place, stop: &Stop, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let deadline = tokio::time::Instant::now() + wait.within;
    let mut pause = wait.every / 16;
    loop {
        let last = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error)
                if matches!(error.kind, ErrorKind::NotYet | ErrorKind::Throttled | ErrorKind::Transient) =>
            {
                Some(error)
            }
            Err(error) => return Err(error),
        };
        let over = tokio::time::Instant::now() + pause > deadline;
        if over || stop.is_requested() {
            let why =
                if over { format!("not within {} s", wait.within.as_secs()) } else { "stopped".to_owned() };
            let error = CloudError::new(ErrorKind::NotYet, "wait", place, format!("{}: {why}", wait.what));
            return Err(match last {
                Some(last) => error.with_source(last),
                None => error,
            });
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.requested() => {}
        }
        pause = (pause * 2).min(wait.every);
    }
}
