//! Undo on AWS: each call of a bake that changes something is refused, throttled or loses its answer, before and after it
//! took effect, at the level of HTTP; and the program is killed between any two. Afterwards, after a sweep where it was
//! killed, the account holds nothing, or one whole image; and at most one import. Nothing is untagged at any moment.

mod blocks;
mod launch;
mod real;
mod vpc;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::run::{calls, told};
use crate::aws::StandIn;
use crate::yard::small::{METHODS, recipe};
use crate::yard::{Said, Yard};

const STEPS: &str = "provision:\n  - shell: { run: 'mkdir -p /etc/made; echo made >/etc/made/by' }\n";

/// How long an instance of the stand-in may take to end, and how often is looked.
const ENDED: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// Bakes at work at once: most of one is waiting.
const AT_ONCE: usize = 4;

/// What changes nothing.
const READS: [&str; 5] = ["Describe", "Get", "Head", "List", "AssumeRole"];

/// The calls that make something, and where their tags are.
const CREATES: [(&str, &str, &[&str]); 6] = [
    // As a query: `bakehouse%3Abake=…`.
    ("PutObject", "Tagging", &[]),
    ("StartSnapshot", "Tags", &[]),
    ("RegisterImage", "TagSpecifications", &["image"]),
    ("CopyImage", "TagSpecifications", &["image", "snapshot"]),
    ("CreateImage", "TagSpecifications", &["image", "snapshot"]),
    ("RunInstances", "TagSpecifications", &["instance", "volume"]),
];

/// An account that holds nothing, a vendor's public image beside it, and the recipes that bake in it.
struct Account<'a> {
    cloud: StandIn,
    yard: &'a Yard,
}

impl<'a> Account<'a> {
    fn new(yard: &'a Yard) -> Self {
        Self::with_steps(yard, STEPS)
    }

    fn with_steps(yard: &'a Yard, steps: &str) -> Self {
        let cloud = StandIn::start();
        let disk = yard.path().join("scratch/disk.raw");
        let vendors =
            json!({ "name": "vendor", "disk": disk, "holes": true, "public": true, "snapshot_public": true });
        let (base, _) = cloud.seed_image(&cloud.other_account(1), vendors);
        yard.recipe("direct", &recipe("direct", &format!("{{ image: {base} }}"), steps));
        yard.recipe("scratch", &recipe("scratch", "{ file: disk.raw }", steps));
        Self { cloud, yard }
    }

    fn run(&self, args: &[&str], fault: &str) -> Said {
        let mut command: Command = self.cloud.program(self.yard);
        if !fault.is_empty() {
            command.env("BAKEHOUSE_FAULT", fault);
        }
        command.args(args).stdin(Stdio::null()).output().unwrap().into()
    }

    fn bake(&self, method: &str, fault: &str) -> Said {
        self.run(&["bake", "--fresh", method], fault)
    }

    /// The mutating calls so far, with how many of their kind came before each: `ec2`, `RegisterImage`, 1.
    fn mutations(&self) -> Vec<(String, String, usize)> {
        let mut counts = BTreeMap::new();
        let mut all = Vec::new();
        for exchange in self.cloud.exchanges() {
            let operation = exchange["operation"].as_str().unwrap().to_owned();
            if READS.iter().any(|read| operation.starts_with(read)) {
                continue;
            }
            let count = counts.entry(operation.clone()).or_insert(0);
            *count += 1;
            all.push((exchange["service"].as_str().unwrap().to_owned(), operation, *count));
        }
        all
    }

