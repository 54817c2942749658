//! Volumes: each a folder with its disk as a file. Attaching one is a loop device on that file, which outlives whoever
//! asked for it, as on EC2; whether it is attached the kernel says. Attaching wants root.
//!
//! - `volume.json`: what it is. `disk.raw`: its content, there when it is whole; until then it is being created.
//! - `attachment.json`: by which name it is attached, where it is.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::place::LocalPlace;
use super::refusal::Refusal;
use super::snapshots::completed;
use super::store::StoreError;
use super::{child, durable, laws};
use crate::cloud::{
    Attachment, Digest, ErrorKind, InstanceId, Machine, NewSnapshot, NewSnapshotOf, NewVolume, Place, Result,
    SnapshotId, Token, Volume, VolumeId, VolumeQuery, VolumeState, Volumes,
};
use crate::host::loop_device::{self, LoopError};
use crate::host::stop::Stop;

/// This machine, as an instance of the local cloud.
const MACHINE: &str = "i-00000000000000000";

const NOT_FOUND: &str = "InvalidVolume.NotFound";
const IN_USE: &str = "VolumeInUse";
const WRONG_STATE: &str = "IncorrectState";

#[derive(Debug)]
pub(super) struct LocalVolumes(pub(super) LocalPlace);

/// What `volume.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Kept {
    /// As it was asked for; its state and its attachment are those of now.
    volume: Volume,
    /// The snapshot that it was made from.
    base: SnapshotId,
    /// A digest of what was asked for: the same token with another request is refused.
    request: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Attached {
    device: String,
}

#[async_trait]
impl Volumes for LocalVolumes {
    async fn machine(&self) -> Result<Machine> {
        self.0.call("DescribeInstances", |here| Ok(Machine { instance: machine()?, zone: here.zone() })).await
    }

    async fn create(&self, new: &NewVolume, token: &Token) -> Result<VolumeId> {
        let (asked, token) = (new.clone(), token.clone());
        let id = self.0.call("CreateVolume", move |here| begin(here, &asked, &token)).await?;
        let disk = Folder::of(&self.0, &id).disk();
        if !disk.exists() {
            let place = &self.0.place;
            self.0.store.write_disk(place, &new.snapshot, &disk, new.size, &Stop::never()).await?;
        }
        Ok(id)
    }

    async fn find(&self, query: &VolumeQuery) -> Result<Vec<Volume>> {
        let query = query.clone();
        self.0.call("DescribeVolumes", move |here| find(here, &query)).await
    }

    async fn attach(&self, id: &VolumeId, to: &InstanceId, device: &str) -> Result<()> {
        let (id, to, device) = (id.clone(), to.clone(), device.to_owned());
        self.0.call("AttachVolume", move |here| attach(here, &id, &to, &device)).await
    }

    async fn node(&self, id: &VolumeId, _: &str) -> Result<Option<PathBuf>> {
        let id = id.clone();
        self.0
            .call("DescribeVolumes", move |here| {
                let disk = Folder::of(here, &id).disk();
                let node = lasting(&disk)?.map(|attached| loop_device::node(attached.number)).transpose();
                node.map_err(|error| Refusal::new(ErrorKind::Denied, WRONG_STATE, error.to_string()))
            })
            .await
    }

    async fn detach(&self, id: &VolumeId) -> Result<()> {
        let id = id.clone();
        self.0.call("DetachVolume", move |here| detach(here, &id)).await
    }

    async fn delete(&self, id: &VolumeId) -> Result<()> {
        let id = id.clone();
        self.0.call("DeleteVolume", move |here| delete(here, &id)).await
    }

    async fn snapshot(&self, of: &VolumeId, new: &NewSnapshotOf) -> Result<SnapshotId> {
        let (of, new) = (of.clone(), new.clone());
        self.0.call("CreateSnapshot", move |here| snapshot(here, &of, &new)).await
    }
}

/// A volume's folder.
struct Folder(PathBuf);

impl Folder {
    fn of(here: &LocalPlace, id: &VolumeId) -> Self {
        Self(here.volumes().join(id.as_str()))
    }

    fn kept(&self) -> std::result::Result<Option<Kept>, StoreError> {
        durable::read_json(&self.0.join("volume.json"))
    }

    fn disk(&self) -> PathBuf {
        self.0.join("disk.raw")
    }

    fn attachment(&self) -> PathBuf {
        self.0.join("attachment.json")
    }

