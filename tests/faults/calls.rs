//! Every mutating call of a bake fails, before and after it took effect: once, for good, and with all that follow it.

use std::collections::BTreeSet;

use super::run::{bake, calls, each, told};
use super::state::{State, assert_sound, delete, images, sweep};
use crate::yard::small::METHODS;
use crate::yard::{Said, Yard};

/// One call of a bake by a method.
struct Call {
    method: &'static str,
    /// `PutSnapshotBlock#3`.
    name: String,
    /// Among all of the bake.
    number: usize,
    side: &'static str,
}

impl Call {
    fn is(&self, operation: &str) -> bool {
        self.name.split('#').next() == Some(operation)
    }

    fn fault(&self, what: &str) -> String {
        format!("call:{}:{}:{what}", self.name, self.side)
    }

    /// Bakes with the fault. `None` where the bake had one block less to store than the one that was listed, and went
    /// well: what a file system writes is a matter of moments.
    #[track_caller]
    fn fails(&self, yard: &Yard, before: &State, what: &str) -> Option<Said> {
        let said = bake(yard, self.method, &self.fault(what));
        if self.is("PutSnapshotBlock") && told(&said, "struck").is_empty() {
            said.ok();
            delete(yard, self.method);
            before.assert_again(yard, &self.fault(what));
            return None;
        }
        Some(said)
    }
}

/// All calls of a bake that goes well, each on both sides of its effect.
fn all(method: &'static str) -> Option<Vec<Call>> {
    let yard = Yard::small()?;
    let names = calls(&bake(&yard, method, "list").ok());
    for wanted in ["StartSnapshot#1", "PutSnapshotBlock#5", "CompleteSnapshot#1", "RegisterImage#1"] {
        assert!(names.iter().any(|name| name == wanted), "{names:?}");
    }
    let call = |number: usize, side| Call { method, name: names[number].clone(), number, side };
    Some((0..names.len()).flat_map(|number| [call(number, "before"), call(number, "after")]).collect())
}

/// A call that fails once on the way, or whose answer is lost, is made again, and the bake succeeds.
#[track_caller]
fn goes_on(yard: &Yard, call: &Call, before: &State) {
    let Some(said) = call.fails(yard, before, "transient") else { return };
    said.ok();
    assert_sound(yard);
    delete(yard, call.method);
    before.assert_again(yard, &call.fault("transient"));
}

/// A call that fails for good fails the bake, and nothing is left.
#[track_caller]
fn leaves_nothing(yard: &Yard, call: &Call, what: &str, code: i32, before: &State) {
    let Some(said) = call.fails(yard, before, what) else { return };
    if call.is("RegisterImage") && call.side == "after" {
        is_registered(yard, call, said);
    } else {
        let said = said.code(code);
        let operation = call.name.split('#').next().unwrap();
        assert!(said.err.contains("fails on purpose") && said.err.contains(operation), "{}", said.err);
        assert!(said.out.is_empty());
    }
    assert_sound(yard);
    before.assert_again(yard, &call.fault(what));
}

/// Where clean-up fails too, the error lists exactly what is left, and a sweep takes it away.
#[track_caller]
fn tells_and_is_swept(yard: &Yard, call: &Call, before: &State) {
    let Some(said) = call.fails(yard, before, "denied:lasting") else { return };
    if call.is("RegisterImage") && call.side == "after" {
        is_registered(yard, call, said);
    } else if call.is("StartSnapshot") && call.side == "before" {
        // Nothing was made that could be left.
        said.code(5);
    } else if call.side == "after" {
        // Clean-up, too, only seems to fail: it looks again and finds nothing.
        said.code(5);
    } else {
        before.assert_told(yard, &said.code(4));
        assert_sound(yard);
        sweep(yard);
    }
    before.assert_again(yard, &call.fault("denied:lasting"));
}

/// The image is there, whatever the answer said: it is found, and is the bake's result.
#[track_caller]
fn is_registered(yard: &Yard, call: &Call, said: Said) {
    let said = said.ok();
    assert_eq!(images(yard, call.method), [said.out.trim()]);
    assert_eq!(yard.record(call.method)["images"][0]["image"], said.out.trim());
    assert_sound(yard);
    delete(yard, call.method);
}

#[track_caller]
fn every_call(method: &'static str) {
    let Some(all) = all(method) else { return };
    each(&all, |yard, before, call| {
        // All three of the other operations; of the blocks, put one after another, one of the three in turn.
        let put = call.is("PutSnapshotBlock");
        if !put || call.number.is_multiple_of(3) {
            leaves_nothing(yard, call, "denied", 5, before);
        }
        if !put || call.number % 3 == 1 {
            leaves_nothing(yard, call, "quota", 3, before);
        }
        if !put || call.number % 3 == 2 {
            tells_and_is_swept(yard, call, before);
        }
        goes_on(yard, call, before);
    });
}

#[test]
fn every_call_of_a_scratch_bake_fails_in_turn() {
    every_call("scratch");
}

#[test]
fn every_call_of_a_direct_bake_fails_in_turn() {
    every_call("direct");
}

/// A cloud that stays away is tried for a while, then the bake fails with the code for that.
#[test]
fn a_cloud_that_stays_away_is_told_as_that() {
    let mut jobs = Vec::new();
    for method in METHODS {
        let Some(mut all) = all(method) else { return };
        let mut seen = BTreeSet::new();
        // The first of each operation: how often and how long is the retry layer's, the same for all.
        all.retain(|call| {
            call.side == "before" && seen.insert(call.name.split('#').next().unwrap().to_owned())
        });
        jobs.extend(all);
    }
    each(&jobs, |yard, before, call| {
        let said = bake(yard, call.method, &call.fault("transient:lasting"));
        if call.is("StartSnapshot") {
            assert!(said.code(75).err.contains("try again"));
        } else {
            before.assert_told(yard, &said.code(4));
            sweep(yard);
        }
        before.assert_again(yard, &call.name);
    });
}
