//! Undoing what a ledger says was created, the last first. Each thing is looked at before it is deleted; an error does
//! not end the unwinding; what is stuck stays in the ledger for the next who tries.

use jiff::Timestamp;

use super::entry::{Entry, Event, Role, State};
use super::{Id, Kind, Ledger, Left};
use crate::cloud::{
    Cloud, CloudError, Clouds, ErrorKind, Image, ImageId, ImageQuery, InstanceQuery, InstanceState,
    SnapshotId, SnapshotQuery, retrying,
};
use crate::host::error::chain;
use crate::host::stop::Stop;

/// What came of undoing one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    pub kind: Kind,
    /// Its id and place; where the id is not known, what it was to be.
    pub what: String,
    pub end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Removed,
    /// It was gone already, or never was.
    Absent,
    /// It is the user's: with why.
    Kept(String),
    /// A waiting stage goes on with it.
    Waiting(Timestamp),
    /// It is still there: with why.
    Stuck(String),
    /// Nobody could tell whether it is there: with why.
    Unseen(String),
}

impl Undo {
    /// Adds what should be gone and is not.
    pub fn add_stuck(&self, left: &mut Left) {
        let Self { kind, what, end } = self;
        match end {
            End::Removed | End::Absent | End::Waiting(_) | End::Kept(_) => {}
            End::Stuck(why) => left.add(format!("{kind} {what}: {why}")),
            End::Unseen(why) => left.add_unseen(format!("{kind} {what}: {why}")),
        }
    }

    /// Adds what is still there, also what is the user's: for work that failed and has nothing to show for it.
    pub fn add_all(&self, left: &mut Left) {
        match &self.end {
            End::Kept(why) => left.add(format!("{} {}: {why}", self.kind, self.what)),
            _ => self.add_stuck(left),
        }
    }
}

impl Ledger {
    /// Undoes what is not settled, in reverse. Where all of it is settled then, the file is removed.
    pub async fn unwind(&self, clouds: &dyn Clouds, now: Timestamp) -> Vec<Undo> {
        let entries = self.entries();
        let mut undone = Vec::new();
        for (number, entry) in entries.iter().enumerate().rev() {
            if entry.is_settled() {
                continue;
            }
            if let Some(until) = entry.until.filter(|until| entry.state == State::Handed && *until > now) {
                undone.push(Undo { kind: entry.intent.kind, what: entry.named(), end: End::Waiting(until) });
                continue;
            }
            undone.extend(self.undo(number, entry, &entries, clouds).await);
        }
        // Its file stays where it cannot be removed: whoever reads it again finds nothing to undo.
        let _ = self.close();
        undone
    }

    async fn undo(&self, number: usize, entry: &Entry, all: &[Entry], clouds: &dyn Clouds) -> Vec<Undo> {
        let kind = entry.intent.kind;
        let one = |what: String, end: End| Undo { kind, what, end };
        // What cannot be written now is found out by the look of the next who reads the file.
        let tell = |event: Event| drop(self.tell(&[(number, event)]));
        let cloud = match clouds.at(&entry.intent.place) {
            Ok(cloud) => cloud,
            Err(error) => {
                tell(Event::Stuck { why: error.to_string() });
                return vec![one(entry.named(), End::Unseen(error.to_string()))];
            }
        };
        let ids = match &entry.id {
            Some(id) => vec![id.clone()],
            None => match find(entry, &cloud).await {
                Ok(found) => {
                    found.into_iter().filter(|id| all.iter().all(|e| e.id.as_ref() != Some(id))).collect()
                }
                Err(error) => {
                    tell(Event::Stuck { why: error.to_string() });
                    return vec![one(entry.named(), End::Unseen(chain(&error)))];
                }
            },
        };
        if let (None, Some(id)) = (&entry.id, ids.first()) {
            tell(Event::Created { id: id.clone() });
        }
        let mut undone = Vec::new();
        for id in ids {
            let end = match entry.intent.role {
                Role::Temporary => remove(&id, &cloud).await,
                Role::Commit => End::Kept(format!("it was registered after all ({})", entry.intent.what)),
                Role::Shared => End::Absent,
            };
            undone.push(one(format!("{id} in {}", cloud.place), end));
        }
        let stuck = undone.iter().find_map(|undo| match &undo.end {
            End::Stuck(why) | End::Unseen(why) => Some(why.clone()),
            _ => None,
        });
        match stuck {
            Some(why) => tell(Event::Stuck { why }),
            None if undone.iter().any(|undo| matches!(undo.end, End::Kept(_))) => tell(Event::Committed),
            None => tell(Event::Undone),
        }
        undone
    }
}