    /// What the account holds. Instances end by themselves once they were told to, and EC2 forgets them.
    fn held(&self) -> Value {
        let began = Instant::now();
        loop {
            let mut state = self.cloud.state();
            let ending = state["instances"].to_string().contains("shutting-down");
            if !ending || began.elapsed() > ENDED {
                let instances = state["instances"].as_object_mut().unwrap();
                instances.retain(|_, one| one["state"] != "terminated");
                return state;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// That the account holds nothing, or one whole image, and at most one import; the image's id.
    #[track_caller]
    fn assert_settled(&self, after: &str) -> Option<String> {
        let state = self.held();
        let all = |kind: &str| state[kind].as_object().unwrap().clone();
        let (imports, baked): (Vec<_>, Vec<_>) =
            all("images").into_iter().partition(|(_, image)| image["tags"].get("bakehouse:import").is_some());
        assert!(imports.len() <= 1, "{after}: {} imports: {state:#}", imports.len());
        assert!(baked.len() <= 1, "{after}: {} images: {state:#}", baked.len());
        let mut used = Vec::new();
        for (id, image) in imports.iter().chain(&baked) {
            assert_eq!(image["state"], "available", "{after}: {id}");
            for snapshot in image["snapshots"].as_array().unwrap() {
                let snapshot = snapshot.as_str().unwrap();
                assert_eq!(state["snapshots"][snapshot]["state"], "completed", "{after}: {snapshot} of {id}");
                used.push(snapshot.to_owned());
            }
        }
        for (id, snapshot) in all("snapshots") {
            assert!(used.contains(&id), "{after}: {id} is left: {snapshot:#}");
        }
        for kind in
            ["instances", "volumes", "interfaces", "security_groups", "key_pairs", "objects", "grants"]
        {
            assert!(all(kind).is_empty(), "{after}: {kind} are left: {}", state[kind]);
        }
        baked.into_iter().next().map(|(id, _)| id)
    }

    /// That everything was made with its tags, and has them still.
    #[track_caller]
    fn assert_tagged(&self, after: &str) {
        for exchange in self.cloud.exchanges() {
            let Some((_, place, kinds)) = CREATES.iter().find(|(name, ..)| exchange["operation"] == *name)
            else {
                continue;
            };
            let given = &exchange["parameters"][place];
            let text = given.to_string().replace("%3A", ":");
            assert!(text.contains("bakehouse:"), "{after}: untagged: {exchange:#}");
            for kind in *kinds {
                let of_kind =
                    |one: &Value| one["ResourceType"] == *kind && one.to_string().contains("bakehouse:");
                assert!(
                    given.as_array().unwrap().iter().any(of_kind),
                    "{after}: {kind} untagged: {exchange:#}"
                );
            }
        }
        for kind in ["snapshots", "images", "instances", "volumes"] {
            for (id, one) in self.cloud.state()[kind].as_object().unwrap() {
                assert!(one["tags"].to_string().contains("bakehouse:"), "{after}: {id} has no tags: {one:#}");
            }
        }
    }

    /// After a bake that ended by itself: its code, its output and the account say the same.
    #[track_caller]
    fn assert_ended(&self, said: &Said, after: &str) {
        let after = format!("{after}: ended with {}: {}", said.code, said.err);
        self.assert_tagged(&after);
        let image = self.assert_settled(&after);
        match image {
            Some(id) => assert_eq!((said.code, said.out.trim()), (0, id.as_str()), "{after}"),
            None => assert!(said.code != 0 && said.out.is_empty(), "{after}"),
        }
        self.yard.assert_nothing_left();
    }
}

/// Does every job on an account of its own.
fn each<J: Sync>(jobs: &[J], work: impl Fn(&Account, &J) + Sync) {
    in_yards(AT_ONCE, jobs, |yard, job| work(&Account::new(yard), job));
}

/// Does every job, a few of them at once, each in a yard that no other uses meanwhile.
fn in_yards<J: Sync>(at_once: usize, jobs: &[J], work: impl Fn(&Yard, &J) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(jobs.len()) {
            scope.spawn(|| {
                let yard = Yard::small().unwrap();
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(&yard, job);
                }
            });
        }
    });
}

/// Of many blocks put one after another, these: between two of them the ledger writes nothing and the account changes in
/// nothing but the blocks of one snapshot that is pending, so that what a refusal or a kill leaves there is the same. That
/// each of them may fail once says [`every_put_fails_once`].
fn is_tried(operation: &str, number: usize, of: usize) -> bool {
    operation != "PutSnapshotBlock" || [1, of / 2, of].contains(&number)
}

/// How a call is struck: the rule's words, and whether the bake has to go on. AWS itself denies nothing that takes effect.
const STRIKES: [(&str, &str, bool); 7] = [
    ("throttle", "before", true),
    ("error", "before", true),
    ("error", "after", true),
    ("drop", "before", true),
    ("drop", "after", true),
    ("denied", "before", false),
    ("denied", "after", false),
];

fn rule(service: &str, operation: &str, number: usize, kind: &str, when: &str) -> Value {
    let mut rule =
        json!({ "service": service, "operation": operation, "nth": number, "kind": kind, "when": when });
    if kind == "denied" {
        rule["kind"] = json!("error");
        rule["status"] = json!(403);
        let code = match service {
            "ec2" => "UnauthorizedOperation",
            "s3" => "AccessDenied",
            _ => "AccessDeniedException",
        };
        rule["code"] = json!(code);
        rule["message"] = json!("you are not authorized");
        if service == "ebs" {
            rule["reason"] = json!("UNAUTHORIZED_ACCOUNT");
        }
    }
    rule
}

