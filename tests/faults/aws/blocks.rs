//! Blocks on AWS: late, refused as too many, and damaged by the store itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::Account;
use crate::yard::Yard;
use crate::yard::small::METHODS;

/// What a bake is to pass through: answers that come late, and no more blocks a second than a tenth of what it would like.
fn slow() -> serde_json::Value {
    let rate = |operation: &str| json!({ "kind": "rate", "service": "ebs", "operation": operation, "per_second": 60, "burst": 10 });
    let late =
        |service: &str, seconds: f64| json!({ "kind": "latency", "service": service, "seconds": seconds });
    json!([rate("PutSnapshotBlock"), rate("GetSnapshotBlock"), late("ebs", 0.05), late("ec2", 0.1)])
}

#[test]
fn a_bake_that_is_throttled_and_answered_late_slows_down_and_puts_every_block_once() {
    let Some(yard) = Yard::small() else { return };
    for method in METHODS {
        let account = Account::new(&yard);
        account.cloud.faults(slow());
        let said = account.bake(method, "").ok();
        account.assert_ended(&said, &format!("{method}, slowed down"));
        let struck = |number: usize| account.cloud.told_faults()[number]["struck"].as_u64().unwrap();
        // Scratch has 128 blocks to put; direct has as many to read, of the import.
        let number = usize::from(method == "direct");
        assert!(struck(number) > 0, "{method}: nothing was refused");

        let state = account.cloud.state();
        let image = &state["images"][said.out.trim()];
        let snapshot = image["snapshots"][0].as_str().unwrap();
        let (mut put, mut twice) = (BTreeSet::new(), Vec::new());
        for exchange in account.cloud.exchanges() {
            let of_it = exchange["parameters"]["SnapshotId"] == snapshot;
            if exchange["operation"] == "PutSnapshotBlock" && exchange["status"] == 201 && of_it {
                let index = exchange["parameters"]["BlockIndex"].as_u64().unwrap();
                if !put.insert(index) {
                    twice.push(index);
                }
            }
        }
        assert!(twice.is_empty(), "{method}: put more than once: {twice:?}");
        assert_eq!(state["snapshots"][snapshot]["own_blocks"], put.len(), "{method}");
    }
}

/// A bake reads a part of what it stored back: bytes that are not those that it put, with a checksum of theirs or without.
#[test]
fn a_block_that_the_store_damaged_is_found_and_nothing_is_left() {
    let Some(yard) = Yard::small() else { return };
    for method in METHODS {
        for (damages, told) in
            [("checksum", "is not what was stored"), ("data", "does not have the checksum that it came with")]
        {
            let account = Account::new(&yard);
            account.cloud.settings(json!({ "damages": damages }));
            let said = account.bake(method, "").code(3);
            let after = format!("{method}, {damages} damaged");
            assert!(
                said.err.contains(told) && said.err.contains("nothing was left"),
                "{after}: {}",
                said.err
            );
            account.assert_ended(&said, &after);
            assert!(!account.cloud.operations().contains(&"ec2:RegisterImage".to_owned()), "{after}");
        }
    }
}

/// The first answer for each block has another last byte: it is asked for once more, and what was baked is sound.
#[test]
fn a_block_that_is_damaged_on_its_way_is_asked_for_again() {
    let Some(yard) = Yard::small() else { return };
    let account = Account::new(&yard);
    account.cloud.settings(json!({ "damages": "answer" }));
    let said = account.bake("direct", "").ok();
    account.assert_ended(&said, "damaged answers");
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for exchange in account.cloud.exchanges() {
        if exchange["operation"] == "GetSnapshotBlock" {
            let (of, index) = (&exchange["parameters"]["SnapshotId"], &exchange["parameters"]["BlockIndex"]);
            *answers.entry(format!("{of} {index}")).or_default() += 1;
        }
    }
    assert!(answers.len() > 1 && answers.values().all(|times| *times == 2), "{answers:?}");
}
