//! The method launch against the stand-in: instances whose commands really run in the root of their disk.

#![expect(clippy::disallowed_methods, reason = "the program is started here as a user starts it")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::StandIn;
use super::fixture::python;
use crate::gate;
use crate::provision::machine::provisioner;
use crate::yard::{Said, Yard};

pub(super) struct Bakery {
    pub cloud: StandIn,
    pub yard: Yard,
    pub base: String,
    /// Names of buckets are everybody's.
    pub bucket: String,
}

impl Bakery {
    pub fn new() -> Option<Self> {
        if !gate::has_root(&["/usr/bin/busybox", "mke2fs", "nsenter", "setpriv", "debugfs"]) {
            return None;
        }
        provisioner()?;
        let (cloud, yard) = (StandIn::start(), Yard::new());
        let disk = yard.path().join("root.raw");
        root_disk(&disk);
        let image = json!({ "name": "base", "disk": disk, "holes": true });
        let bucket = format!("bakery-{}", cloud.account());
        let (base, _) = cloud.seed_image(cloud.account(), image);
        cloud.seed(json!({ "instance_profile": "baker", "bucket": bucket }));
        Some(Self { cloud, yard, base, bucket })
    }

    pub fn recipe(&self, launch: &str, steps: &str) {
        self.yard.recipe(
            "web",
            &format!(
                "version: 1\nname: web\narchitecture: x86_64\nbase: {{ image: {} }}\nmethod: launch\n\
                 launch: {{ profile: baker, bucket: {}{launch} }}\nprovision:\n{steps}\
                 image: {{ name: \"web-1\" }}\n",
                self.base, self.bucket
            ),
        );
        self.yard.file("web", "rootfs/srv/page", "hello");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
        command
            .env_clear()
            .envs(self.cloud.environment())
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.yard.path())
            .env("BAKEHOUSE_WORK", self.yard.work())
            .env("BAKEHOUSE_AWS_SETTLES", "2s")
            .args(args);
        command
    }

    pub fn bake(&self) -> Said {
        self.command(&["bake"]).arg(self.yard.path().join("web")).output().unwrap().into()
    }

    /// What a program of AWS's Python SDK prints, as this account.
    pub fn python(&self, program: &str) -> String {
        let ran =
            Command::new(python()).args(["-c", program]).envs(self.cloud.environment()).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    }

    /// The parameters of each call of an operation.
    pub fn asked(&self, operation: &str) -> Vec<Value> {
        let of = |call: &Value| call["operation"] == operation;
        self.cloud.exchanges().iter().filter(|call| of(call)).map(|call| call["parameters"].clone()).collect()
    }

    /// What the account holds that costs something; instances that ended, and spot requests that are closed, are forgotten
    /// by EC2 itself.
    pub fn held(&self) -> Value {
        let ended = |one: &Value| one["state"] == "terminated";
        let began = Instant::now();
        let ending = |state: &Value| state["instances"].to_string().contains("shutting-down");
        let mut state = self.cloud.state();
        while ending(&state) && began.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(200));
            state = self.cloud.state();
        }
        if let Some(instances) = state["instances"].as_object_mut() {
            instances.retain(|_, one| !ended(one));
        }
        if let Some(requests) = state["spot_requests"].as_object_mut() {
            requests.retain(|_, one| one["state"] != "closed");
        }
        state
    }
}

