//! What has expired: found in a cloud by the tag `bakehouse:expires`, whoever made it and whatever became of its ledger.
//! [`decide`] is pure and alone says what goes.
//!
//! Must never: take what has no such tag, a snapshot that an image uses, or a VPC that somebody is in.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::unwind::{Deregistered, ENDING, LOOK, Run, Warrant, is_gone, is_over, own_images, remove};
use super::vpcs::{self, Occupant};
use super::{End, Id, Kind, Undo};
use crate::cloud::{
    Cloud, Image, ImageId, InstanceQuery, Interface, PartId, PartKind, PartQuery, Result, SnapshotQuery,
    Tags, VolumeQuery, VpcPart, retrying, tag,
};
use crate::host::error::chain;
use crate::host::stop::Stop;

/// The tag, with its value, of a volume that was made by itself, and not with an instance.
pub const OF_ITS_OWN: (&str, &str) = ("volume", "own");

/// Something in a cloud, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Seen {
    pub id: Id,
    pub tags: Tags,
    /// An image that uses it.
    pub used_by: Option<ImageId>,
    /// Why nobody may take it away: of a VPC, who or what is in it, is not Bakehouse's and does not go.
    pub held_by: Option<String>,
}

impl Seen {
    /// Something that nobody uses.
    #[must_use]
    pub fn new(id: impl Into<Id>, tags: Tags) -> Self {
        Self { id: id.into(), tags, used_by: None, held_by: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Remove,
    Keep(Why),
}

/// Why something stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has no tag that says when it expires: it is somebody's.
    Untagged,
    /// The tag's value is no time.
    Unreadable(String),
    NotYet(Timestamp),
    Used(ImageId),
    /// Somebody is in it.
    Held(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = tag("expires");
        match self {
            Self::Untagged => write!(f, "it has no tag {name}"),
            Self::Unreadable(value) => write!(f, "its tag {name} is no time: {value:?}"),
            Self::NotYet(time) => write!(f, "it expires at {time}"),
            Self::Used(image) => write!(f, "the image {image} uses it"),
            Self::Held(why) => f.write_str(why),
        }
    }
}

/// Whether something goes.
#[must_use]
pub fn decide(seen: &Seen, now: Timestamp) -> Verdict {
    let Some(value) = seen.tags.get(&tag("expires")) else { return Verdict::Keep(Why::Untagged) };
    let Ok(expires) = value.parse::<Timestamp>() else {
        return Verdict::Keep(Why::Unreadable(value.clone()));
    };
    if let Some(image) = &seen.used_by {
        return Verdict::Keep(Why::Used(image.clone()));
    }
    if expires > now {
        return Verdict::Keep(Why::NotYet(expires));
    }
    match &seen.held_by {
        Some(who) => Verdict::Keep(Why::Held(who.clone())),
        None => Verdict::Remove,
    }
}

/// What was found in one place, and what became of it.
#[derive(Debug, Default)]
pub struct Swept {
    /// What was removed (in a dry run: would be), or could not be.
    pub undone: Vec<Undo>,
    /// What stays, with why.
    pub kept: Vec<(Id, Why)>,
}

/// Looks at a place and removes what has expired; in a `dry` run only says so. Instances go first, then volumes, then
/// VPCs with all of Bakehouse's that is in them, then images, then the snapshots that no image has any more: those may be held
/// as in use for as long as the cloud takes to settle. A kind that cannot be listed is told and does not keep the others.
pub async fn sweep(cloud: &Cloud, settles_within: Duration, now: Timestamp, dry: bool) -> Swept {
    let gone = Deregistered::none_yet(settles_within);
    let mut sweep = Sweep { cloud, now, dry, gone, ended: Vec::new(), swept: Swept::default() };
    match instances(cloud).await {
        Ok(seen) => sweep.ended = sweep.kind(seen).await,
        Err(error) => sweep.unseen(Kind::Instance, &error),
    }
    match volumes(cloud).await {
        Ok(seen) => drop(sweep.kind(seen).await),
        Err(error) => sweep.unseen(Kind::Volume, &error),
    }
    match vpcs(cloud, now, &sweep.ended).await {
        Ok(seen) => {
            if !dry {
                for vpc in seen.iter().filter(|seen| decide(seen, now) == Verdict::Remove) {
                    wait_until_left(&vpc.id, now, &sweep.ended, cloud).await;
                }
            }
            drop(sweep.kind(seen).await);
        }
        Err(error) => sweep.unseen(Kind::VpcPart(PartKind::Vpc), &error),
    }
    let mut images = match own_images(cloud).await {
        Ok(images) => images,
        Err(error) => {
            // Without the images nobody can tell which snapshots are used.
            sweep.unseen(Kind::Image, &error);
            sweep.unseen(Kind::Snapshot, &error);
            return sweep.swept;
        }
    };
    let temporary = images.iter().filter(|image| image.tags.contains_key(&tag("expires")));
    let temporary = temporary.map(|image| Seen::new(image.id.clone(), image.tags.clone()));
    let gone = sweep.kind(temporary.collect()).await;
    images.retain(|image| !gone.contains(&Id::from(image.id.clone())));
    match snapshots(cloud, &images).await {
        Ok(seen) => drop(sweep.kind(seen).await),
        Err(error) => sweep.unseen(Kind::Snapshot, &error),
    }
    sweep.swept
}

async fn instances(cloud: &Cloud) -> Result<Vec<Seen>> {
    let query = InstanceQuery { tag_keys: vec![tag("expires")], ..InstanceQuery::default() };
    let found = retrying(&Stop::never(), || cloud.instances.find(&query)).await?;
    let live = found.into_iter().filter(|instance| !is_over(instance.state));
    Ok(live.map(|one| Seen::new(one.id, one.tags)).collect())
}

/// Those of instances have all other tags too, and go with their instances.
async fn volumes(cloud: &Cloud) -> Result<Vec<Seen>> {
    let own = Tags::from([(tag(OF_ITS_OWN.0), OF_ITS_OWN.1.to_owned())]);
    let query = VolumeQuery { tags: own, tag_keys: vec![tag("expires")], ..VolumeQuery::default() };
    let found = retrying(&Stop::never(), || cloud.volumes.find(&query)).await?;
    let there = found.into_iter().filter(|volume| !is_gone(volume.state));
    Ok(there.map(|one| Seen::new(one.id, one.tags)).collect())
}

async fn snapshots(cloud: &Cloud, images: &[Image]) -> Result<Vec<Seen>> {
    let query = SnapshotQuery { tag_keys: vec![tag("expires")], ..SnapshotQuery::default() };
    let found = retrying(&Stop::never(), || cloud.snapshots.describe(&query)).await?;
    let seen = found.into_iter().map(|snapshot| {
        let user = images.iter().find(|image| image.uses(&snapshot.id));
        let used_by = user.map(|image| image.id.clone());
        Seen { used_by, ..Seen::new(snapshot.id, snapshot.tags) }
    });
    Ok(seen.collect())
}

/// VPCs of Bakehouse's own, and internet gateways that none of them has. What is in them goes with them.
async fn vpcs(cloud: &Cloud, now: Timestamp, ended: &[Id]) -> Result<Vec<Seen>> {
    let query = PartQuery {
        tags: Tags::from([(tag("stage"), vpcs::STAGE.to_owned())]),
        tag_keys: vec![tag(vpcs::NAME), tag("expires")],
        ..PartQuery::default()
    };
    let never = Stop::never();
    let found = retrying(&never, || cloud.vpcs.find(PartKind::Vpc, &query)).await?;
    let mut gateways = retrying(&never, || cloud.vpcs.find(PartKind::InternetGateway, &query)).await?;
    gateways.retain(|gateway| !found.iter().any(|vpc| gateway.vpc == vpc.vpc));
    let mut seen = Vec::new();
    for part in gateways.into_iter().chain(found) {
        seen.push(with_holder(part, now, ended, cloud).await?);
    }
    Ok(seen)
}

/// A VPC, or a gateway that is by itself, with who keeps it. Of what stays anyway nobody asks.
async fn with_holder(part: VpcPart, now: Timestamp, ended: &[Id], cloud: &Cloud) -> Result<Seen> {
    let VpcPart { id, vpc, tags, .. } = part;
    let mut seen = Seen::new(id.clone(), tags);
    if decide(&seen, now) == Verdict::Remove {
        seen.held_by = if id.kind() == PartKind::Vpc {
            let somebody = holder(&vpcs::occupants(&id, cloud, &Stop::never()).await?, ended);
            match somebody {
                Some(somebody) => Some(somebody),
                None => vpcs::foreign(vpcs::parts_in(&id, cloud).await?).next().map(|part| {
                    format!("the {} {}, which is not Bakehouse's, is in it", part.id.kind(), part.id)
                }),
            }
        } else {
            vpc.map(|vpc| format!("it is attached to {vpc}"))
        };
    }
    Ok(seen)
}

/// Why something that had expired stays after all: it was looked at a while ago, and meanwhile another run may go on with it,
/// or somebody may be in it.
pub(super) async fn stays(
    id: &PartId,
    now: Timestamp,
    ended: &[Id],
    cloud: &Cloud,
) -> Result<Option<String>> {
    let Some(part) = vpcs::seen(id, cloud).await? else { return Ok(None) };
    Ok(match decide(&with_holder(part, now, ended, cloud).await?, now) {
        Verdict::Remove => None,
        Verdict::Keep(why) => Some(why.to_string()),
    })
}

/// The first in a VPC that does not go by itself, and was not ended just now.
fn holder(occupants: &[Occupant], ended: &[Id]) -> Option<String> {
    let is_ended = |one: &Occupant| {
        one.is_going() || one.interface.instance.as_ref().is_some_and(|id| ended.contains(&id.clone().into()))
    };
    occupants.iter().find(|one| !is_ended(one)).map(|one| match &one.interface.instance {
        Some(instance) => format!("the instance {instance} is in it"),
        None => {
            let Interface { id, description, .. } = &one.interface;
            format!("the network interface {id} ({description}) is in it")
        }
    })
}

/// Waits until instances that were ended have left a VPC, as long as it is to be removed. Who stays is not waited for.
async fn wait_until_left(id: &Id, now: Timestamp, ended: &[Id], cloud: &Cloud) {
    let Id::VpcPart(vpc) = id else { return };
    let (began, mut pause) = (Instant::now(), LOOK / 16);
    while vpc.kind() == PartKind::Vpc && began.elapsed() < ENDING {
        let going = vpcs::occupants(vpc, cloud, &Stop::never()).await;
        let is_left = !going.is_ok_and(|all| all.iter().any(Occupant::is_going));
        if is_left || !matches!(stays(vpc, now, ended, cloud).await, Ok(None)) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK);
    }
}

