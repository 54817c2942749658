//! Disks that other tools made, as `base: file`: each begins as noise, is changed, grown, checked and booted.
//!
//! Boots are pairwise over firmware, file system and disk layout, together with those of scratch.rs (xfs by BIOS and
//! btrfs by UEFI, both with a GPT) and loaders.rs (ext4 without a table by BIOS, xfs with a GPT by UEFI). Only a file
//! system that leaves room for a boot sector can be booted without a table: xfs does not, and of btrfs GRUB's core fills
//! more than the 64 KiB that it leaves.

use crate::yard::foreign::{Foreign, GRUB_BIOS, GRUB_UEFI, Names, RootOn, Table, assert_sound};
use crate::yard::{Yard, machine};

/// What a new version of a kernel package does, without a download: its initramfs and GRUB's menu are made anew.
const KERNEL: &str = "dpkg-reconfigure $(dpkg-query -S /boot/vmlinuz-* | cut -d: -f1)";

/// A recipe that makes the root larger than `mib`, and sees that it is.
fn recipe(name: &str, base: &str, rest: &str, steps: &str, mib: u32) -> String {
    format!(
        "version: 1\nname: {name}\narchitecture: x86_64\nbase: {base}\n{rest}\
         provision:\n  - shell: {{ run: '{steps}' }}\n\
         checks:\n  - file: {{ path: /home/baked, contains: here }}\n\
         \x20 - command: {{ run: 'df --output=size -BM / | tail -n 1 | tr -dc 0-9 | xargs test {mib} -lt' }}\n\
         boot: {{ within: 10m }}\n"
    )
}

/// UEFI, MBR with an ESP, ext4, and an fstab that names its partitions by PARTUUID.
#[test]
fn a_foreign_disk_with_an_mbr_and_an_esp_is_changed_and_boots() {
    let Some(yard) = Yard::shared() else { return };
    let rest = "disk: { size: 2GiB }\nimage: { boot-mode: uefi }\n";
    let steps = "echo here > /home/baked; update-initramfs -u && update-grub";
    let folder =
        yard.recipe("foreign-ext4", &recipe("foreign-ext4", "{ file: base.raw }", rest, steps, 1700));
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
    assert_sound(yard, "foreign-ext4");
    let boot = machine();
    yard.run(&["test", "foreign-ext4"]).ok();
    drop(boot);
}

/// BIOS, MBR, xfs with an ext4 at /boot, fstab by label; then a child of the stored image, on a larger volume.
#[test]
fn a_foreign_xfs_is_stored_and_its_child_grows_and_boots() {
    let Some(yard) = Yard::shared() else { return };
    let rest = "image: { boot-mode: legacy-bios }\n";
    let folder = yard.recipe(
        "foreign-xfs",
        &recipe("foreign-xfs", "{ file: base.raw }", rest, "echo here > /home/baked", 700),
    );
    Foreign {
        mib: 1024,
        table: Table::Mbr,
        root: RootOn::Xfs,
        boot: true,
        esp: false,
        names: Names::Label,
        loader: GRUB_BIOS,
    }
    .make(&folder.join("base.raw"));
    yard.bake("foreign-xfs", &[]).ok();
    assert_sound(yard, "foreign-xfs");
    let rest = "disk: { size: 2GiB }\n";
    yard.recipe("xfs-child", &recipe("xfs-child", "{ family: foreign-xfs }", rest, KERNEL, 1700));
    yard.bake("xfs-child", &[]).ok();
    let record = yard.record("xfs-child");
    let (changed, blocks) =
        (record["disk"]["changed-blocks"].as_u64().unwrap(), record["disk"]["blocks"].as_u64().unwrap());
    assert!(changed < blocks, "{changed} of {blocks}");
    assert_sound(yard, "xfs-child");
    let boot = machine();
    yard.run(&["test", "xfs-child"]).ok();
    drop(boot);
}

/// BIOS, MBR, btrfs with subvolumes at / and /home, fstab by UUID.
#[test]
fn a_foreign_btrfs_with_subvolumes_is_changed_and_boots() {
    let Some(yard) = Yard::shared() else { return };
    let rest = "disk: { size: 2GiB }\nimage: { boot-mode: legacy-bios }\n";
    let steps = format!("echo here > /home/baked; {KERNEL}; grep -q rootflags=subvol=@ /boot/grub/grub.cfg");
    let folder =
        yard.recipe("foreign-btrfs", &recipe("foreign-btrfs", "{ file: base.raw }", rest, &steps, 1700));
    Foreign {
        mib: 1536,
        table: Table::Mbr,
        root: RootOn::BtrfsSubvolumes,
        boot: false,
        esp: false,
        names: Names::Uuid,
        loader: GRUB_BIOS,
    }
    .make(&folder.join("base.raw"));
    yard.bake("foreign-btrfs", &[]).ok();
    assert_sound(yard, "foreign-btrfs");
    let boot = machine();
    yard.run(&["test", "foreign-btrfs"]).ok();
    drop(boot);
}

/// No table at all, btrfs in its default subvolume, which fstab does not name: GRUB's menu is made in the bake and leads
/// into the subvolume. (GRUB has no room for its BIOS core there, so that it is not booted.)
#[test]
fn a_foreign_btrfs_without_a_table_gets_a_menu_that_leads_into_its_subvolume() {
    let Some(yard) = Yard::shared() else { return };
    let steps = "echo here > /home/baked; mkdir -p /boot/grub; update-grub";
    let text = recipe("foreign-whole", "{ file: base.raw }", "disk: { size: 2GiB }\n", steps, 1700);
    let folder = yard.recipe("foreign-whole", &text);
    Foreign {
        mib: 1024,
        table: Table::None,
        root: RootOn::BtrfsDefault,
        boot: false,
        esp: false,
        names: Names::Device,
        loader: ":",
    }
    .make(&folder.join("base.raw"));
    yard.bake("foreign-whole", &[]).ok();
    assert_sound(yard, "foreign-whole");
    let image = yard.record("foreign-whole")["images"][0]["image"].as_str().unwrap().to_owned();
    let menu = yard.run(&["shell", &image, "--", "/bin/cat", "/boot/grub/grub.cfg"]).ok().out;
    assert!(menu.contains("/root/boot/vmlinuz-"), "{menu}");
    assert!(menu.contains("rootflags=subvol=root"), "{menu}");
    yard.run(&["test", "foreign-whole", "--no-boot"]).ok();
}
