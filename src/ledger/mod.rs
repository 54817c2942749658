//! What was going to be created in a cloud, what was, and what was undone: so that nothing is left behind, whenever the
//! work ends and however.
//!
//! Every creation is an intent that is made durable, then the call with its token and tags, then the id. Unwinding goes
//! in reverse, looks before it deletes, goes on past errors and tells what is stuck. The file is there as long as
//! something in it is not settled, and no longer.
//!
//! Must never: delete what a finished image uses, what is shared, or what carries no tag of ours.

mod entry;
mod left;
mod log;
mod resource;
pub mod sweep;
mod unwind;
pub mod vpcs;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::time::Instant;

pub use entry::{Entry, Event, Intent, Role, State, next};
pub use left::Left;
pub use log::Header;
pub use resource::{Id, Kind};
pub use unwind::{End, Undo};

use crate::cloud::{self, CloudError, ErrorKind, ImageId, retrying};
use crate::host::stop::Stop;
use log::Log;

/// What was announced, until it is found.
#[derive(Debug)]
#[must_use]
pub struct Announced(usize);

/// The ledger of one run of a stage.
#[derive(Debug)]
pub struct Ledger {
    header: Header,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    entries: Vec<Entry>,
    /// When an entry's call may have taken effect at the latest: what is that fresh may not be seen yet. An entry that
    /// has none was refused.
    called: BTreeMap<usize, Instant>,
}

impl Ledger {
    /// The ledger in the file `path`, which is made where it is missing. One that is there is gone on with.
    ///
    /// # Errors
    /// [`LedgerError`]: it cannot be written or read, or is another cloud's.
    pub fn begin(path: &Path, header: Header) -> Result<Self, LedgerError> {
        if let Some(found) = Self::open(path)? {
            return if found.header.cloud == header.cloud {
                Ok(found)
            } else {
                let cloud = found.header.cloud;
                Err(LedgerError::OtherCloud { path: path.to_owned(), cloud })
            };
        }
        // Nothing was announced in what may be there.
        remove(path)?;
        // Half a file would be taken for one that names something.
        let log = Log::create(path, &header).inspect_err(|_| drop(remove(path)))?;
        Ok(Self { header, inner: Mutex::new(Inner { log, entries: Vec::new(), called: BTreeMap::new() }) })
    }

