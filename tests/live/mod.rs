//! `make live` (`live/`), from end to end against the stand-in: what it says beforehand, what it prints, and that the account
//! is as before, whether all goes well, something is refused in the middle, or a signal ends it.

#![expect(clippy::disallowed_methods, reason = "the program is started here as a user starts it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::aws::StandIn;
use crate::gate;
use crate::truth;
use crate::yard::{Said, Yard};

/// The program, which cargo builds with the tests: `cargo build --example live` where `--test` named one of them alone.
fn program() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_bakehouse")).parent().unwrap().join("examples/live");
    gate::has(&[path.to_str().unwrap()]).then_some(path)
}

/// An account with something in it that is none of the run's, and a vendor's base beside it.
struct Bench {
    yard: Yard,
    cloud: StandIn,
    program: PathBuf,
    base: String,
}

impl Bench {
    fn new() -> Option<Self> {
        let (yard, program) = (Yard::small()?, program()?);
        let cloud = StandIn::start();
        let disk = yard.path().join("scratch/disk.raw");
        let own = json!({ "name": "ours", "disk": disk, "tags": { "bakehouse:family": "web", "bakehouse:import": "ami-1" } });
        cloud.seed_image(cloud.account(), own);
        let vendors =
            json!({ "name": "vendor", "disk": disk, "holes": true, "public": true, "snapshot_public": true });
        let (base, _) = cloud.seed_image(&cloud.other_account(1), vendors);
        Some(Self { yard, cloud, program, base })
    }

    fn start(&self, set: &[(&str, &str)]) -> Child {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.yard.path())
            .envs(self.cloud.environment())
            .envs([("BAKEHOUSE", env!("CARGO_BIN_EXE_bakehouse")), ("BAKEHOUSE_AWS_SETTLES", "2s")])
            // What a user has set for other bakes.
            .env("BAKEHOUSE_LOCAL", self.yard.store())
            .envs([("BASE", self.base.as_str()), ("YES", "1")])
            .envs(set.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// How often an operation was called, and did what it is paid for, before the vendor's image is copied, and in all.
    fn calls(&self, operation: &str) -> (usize, usize) {
        let exchanges = self.cloud.exchanges();
        let copies = |one: &Value| one["parameters"]["SourceImageId"] == self.base.as_str();
        let import = exchanges.iter().position(copies).unwrap_or(exchanges.len());
        let of = |part: &[Value]| {
            part.iter().filter(|one| one["operation"] == operation && one["error"].is_null()).count()
        };
        (of(&exchanges[..import]), of(&exchanges))
    }

    /// The bodies ask for what AWS's models do not allow, on purpose; nothing of it is not emulated.
    fn finish(mut self) {
        let findings = self.cloud.expect_findings();
        assert!(!findings.iter().any(|finding| finding.to_string().contains("not emulated")), "{findings:?}");
    }
}

/// The rows, as id, what was seen, and region. Each id is one of the page's.
#[track_caller]
fn rows(said: &Said) -> Vec<(String, String, String)> {
    let ids = truth::ids();
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [id, what, date, region] = cells[..] else { panic!("no row: {line}") };
        assert!(ids.contains(id), "the page has no {id}");
        assert!(date.parse::<jiff::civil::Date>().is_ok(), "{line}");
        (id.to_owned(), what.to_owned(), region.to_owned())
    };
    said.out.lines().map(row).collect()
}

/// The numbers before a word of what is said beforehand: of the bodies, and of the bake.
fn announced(said: &Said, word: &str) -> Vec<usize> {
    let of = |line: &str| {
        let before = line.split(word).next()?.split_whitespace().last()?;
        before.parse().ok()
    };
    said.err.lines().filter(|line| line.contains(word) && line.contains("at most")).filter_map(of).collect()
}

