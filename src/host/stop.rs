//! A request to stop, by SIGINT, SIGTERM, SIGHUP or a deadline, seen by every long wait.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::clock;

/// How often the wall clock is looked at for a deadline: it may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(10);

/// Tells long work that the user or the build wants it to end. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    signal: Arc<AtomicI32>,
    deadline: Arc<OnceLock<Timestamp>>,
}

impl Stop {
    /// One that never comes: for clean-up, which must run after a stop too.
    #[must_use]
    pub fn never() -> Self {
        Self::default()
    }

    /// One that comes with the first SIGINT, SIGTERM or SIGHUP to this process: a session that was cut off is cleaned
    /// up after as well. Where SIGHUP is ignored already, as nohup(1) does it, it stays so. Needs a running tokio
    /// runtime.
    ///
    /// # Errors
    /// Where the kernel refuses the handlers.
    pub fn on_signals() -> std::io::Result<Self> {
        let stop = Self::default();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut hangup =
            if ignores(&status, libc::SIGHUP) { None } else { Some(signal(SignalKind::hangup())?) };
        let watched = stop.clone();
        tokio::spawn(async move {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let number = tokio::select! {
                _ = interrupt.recv() => libc::SIGINT,
                _ = terminate.recv() => libc::SIGTERM,
                _ = hung_up => libc::SIGHUP,
            };
            watched.request(number);
        });
        Ok(stop)
    }

    /// Asks for a stop, as signal `number` would.
    pub fn request(&self, number: i32) {
        self.signal.store(number, Ordering::SeqCst);
        self.token.cancel();
    }

    /// The signal that asked, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        let signalled = self.token.is_cancelled() && self.deadline.get().is_none();
        signalled.then(|| self.signal.load(Ordering::SeqCst))
    }

    /// Asks for a stop at a time. By the wall clock: tags that expire go by it, also while a laptop sleeps. Needs a
    /// running tokio runtime.
    pub fn at(&self, deadline: Timestamp) {
        let stop = self.clone();
        tokio::spawn(async move {
            loop {
                let left = deadline.duration_since(clock::wall());
                if stop.is_requested() {
                    return;
                }
                if left <= SignedDuration::ZERO {
                    // Only the first deadline is told.
                    let _ = stop.deadline.set(deadline);
                    return stop.token.cancel();
                }
                tokio::time::sleep(left.unsigned_abs().min(LOOK)).await;
            }
        });
    }

    /// The deadline that asked, if one did.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline.get().copied()
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until a stop is asked for.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }
}

/// Whether a process ignores a signal, by the mask that its proc_pid_status(5) shows.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    u32::try_from(signal - 1).is_ok_and(|bit| mask.checked_shr(bit).is_some_and(|mask| mask & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::exec::Cmd;

    #[tokio::test]
    async fn what_nohup_ignores_is_known() {
        let ignored = |line: &'static str| async move {
            let status = Cmd::new("sh").args(["-c", line]).run(&Stop::never()).await.unwrap().text();
            [libc::SIGHUP, libc::SIGTERM].map(|signal| ignores(&status, signal))
        };
        assert_eq!(ignored("trap '' HUP; cat /proc/self/status").await, [true, false]);
        assert!(ignored("trap '' TERM; cat /proc/self/status").await[1]);
        assert!(!ignores("", libc::SIGHUP) && !ignores("SigIgn:\tx", libc::SIGHUP) && !ignores("", 0));
    }

    #[tokio::test]
    async fn a_deadline_asks_for_a_stop_and_is_no_signal() {
        let stop = Stop::never();
        stop.at(Timestamp::MAX);
        let at = clock::wall();
        stop.at(at);
        stop.requested().await;
        assert_eq!((stop.signal(), stop.deadline()), (None, Some(at)));
    }

    #[tokio::test]
    async fn a_hangup_asks_for_a_stop() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let stop = Stop::on_signals().unwrap();
        if ignores(&status, libc::SIGHUP) {
            // The tests themselves run under nohup: a hangup must go on meaning nothing.
            assert!(!stop.is_requested());
            return;
        }
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
        stop.requested().await;
        assert_eq!(stop.signal(), Some(libc::SIGHUP));
    }
}