/// 64 MiB of ext4 without a partition table: a root with busybox and nothing else.
pub fn root_disk(to: &Path) {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for folder in ["usr/bin", "usr/sbin", "etc", "mnt", "srv", "tmp", "root", "var/log"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::copy("/usr/bin/busybox", at("usr/bin/busybox")).unwrap();
    for program in
        ["sh", "cat", "chmod", "echo", "env", "head", "mkdir", "rm", "setsid", "sleep", "sync", "test", "yes"]
    {
        std::os::unix::fs::symlink("busybox", at(&format!("usr/bin/{program}"))).unwrap();
    }
    std::os::unix::fs::symlink("usr/bin", at("bin")).unwrap();
    fs::write(at("etc/os-release"), "ID=small\nVERSION_ID=1\n").unwrap();
    fs::write(at("etc/machine-id"), "0123\n").unwrap();
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d"])
        .arg(root.path())
        .arg(to)
        .arg("64M")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Through a type without capacity, a reboot, and more output than an answer of SSM holds, to one image and nothing else.
#[test]
fn a_launch_bake_leaves_one_image_and_nothing_else() {
    let Some(bakery) = Bakery::new() else { return };
    bakery.cloud.settings(json!({ "no_capacity": ["t3.nano"] }));
    let before = bakery.held();
    bakery.recipe(
        ", instance-types: [t3.nano, t3.small]",
        "  - files: { from: rootfs/, to: /, mode: \"0644\" }\n  \
           - shell: { run: 'yes a-line-of-output | head -n 4000; echo >/srv/first' }\n  \
           - reboot: {}\n  \
           - shell: { run: 'test -e /srv/first; echo again >/srv/again' }\n",
    );
    let said = bakery.bake().ok();
    assert!(said.err.contains("no capacity for"), "{}", said.err);
    assert_eq!(said.err.matches("a-line-of-output").count(), 4000 + 1, "{}", said.err);
    let after = bakery.held();
    let new = |kind: &str| {
        let known = before[kind].as_object().unwrap();
        let all = after[kind].as_object().unwrap().iter();
        all.filter(|(id, _)| !known.contains_key(*id)).map(|(_, one)| one.clone()).collect::<Vec<_>>()
    };
    let (images, snapshots) = (new("images"), new("snapshots"));
    assert_eq!((images.len(), snapshots.len()), (1, 1));
    let tags = images[0]["tags"].to_string();
    assert!(tags.contains("bakehouse:bake") && !tags.contains("bakehouse:expires"), "{tags}");
    for kind in ["instances", "volumes", "interfaces", "objects", "spot_requests", "security_groups"] {
        assert_eq!(after[kind], before[kind], "{kind}");
    }
    let record = bakery.yard.record("web");
    let snapshot = record["images"][0]["snapshot"].as_str().unwrap();
    let disk = bakery.yard.path().join("result.raw");
    bakery.cloud.write_disk(snapshot, &disk);
    let look = |path: &str| {
        let shown = Command::new("debugfs").args(["-R", &format!("cat {path}")]).arg(&disk).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    assert_eq!((look("/srv/page").as_str(), look("/srv/again").as_str()), ("hello", "again\n"));
    // Sealed, and without what was brought in.
    assert_eq!(
        (look("/etc/machine-id").as_str(), look("/var/lib/bakehouse/bundle/bundle").as_str()),
        ("", "")
    );
    bakery.cloud.finish();
}

#[test]
fn a_step_that_fails_on_an_instance_of_aws_leaves_what_there_was() {
    let Some(bakery) = Bakery::new() else { return };
    let before = bakery.held();
    bakery.recipe("", "  - shell: { run: 'echo last words; exit 42' }\n");
    let said = bakery.bake().code(3);
    for part in ["step 1", "42", "last words", "nothing was left behind"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_eq!(bakery.held(), before);
    bakery.cloud.finish();
}

/// Killed while its command runs: sweep ends the instance and takes the objects away.
#[test]
fn what_a_killed_launch_leaves_is_swept() {
    let Some(bakery) = Bakery::new() else { return };
    let before = bakery.held();
    bakery.recipe("", "  - shell: { run: 'sleep 300' }\n");
    let mut child = bakery
        .command(&["bake"])
        .arg(bakery.yard.path().join("web"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !bakery.cloud.operations().iter().any(|name| name == "ssm:SendCommand") {
        assert!(began.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(200));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(bakery.held(), before);
    let swept: Said = bakery.command(&["sweep"]).output().unwrap().into();
    let swept = swept.ok();
    assert_eq!(bakery.held(), before, "{}", swept.err);
    bakery.cloud.finish();
}

/// What the instance needs is asked for before anything is created.
#[test]
fn a_launch_without_a_profile_or_bucket_is_refused_by_the_plan() {
    let Some(bakery) = Bakery::new() else { return };
    for (launch, key) in
        [("{ bucket: our-bakery }", "launch.profile"), ("{ profile: baker }", "launch.bucket")]
    {
        bakery.yard.recipe(
            "web",
            &format!(
                "version: 1\nname: web\narchitecture: x86_64\nbase: {{ image: {} }}\nmethod: launch\nlaunch: {launch}\n",
                bakery.base
            ),
        );
        let said = bakery.bake().code(2);
        assert!(said.err.contains(key), "{}", said.err);
    }
    bakery.cloud.finish();
}