    /// The ledger that an earlier process left in the file `path`; `None` where it left none, or one that announces
    /// nothing.
    ///
    /// # Errors
    /// [`LedgerError`]: it cannot be read.
    pub fn open(path: &Path) -> Result<Option<Self>, LedgerError> {
        let Some((log, header, entries)) = Log::open(path)? else { return Ok(None) };
        // No call was made after the last line but the one that it announces.
        let written = log.age().and_then(|age| Instant::now().checked_sub(age));
        let called = (0..entries.len()).filter_map(|entry| Some((entry, written?))).collect();
        Ok(Some(Self { header, inner: Mutex::new(Inner { log, entries, called }) }))
    }

    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What is in it now.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.inner().entries.clone()
    }

    /// Creates something: the intent, the call (tried again as [`retrying`] does), the id.
    ///
    /// # Errors
    /// [`CreateError::Ledger`] where the intent cannot be written: then nothing was called; or where the id cannot be:
    /// then unwinding this ledger still knows it. [`CreateError::Call`]: the call's last error. Whether it took effect
    /// after all is looked for by [`Ledger::unwind`].
    pub async fn create<I, F, Fut>(&self, intent: Intent, stop: &Stop, mut call: F) -> Result<I, CreateError>
    where
        I: Clone + Into<Id>,
        F: FnMut() -> Fut,
        Fut: Future<Output = cloud::Result<I>>,
    {
        let (commits, shared) = (intent.role == Role::Commit, intent.role == Role::Shared);
        let of_vpc = matches!(intent.kind, Kind::VpcPart(_));
        let entry = self.intend(intent)?;
        let lost = AtomicBool::new(false);
        let lost = &lost;
        let answer = retrying(stop, || {
            let answer = call();
            async move {
                answer.await.inspect_err(|error| {
                    lost.fetch_or(error.kind.may_hide_an_effect(), Ordering::Relaxed);
                })
            }
        })
        .await;
        self.was_called(entry, answer.is_ok() || lost.load(Ordering::Relaxed));
        // One that another run made is gone on with: this run's search for its own would find that.
        let is_anothers = answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Exists)
            && of_vpc
            && !lost.load(Ordering::Relaxed);
        if answer.is_err() && (shared || is_anothers) {
            // Whatever came of it, nothing undoes it: whoever needs it looks for it by its name.
            let _ = self.tell(&[(entry, Event::Undone)]);
        }
        let id = answer?;
        let created = self.tell(&[(entry, Event::Created { id: id.clone().into() })]);
        if commits {
            // It exists, and with it the image: what cannot be written is found out by a look.
            let _ = created.and_then(|()| self.commit());
            return Ok(id);
        }
        created?;
        Ok(id)
    }

    /// Takes over what an earlier process created and handed on.
    ///
    /// # Errors
    /// [`LedgerError`]: it cannot be written.
    pub fn adopt(&self, intent: Intent, id: impl Into<Id>) -> Result<(), LedgerError> {
        let entry = self.intend(intent)?;
        self.tell(&[(entry, Event::Created { id: id.into() })])
    }

    /// Notes what another call creates as well, before that call: where it is not [found](Self::found), it is looked for by
    /// its tags.
    ///
    /// # Errors
    /// [`LedgerError`]: it cannot be written.
    pub fn announce(&self, intent: Intent) -> Result<Announced, LedgerError> {
        self.intend(intent).map(Announced)
    }

    /// The id of what was announced.
    ///
    /// # Errors
    /// [`LedgerError`]: it cannot be written.
    pub fn found(&self, announced: Announced, id: impl Into<Id>) -> Result<(), LedgerError> {
        self.tell(&[(announced.0, Event::Created { id: id.into() })])
    }

    /// All that was created is the user's from now on.
    ///
    /// # Errors
    /// [`LedgerError`]: it cannot be written. In memory it holds all the same.
    pub fn commit(&self) -> Result<(), LedgerError> {
        let created = self.numbers(|entry| entry.state == State::Created && entry.intent.is_for_the_user());
        self.tell(&created.into_iter().map(|entry| (entry, Event::Committed)).collect::<Vec<_>>())
    }

    /// A waiting stage's token has what was created: until then another process goes on with it, and nothing undoes it.
    ///
    /// # Errors
    /// [`LedgerError`]: it cannot be written, or `id` was not created here.
    pub fn hand(&self, id: impl Into<Id>, until: Timestamp) -> Result<(), LedgerError> {
        let id = id.into();
        let entries = self.numbers(|entry| entry.id.as_ref() == Some(&id));
        if entries.is_empty() {
            return Err(LedgerError::Illegal { what: format!("handing on {id}, which is not in it") });
        }
        self.tell(&entries.into_iter().map(|entry| (entry, Event::Handed { until })).collect::<Vec<_>>())
    }

    /// The image whose registration was the commit.
    #[must_use]
    pub fn image(&self) -> Option<ImageId> {
        self.entries().into_iter().find_map(|entry| match entry.id {
            Some(Id::Image(id)) if entry.intent.role == Role::Commit => Some(id),
            Some(Id::Image(id)) if entry.intent.role == Role::Result && entry.state == State::Committed => {
                Some(id)
            }
            _ => None,
        })
    }

    /// Whether nothing in it is to be done any more.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.inner().entries.iter().all(Entry::is_settled)
    }

    /// Removes the file where everything in it is settled, and says whether that is so.
    ///
    /// # Errors
    /// [`LedgerError::Write`]
    pub fn close(&self) -> Result<bool, LedgerError> {
        let settled = self.is_settled();
        if settled {
            remove(self.inner().log.path())?;
        }
        Ok(settled)
    }

    fn intend(&self, intent: Intent) -> Result<usize, LedgerError> {
        let mut inner = self.inner();
        let entry = inner.entries.len();
        let path = inner.log.path().to_owned();
        inner.log.intended(entry, &intent).map_err(|source| LedgerError::Write { path, source })?;
        inner.entries.push(Entry::new(intent));
        inner.called.insert(entry, Instant::now());
        Ok(entry)
    }

    /// Notes whether an entry's call, which was just answered, may have taken effect.
    fn was_called(&self, entry: usize, with_effect: bool) {
        let called = &mut self.inner().called;
        if with_effect {
            called.insert(entry, Instant::now());
        } else {
            called.remove(&entry);
        }
    }

    /// Takes events in, first in memory: that holds whatever the disk says.
    fn tell(&self, events: &[(usize, Event)]) -> Result<(), LedgerError> {
        let mut inner = self.inner();
        for (entry, event) in events {
            let taken = inner.entries.get_mut(*entry).is_some_and(|entry| entry.take(event));
            if !taken {
                return Err(LedgerError::Illegal { what: format!("{event:?} of entry {entry}") });
            }
        }
        let path = inner.log.path().to_owned();
        inner.log.happened(events).map_err(|source| LedgerError::Write { path, source })
    }

    fn numbers(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<usize> {
        let inner = self.inner();
        let entries = inner.entries.iter().enumerate();
        entries.filter(|(_, entry)| wanted(entry)).map(|(number, _)| number).collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What panicked while it held the lock changed one entry as a whole or not at all.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(path: &Path) -> Result<(), LedgerError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(LedgerError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Why something was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    Call(#[from] CloudError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(
        "cannot write the ledger {}, without which nothing is created; name another work folder with --work",
        path.display()
    )]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot read the ledger {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "the ledger {} is damaged in line {line}: {why}; remove it, and `bakehouse sweep` finds what it names when that has expired",
        path.display()
    )]
    Damaged { path: PathBuf, line: usize, why: String },
    #[error("the ledger {} is of another cloud: {cloud}", path.display())]
    OtherCloud { path: PathBuf, cloud: String },
    #[error("the ledger does not allow {what}")]
    Illegal { what: String },
}
