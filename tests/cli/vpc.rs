//! `bakehouse vpc` where there is nothing to be made.

use serde_json::Value;

use super::{RECIPE, Yard};

const SUBNET: &str = "subnet-00000000000000000";

#[test]
fn the_local_clouds_network_is_always_there() {
    let yard = Yard::new();
    yard.recipe("web", RECIPE);
    for word in ["create", "delete"] {
        let said = yard.run(&["vpc", word, "web", "--dry-run"]).ok();
        assert!(said.out.is_empty() && said.err.contains("always there"), "{}", said.err);
        assert!(!yard.out("web").exists());
    }
    let said = yard.run(&["vpc", "create", "web"]).ok();
    assert_eq!(said.out.trim(), SUBNET);
    assert!(said.err.contains("always there: nothing was made"), "{}", said.err);
    let made: Value =
        serde_json::from_slice(&std::fs::read(yard.out("web").join("vpc.json")).unwrap()).unwrap();
    assert_eq!((&made["name"], &made["subnet"], &made["vpc"]), (&"web".into(), &SUBNET.into(), &Value::Null));
    let environment = std::fs::read_to_string(yard.out("web").join("vpc.env")).unwrap();
    assert_eq!(environment, format!("export SUBNET_ID='{SUBNET}'\n"));
    let said = yard.run(&["vpc", "delete", "web"]).ok();
    assert!(said.out.is_empty() && said.err.contains("nothing was taken away"), "{}", said.err);
    assert!(!yard.out("web").join("vpc.json").exists());
    yard.assert_nothing_left();
}

#[test]
fn a_name_or_a_recipe_is_needed_and_both_are_looked_at() {
    let yard = Yard::new();
    for (args, part) in [
        (&["vpc", "create", "nowhere"][..], "nowhere"),
        (&["vpc", "delete"], "bake.yml"),
        (&["vpc", "create", "--name", "a b"], "no name of a VPC"),
        (&["vpc", "create", "--name", "web", "--cidr", "10.0.0.0/8"], "/16 to /28"),
        (&["vpc", "create", "--name", "web", "--expires-after", "soon"], "not a length of time"),
    ] {
        let said = yard.run(args).code(2);
        assert!(said.err.contains(part) && said.out.is_empty(), "{args:?}: {}", said.err);
    }
    assert_eq!(yard.run(&["vpc", "create", "--name", "web"]).ok().out.trim(), SUBNET);
}
