//! `bakehouse provision` on the root of a machine that runs: here a root of busybox alone, entered by chroot in namespaces of
//! its own, in which the program is as on an instance. It brings no library, so the program must need none.

#![expect(clippy::disallowed_methods, reason = "the program is started here as an instance starts it")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use bakehouse::cloud::BUILD_KEY;
use bakehouse::provision::{Bundle, Content, Entry};
use bakehouse::recipe::{Seal, Step};
use serde_json::{Value, json};

use crate::gate;
use crate::yard::Said;

const BUSYBOX: &str = "/usr/bin/busybox";
const PROGRAMS: [&str; 12] =
    ["sh", "cat", "echo", "sleep", "mkdir", "rm", "test", "env", "grep", "wc", "cmp", "touch"];

/// The program for instances, beside the one that is tested: `PROFILE=debug scripts/provisioner` makes it.
pub fn provisioner() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_bakehouse")).with_file_name("bakehouse-provisioner-x86_64");
    gate::has(&[path.to_str().unwrap()]).then_some(path)
}

struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new(steps: Value) -> Option<Self> {
        if !gate::has_root(&[BUSYBOX, "unshare", "chroot"]) {
            return None;
        }
        let program = provisioner()?;
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in [
            "usr/bin",
            "usr/sbin",
            "etc",
            "dev",
            "proc",
            "run",
            "sys",
            "mnt",
            "tmp",
            "var/log",
            "srv",
            "root/.ssh",
        ] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::copy(BUSYBOX, at("usr/bin/busybox")).unwrap();
        for program in PROGRAMS {
            symlink("busybox", at(&format!("usr/bin/{program}"))).unwrap();
        }
        symlink("usr/bin", at("bin")).unwrap();
        fs::write(at("etc/os-release"), "ID=small\nVERSION_ID=1\n").unwrap();
        fs::write(at("etc/machine-id"), "0123\n").unwrap();
        fs::write(at("root/.ssh/authorized_keys"), format!("ssh-ed25519 A me\nssh-ed25519 B {BUILD_KEY}\n"))
            .unwrap();
        let bundle = at("var/lib/bakehouse/bundle");
        fs::create_dir_all(&bundle).unwrap();
        fs::copy(program, bundle.join("bakehouse")).unwrap();
        let recipe = tempfile::tempdir().unwrap();
        fs::create_dir_all(recipe.path().join("rootfs/srv")).unwrap();
        fs::write(recipe.path().join("rootfs/srv/page"), "hello").unwrap();
        let entry = |path: &str, mode, content| Entry { path: path.to_owned(), mode, owner: None, content };
        let entries = vec![
            entry("rootfs", 0o755, Content::Folder),
            entry("rootfs/srv", 0o755, Content::Folder),
            entry("rootfs/srv/page", 0o640, Content::File(5)),
        ];
        let steps: Vec<Step> = serde_json::from_value(steps).unwrap();
        let seal = Seal { remove: vec!["/srv/scrap".to_owned()] };
        let packed = fs::File::create(bundle.join("bundle")).unwrap();
        Bundle::new("bake-1", &steps, &seal, entries).pack(recipe.path(), packed).unwrap();
        Some(Self { root })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Runs the program as the machine's own.
    fn run(&self, args: &str) -> Said {
        let script = format!(
            "mount --bind \"$0\" \"$0\" && mount --bind /dev \"$0/dev\" && mount -t proc proc \"$0/proc\" && mount -t tmpfs run \"$0/run\" && \
             exec chroot \"$0\" /var/lib/bakehouse/bundle/bakehouse provision --root / \
             --bundle /var/lib/bakehouse/bundle {args}"
        );
        let output = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--uts",
                "--ipc",
                "--",
                "/bin/sh",
                "-c",
                &script,
            ])
            .arg(self.root.path())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .unwrap();
        output.into()
    }

    fn events(&self) -> String {
        fs::read_to_string(self.path("var/lib/bakehouse/bundle/events.jsonl")).unwrap()
    }
}

