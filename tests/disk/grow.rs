//! Making disks larger.

use crate::gate;
use bakehouse::disk::grow::{GrowError, grow};
use bakehouse::disk::layout::Layout;
use bakehouse::disk::table::Table;
use bakehouse::disk::tree::{Access, MountedTree};
use bakehouse::host::stop::Stop;

use super::fixture::{Disk, MIB, ROOT_PARTUUID, ROOT_UUID, TOOLS, small_root};

#[tokio::test]
async fn a_disk_its_table_its_partition_and_its_file_system_grow() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let stop = Stop::never();
    let disk = Disk::two_parts().await;
    let layout = Layout::find(&disk.path, &stop).await.unwrap();
    let grown = grow(&disk.path, &layout, 256 * MIB, &stop).await.unwrap();
    assert_eq!(grown.disk_size, 256 * MIB);
    assert!(grown.root.partition.size > 230 * MIB, "{:?}", grown.root);
    assert_eq!(grown.root.uuid(), Some(ROOT_UUID));
    let partition = &grown.root.partition;
    assert_eq!(partition.uuid.as_deref(), Some(ROOT_PARTUUID));
    assert_eq!(partition.name.as_deref(), Some("the root"));
    assert_eq!(partition.type_id, layout.root.partition.type_id);
    assert_eq!(Table::read(&disk.path, &stop).await.unwrap().disk_id, layout.ids.disk_id);
    let at = tempfile::tempdir().unwrap();
    let tree = MountedTree::open(&disk.path, &grown, at.path(), Access::ReadWrite, &stop).await.unwrap();
    let found = rustix::fs::statvfs(at.path()).unwrap();
    assert!(found.f_blocks * found.f_frsize > 200 * MIB);
    tree.close(&stop).await.unwrap();
    // Again to the same size: nothing to do.
    assert_eq!(grow(&disk.path, &grown, 256 * MIB, &stop).await.unwrap(), grown);
    let error = grow(&disk.path, &grown, 128 * MIB, &stop).await.unwrap_err();
    assert!(matches!(error, GrowError::Sparse(_)), "{error}");
}

#[tokio::test]
async fn a_disk_without_a_table_and_one_with_an_mbr_grow() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let stop = Stop::never();
    let whole = Disk::empty(32 * MIB);
    let root = whole.dir.path().join("root");
    small_root(&root);
    whole.ext4(0, 32 * MIB, ROOT_UUID, "root", &root).await;
    let layout = Layout::find(&whole.path, &stop).await.unwrap();
    let grown = grow(&whole.path, &layout, 64 * MIB, &stop).await.unwrap();
    assert_eq!(grown.root.partition.size, 64 * MIB);

    let mbr = Disk::with_table(
        32 * MIB,
        "label: dos\nunit: sectors\n1: start=2048, size=40960, type=83, bootable\n",
    )
    .await;
    mbr.ext4(MIB, 20 * MIB, ROOT_UUID, "root", &root).await;
    let layout = Layout::find(&mbr.path, &stop).await.unwrap();
    let grown = grow(&mbr.path, &layout, 64 * MIB, &stop).await.unwrap();
    assert_eq!(grown.root.partition.size, 63 * MIB);
    assert!(grown.root.partition.bootable);
}

#[tokio::test]
async fn a_root_that_is_not_the_last_partition_stays() {
    if !gate::has_root(TOOLS) {
        return;
    }
    let stop = Stop::never();
    let disk = Disk::with_table(
        64 * MIB,
        "label: gpt\nunit: sectors\n1: start=2048, size=61440\n2: start=63488, size=2048\n",
    )
    .await;
    let root = disk.dir.path().join("root");
    small_root(&root);
    disk.ext4(MIB, 30 * MIB, ROOT_UUID, "root", &root).await;
    let layout = Layout::find(&disk.path, &stop).await.unwrap();
    let error = grow(&disk.path, &layout, 128 * MIB, &stop).await.unwrap_err();
    assert!(matches!(&error, GrowError::NotLast { behind, .. } if behind == "partition 2"), "{error}");
    assert!(error.is_for_good());
    assert_eq!(std::fs::metadata(&disk.path).unwrap().len(), 64 * MIB);
}
