//! A base of another account, which is entered by the role that the recipe names.

use std::path::Path;

use serde_json::json;

use super::StandIn;
use super::policy::Judge;
use crate::yard::Yard;
use crate::yard::small::recipe;

#[test]
fn a_base_of_another_account_is_found_by_its_role_and_baked_here() {
    let Some(yard) = Yard::small() else { return };
    let cloud = StandIn::start();
    let other = cloud.other_account(1);
    // On disk: what a yard has in memory is seen by its own thread alone, and the stand-in is everybody's.
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small/scratch/disk.raw");
    let (base, _) = cloud.seed_image(
        &other,
        json!({
            "name": "os-1", "disk": disk, "holes": true,
            "shared_with": [cloud.account()], "snapshot_shared_with": [cloud.account()],
            "tags": { "bakehouse:family": "os", "bakehouse:architecture": "x86_64" },
        }),
    );
    let before = cloud.state_of(&other);
    let of = |accounts: &str| {
        let rest = format!("{accounts}provision:\n  - shell: {{ run: 'echo made >/etc/made' }}\n");
        recipe("web", &format!("{{ family: os, account: '{other}' }}"), &rest)
    };

    // Without a role nothing is asked there.
    yard.recipe("web", &of(""));
    let said: crate::yard::Said = cloud.program(&yard).args(["bake", "web"]).output().unwrap().into();
    let said = said.code(5);
    assert!(said.err.contains("there is no role for") && said.err.contains("accounts:"), "{}", said.err);
    assert!(!cloud.operations().contains(&"sts:AssumeRole".to_owned()));

    // STS may be away for a moment: no answer, an error of its own, and too many calls.
    let away = |kind: &str, nth: u32| json!({ "kind": kind, "service": "sts", "operation": "AssumeRole", "nth": nth });
    cloud.faults(json!([away("drop", 1), away("error", 2), away("throttle", 3)]));
    yard.recipe("web", &of(&format!("accounts: [{{ id: '{other}', role: Bakery, external-id: team-7 }}]\n")));
    let judge = Judge::new(&yard, &cloud, &["web", "--for", "bake"]);
    let said: crate::yard::Said = cloud.program(&yard).args(["bake", "web"]).output().unwrap().into();
    said.ok();
    let needless = judge.allowed();
    assert!(!needless.iter().any(|one| one.starts_with("TakeRoles")), "{needless:#?}");
    let record = yard.record("web");
    assert_eq!(record["lineage"][0], json!(base));
    assert_eq!(record["images"][0]["place"]["account"], json!(cloud.account()), "{record:#}");
    assert_eq!(cloud.state_of(&other), before);

    let exchanges = cloud.exchanges();
    let asked = exchanges.iter().filter(|one| one["operation"] == "AssumeRole");
    let (taken, away): (Vec<_>, Vec<_>) = asked.partition(|one| one["fault"].is_null());
    // Once: the credentials are good for an hour.
    assert_eq!((taken.len(), away.len()), (1, 3), "{taken:?}, {away:?}");
    let asked = &taken[0]["parameters"];
    assert_eq!(asked["RoleArn"], json!(format!("arn:aws:iam::{other}:role/Bakery")));
    assert_eq!((&asked["ExternalId"], &asked["RoleSessionName"]), (&json!("team-7"), &json!("bakehouse")));
    cloud.finish();
}

/// A session of a role ends, and whoever is in the middle of a bake has the next one by then.
#[test]
fn a_role_is_taken_again_before_its_session_ends() {
    let Some(yard) = Yard::small() else { return };
    let cloud = StandIn::start();
    let other = cloud.other_account(1);
    // The SDK has new credentials five to ten seconds before the old ones end: here for every call. One of them takes
    // longer than a session, and what was had before it is of no use after it.
    cloud.settings(json!({ "session_seconds": 5 }));
    cloud.faults(json!([{ "kind": "latency", "operation": "StartSnapshot", "times": 1, "seconds": 5.5 }]));
    let mut command = cloud.program(&yard);
    command.args(["bake", "scratch", "--account", &other, "--role", "Bakery"]);
    let said: crate::yard::Said = command.output().unwrap().into();
    let image = said.ok().out.trim().to_owned();
    assert_eq!(cloud.state_of(&other)["images"][&image]["state"], "available");
    let exchanges = cloud.exchanges();
    let late = exchanges.iter().position(|one| one["operation"] == "StartSnapshot").unwrap();
    let taken = |calls: &[serde_json::Value]| calls.iter().any(|one| one["operation"] == "AssumeRole");
    assert!(taken(&exchanges[..late]) && taken(&exchanges[late..]));
    let refused: Vec<_> = exchanges.iter().filter(|one| !one["error"].is_null()).collect();
    assert!(refused.is_empty(), "{refused:?}");
    cloud.finish();
}
