//! Loop devices and mounts: where what is written lands, who holds them, that they come off.

use crate::gate;
use std::io::{Read, Seek, SeekFrom, Write};

use bakehouse::disk::mount::{Mount, MountError, Target};
use bakehouse::disk::sparse::SparseDisk;
use bakehouse::host::loop_device::{Access, LoopDevice, LoopError};
use bakehouse::host::root_dir::RootDir;
use bakehouse::host::stop::Stop;
use rustix::mount::MountFlags;

use super::fixture::{Disk, MIB, TOOLS};

#[tokio::test]
async fn a_part_of_a_disk_is_a_device_and_what_is_written_lands_in_the_file() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let disk = Disk::empty(8 * MIB);
    let device = LoopDevice::attach(&disk.path, 2 * MIB, MIB, Access::ReadWrite).unwrap();
    let mut node = std::fs::OpenOptions::new().read(true).write(true).open(device.node()).unwrap();
    assert_eq!(node.seek(SeekFrom::End(0)).unwrap(), MIB);
    node.seek(SeekFrom::Start(4096)).unwrap();
    node.write_all(&[7; 4096]).unwrap();
    drop(node);
    let number = device.number();
    device.close().await.unwrap();
    let sysfs = format!("/sys/block/loop{number}/loop/backing_file");
    let backing = std::fs::read_to_string(sysfs).unwrap_or_default();
    assert!(!backing.contains(disk.path.to_str().unwrap()), "{backing}");
    let mut bytes = [0; 4096];
    let file = SparseDisk::open_read_only(&disk.path).unwrap();
    file.read_at(&mut bytes, 2 * MIB + 4096).unwrap();
    assert_eq!(bytes, [7; 4096]);
    file.read_at(&mut bytes, 2 * MIB).unwrap();
    assert_eq!(bytes, [0; 4096]);
}

#[tokio::test]
async fn a_read_only_device_takes_no_writes() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let disk = Disk::empty(4 * MIB);
    let device = LoopDevice::attach(&disk.path, 0, 4 * MIB, Access::ReadOnly).unwrap();
    // Root may open it for writing in spite of its flags on some kernels; a write fails on all.
    if let Ok(mut node) = std::fs::OpenOptions::new().write(true).open(device.node()) {
        let written = node.write_all(&[1; 4096]).and_then(|()| node.sync_all());
        assert!(written.is_err());
    }
    device.close().await.unwrap();
    assert!(SparseDisk::open_read_only(&disk.path).unwrap().data_ranges().unwrap().is_empty());
}

#[tokio::test]
async fn more_devices_than_dev_has_nodes_can_be_attached() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let disk = Disk::empty(16 * MIB);
    // Most systems have nodes for 8.
    let devices: Vec<LoopDevice> =
        (0..12).map(|n| LoopDevice::attach(&disk.path, n * MIB, MIB, Access::ReadWrite).unwrap()).collect();
    let mut numbers: Vec<u32> = devices.iter().map(LoopDevice::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 12);
    for device in devices {
        device.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_device_that_is_still_used_names_its_user() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let disk = Disk::empty(MIB);
    let device = LoopDevice::attach(&disk.path, 0, MIB, Access::ReadWrite).unwrap();
    let mut held = std::fs::File::open(device.node()).unwrap();
    held.read_exact(&mut [0]).unwrap();
    let error = device.close().await.unwrap_err();
    assert!(
        matches!(&error, LoopError::InUse { holders, .. } if holders.iter().any(|one| one.pid == std::process::id())),
        "{error}"
    );
    assert!(error.to_string().contains(&std::process::id().to_string()));
}

#[tokio::test]
async fn a_disk_that_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = LoopDevice::attach(&dir.path().join("none"), 0, MIB, Access::ReadWrite).unwrap_err();
    assert!(matches!(error, LoopError::Disk { .. }), "{error}");
}

#[tokio::test]
async fn a_busy_mount_names_who_holds_it_and_comes_off_afterwards() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::tmpfs(Target::Host(dir.path()), "size=1m,mode=755").unwrap();
    let held = std::fs::File::create(dir.path().join("open")).unwrap();
    let stop = Stop::never();
    stop.request(15);
    // With a stop asked for it does not wait long.
    let error = mount.unmount(&stop).await.unwrap_err();
    assert!(
        matches!(&error, MountError::Busy { holders, .. } if holders.iter().any(|one| one.pid == std::process::id())),
        "{error}"
    );
    // The guard is gone, and with it the mount: what is there now is the folder below.
    assert!(!dir.path().join("open").exists());
    drop(held);
}

#[tokio::test]
async fn a_mount_inside_a_root_never_leaves_it() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    let inside = dir.path().join("root");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::create_dir_all(inside.join("real")).unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
    std::os::unix::fs::symlink("/real", inside.join("good")).unwrap();
    let root = RootDir::open(&inside).unwrap();
    assert!(Mount::tmpfs(Target::Inside(&root, "/link"), "size=1m").is_err());
    let mount = Mount::tmpfs(Target::Inside(&root, "/good"), "size=1m").unwrap();
    assert_eq!(mount.path().canonicalize().unwrap(), inside.join("real").canonicalize().unwrap());
    // The folder above it is moved away: it still comes off.
    std::fs::rename(&inside, dir.path().join("moved")).unwrap();
    mount.unmount(&Stop::never()).await.unwrap();
    assert!(std::fs::remove_dir(dir.path().join("moved/real")).is_ok());
}

#[tokio::test]
async fn a_read_only_bind_mount_takes_no_writes() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::write(&from, "text").unwrap();
    std::fs::write(&to, "").unwrap();
    let mount = Mount::bind(&from, Target::Host(&to), true).unwrap();
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "text");
    assert!(std::fs::write(&to, "other").is_err());
    mount.unmount(&Stop::never()).await.unwrap();
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "");
    let error =
        Mount::new(&from, Target::Host(dir.path()), "no-such-fs", MountFlags::empty(), "").unwrap_err();
    assert!(error.is_unknown_filesystem(), "{error}");
}
