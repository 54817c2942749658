//! What holds for every file system that a root may lie on: found, never changed by a look, changed, trimmed, grown.

use std::fs;
use std::path::Path;

use bakehouse::disk::grow::grow;
use bakehouse::disk::layout::Layout;
use bakehouse::disk::sparse::SparseDisk;
use bakehouse::disk::tree::{Access, MountedTree};
use bakehouse::host::exec::Cmd;
use bakehouse::host::loop_device::LoopDevice;
use bakehouse::host::stop::Stop;
use sha2::{Digest, Sha256};

use super::fixture::{Disk, KIND_TOOLS, KINDS, MIB, small_root};
use crate::gate;

/// One partition from 1 MiB on, and `room` MiB behind it.
async fn disk(table: &str, kind: &str, mib: u64, then: &str) -> Disk {
    let disk = match table {
        "none" => Disk::empty(mib * MIB),
        label => {
            let script = format!("label: {label}\nunit: sectors\n1: start=2048, size={}\n", mib * 2048);
            Disk::with_table((mib + 2) * MIB, &script).await
        }
    };
    let root = disk.dir.path().join("root");
    small_root(&root);
    fs::write(root.join("etc/fstab"), format!("LABEL=root / {kind} defaults 0 1\n")).unwrap();
    disk.filesystem(kind, offset(table), mib * MIB, &root, then).await;
    disk
}

fn offset(table: &str) -> u64 {
    if table == "none" { 0 } else { MIB }
}

fn digest(path: &Path) -> [u8; 32] {
    Sha256::digest(fs::read(path).unwrap()).into()
}

/// What a tool says of the file system at 1 MiB.
async fn said(disk: &Path, mib: u64, words: &[&str]) -> String {
    let device = LoopDevice::attach(disk, MIB, mib * MIB, Access::ReadOnly).unwrap();
    let mut lines = String::new();
    Cmd::new(words[0])
        .args(&words[1..])
        .arg(device.node())
        .stream(&Stop::never(), &mut |_, line| lines.push_str(&format!("{line}\n")))
        .await
        .unwrap();
    device.close().await.unwrap();
    lines
}

/// Also where it was not unmounted: reading neither replays its journal nor counts its mounts.
#[tokio::test]
async fn reading_never_changes_a_byte_and_writing_brings_the_journal_in() {
    if !gate::has_root(KIND_TOOLS) {
        return;
    }
    let stop = Stop::never();
    for (kind, mib) in KINDS {
        // A copy that is taken while it is mounted is what a power failure leaves.
        let torn = r#"umount "$at"; mount -t $KIND "$node" "$at"
            echo synced >"$at/srv/file"; sync "$at/srv/file"; cp --sparse=always "$DISK" "$DISK.torn""#;
        let disk = disk("gpt", kind, mib, torn).await;
        let torn = disk.dir.path().join("disk.raw.torn");
        let (words, sign): (&[&str], &str) = match kind {
            "ext4" => (&["dumpe2fs", "-h"], "needs_recovery"),
            "xfs" => (&["xfs_repair", "-n"], "valuable metadata changes in a log"),
            _ => (&["btrfs", "inspect-internal", "dump-super"], "log_root\t\t0\n"),
        };
        let dirty = said(&torn, mib, words).await.contains(sign);
        assert_eq!(dirty, kind != "btrfs", "{kind}: the copy has nothing in its journal");
        for path in [&disk.path, &torn] {
            let before = digest(path);
            let layout = Layout::find(path, &stop).await.unwrap();
            assert_eq!(layout.root.filesystem.as_ref().unwrap().kind.as_str(), kind);
            let at = tempfile::tempdir().unwrap();
            let tree = MountedTree::open(path, &layout, at.path(), Access::ReadOnly, &stop).await.unwrap();
            assert!(tree.root().unwrap().read_text("/etc/fstab").unwrap().contains(kind));
            assert!(tree.root().unwrap().write("/srv/other", b"", 0o644).is_err());
            tree.close(&stop).await.unwrap();
            assert!(digest(path) == before, "{kind}: reading changed {}", path.display());
        }
        let layout = Layout::find(&torn, &stop).await.unwrap();
        let at = tempfile::tempdir().unwrap();
        let tree = MountedTree::open(&torn, &layout, at.path(), Access::ReadWrite, &stop).await.unwrap();
        assert_eq!(tree.root().unwrap().read_text("/srv/file").unwrap(), "synced\n", "{kind}");
        tree.close(&stop).await.unwrap();
        let whole = Disk { dir: disk.dir, path: torn };
        whole.check(kind, MIB, mib * MIB).await;
    }
}

#[tokio::test]
async fn freed_blocks_become_holes_on_every_kind() {
    if !gate::has_root(KIND_TOOLS) {
        return;
    }
    let stop = Stop::never();
    for (kind, mib) in KINDS {
        let disk = disk("gpt", kind, mib, ":").await;
        let layout = Layout::find(&disk.path, &stop).await.unwrap();
        let at = tempfile::tempdir().unwrap();
        let tree = MountedTree::open(&disk.path, &layout, at.path(), Access::ReadWrite, &stop).await.unwrap();
        let secret: Vec<u8> = b"a secret that must not stay 4711".repeat(512 * 1024);
        tree.root().unwrap().write("/srv/secret", &secret, 0o600).unwrap();
        tree.trim(&stop).await.unwrap();
        let data = || -> u64 {
            let ranges = SparseDisk::open_read_only(&disk.path).unwrap().data_ranges().unwrap();
            ranges.iter().map(|one| one.end - one.start).sum()
        };
        let with = data();
        assert!(tree.root().unwrap().remove("/srv/secret").unwrap());
        tree.trim(&stop).await.unwrap();
        tree.close(&stop).await.unwrap();
        let without = data();
        assert!(without + 15 * MIB < with, "{kind}: {without} of {with} bytes are left");
        disk.check(kind, MIB, mib * MIB).await;
    }
}

#[tokio::test]
async fn every_kind_grows_by_its_own_tool_on_every_table() {
    if !gate::has_root(KIND_TOOLS) {
        return;
    }
    let stop = Stop::never();
    for (kind, mib) in KINDS {
        for table in ["gpt", "dos", "none"] {
            let disk = disk(table, kind, mib, ":").await;
            let layout = Layout::find(&disk.path, &stop).await.unwrap();
            let grown = grow(&disk.path, &layout, (mib + 300) * MIB, &stop).await.unwrap();
            assert_eq!(grown.root.uuid(), layout.root.uuid(), "{kind} on {table}");
            let part = &grown.root.partition;
            assert!(part.size >= (mib + 298) * MIB, "{kind} on {table}: {part:?}");
            let at = tempfile::tempdir().unwrap();
            let tree =
                MountedTree::open(&disk.path, &grown, at.path(), Access::ReadOnly, &stop).await.unwrap();
            let found = rustix::fs::statvfs(at.path()).unwrap();
            let size = found.f_blocks * found.f_frsize;
            assert!(size > (mib + 200) * MIB, "{kind} on {table} has {size} bytes");
            assert!(tree.root().unwrap().exists("/etc/os-release"));
            tree.close(&stop).await.unwrap();
            disk.check(kind, part.start, part.size).await;
        }
    }
}
