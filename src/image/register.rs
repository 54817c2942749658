//! Registering: the commit of a bake. Before it nothing is the user's; after it nothing of the image is taken away.

use std::path::PathBuf;
use std::time::Duration;

use super::{BaseRecord, Disk, FORMAT, ImagePlace, Record};
use crate::cloud::{
    BootMode, Cloud, CloudError, ErrorKind, Image, ImageAttributes, ImageId, ImageQuery, ImageState,
    NewImage, SnapshotId, Wait, retrying, tag, until,
};
use crate::host::stop::Stop;
use crate::ledger::{CreateError, Intent, Kind, Ledger, LedgerError, Left, Role};
use crate::method::{Baked, OwnBase};
use crate::plan::{BasePlan, Billing, Plan};

/// EC2 shows a registered image as available within seconds; a copy of blocks is not involved.
const AVAILABLE: Wait =
    Wait { what: "image available", every: Duration::from_secs(1), within: Duration::from_secs(600) };

const UNUSED: Wait =
    Wait { what: "snapshot unused", every: Duration::from_secs(2), within: Duration::from_secs(60) };

/// The record of what was baked, as long as there is no image of it. `recipe` is the digest of the recipe's file.
#[must_use]
pub fn draft(plan: &Plan, baked: &Baked, recipe: &str) -> Record {
    Record {
        format: FORMAT,
        written_by: env!("CARGO_PKG_VERSION").to_owned(),
        family: plan.family.clone(),
        name: plan.image_name.clone(),
        architecture: plan.architecture(),
        bake: plan.bake.clone(),
        method: plan.method.as_str().to_owned(),
        created: plan.created.to_string(),
        images: Vec::new(),
        base: match &plan.base {
            BasePlan::Scratch { scratch, .. } => BaseRecord::Scratch {
                distribution: format!("{:?}", scratch.distribution).to_lowercase(),
                suite: scratch.suite.clone(),
            },
            BasePlan::File { path, .. } => BaseRecord::File { path: path.display().to_string() },
            BasePlan::Image { id, name, snapshot, .. } => {
                let import = baked.base.as_ref().filter(|base| base.imported).map(|base| &base.image);
                let parent = import.and_then(Image::root).map_or(snapshot, |(_, snapshot)| snapshot);
                BaseRecord::Image {
                    id: id.clone(),
                    name: name.clone(),
                    snapshot: parent.clone(),
                    import: import.map(|image| image.id.clone()),
                }
            }
        },
        lineage: match &plan.base {
            BasePlan::Image { lineage, .. } => lineage.clone(),
            BasePlan::Scratch { .. } | BasePlan::File { .. } => Vec::new(),
        },
        recipe: recipe.to_owned(),
        fingerprint: plan.fingerprint.clone(),
        inputs: plan.inputs.clone(),
        source: plan.source.clone(),
        disk: Disk {
            size: baked.map.volume_size,
            digest: baked.map.digest().hex(),
            block_map: "blocks.map".to_owned(),
            blocks: baked.map.len() as u64,
            changed_blocks: baked.changed,
        },
        system: Some(baked.installed.system.clone()),
        packages: baked.installed.packages.clone(),
        timings: baked.timings.clone(),
        leftovers: Vec::new(),
        checks: plan.checks.clone(),
        boot: plan.boot.clone(),
        test: None,
    }
}

