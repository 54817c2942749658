//! A root from a distribution's packages, and the disk made of it. The root is made and changed in a folder; the disk
//! is made at the end, as small as its files allow.

use super::super::change::{self, Changed, Target};
use super::super::{BakeCause, Bench};
use super::{distribution, mmdebstrap, open};
use crate::disk::boot_config::{self, ScratchIds};
use crate::disk::filesystem::FilesystemKind;
use crate::disk::format::{self, RootFormat};
use crate::plan::Plan;
use crate::provision::{DiskIdentity, EspAccess, FileSystemIdentity, KernelIdentity, set_up_cloud};
use crate::recipe::{RootFilesystem, Scratch};
use crate::report::Timing;

/// Makes the root, changes it, and makes the disk.
pub(super) async fn run(
    scratch: &Scratch,
    filesystem: RootFilesystem,
    plan: &Plan,
    bench: &Bench,
    timings: &mut Vec<Timing>,
) -> Result<Changed, BakeCause> {
    let root = bench.work.root();
    let ids = ScratchIds::derived(&plan.bake);
    let format = super::format(filesystem);
    if bench.resume.is_none() {
        let distribution = distribution::of(scratch.distribution);
        let phase = bench.reporter.phase(format!("installing {} {}", distribution.name(), scratch.suite));
        mmdebstrap::install(scratch, distribution, filesystem, &root, bench).await?;
        let dir = open(&root)?;
        set_up_cloud(&dir)?;
        boot_config::prepare_root(&dir, &ids, format)?;
        if format.kind() == FilesystemKind::Ext4 {
            // mke2fs makes it in any case; from the root it takes its SELinux label, which the seal gives.
            dir.make_dirs("/lost+found", 0o700)
                .map_err(|source| BakeCause::File { path: root.clone(), source })?;
        }
        timings.push(Timing::new("install the distribution", phase.done()));
    }
    let target = Target {
        root: &root,
        layout: None,
        identity: identity(&ids, format),
        kernels: KernelIdentity::default(),
        esp: EspAccess::None,
    };
    let changed = change::root(&target, plan, bench).await?;
    let dir = open(&root)?;
    mmdebstrap::forget_proxy(&dir)?;

    let phase = bench.reporter.phase("making the disk");
    let disk = bench.work.disk();
    let spec = format::Spec {
        root: &root,
        disk: &disk,
        ids: &ids,
        format,
        epoch: plan.created.as_second(),
        size: plan.size.map(|gib| u64::from(gib) << 30),
    };
    let made = format::make(&spec, &bench.stop).await?;
    change::look_at_boot(&dir, &made.layout, bench).await?;
    timings.push(Timing::new("make the disk", phase.done()));
    Ok(changed)
}

/// What the root's programs are told of the disk that will be made of it.
fn identity(ids: &ScratchIds, format: &dyn RootFormat) -> DiskIdentity {
    DiskIdentity {
        root: FileSystemIdentity {
            kind: format.kind().as_str().to_owned(),
            uuid: ids.root.to_string(),
            label: Some("root".to_owned()),
            partuuid: Some(ids.root_partition.to_string()),
            partition: 1,
            device: None,
        },
        boot: None,
        partmap: "gpt".to_owned(),
    }
}
