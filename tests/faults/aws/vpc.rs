//! The same for `bakehouse vpc`: each of its calls is struck, and it is killed between any two.

use std::process::Stdio;

use super::super::run::{calls, continued, until_stopped};
use super::{Account, READS, STRIKES, rule};
use crate::aws::StandIn;
use crate::aws::vpc::{PARTS, assert_whole, counts};
use crate::yard::{Said, Yard};

/// Nearly all of one is waiting.
const AT_ONCE: usize = 4;

const CREATE: &[&str] = &["vpc", "create", "--name", "web"];
const DELETE: &[&str] = &["vpc", "delete", "--name", "web"];

impl<'a> Account<'a> {
    fn empty(yard: &'a Yard) -> Self {
        Self { cloud: StandIn::start(), yard }
    }

    /// That a VPC is whole where its maker said so, and that there is nothing of one where it failed.
    #[track_caller]
    fn assert_made_or_not(&self, said: &Said, after: &str) {
        let after = format!("{after}: ended with {}: {}", said.code, said.err);
        self.assert_parts_tagged(&after);
        if said.code == 0 {
            assert_whole(&self.cloud.state(), &after);
        } else {
            assert_eq!(counts(&self.cloud.state()), [0; 5], "{after}");
        }
        self.yard.assert_nothing_left();
    }

    /// Nothing is untagged, whatever becomes of it.
    #[track_caller]
    fn assert_parts_tagged(&self, after: &str) {
        let state = self.cloud.state();
        for kind in PARTS {
            for (id, part) in state[kind].as_object().unwrap() {
                let tags = &part["tags"];
                let tagged = ["bakehouse:vpc", "bakehouse:bake", "bakehouse:expires"];
                assert!(
                    tagged.iter().all(|key| tags[key].is_string()),
                    "{after}: {id} has not all its tags: {tags}"
                );
            }
        }
    }

    #[track_caller]
    fn assert_no_vpc(&self, after: &str) {
        assert_eq!(counts(&self.cloud.state()), [0; 5], "{after}: {:#}", self.cloud.state());
        self.yard.assert_nothing_left();
    }
}

/// A call by its service, its operation and how many of its kind came before, and how it is struck.
type Struck = ((String, String, usize), (&'static str, &'static str, bool));

/// Every mutating call of a run, by what it is struck with.
fn struck(account: &Account) -> Vec<Struck> {
    let mutations = account.mutations();
    mutations.iter().flat_map(|mutation| STRIKES.map(|strike| (mutation.clone(), strike))).collect()
}

#[test]
fn every_call_of_making_a_vpc_is_struck_in_turn() {
    let yard = Yard::new();
    let account = Account::empty(&yard);
    let said = account.run(CREATE, "").ok();
    account.assert_made_or_not(&said, "create");
    let jobs = struck(&account);
    assert_eq!(jobs.len(), 11 * STRIKES.len(), "{jobs:?}");
    in_own_yards(&jobs, |account, ((service, operation, number), (kind, when, goes_on))| {
        let after = format!("create: {operation}#{number} {kind} {when}");
        account.cloud.faults(serde_json::json!([rule(service, operation, *number, kind, when)]));
        let said = account.run(CREATE, "");
        assert_eq!(account.cloud.told_faults()[0]["struck"], 1, "{after}: {}", said.err);
        assert_eq!(said.code == 0, *goes_on, "{after}: {}", said.err);
        account.assert_made_or_not(&said, &after);
    });
}

