//! The chroot method: a volume from the base's snapshot, attached to the instance that this program runs on, changed there as
//! the direct method changes its disk file, and snapshotted. What is attached stays so until the ledger is unwound, at a
//! bake's end as after a kill.

mod snapshot;
mod volume;

use std::path::PathBuf;

use async_trait::async_trait;

use super::{BakeCause, BakeError, Baked, Bench, Method, base, change, import, made, parent};
use crate::cloud::{CloudError, SnapshotId, VolumeId, retrying, tag};
use crate::host::holders::{self, Holder};
use crate::plan::{BasePlan, LAYOUT, Plan};
use crate::report::Timing;
use volume::Attached;

#[derive(Debug)]
pub(super) struct Chroot;

#[async_trait]
impl Method for Chroot {
    async fn bake(&self, plan: &Plan, bench: &Bench) -> Result<Baked, BakeError> {
        let BasePlan::Image { id, size, import, .. } = &plan.base else {
            let what = "the chroot method needs an image as its base".to_owned();
            return Err(BakeCause::Other { what }.into());
        };
        let mut timings = Vec::new();
        // Where this is no instance, nothing is made.
        let machine = retrying(&bench.stop, || bench.cloud.volumes.machine()).await?;
        let began = std::time::Instant::now();
        let base = parent::own_base(id, import.as_ref(), plan, bench).await?;
        let snapshot = parent::snapshot_of(&base)?;
        let own_size = parent::snapshot_size(snapshot, plan, bench).await?;
        if import.is_some() {
            timings.push(Timing::new("import the base", began.elapsed()));
        }
        // An instance's root would grow into its volume at first boot: here it has that room already.
        let volume_size = plan.size.unwrap_or(0).max(*size).max(own_size);

        let phase =
            bench.reporter.phase(format!("attaching a volume from {snapshot} to {}", machine.instance));
        let volume = Attached::make(snapshot, volume_size, &machine, plan, bench).await?;
        bench.reporter.note(format!("{} is {}", volume.id, volume.node.display()));
        timings.push(Timing::new("attach a volume", phase.done()));

        if base.imported && !base.image.tags.contains_key(&tag(LAYOUT)) {
            let layout = base::look(&volume.node, plan, bench).await;
            import::note_layout(&base.image, layout.as_ref(), bench).await;
            layout?;
        }
        if volume_size > own_size {
            let phase =
                bench.reporter.phase(format!("growing the root from {own_size} to {volume_size} GiB"));
            let asked = plan.size.unwrap_or(0) > (*size).max(own_size);
            let layout = base::look(&volume.node, plan, bench).await?;
            base::unless_asked(base::fill(&volume.node, &layout, plan, bench).await, asked, bench)?;
            timings.push(Timing::new("grow the root", phase.done()));
        }
        let mut changed = change::disk(&volume.node, plan, bench).await?;
        timings.extend(std::mem::take(&mut changed.timings));

        let phase = bench.reporter.phase(format!("making a snapshot of {}", volume.id));
        // First: then nobody on this machine can write to it any more.
        volume.detach(bench).await?;
        let snapshot = snapshot::make(&volume.id, plan, bench).await?;
        timings.push(Timing::new("make the snapshot", phase.done()));
        let phase = bench.reporter.phase(format!("reading {snapshot} for the record"));
        let map = made::map(&snapshot, volume_size, bench).await?;
        timings.push(Timing::new("read the snapshot", phase.done()));
        Ok(Baked {
            snapshot,
            image: None,
            changed: map.len() as u64,
            map,
            installed: changed.installed,
            timings,
            base: Some(base),
        })
    }
}

/// Why there is no volume to work on, or none that can be let go.
#[derive(Debug, thiserror::Error)]
pub enum ChrootError {
    #[error("{instance} has no device name left for a volume, of /dev/sdf to /dev/sdp: detach one, or wait")]
    NoName { instance: String },
    #[error(
        "{volume} is attached as {device} and does not show on this machine; in a container, give it the machine's /dev \
         (`--privileged --volume /dev:/dev`)"
    )]
    NoNode { volume: VolumeId, device: String, source: Box<CloudError> },
    #[error(
        "disk.encrypt: {snapshot} is encrypted, as the account encrypts every new volume; take `encrypt` out, or name a key"
    )]
    Encrypted { snapshot: SnapshotId },
    #[error("{volume} ({}) is not let go: it is held{}", node.display(), holders::shown(holders))]
    Busy { volume: VolumeId, node: PathBuf, holders: Vec<Holder>, source: Box<CloudError> },
}
