//! The image of the instance: made, waited for, and known to the ledger with its snapshots until it is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use super::LaunchError;
use crate::cloud::{
    CloudError, ErrorKind, Image, ImageId, ImageQuery, ImageState, InstanceId, NewImageOf, SnapshotId,
    SnapshotQuery, Wait, retrying, tag, until,
};
use crate::ledger::{Intent, Kind, Role};
use crate::method::{BakeCause, Bench};
use crate::plan::Plan;
use crate::report::Event;

/// A snapshot of a large volume takes as long as its blocks take to be stored: 100 GiB some ten minutes.
const AVAILABLE: Wait =
    Wait { what: "image available", every: Duration::from_secs(5), within: Duration::from_secs(2 * 3600) };
const SNAPSHOT: &str = "the image's snapshot";

/// Makes it, and waits until it can be used.
pub(super) async fn create(
    plan: &Plan,
    of: &InstanceId,
    bench: &Bench,
) -> Result<(ImageId, SnapshotId, u32), BakeCause> {
    let (images, place) = (&bench.cloud.images, &bench.cloud.place);
    let tags = plan.temporary_tags();
    let new = NewImageOf {
        name: plan.image_name.clone(),
        description: plan.description.clone(),
        image_tags: tags.clone(),
        snapshot_tags: tags.clone(),
    };
    let intent = |kind, what: &str, role| Intent {
        kind,
        place: place.clone(),
        what: what.to_owned(),
        token: None,
        tags: tags.clone(),
        role,
    };
    // First, and so undone last: no snapshot goes while an image has it.
    let announced = bench.ledger.announce(intent(Kind::Snapshot, SNAPSHOT, Role::Temporary))?;
    let call = || async {
        let error = match images.create(of, &new).await {
            Ok(id) => return Ok(id),
            Err(error) => error,
        };
        // Its answer may have been lost: the image of this name with this bake's tag is its result.
        find_own(plan, bench).await.ok().flatten().map(|image| image.id).ok_or(error)
    };
    let made = bench.ledger.create(intent(Kind::Image, &new.name, Role::Result), &bench.stop, call).await?;
    let query = ImageQuery { ids: vec![made.clone()], ..ImageQuery::default() };
    let shown = std::sync::atomic::AtomicU8::new(0);
    let available = until(AVAILABLE, place, &bench.stop, || async {
        let found = match images.find(&query).await {
            // Made, and not shown yet.
            Err(error) if error.kind == ErrorKind::NotFound => None,
            other => other?.into_iter().next(),
        };
        match found {
            Some(image) if image.state == ImageState::Available => Ok(Some(image)),
            Some(image) if image.state == ImageState::Failed => {
                let why = image.state_reason.unwrap_or_else(|| "without a reason".to_owned());
                Err(CloudError::new(
                    ErrorKind::Invalid,
                    "CreateImage",
                    place,
                    format!("{made} failed: {why}"),
                ))
            }
            Some(image) => {
                progress(&image, bench, &shown).await;
                Ok(None)
            }
            None => Ok(None),
        }
    })
    .await?;
    let Some((disk, root)) = available.root() else {
        return Err(LaunchError::NoRoot { image: made.to_string() }.into());
    };
    bench.ledger.found(announced, root.clone())?;
    let devices = available.attributes.devices.iter().filter_map(|device| device.ebs.as_ref());
    let others: BTreeSet<_> =
        devices.filter_map(|disk| disk.snapshot.clone()).filter(|id| id != root).collect();
    for other in others {
        bench.ledger.adopt(intent(Kind::Snapshot, SNAPSHOT, Role::Temporary), other)?;
    }
    if plan.encryption.refused && is_encrypted(root, bench).await? {
        return Err(LaunchError::Encrypted { snapshot: root.to_string() }.into());
    }
    if plan.attributes.imds_v2 && !available.attributes.imds_v2 {
        // CreateImage has no such wish; the image is nobody's yet.
        retrying(&bench.stop, || images.require_imds_v2(&made)).await?;
    }
    Ok((made, root.clone(), disk.size))
}

async fn is_encrypted(snapshot: &SnapshotId, bench: &Bench) -> Result<bool, CloudError> {
    let query = SnapshotQuery { ids: vec![snapshot.clone()], ..SnapshotQuery::default() };
    let found = retrying(&bench.stop, || bench.cloud.snapshots.describe(&query)).await?;
    Ok(found.iter().any(|snapshot| snapshot.encrypt.is_some()))
}

/// How far the snapshot is, where the cloud says it.
async fn progress(image: &Image, bench: &Bench, shown: &std::sync::atomic::AtomicU8) {
    let Some((_, snapshot)) = image.root() else { return };
    let query = SnapshotQuery { ids: vec![snapshot.clone()], ..SnapshotQuery::default() };
    // It is told, and nothing depends on it.
    let Ok(found) = bench.cloud.snapshots.describe(&query).await else { return };
    if let Some(percent) = found.first().and_then(|found| found.progress)
        && shown.swap(percent, std::sync::atomic::Ordering::Relaxed) != percent
    {
        let name = format!("making the image {}", image.id);
        bench.reporter.emit(Event::Progress { name, done: u64::from(percent), total: 100 });
    }
}

async fn find_own(plan: &Plan, bench: &Bench) -> Result<Option<Image>, CloudError> {
    let tags = [(tag("bake"), plan.bake.clone())].into();
    let query = ImageQuery { tags, ..ImageQuery::default() };
    let found = retrying(&bench.stop, || bench.cloud.images.find(&query)).await?;
    Ok(found.into_iter().find(|image| image.name == plan.image_name))
}
