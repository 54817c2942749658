//! Undoing what a ledger says was created, the last first. Each thing is looked at before it is deleted; an error does
//! not end the unwinding; what is stuck stays in the ledger for the next who tries.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::entry::{Entry, Event, Intent, Role, State};
use super::{Id, Kind, Ledger, Left, sweep, vpcs};
use crate::cloud::{
    Cloud, CloudError, Clouds, ErrorKind, Image, ImageId, ImageQuery, InstanceQuery, InstanceState,
    ObjectsId, SnapshotQuery, Volume, VolumeId, VolumeQuery, VolumeState, retrying,
};
use crate::host::error::chain;
use crate::host::stop::Stop;

/// How often is looked for what may not be seen yet.
pub(super) const LOOK: Duration = Duration::from_secs(2);
/// How long an instance that is ending is waited for: EC2 takes the power away from a system that does not end, after some
/// minutes.
pub(super) const ENDING: Duration = Duration::from_secs(300);
/// How long a volume may take to be detached. One that is mounted never is.
const DETACHING: Duration = Duration::from_secs(120);

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

/// Images that were deregistered just now: EC2 may show them, and keep their snapshots as in use, for a while.
#[derive(Debug)]
pub(super) struct Deregistered {
    images: Vec<ImageId>,
    settles_within: Duration,
    /// When nothing of them is seen any more. From the beginning on: another process may have deregistered one.
    over: Instant,
}

impl Deregistered {
    pub fn none_yet(settles_within: Duration) -> Self {
        Self { images: Vec::new(), settles_within, over: Instant::now() + settles_within }
    }

    /// Takes note of one that was removed, where it is an image.
    pub fn add(&mut self, id: &Id) {
        if let Id::Image(image) = id {
            self.images.push(image.clone());
            self.over = Instant::now() + self.settles_within;
        }
    }
}

/// Whether things are removed, or only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Real,
    Dry,
}

/// By what something may be removed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Warrant<'a> {
    /// A ledger says that its own run created it.
    Created(&'a Intent),
    /// It expired, and nobody uses it. These instances were ended for the same reason.
    Expired { now: Timestamp, ended: &'a [Id] },
}

impl Warrant<'_> {
    /// What became of something that may not be removed any more, or of which nobody can tell. Only with a VPC another run
    /// goes on, and only into one somebody comes.
    async fn lapsed(self, id: &Id, cloud: &Cloud) -> Option<End> {
        let Id::VpcPart(part) = id else { return None };
        let stays = match self {
            Self::Created(intent) => vpcs::taken_over(part, intent, cloud).await,
            Self::Expired { now, ended } => sweep::stays(part, now, ended, cloud).await,
        };
        match stays {
            Ok(why) => why.map(End::Kept),
            Err(error) => Some(End::Unseen(chain(&error))),
        }
    }
}

impl Ledger {
    /// Undoes what is not settled, in reverse. Where all of it is settled then, the file is removed.
    pub async fn unwind(&self, clouds: &dyn Clouds, now: Timestamp) -> Vec<Undo> {
        let undone = self.undo_all(clouds, now).await;
        // Its file stays where it cannot be removed: whoever reads it again finds nothing to undo.
        let _ = self.close();
        undone
    }

    /// The same for whoever needs the file a little longer.
    pub async fn undo_all(&self, clouds: &dyn Clouds, now: Timestamp) -> Vec<Undo> {
        self.each(clouds, now, Run::Real).await
    }

    /// What unwinding would do, told as if it were done. Looks only.
    pub async fn would_unwind(&self, clouds: &dyn Clouds, now: Timestamp) -> Vec<Undo> {
        self.each(clouds, now, Run::Dry).await
    }

    /// From when on what an entry's call made is seen; a time that is over where that is so already.
    fn seen_from(&self, number: usize, clouds: &dyn Clouds) -> Instant {
        let called = self.inner().called.get(&number).copied();
        called.map_or_else(Instant::now, |called| called + clouds.settles_within())
    }

