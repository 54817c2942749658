//! A base of another account, which is entered by the role that the recipe names.

use std::path::Path;

use serde_json::json;

use super::StandIn;
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

    yard.recipe("web", &of(&format!("accounts: [{{ id: '{other}', role: Bakery, external-id: team-7 }}]\n")));
    let said: crate::yard::Said = cloud.program(&yard).args(["bake", "web"]).output().unwrap().into();
    said.ok();
    let record = yard.record("web");
    assert_eq!(record["lineage"][0], json!(base));
    assert_eq!(record["images"][0]["place"]["account"], json!(cloud.account()), "{record:#}");
    assert_eq!(cloud.state_of(&other), before);

    let exchanges = cloud.exchanges();
    let taken: Vec<_> = exchanges.iter().filter(|one| one["operation"] == "AssumeRole").collect();
    // Once: the credentials are good for an hour.
    assert_eq!(taken.len(), 1, "{taken:?}");
    let asked = &taken[0]["parameters"];
    assert_eq!(asked["RoleArn"], json!(format!("arn:aws:iam::{other}:role/Bakery")));
    assert_eq!((&asked["ExternalId"], &asked["RoleSessionName"]), (&json!("team-7"), &json!("bakehouse")));
    cloud.finish();
}