#[test]
fn every_call_of_taking_a_vpc_away_is_struck_in_turn() {
    let yard = Yard::new();
    let account = Account::empty(&yard);
    account.run(CREATE, "").ok();
    let before = account.mutations().len();
    account.run(DELETE, "").ok();
    account.assert_no_vpc("delete");
    let jobs: Vec<_> = struck(&account).into_iter().skip(before * STRIKES.len()).collect();
    assert_eq!(jobs.len(), 6 * STRIKES.len(), "{jobs:?}");
    in_own_yards(&jobs, |account, ((service, operation, number), (kind, when, goes_on))| {
        let after = format!("delete: {operation}#{number} {kind} {when}");
        account.run(CREATE, "").ok();
        account.cloud.faults(serde_json::json!([rule(service, operation, *number, kind, when)]));
        let said = account.run(DELETE, "");
        assert_eq!(account.cloud.told_faults()[0]["struck"], 1, "{after}: {}", said.err);
        assert_eq!(said.code == 0, *goes_on, "{after}: {}", said.err);
        if said.code != 0 {
            assert!(said.code == 4 && said.err.contains("left behind"), "{after}: {}", said.err);
            account.assert_parts_tagged(&after);
            account.run(DELETE, "").ok();
        }
        account.assert_no_vpc(&after);
    });
}

/// By a sweep on the same host, by one elsewhere when it has expired, or by the next create, which completes it.
#[test]
fn a_vpc_whose_making_is_killed_between_any_two_calls_is_swept_or_completed() {
    let yard = Yard::new();
    let account = Account::empty(&yard);
    let names = calls(&account.run(CREATE, "list").ok());
    assert!(names.len() == 11 && !names.iter().any(|name| READS.iter().any(|read| name.starts_with(read))));
    let kills =
        names.iter().flat_map(|name| ["before", "after"].map(|side| format!("call:{name}:{side}:kill")));
    let jobs: Vec<String> = kills.collect();
    in_own_yards(&jobs, |account, fault| {
        account.run(CREATE, fault).code(-1);
        account.assert_parts_tagged(fault);
        account.run(&["sweep"], "").ok();
        account.assert_no_vpc(&format!("{fault}, then sweep"));

        let short = [CREATE, &["--expires-after", "1s"]].concat();
        account.run(&short, fault).code(-1);
        let elsewhere = Yard::new();
        let there = Account { cloud: StandIn::start(), yard: &elsewhere };
        let run =
            |args: &[&str]| -> Said { account.cloud.program(there.yard).args(args).output().unwrap().into() };
        std::thread::sleep(std::time::Duration::from_secs(2));
        run(&["sweep"]).ok();
        assert_eq!(counts(&account.cloud.state()), [0; 5], "{fault}, then sweep elsewhere");
        // Of what its ledger names nothing is there any more.
        account.run(&["sweep"], "").ok();
        account.assert_no_vpc(&format!("{fault}, then both sweeps"));

        account.run(CREATE, fault).code(-1);
        let said = run(CREATE).ok();
        let after = format!("{fault}, then create elsewhere: {}", said.err);
        assert_whole(&account.cloud.state(), &after);
        // Who undoes what was killed takes nothing away that another run has completed.
        account.run(&["sweep"], "").ok();
        assert_whole(&account.cloud.state(), &format!("{after}, then sweep"));
        run(DELETE).ok();
        account.assert_no_vpc(&after);
    });
}

/// A delete that is killed is done by the next one, and by nothing of this host.
#[test]
fn a_vpc_whose_taking_away_is_killed_between_any_two_calls_is_taken_away_by_the_next() {
    let yard = Yard::new();
    let account = Account::empty(&yard);
    account.run(CREATE, "").ok();
    let names = calls(&account.run(DELETE, "list").ok());
    assert_eq!(names.len(), 6, "{names:?}");
    let kills =
        names.iter().flat_map(|name| ["before", "after"].map(|side| format!("call:{name}:{side}:kill")));
    let jobs: Vec<String> = kills.collect();
    in_own_yards(&jobs, |account, fault| {
        account.run(CREATE, "").ok();
        account.run(DELETE, fault).code(-1);
        account.assert_parts_tagged(fault);
        account.run(DELETE, "").ok();
        account.assert_no_vpc(fault);
    });
}

