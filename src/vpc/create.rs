//! Making a VPC, or what is missing of one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::parts::{Parts, Step};
use super::{Vpc, VpcError, Wanted};
use crate::cloud::{
    Cloud, CloudError, ErrorKind, NewPart, PartChange, PartId, PartKind, PartQuery, Tags, VpcPart, retrying,
    tag,
};
use crate::host::stop::Stop;
use crate::ledger::vpcs;
use crate::ledger::{Intent, Kind, Ledger, Role};
use crate::report::Reporter;

/// How often is looked for what another run may have done.
const LOOK: Duration = Duration::from_secs(1);

/// What the work needs.
pub struct Create<'a> {
    pub wanted: Wanted,
    /// How long the cloud may not show what another run has done.
    pub settles_within: Duration,
    pub cloud: &'a Cloud,
    pub ledger: &'a Ledger,
    pub reporter: &'a Reporter,
    pub stop: &'a Stop,
}

/// What is known of the calls so far.
#[derive(Default)]
struct Known {
    /// Something may be there twice: an answer was lost, or another run does the same at the same time.
    twice: AtomicBool,
    /// Something was made a moment ago, which a part of the cloud may not know yet.
    made: AtomicBool,
}

impl Create<'_> {
    /// Makes what is missing of the VPC with this name. One that is whole is given as it is. On an error what was created is
    /// in the ledger, for the caller to unwind; what was there before stays.
    ///
    /// Two runs at once end with one VPC, in that each step that the other one has done is not done again. Where neither
    /// shows the other its VPC in time, there are two: the next run goes on with the first by its id and tells of the other,
    /// and [`Delete`](super::Delete) takes both away.
    ///
    /// # Errors
    /// [`VpcError`]
    pub async fn run(mut self) -> Result<Vpc, VpcError> {
        let mut parts = look(&self.wanted.name, self.cloud, self.stop).await?;
        for other in &parts.others {
            let name = &self.wanted.name;
            self.reporter.warning(format!(
                "there is another VPC called {name}, {other}: it is not used; `bakehouse vpc delete` takes both away"
            ));
        }
        self.take_over(&parts).await?;
        let known = Known::default();
        let done = self.complete(&mut parts, &known).await;
        if known.twice.load(Ordering::Relaxed) {
            let twice = self.twice(&parts).await;
            // Where the rest failed, they are unwound with it.
            done?;
            for id in twice? {
                match vpcs::delete(&id, self.cloud).await {
                    Err(error) if error.kind != ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
        } else {
            done?;
        }
        let is_new = known.made.load(Ordering::Relaxed);
        let whole = parts.whole(is_new, self.wanted.expires);
        Ok(whole.ok_or_else(|| {
            let text = "the VPC is not whole, and nothing is missing";
            CloudError::new(ErrorKind::Unknown, "DescribeVpcs", &self.cloud.place, text)
        })?)
    }

    /// What is there is this run's from now on, before anything is added to it: nobody who undoes what an earlier run left
    /// takes it away, and it expires no earlier than is asked for.
    async fn take_over(&mut self, parts: &Parts) -> Result<(), VpcError> {
        if let Some(expires) = parts.expires() {
            self.wanted.expires = self.wanted.expires.max(expires);
        }
        if let Some(addresses) = parts.addresses().filter(|addresses| *addresses != self.wanted.addresses) {
            let name = &self.wanted.name;
            self.reporter.warning(format!("the VPC {name} is there, and has the addresses {addresses}"));
        }
        let tags = self.wanted.of_run();
        let ids = parts.without(&tags);
        if !ids.is_empty() {
            retrying(self.stop, || self.cloud.vpcs.tag(&ids, &tags)).await?;
        }
        Ok(())
    }

    async fn complete(&mut self, parts: &mut Parts, known: &Known) -> Result<(), VpcError> {
        // Since when no step was done.
        let mut idle: Option<Instant> = None;
        while let Some(step) = parts.next(&self.wanted) {
            if self.stop.is_requested() {
                return Err(VpcError::Stopped);
            }
            match self.step(&step, parts, known).await {
                Err(VpcError::Cloud(error)) if may_be_done(&step, error.kind) => {
                    if idle.is_some_and(|since| since.elapsed() >= self.settles_within) {
                        return Err(error.into());
                    }
                    if idle.is_some() {
                        tokio::select! {
                            () = tokio::time::sleep(LOOK) => {}
                            () = self.stop.requested() => {}
                        }
                    }
                    idle.get_or_insert_with(Instant::now);
                    known.twice.store(true, Ordering::Relaxed);
                    *parts = look(&self.wanted.name, self.cloud, self.stop).await?;
                    self.take_over(parts).await?;
                }
                done => {
                    done?;
                    idle = None;
                }
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step, parts: &mut Parts, known: &Known) -> Result<(), VpcError> {
        match step {
            Step::Create(new) => {
                let id = self.create(new, known).await?;
                self.reporter.note(format!("made the {} {id}", new.kind()));
                if new.kind() == PartKind::Vpc
                    && let Some(other) = self.instead_of(&id).await?
                {
                    *parts = other;
                } else {
                    parts.made(new, id, self.wanted.tags());
                }
            }
            Step::Change(change) => {
                self.change(change, known).await?;
                parts.changed(change);
            }
        }
        Ok(())
    }

    /// What there is of another run's VPC of the name, where that is gone on with instead of the new one, which is deleted
    /// then. Of two that are empty the first by its id stays; and one that is not any more, since who fills it did not see
    /// this one.
    async fn instead_of(&mut self, own: &PartId) -> Result<Option<Parts>, VpcError> {
        let mut found = find(vpcs::tags(&self.wanted.name), self.cloud, self.stop).await?;
        let is_taken =
            |part: &VpcPart| part.id == *own && part.tags.get(&tag("bake")) != Some(&self.wanted.run);
        if found.iter().any(is_taken) {
            return Ok(None);
        }
        found.retain(|part| part.id != *own && part.vpc.as_ref() != Some(own));
        let other = Parts::of(found);
        if !other.vpc().is_some_and(|vpc| vpc < own || other.is_begun()) {
            return Ok(None);
        }
        match retrying(self.stop, || self.cloud.vpcs.delete(own)).await {
            // Somebody goes on with it meanwhile.
            Err(error) if error.kind == ErrorKind::InUse => return Ok(None),
            Err(error) if error.kind != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        self.reporter
            .note(format!("another run made a VPC at the same time: {own} is deleted, and that one is used"));
        self.take_over(&other).await?;
        Ok(Some(other))
    }

    fn intent(&self, kind: PartKind) -> Intent {
        Intent {
            kind: Kind::VpcPart(kind),
            place: self.cloud.place.clone(),
            what: format!("{kind} for {}", self.wanted.name),
            // What came of a call whose answer was lost is found by its tags.
            token: None,
            tags: self.wanted.tags(),
            role: Role::Temporary,
        }
    }

    async fn create(&self, new: &NewPart, known: &Known) -> Result<PartId, VpcError> {
        let (intent, tags) = (self.intent(new.kind()), self.wanted.tags());
        let own = PartQuery { tags: intent.own_tags(), ..PartQuery::default() };
        let lost = AtomicBool::new(false);
        let call = || async {
            let error = match self.cloud.vpcs.create(new, &tags).await {
                Ok(id) => return Ok(id),
                Err(error) => error,
            };
            lost.fetch_or(error.kind.may_hide_an_effect(), Ordering::Relaxed);
            if !lost.load(Ordering::Relaxed) {
                return Err(not_yet(error, known));
            }
            known.twice.store(true, Ordering::Relaxed);
            let found = self.cloud.vpcs.find(new.kind(), &own).await.ok().into_iter().flatten().next();
            match found {
                Some(part) => Ok(part.id),
                // It is there by this run's own doing, and will show.
                None if error.kind == ErrorKind::Exists => {
                    Err(CloudError { kind: ErrorKind::NotYet, ..error })
                }
                None => Err(not_yet(error, known)),
            }
        };
        let id = self.ledger.create(intent, self.stop, call).await?;
        known.made.store(true, Ordering::Relaxed);
        Ok(id)
    }

    async fn change(&self, change: &PartChange, known: &Known) -> Result<(), VpcError> {
        let lost = AtomicBool::new(false);
        let changed = retrying(self.stop, || async {
            let error = match self.cloud.vpcs.change(change).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // What was done when the answer was lost is answered so when it is asked for again.
            let done = match change {
                PartChange::HoldBack { .. } => ErrorKind::NotFound,
                _ => ErrorKind::Exists,
            };
            if lost.load(Ordering::Relaxed) && error.kind == done {
                return Ok(());
            }
            lost.fetch_or(error.kind.may_hide_an_effect(), Ordering::Relaxed);
            // What there is not any more was held back by another run.
            if matches!(change, PartChange::HoldBack { .. }) {
                Err(error)
            } else {
                Err(not_yet(error, known))
            }
        });
        changed.await?;
        known.made.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// What a call made whose answer was lost, and which did not show at once: in the ledger from now on.
    async fn twice(&self, parts: &Parts) -> Result<Vec<PartId>, VpcError> {
        let tags = self.intent(PartKind::Vpc).own_tags();
        let mut own = find(tags, self.cloud, self.stop).await?;
        let used = parts.ids();
        own.retain(|part| !used.contains(&part.id));
        // In the order in which they go.
        own.sort_by_key(|part| std::cmp::Reverse(part.id.kind()));
        let known = self.ledger.entries();
        for part in &own {
            if !known.iter().any(|entry| entry.id.as_ref() == Some(&part.id.clone().into())) {
                self.ledger.adopt(self.intent(part.id.kind()), part.id.clone())?;
            }
        }
        Ok(own.into_iter().map(|part| part.id).collect())
    }
}

/// What there is of a VPC with this name.
///
/// # Errors
/// [`VpcError`]
pub async fn look(name: &str, cloud: &Cloud, stop: &Stop) -> Result<Parts, VpcError> {
    Ok(Parts::of(find(vpcs::tags(name), cloud, stop).await?))
}

/// Parts of all kinds that have these tags.
async fn find(tags: Tags, cloud: &Cloud, stop: &Stop) -> Result<Vec<VpcPart>, CloudError> {
    let query = PartQuery { tags, ..PartQuery::default() };
    let mut found = Vec::new();
    for kind in PartKind::ALL {
        found.extend(retrying(stop, || cloud.vpcs.find(kind, &query)).await?);
    }
    Ok(found)
}

/// Whether a step that fails so may have been done by another run.
fn may_be_done(step: &Step, kind: ErrorKind) -> bool {
    match (step, kind) {
        // The VPC has another gateway.
        (Step::Change(PartChange::Attach { .. }), ErrorKind::Invalid)
        | (Step::Change(PartChange::HoldBack { .. }), ErrorKind::NotFound) => true,
        (_, kind) => kind == ErrorKind::Exists,
    }
}

/// Where something was made a moment ago, that it is not found is no wonder.
fn not_yet(error: CloudError, known: &Known) -> CloudError {
    if error.kind == ErrorKind::NotFound && known.made.load(Ordering::Relaxed) {
        return CloudError { kind: ErrorKind::NotYet, ..error };
    }
    error
}
