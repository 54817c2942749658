//! Images from scratch, and from a disk file.

use crate::yard::{Yard, machine};

/// A disk file in qcow2 is a base: its copy is stored whole, at the size that it has.
#[test]
fn an_exported_image_is_a_base_as_a_file() {
    let Some(yard) = Yard::shared() else { return };
    yard.recipe(
        "exported",
        "version: 1\nname: exported\narchitecture: x86_64\nbase: { file: base.qcow2 }\n\
         provision:\n  - shell: { run: 'echo baked > /etc/baked' }\n\
         checks:\n  - file: { path: /etc/baked, contains: baked }\n",
    );
    let base = yard.record("os-base")["images"][0]["image"].as_str().unwrap().to_owned();
    yard.run(&["export", &base, "exported/base.qcow2"]).ok();
    yard.bake("exported", &[]).ok();
    let record = yard.record("exported");
    assert_eq!(record["method"], "scratch");
    assert_eq!(record["disk"]["size"], yard.record("os-base")["disk"]["size"]);
    yard.run(&["test", "exported", "--no-boot"]).ok();
}

/// The kernel's update of the menu and of the initramfs comes out right on each, and the root grows at the first boot.
fn boots_and_grows(filesystem: &str, boot_mode: &str, instance_type: &str) {
    let Some(yard) = Yard::shared() else { return };
    let name = format!("on-{filesystem}");
    yard.recipe(
        &name,
        &format!(
            "version: 1\nname: {name}\narchitecture: x86_64\n\
             base: {{ scratch: {{ distribution: debian, suite: bookworm }} }}\n\
             disk: {{ filesystem: {filesystem} }}\nboot: {{ within: 10m }}\nimage: {{ boot-mode: {boot_mode} }}\n\
             provision:\n  - shell: {{ run: 'update-initramfs -u && update-grub' }}\n\
             checks:\n\
             \x20 - command: {{ run: 'findmnt -n -o FSTYPE /', contains: {filesystem} }}\n\
             \x20 - command: {{ run: 'df --output=size -BM / | tail -n 1 | tr -dc 0-9 | xargs test 3700 -lt' }}\n"
        ),
    );
    yard.bake(&name, &[]).ok();
    let boot = machine();
    yard.run(&["test", &name, "--instance-type", instance_type, "--volume-size", "4GiB"]).ok();
    drop(boot);
}

#[test]
fn a_root_from_scratch_on_xfs_boots_from_bios_and_grows() {
    boots_and_grows("xfs", "legacy-bios", "qemu.virtio");
}

#[test]
fn a_root_from_scratch_on_btrfs_boots_from_uefi_and_grows() {
    boots_and_grows("btrfs", "uefi", "qemu.nvme");
}
