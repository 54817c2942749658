//! `bakehouse snapshot`: disk files to snapshots and back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

#[cfg(feature = "aws")]
use crate::aws::StandIn;
use crate::yard::{Said, Yard};

const BLOCK: u64 = 524_288;
const SIZE: u64 = 20 * BLOCK + 4096;

/// A disk of 20 blocks and a bit, with data in some and holes in others.
fn disk(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(SIZE).unwrap();
    for block in [0, 1, 7, 20] {
        file.write_all_at(format!("block {block}").as_bytes(), block * BLOCK).unwrap();
    }
    // Written zeros are data to the file system, and zeros to everybody else.
    file.write_all_at(&[0; 4096], 5 * BLOCK).unwrap();
}

fn last_line(said: &Said) -> String {
    said.out.lines().last().unwrap().to_owned()
}

fn upload(yard: &Yard, args: &[&str]) -> String {
    let said = yard.command().args(["snapshot", "upload"]).args(args).output().unwrap();
    let id = last_line(&Said::from(said).ok());
    assert!(id.starts_with("snap-"), "{id}");
    id
}

fn download(yard: &Yard, id: &str, name: &str) -> Vec<u8> {
    let said = yard.run(&["snapshot", "download", id, name]).ok();
    assert_eq!(last_line(&said), yard.path().join(name).display().to_string());
    fs::read(yard.path().join(name)).unwrap()
}

fn put(yard: &Yard, args: &[&str]) -> (u64, u64, String) {
    let said = yard.command().args(["snapshot", "upload", "--json"]).args(args).output().unwrap();
    let json: serde_json::Value = serde_json::from_str(&Said::from(said).ok().out).unwrap();
    let number = |key: &str| json[key].as_u64().unwrap();
    (number("blocks-put"), number("blocks"), json["snapshot"].as_str().unwrap().to_owned())
}

#[test]
fn a_disk_goes_up_and_comes_down_as_it_was() {
    let yard = Yard::new();
    disk(&yard.path().join("disk.raw"));
    let id = upload(&yard, &["disk.raw", "--tag", "team=web", "--description", "by hand"]);
    let back = download(&yard, &id, "back.raw");
    let original = fs::read(yard.path().join("disk.raw")).unwrap();
    assert_eq!(back.len(), 1 << 30);
    assert!(back[..original.len()] == original[..]);
    assert!(back[original.len()..].iter().all(|byte| *byte == 0));
    let said = yard.run(&["snapshot", "download", &id, "back.raw"]).code(2);
    assert!(said.err.contains("exists already"), "{}", said.err);
    yard.assert_nothing_left();

    // The same disk as qcow2, and back as one.
    let convert = |from: &str, to: &str, args: &[&str]| {
        let mut command = Command::new("qemu-img");
        let done = command.arg("convert").args(args).args([from, to]).current_dir(yard.path()).status();
        assert!(done.unwrap().success());
    };
    convert("disk.raw", "disk.qcow2", &["-f", "raw", "-O", "qcow2"]);
    let id = upload(&yard, &["disk.qcow2"]);
    assert!(download(&yard, &id, "packed.qcow2").starts_with(b"QFI\xfb"));
    convert("packed.qcow2", "unpacked.raw", &["-f", "qcow2", "-O", "raw"]);
    assert!(fs::read(yard.path().join("unpacked.raw")).unwrap() == back);
    let names: Vec<_> = fs::read_dir(yard.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".bakehouse")), "{names:?}");
}

