//! The direct method.

use std::fs;

use crate::yard::{Yard, machine};

/// The test that matters most: a kernel that is installed in a direct bake boots from the BIOS, on a virtio disk that is
/// larger than the image's, into which its root grows. In its child the old one is installed again beside it, and a
/// default chosen that GRUB would not take by itself: it boots from UEFI.
#[test]
fn a_kernel_installed_removed_or_chosen_in_a_direct_bake_boots() {
    let Some(yard) = Yard::shared() else { return };
    let larger = yard.record("os-base")["disk"]["size"].as_u64().unwrap() + 2;
    let least = larger * 1024 - 300;
    let recipe = format!(
        "version: 1\nname: kernel\narchitecture: x86_64\nbase: {{ family: os-base }}\n\
         provision:\n\
         \x20 - packages: {{ install: [linux-image-amd64] }}\n\
         \x20 - shell: {{ run: 'apt-get purge -y \"linux-image-*cloud*\"' }}\n\
         checks:\n\
         \x20 - package: {{ name: linux-image-amd64 }}\n\
         \x20 - command: {{ run: 'uname -r | grep -v cloud' }}\n\
         \x20 - command: {{ run: 'df --output=size -BM / | tail -n 1 | tr -dc 0-9 | xargs test {least} -lt' }}\n"
    );
    yard.recipe("kernel", &recipe);
    yard.bake("kernel", &[]).ok();
    let boot = machine();
    let size = format!("{larger}GiB");
    let volume = ["--instance-type", "qemu.virtio", "--volume-size", &size];
    yard.run(&[&["test", "kernel", "--firmware", "bios"][..], &volume].concat()).ok();
    drop(boot);
    // GRUB's menu begins with the cloud kernel, whose version sorts behind the other's.
    yard.recipe(
        "chosen",
        "version: 1\nname: chosen\narchitecture: x86_64\nbase: { family: kernel }\n\
         provision:\n\
         \x20 - packages: { install: [linux-image-cloud-amd64] }\n\
         \x20 - shell:\n      run: |\n\
         \x20       grep -m 1 -o 'vmlinuz-[^ ]*' /boot/grub/grub.cfg | grep cloud\n\
         \x20       id=$(grep -v cloud /boot/grub/grub.cfg | grep -m 1 -o 'gnulinux-[0-9][^ ]*-amd64-advanced-[0-9a-f-]*')\n\
         \x20       menu=$(grep -m 1 -o 'gnulinux-advanced-[0-9a-f-]*' /boot/grub/grub.cfg)\n\
         \x20       mkdir -p /etc/default/grub.d; echo \"GRUB_DEFAULT='$menu>$id'\" > /etc/default/grub.d/chosen.cfg\n\
         \x20       update-grub\n\
         checks:\n\
         \x20 - package: { name: linux-image-cloud-amd64 }\n\
         \x20 - command: { run: 'uname -r | grep -v cloud' }\n",
    );
    let said = yard.bake("chosen", &[]).ok();
    assert!(!said.err.contains("is no entry"), "{}", said.err);
    let boot = machine();
    yard.run(&["test", "chosen", "--firmware", "uefi"]).ok();
    drop(boot);
}

/// A child costs its delta, and the image that it was made from is not touched.
#[test]
fn a_child_stores_its_changed_blocks_only() {
    let Some(yard) = Yard::shared() else { return };
    yard.recipe(
        "small",
        "version: 1\nname: small\narchitecture: x86_64\nbase: { family: os-base }\n\
         provision:\n  - shell: { run: 'head -c 8388608 /dev/urandom > /srv/noise' }\n\
         checks:\n  - file: { path: /srv/noise }\n",
    );
    yard.bake("small", &[]).ok();
    let record = yard.record("small");
    let changed = record["disk"]["changed-blocks"].as_u64().unwrap();
    // 16 blocks of noise; the journal, bitmaps, inodes and what the seal rewrote besides.
    assert!((16..200).contains(&changed), "{changed}");
    let map = fs::read(yard.out("small").join("blocks.map")).unwrap();
    assert_eq!(map.len() as u64, 16 + 32 + 36 * record["disk"]["blocks"].as_u64().unwrap());
    yard.run(&["test", "small", "--no-boot"]).ok();
}

/// An image without cloud-init can run no checks at boot: its console is looked at, and the result says what was not
/// judged.
#[test]
fn an_image_without_cloud_init_is_judged_by_its_console() {
    let Some(yard) = Yard::shared() else { return };
    yard.recipe(
        "bare",
        "version: 1\nname: bare\narchitecture: x86_64\nbase: { family: os-base }\n\
         provision:\n  - packages: { remove: [cloud-init] }\n\
         checks:\n  - package: { name: cloud-init, installed: false }\n  - port: { tcp: 22 }\n\
         boot: { within: 10m }\n",
    );
    yard.bake("bare", &[]).ok();
    let boot = machine();
    let out = yard.run(&["test", "bare"]).ok().out;
    drop(boot);
    for line in ["passed      boot", "passed      package cloud-init not installed"] {
        assert!(out.contains(line), "{out}");
    }
    assert!(out.contains("not judged  port tcp 22: the image has no cloud-init"), "{out}");
    assert_eq!(yard.record("bare")["test"]["not-judged"], 1);
}

/// The disk grows where the recipe wants a larger one.
#[test]
fn a_larger_disk_is_grown_in_the_bake() {
    let Some(yard) = Yard::shared() else { return };
    let size = yard.record("os-base")["disk"]["size"].as_u64().unwrap() + 1;
    yard.recipe(
        "larger",
        &format!(
            "version: 1\nname: larger\narchitecture: x86_64\nbase: {{ family: os-base }}\ndisk: {{ size: {size}GiB }}\n\
             provision:\n  - shell: {{ run: 'test $(df --output=size -BM / | tail -n 1 | tr -dc 0-9) -gt 1500' }}\n"
        ),
    );
    yard.bake("larger", &[]).ok();
    assert_eq!(yard.record("larger")["disk"]["size"], size);
    yard.run(&["test", "larger", "--no-boot"]).ok();
}

/// A shell in an image is a copy's: nothing of it stays.
#[test]
fn a_shell_works_in_a_copy_that_is_thrown_away() {
    let Some(yard) = Yard::shared() else { return };
    let image = yard.record("os-base")["images"][0]["image"].as_str().unwrap().to_owned();
    let said = yard
        .run(&[
            "shell",
            &image,
            "--",
            "/bin/sh",
            "-c",
            "echo x > /etc/thrown-away; cat /etc/thrown-away /etc/os-release",
        ])
        .ok();
    assert!(said.out.contains("ID=debian"), "{}", said.out);
    yard.run(&["shell", &image, "--", "/usr/bin/test", "!", "-e", "/etc/thrown-away"]).ok();
}
