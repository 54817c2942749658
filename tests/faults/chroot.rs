//! A bake on a volume: each of its calls fails, loses its answer or is the program's last, and neither volume nor loop device
//! stays.

use std::fs::File;
use std::process::Child;
use std::time::Duration;

use bakehouse::host::loop_device;

use super::run::{bake, calls, continued, each, stopped};
use super::state::{State, delete, images, sweep};
use crate::yard::Yard;
use crate::yard::small::recipe;

const NAME: &str = "chroot";
const STEPS: &str = "method: chroot\nprovision:\n  - shell: { run: 'echo made >/etc/made' }\n";

struct Call {
    /// `AttachVolume`
    operation: String,
    fault: String,
}

fn all() -> Option<Vec<Call>> {
    let yard = Yard::small()?;
    write(&yard);
    let mut names = calls(&bake(&yard, NAME, "list").ok());
    // Deleting is begun again after a detach that is not done yet: as often as that takes.
    names.dedup_by_key(|name| name.split('#').next().unwrap().to_owned());
    let of = |name: &String| name.split('#').next().unwrap().to_owned();
    let found: Vec<String> = names.iter().map(of).collect();
    assert_eq!(
        found,
        ["CreateVolume", "AttachVolume", "DetachVolume", "CreateSnapshot", "RegisterImage", "DeleteVolume"]
    );
    let sides = |name: &String| {
        ["before", "after"].map(|side| Call { operation: of(name), fault: format!("call:{name}:{side}") })
    };
    Some(names.iter().flat_map(sides).collect())
}

fn write(yard: &Yard) {
    yard.recipe(NAME, &recipe(NAME, "{ family: small }", STEPS));
}

/// That all is as it was, once the image, where there is one, is taken away.
#[track_caller]
fn settled(yard: &Yard, before: &State, after: &str) {
    delete(yard, NAME);
    before.assert_again(yard, after);
}

/// One that loses its answer is made again, or its effect is found; one that is refused fails the bake, and all is undone.
#[test]
fn every_call_of_a_bake_on_a_volume_fails_in_turn() {
    let Some(all) = all() else { return };
    each(&all, |yard, before, call| {
        write(yard);
        if call.fault.ends_with("after") {
            let fault = format!("{}:transient", call.fault);
            bake(yard, NAME, &fault).ok();
            return settled(yard, before, &fault);
        }
        let fault = format!("{}:denied", call.fault);
        let said = bake(yard, NAME, &fault);
        if call.operation == "DeleteVolume" {
            // The image is good: what could not be taken away is told, and a sweep of this host takes it.
            let said = said.ok();
            assert!(said.err.contains("volume vol-"), "{}", said.err);
            sweep(yard);
        } else {
            let said = said.code(5);
            let told = said.err.contains(&call.operation) && said.err.contains("nothing was left");
            assert!(told, "{}", said.err);
        }
        settled(yard, before, &fault);
    });
}

#[test]
fn a_bake_on_a_volume_that_is_killed_at_a_call_leaves_nothing_that_stays() {
    let Some(all) = all() else { return };
    each(&all, |yard, before, call| {
        write(yard);
        let fault = format!("{}:kill", call.fault);
        bake(yard, NAME, &fault).code(-1);
        let registered = images(yard, NAME);
        sweep(yard);
        assert_eq!(images(yard, NAME), registered, "{fault}");
        settled(yard, before, &fault);
    });
}

/// A bake that is about to let its volume go, which this process has opened meanwhile.
fn held(yard: &Yard) -> (Child, File) {
    let child = stopped(yard, NAME, "call:DetachVolume#1:before:stop");
    let numbers = loop_device::backed_below(&yard.store());
    let [number] = numbers[..] else { panic!("{numbers:?}") };
    (child, File::open(loop_device::node(number).unwrap()).unwrap())
}

/// Who holds it for a moment is waited for; who keeps it is named.
#[test]
fn a_volume_that_is_held_is_waited_for_and_its_holder_is_named() {
    let Some(yard) = Yard::small() else { return };
    write(&yard);
    let before = State::of(&yard);
    let (child, node) = held(&yard);
    let lets_go = std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(3));
        drop(node);
    });
    continued(child).ok();
    lets_go.join().unwrap();
    settled(&yard, &before, "held for a moment");

    let (child, node) = held(&yard);
    let said = continued(child).code(4);
    let named = said.err.contains("is not let go: it is held by")
        && said.err.contains(&std::process::id().to_string());
    assert!(named, "{}", said.err);
    drop(node);
    before.assert_told(&yard, &said);
    sweep(&yard);
    settled(&yard, &before, "held for good");
}
