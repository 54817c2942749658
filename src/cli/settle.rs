//! The end of work that has a ledger and a work folder: committed, or undone.

use super::exit::chain;
use super::session::Session;
use crate::host::clock;
use crate::ledger::{Ledger, LedgerError, Left, Undo};
use crate::method::WorkDir;

/// Work that failed, and what came of undoing it.
pub struct Undone<E> {
    pub error: E,
    pub undone: Vec<Undo>,
    /// What is still there.
    pub left: Left,
}

/// Commits what was made, or undoes what there is of it, and closes ledger and folder. Of what is good, what a clean-up could
/// not take away is told, and is no failure.
///
/// # Errors
/// The work's own, or that it could not be committed.
pub async fn settle<T, E: From<LedgerError>>(
    made: Result<T, E>,
    ledger: &Ledger,
    work: WorkDir,
    session: &Session,
) -> Result<T, Undone<E>> {
    match made.and_then(|made| Ok(ledger.commit().map(|()| made)?)) {
        Ok(made) => {
            let settled = ledger.close().map(drop).map_err(|error| chain(&error));
            let closed = work.close().map_err(|error| chain(&error));
            for what in [settled, closed].into_iter().filter_map(Result::err) {
                session.reporter.warning(format!("left behind: {what}"));
            }
            Ok(made)
        }
        Err(error) => {
            let mut left = Left::Nothing;
            let undone = ledger.unwind(&*session.clouds, clock::wall()).await;
            for undo in &undone {
                undo.add_all(&mut left);
            }
            if let Err(error) = work.close() {
                left.add(chain(&error));
            }
            Err(Undone { error, undone, left })
        }
    }
}