/// Registers what was baked and waits until it can be used. On an error before the commit, the caller unwinds the ledger.
///
/// # Errors
/// [`RegisterError`]. Where the image was registered and only the wait failed, the error names it.
pub async fn register(
    plan: &Plan,
    baked: &Baked,
    cloud: &Cloud,
    ledger: &Ledger,
    stop: &Stop,
) -> Result<ImagePlace, RegisterError> {
    if let Some(image) = &baked.image {
        return keep(image, baked, cloud, ledger).await;
    }
    let mut attributes = plan.attributes.clone();
    if let Some(base) = &baked.base {
        carry_over(base, &plan.snapshots, &mut attributes);
    }
    let root = attributes.root_device.clone();
    let disk = attributes
        .devices
        .iter_mut()
        .find(|device| device.name == root)
        .and_then(|device| device.ebs.as_mut())
        .ok_or(RegisterError::NoRoot { device: root })?;
    disk.snapshot = Some(baked.snapshot.clone());
    disk.size = plan.size.unwrap_or(0).max(baked.map.volume_size);
    let new = NewImage {
        name: plan.image_name.clone(),
        description: plan.description.clone(),
        attributes,
        tags: plan.tags.clone(),
    };
    let id = register_once(&new, plan, cloud, ledger, stop).await?;
    let image = available(&id, cloud)
        .await
        .map_err(|source| RegisterError::NotAvailable { image: id.clone(), source })?;
    compare(&image, &baked.snapshot, &plan.billing, cloud).await?;
    Ok(ImagePlace { place: cloud.place.clone(), image: id, snapshot: baked.snapshot.clone() })
}

/// Looks whether an image that a killed bake registered is billed as its base, as that bake would have done; one that is
/// not is taken away. One that is not there any more is billed to nobody: it is waited for as long as it may be unseen.
///
/// # Errors
/// [`RegisterError::Billing`], or that it cannot be looked at.
pub async fn check_billing(
    id: &ImageId,
    snapshot: &SnapshotId,
    wanted: &Billing,
    cloud: &Cloud,
    unseen_within: Duration,
) -> Result<(), RegisterError> {
    let failed = |source| RegisterError::NotAvailable { image: id.clone(), source };
    let query = ImageQuery { ids: vec![id.clone()], ..ImageQuery::default() };
    let seen = Wait { what: "image seen", every: Duration::from_secs(2), within: unseen_within };
    let found = until(seen, &cloud.place, &Stop::never(), || async {
        match cloud.images.find(&query).await {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            other => Ok(other?.into_iter().next()),
        }
    })
    .await;
    match found {
        Err(error) if error.kind == ErrorKind::NotYet => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(_) => {
            let image = available(id, cloud).await.map_err(failed)?;
            compare(&image, snapshot, wanted, cloud).await
        }
    }
}

/// Waits until an image can be used.
async fn available(id: &ImageId, cloud: &Cloud) -> crate::cloud::Result<Image> {
    let query = ImageQuery { ids: vec![id.clone()], ..ImageQuery::default() };
    // Once it is registered, a stop does not undo it: the wait is short, and the answer is wanted.
    until(AVAILABLE, &cloud.place, &Stop::never(), || async {
        let image = match cloud.images.find(&query).await {
            // Just made, and not seen yet; one that was deleted meanwhile is found out when the time is over.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            other => other?.into_iter().next(),
        };
        match image.as_ref().map(|image| image.state) {
            Some(ImageState::Available) => Ok(image),
            Some(ImageState::Failed) => Err(CloudError::new(
                ErrorKind::Invalid,
                "RegisterImage",
                &cloud.place,
                format!("{id} failed"),
            )),
            _ => Ok(None),
        }
    })
    .await
}

/// Takes an image away that is not billed as its base.
async fn compare(
    image: &Image,
    snapshot: &SnapshotId,
    wanted: &Billing,
    cloud: &Cloud,
) -> Result<(), RegisterError> {
    let billed = Billing::of(image);
    if billed == *wanted {
        return Ok(());
    }
    let left = discard(&image.id, snapshot, cloud).await;
    Err(RegisterError::Billing { image: image.id.clone(), billed, wanted: wanted.clone(), left })
}

/// What the plan cannot know of a base that is another account's: its UEFI data, and its other volumes' snapshots, which
/// are the import's.
fn carry_over(base: &OwnBase, of_recipe: &[SnapshotId], attributes: &mut ImageAttributes) {
    if attributes.boot_mode != Some(BootMode::LegacyBios) {
        attributes.uefi_data.clone_from(&base.uefi_data);
    }
    for device in &mut attributes.devices {
        let own = base.image.attributes.devices.iter().find(|own| own.name == device.name);
        if let (Some(disk), Some(own)) = (&mut device.ebs, own.and_then(|own| own.ebs.as_ref()))
            && disk.snapshot.as_ref().is_some_and(|snapshot| !of_recipe.contains(snapshot))
        {
            disk.snapshot.clone_from(&own.snapshot);
        }
    }
}