    async fn each(&self, clouds: &dyn Clouds, now: Timestamp, run: Run) -> Vec<Undo> {
        let entries = self.entries();
        let mut undone: Vec<Undo> = Vec::new();
        let mut gone = Deregistered::none_yet(clouds.settles_within());
        let mut is_committed = false;
        for (number, entry) in entries.iter().enumerate().rev() {
            if entry.is_settled() || (is_committed && entry.intent.is_for_the_user()) {
                continue;
            }
            let handed = entry.until.filter(|until| entry.state == State::Handed && *until > now);
            if let Some(until) = handed
                && self.may_be_there(number, entry, clouds).await
            {
                undone.push(Undo { kind: entry.intent.kind, what: entry.named(), end: End::Waiting(until) });
                continue;
            }
            if run == Run::Real && entry.intent.kind == Kind::Objects {
                // Its agent may write there until it is gone.
                instances_ended(&entries, clouds).await;
            }
            let ends = self.undo(number, &entries, clouds, run, &gone).await;
            let removed = ends.iter().filter(|(_, undo)| undo.end == End::Removed);
            removed.filter_map(|(id, _)| id.as_ref()).for_each(|id| gone.add(id));
            let committed = entry.intent.role == Role::Commit
                && ends.iter().any(|(_, undo)| matches!(undo.end, End::Kept(_)));
            if run == Run::Real {
                self.settle(number, entry, &ends);
            }
            undone.extend(ends.into_iter().map(|(_, undo)| undo));
            if committed {
                // A commit that came to light: all that was created before it is the user's too, but for what only served
                // to make it.
                if run == Run::Real {
                    // What cannot be written now is found out by the look of the next who reads the file.
                    let _ = self.commit();
                }
                is_committed = true;
            }
        }
        undone
    }

    /// Notes what became of an entry.
    fn settle(&self, number: usize, entry: &Entry, ends: &[(Option<Id>, Undo)]) {
        // As for a commit that came to light.
        let tell = |event: Event| drop(self.tell(&[(number, event)]));
        let stuck = ends.iter().find_map(|(_, undo)| match &undo.end {
            End::Stuck(why) | End::Unseen(why) => Some(why.clone()),
            _ => None,
        });
        // Of several that are stuck, all are to be found by their tags again.
        if let (None, Some(id)) = (&entry.id, ends.iter().find_map(|(id, _)| id.clone()))
            && (stuck.is_none() || ends.len() == 1)
        {
            tell(Event::Created { id });
        }
        tell(match stuck {
            Some(why) => Event::Stuck { why },
            None if ends.iter().any(|(_, undo)| matches!(undo.end, End::Kept(_))) => Event::Committed,
            None => Event::Undone,
        });
    }

    /// Whoever goes on with it may have ended it before its time.
    async fn may_be_there(&self, number: usize, entry: &Entry, clouds: &dyn Clouds) -> bool {
        let (Some(id), Ok(cloud)) = (&entry.id, clouds.at(&entry.intent.place)) else { return true };
        match look(id, &cloud).await {
            Ok(Sight::Over) => false,
            Ok(Sight::Unknown) => Instant::now() < self.seen_from(number, clouds),
            Ok(Sight::There) | Err(_) => true,
        }
    }

    /// Undoes one entry, which may turn out to be none, or several.
    async fn undo(
        &self,
        number: usize,
        all: &[Entry],
        clouds: &dyn Clouds,
        run: Run,
        gone: &Deregistered,
    ) -> Vec<(Option<Id>, Undo)> {
        let entry = &all[number];
        let kind = entry.intent.kind;
        let unseen =
            |error: &CloudError| (None, Undo { kind, what: entry.named(), end: End::Unseen(chain(error)) });
        let cloud = match clouds.at(&entry.intent.place) {
            Ok(cloud) => cloud,
            Err(error) => return vec![unseen(&error)],
        };
        let several = entry.intent.may_be_several();
        // What is announced is made by a call that is announced after it.
        let calls = number..if several { all.len() } else { number + 1 };
        // A dry run tells what is to be seen now.
        let seen_from = match run {
            Run::Real => calls.map(|call| self.seen_from(call, clouds)).max(),
            Run::Dry => None,
        };
        let seen_from = seen_from.unwrap_or_else(Instant::now);
        let (ids, error) = match &entry.id {
            Some(id) => (vec![id.clone()], None),
            None => search(entry, all, &cloud, seen_from).await,
        };
        let mut ends: Vec<_> = error.iter().map(unseen).collect();
        for id in ids {
            let warrant = Warrant::Created(&entry.intent);
            let end = match entry.intent.role {
                Role::Temporary | Role::Result => {
                    let removed = until(seen_from, || remove(&id, &cloud, run, gone, warrant)).await;
                    removed.unwrap_or(End::Absent)
                }
                Role::Commit => End::Kept(format!("it was registered after all ({})", entry.intent.what)),
                Role::Shared => End::Absent,
            };
            let what = format!("{id} in {}", cloud.place);
            ends.push((Some(id), Undo { kind, what, end }));
        }
        ends
    }
}

