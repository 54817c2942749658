//! Instances, commands, images of instances and objects by our own SDK against the stand-in's machines, which really run.

use std::time::Duration;

use bakehouse::cloud::{
    BuildInstance, Cloud, CommandId, CommandState, ErrorKind, Execution, ImageId, ImageQuery, ImageState,
    InstanceId, InstanceState, NewCommand, NewImageOf, NewInstance, ObjectContent, OutputTo, REBOOT,
    SubnetQuery, Tags, Token,
};
use bytes::Bytes;
use serde_json::json;

use super::StandIn;
use crate::acceptance::qemu::{TOOLS, WORDS, boot_sector};
use crate::conformance::aws_cloud;
use crate::gate;
use crate::yard::Yard;

const PROFILE: &str = "baker";
/// What the stand-in needs to run commands in a disk's root.
const NEEDED: [&str; 5] = ["losetup", "sfdisk", "blkid", "nsenter", "setpriv"];

fn tags(value: &str) -> Tags {
    Tags::from([("bakehouse:bake".to_owned(), value.to_owned())])
}

fn new(image: &ImageId) -> NewInstance {
    NewInstance {
        image: image.clone(),
        kind: Some("t3.small".to_owned()),
        user_data: b"#!/bin/sh\n: amazon-ssm-agent\n".to_vec(),
        boot_mode: None,
        root_size: None,
        lifetime_seconds: 600,
        build: None,
        tags: tags("instance"),
    }
}

fn to_build(image: &ImageId) -> NewInstance {
    let build = BuildInstance { profile: Some(PROFILE.to_owned()), ..BuildInstance::default() };
    NewInstance { build: Some(build), ..new(image) }
}

