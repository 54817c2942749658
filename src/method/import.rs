//! The copy of a base in this account: found, or made once. It is shared: no bake's undoing takes it away, and a bake
//! that was killed while it was being made left it to the next one.

use std::time::Duration;

use super::{BakeCause, Bench};
use crate::cloud::{
    CloudError, ErrorKind, Image, ImageId, ImageQuery, ImageState, NewCopy, SnapshotQuery, Tags, Token, Wait,
    retrying, tag, until,
};
use crate::disk::Layout;
use crate::disk::layout::LayoutError;
use crate::ledger::{CreateError, Intent, Kind, Role};
use crate::plan::{IMPORT, Import, LAYOUT, Plan, REFUSED};
use crate::report::Event;

/// A copy of a vendor's image takes minutes to tens of minutes (EC2 user guide); a bake's own deadline ends it earlier.
const AVAILABLE: Wait =
    Wait { what: "import available", every: Duration::from_secs(15), within: Duration::from_secs(6 * 3600) };
/// How long a name that is taken may belong to an image that is not seen yet.
const SEEN: Wait =
    Wait { what: "import seen", every: Duration::from_secs(5), within: Duration::from_secs(180) };
/// Times that an import which failed is made anew.
const ATTEMPTS: u32 = 3;

/// Gives the import of a base, usable. Makes it where it is not here.
pub(super) async fn own(import: &Import, plan: &Plan, bench: &Bench) -> Result<Image, BakeCause> {
    for attempt in 1..=ATTEMPTS {
        let id = match named(import, bench).await? {
            Some(image) if image.tags.get(&tag(IMPORT)) != Some(&import.of.to_string()) => {
                return Err(BakeCause::NotAnImport { image: image.id, name: import.name.clone() });
            }
            Some(image) if image.state == ImageState::Failed => {
                bench.reporter.note(format!(
                    "the import {} of {} failed ({}): it is replaced",
                    image.id,
                    import.of,
                    reason(&image)
                ));
                remove(&image, bench).await?;
                continue;
            }
            Some(image) if image.state == ImageState::Disabled => {
                return Err(BakeCause::ImportDisabled { image: image.id });
            }
            Some(image) => {
                if image.state == ImageState::Pending {
                    bench
                        .reporter
                        .note(format!("{} imports {} already: waiting for it", image.id, import.of));
                }
                image.id
            }
            None => match make(import, attempt, plan, bench).await {
                Ok(id) => id,
                // Another bake was quicker.
                Err(BakeCause::Cloud(error)) if error.kind == ErrorKind::Exists => {
                    let query = by_name(import);
                    until(SEEN, &bench.cloud.place, &bench.stop, || async {
                        Ok(bench.cloud.images.find(&query).await?.into_iter().next())
                    })
                    .await?;
                    continue;
                }
                Err(error) => return Err(error),
            },
        };
        return available(&id, import, bench).await;
    }
    Err(BakeCause::Other {
        what: format!(
            "the import of {} failed {ATTEMPTS} times, or its name, {}, is another image's; look at it with `bakehouse images`",
            import.of, import.name
        ),
    })
}

fn by_name(import: &Import) -> ImageQuery {
    ImageQuery { owners: vec!["self".to_owned()], name: Some(import.name.clone()), ..ImageQuery::default() }
}

async fn named(import: &Import, bench: &Bench) -> Result<Option<Image>, BakeCause> {
    let query = by_name(import);
    let found = retrying(&bench.stop, || bench.cloud.images.find(&query)).await?;
    Ok(found.into_iter().next())
}

async fn make(import: &Import, attempt: u32, plan: &Plan, bench: &Bench) -> Result<ImageId, BakeCause> {
    bench.reporter.note(format!("importing {}, once for all bakes: {}", import.of, import.why));
    let new = NewCopy {
        source: import.of.clone(),
        source_region: import.region.clone(),
        name: import.name.clone(),
        description: import.description.clone(),
        encrypt: import.key.clone(),
        tags: import.tags.clone(),
    };
    let token = Token::of(&plan.bake, "import", attempt);
    let intent = Intent {
        kind: Kind::Image,
        place: bench.cloud.place.clone(),
        what: import.name.clone(),
        token: Some(token.as_str().to_owned()),
        tags: new.tags.clone(),
        role: Role::Shared,
    };
    let made = bench.ledger.create(intent, &bench.stop, || bench.cloud.images.copy(&new, &token)).await;
    made.map_err(|error| match error {
        CreateError::Call(error) if is_storage(&error) => {
            BakeCause::NotCopyable { image: import.of.clone(), source: error }
        }
        other => other.into(),
    })
}

