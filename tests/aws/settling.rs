//! EC2 settles: what is gone may show, and hold what it had, for a while.

use std::path::Path;

use serde_json::json;

use super::StandIn;
use crate::yard::{Said, Yard};

/// An image that has expired is deregistered by a sweep, and its snapshot, which it seems to use still, goes with it.
#[test]
fn a_snapshot_whose_image_was_swept_a_moment_ago_goes_in_the_same_sweep() {
    let (yard, cloud) = (Yard::new(), StandIn::start());
    let disk = yard.path().join("disk.raw");
    std::fs::write(&disk, "disk").unwrap();
    let expires = json!({ "bakehouse:expires": "2020-01-01T00:00:00Z" });
    let seed = |name: &str, tags: &serde_json::Value| {
        let image = json!({ "name": name, "disk": Path::new(&disk), "tags": tags, "snapshot_tags": expires });
        cloud.seed_image(cloud.account(), image)
    };
    let (image, snapshot) = seed("temporary", &expires);
    let (kept, used) = seed("kept", &json!({}));
    cloud.settings(json!({ "deregistered_seconds": 1 }));
    let said: Said = cloud.program(&yard).arg("sweep").output().unwrap().into();
    let said = said.ok();
    assert!(said.out.contains(&image) && said.out.contains(&snapshot), "{}", said.out);
    let state = cloud.state();
    let ids = |kind: &str| state[kind].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((ids("images"), ids("snapshots")), (vec![kept], vec![used]));
    cloud.finish();
}
