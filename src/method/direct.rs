//! The direct method: read the base's blocks, change the file system in place, store the blocks that changed as a child.

use std::sync::Arc;

use async_trait::async_trait;

use super::store::{Store, pipe};
use super::{BakeCause, BakeError, Baked, Bench, Method, OwnBase, base, change, import};
use crate::cloud::{ImageId, ImageQuery, SnapshotId, SnapshotQuery, retrying, tag};
use crate::disk::{BlockMap, Disk, SparseDisk, delta};
use crate::plan::{BasePlan, Import, LAYOUT, Plan};
use crate::report::Timing;

/// The parent's block map in the work folder, for a bake that goes on later.
const PARENT_MAP: &str = "parent.map";
/// Where the base's partitions ended, likewise.
const PARENT_END: &str = "parent.end";

fn gib(size: u32) -> u64 {
    u64::from(size) << 30
}

/// The image whose snapshot is the parent: the base itself, or its import.
async fn own_base(
    id: &ImageId,
    import: Option<&Import>,
    plan: &Plan,
    bench: &Bench,
) -> Result<OwnBase, BakeCause> {
    let images = &bench.cloud.images;
    let image = match import {
        Some(import) => import::own(import, plan, bench).await?,
        None => {
            let query = ImageQuery { ids: vec![id.clone()], ..ImageQuery::default() };
            let found = retrying(&bench.stop, || images.find(&query)).await?.into_iter().next();
            let what = format!("{id}, the base, is not in {} any more", bench.cloud.place);
            found.ok_or(BakeCause::Other { what })?
        }
    };
    let uefi_data = retrying(&bench.stop, || images.uefi_data(&image.id)).await?;
    Ok(OwnBase { imported: import.is_some(), uefi_data, image })
}

/// GiB.
async fn snapshot_size(snapshot: &SnapshotId, plan: &Plan, bench: &Bench) -> Result<u32, BakeCause> {
    let query = SnapshotQuery { ids: vec![snapshot.clone()], ..SnapshotQuery::default() };
    let found = retrying(&bench.stop, || bench.cloud.snapshots.describe(&query)).await?;
    let what = format!("{snapshot}, the base's snapshot, is not in {}", bench.cloud.place);
    let found = found.first().ok_or(BakeCause::Other { what })?;
    if plan.encryption.refused && found.encrypt.is_some() {
        let what = format!(
            "disk.encrypt: {snapshot}, the base's snapshot, is encrypted, which cannot be undone; take `encrypt` out, or name a key"
        );
        return Err(BakeCause::Other { what });
    }
    Ok(found.volume_size)
}

#[derive(Debug)]
pub(super) struct Direct;

#[async_trait]
impl Method for Direct {
    async fn bake(&self, plan: &Plan, bench: &Bench) -> Result<Baked, BakeError> {
        let BasePlan::Image { id, size, import, .. } = &plan.base else {
            return Err(
                BakeCause::Other { what: "the direct method needs an image as its base".to_owned() }.into()
            );
        };
        let path = bench.work.disk();
        let map_path = bench.work.path().join(PARENT_MAP);
        let mut timings = Vec::new();
        let began = std::time::Instant::now();
        let base = own_base(id, import.as_ref(), plan, bench).await?;
        if import.is_some() {
            timings.push(Timing::new("import the base", began.elapsed()));
        }
        let (_, snapshot) = base.image.root().ok_or_else(|| BakeCause::Other {
            what: format!("{}, the base, has no root volume with a snapshot any more", base.image.id),
        })?;
        // The volume may be larger than its snapshot.
        let own_size = snapshot_size(snapshot, plan, bench).await?;
        let parent = if bench.resume.is_some() {
            BlockMap::read(&map_path).map_err(|source| BakeCause::File { path: map_path.clone(), source })?
        } else {
            let phase = bench.reporter.phase(format!("reading the base {snapshot}"));
            let disk: Arc<dyn Disk> = Arc::new(SparseDisk::create(&path, gib(own_size))?);
            let map = pipe(bench).download(snapshot, &disk).await?;
            map.write(&map_path).map_err(|source| BakeCause::File { path: map_path.clone(), source })?;
            timings.push(Timing::new("read the base", phase.done()));
            if base.imported && !base.image.tags.contains_key(&tag(LAYOUT)) {
                let layout = base::look(&path, plan, bench).await;
                import::note_layout(&base.image, layout.as_ref(), bench).await;
                layout?;
            }
            map
        };
        // An instance's root would grow into its volume at first boot: here it has that room already.
        let volume_size = plan.size.unwrap_or(0).max(*size).max(own_size);
        let end_path = bench.work.path().join(PARENT_END);
        if volume_size > own_size && bench.resume.is_none() {
            let phase =
                bench.reporter.phase(format!("growing the disk from {own_size} to {volume_size} GiB"));
            let layout = base::look(&path, plan, bench).await?;
            let ends = layout.ids.volumes.iter().map(|one| one.partition.start + one.partition.size);
            let end = ends.max().unwrap_or_else(|| gib(own_size)).min(gib(own_size));
            std::fs::write(&end_path, end.to_string())
                .map_err(|source| BakeCause::File { path: end_path.clone(), source })?;
            match base::enlarge(&path, &layout, gib(volume_size), plan, bench).await {
                // Nobody asked for more than the base's own volume: its root stays, as it would on an instance.
                Err(BakeCause::Grow { source, .. })
                    if source.is_for_good() && plan.size.unwrap_or(0) <= (*size).max(own_size) =>
                {
                    bench.reporter.note(format!("the room of the base's volume stays unused: {source}"));
                }
                enlarged => enlarged?,
            }
            timings.push(Timing::new("grow the disk", phase.done()));
        }
        let mut changed = change::disk(&path, plan, bench).await?;
        timings.extend(std::mem::take(&mut changed.timings));

        let phase = bench.reporter.phase("finding the changed blocks");
        let disk: Arc<dyn Disk> = Arc::new(SparseDisk::open_read_only(&path)?);
        let grown_from = match std::fs::read_to_string(&end_path) {
            Ok(end) => end.parse().unwrap_or_else(|_| gib(own_size)),
            // It did not grow.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => gib(own_size),
            Err(source) => return Err(BakeCause::File { path: end_path, source }.into()),
        };
        let delta = delta::against(&disk, &parent, grown_from, &bench.stop).await?;
        timings.push(Timing::new("find the delta", phase.done()));

        let phase = bench.reporter.phase(format!("storing {} changed blocks of 512 KiB", delta.len()));
        let store = Store { disk: &path, delta, parent: Some((snapshot.clone(), parent)), volume_size };
        let stored = store.run(plan, bench).await?;
        timings.push(Timing::new("store", phase.done()));
        let mut baked = stored.baked(changed, timings);
        baked.base = Some(base);
        Ok(baked)
    }
}
