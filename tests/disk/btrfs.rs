//! Subvolumes, and copies of one disk at one time.

use std::fs;

use bakehouse::disk::layout::{Layout, LayoutError};
use bakehouse::disk::tree::{Access, MountedTree};
use bakehouse::host::stop::Stop;

use super::fixture::{Disk, KIND_TOOLS, MIB, small_root};
use crate::gate;

const SIZE: u64 = 160;

/// An unpartitioned btrfs with `fstab` in its root, whose files `then` puts into subvolumes.
async fn disk(fstab: &str, then: &str) -> Disk {
    let disk = Disk::empty(SIZE * MIB);
    let root = disk.dir.path().join("root");
    small_root(&root);
    fs::create_dir(root.join("home")).unwrap();
    fs::write(root.join("etc/fstab"), fstab).unwrap();
    let functions = "sub() { btrfs -q subvolume create \"$at/$1\"; }
        into() { for one in etc usr boot srv home; do mv \"$at/$one\" \"$at/$1/\"; done; }\n";
    disk.filesystem("btrfs", 0, SIZE * MIB, &root, &format!("{functions}{then}")).await;
    disk
}

const BY_NAME: &str = "LABEL=root / btrfs subvol=@ 0 0\nLABEL=root /home btrfs subvol=/@home 0 0\n";

#[tokio::test]
async fn the_root_is_found_in_whatever_subvolume_it_lies() {
    if !gate::has_root(KIND_TOOLS) {
        return;
    }
    let stop = Stop::never();
    for (fstab, then, subvolume) in [
        ("LABEL=root / btrfs defaults 0 0\n", "sub data", ""),
        (BY_NAME, "sub @; sub @home; into @", "@"),
        // A snapshot is a root too, but its fstab names the other.
        (BY_NAME, "sub @; sub @home; into @; btrfs -q subvolume snapshot \"$at/@\" \"$at/@before\"", "@"),
        // The default subvolume, named by nobody.
        (
            "LABEL=root / btrfs defaults 0 0\n",
            "sub root; into root; btrfs subvolume set-default \"$at/root\"",
            "root",
        ),
        ("", "sub root; into root", "root"),
        ("LABEL=root / btrfs subvol=a/b 0 0\n", "sub a; sub a/b; into a/b", "a/b"),
    ] {
        let disk = disk(fstab, then).await;
        let layout = Layout::find(&disk.path, &stop).await.unwrap();
        assert_eq!(layout.subvolume.as_ref().unwrap().path, subvolume, "{then}");
        let at = tempfile::tempdir().unwrap();
        let tree = MountedTree::open(&disk.path, &layout, at.path(), Access::ReadOnly, &stop).await.unwrap();
        assert!(tree.root().unwrap().exists("/etc/os-release"), "{then}");
        tree.close(&stop).await.unwrap();
    }
}

#[tokio::test]
async fn two_roots_and_a_subvolume_that_is_not_there_are_refused_by_name() {
    if !gate::has_root(KIND_TOOLS) {
        return;
    }
    let stop = Stop::never();
    let two = disk("", "sub one; into one; btrfs -q subvolume snapshot \"$at/one\" \"$at/two\"").await;
    let error = Layout::find(&two.path, &stop).await.unwrap_err();
    assert!(matches!(error, LayoutError::TwoRoots { .. }), "{error}");
    assert!(error.to_string().contains("subvolume one of the unpartitioned disk"), "{error}");
    assert!(error.to_string().contains("subvolume two"), "{error}");
    let gone = disk("LABEL=root /x btrfs subvol=@gone\n", "sub @; into @").await;
    let error = Layout::find(&gone.path, &stop).await.unwrap_err();
    assert!(error.to_string().contains("subvol=@gone"), "{error}");
    let none = disk("", "rm -r \"$at/etc\" \"$at/usr\"").await;
    assert!(matches!(Layout::find(&none.path, &stop).await.unwrap_err(), LayoutError::NoRoot { .. }));
}

/// Two bakes of one base at one time: each sees and changes its own disk, though the kernel knows both by one id.
#[tokio::test]
async fn two_copies_of_one_disk_are_changed_at_one_time() {
    if !gate::has_root(KIND_TOOLS) {
        return;
    }
    let stop = Stop::never();
    let first = disk(BY_NAME, "sub @; sub @home; into @; mkdir \"$at/@/home\" 2>/dev/null || true").await;
    let second = first.dir.path().join("second.raw");
    fs::copy(&first.path, &second).unwrap();
    let work = async |path: &std::path::Path, word: &str| {
        let layout = Layout::find(path, &stop).await.unwrap();
        assert_eq!(layout.mounts[0].path, "/home");
        let at = tempfile::tempdir().unwrap();
        let tree = MountedTree::open(path, &layout, at.path(), Access::ReadWrite, &stop).await.unwrap();
        // The other gets its turn while this one is mounted.
        tokio::task::yield_now().await;
        for file in ["/srv/word", "/home/word"] {
            assert!(!tree.root().unwrap().exists(file), "{word}: the other disk is seen");
            tree.root().unwrap().write(file, word.as_bytes(), 0o644).unwrap();
        }
        tree.trim(&stop).await.unwrap();
        tree.close(&stop).await.unwrap();
    };
    tokio::join!(work(&first.path, "first"), work(&second, "second"));
    for (path, word) in [(&first.path, "first"), (&second, "second")] {
        let layout = Layout::find(path, &stop).await.unwrap();
        let at = tempfile::tempdir().unwrap();
        let tree = MountedTree::open(path, &layout, at.path(), Access::ReadOnly, &stop).await.unwrap();
        assert_eq!(tree.root().unwrap().read_text("/srv/word").unwrap(), word);
        assert_eq!(tree.root().unwrap().read_text("/home/word").unwrap(), word);
        tree.close(&stop).await.unwrap();
    }
    first.check("btrfs", 0, SIZE * MIB).await;
    let second = Disk { dir: first.dir, path: second };
    second.check("btrfs", 0, SIZE * MIB).await;
}