    /// The volume as it is now; `None` where there is none.
    fn look(&self) -> std::result::Result<Option<(Volume, Kept)>, Refusal> {
        let Some(kept) = self.kept()? else { return Ok(None) };
        let mut volume = kept.volume.clone();
        let disk = self.disk();
        volume.state = if !disk.exists() {
            VolumeState::Creating
        } else if let Some(lasting) = lasting(&disk)? {
            let named: Option<Attached> = durable::read_json(&self.attachment())?;
            volume.attachment = Some(Attachment {
                instance: machine()?,
                device: named.map(|attached| attached.device).unwrap_or_default(),
                attached: !lasting.is_going,
            });
            VolumeState::InUse
        } else {
            VolumeState::Available
        };
        Ok(Some((volume, kept)))
    }
}

fn machine() -> std::result::Result<InstanceId, Refusal> {
    InstanceId::parse(MACHINE)
        .ok_or_else(|| Refusal::new(ErrorKind::Unknown, "InternalError", format!("{MACHINE} is not an id")))
}

fn existing(here: &LocalPlace, id: &VolumeId) -> std::result::Result<(Folder, Volume, Kept), Refusal> {
    let folder = Folder::of(here, id);
    let (volume, kept) =
        folder.look()?.ok_or_else(|| Refusal::not_found(NOT_FOUND, format!("there is no volume {id}")))?;
    Ok((folder, volume, kept))
}

/// Makes the folder of a volume whose disk is still to be written.
fn begin(here: &LocalPlace, new: &NewVolume, token: &Token) -> std::result::Result<VolumeId, Refusal> {
    const INVALID: &str = "InvalidParameterValue";
    laws::tags(&new.tags, INVALID)?;
    if new.zone != here.zone() {
        let message = format!("there is no zone {}; the only one is {}", new.zone, here.zone());
        return Err(Refusal::invalid("InvalidZone.NotFound", message));
    }
    let id = id_for(&here.place, token)?;
    let request = serde_json::json!([new.snapshot, new.size, new.zone, new.tags]);
    let request = Digest::of(request.to_string().as_bytes()).hex();
    let folder = Folder::of(here, &id);
    let _creating = here.lock()?;
    if let Some(kept) = folder.kept()? {
        return if kept.request == request {
            Ok(id)
        } else {
            Err(Refusal::new(
                ErrorKind::Exists,
                "IdempotentParameterMismatch",
                format!("the client token made {id} with another request: use a new token"),
            ))
        };
    }
    let (_, base) = completed(here, &new.snapshot, ("InvalidSnapshot.NotFound", WRONG_STATE))?;
    let least = base.snapshot.volume_size;
    if !(least..=laws::LARGEST_VOLUME).contains(&new.size) {
        let message = format!(
            "a volume of {} GiB is not one of the {least} of {} to {}",
            new.size,
            new.snapshot,
            laws::LARGEST_VOLUME
        );
        return Err(Refusal::invalid(INVALID, message));
    }
    let volume = Volume {
        id: id.clone(),
        state: VolumeState::Creating,
        size: new.size,
        zone: new.zone.clone(),
        snapshot: Some(new.snapshot.clone()),
        attachment: None,
        tags: new.tags.clone(),
    };
    let kept = Kept { volume, base: new.snapshot.clone(), request };
    durable::place(&folder.0, |staged| durable::write_json(&staged.join("volume.json"), &kept))?;
    Ok(id)
}

/// As of a snapshot: the same token meets the same volume with nothing else kept.
fn id_for(place: &Place, token: &Token) -> std::result::Result<VolumeId, Refusal> {
    let digest = Digest::of(format!("volume\n{place}\n{}", token.as_str()).as_bytes());
    let text = format!("{}{}", VolumeId::PREFIX, &digest.hex()[..17]);
    VolumeId::parse(&text)
        .ok_or_else(|| Refusal::new(ErrorKind::Unknown, "InternalError", format!("{text} is not an id")))
}

fn find(here: &LocalPlace, query: &VolumeQuery) -> std::result::Result<Vec<Volume>, Refusal> {
    let ids = if query.ids.is_empty() {
        durable::names(&here.volumes())?.iter().filter_map(|name| VolumeId::parse(name)).collect()
    } else {
        query.ids.clone()
    };
    let mut found = Vec::new();
    for id in &ids {
        let Some((volume, _)) = Folder::of(here, id).look()? else {
            // Deleted since it was listed.
            if query.ids.is_empty() {
                continue;
            }
            return Err(Refusal::not_found(NOT_FOUND, format!("there is no volume {id}")));
        };
        let attached = volume.attachment.as_ref().map(|attachment| &attachment.instance);
        if query.attached_to.as_ref().is_none_or(|wanted| attached == Some(wanted))
            && laws::has_tags(&volume.tags, &query.tags, &query.tag_keys)
        {
            found.push(volume);
        }
    }
    Ok(found)
}

