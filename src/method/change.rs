//! Changing a root: the recipe's steps in it, the seal, and the look at /boot. The same for every method; only how the
//! root came to be, and where it goes, differs.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{BakeCause, Bench, keep};
use crate::disk::boot_check;
use crate::disk::layout::Layout;
use crate::disk::loop_device::Access;
use crate::disk::table::TableKind;
use crate::disk::tree::MountedTree;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;
use crate::plan::Plan;
use crate::provision::{
    ChrootOptions, ChrootRoot, DiskIdentity, FileSystemIdentity, InstalledPackage, SealOptions, StepContext,
    StepFailed, installed, run_steps, seal,
};
use crate::report::Timing;

/// What was found in a root that was changed.
#[derive(Debug)]
pub(super) struct Changed {
    pub packages: Vec<InstalledPackage>,
    pub timings: Vec<Timing>,
    /// `debian`, `ubuntu`; empty where the root does not say.
    pub distribution: String,
}

/// A root and what is known of the disk that it is on, or will be on.
pub(super) struct Target<'a> {
    pub root: &'a Path,
    /// `None` where the disk is not made yet: then /boot is looked at later.
    pub layout: Option<&'a Layout>,
    pub identity: DiskIdentity,
    pub esp_writable: bool,
}

/// What the root is called while it is changed; the host's own name must end up in no file.
const HOSTNAME: &str = "localhost";

/// Changes the root that is on a disk: mounts it, and gives it back whatever happens.
pub(super) async fn disk(disk: &Path, plan: &Plan, bench: &Bench) -> Result<Changed, BakeCause> {
    let layout = Layout::find(disk, &bench.stop).await?;
    let at = bench.work.root();
    std::fs::create_dir_all(&at).map_err(|source| BakeCause::File { path: at.clone(), source })?;
    let tree = MountedTree::open(disk, &layout, &at, Access::ReadWrite)?;
    if layout.esp.is_some() && !tree.esp_mounted() {
        bench
            .reporter
            .note("the kernel has no vfat: packages that would write the EFI system partition are held");
    }
    let target = Target {
        root: tree.path(),
        layout: Some(&layout),
        identity: identity(&layout, &tree)?,
        esp_writable: layout.esp.is_none() || tree.esp_mounted(),
    };
    match root(&target, plan, bench).await {
        Ok(changed) => {
            // Freed blocks become holes: they need not be stored, and hold nothing of what was deleted.
            tree.trim(&bench.stop).await?;
            tree.close(&bench.stop).await?;
            Ok(changed)
        }
        Err(cause @ BakeCause::Kept { .. }) => {
            // The keeper has them now.
            std::mem::forget(tree);
            Err(cause)
        }
        Err(cause) => {
            if let Err(error) = tree.close(&Stop::never()).await {
                bench.reporter.warning(format!("cannot unmount the root: {error}"));
            }
            Err(cause)
        }
    }
}

fn identity(layout: &Layout, tree: &MountedTree) -> Result<DiskIdentity, BakeCause> {
    let node = tree.root_device();
    let found = node.metadata().map_err(|source| BakeCause::File { path: node.to_owned(), source })?;
    let number = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    let of = |volume: &crate::disk::ids::Volume| FileSystemIdentity {
        kind: volume.filesystem.as_ref().map(|found| found.kind.to_string()).unwrap_or_default(),
        uuid: volume.uuid().unwrap_or_default().to_owned(),
        label: volume.label().map(str::to_owned),
        partuuid: volume.partition.uuid.clone(),
        partition: volume.number(),
        device: None,
    };
    Ok(DiskIdentity {
        root: FileSystemIdentity { device: Some(number), ..of(&layout.root) },
        boot: layout.boot.as_ref().map(of),
        partmap: partmap(layout.ids.kind).to_owned(),
    })
}

/// A partition table as GRUB names its module.
fn partmap(kind: TableKind) -> &'static str {
    match kind {
        TableKind::Gpt => "gpt",
        TableKind::Mbr => "msdos",
        TableKind::None => "",
    }
}

/// Changes a root in a folder.
pub(super) async fn root(target: &Target<'_>, plan: &Plan, bench: &Bench) -> Result<Changed, BakeCause> {
    let mut options = ChrootOptions::new(target.root);
    options.disk = Some(target.identity.clone());
    options.hostname = HOSTNAME.to_owned();
    let chroot = ChrootRoot::enter(options).await?;
    let context = StepContext {
        reporter: bench.reporter.clone(),
        stop: bench.stop.clone(),
        from: bench.resume.unwrap_or(0),
        environment: bench.environment.clone(),
        esp_writable: target.esp_writable,
        ..StepContext::new(&bench.recipe_dir)
    };
    let steps = match run_steps(&chroot, &plan.steps, &context).await {
        Ok(steps) => steps,
        Err(failed) => return Err(failed_step(chroot, failed, plan, bench).await),
    };
    let mut timings: Vec<Timing> = steps
        .into_iter()
        .map(|step| Timing { name: format!("step {}: {}", step.number, step.name), seconds: step.seconds })
        .collect();
    let distribution = crate::provision::Root::facts(&chroot).distribution.clone();
    chroot.leave().await?;

    let phase = bench.reporter.phase("sealing");
    let dir = RootDir::open(target.root)
        .map_err(|source| BakeCause::File { path: target.root.to_owned(), source })?;
    let packages = installed(&dir)?;
    seal(&dir, SealOptions { remove: &plan.seal.remove, reporter: &bench.reporter })?;
    if let Some(layout) = target.layout {
        look_at_boot(&dir, layout, bench).await?;
    }
    timings.push(Timing::new("seal", phase.done()));
    Ok(Changed { packages, timings, distribution })
}

/// Fails where the image would not boot.
pub(super) async fn look_at_boot(dir: &RootDir, layout: &Layout, bench: &Bench) -> Result<(), BakeCause> {
    let checked = boot_check::check(dir, layout, &bench.stop).await?;
    for warning in &checked.warnings {
        bench.reporter.warning(warning.clone());
    }
    Ok(())
}

/// What becomes of a root whose step failed: it is kept, or left.
async fn failed_step(chroot: ChrootRoot, failed: StepFailed, plan: &Plan, bench: &Bench) -> BakeCause {
    // Also before it is kept: whoever looks into it, or goes on with it, enters it anew.
    if let Err(error) = chroot.leave().await {
        bench.reporter.warning(format!("cannot leave the root: {error}"));
    }
    let Some(wish) = bench.keep.as_ref().filter(|_| !bench.stop.is_requested()) else {
        return BakeCause::Step(failed);
    };
    match keep::hold(wish, plan, failed.number.saturating_sub(1), bench) {
        Ok(kept) => BakeCause::Kept { step: Box::new(failed), bake: plan.bake.clone(), until: kept.expires },
        Err(error) => {
            bench.reporter.warning(format!("cannot keep the root: {error}"));
            BakeCause::Step(failed)
        }
    }
}
