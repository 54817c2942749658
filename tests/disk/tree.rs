//! A mounted disk: changed, trimmed, taken back.

use crate::gate;
use std::fs;

use bakehouse::disk::layout::Layout;
use bakehouse::disk::sparse::SparseDisk;
use bakehouse::disk::tree::{Access, Esp, MountedTree, TreeError};
use bakehouse::host::exec::Cmd;
use bakehouse::host::stop::Stop;

use super::fixture::{BOOT_UUID, Disk, MIB, TOOLS};

#[tokio::test]
async fn the_tree_is_mounted_changed_and_taken_back() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let stop = Stop::never();
    let disk = Disk::two_parts().await;
    let layout = Layout::find(&disk.path, &stop).await.unwrap();
    let at = tempfile::tempdir().unwrap();
    let tree = MountedTree::open(&disk.path, &layout, at.path(), Access::ReadWrite, &stop).await.unwrap();
    {
        let root = tree.root().unwrap();
        assert_eq!(root.read_text("/boot/vmlinuz-6.1").unwrap(), "a kernel");
        root.write("/boot/new", b"in boot", 0o644).unwrap();
        root.write("/srv/new", b"in the root", 0o644).unwrap();
    }
    assert_eq!(*tree.esp(), Esp::Absent);
    tree.close(&stop).await.unwrap();
    assert_eq!(fs::read_dir(at.path()).unwrap().count(), 0);

    let tree = MountedTree::open(&disk.path, &layout, at.path(), Access::ReadOnly, &stop).await.unwrap();
    {
        let root = tree.root().unwrap();
        assert_eq!(root.read_text("/boot/new").unwrap(), "in boot");
        assert_eq!(root.read_text("/srv/new").unwrap(), "in the root");
        assert!(root.write("/srv/other", b"", 0o644).is_err());
    }
    tree.close(&stop).await.unwrap();
    // What was unmounted is clean: the checker finds nothing to correct.
    for (offset, size) in [(17 * MIB, 30 * MIB), (MIB, 16 * MIB)] {
        let part = disk.dir.path().join("part");
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        SparseDisk::open_read_only(&disk.path).unwrap().read_at(&mut bytes, offset).unwrap();
        fs::write(&part, bytes).unwrap();
        Cmd::new("e2fsck").args(["-f", "-n"]).arg(&part).run(&stop).await.unwrap();
    }
}

/// ext4 zeroes the rest of a small reserved extent when a part of it is used, which a loop device makes a hole of: in a
/// block that the base never had it would be lost. Here it stays reserved and unwritten.
#[tokio::test]
async fn ext4_zeroes_nothing_behind_a_bakes_back() {
    if !gate::has_root(TOOLS) || !gate::has(&["fallocate", "filefrag"]) {
        return;
    }
    let stop = Stop::never();
    let disk = Disk::two_parts().await;
    let layout = Layout::find(&disk.path, &stop).await.unwrap();
    let at = tempfile::tempdir().unwrap();
    let tree = MountedTree::open(&disk.path, &layout, at.path(), Access::ReadWrite, &stop).await.unwrap();
    let file = tree.path().join("srv/reserved");
    Cmd::new("fallocate").args(["-l", "32768"]).arg(&file).run(&stop).await.unwrap();
    {
        let file = fs::OpenOptions::new().write(true).open(&file).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], 8192).unwrap();
        file.sync_all().unwrap();
    }
    let told = Cmd::new("filefrag").arg("-v").arg(&file).run(&stop).await.unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.lines().filter(|line| line.contains("unwritten")).count() == 2, "{told}");
    tree.close(&stop).await.unwrap();
}

#[tokio::test]
async fn freed_blocks_become_holes_and_their_bytes_are_gone() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let stop = Stop::never();
    let disk = Disk::two_parts().await;
    let layout = Layout::find(&disk.path, &stop).await.unwrap();
    let at = tempfile::tempdir().unwrap();
    let secret = b"a secret that must not stay 4711".repeat(64 * 1024);
    let tree = MountedTree::open(&disk.path, &layout, at.path(), Access::ReadWrite, &stop).await.unwrap();
    tree.root().unwrap().write("/srv/secret", &secret, 0o600).unwrap();
    tree.trim(&stop).await.unwrap();
    let data = |path| -> u64 {
        let ranges = SparseDisk::open_read_only(path).unwrap().data_ranges().unwrap();
        ranges.iter().map(|one| one.end - one.start).sum()
    };
    let with = data(&disk.path);
    assert!(tree.root().unwrap().remove("/srv/secret").unwrap());
    tree.trim(&stop).await.unwrap();
    tree.close(&stop).await.unwrap();
    let without = data(&disk.path);
    assert!(without + MIB < with, "{without} of {with} bytes are left");
    let bytes = fs::read(&disk.path).unwrap();
    let needle = b"must not stay 4711";
    assert!(!bytes.windows(needle.len()).any(|part| part == needle));
}

#[tokio::test]
async fn a_tree_that_is_held_says_by_whom_and_one_that_fails_leaves_nothing() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let stop = Stop::never();
    let disk = Disk::two_parts().await;
    let mut layout = Layout::find(&disk.path, &stop).await.unwrap();
    let at = tempfile::tempdir().unwrap();
    let tree = MountedTree::open(&disk.path, &layout, at.path(), Access::ReadWrite, &stop).await.unwrap();
    let held = tree.root().unwrap();
    let hurried = Stop::never();
    hurried.request(15);
    let error = tree.close(&hurried).await.unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(held);
    assert_eq!(fs::read_dir(at.path()).unwrap().count(), 0);

    // A mount point that is not there: made where the disk may change, an error where not.
    layout.mounts[0].path = "/no/such/folder".to_owned();
    let error = MountedTree::open(&disk.path, &layout, at.path(), Access::ReadOnly, &stop).await.unwrap_err();
    assert!(matches!(error, TreeError::NoMountPoint { .. }), "{error}");
    assert_eq!(fs::read_dir(at.path()).unwrap().count(), 0);
    let tree = MountedTree::open(&disk.path, &layout, at.path(), Access::ReadWrite, &stop).await.unwrap();
    assert!(at.path().join("no/such/folder/vmlinuz-6.1").exists());
    tree.close(&stop).await.unwrap();
    assert_eq!(layout.boot.unwrap().uuid(), Some(BOOT_UUID));
}