fn attach(
    here: &LocalPlace,
    id: &VolumeId,
    to: &InstanceId,
    device: &str,
) -> std::result::Result<(), Refusal> {
    if *to != machine()? {
        let message = format!("there is no instance {to}; volumes are attached to this machine, {MACHINE}");
        return Err(Refusal::not_found("InvalidInstanceID.NotFound", message));
    }
    let _attaching = here.lock()?;
    let (folder, volume, _) = existing(here, id)?;
    match volume.state {
        VolumeState::Available => {}
        VolumeState::InUse => {
            return Err(Refusal::new(ErrorKind::InUse, IN_USE, format!("volume {id} is attached already")));
        }
        _ => {
            let message = format!("volume {id} is still being created: wait until it is available");
            return Err(Refusal::invalid(WRONG_STATE, message));
        }
    }
    let others = VolumeQuery { attached_to: Some(to.clone()), ..VolumeQuery::default() };
    let taken = |volume: &Volume| volume.attachment.as_ref().is_some_and(|other| other.device == device);
    if let Some(other) = find(here, &others)?.iter().find(|volume| taken(volume)) {
        let message = format!("{device} is already in use, by {}", other.id);
        return Err(Refusal::new(ErrorKind::Exists, "InvalidParameterValue", message));
    }
    // First, since whoever sees the device asks for its name.
    durable::write_json(&folder.attachment(), &Attached { device: device.to_owned() })?;
    loop_device::attach_lasting(&folder.disk()).map_err(|error| no_device(&error))
}

fn no_device(error: &LoopError) -> Refusal {
    Refusal::new(ErrorKind::Denied, "UnauthorizedOperation", crate::host::error::chain(error))
}

fn detach(here: &LocalPlace, id: &VolumeId) -> std::result::Result<(), Refusal> {
    let _detaching = here.lock()?;
    let (folder, _, _) = existing(here, id)?;
    let disk = folder.disk();
    let attached = if disk.exists() { lasting(&disk)? } else { None };
    let Some(attached) = attached else {
        return Err(Refusal::invalid(WRONG_STATE, format!("volume {id} is not attached")));
    };
    Ok(loop_device::detach(attached.number).map_err(StoreError::io("detach", &disk))?)
}

fn lasting(disk: &Path) -> std::result::Result<Option<loop_device::Lasting>, StoreError> {
    loop_device::lasting(disk).map_err(StoreError::io("look at", disk))
}

fn delete(here: &LocalPlace, id: &VolumeId) -> std::result::Result<(), Refusal> {
    let deleting = here.lock()?;
    let (folder, volume, _) = existing(here, id)?;
    if volume.state == VolumeState::InUse {
        return Err(Refusal::new(
            ErrorKind::InUse,
            IN_USE,
            format!("volume {id} is attached: detach it first"),
        ));
    }
    let Some(old) = durable::move_out(&folder.0)? else {
        return Err(Refusal::not_found(NOT_FOUND, format!("there is no volume {id}")));
    };
    drop(deleting);
    match std::fs::remove_dir_all(&old) {
        Err(error) if !durable::gone(&error) => Err(StoreError::io("delete", &old)(error).into()),
        _ => Ok(()),
    }
}

fn snapshot(
    here: &LocalPlace,
    of: &VolumeId,
    new: &NewSnapshotOf,
) -> std::result::Result<SnapshotId, Refusal> {
    let (folder, volume, kept) = existing(here, of)?;
    if volume.state == VolumeState::Creating {
        let message = format!("volume {of} is still being created: wait until it is available");
        return Err(Refusal::invalid(WRONG_STATE, message));
    }
    // As on EC2 it does not need the snapshot that it was made from any more.
    let parent = here.snapshot(&kept.base).kept()?.map(|_| kept.base.clone());
    let new = NewSnapshot {
        volume_size: volume.size,
        parent,
        description: new.description.clone(),
        tags: new.tags.clone(),
        encrypt: None,
        timeout_minutes: child::TIMEOUT,
    };
    // CreateSnapshot has no token: each call makes another one.
    let token = Token::of(of.as_str(), &uuid::Uuid::new_v4().to_string(), 1);
    child::store(here, &folder.disk(), &kept.base, &new, &token)
}
