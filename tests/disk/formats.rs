//! Each file system that a root can be made on: the checker's word, nothing of a file lost on the way, and a snapshot of
//! it read where every block that was never put is noise.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bakehouse::disk::boot_config::{ScratchIds, prepare_root};
use bakehouse::disk::filesystem::FilesystemKind;
use bakehouse::disk::format::{Btrfs, Ext4, FormatError, RootFormat, Spec, Xfs, make};
use bakehouse::disk::tree::{Access, MountedTree};
use bakehouse::disk::{Disk, Layout, SparseDisk, delta};
use bakehouse::host::exec::{Cmd, ExecError};
use bakehouse::host::loop_device::LoopDevice;
use bakehouse::host::root_dir::RootDir;
use bakehouse::host::stop::Stop;

use super::fixture::MIB;
use super::format::{EPOCH, NEEDS, root_with_grub};
use super::odd;
use crate::gate;
use crate::store::Local;

const TOOLS: [&str; 5] = ["mkfs.xfs", "xfs_repair", "mkfs.btrfs", "btrfs", "fstrim"];

fn gate() -> bool {
    gate::has_root(&[NEEDS, &TOOLS].concat())
}

#[tokio::test]
async fn a_root_on_ext4_has_all_of_its_files_and_reads_well_among_noise() {
    if gate() {
        whole(&Ext4, "ext4").await;
    }
}

#[tokio::test]
async fn a_root_on_xfs_has_all_of_its_files_and_reads_well_among_noise() {
    if gate() {
        whole(&Xfs, "xfs").await;
    }
}

#[tokio::test]
async fn a_root_on_btrfs_has_all_of_its_files_and_reads_well_among_noise() {
    if gate() {
        whole(&Btrfs, "btrfs").await;
    }
}

async fn whole(format: &dyn RootFormat, module: &str) {
    let stop = Stop::never();
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("root");
    root_with_grub(&folder, module);
    fs::create_dir(folder.join("srv/odd")).unwrap();
    odd::fill(&folder.join("srv/odd"));
    let ids = ScratchIds::derived(module);
    prepare_root(&RootDir::open(&folder).unwrap(), &ids, format).unwrap();
    let made = work.path().join("made.raw");
    let spec = Spec { root: &folder, disk: &made, ids: &ids, format, epoch: EPOCH, size: None };
    let layout = make(&spec, &stop).await.unwrap().layout;
    assert_eq!(layout.root.uuid(), Some(ids.root.to_string().as_str()));
    let found = layout.root.filesystem.as_ref().unwrap();
    assert_eq!((&found.kind, found.label.as_deref()), (&format.kind(), Some("root")));

    // Put into a cloud and read from it: what lies in no partition was never put, and is noise.
    let local = Local::new();
    let disk: Arc<dyn Disk> = Arc::new(SparseDisk::open_read_only(&made).unwrap());
    let areas = delta::areas(&layout.ids, disk.size());
    let delta = delta::whole(&disk, &areas, &stop).await.unwrap();
    let snapshot = crate::stored::snapshot(&local.cloud, &disk, &delta).await;
    let path = work.path().join("read.raw");
    local.store().write_disk(&local.cloud.place, &snapshot, &path, 1, &stop).await.unwrap();
    let part = &layout.root.partition;
    let mut behind = vec![0; 4096];
    fs::File::open(&path).unwrap().read_exact_at(&mut behind, part.start + part.size + MIB).unwrap();
    assert!(
        behind.chunks(64).all(|some| some.iter().any(|byte| *byte != 0)),
        "no noise where nothing was put"
    );

    let mut layout = Layout::find(&path, &stop).await.unwrap();
    check(&path, &layout).await.unwrap();
    // The root alone: the ESP is not made of the folder.
    layout.mounts.clear();
    let at = tempfile::tempdir().unwrap();
    let tree = MountedTree::open(&path, &layout, at.path(), Access::ReadOnly, &stop).await.unwrap();
    let (before, after) = (odd::told(&folder), odd::told(at.path()));
    for (path, told) in &before {
        assert_eq!(after.get(path), Some(told), "{}", path.display());
    }
    assert_eq!(before.len(), after.len());
    let sparse = fs::metadata(at.path().join("srv/odd/sparse")).unwrap();
    assert!(sparse.blocks() * 512 < MIB, "{} blocks of a file of holes", sparse.blocks());
    let free = rustix::fs::statvfs(at.path()).unwrap();
    assert!(free.f_bavail * free.f_frsize > 64 * MIB);
    tree.close(&stop).await.unwrap();
}

