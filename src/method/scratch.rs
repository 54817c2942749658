//! The scratch method: a new disk without a parent, from a distribution's packages or from a disk file. All of its
//! blocks are stored, since a block that a snapshot never had is noise and not zero.

mod bootstrap;
mod distribution;
mod mmdebstrap;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::store::Store;
use super::{BakeCause, BakeError, Baked, Bench, Method, base, change, disk_file};
use crate::disk::format::{Btrfs, Ext4, RootFormat, Xfs};
use crate::disk::ids::DiskIds;
use crate::disk::{Disk, MIB, SparseDisk, delta};
use crate::host::root_dir::RootDir;
use crate::plan::{BasePlan, Plan};
use crate::recipe::RootFilesystem;
use crate::report::Timing;

/// EBS volumes are whole GiB.
const GIB: u64 = 1 << 30;

#[derive(Debug)]
pub(super) struct ScratchMethod;

#[async_trait]
impl Method for ScratchMethod {
    async fn bake(&self, plan: &Plan, bench: &Bench) -> Result<Baked, BakeError> {
        let path = bench.work.disk();
        let mut timings = Vec::new();
        let mut changed = match &plan.base {
            BasePlan::Scratch { scratch, filesystem } => {
                bootstrap::run(scratch, *filesystem, plan, bench, &mut timings).await?
            }
            BasePlan::File { path: file, format } => {
                if bench.resume.is_none() {
                    let phase = bench.reporter.phase(format!("copying {}", file.display()));
                    disk_file::copy(file, *format, &path, &bench.stop).await?;
                    enlarge(&path, plan, bench).await?;
                    timings.push(Timing::new("copy the base", phase.done()));
                }
                change::disk(&path, plan, bench).await?
            }
            BasePlan::Image { .. } => {
                let what = "the scratch method does not start from an image".to_owned();
                return Err(BakeCause::Other { what }.into());
            }
        };
        timings.extend(std::mem::take(&mut changed.timings));

        let phase = bench.reporter.phase("hashing the disk");
        let ids = DiskIds::read(&path, &bench.stop).await.map_err(BakeCause::from)?;
        let disk: Arc<dyn Disk> = Arc::new(SparseDisk::open_read_only(&path).map_err(BakeCause::from)?);
        let delta = delta::whole(&disk, &delta::areas(&ids, disk.size()), &bench.stop).await?;
        timings.push(Timing::new("hash the disk", phase.done()));

        let phase = bench.reporter.phase(format!("storing {} blocks of 512 KiB", delta.len()));
        // A disk of 64 TiB has 2^16 GiB.
        let volume_size = u32::try_from(disk.size().div_ceil(GIB)).unwrap_or(u32::MAX);
        let stored = Store { disk: &path, delta, parent: None, volume_size }.run(plan, bench).await?;
        timings.push(Timing::new("store", phase.done()));
        Ok(stored.baked(changed, timings))
    }
}

fn open(path: &Path) -> Result<RootDir, BakeCause> {
    RootDir::open(path).map_err(|source| BakeCause::File { path: path.to_owned(), source })
}

/// The file systems that a root can be made on: the table.
fn format(filesystem: RootFilesystem) -> &'static dyn RootFormat {
    match filesystem {
        RootFilesystem::Ext4 => &Ext4,
        RootFilesystem::Xfs => &Xfs,
        RootFilesystem::Btrfs => &Btrfs,
    }
}

/// Makes the disk as large as the recipe wants.
async fn enlarge(disk: &Path, plan: &Plan, bench: &Bench) -> Result<(), BakeCause> {
    let layout = base::look(disk, plan, bench).await?;
    let wanted = u64::from(plan.size.unwrap_or(0)) * GIB;
    if wanted > layout.disk_size {
        base::enlarge(disk, &layout, wanted, plan, bench).await?;
    } else if wanted != 0 && wanted < layout.disk_size {
        return Err(BakeCause::Other {
            what: format!(
                "disk.size: the base has a disk of {} MiB, which cannot shrink to {} GiB; leave `size` out",
                layout.disk_size / MIB,
                wanted / GIB
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_what_the_recipe_calls_it() {
        for name in [RootFilesystem::Ext4, RootFilesystem::Xfs, RootFilesystem::Btrfs] {
            assert_eq!(format(name).kind().as_str(), name.as_str());
        }
    }
}