/// One is held before each of its calls in turn, while the other makes all of it.
#[test]
fn two_creates_at_once_are_given_one_vpc() {
    let yard = Yard::new();
    let names = calls(&Account::empty(&yard).run(CREATE, "list").ok());
    assert_eq!(names.len(), 11, "{names:?}");
    in_own_yards(&names, |account, name| {
        let mut command = account.cloud.program(account.yard);
        command.args(CREATE).env("BAKEHOUSE_FAULT", format!("call:{name}:before:stop"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until_stopped(child.id());
        let elsewhere = Yard::new();
        let other: Said = account.cloud.program(&elsewhere).args(CREATE).output().unwrap().into();
        let other = other.ok();
        let said = continued(child).ok();
        let after = format!("{name}: {}", said.err);
        assert_eq!(said.out, other.out, "{after}");
        assert_whole(&account.cloud.state(), &after);
        account.yard.assert_nothing_left();
    });
}

/// Who goes on with what a killed run left is known by a look. Where that fails, nobody can tell, and all of it stays.
#[test]
fn what_was_killed_is_not_undone_where_nobody_can_tell_who_goes_on_with_it() {
    let jobs = [1, 2];
    in_own_yards(&jobs, |account, number| {
        account.run(CREATE, "call:CreateRouteTable#1:before:kill").code(-1);
        let elsewhere = Yard::new();
        let said: Said = account.cloud.program(&elsewhere).args(CREATE).output().unwrap().into();
        said.ok();
        account.cloud.faults(serde_json::json!([rule(
            "ec2",
            "DescribeSubnets",
            *number,
            "denied",
            "before"
        )]));
        let said = account.run(&["sweep"], "");
        let after = format!("look {number}, then sweep: {}", said.err);
        assert_eq!(account.cloud.told_faults()[0]["struck"], 1, "{after}");
        assert_whole(&account.cloud.state(), &after);
        assert_eq!(said.code, 4, "{after}");
        account.run(&["sweep"], "").ok();
        assert_whole(&account.cloud.state(), &format!("{after}, then sweep again"));
    });
}

/// A look that fails leaves as much as a deletion that does.
#[test]
fn a_vpc_whose_taking_away_fails_by_a_look_is_told() {
    let jobs =
        ["DescribeVpcs", "DescribeNetworkInterfaces", "DescribeRouteTables", "DescribeInternetGateways"];
    in_own_yards(&jobs, |account, operation| {
        account.run(CREATE, "").ok();
        let vpc = account.cloud.state()["vpcs"].as_object().unwrap().keys().next().unwrap().clone();
        account.cloud.faults(serde_json::json!([rule("ec2", operation, 1, "denied", "before")]));
        let said = account.run(DELETE, "").code(4);
        assert_eq!(account.cloud.told_faults()[0]["struck"], 1, "{operation}: {}", said.err);
        let told = match *operation {
            "DescribeVpcs" => "VPCs called web".to_owned(),
            _ => format!("{vpc}, of the VPC web"),
        };
        assert!(said.err.contains(&told), "{operation}: {}", said.err);
        assert_whole(&account.cloud.state(), operation);
        account.run(DELETE, "").ok();
        account.assert_no_vpc(operation);
    });
}

/// Every answer to a call is lost though it took effect, and what it made does not show: nothing is left of it.
#[test]
fn a_part_that_does_not_show_is_undone_all_the_same() {
    let jobs =
        ["CreateVpc", "CreateInternetGateway", "CreateSubnet", "CreateRouteTable", "CreateSecurityGroup"];
    in_own_yards(&jobs, |account, operation| {
        account.cloud.settings(serde_json::json!({ "describe_not_found_seconds": 1 }));
        let mut all = rule("ec2", operation, 1, "error", "after");
        all["times"] = serde_json::json!(100);
        account.cloud.faults(serde_json::json!([all]));
        let said = account.run(CREATE, "");
        account.assert_made_or_not(&said, &format!("no answer to {operation}, and nothing to be seen"));
    });
}

/// Does every job in an account and a yard of its own.
fn in_own_yards<J: Sync>(jobs: &[J], work: impl Fn(&Account, &J) + Sync) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(jobs.len()) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let yard = Yard::new();
                    work(&Account::empty(&yard), job);
                }
            });
        }
    });
}