fn every_call_is_struck(method: &'static str) {
    let Some(yard) = Yard::small() else { return };
    let account = Account::new(&yard);
    let said = account.bake(method, "").ok();
    account.assert_ended(&said, method);
    let mutations = account.mutations();
    let names: Vec<&str> = mutations.iter().map(|(_, operation, _)| operation.as_str()).collect();
    for wanted in ["StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "RegisterImage"] {
        assert!(names.contains(&wanted), "{names:?}");
    }
    let puts = names.iter().filter(|name| **name == "PutSnapshotBlock").count();
    let mut jobs = Vec::new();
    for (service, operation, number) in &mutations {
        if is_tried(operation, *number, puts) {
            let of_puts = operation == "PutSnapshotBlock";
            // After which a put is made again: all of them at once, below.
            let strikes = STRIKES.iter().filter(|(_, _, goes_on)| !(of_puts && *goes_on));
            jobs.extend(strikes.map(|strike| (service.clone(), operation.clone(), *number, *strike)));
        }
    }
    drop(account);
    drop(yard);
    each(&jobs, |account, (service, operation, number, (kind, when, goes_on))| {
        let after = format!("{method}: {service} {operation}#{number} {kind} {when}");
        account.cloud.faults(json!([rule(service, operation, *number, kind, when)]));
        let said = account.bake(method, "");
        let rules = account.cloud.told_faults();
        // A bake may have a block less to store than the one before.
        assert!(rules[0]["struck"] == 1 || operation == "PutSnapshotBlock", "{after}: {rules:?}");
        if *goes_on {
            assert_eq!(said.code, 0, "{after}: {}", said.err);
        }
        account.assert_ended(&said, &after);
    });
}

/// Bakes in which the first put of every block fails, in each way after which it is made again.
#[test]
fn every_put_fails_once() {
    let strikes = STRIKES.iter().filter(|(_, _, goes_on)| *goes_on);
    let jobs: Vec<_> = strikes.flat_map(|strike| METHODS.map(|method| (method, *strike))).collect();
    each(&jobs, |account, (method, (kind, when, _))| {
        let after = format!("{method}: every PutSnapshotBlock {kind} {when}");
        let every =
            json!({ "operation": "PutSnapshotBlock", "each": "BlockIndex", "kind": kind, "when": when });
        account.cloud.faults(json!([every]));
        let said = account.bake(method, "").ok();
        account.assert_ended(&said, &after);
        let state = account.cloud.state();
        let snapshot = state["images"][said.out.trim()]["snapshots"][0].as_str().unwrap();
        let struck = account.cloud.told_faults()[0]["struck"].as_u64().unwrap();
        assert!(struck > 1, "{after}");
        assert_eq!(state["snapshots"][snapshot]["own_blocks"], struck, "{after}");
    });
}

#[test]
fn every_call_of_a_scratch_bake_on_aws_is_struck_in_turn() {
    every_call_is_struck("scratch");
}

#[test]
fn every_call_of_a_direct_bake_on_aws_is_struck_in_turn() {
    every_call_is_struck("direct");
}

#[test]
fn a_bake_on_aws_that_is_killed_between_any_two_calls_leaves_nothing_after_a_sweep() {
    let mut jobs = Vec::new();
    for method in METHODS {
        let Some(yard) = Yard::small() else { return };
        let account = Account::new(&yard);
        let names = calls(&account.bake(method, "list").ok());
        let puts = names.iter().filter(|name| name.starts_with("PutSnapshotBlock#")).count();
        for name in names {
            let (operation, number) = name.split_once('#').unwrap();
            if is_tried(operation, number.parse().unwrap(), puts) {
                jobs.extend(["before", "after"].map(|side| (method, format!("call:{name}:{side}:kill"))));
            }
        }
    }
    each(&jobs, |account, (method, fault)| {
        let said = account.bake(method, fault);
        // A signal ended it; or there was a block less to store.
        if said.code == 0 && fault.contains("PutSnapshotBlock") && told(&said, "struck").is_empty() {
            return;
        }
        assert_eq!(said.code, -1, "{method} {fault}: {}", said.err);
        account.assert_tagged(&format!("{method} {fault}"));
        let swept = account.run(&["sweep"], "");
        let after = format!("{method} {fault}, then sweep: {}", swept.err);
        assert_eq!(swept.code, 0, "{after}");
        account.assert_settled(&after);
        account.assert_tagged(&after);
        account.yard.assert_nothing_left();
    });
}

