//! The method chroot on the local cloud: a volume is a file there, and attaching it a loop device.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::yard::Yard;
use crate::yard::small::recipe;

const STEPS: &str = "provision:\n  - shell: { run: 'yes changed | head -c 2000000 >/srv/changed' }\n  \
                     - shell: { run: 'mkdir -p /etc/made; echo made >/etc/made/by' }\n";

/// The files of an image, whose root is its disk.
fn files(yard: &Yard, name: &str) -> PathBuf {
    let record = yard.record(name);
    let image = record["images"][0]["image"].as_str().unwrap();
    let disk = yard.path().join(format!("{name}.raw"));
    yard.run(&["export", image, disk.to_str().unwrap()]).ok();
    let folder = yard.path().join(format!("{name}-files"));
    fs::create_dir(&folder).unwrap();
    let dump = format!("rdump / {}", folder.display());
    assert!(Command::new("debugfs").args(["-R", &dump]).arg(&disk).output().unwrap().status.success());
    fs::remove_file(disk).unwrap();
    folder
}

fn volumes(yard: &Yard) -> Vec<PathBuf> {
    let folder = yard.store().join("places/local/000000000000/local/volumes");
    fs::read_dir(folder).map(|all| all.flatten().map(|one| one.path()).collect()).unwrap_or_default()
}

#[test]
fn a_recipe_means_the_same_on_a_volume() {
    let Some(yard) = Yard::small_on_disk() else { return };
    yard.recipe("chroot", &recipe("chroot", "{ family: small }", &format!("method: chroot\n{STEPS}")));
    let said = yard.bake("chroot", &[]).ok();
    assert!(said.err.contains("by the chroot method: the recipe asks for it"), "{}", said.err);
    yard.assert_nothing_left();
    assert_eq!(volumes(&yard), Vec::<PathBuf>::new());
    yard.bake("direct", &[]).ok();
    let (direct, chroot) = (yard.record("direct"), yard.record("chroot"));
    assert_eq!(chroot["method"], "chroot");
    assert_eq!(chroot["base"], direct["base"]);
    let (one, other) = (files(&yard, "direct"), files(&yard, "chroot"));
    assert_eq!(fs::read_to_string(other.join("etc/made/by")).unwrap(), "made\n");
    let differ = Command::new("diff").args(["-r", "--no-dereference"]).args([&one, &other]).output().unwrap();
    assert!(differ.status.success(), "{}", String::from_utf8_lossy(&differ.stdout));
    // A child that stores what was written, and no block that nobody ever wrote: as many as the direct one, or nearly.
    let blocks = |record: &serde_json::Value| record["disk"]["blocks"].as_u64().unwrap();
    assert!(blocks(&chroot).abs_diff(blocks(&direct)) < 8, "{} {}", blocks(&chroot), blocks(&direct));
    assert_eq!(direct["disk"]["size"], chroot["disk"]["size"]);
    // It is a base like any other.
    yard.recipe("child", &recipe("child", "{ family: chroot }", STEPS));
    yard.bake("child", &[]).ok();
}

/// The volume is made as large as the recipe wants it, and its root grows into it.
#[test]
fn a_larger_volume_is_filled_by_its_root() {
    let Some(yard) = Yard::small_on_disk() else { return };
    let steps = "method: chroot\ndisk: { size: 2GiB }\nprovision:\n  \
                 - shell: { run: 'test $(/usr/bin/busybox df -m / | /usr/bin/busybox tail -n 1 | /usr/bin/busybox awk \"{print \\$2}\") -gt 1800' }\n";
    yard.recipe("larger", &recipe("larger", "{ family: small }", steps));
    yard.bake("larger", &[]).ok();
    assert_eq!(yard.record("larger")["disk"]["size"], 2);
    yard.assert_nothing_left();
}

/// A table and its copy at the old end, an EFI system partition, GRUB: a real image.
#[test]
fn a_disk_with_partitions_is_changed_on_a_volume() {
    let (Some(shared), Some(yard)) = (Yard::shared(), Yard::of_shared()) else { return };
    let size = shared.record("os-base")["disk"]["size"].as_u64().unwrap() + 1;
    let rest = format!(
        "method: chroot\ndisk: {{ size: {size}GiB }}\n\
         provision:\n  - shell: {{ run: 'update-grub && echo made >/etc/made' }}\n\
         checks:\n  - file: {{ path: /etc/made }}\n"
    );
    yard.recipe("parted", &recipe("parted", "{ family: os-base }", &rest));
    yard.bake("parted", &[]).ok();
    yard.assert_nothing_left();
    yard.run(&["test", "parted", "--no-boot"]).ok();
}

#[test]
fn a_step_that_fails_on_a_volume_leaves_nothing() {
    let Some(yard) = Yard::small_on_disk() else { return };
    let before = yard.snapshots();
    let steps = "method: chroot\nprovision:\n  - shell: { run: 'echo last words; exit 42' }\n";
    yard.recipe("fails", &recipe("fails", "{ family: small }", steps));
    let said = yard.bake("fails", &[]).code(3);
    for part in ["step 1", "42", "last words", "nothing was left behind"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_eq!(yard.snapshots(), before);
    assert_eq!(volumes(&yard), Vec::<PathBuf>::new());
    yard.assert_nothing_left();
    // Its volume goes in any case, and its root with it.
    let said = yard.bake("fails", &["--on-failure", "keep"]).code(2);
    for part in ["--on-failure keep", "fails/bake.yml", "its volume is always deleted"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
}
