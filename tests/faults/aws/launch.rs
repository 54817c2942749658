//! The same for a bake by the method launch, whose steps really run in the root of the stand-in's instance. What it makes is
//! an instance with its volume, objects, an image and its snapshot.

use std::path::Path;

use serde_json::json;

use super::super::run::{calls, told};
use super::{Account, READS, STRIKES, in_yards, rule};
use crate::aws::StandIn;
use crate::aws::launch::root_disk;
use crate::gate;
use crate::provision::machine::provisioner;
use crate::yard::small::recipe;
use crate::yard::{Said, Yard};

const STEPS: &str = "provision:\n  - shell: { run: 'mkdir -p /etc/made; echo made >/etc/made/by' }\n";
/// The vendor's disk.
pub(super) const DISK: &str = "launch.raw";

/// More than of other bakes: nearly all of one is waiting for the instance.
const AT_ONCE: usize = 6;

/// Of all calls and all ways to strike them, one in so many: each call is struck, and each way is tried.
const ONE_IN: usize = 4;

/// What takes away what only served to make the image: where it is refused, the image is good all the same.
const CLEAN_UP: [&str; 2] = ["TerminateInstances", "DeleteObject"];

/// How often the instance is asked is a matter of moments. What it was to run is not sent again where the answer is lost: it
/// may run already.
const ASKS: &str = "SendCommand";

/// Whether a recipe's steps can be run in a root of the stand-in.
pub(super) fn can_launch() -> bool {
    gate::has_root(&["mke2fs", "nsenter", "setpriv"]) && provisioner().is_some()
}

fn yard() -> Option<Yard> {
    if can_launch() { Yard::small() } else { None }
}

impl<'a> Account<'a> {
    /// With a bucket and an instance profile; the base is a vendor's.
    fn launching(yard: &'a Yard) -> Self {
        Self::launching_with_steps(yard, STEPS)
    }

    pub(super) fn launching_with_steps(yard: &'a Yard, steps: &str) -> Self {
        let cloud = StandIn::start();
        let disk = yard.path().join(DISK);
        if !Path::exists(&disk) {
            root_disk(&disk);
        }
        let vendors =
            json!({ "name": "vendor", "disk": disk, "holes": true, "public": true, "snapshot_public": true });
        let (base, _) = cloud.seed_image(&cloud.other_account(1), vendors);
        // Names of buckets are everybody's.
        let bucket = format!("bakery-{}", cloud.account());
        cloud.seed(json!({ "instance_profile": "baker", "bucket": bucket }));
        let settings = format!("method: launch\nlaunch: {{ profile: baker, bucket: {bucket} }}\n{steps}");
        yard.recipe("launch", &recipe("launch", &format!("{{ image: {base} }}"), &settings));
        Self { cloud, yard }
    }

    /// What could not be taken away is told; the image is good, and a sweep takes the rest.
    #[track_caller]
    fn assert_told_and_swept(&self, said: &Said, after: &str) {
        let after = format!("{after}: ended with {}: {}", said.code, said.err);
        assert!(said.err.contains("left behind"), "{after}");
        self.assert_tagged(&after);
        let swept = self.run(&["sweep"], "");
        assert_eq!(swept.code, 0, "{after}, then sweep: {}", swept.err);
        let image = self.assert_settled(&after);
        match said.code {
            0 => assert_eq!(image.as_deref(), Some(said.out.trim()), "{after}"),
            code => assert!(code == 4 && image.is_none(), "{after}"),
        }
        self.yard.assert_nothing_left();
    }
}

#[test]
fn every_call_of_a_launch_bake_on_aws_is_struck_in_turn() {
    let Some(yard) = yard() else { return };
    let account = Account::launching(&yard);
    let said = account.bake("launch", "").ok();
    account.assert_ended(&said, "launch");
    let mutations = account.mutations();
    let names: Vec<&str> = mutations.iter().map(|(_, operation, _)| operation.as_str()).collect();
    for wanted in ["PutObject", "RunInstances", ASKS, "CreateImage", "TerminateInstances", "DeleteObject"] {
        assert!(names.contains(&wanted), "{names:?}");
    }
    let mut jobs = Vec::new();
    let deletes = names.iter().filter(|name| **name == "DeleteObject").count();
    let alike =
        |operation: &str, number: usize| operation == "DeleteObject" && 1 < number && number < deletes;
    let tried = mutations.iter().filter(|(_, operation, number)| !alike(operation, *number));
    for (at, mutation) in tried.enumerate() {
        let strikes = STRIKES.iter().enumerate().filter(|(kind, _)| (at + kind).is_multiple_of(ONE_IN));
        jobs.extend(strikes.map(|(_, strike)| (mutation.clone(), *strike)));
    }
    drop(account);
    drop(yard);
    in_yards(AT_ONCE, &jobs, |yard, ((service, operation, number), (kind, when, goes_on))| {
        let account = Account::launching(yard);
        let after = format!("launch: {service} {operation}#{number} {kind} {when}");
        account.cloud.faults(json!([rule(service, operation, *number, kind, when)]));
        let said = account.bake("launch", "");
        let rules = account.cloud.told_faults();
        assert!(rules[0]["struck"] == 1 || operation == ASKS, "{after}: {rules:?}: {}", said.err);
        if *goes_on && (operation != ASKS || *kind == "throttle") {
            assert_eq!(said.code, 0, "{after}: {}", said.err);
        }
        // What is refused though it took effect may be found to be gone.
        let is_told = *when == "before" || said.err.contains("left behind (");
        if *kind == "denied" && CLEAN_UP.contains(&operation.as_str()) && is_told {
            account.assert_told_and_swept(&said, &after);
        } else {
            account.assert_ended(&said, &after);
        }
    });
}

#[test]
fn a_launch_bake_on_aws_that_is_killed_between_any_two_calls_leaves_nothing_after_a_sweep() {
    let Some(yard) = yard() else { return };
    let account = Account::launching(&yard);
    let names = calls(&account.bake("launch", "list").ok());
    assert!(!names.iter().any(|name| READS.iter().any(|read| name.starts_with(read))), "{names:?}");
    // Before every call is between any two; what makes something is tried on both sides, and so is the last.
    let makes = |name: &str| ["RunInstances#", "CreateImage#"].iter().any(|make| name.starts_with(make));
    let mut jobs = Vec::new();
    for (at, name) in names.iter().enumerate() {
        jobs.push(format!("call:{name}:before:kill"));
        if makes(name) || at + 1 == names.len() {
            jobs.push(format!("call:{name}:after:kill"));
        }
    }
    drop(account);
    drop(yard);
    in_yards(AT_ONCE, &jobs, |yard, fault| {
        let account = Account::launching(yard);
        let said = account.bake("launch", fault);
        if said.code == 0 && fault.contains(ASKS) && told(&said, "struck").is_empty() {
            return;
        }
        assert_eq!(said.code, -1, "{fault}: {}", said.err);
        account.assert_tagged(fault);
        let swept = account.run(&["sweep"], "");
        let after = format!("{fault}, then sweep: {}", swept.err);
        assert_eq!(swept.code, 0, "{after}");
        account.assert_settled(&after);
        account.assert_tagged(&after);
        account.yard.assert_nothing_left();
    });
}