/// What a call made whose answer was lost: by its tags, in its place.
async fn find(entry: &Entry, cloud: &Cloud) -> Result<Vec<Id>, CloudError> {
    let tags = entry.intent.own_tags();
    if tags.is_empty() {
        // Without a tag of ours everything would be found.
        return Ok(Vec::new());
    }
    let never = Stop::never();
    Ok(match entry.intent.kind {
        Kind::Snapshot => {
            let query = SnapshotQuery { tags, ..SnapshotQuery::default() };
            let found = retrying(&never, || cloud.snapshots.describe(&query)).await?;
            found.into_iter().map(|snapshot| snapshot.id.into()).collect()
        }
        Kind::Image => {
            let query = ImageQuery { tags, ..ImageQuery::default() };
            let found = retrying(&never, || cloud.images.find(&query)).await?;
            let named = |name: &str| entry.intent.role != Role::Commit || name == entry.intent.what;
            found.into_iter().filter(|image| named(&image.name)).map(|image| image.id.into()).collect()
        }
        Kind::Instance => {
            let query = InstanceQuery { tags, ..InstanceQuery::default() };
            let found = retrying(&never, || cloud.instances.find(&query)).await?;
            found.into_iter().filter(|one| !is_over(one.state)).map(|one| one.id.into()).collect()
        }
    })
}

/// Looks, deletes what is there, and says what came of it.
pub(super) async fn remove(id: &Id, cloud: &Cloud) -> End {
    let never = Stop::never();
    let removed = async {
        if !is_there(id, cloud).await? {
            return Ok(false);
        }
        match id {
            Id::Snapshot(id) => retrying(&never, || cloud.snapshots.delete(id)).await?,
            Id::Image(id) => retrying(&never, || cloud.images.deregister(id)).await?,
            Id::Instance(id) => retrying(&never, || cloud.instances.terminate(id)).await?,
        }
        Ok::<_, CloudError>(true)
    };
    match removed.await {
        Ok(true) => End::Removed,
        Ok(false) => End::Absent,
        Err(error) if error.kind == ErrorKind::NotFound => End::Absent,
        Err(error) => match (error.kind, id) {
            (ErrorKind::InUse, Id::Snapshot(snapshot)) => match users_of(snapshot, cloud).await {
                Ok(users) if !users.is_empty() => {
                    let users: Vec<_> = users.iter().map(ToString::to_string).collect();
                    End::Kept(format!("the image {} was registered and uses it", users.join(", ")))
                }
                _ => End::Stuck(chain(&error)),
            },
            _ => End::Stuck(chain(&error)),
        },
    }
}

async fn is_there(id: &Id, cloud: &Cloud) -> Result<bool, CloudError> {
    let never = Stop::never();
    Ok(match id {
        Id::Snapshot(id) => {
            let query = SnapshotQuery { ids: vec![id.clone()], ..SnapshotQuery::default() };
            !retrying(&never, || cloud.snapshots.describe(&query)).await?.is_empty()
        }
        Id::Image(id) => {
            let query = ImageQuery { ids: vec![id.clone()], ..ImageQuery::default() };
            !retrying(&never, || cloud.images.find(&query)).await?.is_empty()
        }
        Id::Instance(id) => {
            let query = InstanceQuery { ids: vec![id.clone()], ..InstanceQuery::default() };
            let found = retrying(&never, || cloud.instances.find(&query)).await?;
            found.iter().any(|one| !is_over(one.state))
        }
    })
}

/// The account's own images that have a snapshot as one of their volumes.
async fn users_of(snapshot: &SnapshotId, cloud: &Cloud) -> Result<Vec<ImageId>, CloudError> {
    let images = own_images(cloud).await?;
    Ok(images.into_iter().filter(|image| image.uses(snapshot)).map(|image| image.id).collect())
}

/// All images of the account's own.
pub(super) async fn own_images(cloud: &Cloud) -> Result<Vec<Image>, CloudError> {
    let query = ImageQuery::default();
    retrying(&Stop::never(), || cloud.images.find(&query)).await
}

/// Whether an instance ended, or is about to, so that nothing is left to be done.
pub(super) fn is_over(state: InstanceState) -> bool {
    matches!(state, InstanceState::ShuttingDown | InstanceState::Terminated)
}
