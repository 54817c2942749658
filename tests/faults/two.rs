//! Two at once: bakes of one recipe, and a bake beside sweeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::run::{continued, start, stopped};
use super::state::{State, assert_sound, delete, images, sweep};
use crate::yard::small::{METHODS, recipe};
use crate::yard::{Said, Yard};

fn ends(child: std::process::Child) -> Said {
    child.wait_with_output().unwrap().into()
}

/// That what stands in OUT is one bake's, as a whole.
#[track_caller]
fn assert_one_record(yard: &Yard, recipe: &str) {
    let record = yard.record(recipe);
    let image = record["images"][0]["image"].as_str().unwrap();
    let out = yard.out(recipe);
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert!(read("bakehouse.env").contains(image));
    assert!(read("sbom.cdx.json").contains(record["name"].as_str().unwrap()));
    let map = bakehouse::disk::BlockMap::read(&out.join("blocks.map")).unwrap();
    assert_eq!(map.digest().hex(), record["disk"]["digest"].as_str().unwrap());
    for line in read("events.jsonl").lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    let events = read("events.jsonl");
    let bakes = events.matches(" method: ").count();
    assert_eq!(bakes, 1, "{events}");
    assert!(events.contains(record["bake"].as_str().unwrap()));
}

/// The second of two bakes into one OUT waits for the first; where nothing is different then, it has the same result.
#[test]
fn two_bakes_of_one_recipe_meet() {
    let Some(yard) = Yard::small() else { return };
    let before = State::of(&yard);
    for method in METHODS {
        let begin = || {
            let mut command = yard.command();
            command.args(["bake", method]).stdout(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::piped()).spawn().unwrap()
        };
        let (one, two) = (begin(), begin());
        let (one, two) = (ends(one).ok(), ends(two).ok());
        assert_eq!(one.out, two.out);
        assert!(one.err.contains("nothing changed") != two.err.contains("nothing changed"));
        assert_one_record(&yard, method);
        assert_sound(&yard);
        assert_eq!(images(&yard, method).len(), 1);
        delete(&yard, method);
        before.assert_again(&yard, method);
    }
}

/// One that waits for another's OUT ends when it is told to.
#[test]
fn a_bake_that_waits_for_another_can_be_stopped() {
    let Some(yard) = Yard::small() else { return };
    let before = State::of(&yard);
    let first = stopped(&yard, "direct", "boundary:3:stop");
    let mut second = start(&yard, "direct", "list");
    let mut seen = Vec::new();
    let mut stderr = second.stderr.take().unwrap();
    while !String::from_utf8_lossy(&seen).contains("waiting for it") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut stderr, &mut byte).unwrap();
        seen.extend(byte);
    }
    let process = rustix::process::Pid::from_child(&second);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(143));
    continued(first).ok();
    assert_one_record(&yard, "direct");
    delete(&yard, "direct");
    before.assert_again(&yard, "a wait that was stopped");
}

/// Two bakes that want one name, each into an OUT of its own: one has it, the other says so.
#[test]
fn of_two_bakes_with_one_name_one_wins() {
    let Some(yard) = Yard::small() else { return };
    for (method, base) in [("scratch", "{ file: disk.raw }"), ("direct", "{ family: small }")] {
        let named = "image: { name: the-one }\n";
        yard.recipe(method, &recipe(method, base, named));
        let before = State::of(&yard);
        let begin = |out: &str| {
            let mut command = yard.command();
            // Both have looked for the name before one of them has it.
            command
                .args(["bake", method, "--out", out])
                .env("BAKEHOUSE_FAULT", "call:StartSnapshot#1:before:stop");
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        };
        let both = ["one", "two"].map(begin);
        for child in &both {
            super::run::until_stopped(child.id());
        }
        let [one, two] =
            both.map(|child| std::thread::spawn(|| continued(child))).map(|thread| thread.join().unwrap());
        let (winner, loser) = if one.code == 0 { (one, two) } else { (two, one) };
        let (winner, loser) = (winner.ok(), loser.code(2));
        assert!(loser.err.contains("the-one"), "{}", loser.err);
        assert!(!loser.err.contains("left behind:"), "{}", loser.err);
        assert_eq!(images(&yard, method), [winner.out.trim()]);
        assert_sound(&yard);
        delete(&yard, method);
        before.assert_again(&yard, method);
    }
}

/// A sweep takes nothing from a bake that runs.
#[test]
fn a_bake_beside_sweeps_is_not_touched() {
    let Some(yard) = Yard::small() else { return };
    let before = State::of(&yard);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeping = scope.spawn(|| {
            let mut sweeps = 0;
            while !over.load(Ordering::Relaxed) {
                sweep(&yard);
                sweeps += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            sweeps
        });
        let baked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for method in METHODS.repeat(3) {
                yard.bake(method, &["--fresh"]).ok();
                assert_sound(&yard);
                delete(&yard, method);
            }
        }));
        over.store(true, Ordering::Relaxed);
        assert!(sweeping.join().unwrap() > 6);
        baked.unwrap();
    });
    before.assert_again(&yard, "bakes beside sweeps");
}
