//! `kill -9` at every boundary of a bake and at many moments between: a sweep puts all back, and without one the same
//! command succeeds.

use std::io::Read;
use std::time::Duration;

use super::run::{bake, calls, each, start, told};
use super::state::{State, assert_sound, delete, images, sweep};
use crate::yard::Yard;
use crate::yard::small::METHODS;

/// What comes after a kill: both in turn.
#[derive(Clone, Copy, Debug)]
enum Then {
    Sweep,
    Again,
}

/// After a bake of `method` was killed.
#[track_caller]
fn recovers(yard: &Yard, method: &str, then: Then, after: &str) {
    assert_sound(yard);
    // Registering is the commit: an image that is there is the user's, though nobody was told of it.
    let registered = images(yard, method);
    match then {
        Then::Sweep => {
            sweep(yard);
            assert_eq!(images(yard, method), registered, "{after}");
            assert_sound(yard);
            delete(yard, method);
        }
        Then::Again => {
            delete(yard, method);
            yard.bake(method, &["--fresh"]).ok();
            assert_sound(yard);
            delete(yard, method);
        }
    }
}

/// At some moments a program was just being started, and has the lock of the bake's folder until it has begun: nobody
/// else takes the folder for nobody's before that.
#[track_caller]
fn assert_again_soon(yard: &Yard, before: &State, after: &str) {
    for _ in 0..20 {
        if State::of(yard) == *before {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
        sweep(yard);
    }
    before.assert_again(yard, after);
}

#[test]
fn a_bake_that_is_killed_at_any_boundary_leaves_nothing_that_stays() {
    let mut jobs = Vec::new();
    for method in METHODS {
        let Some(yard) = Yard::small() else { return };
        let boundaries = told(&bake(&yard, method, "list").ok(), "boundary");
        assert!(boundaries.len() >= 12, "{boundaries:?}");
        let both = |number| [(method, number, Then::Sweep), (method, number, Then::Again)];
        jobs.extend((1..=boundaries.len()).flat_map(both));
    }
    each(&jobs, |yard, before, (method, number, then)| {
        let fault = format!("boundary:{number}:kill");
        let said = bake(yard, method, &fault);
        // No exit code: a signal ended it.
        let said = said.code(-1);
        assert_eq!(told(&said, "boundary").len(), *number, "{}", said.err);
        let after = format!("{method} {fault} {then:?}");
        recovers(yard, method, *then, &after);
        before.assert_again(yard, &after);
    });
}

#[test]
fn a_bake_that_is_killed_at_a_call_leaves_nothing_that_stays() {
    let mut jobs = Vec::new();
    for method in METHODS {
        let Some(yard) = Yard::small() else { return };
        let calls = calls(&bake(&yard, method, "list").ok());
        // The first three of each operation: between two blocks nothing else happens.
        for call in calls.into_iter().filter(|call| ["#1", "#2", "#3"].iter().any(|end| call.ends_with(end)))
        {
            for side in ["before", "after"] {
                let job = |then| (method, format!("call:{call}:{side}:kill"), then);
                jobs.extend([job(Then::Sweep), job(Then::Again)]);
            }
        }
    }
    assert!(jobs.len() >= 40, "{}", jobs.len());
    each(&jobs, |yard, before, (method, fault, then)| {
        bake(yard, method, fault).code(-1);
        let after = format!("{method} {fault} {then:?}");
        recovers(yard, method, *then, &after);
        before.assert_again(yard, &after);
    });
}

/// Moments of the clock, spread over a bake's whole length by a seed that is told.
#[test]
fn a_bake_that_is_killed_at_any_moment_leaves_nothing_that_stays() {
    const MOMENTS: u64 = 50;
    let seed = *uuid::Uuid::new_v4().as_bytes();
    let seed = std::env::var("BAKEHOUSE_SEED")
        .map_or(u64::from_le_bytes(seed[..8].try_into().unwrap()), |text| text.parse().unwrap());
    eprintln!("BAKEHOUSE_SEED={seed}");
    let mut jobs = Vec::new();
    for method in METHODS {
        let Some(yard) = Yard::small() else { return };
        let began = std::time::Instant::now();
        yard.bake(method, &[]).ok();
        let length = began.elapsed();
        let mut random = seed;
        for number in 0..MOMENTS {
            // Knuth's linear congruential generator (MMIX); its upper bits are good.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let part = u32::try_from(random >> 40).unwrap();
            let moment = length.mul_f64(f64::from(part) / f64::from(1 << 24) * 1.1);
            let then = if number % 2 == 0 { Then::Sweep } else { Then::Again };
            jobs.push((method, moment, then));
        }
    }
    each(&jobs, |yard, before, (method, moment, then)| {
        let mut child = start(yard, method, "list");
        std::thread::sleep(*moment);
        child.kill().unwrap();
        // What outlives it and holds its standard error is ended by the sweep, not waited for.
        let status = child.wait().unwrap();
        let after = format!("{method} after {moment:?} {status} {then:?}, seed {seed}");
        recovers(yard, method, *then, &after);
        assert_again_soon(yard, before, &after);
    });
}

/// A step whose command goes on without end: nothing of it outlives the bake for longer than a sweep.
#[test]
fn what_a_killed_bake_started_is_ended() {
    let Some(yard) = Yard::small() else { return };
    for then in [Then::Sweep, Then::Again] {
        let endless = "provision:\n  - shell: { run: 'sleep 100000 & echo it began; sleep 100000' }\n";
        yard.recipe("endless", &crate::yard::small::recipe("endless", "{ family: small }", endless));
        let before = State::of(&yard);
        let mut child = start(&yard, "endless", "list");
        let mut seen = String::new();
        let mut stderr = child.stderr.take().unwrap();
        while !seen.contains("it began\n") {
            let mut byte = [0];
            assert_eq!(stderr.read(&mut byte).unwrap(), 1, "{seen}");
            seen.push(char::from(byte[0]));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        recovers(&yard, "direct", then, &format!("{then:?}"));
        before.assert_again(&yard, &format!("{then:?}"));
    }
}
