//! The method launch on the local cloud: a real boot, steps over ssh, an image of the disk.

use std::collections::{BTreeMap, BTreeSet};

use crate::provision::machine::provisioner;
use crate::yard::{Yard, machine};

const STEPS: &str = "provision:\n  \
    - files: { from: rootfs/, to: /, owner: root, mode: \"0644\" }\n  \
    - shell: { run: 'cp /proc/sys/kernel/random/boot_id /var/first; yes line | head -n 3000; (sleep 1000 &)' }\n  \
    - reboot: {}\n  \
    - shell: { run: 'mkdir -p /opt/app; echo \"$(id -u) $PATH\" >/opt/app/who; cp /proc/sys/kernel/random/boot_id /var/second' }\n\
    checks:\n  - file: { path: /srv/page, contains: hello }\n\
    boot: { within: 10m }\n";

/// What first boots write, and what the steps take from the machine that they run on.
const OWN: [&str; 6] =
    ["/var/first", "/var/second", "/var/lib/", "/var/log/", "/var/cache/", "/boot/grub/grubenv"];
/// What Python keeps of a module that root has imported, as netplan's at every boot.
const COMPILED: &str = "/__pycache__/";

/// Every file of an image with its digest.
fn files(yard: &Yard, image: &str) -> BTreeMap<String, String> {
    let script = "find / -xdev -type f -print0 | sort -z | xargs -0 sha256sum";
    let listed = yard.run(&["shell", image, "--", "/bin/sh", "-c", script]).ok().out;
    let lines = listed.lines().filter_map(|line| line.split_once("  "));
    lines
        .map(|(digest, path)| (path.to_owned(), digest.to_owned()))
        .filter(|(path, _)| !OWN.iter().any(|own| path.starts_with(own)) && !path.contains(COMPILED))
        .collect()
}

/// The same recipe by both methods gives the same packages and the same files, but for what a running machine writes.
#[test]
fn a_recipe_means_the_same_on_an_instance() {
    let Some(yard) = Yard::of_shared() else { return };
    if provisioner().is_none() || !crate::gate::has(&["ssh", "ssh-keygen"]) {
        return;
    }
    for method in ["direct", "launch"] {
        yard.recipe(
            method,
            &format!(
                "version: 1\nname: {method}\narchitecture: x86_64\nbase: {{ family: os-base }}\nmethod: {method}\n{STEPS}"
            ),
        );
        yard.file(method, "rootfs/srv/page", "hello");
    }
    yard.bake("direct", &[]).ok();
    let boot = machine();
    let launched = yard.bake("launch", &[]).ok();
    drop(boot);
    assert!(launched.err.contains("3 shell") || launched.err.contains("2 shell"), "{}", launched.err);
    assert!(!launched.err.contains("did not turn itself off"), "{}", launched.err);
    yard.assert_nothing_left();
    let (direct, launch) = (yard.record("direct"), yard.record("launch"));
    assert_eq!(launch["method"], "launch");
    assert_eq!(direct["packages"], launch["packages"]);
    let image = |record: &serde_json::Value| record["images"][0]["image"].as_str().unwrap().to_owned();
    let (one, other) = (files(&yard, &image(&direct)), files(&yard, &image(&launch)));
    let differ: BTreeSet<&String> =
        one.keys().chain(other.keys()).filter(|path| one.get(*path) != other.get(*path)).collect();
    assert!(differ.is_empty(), "{differ:?}");
    // It was a machine, and it was another boot after the step in the middle.
    let look = |path: &str| yard.run(&["shell", &image(&launch), "--", "/bin/cat", path]).ok().out;
    assert_ne!(look("/var/first"), look("/var/second"));
    // Nothing of the instance, of its objects or of a key is left in the store.
    let place = yard.store().join("places/local/000000000000/local");
    let objects = std::fs::read_dir(place.join("objects")).unwrap().count();
    assert_eq!(objects, 0);
    yard.run(&["test", "launch"]).ok();
}

/// Nothing is left of a step that fails on an instance, and the error says which it was.
#[test]
fn a_step_that_fails_on_an_instance_leaves_nothing() {
    let Some(yard) = Yard::of_shared() else { return };
    if provisioner().is_none() || !crate::gate::has(&["ssh", "ssh-keygen"]) {
        return;
    }
    let before = yard.snapshots();
    yard.recipe(
        "fails",
        "version: 1\nname: fails\narchitecture: x86_64\nbase: { family: os-base }\nmethod: launch\n\
         provision:\n  - shell: { run: 'echo last words; exit 42' }\n",
    );
    let boot = machine();
    let said = yard.bake("fails", &[]).code(3);
    drop(boot);
    for part in ["step 1", "42", "last words", "nothing was left behind"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_eq!(yard.snapshots(), before);
    yard.assert_nothing_left();
}

/// An instance is ended in any case, so that there is no root to keep; ansible-playbook reaches none.
#[test]
fn what_an_instance_cannot_do_is_refused_before_it_is_launched() {
    let Some(yard) = Yard::small() else { return };
    yard.recipe(
        "kept",
        &crate::yard::small::recipe(
            "kept",
            "{ family: small }",
            "method: launch\nprovision:\n  - shell: { run: 'true' }\n",
        ),
    );
    let said = yard.bake("kept", &["--on-failure", "keep"]).code(2);
    for part in ["--on-failure keep", "kept/bake.yml", "the recipe asks for it"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    yard.recipe(
        "plays",
        &crate::yard::small::recipe(
            "plays",
            "{ family: small }",
            "method: launch\nprovision:\n  - ansible: { playbook: site.yml }\n",
        ),
    );
    yard.file("plays", "site.yml", "- hosts: all\n");
    let said = yard.bake("plays", &[]).code(2);
    assert!(said.err.contains("plays/bake.yml:") && said.err.contains("reaches no instance"), "{}", said.err);
    yard.assert_nothing_left();
}