/// Every block is stored unless the user leaves out those of zeros, and of a child only what differs.
#[test]
fn what_is_stored_is_what_was_asked_for() {
    let yard = Yard::new();
    let path = yard.path().join("disk.raw");
    disk(&path);
    let (all, blocks, parent) = put(&yard, &["disk.raw"]);
    assert_eq!((all, blocks), (21, 21));
    let (some, _, sparse) = put(&yard, &["disk.raw", "--omit-zero-blocks"]);
    assert_eq!(some, 4);
    let warned = yard.run(&["snapshot", "upload", "disk.raw", "--omit-zero-blocks"]).ok();
    assert!(warned.err.contains("reads as noise"), "{}", warned.err);

    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"else", 7 * BLOCK).unwrap();
    file.write_all_at(&[0; 4096], BLOCK).unwrap();
    file.write_all_at(b"new", 9 * BLOCK).unwrap();
    let changed = fs::read(&path).unwrap();
    let (put_on_all, _, child) = put(&yard, &["disk.raw", "--parent", &parent]);
    assert_eq!(put_on_all, 3);
    // What the parent never had is no zeros: 17 of its blocks, and the three that changed less the one it never had.
    let (put_on_some, _, of_sparse) = put(&yard, &["disk.raw", "--parent", &sparse]);
    assert_eq!(put_on_some, 17 + 2);
    for (number, id) in [child, of_sparse].iter().enumerate() {
        let back = download(&yard, id, &format!("child-{number}.raw"));
        assert!(back[..changed.len()] == changed[..]);
    }
    // A disk that ends earlier than its parent has zeros there, in the last GiB too.
    file.set_len(3 * BLOCK).unwrap();
    let (shorter, _, id) = put(&yard, &["disk.raw", "--parent", &parent]);
    assert_eq!(shorter, 1 + 2);
    let back = download(&yard, &id, "shorter.raw");
    assert!(back[3 * usize::try_from(BLOCK).unwrap()..].iter().all(|byte| *byte == 0));
}

#[test]
fn wrong_input_is_refused_with_what_to_do() {
    let yard = Yard::new();
    disk(&yard.path().join("disk.raw"));
    fs::write(yard.path().join("empty.raw"), "").unwrap();
    File::create(yard.path().join("small.raw")).unwrap().set_len(BLOCK).unwrap();
    let nobody = "snap-0123456789abcdef0";
    let cases: [(&[&str], i32, &str); 8] = [
        (&["upload", "none.raw"], 2, "none.raw"),
        (&["upload", "disk.raw", "--parent", "disk"], 2, "snap-0123456789abcdef0"),
        (&["upload", "disk.raw", "--encrypt", "alias/bakery"], 2, "arn:aws:kms"),
        (&["upload", "disk.raw", "--tag", "team"], 2, "KEY=VALUE"),
        (&["upload", "disk.raw", "--tag", "bakehouse:expires=x"], 2, "not the user's"),
        (&["upload", "disk.raw", "--parent", nobody, "--omit-zero-blocks"], 2, "cannot be used with"),
        (&["upload", "empty.raw"], 3, "is empty"),
        (&["download", nobody, "disk2.raw"], 3, "no snapshot"),
    ];
    for (args, code, part) in cases {
        let said = Said::from(yard.command().arg("snapshot").args(args).output().unwrap()).code(code);
        assert!(said.err.contains(part), "{args:?}: {}", said.err);
    }
    assert!(yard.snapshots().is_empty() && !yard.path().join("disk2.raw").exists());
    let large = yard.path().join("large.raw");
    File::create(&large).unwrap().set_len((1 << 30) + BLOCK).unwrap();
    let (_, _, parent) = put(&yard, &["large.raw", "--omit-zero-blocks"]);
    let said = yard.run(&["snapshot", "upload", "small.raw", "--parent", &parent]).code(3);
    assert!(said.err.contains("truncate -s 2G"), "{}", said.err);
    yard.assert_nothing_left();
}

/// A failure leaves nothing and says so, wherever it comes; so does a kill, after a sweep.
#[test]
fn what_fails_or_is_killed_leaves_nothing() {
    let yard = Yard::new();
    disk(&yard.path().join("disk.raw"));
    let run = |fault: &str| {
        let mut command = yard.command();
        command.args(["snapshot", "upload", "disk.raw"]).env("BAKEHOUSE_FAULT", format!("call:{fault}"));
        Said::from(command.output().unwrap())
    };
    for call in ["StartSnapshot#1", "PutSnapshotBlock#9", "CompleteSnapshot#1"] {
        for moment in ["before", "after"] {
            let said = run(&format!("{call}:{moment}:denied")).code(5);
            assert!(said.err.contains("nothing was left behind"), "{}", said.err);
            assert!(said.out.is_empty() && yard.snapshots().is_empty());
            yard.assert_nothing_left();
            run(&format!("{call}:{moment}:kill")).code(-1);
            let swept = yard.run(&["sweep"]).ok();
            assert!(yard.snapshots().is_empty(), "{call}:{moment}: {}", swept.out);
            yard.assert_nothing_left();
        }
    }
    // A call that is throttled once, or whose answer is lost, is made again.
    for word in ["throttled", "transient"] {
        run(&format!("PutSnapshotBlock#9:after:{word}")).ok();
    }
}

