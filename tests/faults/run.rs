//! A bake with a fault in it, and what the program told of it.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::state::State;
use crate::yard::{Said, Yard};

/// Yards at work at once. Most of a small bake is waiting: for the cloud, for processes to start.
const AT_ONCE: usize = 4;

/// Bakes a recipe with a fault.
pub fn bake(yard: &Yard, recipe: &str, fault: &str) -> Said {
    start(yard, recipe, fault).wait_with_output().unwrap().into()
}

pub fn start(yard: &Yard, recipe: &str, fault: &str) -> Child {
    yard.command()
        .args(["bake", "--fresh", recipe])
        .env("BAKEHOUSE_FAULT", fault)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a run told by `fault: WORD N WHAT`, in order.
pub fn told(said: &Said, word: &str) -> Vec<String> {
    let prefix = format!("fault: {word} ");
    let lines = said.err.lines().filter_map(|line| line.strip_prefix(&prefix));
    lines.filter_map(|line| line.split_once(' ')).map(|(_, what)| what.to_owned()).collect()
}

/// The calls of a run, each as a fault names it: `PutSnapshotBlock#3`. Their numbers alone mean nothing: how often a
/// call is tried again is a matter of moments.
pub fn calls(said: &Said) -> Vec<String> {
    let mut counts = BTreeMap::new();
    let count = |operation: String| {
        let count = counts.entry(operation.clone()).or_insert(0);
        *count += 1;
        format!("{operation}#{count}")
    };
    told(said, "call").into_iter().map(count).collect()
}

/// Does every job, each in one of a few yards, with the yard's state before any of them.
pub fn each<J: Sync>(jobs: &[J], work: impl Fn(&Yard, &State, &J) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(jobs.len()) {
            scope.spawn(|| {
                let yard = Yard::small().unwrap();
                let before = State::of(&yard);
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(&yard, &before, job);
                }
            });
        }
    });
}

/// Starts a bake that stops itself, and waits until it has.
pub fn stopped(yard: &Yard, recipe: &str, fault: &str) -> Child {
    let child = start(yard, recipe, fault);
    until_stopped(child.id());
    child
}

/// Waits until a process has stopped itself: each of its threads, as one that is within a call ends that first.
#[track_caller]
pub fn until_stopped(process: u32) {
    for _ in 0..6000 {
        let states = thread_states(process);
        assert!(!states.contains(&'Z'), "it ended and did not stop itself");
        if states.iter().all(|state| *state == 'T') {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not stop itself within a minute");
}

fn thread_states(process: u32) -> Vec<char> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    // One may end meanwhile.
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    // proc(5): the state follows the name, which stands in parentheses.
    let state = |stat: String| stat.rsplit(')').next()?.trim_start().chars().next();
    stats.filter_map(state).collect()
}

/// Lets a bake that was stopped go on, to its end.
pub fn continued(child: Child) -> Said {
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    child.wait_with_output().unwrap().into()
}