/// Looks for what a call made whose answer was lost, until there is something, or until it would be seen. Of several, some
/// may show before the others. Gives what was found, and why no more.
async fn search(
    entry: &Entry,
    all: &[Entry],
    cloud: &Cloud,
    seen_from: Instant,
) -> (Vec<Id>, Option<CloudError>) {
    let several = entry.intent.may_be_several();
    let mut ids: Vec<Id> = Vec::new();
    loop {
        // Before the look, as in `until`.
        let last = Instant::now() >= seen_from;
        let found = match find(entry, cloud).await {
            Ok(found) => found,
            Err(error) => return (ids, Some(error)),
        };
        for id in found {
            if !ids.contains(&id) && !all.iter().any(|entry| entry.id.as_ref() == Some(&id)) {
                ids.push(id);
            }
        }
        if last || (!several && !ids.is_empty()) {
            return (ids, None);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Looks until there is something, or until it would be seen: at least once.
async fn until<T, F, Fut>(seen_from: Instant, mut look: F) -> Option<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    loop {
        // Before the look: what came into sight during it is seen by the next.
        let last = Instant::now() >= seen_from;
        let found = look().await;
        if found.is_some() || last {
            return found;
        }
        tokio::time::sleep(LOOK).await;
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
            found.into_iter().map(|one| one.id.into()).collect()
        }
        Kind::Volume => {
            let query = VolumeQuery { tags, ..VolumeQuery::default() };
            let found = retrying(&never, || cloud.volumes.find(&query)).await?;
            found.into_iter().filter(|one| !is_gone(one.state)).map(|one| one.id.into()).collect()
        }
        Kind::VpcPart(kind) => vpcs::tagged(kind, tags, cloud).await?.into_iter().map(Id::from).collect(),
        // Their id is known before any of them is made.
        Kind::Objects => Vec::new(),
    })
}

/// Looks, deletes, and says what came of it; `None` where the cloud does not know of it. That a look does not show it is
/// no reason not to try: it may be behind. Directly before each try its warrant is looked at again.
pub(super) async fn remove(
    id: &Id,
    cloud: &Cloud,
    run: Run,
    gone: &Deregistered,
    warrant: Warrant<'_>,
) -> Option<End> {
    let before = match look(id, cloud).await {
        Ok(Sight::Over) => return Some(End::Absent),
        Ok(Sight::Unknown) if run == Run::Dry => return None,
        Ok(before) => before,
        Err(error) => return Some(End::Stuck(chain(&error))),
    };
    if run == Run::Dry {
        return match warrant.lapsed(id, cloud).await {
            None => Some(used(id, cloud, gone).await.unwrap_or(End::Removed)),
            kept => kept,
        };
    }
    let gone_by = match id {
        // What was in it went a moment ago.
        Id::VpcPart(_) => Instant::now() + gone.settles_within,
        _ => gone.over,
    };
    let error = loop {
        if let Some(end) = warrant.lapsed(id, cloud).await {
            return Some(end);
        }
        let error = match delete(id, cloud).await {
            Ok(()) => return Some(End::Removed),
            Err(error) if error.kind == ErrorKind::NotFound => return None,
            Err(error) => error,
        };
        if !matches!((id, error.kind), (Id::Snapshot(_) | Id::VpcPart(_), ErrorKind::InUse)) {
            break error;
        }
        if let Some(kept) = used(id, cloud, gone).await {
            return Some(kept);
        }
        // Nothing is seen to use it: what did so went a moment ago.
        if Instant::now() >= gone_by {
            match warrant.lapsed(id, cloud).await {
                Some(end) => return Some(end),
                None => break error,
            }
        }
        tokio::time::sleep(LOOK).await;
    };
    // It may have taken effect, and only its answer was lost.
    match look(id, cloud).await {
        Ok(Sight::Unknown) if before == Sight::Unknown => None,
        Ok(Sight::Over | Sight::Unknown) => Some(End::Removed),
        Ok(Sight::There) | Err(_) => Some(End::Stuck(chain(&error))),
    }
}

/// Why a snapshot that an image uses stays. Where the images cannot be looked at, none is known.
async fn used(id: &Id, cloud: &Cloud, gone: &Deregistered) -> Option<End> {
    let Id::Snapshot(snapshot) = id else { return None };
    let users = own_images(cloud).await.ok()?.into_iter().filter(|image| image.uses(snapshot));
    let users: Vec<_> =
        users.map(|image| image.id).filter(|id| !gone.images.contains(id)).map(|id| id.to_string()).collect();
    (!users.is_empty())
        .then(|| End::Kept(format!("the image {} was registered and uses it", users.join(", "))))
}

async fn delete(id: &Id, cloud: &Cloud) -> Result<(), CloudError> {
    let never = Stop::never();
    match id {
        Id::Snapshot(id) => retrying(&never, || cloud.snapshots.delete(id)).await,
        Id::Image(id) => retrying(&never, || cloud.images.deregister(id)).await,
        Id::Instance(id) => retrying(&never, || cloud.instances.terminate(id)).await,
        Id::Volume(id) => delete_volume(id, cloud).await,
        Id::Objects(id) => delete_objects(id, cloud).await,
        Id::VpcPart(id) => vpcs::delete(id, cloud).await,
    }
}

