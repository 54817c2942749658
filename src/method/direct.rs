//! The direct method: read the base's blocks, change the file system in place, store the blocks that changed as a child.

use std::sync::Arc;

use async_trait::async_trait;

use super::store::{Store, listed, pipe};
use super::{BakeCause, BakeError, Baked, Bench, Method, base, change, import, parent};
use crate::cloud::tag;
use crate::disk::{BlockMap, Disk, SparseDisk, delta};
use crate::plan::{BasePlan, LAYOUT, Plan};
use crate::report::Timing;

/// The parent's block map in the work folder, for a bake that goes on later.
const PARENT_MAP: &str = "parent.map";
/// Where the base's partitions ended, likewise.
const PARENT_END: &str = "parent.end";

fn gib(size: u32) -> u64 {
    u64::from(size) << 30
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
        let base = parent::own_base(id, import.as_ref(), plan, bench).await?;
        let snapshot = parent::snapshot_of(&base)?;
        // The volume may be larger than its snapshot. EC2 is asked first: the local cloud completes what is looked at.
        let own_size = parent::snapshot_size(snapshot, plan, bench).await?;
        if import.is_some() {
            // The copy may just have been made, by this bake or another.
            listed(snapshot, &bench.cloud, &bench.stop).await.map_err(BakeCause::from)?;
            timings.push(Timing::new("import the base", began.elapsed()));
        }
        let parent_map = if bench.resume.is_some() {
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
            let asked = plan.size.unwrap_or(0) > (*size).max(own_size);
            let enlarged = base::enlarge(&path, &layout, gib(volume_size), plan, bench).await;
            base::unless_asked(enlarged, asked, bench)?;
            timings.push(Timing::new("grow the disk", phase.done()));
        }
        let mut changed = change::disk(&path, plan, bench).await?;
        timings.extend(std::mem::take(&mut changed.timings));

        let phase = bench.reporter.phase("finding the changed blocks");
        let disk: Arc<dyn Disk> = Arc::new(SparseDisk::open_read_only(&path)?);
        let mut grown_from = match std::fs::read_to_string(&end_path) {
            Ok(end) => end.parse().unwrap_or_else(|_| gib(own_size)),
            // It did not grow.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => gib(own_size),
            Err(source) => return Err(BakeCause::File { path: end_path, source }.into()),
        };
        if changed.zeroed {
            let note = "this machine lets nobody keep ext4 from zeroing blocks: every block that the base does not have is stored";
            bench.reporter.note(note);
            grown_from = 0;
        }
        let delta = delta::against(&disk, &parent_map, grown_from, &bench.stop).await?;
        timings.push(Timing::new("find the delta", phase.done()));

        let phase = bench.reporter.phase(format!("storing {} changed blocks of 512 KiB", delta.len()));
        let store = Store { disk: &path, delta, parent: Some((snapshot.clone(), parent_map)), volume_size };
        let stored = store.run(plan, bench).await?;
        timings.push(Timing::new("store", phase.done()));
        let mut baked = stored.baked(changed, timings);
        baked.base = Some(base);
        Ok(baked)
    }
}
