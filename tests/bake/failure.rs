//! What is left when a bake fails or is ended: nothing, unless the user asked for it.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use crate::yard::{Said, Yard};

fn recipe(name: &str, step: &str) -> String {
    format!(
        "version: 1\nname: {name}\narchitecture: x86_64\nbase: {{ family: os-base }}\nprovision:\n  - shell: {{ run: '{step}' }}\n"
    )
}

/// The error names the step, its exit code and its last lines; the machine and the store are as before.
#[test]
fn a_failed_step_is_told_and_leaves_nothing() {
    let Some(yard) = Yard::shared() else { return };
    yard.recipe("fails", &recipe("fails", "echo the last words; exit 42"));
    let before = yard.snapshots();
    let said = yard.bake("fails", &[]).code(3);
    for part in ["42", "the last words", "shell", "nothing was left behind"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert!(said.out.is_empty());
    let own: Vec<_> = yard.snapshots().into_iter().filter(|id| !before.contains(id)).collect();
    // Other tests bake into the same store meanwhile; none of what came is this family's.
    for id in own {
        let folder = yard.store().join("places/local/000000000000/local/snapshots").join(id);
        let text = walk(&folder);
        assert!(!text.contains("\"fails\""), "{text}");
    }
    assert!(work_of(yard, "fails").is_empty());
}

/// Everything in a folder, as text.
fn walk(folder: &std::path::Path) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return std::fs::read(folder).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    };
    entries.flatten().map(|entry| walk(&entry.path())).collect()
}

/// Work folders whose events or plan name a family.
fn work_of(yard: &Yard, family: &str) -> Vec<std::path::PathBuf> {
    let Ok(all) = std::fs::read_dir(yard.work()) else {
        return Vec::new();
    };
    let named = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("kept.json")).is_ok_and(|text| text.contains(family))
    };
    all.flatten().map(|entry| entry.path()).filter(|path| named(path)).collect()
}

/// SIGINT and SIGTERM end the step, clean up and are told by the exit code.
#[test]
fn an_interrupted_bake_leaves_nothing() {
    // A yard of its own, so that whatever is left is this bake's.
    let Some(yard) = Yard::of_shared() else { return };
    yard.recipe("slow", &recipe("slow", "echo it began; sleep 1000"));
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let before = yard.snapshots();
        let mut child = yard.start(&["bake", "slow"]);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let began = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("it began")));
        assert!(began.is_some(), "the step did not begin");
        let status =
            std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(status.unwrap().success());
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        let said = Said::from(child.wait_with_output().unwrap());
        assert_eq!(said.code, code, "{rest:?}");
        assert!(rest.iter().any(|line| line.contains("nothing was left behind")), "{rest:?}");
        assert_eq!(yard.snapshots(), before);
        yard.assert_nothing_left();
    }
}

/// A bake that was killed leaves what the kernel does not take back: its step goes on in its namespace. `sweep` ends and
/// removes all of it, and so does the next bake.
#[test]
fn what_a_killed_bake_left_goes_with_sweep_or_with_the_next_bake() {
    let Some(yard) = Yard::of_shared() else { return };
    let before = yard.snapshots();
    // Written so that the line which announces the step is not taken for what it says.
    let slow = recipe("killed", "echo it be\"\"gan; sleep 1000");
    let kill = || {
        yard.recipe("killed", &slow);
        let mut child = yard.start(&["bake", "killed"]);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line.contains("it began"))), "the step did not begin");
        child.kill().unwrap();
        child.wait().unwrap();
    };
    kill();
    let dry = yard.run(&["sweep", "--dry-run"]).ok();
    for part in ["process", "loop device", "work/bake-"] {
        assert!(dry.out.contains(part), "{part}: {}", dry.out);
    }
    let swept = yard.run(&["sweep"]).ok();
    assert_eq!(swept.out.lines().count(), dry.out.lines().count(), "{}\n{}", dry.out, swept.out);
    yard.assert_nothing_left();
    assert_eq!(yard.snapshots(), before);
    assert_eq!(yard.run(&["sweep"]).ok().out.trim(), "0 removed");

    kill();
    yard.recipe("killed", &recipe("killed", "exit 3"));
    yard.bake("killed", &[]).code(3);
    yard.assert_nothing_left();
    assert_eq!(yard.snapshots(), before);
}

