//! The method chroot against the stand-in: by EC2's calls alone, on a machine that is an instance of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::aws::{Host, StandIn};
use crate::yard::small::recipe;
use crate::yard::{Said, Yard};

const STEPS: &str =
    "method: chroot\nprovision:\n  - shell: { run: 'mkdir -p /etc/made; echo made >/etc/made/by' }\n";

/// A yard, and a recipe whose base is an image of the account's own.
fn yard(cloud: &StandIn) -> Option<Yard> {
    let yard = Yard::small()?;
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small/scratch/disk.raw");
    let own = json!({
        "name": "own", "disk": disk, "holes": true, "size": 1, "uefi_data": "AAAA", "fields": { "BootMode": "uefi" },
        "tags": { "team": "base" },
    });
    let (base, _) = cloud.seed_image(cloud.account(), own);
    yard.recipe("web", &recipe("web", &format!("{{ image: {base} }}"), STEPS));
    Some(yard)
}

/// The account holds this image with its snapshot, or none, beside the base; and no volume.
#[track_caller]
fn assert_holds(cloud: &StandIn, host: &Host<'_>, image: Option<&str>, after: &str) {
    let state = cloud.state();
    let ids = |kind: &str| state[kind].as_object().unwrap().keys().cloned().collect::<Vec<String>>();
    let baked: Vec<String> =
        ids("images").into_iter().filter(|id| state["images"][id]["name"] != "own").collect();
    assert_eq!(baked.iter().map(String::as_str).collect::<Vec<_>>(), Vec::from_iter(image), "{after}");
    assert_eq!(ids("snapshots").len(), 1 + baked.len(), "{after}: {}", state["snapshots"]);
    assert_eq!(host.volumes(), Vec::<String>::new(), "{after}");
    assert_eq!(ids("instances"), std::slice::from_ref(&host.instance), "{after}");
}

#[test]
fn an_image_is_baked_by_a_volume_of_this_instance() {
    let cloud = StandIn::start();
    let Some(yard) = yard(&cloud) else { return };
    let host = Host::new(&yard, &cloud);
    let planned = host.run(&["plan", "web"]).ok();
    assert!(planned.out.contains("chroot: the recipe asks for it"), "{}", planned.out);
    let said = host.run(&["bake", "web"]).ok();
    let image = said.out.trim();
    assert!(said.err.contains("/dev/nvme1n1"), "{}", said.err);
    assert_holds(&cloud, &host, Some(image), &said.err);
    yard.assert_nothing_left();
    let called = cloud.operations();
    let puts = ["ebs:StartSnapshot", "ebs:PutSnapshotBlock", "ebs:CompleteSnapshot"];
    assert!(!called.iter().any(|call| puts.contains(&call.as_str())), "{called:?}");
    let all = cloud.exchanges();
    let asked = |operation: &str| {
        let of_it = all.iter().find(|one| one["operation"] == operation).unwrap();
        of_it["parameters"].clone()
    };
    let attached = asked("AttachVolume");
    assert_eq!((&attached["InstanceId"], &attached["Device"]), (&json!(host.instance), &json!("/dev/sdf")));
    let made = asked("CreateVolume");
    assert_eq!((&made["AvailabilityZone"], &made["Size"]), (&json!(host.zone), &json!(1)));
    for (operation, kind) in [("CreateVolume", "volume"), ("CreateSnapshot", "snapshot")] {
        let tags = &asked(operation)["TagSpecifications"][0];
        assert!(tags["ResourceType"] == kind && tags.to_string().contains("bakehouse:expires"), "{tags}");
    }
    // As the base has it, in what is registered too.
    let registered: Value = cloud.state()["images"][image].clone();
    assert_eq!(registered["uefi_data"], "AAAA");
    assert_eq!(registered["described"]["BootMode"], "uefi");
    let snapshot = yard.record("web")["images"][0]["snapshot"].as_str().unwrap().to_owned();
    let held = &cloud.state()["snapshots"][&snapshot];
    assert!(held["own_blocks"].as_u64().unwrap() < 60, "a child has what was written: {held}");
    let disk = yard.path().join("volume.raw");
    cloud.write_disk(&snapshot, &disk);
    let cat = Command::new("debugfs").args(["-R", "cat /etc/made/by"]).arg(&disk).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&cat.stdout), "made\n");
    assert!(Command::new("e2fsck").args(["-f", "-n"]).arg(&disk).output().unwrap().status.success());
    fs::remove_file(disk).unwrap();
    cloud.finish();
}

/// What a kill leaves is a volume that is attached; the next sweep on this machine takes all of it away.
#[test]
fn what_a_kill_leaves_attached_is_detached_and_deleted() {
    for call in
        ["CreateVolume#1:after", "AttachVolume#1:after", "CreateSnapshot#1:after", "RegisterImage#1:after"]
    {
        let cloud = StandIn::start();
        let Some(yard) = yard(&cloud) else { return };
        let host = Host::new(&yard, &cloud);
        let killed = host.faulty(&format!("call:{call}:kill"), &["bake", "web"]).code(-1);
        assert_eq!(host.volumes().len(), 1, "{call}: {}", killed.err);
        let swept = host.run(&["sweep"]).ok();
        let state = cloud.state();
        let baked = state["images"].as_object().unwrap().iter().find(|(_, image)| image["name"] != "own");
        let baked = baked.map(|(id, _)| id.as_str());
        assert_eq!(baked.is_some(), call.starts_with("RegisterImage"), "{call}");
        assert_holds(&cloud, &host, baked, &format!("{call}: {}", swept.err));
        yard.assert_nothing_left();
        cloud.finish();
    }
}

/// From another machine, by its tags, when it has expired.
#[test]
fn a_volume_that_expired_is_swept_from_anywhere() {
    let cloud = StandIn::start();
    let Some(yard) = yard(&cloud) else { return };
    let host = Host::new(&yard, &cloud);
    host.faulty("call:AttachVolume#1:after:kill", &["bake", "web"]).code(-1);
    fs::remove_dir_all(yard.work()).unwrap();
    let sweep = || -> Said { cloud.program(&yard).args(["sweep"]).output().unwrap().into() };
    sweep().ok();
    assert_eq!(host.volumes().len(), 1, "it has not expired");
    let volume = host.volumes().remove(0);
    let tags = cloud.state()["volumes"][&volume]["tags"].clone();
    assert_eq!(tags["bakehouse:volume"], "own");
    cloud.query(
        "ec2",
        &format!(
            "Action=CreateTags&Version=2016-11-15&ResourceId.1={volume}&Tag.1.Key=bakehouse%3Aexpires&\
             Tag.1.Value=2026-01-02T03%3A04%3A05Z"
        ),
    );
    sweep().ok();
    assert_holds(&cloud, &host, None, "swept");
    cloud.finish();
}

#[test]
fn on_no_instance_the_method_is_refused_and_the_error_says_what_to_do() {
    let cloud = StandIn::start();
    let Some(yard) = yard(&cloud) else { return };
    let mut command = cloud.program(&yard);
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1").args(["bake", "web"]);
    let said = Said::from(command.output().unwrap()).code(2);
    for part in ["no EC2 instance", "method: direct", "web/bake.yml:"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert!(!cloud.operations().iter().any(|call| call.contains("Create")));
    cloud.finish();
}
