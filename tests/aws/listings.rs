//! Listings of an account that has much.

use serde_json::{Value, json};

use super::StandIn;
use crate::yard::small::recipe;
use crate::yard::{Said, Yard};

/// An account with so many images, of which a page has two.
fn crowded(cloud: &StandIn, yard: &Yard, images: usize) {
    let disk = yard.path().join("disk.raw");
    std::fs::write(&disk, "disk").unwrap();
    let expires = json!({ "bakehouse:expires": "2999-01-01T00:00:00Z" });
    for number in 0..images {
        let image = json!({ "name": format!("web-{number}"), "disk": disk, "snapshot_tags": expires });
        cloud.seed_image(cloud.account(), image);
    }
    cloud.settings(json!({ "page_resources": 2 }));
}

fn run(cloud: &StandIn, yard: &Yard, args: &[&str]) -> Said {
    cloud.program(yard).args(args).output().unwrap().into()
}

/// A page that is refused is asked for again, and not all the pages before it.
#[test]
fn a_listing_goes_on_where_it_was_refused() {
    let (yard, cloud) = (Yard::new(), StandIn::start());
    crowded(&cloud, &yard, 7);
    let fault =
        |operation: &str, kind: &str, nth: u32| json!({ "operation": operation, "kind": kind, "nth": nth });
    cloud.faults(json!([
        fault("DescribeImages", "throttle", 1),
        fault("DescribeImages", "throttle", 4),
        fault("DescribeImages", "drop", 5),
        fault("DescribeSnapshots", "error", 3),
    ]));
    run(&cloud, &yard, &["sweep", "--dry-run"]).ok();
    let operations = cloud.operations();
    let calls = |name: &str| operations.iter().filter(|call| *call == name).count();
    // Four pages of each, and what was refused.
    assert_eq!(
        (calls("ec2:DescribeImages"), calls("ec2:DescribeSnapshots")),
        (4 + 3, 4 + 1),
        "{operations:?}"
    );
    let images = run(&cloud, &yard, &["images", "--json"]).ok();
    let images: Value = serde_json::from_str(&images.out).unwrap();
    assert_eq!(images.as_array().unwrap().len(), 7);
    cloud.finish();
}

/// A plan asks for the names that it needs. All images and snapshots are listed once, to be counted against their quotas.
#[test]
fn a_plan_looks_for_names_and_lists_all_only_where_it_counts() {
    let (Some(yard), cloud) = (Yard::small(), StandIn::start()) else { return };
    crowded(&cloud, &yard, 7);
    let vendor = json!({ "name": "vendor", "disk": yard.path().join("disk.raw"), "public": true, "snapshot_public": true });
    let (base, _) = cloud.seed_image(&cloud.other_account(1), vendor);
    yard.recipe("web", &recipe("web", &format!("{{ image: {base} }}"), "image: { name: web-3 }\n"));
    let plan = run(&cloud, &yard, &["plan", "web"]).ok();
    assert!(plan.out.contains("an image called web-3 exists"), "{}", plan.out);
    let exchanges = cloud.exchanges();
    let whole = |operation: &str| {
        let all = exchanges.iter().filter(|one| one["operation"] == operation);
        let wide = |one: &&Value| {
            let asked = &one["parameters"];
            asked["Filters"].is_null() && asked["ImageIds"].is_null() && asked["SnapshotIds"].is_null()
        };
        all.filter(wide).count()
    };
    assert_eq!((whole("DescribeImages"), whole("DescribeSnapshots")), (4, 4));
    cloud.finish();
}
