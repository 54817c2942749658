//! Disks that other tools made, as `base: file`: each begins as noise, is changed, grown, checked and booted. Pairwise
//! over firmware, file system and disk layout.

use crate::yard::foreign::{Foreign, GRUB_UEFI, Names, RootOn, Table};
use crate::yard::{Yard, machine};

/// UEFI, MBR with an ESP, ext4, and an fstab that names its partitions by PARTUUID.
#[test]
fn a_foreign_disk_with_an_mbr_and_an_esp_is_changed_and_boots() {
    let Some(yard) = Yard::shared() else { return };
    let folder = yard.recipe(
        "foreign-ext4",
        "version: 1\nname: foreign-ext4\narchitecture: x86_64\nbase: { file: base.raw }\n\
         disk: { size: 2GiB }\nimage: { boot-mode: uefi }\n\
         provision:\n  - shell: { run: 'update-initramfs -u && update-grub' }\n\
         checks:\n  - command: { run: 'df --output=size -BM / | tail -n 1 | tr -dc 0-9 | xargs test 1600 -lt' }\n",
    );
    Foreign {
        mib: 1536,
        table: Table::Mbr,
        root: RootOn::Ext4,
        boot: false,
        esp: true,
        names: Names::PartUuid,
        loader: GRUB_UEFI,
    }
    .make(&folder.join("base.raw"));
    yard.bake("foreign-ext4", &[]).ok();
    let boot = machine();
    yard.run(&["test", "foreign-ext4"]).ok();
    drop(boot);
}