fn result(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("no result:\n{}\n{}", said.out, said.err))
}

#[test]
fn a_machine_is_provisioned_through_a_reboot_and_sealed() {
    let Some(machine) = Machine::new(json!([
        { "files": { "from": "rootfs/", "to": "/", "mode": "0644" } },
        { "shell": {
            "run": "echo \"the token is $TOKEN\"; test $(env | wc -l) -lt 12; (sleep 600 &) ; touch /tmp/left /srv/scrap",
            "secret-env": { "TOKEN": { "env": "BUILD_TOKEN" } },
        } },
        { "reboot": {} },
        { "shell": { "run": "test -e /srv/page; echo again >/srv/again" } },
    ])) else {
        return;
    };
    let secrets = || {
        let text = json!({ "environment": { "BUILD_TOKEN": "not-to-be-seen" }, "files": {} }).to_string();
        fs::write(machine.path("secrets"), text).unwrap();
    };
    secrets();
    let first = machine.run("--secrets /secrets");
    assert_eq!((first.code, &result(&first)["end"]), (194, &json!("reboot")), "{} {}", first.out, first.err);
    assert!(!machine.path("srv/again").exists() && !machine.path("secrets").exists());
    secrets();
    let second = machine.run("--secrets /secrets").ok();
    let outcome = result(&second);
    assert_eq!(outcome["end"]["done"]["system"]["distribution"], "small");
    let numbers: Vec<u64> =
        outcome["timings"].as_array().unwrap().iter().map(|t| t["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 4]);
    assert_eq!(fs::read_to_string(machine.path("srv/again")).unwrap(), "again\n");
    let events = machine.events();
    assert!(events.contains("the token is ***") && !events.contains("not-to-be-seen"), "{events}");
    // In pieces, whole lines only.
    let all = machine.run("--events 0").ok().out;
    let (next, text) = all.split_once('\n').unwrap();
    assert_eq!((next.parse::<usize>().unwrap(), text), (events.len(), events.as_str()));
    assert_eq!(machine.run(&format!("--events {next}")).ok().out.trim(), next);

    let sealed = machine.run("--seal").ok();
    assert_eq!(result(&sealed)["end"], "sealed");
    for gone in ["var/lib/bakehouse", "tmp/left", "srv/scrap"] {
        assert!(!machine.path(gone).exists(), "{gone}");
    }
    assert_eq!(fs::read(machine.path("etc/machine-id")).unwrap(), b"");
    assert_eq!(fs::read_to_string(machine.path("root/.ssh/authorized_keys")).unwrap(), "ssh-ed25519 A me\n");
    assert_eq!(fs::read_dir(machine.path("run")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(machine.path("srv/page")).unwrap(), "hello");
}

#[test]
fn a_step_that_fails_on_a_machine_is_named_with_its_last_words() {
    let Some(machine) = Machine::new(json!([
        { "shell": { "run": "echo fine" } },
        { "shell": { "run": "echo last words; exit 42" } },
    ])) else {
        return;
    };
    let said = machine.run("");
    let outcome = result(&said);
    let failed = &outcome["end"]["failed"];
    assert_eq!((said.code, &failed["step"][0]), (1, &json!(2)), "{} {}", said.out, said.err);
    let why = failed["why"].as_str().unwrap();
    assert!(why.contains("42") && why.contains("last words"), "{why}");
    assert_eq!(outcome["timings"].as_array().unwrap().len(), 1);
    // A bundle that is not whole says so.
    fs::write(machine.path("var/lib/bakehouse/bundle/bundle"), b"x").unwrap();
    let said = machine.run("");
    let outcome = result(&said);
    assert_eq!(said.code, 1);
    assert!(outcome["end"]["failed"]["why"].as_str().unwrap().contains("damaged"), "{outcome}");
}