#[test]
fn a_run_tells_what_it_costs_prints_rows_and_leaves_the_account_as_it_was() {
    let Some(bench) = Bench::new() else { return };
    // As late as AWS may be.
    bench.cloud.settings(json!({
        "put_not_found_seconds": 0.2, "describe_not_found_seconds": 0.2, "complete_seconds": 0.1, "image_seconds": 0.1,
    }));
    let before = bench.cloud.state();
    let said = Said::from(bench.start(&[]).wait_with_output().unwrap()).ok();
    assert_eq!(bench.cloud.state(), before, "{}", said.err);
    assert!(said.err.contains("nothing with the tag bakehouse:family=live-"), "{}", said.err);

    let rows = rows(&said);
    for (id, what, region) in &rows {
        assert!(what.starts_with("yes: "), "{id}: {what}");
        assert_eq!(region, crate::aws::REGION);
    }
    let of = |id: &str| rows.iter().find(|row| row.0 == id).map(|row| row.1.as_str()).unwrap_or_default();
    assert!(of("EBS-LINEAR").contains("what is put is read back"), "{}", said.out);
    assert!(of("AMI-BILLING").contains("a direct bake makes RunInstances"), "{}", said.out);
    assert!(!of("EBS-PUT-NOT-YET").contains(" 0 were unknown"), "{}", said.out);
    assert!(of("AWS-SETTLES").contains("the longest for"), "{}", said.out);
    assert!(rows.len() > 30, "{}", said.out);

    // It asks for no more than it said.
    let operations =
        [("puts", "PutSnapshotBlock"), ("gets", "GetSnapshotBlock"), ("listings", "ListSnapshotBlocks")];
    for (word, operation) in operations {
        let (said, (bodies, all)) = (announced(&said, word), bench.calls(operation));
        assert!(bodies > 0 && all > bodies, "{operation}");
        assert!(bodies <= said[0] && all - bodies <= said[1], "{operation}: {bodies}, {all} and {said:?}");
    }
    bench.finish();
}

#[test]
fn a_run_that_is_refused_in_the_middle_fails_and_leaves_the_account_as_it_was() {
    let Some(bench) = Bench::new() else { return };
    let before = bench.cloud.state();
    let refused = |operation: &str, nth: usize| {
        json!({
            "operation": operation, "nth": nth, "times": 1000, "kind": "error", "status": 403,
            "code": "UnauthorizedOperation", "message": "you are not authorized",
        })
    };
    bench.cloud.faults(json!([refused("CopyImage", 2), refused("RegisterImage", 5)]));
    let said = Said::from(bench.start(&[]).wait_with_output().unwrap()).code(1);
    assert_eq!(bench.cloud.state(), before, "{}", said.err);
    let rows = rows(&said);
    let not_so =
        |row: &&(String, String, String)| row.1.starts_with("no: ") && row.1.contains("not authorized");
    assert!(
        rows.iter().any(|row| not_so(&row)) && rows.iter().any(|row| row.1.starts_with("yes: ")),
        "{}",
        said.out
    );
    assert!(said.err.contains("error: the bake ended with"), "{}", said.err);
    bench.finish();
}

/// In the middle of the bodies, and of the bake.
#[test]
fn a_run_that_is_interrupted_leaves_the_account_as_it_was() {
    for (operation, signal, code) in [("RegisterImage", Signal::INT, 130), ("CopyImage", Signal::TERM, 143)] {
        let Some(bench) = Bench::new() else { return };
        let before = bench.cloud.state();
        let mut child = bench.start(&[]);
        let reached = || match operation {
            "CopyImage" => bench
                .cloud
                .exchanges()
                .iter()
                .any(|one| one["parameters"]["SourceImageId"] == bench.base.as_str()),
            _ => bench.cloud.operations().contains(&format!("ec2:{operation}")),
        };
        while !reached() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before {operation}");
            std::thread::sleep(Duration::from_millis(20));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let said = Said::from(child.wait_with_output().unwrap()).code(code);
        assert_eq!(bench.cloud.state(), before, "{operation}: {}", said.err);
        rows(&said);
        bench.finish();
    }
}

#[test]
fn nothing_is_asked_for_where_nobody_agrees() {
    let Some(bench) = Bench::new() else { return };
    let said = Said::from(bench.start(&[("YES", "")]).wait_with_output().unwrap()).code(1);
    assert!(said.err.contains("in all $0.0") && said.err.contains("YES=1"), "{}", said.err);
    let made = bench.cloud.operations();
    assert!(made.iter().all(|operation| operation == "sts:GetCallerIdentity"), "{made:?}");
    bench.finish();
}