/// Waits until the instances that were told to end have ended. One that goes on living, or cannot be looked at, is not waited
/// for.
async fn instances_ended(entries: &[Entry], clouds: &dyn Clouds) {
    for entry in entries {
        let (Some(Id::Instance(id)), Ok(cloud)) = (&entry.id, clouds.at(&entry.intent.place)) else {
            continue;
        };
        let query = InstanceQuery { ids: vec![id.clone()], ..InstanceQuery::default() };
        let (began, mut pause) = (Instant::now(), LOOK / 16);
        while began.elapsed() < ENDING {
            let Ok(found) = retrying(&Stop::never(), || cloud.instances.find(&query)).await else { break };
            if !found.iter().any(|one| one.state == InstanceState::ShuttingDown) {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK);
        }
    }
}

/// Deletes a volume, and detaches it before where it is attached.
async fn delete_volume(id: &VolumeId, cloud: &Cloud) -> Result<(), CloudError> {
    let never = Stop::never();
    let (began, mut pause) = (Instant::now(), LOOK / 16);
    loop {
        let error = match retrying(&never, || cloud.volumes.delete(id)).await {
            Err(error) if error.kind == ErrorKind::InUse && began.elapsed() < DETACHING => error,
            other => return other,
        };
        let attached = |volume: &Volume| volume.attachment.as_ref().is_some_and(|one| one.attached);
        if seen_volume(id, cloud).await?.as_ref().is_some_and(attached)
            && let Err(refused) = retrying(&never, || cloud.volumes.detach(id)).await
            // Its answer was lost, or somebody else detached it: the next look tells.
            && !matches!(refused.kind, ErrorKind::Invalid | ErrorKind::NotFound)
        {
            return Err(refused.with_source(error));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK);
    }
}

async fn seen_volume(id: &VolumeId, cloud: &Cloud) -> Result<Option<Volume>, CloudError> {
    let query = VolumeQuery { ids: vec![id.clone()], ..VolumeQuery::default() };
    match retrying(&Stop::never(), || cloud.volumes.find(&query)).await {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        found => Ok(found?.into_iter().next()),
    }
}

async fn delete_objects(id: &ObjectsId, cloud: &Cloud) -> Result<(), CloudError> {
    let (never, bucket) = (Stop::never(), id.bucket());
    loop {
        let found = retrying(&never, || cloud.objects.list(bucket, id.prefix())).await?;
        if found.is_empty() {
            return Ok(());
        }
        for object in found {
            retrying(&never, || cloud.objects.delete(bucket, &object)).await?;
        }
    }
}

/// What a look shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    There,
    /// It ended, or is about to.
    Over,
    /// The cloud does not know of it: it is gone, or not seen yet.
    Unknown,
}

async fn look(id: &Id, cloud: &Cloud) -> Result<Sight, CloudError> {
    let never = Stop::never();
    let shown = |empty: bool| if empty { Sight::Unknown } else { Sight::There };
    let sight = match id {
        Id::Snapshot(id) => {
            let query = SnapshotQuery { ids: vec![id.clone()], ..SnapshotQuery::default() };
            retrying(&never, || cloud.snapshots.describe(&query)).await.map(|found| shown(found.is_empty()))
        }
        Id::Image(id) => {
            let query = ImageQuery { ids: vec![id.clone()], ..ImageQuery::default() };
            retrying(&never, || cloud.images.find(&query)).await.map(|found| shown(found.is_empty()))
        }
        Id::Instance(id) => {
            let query = InstanceQuery { ids: vec![id.clone()], ..InstanceQuery::default() };
            retrying(&never, || cloud.instances.find(&query)).await.map(|found| {
                let over = found.iter().any(|one| is_over(one.state));
                if over { Sight::Over } else { shown(found.is_empty()) }
            })
        }
        Id::Volume(id) => seen_volume(id, cloud).await.map(|found| match found {
            Some(volume) if is_gone(volume.state) => Sight::Over,
            found => shown(found.is_none()),
        }),
        Id::Objects(id) => retrying(&never, || cloud.objects.list(id.bucket(), id.prefix()))
            .await
            .map(|keys| shown(keys.is_empty())),
        Id::VpcPart(id) => vpcs::seen(id, cloud).await.map(|found| shown(found.is_none())),
    };
    match sight {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(Sight::Unknown),
        sight => sight,
    }
}

/// All images of the account's own.
pub(super) async fn own_images(cloud: &Cloud) -> Result<Vec<Image>, CloudError> {
    let query = ImageQuery::default();
    retrying(&Stop::never(), || cloud.images.find(&query)).await
}

/// Whether a volume is gone, or about to be.
pub(super) fn is_gone(state: VolumeState) -> bool {
    state == VolumeState::Deleting
}

/// Whether an instance ended, or is about to, so that nothing is left to be done.
pub(super) fn is_over(state: InstanceState) -> bool {
    matches!(state, InstanceState::ShuttingDown | InstanceState::Terminated)
}
