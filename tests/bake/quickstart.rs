//! The README's main job.

use std::fs;
use std::io::{BufRead, BufReader};

use crate::yard::{Yard, machine, repository};

/// Two layers: the second holds only its changed blocks, boots, and serves its page. The test is killed while it waits
/// for the boot; the same command goes on with the same instance.
#[test]
fn two_layers_are_baked_checked_and_booted() {
    let Some(yard) = Yard::shared() else { return };
    let web = repository().join("examples/quickstart/web");
    copy(&web, &yard.path().join("web"));
    let said = yard.bake("web", &[]).ok();
    let record = yard.record("web");
    let image = record["images"][0]["image"].as_str().unwrap();
    assert_eq!(said.out.trim(), image);
    assert_eq!(record["method"], "direct");
    let base = yard.record("os-base");
    assert_eq!(record["lineage"][0], base["images"][0]["image"]);
    let (changed, blocks) =
        (record["disk"]["changed-blocks"].as_u64().unwrap(), record["disk"]["blocks"].as_u64().unwrap());
    assert!(changed > 0 && changed < blocks / 4, "{changed} of {blocks}");
    assert!(record["packages"].as_array().unwrap().iter().any(|package| package["name"] == "nginx"));
    let system = serde_json::json!({ "distribution": "debian", "release": "12", "packages": "deb" });
    assert_eq!(record["system"], system);
    for beside in ["blocks.map", "bakehouse.env", "events.jsonl", "sbom.cdx.json"] {
        assert!(yard.out("web").join(beside).exists(), "{beside}");
    }

    // Nothing changed: nothing is baked, and the record is the answer.
    assert_eq!(yard.bake("web", &[]).ok().out.trim(), image);
    assert_eq!(yard.record("web"), record);

    let list = yard.run(&["images"]).ok().out;
    let line = list.lines().find(|line| line.contains(image)).unwrap();
    assert!(line.ends_with(base["name"].as_str().unwrap()), "{list}");

    let boot = machine();
    let mut killed = yard.start(&["test", "web"]);
    let mut lines = BufReader::new(killed.stderr.take().unwrap()).lines().map_while(Result::ok);
    let booting = lines.find_map(|line| Some(line.trim().split_once(" is booting")?.0.to_owned())).unwrap();
    let token = yard.out("web").join("test.token");
    while !token.exists() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let said = yard.run(&["test", "web"]).ok();
    drop(boot);
    assert!(said.err.contains("going on with the test") && said.err.contains(&booting), "{}", said.err);
    assert!(!token.exists());
    assert!(!said.out.contains("not judged"), "{}", said.out);
    let junit = fs::read_to_string(yard.out("web").join("junit.xml")).unwrap();
    assert!(junit.contains("<testcase") && !junit.contains("<failure"), "{junit}");
    assert_eq!(yard.record("web")["test"]["failed"], 0);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if name == "bakehouse-out" {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}
