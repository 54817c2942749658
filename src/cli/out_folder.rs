//! The folder for results, one bake's at a time: what stands in it is one bake's as a whole, and two bakes of one thing
//! meet there.

use std::path::Path;
use std::time::Duration;

use super::exit::Failure;
use super::session::Session;
use crate::host::lock::FileLock;
use crate::host::unfinished;
use crate::ledger::Left;

/// How often is looked whether another bake is done.
const LOOK: Duration = Duration::from_millis(200);

/// The folder, made where it is missing, and held until this is dropped.
#[derive(Debug)]
pub struct OutFolder {
    _lock: FileLock,
}

impl OutFolder {
    /// Waits for a bake that has the folder.
    ///
    /// # Errors
    /// [`Failure`]: it cannot be made, or a stop was asked for.
    pub async fn take(out: &Path, session: &Session) -> anyhow::Result<Self> {
        let failed = |what: &str, error: &std::io::Error| {
            Failure::Input(format!("--out: cannot {what} {}: {error}", out.display()))
        };
        std::fs::create_dir_all(out).map_err(|error| failed("make", &error))?;
        let mut told = false;
        loop {
            if let Some(lock) = FileLock::try_folder(out).map_err(|error| failed("lock", &error))? {
                unfinished::clear(out);
                return Ok(Self { _lock: lock });
            }
            if !std::mem::replace(&mut told, true) {
                let note = format!("another bake puts its results into {}; waiting for it", out.display());
                session.reporter.note(note);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = session.stop.requested() => {
                    let message = "a stop was asked for".to_owned();
                    return Err(Failure::Work { message, left: Left::Nothing }.into());
                }
            }
        }
    }
}
