//! `bakehouse test` while it waits: killed, gone on with, begun anew, interrupted. By the program and in QEMU, on a root
//! whose boot sector writes to the console and no more, so that a boot takes a second.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::Child;

use serde_json::{Value, json};

use super::qemu::{self, WORDS, boot_sector};
use crate::disk::fixture::{self, Disk, MIB, ROOT_UUID};
use crate::gate;
use crate::stored;
use crate::yard::{Said, Yard};

/// Bytes of a boot sector before the partition table.
const CODE: usize = 440;

/// A yard with an image and its record, whose console is to say `wanted`. `None` where this machine cannot boot it.
async fn yard(wanted: &str) -> Option<Yard> {
    if !gate::has_root(&[fixture::TOOLS, &qemu::TOOLS].concat()) {
        return None;
    }
    let disk = Disk::with_table(32 * MIB, "label: dos\nunit: sectors\nstart=2048, type=83, bootable\n").await;
    let root = disk.dir.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/os-release"), "ID=debian\nVERSION_ID=\"12\"\n").unwrap();
    fs::write(root.join("etc/fstab"), format!("UUID={ROOT_UUID} / ext4 defaults 0 1\n")).unwrap();
    disk.ext4(MIB, 31 * MIB, ROOT_UUID, "root", &root).await;
    let code = &boot_sector(false)[..CODE];
    File::options().write(true).open(&disk.path).unwrap().write_all_at(code, 0).unwrap();

    let yard = Yard::new();
    let (cloud, place) = stored::cloud(&yard.store());
    let image = stored::image(&cloud, File::open(&disk.path).unwrap(), 1, None).await;
    let record = json!({
        "format": 1, "written-by": "test", "family": "web", "name": "web-1", "architecture": "x86_64",
        "bake": "bake-000000000001", "method": "direct", "created": "2026-01-02T03:04:05Z",
        "images": [{"place": place, "image": image.id, "snapshot": image.root().unwrap().1}],
        "base": {"file": {"path": "x"}}, "lineage": [], "recipe": "00", "fingerprint": "00", "inputs": {},
        "source": {}, "packages": [], "timings": [],
        "disk": {"size": 1, "digest": "00", "block-map": "blocks.map", "blocks": 64, "changed-blocks": 64},
        "checks": [{"file": {"path": "/etc/fstab", "contains": ROOT_UUID}}],
        "boot": {"within": "10m", "console": wanted},
    });
    yard.file("web", "bakehouse-out/image.json", &record.to_string());
    Some(yard)
}

/// What the console is to say, as a bake with another recipe would have it.
fn want(yard: &Yard, wanted: &str) {
    let mut record = yard.record("web");
    record["boot"]["console"] = wanted.into();
    yard.file("web", "bakehouse-out/image.json", &record.to_string());
}

/// Starts a test and gives it when it waits, with its token.
fn start(yard: &Yard, args: &[&str]) -> (Child, String) {
    let mut child = yard.start(&[&["test", "web", "--log=json"], args].concat());
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let token = lines.find_map(|line| {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        (event["event"] == "waiting").then(|| event["token"].as_str().unwrap_or_default().to_owned())
    });
    (child, token.expect("the test waits"))
}

fn signal(child: &Child, name: &str) {
    #[expect(clippy::disallowed_methods, reason = "as a user ends it")]
    let status =
        std::process::Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

fn kept(yard: &Yard) -> Option<String> {
    let text = fs::read_to_string(yard.out("web").join("test.token")).ok()?;
    Some(text.trim_end().to_owned())
}

/// All instances that the store has, with whether they ended.
fn instances(yard: &Yard) -> Vec<(String, bool)> {
    let folder = yard.store().join("places/local/000000000000/local/instances");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if let Ok(text) = fs::read(entry.path().join("instance.json")) {
            let record: Value = serde_json::from_slice(&text).unwrap();
            found.push((entry.file_name().into_string().unwrap(), !record["ended"].is_null()));
        }
    }
    found
}