/// The same in AWS, by the calls of EBS and DescribeSnapshots alone: a throttle is waited out, a failure leaves nothing.
#[cfg(feature = "aws")]
#[test]
fn a_disk_goes_to_aws_and_back_by_few_permissions() {
    let (yard, aws) = (Yard::new(), StandIn::start());
    disk(&yard.path().join("disk.raw"));
    let run = |args: &[&str]| {
        let mut command = yard.command();
        command.env_remove("BAKEHOUSE_LOCAL").envs(aws.environment()).arg("snapshot").args(args);
        Said::from(command.output().unwrap())
    };
    let held = || aws.state()["snapshots"].as_object().unwrap().len();

    let parent = last_line(&run(&["upload", "disk.raw", "--tag", "team=web"]).ok());
    File::options()
        .write(true)
        .open(yard.path().join("disk.raw"))
        .unwrap()
        .write_all_at(b"else", BLOCK)
        .unwrap();
    // Some reads are refused, and none fails.
    let throttle = serde_json::json!({
        "kind": "throttle", "service": "ebs", "operation": "GetSnapshotBlock", "nth": 3, "times": 5,
    });
    aws.faults(serde_json::json!([throttle]));
    let said = run(&["upload", "disk.raw", "--parent", &parent, "--json"]).ok();
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    // Of a child only what differs is put.
    assert_eq!(told["blocks-put"], 1);
    let child = told["snapshot"].as_str().unwrap();
    run(&["download", child, "back.raw"]).ok();
    assert_eq!(aws.told_faults()[0]["struck"], 5);
    let (back, original) = (fs::read(yard.path().join("back.raw")), fs::read(yard.path().join("disk.raw")));
    assert!(back.unwrap()[..usize::try_from(SIZE).unwrap()] == original.unwrap()[..]);
    assert_eq!(held(), 2);
    let operations = aws.operations();
    let few = |name: &String| {
        name.starts_with("ebs:") || name == "ec2:DescribeSnapshots" || name == "sts:GetCallerIdentity"
    };
    assert!(operations.iter().all(few), "{operations:?}");

    let denied = serde_json::json!({
        "kind": "error", "service": "ebs", "operation": "CompleteSnapshot", "status": 403, "code": "AccessDeniedException",
    });
    aws.faults(serde_json::json!([denied]));
    let before = held();
    let said = run(&["upload", "disk.raw"]).code(5);
    assert!(
        said.err.contains("ebs:CompleteSnapshot") && said.err.contains("nothing was left behind"),
        "{}",
        said.err
    );
    assert!(said.out.is_empty() && held() == before);
    yard.assert_nothing_left();
    aws.finish();
}

/// A key is named by its whole ARN; an alias, which StartSnapshot refuses, is told before anything is asked of AWS.
#[cfg(feature = "aws")]
#[test]
fn an_upload_is_encrypted_by_the_key_that_is_named() {
    let (yard, aws) = (Yard::new(), StandIn::start());
    disk(&yard.path().join("disk.raw"));
    let kms = |operation: &str, body: serde_json::Value| -> serde_json::Value {
        let asked = Command::new("curl")
            .args(["--silent", "--fail", "--aws-sigv4", "aws:amz:us-east-1:kms", "--user"])
            .arg(format!("{}:secret", StandIn::access_key(aws.account())))
            .args(["--header", "Content-Type: application/x-amz-json-1.1", "--header"])
            .arg(format!("X-Amz-Target: TrentService.{operation}"))
            .args(["--data", &body.to_string(), &aws.endpoint()])
            .output()
            .unwrap();
        assert!(asked.status.success(), "{operation}: {asked:?}");
        serde_json::from_slice(&asked.stdout).unwrap_or_default()
    };
    let key = kms("CreateKey", serde_json::json!({}));
    let arn = key["KeyMetadata"]["Arn"].as_str().unwrap();
    let target = &key["KeyMetadata"]["KeyId"];
    kms("CreateAlias", serde_json::json!({ "AliasName": "alias/bakery", "TargetKeyId": target }));
    let upload = |key: &str| {
        let mut command = yard.command();
        command.env_remove("BAKEHOUSE_LOCAL").envs(aws.environment());
        command.args(["snapshot", "upload", "disk.raw", "--encrypt", key]);
        Said::from(command.output().unwrap())
    };

    let id = last_line(&upload(arn).ok());
    assert_eq!(aws.state()["snapshots"][&id]["key"], arn);
    let exchanges = aws.exchanges();
    let started = exchanges.iter().find(|one| one["operation"] == "StartSnapshot").unwrap();
    assert_eq!(started["parameters"]["KmsKeyArn"], arn);
    assert_eq!(started["parameters"]["Encrypted"], true);

    let of_alias = format!("arn:aws:kms:us-east-1:{}:alias/bakery", aws.account());
    for alias in ["alias/bakery", &of_alias] {
        let said = upload(alias).code(2);
        assert!(
            said.err.contains("the key's whole ARN") && said.err.contains("describe-key"),
            "{}",
            said.err
        );
    }
    assert_eq!(aws.exchanges().len(), exchanges.len());
    aws.finish();
}