/// What EC2 says of an image whose snapshots are not shared (coreos/bugs#1090: "You do not have permission to access the
/// storage of this ami"); it has no code of its own.
fn is_storage(error: &CloudError) -> bool {
    error.message.contains("storage of this ami")
}

/// Waits until it can be used, and says how far it is.
async fn available(id: &ImageId, import: &Import, bench: &Bench) -> Result<Image, BakeCause> {
    let phase = bench.reporter.phase(format!("import {id} of {}", import.of));
    let query = ImageQuery { ids: vec![id.clone()], ..ImageQuery::default() };
    let failed = |why: String| CloudError::new(ErrorKind::Invalid, "CopyImage", &bench.cloud.place, why);
    let image = until(AVAILABLE, &bench.cloud.place, &bench.stop, || async {
        let image = match bench.cloud.images.find(&query).await {
            // Just made, and not seen yet; one that was deleted meanwhile is found out when the time is over.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            other => other?.into_iter().next(),
        };
        match image {
            Some(image) if image.state == ImageState::Available => Ok(Some(image)),
            Some(image) if image.state == ImageState::Pending => {
                tell_progress(&image, bench).await;
                Ok(None)
            }
            Some(image) => Err(failed(format!(
                "the import {id} of {} failed: {}; {}",
                import.of,
                reason(&image),
                match &import.key {
                    Some(key) =>
                        format!("may the key {key} be used, by these credentials and in this region?"),
                    None => "the next bake makes it anew".to_owned(),
                }
            ))),
            None => Ok(None),
        }
    })
    .await;
    match image {
        Ok(image) => {
            phase.done();
            Ok(image)
        }
        Err(error) => {
            if bench.stop.is_requested() {
                bench
                    .reporter
                    .note(format!("the import {id} goes on without this bake; the next one has it"));
            }
            Err(error.into())
        }
    }
}

/// How far a copy is, where the cloud says so. Of no consequence where it does not.
async fn tell_progress(image: &Image, bench: &Bench) {
    let Some((_, snapshot)) = image.root() else { return };
    let query = SnapshotQuery { ids: vec![snapshot.clone()], ..SnapshotQuery::default() };
    let Ok(found) = bench.cloud.snapshots.describe(&query).await else { return };
    if let Some(percent) = found.first().and_then(|snapshot| snapshot.progress) {
        let name = "percent imported".to_owned();
        bench.reporter.emit(Event::Progress { name, done: u64::from(percent), total: 100 });
    }
}

fn reason(image: &Image) -> &str {
    image.state_reason.as_deref().unwrap_or("no reason is given")
}

/// Takes away an import that failed, with what it has of snapshots.
async fn remove(image: &Image, bench: &Bench) -> Result<(), BakeCause> {
    let gone = |result: crate::cloud::Result<()>| match result {
        // Another bake was quicker, or it never had any.
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::InUse) => Ok(()),
        other => other,
    };
    gone(retrying(&bench.stop, || bench.cloud.images.deregister(&image.id)).await)?;
    for device in &image.attributes.devices {
        if let Some(snapshot) = device.ebs.as_ref().and_then(|disk| disk.snapshot.as_ref()) {
            gone(retrying(&bench.stop, || bench.cloud.snapshots.delete(snapshot)).await)?;
        }
    }
    Ok(())
}

/// Notes on an import what its disk is, for the plans of later bakes.
pub(super) async fn note_layout(image: &Image, found: Result<&Layout, &BakeCause>, bench: &Bench) {
    let text = match found {
        Ok(layout) => {
            let kind =
                layout.root.filesystem.as_ref().map(|found| found.kind.to_string()).unwrap_or_default();
            format!("{kind} on {}", layout.root)
        }
        Err(BakeCause::Layout { source: LayoutError::Layer { layer, .. }, .. }) => {
            format!("{REFUSED}{layer}")
        }
        // May be this machine's, and another's not.
        Err(_) => return,
    };
    // EC2 takes 255 characters.
    let tags = Tags::from([(tag(LAYOUT), text.chars().take(255).collect())]);
    if let Err(error) = retrying(&bench.stop, || bench.cloud.images.tag(&image.id, &tags)).await {
        bench.reporter.note(format!("the import does not say what its disk is: {error}"));
    }
}