/// Takes away an image that is registered and not what it should be, with its snapshot; gives what is left of it.
async fn discard(id: &ImageId, snapshot: &SnapshotId, cloud: &Cloud) -> Left {
    let (mut left, never) = (Left::Nothing, Stop::never());
    match retrying(&never, || cloud.images.deregister(id)).await {
        // The answer of an earlier try was lost.
        Err(error) if error.kind == ErrorKind::NotFound => {}
        Err(error) => left.add(format!("image {id} in {}: {error}", cloud.place)),
        Ok(()) => {}
    }
    // It may be seen as in use for a moment after the image is gone.
    let removed = until(UNUSED, &cloud.place, &never, || async {
        match cloud.snapshots.delete(snapshot).await {
            Err(error) if error.kind == ErrorKind::InUse && left.is_nothing() => Ok(None),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Some(())),
            other => other.map(Some),
        }
    })
    .await;
    if let Err(error) = removed {
        left.add(format!("snapshot {snapshot} in {}: {error}", cloud.place));
    }
    left
}

/// Keeps the image that a method made: it expires no more, and that is the commit.
async fn keep(
    image: &ImageId,
    baked: &Baked,
    cloud: &Cloud,
    ledger: &Ledger,
) -> Result<ImagePlace, RegisterError> {
    let keys = [tag("expires")];
    // Short, and wanted: a stop does not end it.
    retrying(&Stop::never(), || cloud.images.untag(image, &keys)).await.map_err(RegisterError::Register)?;
    // It is the user's now, whatever the disk says.
    let _ = ledger.commit();
    Ok(ImagePlace { place: cloud.place.clone(), image: image.clone(), snapshot: baked.snapshot.clone() })
}

/// `RegisterImage` has no idempotency token: where its answer was lost, the image of this name that carries this
/// bake's tag is its result.
async fn register_once(
    new: &NewImage,
    plan: &Plan,
    cloud: &Cloud,
    ledger: &Ledger,
    stop: &Stop,
) -> Result<ImageId, RegisterError> {
    let intent = Intent {
        kind: Kind::Image,
        place: cloud.place.clone(),
        what: new.name.clone(),
        token: None,
        tags: new.tags.clone(),
        role: Role::Commit,
    };
    let call = || async {
        let error = match cloud.images.register(new).await {
            Ok(id) => return Ok(id),
            Err(error) => error,
        };
        // Where this look fails too, the call's own error is the one to tell; unwinding looks again.
        let found = find_own(plan, cloud).await.ok().flatten();
        found.map(|image| image.id).ok_or(error)
    };
    ledger.create(intent, stop, call).await.map_err(|error| match error {
        CreateError::Call(error) => RegisterError::Register(error),
        CreateError::Ledger(error) => RegisterError::Ledger(error),
    })
}

async fn find_own(plan: &Plan, cloud: &Cloud) -> crate::cloud::Result<Option<Image>> {
    let tags = [(tag("bake"), plan.bake.clone())].into();
    let query = ImageQuery { tags, ..ImageQuery::default() };
    let found = retrying(&Stop::never(), || cloud.images.find(&query)).await?;
    Ok(found.into_iter().find(|image| image.name == plan.image_name))
}

/// Why there is no image, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("the base has no volume at its root device {device}")]
    NoRoot { device: String },
    #[error("cannot register the image")]
    Register(#[source] CloudError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("cannot write in the work folder {}", path.display())]
    Keep { path: PathBuf, source: std::io::Error },
    #[error(
        "the image would be billed as {billed}, and its base is as {wanted}: registering from a snapshot changes billing codes \
         here, so {image} was discarded; write `method: launch`, which keeps them"
    )]
    Billing { image: ImageId, billed: Billing, wanted: Billing, left: Left },
    #[error("{image} was registered but did not become available")]
    NotAvailable { image: ImageId, source: CloudError },
}