async fn until_state(cloud: &Cloud, id: &InstanceId, wanted: InstanceState) -> Option<String> {
    // More than a machine that is busy needs; a hang ends here and says so.
    for _ in 0..1200 {
        let found = cloud.instances.describe(id).await.unwrap();
        if found.state == wanted {
            return found.reason;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{id} never became {wanted:?}");
}

async fn until_ready(cloud: &Cloud, id: &InstanceId) {
    for _ in 0..600 {
        if cloud.commands.ready(id).await.unwrap() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no command reaches {id}");
}

async fn send(cloud: &Cloud, id: &InstanceId, script: &str, output: Option<OutputTo>) -> CommandId {
    let new = NewCommand { script: script.to_owned(), within: Duration::from_secs(60), output };
    cloud.commands.send(id, &new).await.unwrap()
}

async fn ended(cloud: &Cloud, id: &InstanceId, command: &CommandId) -> Execution {
    for _ in 0..1200 {
        match cloud.commands.poll(id, command).await {
            Ok(Execution { state: CommandState::Pending | CommandState::Running, .. }) => {}
            Ok(execution) => return execution,
            Err(error) => assert_eq!(error.kind, ErrorKind::NotYet, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{command:?} never ended");
}

async fn run(cloud: &Cloud, id: &InstanceId, script: &str) -> Execution {
    let command = send(cloud, id, script, None).await;
    ended(cloud, id, &command).await
}

/// An image of the smallest root that runs a shell; `None` where this machine cannot enter it.
fn small_root(stand_in: &StandIn) -> Option<ImageId> {
    if !gate::has_root(&NEEDED) {
        return None;
    }
    let yard = Yard::small()?;
    // The yard is this thread's own; the stand-in sees what lies outside.
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.raw");
    std::fs::copy(yard.path().join("scratch/disk.raw"), &disk).unwrap();
    stand_in.seed(json!({ "instance_profile": PROFILE }));
    let image = json!({ "name": "small", "disk": disk, "holes": true });
    ImageId::parse(&stand_in.seed_image(stand_in.account(), image).0)
}

#[tokio::test]
async fn a_guest_of_ec2_lives_speaks_and_ends() {
    if !gate::has(&TOOLS) {
        return;
    }
    let (stand_in, cloud) = aws_cloud().await;
    stand_in.settings(json!({ "machines": "qemu", "noise_mebibytes": 1 }));
    let folder = tempfile::tempdir().unwrap();
    for (power_off, end) in [(false, None), (true, Some(InstanceState::Terminated))] {
        let disk = folder.path().join("disk.raw");
        std::fs::write(&disk, boot_sector(power_off)).unwrap();
        let image = json!({ "name": format!("sector-{power_off}"), "disk": disk });
        let image = ImageId::parse(&stand_in.seed_image(stand_in.account(), image).0).unwrap();
        let token = Token::of("test", &format!("{power_off}"), 1);
        let id = cloud.instances.launch(&new(&image), &token).await.unwrap();
        assert_eq!(cloud.instances.launch(&new(&image), &token).await.unwrap(), id);
        let mut text = Vec::new();
        for _ in 0..1200 {
            text = cloud.instances.console(&id).await.unwrap();
            if text.windows(WORDS.len()).any(|window| window == WORDS.as_bytes()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(String::from_utf8_lossy(&text).contains(WORDS), "{text:?}");
        if let Some(end) = end {
            let reason = until_state(&cloud, &id, end).await.unwrap_or_default();
            assert!(reason.contains("nstance initiated"), "{reason}");
        }
        cloud.instances.terminate(&id).await.unwrap();
        until_state(&cloud, &id, InstanceState::Terminated).await;
    }
    let state = stand_in.state();
    assert_eq!((&state["volumes"], &state["interfaces"]), (&json!({}), &json!({})));
    stand_in.finish();
}

#[tokio::test]
async fn commands_run_in_an_instance_and_its_image_has_what_they_did() {
    let (stand_in, cloud) = aws_cloud().await;
    let Some(image) = small_root(&stand_in) else {
        return;
    };
    let id = cloud.instances.launch(&to_build(&image), &Token::of("test", "build", 1)).await.unwrap();
    until_state(&cloud, &id, InstanceState::Running).await;
    until_ready(&cloud, &id).await;

    let told = run(&cloud, &id, "cat /etc/os-release\necho oops >&2\nexit 3").await;
    assert_eq!(told.state, CommandState::Ended(3));
    assert_eq!((told.output.as_str(), told.cut), ("ID=small\nVERSION_ID=1\n", false));
    assert!(told.errors.starts_with("oops\n"), "{told:?}");

    // Run again after the reboot, of which /run knows nothing any more.
    let script = format!(
        "test -e /srv/once && exit 0\ntest -e /run/before && exit 1\n: >/run/before\n: >/srv/once\nexit {REBOOT}"
    );
    assert_eq!(run(&cloud, &id, &script).await.state, CommandState::Ended(0));

    let bucket = format!("output-{}", stand_in.account());
    stand_in.seed(json!({ "bucket": bucket }));
    let output = OutputTo { bucket: bucket.clone(), prefix: "bakehouse/test".to_owned() };
    let command = send(&cloud, &id, "yes 0123456789 | head -c 30000", Some(output)).await;
    let told = ended(&cloud, &id, &command).await;
    assert!(told.cut);
    let whole = cloud.objects.get(&bucket, &told.object.unwrap()).await.unwrap();
    assert_eq!(whole.len(), 30_000);

    let command = send(&cloud, &id, "sleep 600", None).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    cloud.commands.cancel(&id, &command).await.unwrap();
    assert_eq!(ended(&cloud, &id, &command).await.state, CommandState::Cancelled);

    cloud.instances.stop(&id).await.unwrap();
    until_state(&cloud, &id, InstanceState::Stopped).await;
    cloud.instances.stop(&id).await.unwrap();
    assert!(!cloud.commands.ready(&id).await.unwrap());
    let of = NewImageOf {
        name: "baked".to_owned(),
        description: "of an instance".to_owned(),
        image_tags: tags("image"),
        snapshot_tags: tags("snapshot"),
    };
    stand_in.settings(json!({ "create_image_failure": "Client.InternalError: it is full" }));
    let failed = cloud.images.create(&id, &of).await.unwrap();
    let failed = settled(&cloud, &failed).await;
    assert_eq!(failed.0, ImageState::Failed);
    assert!(failed.1.unwrap().contains("it is full"));
    stand_in.settings(json!({ "create_image_failure": null }));
    let error = cloud.images.create(&id, &of).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exists);
    let of = NewImageOf { name: "baked again".to_owned(), ..of };
    let made = cloud.images.create(&id, &of).await.unwrap();
    assert_eq!(settled(&cloud, &made).await.0, ImageState::Available);
    let state = stand_in.state();
    let told = &state["images"][made.as_str()];
    assert_eq!(told["tags"]["bakehouse:bake"], "image");
    let snapshot = told["snapshots"][0].as_str().unwrap();
    assert_eq!(state["snapshots"][snapshot]["tags"]["bakehouse:bake"], "snapshot");
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.raw");
    stand_in.write_disk(snapshot, &disk);
    let look =
        std::process::Command::new("debugfs").args(["-R", "stat /srv/once"]).arg(&disk).output().unwrap();
    assert!(String::from_utf8_lossy(&look.stdout).contains("Type: regular"), "{look:?}");
    cloud.instances.terminate(&id).await.unwrap();
    until_state(&cloud, &id, InstanceState::Terminated).await;
    assert!(!cloud.commands.ready(&id).await.unwrap());
    stand_in.finish();
}

async fn settled(cloud: &Cloud, id: &ImageId) -> (ImageState, Option<String>) {
    for _ in 0..600 {
        let query = ImageQuery { ids: vec![id.clone()], ..ImageQuery::default() };
        let found = cloud.images.find(&query).await.unwrap().remove(0);
        if found.state != ImageState::Pending {
            return (found.state, found.state_reason);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{id} is pending for ever");
}

#[tokio::test]
async fn what_cannot_be_launched_is_told_by_its_kind() {
    let (mut stand_in, cloud) = aws_cloud().await;
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.raw");
    std::fs::write(&disk, boot_sector(true)).unwrap();
    let (image, _) = stand_in.seed_image(stand_in.account(), json!({ "name": "sector", "disk": disk }));
    let image = ImageId::parse(&image).unwrap();
    stand_in.settings(json!({ "no_capacity": ["t3.small"], "no_quota": ["t3.large"] }));
    let mut number = 0;
    let mut refused = async |new: NewInstance| {
        number += 1;
        cloud.instances.launch(&new, &Token::of("test", "refused", number)).await.unwrap_err()
    };
    assert_eq!(refused(new(&image)).await.code.as_deref(), Some("InsufficientInstanceCapacity"));
    let large = NewInstance { kind: Some("t3.large".to_owned()), ..new(&image) };
    assert_eq!(refused(large).await.kind, ErrorKind::Quota);
    let arm = NewInstance { kind: Some("m6g.large".to_owned()), ..new(&image) };
    assert_eq!(refused(arm).await.kind, ErrorKind::Invalid);
    // No such profile.
    assert_eq!(refused(NewInstance { kind: None, ..to_build(&image) }).await.kind, ErrorKind::Invalid);
    let missing = NewInstance { image: ImageId::parse("ami-0123456789abcdef0").unwrap(), ..new(&image) };
    assert_eq!(refused(missing).await.kind, ErrorKind::NotFound);
    assert_eq!(stand_in.state()["instances"], json!({}));
    assert!(stand_in.expect_findings().is_empty());
}

#[tokio::test]
async fn objects_are_kept_and_subnets_found() {
    let (stand_in, cloud) = aws_cloud().await;
    let bucket = format!("objects-{}", stand_in.account());
    let error = cloud.objects.get(&bucket, "a/b").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    stand_in.seed(json!({ "bucket": bucket }));
    let content = Bytes::from(vec![7u8; 300_000]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, &content).unwrap();
    for made in [ObjectContent::Bytes(content.clone()), ObjectContent::File(file)] {
        cloud.objects.put(&bucket, "a/b", &made, &tags("object")).await.unwrap();
        assert_eq!(cloud.objects.get(&bucket, "a/b").await.unwrap(), content);
    }
    let kept = cloud.objects.list(&bucket, "a").await.unwrap();
    assert_eq!(kept.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["a/b"]);
    assert!(cloud.objects.list(&bucket, "b").await.unwrap().is_empty());
    let link = cloud.objects.link(&bucket, "a/b", Duration::from_secs(60)).await.unwrap();
    let fetched = fetched_from(&link);
    assert_eq!(fetched.len(), content.len());
    cloud.objects.delete(&bucket, &kept[0]).await.unwrap();
    cloud.objects.delete(&bucket, &kept[0]).await.unwrap();
    assert!(cloud.objects.list(&bucket, "a").await.unwrap().is_empty());

    let subnets = cloud.networks.subnets(&SubnetQuery::Default).await.unwrap();
    assert!(!subnets.is_empty() && subnets.iter().all(|subnet| subnet.free > 0), "{subnets:?}");
    assert!(cloud.networks.subnets(&SubnetQuery::Tagged(tags("none"))).await.unwrap().is_empty());
    stand_in.finish();
}

fn fetched_from(link: &str) -> Vec<u8> {
    let fetched = std::process::Command::new("curl").args(["--silent", "--fail", link]).output().unwrap();
    assert!(fetched.status.success(), "{fetched:?}");
    fetched.stdout
}
