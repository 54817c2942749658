//! The volume: made, attached under a free name, found on this machine, let go.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use super::ChrootError;
use crate::cloud::{
    CloudError, ErrorKind, Machine, NewVolume, SnapshotId, Token, Volume, VolumeId, VolumeQuery, VolumeState,
    Wait, retrying, tag, until,
};
use crate::host::holders;
use crate::ledger::sweep::OF_ITS_OWN;
use crate::ledger::{Intent, Kind, Role};
use crate::method::{BakeCause, Bench};
use crate::plan::Plan;

/// What the volume is for, as its token and the ledger call it.
const ROOT: &str = "root volume";
/// The last letters of the names that EC2 recommends for volumes of Linux instances (EC2 user guide, "Device names for
/// volumes"): `/dev/sdf` to `/dev/sdp`.
const LETTERS: std::ops::RangeInclusive<char> = 'f'..='p';
const AVAILABLE: Wait =
    Wait { what: "volume available", every: Duration::from_secs(1), within: Duration::from_secs(600) };
const ATTACHED: Wait =
    Wait { what: "volume attached", every: Duration::from_secs(1), within: Duration::from_secs(300) };
const SHOWN: Wait = Wait {
    what: "volume shown by this machine's kernel",
    every: Duration::from_secs(1),
    within: Duration::from_secs(60),
};
const DETACHED: Wait =
    Wait { what: "volume detached", every: Duration::from_secs(1), within: Duration::from_secs(120) };

/// A volume that this machine has.
pub(super) struct Attached {
    pub id: VolumeId,
    /// Its block device.
    pub node: PathBuf,
}

impl Attached {
    pub async fn make(
        snapshot: &SnapshotId,
        size: u32,
        machine: &Machine,
        plan: &Plan,
        bench: &Bench,
    ) -> Result<Self, BakeCause> {
        let (volumes, place) = (&bench.cloud.volumes, &bench.cloud.place);
        let mut tags = plan.temporary_tags();
        tags.insert(tag(OF_ITS_OWN.0), OF_ITS_OWN.1.to_owned());
        let token = Token::of(&plan.bake, ROOT, 1);
        let intent = Intent {
            kind: Kind::Volume,
            place: place.clone(),
            what: ROOT.to_owned(),
            token: Some(token.as_str().to_owned()),
            tags: tags.clone(),
            role: Role::Temporary,
        };
        let new = NewVolume { snapshot: snapshot.clone(), size, zone: machine.zone.clone(), tags };
        let id = bench.ledger.create(intent, &bench.stop, || volumes.create(&new, &token)).await?;
        until(AVAILABLE, place, &bench.stop, || async {
            let found = seen(&id, bench).await?;
            Ok(found.filter(|volume| volume.state == VolumeState::Available))
        })
        .await?;
        let device = attach(&id, machine, bench).await?;
        until(ATTACHED, place, &bench.stop, || async {
            let found = seen(&id, bench).await?;
            Ok(found.filter(|volume| volume.attachment.as_ref().is_some_and(|one| one.attached)))
        })
        .await?;
        let node = until(SHOWN, place, &bench.stop, || volumes.node(&id, &device)).await;
        match node {
            Ok(node) => Ok(Self { id, node }),
            Err(source) if source.operation == "wait" && !bench.stop.is_requested() => {
                Err(ChrootError::NoNode { volume: id, device, source: Box::new(source) }.into())
            }
            Err(source) => Err(source.into()),
        }
    }

    /// Lets it go, and waits until it is.
    pub async fn detach(&self, bench: &Bench) -> Result<(), BakeCause> {
        let number = std::fs::metadata(&self.node).map(|found| found.rdev()).unwrap_or_default();
        match retrying(&bench.stop, || bench.cloud.volumes.detach(&self.id)).await {
            // The answer of an earlier try was lost: the look below tells.
            Err(error) if error.kind == ErrorKind::Invalid => {}
            other => other?,
        }
        let free = until(DETACHED, &bench.cloud.place, &bench.stop, || async {
            let found = seen(&self.id, bench).await?;
            Ok(found.filter(|volume| volume.state == VolumeState::Available))
        });
        match free.await {
            Err(source) if source.operation == "wait" && !bench.stop.is_requested() => {
                let holders = holders::of_device(rustix::fs::major(number), rustix::fs::minor(number));
                let (volume, node) = (self.id.clone(), self.node.clone());
                Err(ChrootError::Busy { volume, node, holders, source: Box::new(source) }.into())
            }
            other => Ok(other.map(drop)?),
        }
    }
}

/// The volume as it is now; `None` where it does not show yet. That it failed is an error.
async fn seen(id: &VolumeId, bench: &Bench) -> Result<Option<Volume>, CloudError> {
    let query = VolumeQuery { ids: vec![id.clone()], ..VolumeQuery::default() };
    let found = match bench.cloud.volumes.find(&query).await {
        Err(error) if error.kind == ErrorKind::NotFound => None,
        other => other?.into_iter().next(),
    };
    match found {
        Some(volume) if matches!(volume.state, VolumeState::Error | VolumeState::Deleting) => {
            // EC2 gives no reason; a key that may not be used is the usual one (EBS user guide, "Volume state").
            let text = format!(
                "{id} is in the state {:?}: may its key be used, where it is encrypted, and is it still there?",
                volume.state
            );
            Err(CloudError::new(ErrorKind::Invalid, "CreateVolume", &bench.cloud.place, text))
        }
        found => Ok(found),
    }
}

/// Attaches it under a name that nothing else has, and gives that.
async fn attach(id: &VolumeId, machine: &Machine, bench: &Bench) -> Result<String, BakeCause> {
    let volumes = &bench.cloud.volumes;
    let query = VolumeQuery { attached_to: Some(machine.instance.clone()), ..VolumeQuery::default() };
    let others = retrying(&bench.stop, || volumes.find(&query)).await?;
    let taken: Vec<char> =
        others.iter().filter_map(|other| other.attachment.as_ref()?.device.chars().last()).collect();
    for letter in LETTERS.filter(|letter| !taken.contains(letter)) {
        let device = format!("/dev/sd{letter}");
        let error = match retrying(&bench.stop, || volumes.attach(id, &machine.instance, &device)).await {
            Ok(()) => return Ok(device),
            Err(error) => error,
        };
        // The answer of an earlier try was lost. A refusal is believed.
        if error.kind.may_hide_an_effect() || matches!(error.kind, ErrorKind::Exists | ErrorKind::InUse) {
            let own = seen(id, bench).await?.and_then(|volume| volume.attachment);
            if let Some(own) = own.filter(|own| own.instance == machine.instance) {
                return Ok(own.device);
            }
        }
        // Another bake on this machine was quicker; anything else is wrong with every name.
        if error.kind != ErrorKind::Exists {
            return Err(error.into());
        }
    }
    Err(ChrootError::NoName { instance: machine.instance.to_string() }.into())
}