/// A snapshot whose bake and machine are gone for good is ended by its own timeout.
#[test]
fn a_snapshot_that_nobody_sweeps_is_given_up_by_ebs_itself() {
    let Some(yard) = Yard::small() else { return };
    let account = Account::new(&yard);
    account.bake("scratch", "call:StartSnapshot#1:after:kill").code(-1);
    let state = |account: &Account| {
        let all = account.cloud.state()["snapshots"].as_object().unwrap().clone();
        assert_eq!(all.len(), 1);
        all.values().next().unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(&account), "pending");
    account.cloud.tick(72 * 3600);
    assert_eq!(state(&account), "error");
    account.run(&["sweep"], "").ok();
    assert_eq!(account.assert_settled("after its timeout"), None);
}

/// What was just made does not show yet: a bake waits for it.
#[test]
fn what_does_not_show_at_once_is_waited_for() {
    let Some(yard) = Yard::small() else { return };
    for method in METHODS {
        let account = Account::new(&yard);
        account.cloud.settings(json!({
            "describe_not_found_seconds": 2, "put_not_found_seconds": 1, "complete_seconds": 1, "image_seconds": 1,
            "list_not_found_seconds": 1, "page_blocks": 30, "empty_page_every": 2,
        }));
        let said = account.bake(method, "").ok();
        account.assert_ended(&said, &format!("{method}, all of it late"));
    }
}

/// Every answer to a call is lost though it took effect, and what it made does not show: it is undone all the same.
#[test]
fn what_does_not_show_is_undone_all_the_same() {
    let Some(yard) = Yard::small() else { return };
    for method in METHODS {
        for (service, operation) in [("ebs", "StartSnapshot"), ("ec2", "RegisterImage"), ("ec2", "CopyImage")]
        {
            if (method, operation) == ("scratch", "CopyImage") {
                continue;
            }
            let account = Account::new(&yard);
            account.cloud.settings(json!({ "describe_not_found_seconds": 1, "put_not_found_seconds": 1 }));
            let mut all = rule(service, operation, 1, "error", "after");
            all["times"] = json!(100);
            account.cloud.faults(json!([all]));
            let said = account.bake(method, "");
            account
                .assert_ended(&said, &format!("{method}: no answer to {operation}, and nothing to be seen"));
        }
    }
}

/// The ids of a kind in a text.
fn ids(text: &str, kind: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with(kind)).map(str::to_owned).collect()
}

/// Where clean-up is refused too, the error lists exactly what is left, and a sweep takes it when it may.
#[test]
fn what_may_not_be_taken_away_is_told_and_swept_later() {
    let Some(yard) = Yard::small() else { return };
    for method in METHODS {
        for (service, operation) in
            [("ebs", "PutSnapshotBlock"), ("ebs", "CompleteSnapshot"), ("ec2", "RegisterImage")]
        {
            let account = Account::new(&yard);
            let for_good = |service: &str, operation: &str| {
                let mut rule = rule(service, operation, 1, "denied", "before");
                rule["times"] = json!(1000);
                rule
            };
            account.cloud.faults(json!([
                for_good(service, operation),
                for_good("ec2", "DeleteSnapshot"),
                for_good("ec2", "DeregisterImage"),
            ]));
            let said = account.bake(method, "").code(4);
            let after = format!("{method}, {operation} and clean-up refused: {}", said.err);
            assert!(said.out.is_empty(), "{after}");
            account.assert_tagged(&after);
            let state = account.held();
            let images = state["images"].as_object().unwrap().values();
            let imports: Vec<String> = images.map(|image| image["snapshots"].to_string()).collect();
            let left: BTreeSet<String> = state["snapshots"].as_object().unwrap().keys().cloned().collect();
            let left: BTreeSet<String> = left
                .into_iter()
                .filter(|id| !imports.iter().any(|uses| uses.contains(id.as_str())))
                .collect();
            assert_eq!(left.len(), 1, "{after}: {state:#}");
            let told = said.err.split("left behind").nth(1).unwrap_or_default();
            assert_eq!(ids(told, "snap-"), left, "{after}");
            // Nothing may be taken away yet.
            let swept = account.run(&["sweep"], "").code(4);
            assert!(left.iter().all(|id| swept.err.contains(id.as_str())), "{after}: {}", swept.err);
            account.cloud.faults(json!([]));
            let swept = account.run(&["sweep"], "").ok();
            assert_eq!(account.assert_settled(&format!("{after}: {}", swept.err)), None);
            account.yard.assert_nothing_left();
        }
    }
}
