//! A disk that another tool made is a base: Debian's vmdb2, with its own table, file system, fstab and GRUB.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::gate;
use crate::yard::foreign::tree;
use crate::yard::{Said, Yard, machine, repository};

#[test]
fn a_disk_that_vmdb2_made_is_baked_on_and_boots() {
    if !gate::has_root(&["vmdb2", "parted", "losetup"]) {
        return;
    }
    let Some(yard) = Yard::shared() else { return };
    yard.recipe(
        "by-vmdb2",
        "version: 1\nname: by-vmdb2\narchitecture: x86_64\nbase: { file: disk.img }\n\
         disk: { size: 2GiB }\nboot: { within: 10m }\nimage: { boot-mode: legacy-bios }\n\
         provision:\n  - shell: { run: 'echo baked > /etc/baked && update-grub' }\n\
         checks:\n\
         \x20 - file: { path: /etc/baked, contains: baked }\n\
         \x20 - command: { run: 'findmnt -n -o FSTYPE /', contains: ext4 }\n\
         \x20 - command: { run: 'df --output=size -BM / | tail -n 1 | tr -dc 0-9 | xargs test 1700 -lt' }\n",
    );
    let folder = yard.path().join("by-vmdb2");
    make_disk(&folder);
    yard.bake("by-vmdb2", &[]).ok();
    let boot = machine();
    yard.run(&["test", "by-vmdb2"]).ok();
    drop(boot);
}

/// vmdb2 installs no packages here: it unpacks the files of the image that all tests share, which is quicker.
fn make_disk(folder: &Path) {
    let files = folder.join("root.tar");
    // vmdb2 writes a resolv.conf of its own, and not through the link that is there.
    let mut pack = Command::new("tar");
    pack.arg("-cf").arg(&files).args(["--exclude=./etc/resolv.conf", "--xattrs", "--xattrs-include=*", "-C"]);
    run(pack.arg(tree()).arg("."));

    let tools = repository().join("tests/bake/vmdb2");
    let mut path = tools.clone().into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let mut tarball = std::ffi::OsString::from("--rootfs-tarball=");
    tarball.push(&files);
    let mut make = Command::new("vmdb2");
    make.env("PATH", path).current_dir(folder).arg(tarball).arg("--output=disk.img");
    run(make.arg("--log=vmdb2.log").arg(tools.join("disk.vmdb")));
    fs::remove_file(&files).unwrap();
}

#[track_caller]
fn run(command: &mut Command) {
    Said::from(command.output().unwrap()).ok();
}
