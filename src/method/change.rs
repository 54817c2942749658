//! Changing a root: the recipe's steps in it, the seal, and the look at /boot. The same for every method; only how the
//! root came to be, and where it goes, differs.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{BakeCause, BakeError, Bench, base, keep, kernels};
use crate::disk::boot_check;
use crate::disk::layout::Layout;
use crate::disk::table::TableKind;
use crate::disk::tree::{Esp, MountedTree};
use crate::host::loop_device::Access;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;
use crate::ledger::Left;
use crate::plan::Plan;
use crate::provision::{
    ChrootOptions, ChrootRoot, DiskIdentity, EspAccess, FileSystemIdentity, Installed, KernelIdentity,
    SealOptions, StepContext, installed, run_steps, seal,
};
use crate::report::Timing;

/// What was found in a root that was changed.
#[derive(Debug)]
pub(super) struct Changed {
    pub installed: Installed,
    pub timings: Vec<Timing>,
    /// Whether blocks may have been zeroed that cannot be told from those that the disk never had.
    pub zeroed: bool,
}

/// A root and what is known of the disk that it is on, or will be on.
pub(super) struct Target<'a> {
    pub root: &'a Path,
    /// `None` where the disk is not made yet: then /boot is looked at later.
    pub layout: Option<&'a Layout>,
    pub identity: DiskIdentity,
    pub kernels: KernelIdentity,
    pub esp: EspAccess,
}

/// What the root is called while it is changed; the host's own name must end up in no file.
const HOSTNAME: &str = "localhost";

/// Changes the root that is on a disk: mounts it, and gives it back whatever happens.
pub(super) async fn disk(disk: &Path, plan: &Plan, bench: &Bench) -> Result<Changed, BakeError> {
    let layout = base::look(disk, plan, bench).await?;
    let at = bench.work.root();
    std::fs::create_dir_all(&at).map_err(|source| BakeCause::File { path: at.clone(), source })?;
    let tree = MountedTree::open(disk, &layout, &at, Access::ReadWrite, &bench.stop)
        .await
        .map_err(BakeCause::from)?;
    let esp = match tree.esp() {
        Esp::Absent | Esp::Mounted(_) => EspAccess::Full,
        Esp::Copied(path) => {
            bench.reporter.note(format!(
                "the kernel has no vfat: {path} is a copy of the EFI system partition, and what changes in it is written \
                 back; packages that look for its device (grub-efi-…, shim-signed) are held"
            ));
            EspAccess::Files
        }
        Esp::Unseen(reason) => {
            bench.reporter.note(format!(
                "the EFI system partition cannot be changed ({reason}): packages that would write it are held"
            ));
            EspAccess::None
        }
    };
    let result = async {
        let target = Target {
            root: tree.path(),
            layout: Some(&layout),
            identity: identity(&layout, &tree)?,
            kernels: kernels::of(&tree, &layout)?,
            esp,
        };
        let changed = root(&target, plan, bench).await?;
        if !tree.takes_back() {
            bench.reporter.note(
                "the volume takes no freed blocks back (it has no discard): what was deleted from it, in this bake or \
                 before, can be read in the free room of the image by whoever has its disk",
            );
        }
        // Freed blocks become holes: they need not be stored, and hold nothing of what was deleted.
        tree.trim(&bench.stop).await?;
        Ok::<_, BakeCause>(changed)
    }
    .await;
    let zeroed = tree.zeroes_by_itself();
    if matches!(result, Err(BakeCause::Kept { .. })) {
        // The keeper has the mounts now.
        std::mem::forget(tree);
        return Ok(result?);
    }
    match (result, tree.close(&Stop::never()).await) {
        (Ok(changed), Ok(())) => Ok(Changed { zeroed, ..changed }),
        (Ok(_), Err(error)) => Err(error.into()),
        (Err(cause), Ok(())) => Err(cause.into()),
        (Err(cause), Err(error)) => {
            let mut left = Left::Nothing;
            left.add(format!("the root in {}: {error}", at.display()));
            Err(BakeError { cause, left })
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
        // A subvolume of the root's own btrfs is no other file system.
        boot: layout.boot.as_ref().filter(|boot| boot.number() != layout.root.number()).map(of),
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

/// Changes a root in a folder. Where that fails and the user wants it, the root is kept.
pub(super) async fn root(target: &Target<'_>, plan: &Plan, bench: &Bench) -> Result<Changed, BakeCause> {
    // After the last step: whoever goes on begins with the seal.
    let mut failed_at = plan.steps.len();
    let cause = match change(target, plan, bench, &mut failed_at).await {
        Ok(changed) => return Ok(changed),
        Err(cause) => cause,
    };
    let Some(wish) = bench.keep.as_ref().filter(|_| !bench.stop.is_requested()) else {
        return Err(cause);
    };
    match keep::hold(wish, plan, failed_at, bench).await {
        Ok(kept) => {
            Err(BakeCause::Kept { cause: Box::new(cause), bake: plan.bake.clone(), until: kept.expires })
        }
        Err(error) => {
            bench.reporter.warning(format!("cannot keep the root: {error}"));
            Err(cause)
        }
    }
}

async fn change(
    target: &Target<'_>,
    plan: &Plan,
    bench: &Bench,
    failed_at: &mut usize,
) -> Result<Changed, BakeCause> {
    let mut options = ChrootOptions::new(target.root);
    options.disk = Some(target.identity.clone());
    options.kernels = target.kernels.clone();
    options.hostname = HOSTNAME.to_owned();
    let chroot = ChrootRoot::enter(options).await?;
    let context = StepContext {
        reporter: bench.reporter.clone(),
        stop: bench.stop.clone(),
        from: bench.resume.unwrap_or(0),
        environment: bench.environment.clone(),
        esp: target.esp,
        ..StepContext::new(&bench.recipe_dir)
    };
    let steps = run_steps(&chroot, &plan.steps, &context).await;
    // Also where a step failed: whoever looks into the root, or goes on with it, enters it anew.
    let left = chroot.leave().await;
    let steps = steps.inspect_err(|failed| *failed_at = failed.number.saturating_sub(1))?;
    left?;
    let mut timings: Vec<Timing> = steps
        .into_iter()
        .map(|step| Timing { name: format!("step {}: {}", step.number, step.name), seconds: step.seconds })
        .collect();

    let phase = bench.reporter.phase("sealing");
    let dir = RootDir::open(target.root)
        .map_err(|source| BakeCause::File { path: target.root.to_owned(), source })?;
    let installed = installed(&dir, &bench.stop).await?;
    let options = SealOptions {
        remove: &plan.seal.remove,
        reachable: false,
        reporter: &bench.reporter,
        stop: &bench.stop,
    };
    seal(&dir, options).await?;
    if let Some(layout) = target.layout {
        look_at_boot(&dir, layout, bench).await?;
    }
    timings.push(Timing::new("seal", phase.done()));
    Ok(Changed { installed, timings, zeroed: false })
}

/// Fails where the image would not boot.
pub(super) async fn look_at_boot(dir: &RootDir, layout: &Layout, bench: &Bench) -> Result<(), BakeCause> {
    let checked = boot_check::check(dir, layout, &bench.stop).await?;
    for warning in &checked.warnings {
        bench.reporter.warning(warning.clone());
    }
    Ok(())
}
