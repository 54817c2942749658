//! One kill and one lost answer for each method at real size: a vendor's Debian, and 64 MiB of changes.

use std::fs;

use serde_json::json;

use super::super::state::images;
use super::launch::{DISK, can_launch};
use super::{Account, rule};
use crate::yard::Yard;

/// As many changed blocks as a bake of a few packages has.
const STEPS: &str = "provision:\n  - shell: { run: 'head -c 67108864 /dev/urandom >/srv/noise' }\n";

/// With the Debian that all tests share as a file, where the recipes and the vendor's images have their disks.
fn yard() -> Option<Yard> {
    let yard = Yard::of_shared()?;
    let disk = yard.path().join("scratch/disk.raw");
    fs::create_dir_all(disk.parent().unwrap()).unwrap();
    let image = images(&yard, "os-base").remove(0);
    yard.run(&["export", &image, disk.to_str().unwrap()]).ok();
    fs::hard_link(&disk, yard.path().join(DISK)).unwrap();
    Some(yard)
}

/// Kills a bake, sweeps, and bakes again while the answer to a call is lost.
fn struck(account: &Account, method: &str, kill: &str, (service, lost): (&str, &str)) {
    let said = account.bake(method, kill);
    assert_eq!(said.code, -1, "{method}: {}", said.err);
    account.assert_tagged(kill);
    let swept = account.run(&["sweep"], "").ok();
    let after = format!("{method}: {kill}, then sweep: {}", swept.err);
    assert_eq!(account.assert_settled(&after), None, "{after}");
    account.yard.assert_nothing_left();

    account.cloud.faults(json!([rule(service, lost, 1, "drop", "after")]));
    let said = account.bake(method, "").ok();
    assert_eq!(account.cloud.told_faults()[0]["struck"], 1, "{method}: {lost}");
    account.assert_ended(&said, &format!("{method}: the answer to {lost} is lost"));
}

#[test]
fn a_direct_bake_of_real_size_on_aws_leaves_nothing() {
    let Some(yard) = yard() else { return };
    let account = Account::with_steps(&yard, STEPS);
    struck(&account, "direct", "call:PutSnapshotBlock#40:after:kill", ("ebs", "CompleteSnapshot"));
}

#[test]
fn a_scratch_bake_of_real_size_on_aws_leaves_nothing() {
    let Some(yard) = yard() else { return };
    let account = Account::with_steps(&yard, STEPS);
    struck(&account, "scratch", "call:PutSnapshotBlock#2000:after:kill", ("ec2", "RegisterImage"));
}

#[test]
fn a_launch_bake_of_real_size_on_aws_leaves_nothing() {
    if !can_launch() {
        return;
    }
    let Some(yard) = yard() else { return };
    let account = Account::launching_with_steps(&yard, STEPS);
    struck(&account, "launch", "call:CreateImage#1:after:kill", ("ec2", "RunInstances"));
}