/// By the checker of its kind, which changes nothing.
async fn check(disk: &Path, layout: &Layout) -> Result<(), ExecError> {
    let part = &layout.root.partition;
    let device =
        LoopDevice::attach(disk, part.start, part.size, bakehouse::host::loop_device::Access::ReadOnly)
            .unwrap();
    let checker = match &layout.root.filesystem.as_ref().unwrap().kind {
        FilesystemKind::Ext4 => Cmd::new("e2fsck").args(["-f", "-n"]),
        FilesystemKind::Xfs => Cmd::new("xfs_repair").args(["-n"]),
        FilesystemKind::Btrfs => Cmd::new("btrfs").args(["check", "--check-data-csum"]),
        other => panic!("{other}"),
    };
    let checked = checker.arg(device.node()).run(&Stop::never()).await;
    device.close().await.unwrap();
    checked.map(|_| ())
}

/// What the rule is for: xfs reads noise in its log where zeros were left out, and does not mount.
#[tokio::test]
async fn a_root_on_xfs_whose_zeros_were_not_put_is_damaged() {
    if !gate() {
        return;
    }
    let stop = Stop::never();
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("root");
    root_with_grub(&folder, "xfs");
    let made = work.path().join("made.raw");
    let ids = ScratchIds::derived("without zeros");
    let spec = Spec { root: &folder, disk: &made, ids: &ids, format: &Xfs, epoch: EPOCH, size: None };
    let layout = make(&spec, &stop).await.unwrap().layout;
    let local = Local::new();
    let disk: Arc<dyn Disk> = Arc::new(SparseDisk::open_read_only(&made).unwrap());
    let mut delta = delta::whole(&disk, &delta::areas(&layout.ids, disk.size()), &stop).await.unwrap();
    delta.retain(|(_, digest)| *digest != *bakehouse::cloud::ZERO_BLOCK);
    let snapshot = crate::stored::snapshot(&local.cloud, &disk, &delta).await;
    let path = work.path().join("read.raw");
    local.store().write_disk(&local.cloud.place, &snapshot, &path, 1, &stop).await.unwrap();
    assert!(check(&path, &layout).await.is_err());
    let at = tempfile::tempdir().unwrap();
    MountedTree::open(&path, &layout, at.path(), Access::ReadWrite, &stop).await.unwrap_err();
}

/// A stop in the middle of copying: neither file, mount nor loop device stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_not_copied_to_its_end_leaves_nothing() {
    if !gate() {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("root");
    root_with_grub(&folder, "xfs");
    // Long enough to copy that the stop comes before the end.
    fs::write(folder.join("srv/large"), vec![0x5a; 384 << 20]).unwrap();
    let ids = ScratchIds::derived("stopped");
    let path = work.path().join("disk.raw");
    for format in [&Xfs as &dyn RootFormat, &Btrfs] {
        let stop = Stop::never();
        let ended = AtomicBool::new(false);
        let spec = Spec { root: &folder, disk: &path, ids: &ids, format, epoch: EPOCH, size: None };
        let error = std::thread::scope(|threads| {
            threads.spawn(|| {
                while mounted_from(&path).is_empty() && !ended.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                stop.request(15);
            });
            let made = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(make(&spec, &stop))
            });
            ended.store(true, Ordering::SeqCst);
            made.unwrap_err()
        });
        assert!(matches!(error, FormatError::Exec(ExecError::Stopped { .. })), "{error:?}");
        assert!(!path.exists());
        assert!(loops_of(&path).is_empty() && mounted_from(&path).is_empty());
    }
}

/// The numbers of the loop devices on a file, a deleted one too.
fn loops_of(file: &Path) -> Vec<String> {
    let all = fs::read_dir("/sys/block").unwrap().flatten();
    all.filter(|device| {
        fs::read_to_string(device.path().join("loop/backing_file"))
            .is_ok_and(|backing| backing.starts_with(file.to_str().unwrap()))
    })
    .map(|device| device.file_name().into_string().unwrap())
    .collect()
}

/// Lines of mountinfo (proc(5)) with a file system on one of them.
fn mounted_from(file: &Path) -> Vec<String> {
    let loops = loops_of(file);
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let of = |line: &&str| loops.iter().any(|name| line.contains(&format!("/{name} ")));
    table.lines().filter(of).map(str::to_owned).collect()
}
