//! One run of each method at real size: the moments that matter, on the base image that all tests share.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::run::{bake, start};
use super::state::{State, assert_sound, delete, images, sweep};
use crate::yard::Yard;
use crate::yard::small::recipe;

/// 64 MiB of noise: as many changed blocks as a bake of a few packages has.
const STEPS: &str = "provision:\n  - shell: { run: 'head -c 67108864 /dev/urandom >/srv/noise' }\n";

/// Bakes with each fault; a sweep puts all back each time. Then the same command succeeds.
fn struck(yard: &Yard, name: &str, faults: &[(&str, i32)]) {
    let before = State::of(yard);
    for (fault, code) in faults {
        let said = bake(yard, name, fault).code(*code);
        if *code == 4 {
            before.assert_told(yard, &said);
        }
        let registered = images(yard, name);
        assert_eq!(registered.len(), usize::from(fault.starts_with("call:RegisterImage")), "{fault}");
        sweep(yard);
        // Registering is the commit: the image stays, and its record is delivered.
        assert_eq!(images(yard, name), registered);
        if let [image] = &registered[..] {
            assert_eq!(yard.record(name)["images"][0]["image"], image.as_str());
            assert_sound(yard);
        }
        delete(yard, name);
        before.assert_again(yard, fault);
    }
    yard.bake(name, &[]).ok();
    assert_sound(yard);
    delete(yard, name);
    before.assert_again(yard, name);
}

#[test]
fn a_direct_bake_of_real_size_leaves_nothing() {
    let Some(yard) = Yard::of_shared() else { return };
    yard.recipe("layer", &recipe("layer", "{ family: os-base }", STEPS));
    struck(
        &yard,
        "layer",
        &[
            ("boundary:4:kill", -1),
            ("call:PutSnapshotBlock#40:after:kill", -1),
            ("call:PutSnapshotBlock#40:before:denied:lasting", 4),
            ("call:RegisterImage#1:after:kill", -1),
        ],
    );
}

#[test]
fn a_scratch_bake_of_real_size_leaves_nothing() {
    let Some(yard) = Yard::of_shared() else { return };
    let image = images(&yard, "os-base").remove(0);
    yard.recipe("copy", &recipe("copy", "{ file: disk.raw }", STEPS));
    yard.run(&["export", &image, yard.path().join("copy/disk.raw").to_str().unwrap()]).ok();
    let fault = "call:PutSnapshotBlock#2000:before:denied:lasting";
    struck(&yard, "copy", &[("call:PutSnapshotBlock#2000:after:kill", -1), (fault, 4)]);
}

/// While its packages are installed a root has mounts, and processes of many kinds.
#[test]
fn a_bake_that_is_killed_while_packages_are_installed_leaves_nothing() {
    let Some(yard) = Yard::of_shared() else { return };
    let text = fs::read_to_string(crate::yard::repository().join("examples/quickstart/os-base/bake.yml"));
    yard.recipe("again", &text.unwrap().replace("name: os-base", "name: again"));
    let before = State::of(&yard);
    let mut child = start(&yard, "again", "list");
    for _ in 0..6000 {
        if unpacked(&yard.work()) || child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(unpacked(&yard.work()), "no package was unpacked");
    child.kill().unwrap();
    child.wait().unwrap();
    sweep(&yard);
    before.assert_again(&yard, "killed while packages are installed");
}

/// Whether dpkg has begun in the root of a bake.
fn unpacked(work: &Path) -> bool {
    let Ok(bakes) = fs::read_dir(work) else { return false };
    bakes.flatten().any(|bake| bake.path().join("root/var/lib/dpkg/info/dpkg.list").exists())
}
