//! The direct method: read the base's blocks, change the file system in place, store the blocks that changed as a child.

use std::sync::Arc;

use async_trait::async_trait;

use super::store::{Store, pipe};
use super::{BakeCause, BakeError, Baked, Bench, Method, base, change};
use crate::cloud::{SnapshotId, SnapshotQuery, retrying};
use crate::disk::{BlockMap, Disk, SparseDisk, delta};
use crate::plan::{BasePlan, Plan};
use crate::report::Timing;

/// The parent's block map in the work folder, for a bake that goes on later.
const PARENT_MAP: &str = "parent.map";

fn gib(size: u32) -> u64 {
    u64::from(size) << 30
}

/// GiB.
async fn snapshot_size(snapshot: &SnapshotId, bench: &Bench) -> Result<u32, BakeCause> {
    let query = SnapshotQuery { ids: vec![snapshot.clone()], ..SnapshotQuery::default() };
    let found = retrying(&bench.stop, || bench.cloud.snapshots.describe(&query)).await?;
    let what = format!("{snapshot}, the base's snapshot, is not in {}", bench.cloud.place);
    found.first().map(|found| found.volume_size).ok_or(BakeCause::Other { what })
}

#[derive(Debug)]
pub(super) struct Direct;

#[async_trait]
impl Method for Direct {
    async fn bake(&self, plan: &Plan, bench: &Bench) -> Result<Baked, BakeError> {
        let BasePlan::Image { snapshot, size, .. } = &plan.base else {
            return Err(
                BakeCause::Other { what: "the direct method needs an image as its base".to_owned() }.into()
            );
        };
        let path = bench.work.disk();
        let map_path = bench.work.path().join(PARENT_MAP);
        let mut timings = Vec::new();
        // The volume may be larger than its snapshot.
        let own_size = snapshot_size(snapshot, bench).await?;
        let parent = if bench.resume.is_some() {
            BlockMap::read(&map_path).map_err(|source| BakeCause::File { path: map_path.clone(), source })?
        } else {
            let phase = bench.reporter.phase(format!("reading the base {snapshot}"));
            let disk: Arc<dyn Disk> = Arc::new(SparseDisk::create(&path, gib(own_size))?);
            let map = pipe(bench).download(snapshot, &disk).await?;
            map.write(&map_path).map_err(|source| BakeCause::File { path: map_path.clone(), source })?;
            timings.push(Timing::new("read the base", phase.done()));
            map
        };
        // An instance's root would grow into its volume at first boot: here it has that room already.
        let volume_size = plan.size.unwrap_or(0).max(*size).max(own_size);
        if volume_size > own_size && bench.resume.is_none() {
            let phase =
                bench.reporter.phase(format!("growing the disk from {own_size} to {volume_size} GiB"));
            let layout = base::look(&path, plan, bench).await?;
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
        let delta = delta::against(&disk, &parent, &bench.stop).await?;
        timings.push(Timing::new("find the delta", phase.done()));

        let phase = bench.reporter.phase(format!("storing {} changed blocks of 512 KiB", delta.len()));
        let store = Store { disk: &path, delta, parent: Some((snapshot.clone(), parent)), volume_size };
        let stored = store.run(plan, bench).await?;
        timings.push(Timing::new("store", phase.done()));
        Ok(stored.baked(changed, timings))
    }
}