/// A bake that was killed after it registered its image is delivered by the next: the same command gives that image.
#[test]
fn what_was_registered_by_a_killed_bake_is_delivered_by_the_next() {
    // A yard of its own: in the shared one another test's bake could be the one that clears its folder.
    let Some(yard) = Yard::of_shared() else { return };
    // A name that can be given once: baking it again could only fail.
    let text = recipe("delivered", "true") + "image: { name: delivered-1 }\n";
    yard.recipe("delivered", &text);
    let image = yard.bake("delivered", &[]).ok().out.trim().to_owned();
    // All that the kill would have left.
    let path = yard.out("delivered").join("image.json");
    let mut record = yard.record("delivered");
    let home = record["images"].as_array_mut().unwrap().remove(0);
    let work = yard.work().join("bake-00000000000d");
    std::fs::create_dir_all(&work).unwrap();
    let out = yard.out("delivered");
    let delivery = serde_json::json!({
        "out": out, "place": home["place"], "snapshot": home["snapshot"], "record": record
    });
    std::fs::write(work.join("delivery.json"), delivery.to_string()).unwrap();
    std::fs::rename(out.join("blocks.map"), work.join("delivery.map")).unwrap();
    let lines = [
        serde_json::json!({
            "format": 1, "cloud": format!("local {}", yard.store().canonicalize().unwrap().display()),
            "stage": "bake", "bake": record["bake"], "began": "2030-01-01T00:00:00Z"
        }),
        serde_json::json!({ "entry": 0, "intent": {
            "kind": "image", "place": home["place"], "what": "delivered-1", "token": null, "role": "commit",
            "tags": { "bakehouse:bake": record["bake"], "bakehouse:stage": "bake" }
        }}),
    ];
    std::fs::write(work.join("ledger.jsonl"), format!("{}\n{}\n", lines[0], lines[1])).unwrap();
    std::fs::remove_file(&path).unwrap();

    let said = yard.bake("delivered", &[]).ok();
    assert_eq!(said.out.trim(), image, "{}", said.err);
    assert_eq!(yard.record("delivered")["images"][0], home);
    assert!(out.join("blocks.map").exists() && !work.exists());
}

/// A bake that takes longer than it may ends, and has undone what it made.
#[test]
fn a_bake_ends_at_its_deadline() {
    let Some(yard) = Yard::shared() else { return };
    yard.recipe("late", &recipe("late", "sleep 1000"));
    let said = yard.bake("late", &["--within", "1s"]).code(3);
    assert!(said.err.contains("--within") && said.err.contains("nothing was left behind"), "{}", said.err);
    yard.bake("late", &["--within", "12h"]).code(2);
}

/// A root is kept where the user asks for it: it can be entered, repaired and finished.
#[test]
fn a_failed_root_is_kept_entered_repaired_and_finished() {
    let Some(yard) = Yard::shared() else { return };
    yard.recipe("kept", &recipe("kept", "test -e /etc/repaired"));
    let said = yard.bake("kept", &["--on-failure", "keep", "--keep-for", "10m"]).code(4);
    let bake = said.err.split("--finish ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    yard.run(&["shell", &bake, "--", "/bin/sh", "-c", "echo x > /etc/repaired"]).ok();
    yard.run(&["bake", "--finish", &bake]).ok();
    assert!(!yard.work().join(&bake).exists());
    yard.run(&["bake", "--finish", &bake]).code(2);
    assert_eq!(yard.record("kept")["bake"], bake);
}

/// A kept root is dropped by hand, or when its time is over.
#[test]
fn a_kept_root_is_dropped() {
    let Some(yard) = Yard::shared() else { return };
    yard.recipe("dropped", &recipe("dropped", "exit 1"));
    let bake = |keep_for: &str| {
        let said = yard.bake("dropped", &["--on-failure", "keep", "--keep-for", keep_for]).code(4);
        said.err.split("--drop ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
    };
    let by_hand = bake("10m");
    yard.run(&["bake", "--drop", &by_hand]).ok();
    assert!(!yard.work().join(&by_hand).exists());
    let by_time = bake("1s");
    for _ in 0..200 {
        if !yard.work().join(&by_time).exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the root is kept though its time is over");
}
