//! SELinux, from the recipe to the labels on the exported disk.

use std::process::Command;

use crate::gate;
use crate::yard::Yard;

/// Where the root's file system begins on a disk from scratch, in bytes.
const ROOT: u64 = 68 << 20;

#[test]
fn labels_are_on_the_disk_that_is_exported() {
    if !gate::has(&["debugfs"]) {
        return;
    }
    let Some(yard) = Yard::shared() else { return };
    yard.recipe(
        "labelled",
        "version: 1\nname: labelled\narchitecture: x86_64\nbase: { family: os-base }\n\
         provision:\n\
         \x20 - shell: { run: 'apt-get update; apt-get install -y --no-install-recommends selinux-policy-default' }\n\
         \x20 - shell: { run: 'sed -i s/^SELINUX=.*/SELINUX=enforcing/ /etc/selinux/config; mkdir -p /root/.ssh' }\n\
         \x20 - files: { from: key, to: /root/.ssh/authorized_keys, mode: \"0600\" }\n",
    );
    yard.file("labelled", "key", "ssh-ed25519 AAAA");
    let said = yard.bake("labelled", &[]).ok();
    assert!(said.err.contains("every file is labelled by the policy `default`"), "{}", said.err);
    let image = yard.record("labelled")["images"][0]["image"].as_str().unwrap().to_owned();
    yard.run(&["export", &image, "labelled/disk.raw"]).ok();
    let disk = format!("{}?offset={ROOT}", yard.path().join("labelled/disk.raw").display());
    for (path, kind) in [
        ("/", "root_t"),
        ("/etc/shadow", "shadow_t"),
        ("/root/.ssh/authorized_keys", "ssh_home_t"),
        ("/boot/grub/grub.cfg", "boot_t"),
        ("/lost+found", "lost_found_t"),
        ("/proc", "root_t"),
    ] {
        let ask = format!("ea_get {path} security.selinux");
        let shown = Command::new("debugfs").args(["-R", &ask, &disk]).output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains(&format!(":object_r:{kind}:")), "{path}: {shown}");
    }
}