#[tokio::test]
async fn a_test_that_was_killed_while_it_waits_goes_on_with_the_same_instance() {
    let Some(yard) = yard("what it never says").await else { return };
    let (mut child, token) = start(&yard, &[]);
    signal(&child, "KILL");
    child.wait().unwrap();
    assert_eq!(kept(&yard).as_deref(), Some(token.as_str()));
    let all = instances(&yard);
    let [(instance, false)] = &all[..] else { panic!("{all:?}") };

    // A job of a pipeline: one look, and the token as the result.
    let said = yard.run(&["test", "web", "--no-wait", "--json"]).ok();
    assert!(said.err.contains("going on") && said.err.contains(instance), "{}", said.err);
    let waiting: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&waiting["result"], &waiting["token"]), (&json!("waiting"), &json!(token)));
    assert!(waiting["percent"].is_u64() && waiting["after-seconds"].is_number(), "{waiting}");
    // Options that are not its own are another test's; a record that is not its own, too.
    yard.run(&["test", "web", "--token", &token, "--firmware", "bios"]).code(2);
    let damaged = yard.run(&["test", "web", "--token", &token[1..]]).code(2);
    assert!(damaged.err.contains("this is no token"), "{}", damaged.err);
    let mut other = yard.record("web");
    other["bake"] = "bake-000000000002".into();
    yard.file("other", "bakehouse-out/image.json", &other.to_string());
    let said = yard.run(&["test", "other", "--token", &token]).code(2);
    assert!(said.err.contains("name the record that it belongs to"), "{}", said.err);
    assert!(yard.run(&["test", "web", "--no-wait", "--token", &token]).ok().out.starts_with(&token));
    // All of them cleared what kills left, and left this alone.
    assert_eq!(instances(&yard), all);

    // As from another host: the token alone, in a file, and a record elsewhere.
    want(&yard, WORDS.trim());
    let file = yard.path().join("token");
    fs::write(&file, &token).unwrap();
    let said = yard.run(&["test", "web", "--token", &format!("@{}", file.display())]).ok();
    assert!(said.out.contains("passed      boot") && said.out.contains("passed      file"), "{}", said.out);
    assert_eq!(instances(&yard), [(instance.clone(), true)]);
    assert_eq!((yard.record("web")["test"]["passed"].as_u64(), kept(&yard)), (Some(2), None));
    // Another process that has the token finds the same, though the instance is gone.
    let second = yard.run(&["test", "web", "--token", &token]).ok();
    assert_eq!(second.out, said.out);
    assert_eq!((instances(&yard), kept(&yard)), (vec![(instance.clone(), true)], None));
    yard.assert_nothing_left();
}

#[tokio::test]
async fn a_test_that_waits_is_ended_by_a_signal_and_by_a_fresh_one() {
    let Some(yard) = yard("what it never says").await else { return };
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let (child, _) = start(&yard, &[]);
        signal(&child, name);
        let said = Said::from(child.wait_with_output().unwrap()).code(code);
        assert!(said.out.is_empty(), "{}", said.out);
        assert!(kept(&yard).is_none() && instances(&yard).iter().all(|(_, ended)| *ended));
        yard.assert_nothing_left();
    }
    let first = yard.run(&["test", "web", "--no-wait"]).ok();
    assert_eq!(kept(&yard).as_deref(), Some(first.out.trim_end()));
    let running = |yard: &Yard| -> Vec<String> {
        instances(yard).into_iter().filter(|(_, ended)| !ended).map(|(id, _)| id).collect()
    };
    let old = running(&yard);
    // What is asked for is not what waits: a new test, and the old one's instance is ended.
    yard.run(&["test", "web", "--no-wait", "--instance-type", "qemu.virtio"]).ok();
    let new = running(&yard);
    assert!(old.len() == 1 && new.len() == 1 && old != new, "{old:?} {new:?}");
    let lost = kept(&yard).unwrap();
    yard.file("web", "bakehouse-out/test.token", "nonsense");
    let said = yard.run(&["test", "web"]).code(2);
    assert!(said.err.contains("test.token") && said.err.contains("--fresh"), "{}", said.err);
    want(&yard, WORDS.trim());
    yard.run(&["test", "web", "--fresh"]).ok();
    assert_eq!(kept(&yard), None);
    // The one whose token was overwritten is known to the ledger of its own process, and to whoever has the token.
    assert_eq!(running(&yard), new);
    yard.run(&["test", "web", "--token", &lost]).ok();
    assert!(running(&yard).is_empty());
    yard.assert_nothing_left();
}