struct Sweep<'a> {
    cloud: &'a Cloud,
    now: Timestamp,
    dry: bool,
    gone: Deregistered,
    /// Instances that were ended, or would be.
    ended: Vec<Id>,
    swept: Swept,
}

impl Sweep<'_> {
    /// Removes what has expired of one kind, and gives what is gone now, or would be.
    async fn kind(&mut self, all: Vec<Seen>) -> Vec<Id> {
        let mut gone = Vec::new();
        for seen in all {
            match decide(&seen, self.now) {
                Verdict::Keep(why) => self.swept.kept.push((seen.id, why)),
                Verdict::Remove => {
                    // Looked at already; and what a dry run would remove before it may use it still.
                    let end = if self.dry {
                        End::Removed
                    } else {
                        let warrant = Warrant::Expired { now: self.now, ended: &self.ended };
                        let removed = remove(&seen.id, self.cloud, Run::Real, &self.gone, warrant).await;
                        removed.unwrap_or(End::Absent)
                    };
                    if let (Id::VpcPart(_), End::Kept(why)) = (&seen.id, &end) {
                        self.swept.kept.push((seen.id, Why::Held(why.clone())));
                        continue;
                    }
                    if end == End::Removed {
                        self.gone.add(&seen.id);
                    }
                    if matches!(end, End::Removed | End::Absent) {
                        gone.push(seen.id.clone());
                    }
                    let what = format!("{} in {}", seen.id, self.cloud.place);
                    self.swept.undone.push(Undo { kind: seen.id.kind(), what, end });
                }
            }
        }
        gone
    }

    fn unseen(&mut self, kind: Kind, error: &crate::cloud::CloudError) {
        let what = format!("of {}", self.cloud.place);
        self.swept.undone.push(Undo { kind, what, end: End::Unseen(chain(error)) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{InstanceId, SnapshotId};

    #[test]
    fn a_vpc_goes_when_it_has_expired_and_nobody_is_in_it() {
        let now: Timestamp = "2030-01-02T03:04:05Z".parse().unwrap();
        let later: Timestamp = "2030-01-02T03:04:06Z".parse().unwrap();
        let held = || Some("the instance i-01234567 is in it".to_owned());
        let vpc = crate::cloud::PartId::parse("vpc-01234567").unwrap();
        let seen = |expires: &Timestamp, held_by| {
            let tags = Tags::from([(tag("expires"), expires.to_string())]);
            Seen { held_by, ..Seen::new(vpc.clone(), tags) }
        };
        assert_eq!(decide(&seen(&now, None), now), Verdict::Remove);
        assert_eq!(decide(&seen(&now, held()), now), Verdict::Keep(Why::Held(held().unwrap())));
        assert_eq!(decide(&seen(&later, held()), now), Verdict::Keep(Why::NotYet(later)));
    }

    #[test]
    fn what_goes_and_what_stays() {
        let now: Timestamp = "2030-01-02T03:04:05Z".parse().unwrap();
        let image = ImageId::parse("ami-01234567").unwrap();
        let snapshot: Id = SnapshotId::parse("snap-01234567").unwrap().into();
        let instance: Id = InstanceId::parse("i-01234567").unwrap().into();
        let later: Timestamp = "2030-01-02T03:04:06Z".parse().unwrap();
        let used = || Some(image.clone());
        let keep = Verdict::Keep;
        let unreadable = |text: &str| keep(Why::Unreadable(text.to_owned()));
        let table = [
            (&snapshot, None, None, keep(Why::Untagged)),
            (&snapshot, None, used(), keep(Why::Untagged)),
            (&snapshot, Some("2030-01-02T03:04:04Z"), None, Verdict::Remove),
            (&snapshot, Some("2030-01-02T03:04:05Z"), None, Verdict::Remove),
            (&snapshot, Some("2030-01-02T03:04:06Z"), None, keep(Why::NotYet(later))),
            (&snapshot, Some("2030-01-02T05:04:06+02:00"), None, keep(Why::NotYet(later))),
            (&snapshot, Some("2020-01-01T00:00:00.5Z"), used(), keep(Why::Used(image.clone()))),
            (&instance, Some("2020-01-01T00:00:00Z"), None, Verdict::Remove),
            (&instance, Some("tomorrow"), None, unreadable("tomorrow")),
            (&instance, Some(""), None, unreadable("")),
            (&instance, Some("2020-01-01"), None, unreadable("2020-01-01")),
        ];
        for (id, expires, used_by, expected) in table {
            let tags = expires.map(|value| (tag("expires"), value.to_owned())).into_iter().collect();
            let seen = Seen { used_by, ..Seen::new(id.clone(), tags) };
            assert_eq!(decide(&seen, now), expected, "{expires:?}");
        }
    }
}