/// The file is whole or not there, and what a killed download left beside it goes with the next.
#[cfg(feature = "aws")]
#[test]
fn a_download_that_is_killed_leaves_no_file_and_the_next_one_succeeds() {
    let (yard, aws) = (Yard::new(), StandIn::start());
    disk(&yard.path().join("disk.raw"));
    let command = |args: &[&str]| {
        let mut command = yard.command();
        command.env_remove("BAKEHOUSE_LOCAL").envs(aws.environment()).arg("snapshot").args(args);
        command
    };
    let run = |args: &[&str]| Said::from(command(args).output().unwrap());
    let files = || {
        let all = fs::read_dir(yard.path()).unwrap().map(|one| one.unwrap().file_name());
        let mut names: Vec<_> = all.map(|name| name.to_string_lossy().into_owned()).collect();
        names.retain(|name| name != "work");
        names.sort();
        names
    };
    let id = last_line(&run(&["upload", "disk.raw"]).ok());
    let before = files();
    for name in ["back.raw", "back.qcow2"] {
        // Some of the blocks are there when it is killed, and the last ones never come.
        let late = serde_json::json!({
            "kind": "latency", "service": "ebs", "operation": "GetSnapshotBlock", "nth": 8, "times": 100, "seconds": 5,
        });
        aws.faults(serde_json::json!([late]));
        let mut child =
            command(&["download", &id, name]).stderr(std::process::Stdio::null()).spawn().unwrap();
        while aws.told_faults()[0]["struck"] == 0 {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let left = files();
        assert!(!left.contains(&name.to_owned()) && left.len() == before.len() + 1, "{left:?}");
        aws.faults(serde_json::json!([]));
    }
    run(&["download", &id, "back.raw"]).ok();
    let original = fs::read(yard.path().join("disk.raw")).unwrap();
    assert!(fs::read(yard.path().join("back.raw")).unwrap()[..original.len()] == original[..]);
    let mut whole = [before, vec!["back.raw".to_owned()]].concat();
    whole.sort();
    assert_eq!(files(), whole);
    aws.finish();
}

/// EBS gives a snapshot up that no block is put into for an hour: comparing with a parent may take longer, and so comes first.
#[cfg(feature = "aws")]
#[test]
fn comparing_with_a_parent_may_take_longer_than_a_snapshot_waits_for_its_next_block() {
    let (yard, aws) = (Yard::new(), StandIn::start());
    let path = yard.path().join("disk.raw");
    disk(&path);
    let run = |args: &[&str]| {
        let mut command = yard.command();
        command.env_remove("BAKEHOUSE_LOCAL").envs(aws.environment()).arg("snapshot").args(args);
        Said::from(command.output().unwrap())
    };
    let parent = last_line(&run(&["upload", "disk.raw"]).ok());
    File::options().write(true).open(&path).unwrap().write_all_at(b"else", 20 * BLOCK).unwrap();
    let slow = serde_json::json!({
        "kind": "tick", "service": "ebs", "operation": "GetSnapshotBlock", "nth": 10, "seconds": 2 * 3600,
    });
    aws.faults(serde_json::json!([slow]));
    let child = last_line(&run(&["upload", "disk.raw", "--parent", &parent]).ok());
    assert_eq!(aws.told_faults()[0]["struck"], 1);
    assert_eq!(aws.state()["snapshots"][&child]["own_blocks"], 1);
    aws.finish();
}
