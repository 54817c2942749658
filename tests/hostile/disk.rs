//! Disks that are made to do harm: tables that say what cannot be, file systems with flipped bytes, one that would panic the
//! kernel at its first error.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bakehouse::disk::filesystem::FilesystemKind;
use bakehouse::disk::ids::DiskIds;
use bakehouse::disk::layout::Layout;
use bakehouse::disk::mount::{Mount, Target};
use bakehouse::disk::sparse::SparseDisk;
use bakehouse::host::exec::Cmd;
use bakehouse::host::loop_device::{Access, LoopDevice};
use bakehouse::host::stop::Stop;
use rustix::mount::MountFlags;

use crate::disk::fixture::{Disk, KIND_TOOLS, KINDS, MIB, small_root};
use crate::gate;

/// An MBR with entries of type 83: where each begins and how long it is, in sectors.
fn mbr(entries: &[(u32, u32)]) -> Vec<u8> {
    let mut sector = vec![0; 512];
    for (number, (start, length)) in entries.iter().enumerate() {
        let entry = &mut sector[446 + number * 16..][..16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..16].copy_from_slice(&length.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[tokio::test]
async fn a_table_that_says_what_cannot_be_is_an_error() {
    if !gate::has(&["sfdisk", "blkid"]) {
        return;
    }
    for (entries, told) in [
        (&[(2048, 4096), (4096, 4096)][..], "overlap"),
        (&[(2048, u32::MAX)], "reaches"),
        (&[(u32::MAX, u32::MAX)], "reaches"),
        (&[(0, 2048)], "reaches"),
    ] {
        let disk = Disk::empty(16 * MIB);
        let file = File::options().write(true).open(&disk.path).unwrap();
        file.write_all_at(&mbr(entries), 0).unwrap();
        match DiskIds::read(&disk.path, &Stop::never()).await {
            Err(error) => assert!(error.to_string().contains(told), "{entries:?}: {error}"),
            // What sfdisk takes for no entry is none.
            Ok(ids) => assert!(ids.volumes.iter().all(|one| one.partition.end() <= 16 * MIB), "{entries:?}"),
        }
    }
    // An extended partition whose chain leads back to itself.
    let disk = Disk::empty(16 * MIB);
    let file = File::options().write(true).open(&disk.path).unwrap();
    let mut first = mbr(&[(2048, 8192)]);
    first[450] = 5;
    file.write_all_at(&first, 0).unwrap();
    let mut link = mbr(&[(1, 1), (0, 8192)]);
    link[466] = 5;
    file.write_all_at(&link, 2048 * 512).unwrap();
    let _ = DiskIds::read(&disk.path, &Stop::never()).await;
}

/// Sixteen bytes at some of the places that are written, one after another: a root, or an error.
#[tokio::test]
async fn a_file_system_with_flipped_bytes_is_a_root_or_an_error() {
    if !gate::has_root(KIND_TOOLS) {
        return;
    }
    let from = tempfile::tempdir().unwrap();
    small_root(from.path());
    std::fs::write(from.path().join("etc/fstab"), "").unwrap();
    for (kind, size) in KINDS {
        let disk = Disk::empty(size * MIB);
        disk.filesystem(kind, 0, size * MIB, from.path(), "").await;
        let find = async || Layout::find(&disk.path, &Stop::never()).await;
        find().await.unwrap();
        let places: Vec<u64> = SparseDisk::open(&disk.path)
            .unwrap()
            .data_ranges()
            .unwrap()
            .into_iter()
            .flat_map(|range| (range.start..range.end).step_by(64 * 1024))
            .collect();
        let file = File::options().read(true).write(true).open(&disk.path).unwrap();
        let mut refused = 0;
        // The last three are where the kinds have their magic numbers.
        let some = places.iter().step_by((places.len() / 6).max(1)).map(|at| at + 1024);
        for at in some.chain([0, 1080, 0x1_0040]) {
            let mut bytes = [0; 16];
            let Ok(()) = file.read_exact_at(&mut bytes, at) else { continue };
            file.write_all_at(&bytes.map(|byte| byte ^ 0xff), at).unwrap();
            if let Err(error) = find().await {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
            file.write_all_at(&bytes, at).unwrap();
        }
        assert!(refused > 0, "{kind}: nothing that was flipped was seen");
        find().await.unwrap();
    }
}

#[tokio::test]
async fn a_file_system_that_would_panic_the_kernel_may_not() {
    if !gate::has_root(&["mke2fs", "tune2fs"]) {
        return;
    }
    let disk = Disk::empty(16 * MIB);
    let make = Cmd::new("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(&disk.path);
    make.run(&Stop::never()).await.unwrap();
    Cmd::new("tune2fs").args(["-e", "panic"]).arg(&disk.path).run(&Stop::never()).await.unwrap();
    let driver = FilesystemKind::Ext4.driver().unwrap();
    for (access, flags, options) in [
        (Access::ReadOnly, MountFlags::RDONLY, driver.read_only),
        (Access::ReadWrite, MountFlags::empty(), driver.read_write),
    ] {
        let at = tempfile::tempdir().unwrap();
        let device = LoopDevice::attach(&disk.path, 0, 16 * MIB, access).unwrap();
        let mount = Mount::new(device.node(), Target::Host(at.path()), driver.name, flags, options).unwrap();
        let table = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let line = table.lines().find(|line| line.contains(at.path().to_str().unwrap())).unwrap();
        assert!(line.contains("errors=remount-ro"), "{line}");
        mount.unmount(&Stop::never()).await.unwrap();
        device.close().await.unwrap();
    }
}
