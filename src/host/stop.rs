//! A request to stop, by SIGINT or SIGTERM, seen by every long wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Tells long work that the user or the build wants it to end. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    signal: Arc<AtomicI32>,
}

impl Stop {
    /// One that never comes: for clean-up, which must run after a stop too.
    #[must_use]
    pub fn never() -> Self {
        Self::default()
    }

    /// One that comes with the first SIGINT or SIGTERM to this process. Needs a running tokio runtime.
    ///
    /// # Errors
    /// Where the kernel refuses the handlers.
    pub fn on_signals() -> std::io::Result<Self> {
        let stop = Self::default();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let watched = stop.clone();
        tokio::spawn(async move {
            let number = tokio::select! {
                _ = interrupt.recv() => libc::SIGINT,
                _ = terminate.recv() => libc::SIGTERM,
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
        self.token.is_cancelled().then(|| self.signal.load(Ordering::SeqCst))
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
