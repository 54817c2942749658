//! The seal of an instance against the stand-in, whose agent hands answers on by files that the seal takes away: what was
//! brought in for the bake is gone from the image, agent and all, and what fails is told.

#![expect(
    clippy::disallowed_methods,
    reason = "programs are started here as a user and an instance start them"
)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, fcntl_lock};
use serde_json::{Value, json};

use super::launch::Bakery;
use crate::conformance::aws_cloud;
use crate::gate;
use crate::yard::Said;

const AGENT: &str = "amazon-ssm-agent";
/// What dpkg runs, besides itself.
const PROGRAMS: [&str; 5] =
    ["/usr/bin/dpkg", "/usr/bin/dpkg-deb", "/usr/bin/dpkg-split", "/usr/bin/tar", "/usr/sbin/ldconfig"];
const NEEDED: [&str; 8] =
    ["/usr/bin/busybox", "dpkg", "dpkg-deb", "ldd", "unshare", "chroot", "mke2fs", "debugfs"];
const SHELL: [&str; 18] = [
    "sh",
    "cat",
    "chmod",
    "cp",
    "diff",
    "echo",
    "env",
    "head",
    "mkdir",
    "mv",
    "rm",
    "setsid",
    "sleep",
    "start-stop-daemon",
    "sync",
    "test",
    "uname",
    "true",
];

/// A root of busybox and dpkg.
fn root(at: &Path) {
    let path = |path: &str| at.join(path.trim_start_matches('/'));
    for folder in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "dev",
        "proc",
        "run",
        "etc",
        "mnt",
        "srv",
        "tmp",
        "root",
        "var/log",
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
        "var/lib/dpkg/triggers",
    ] {
        fs::create_dir_all(path(folder)).unwrap();
    }
    for folder in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{folder}"), path(folder)).unwrap();
    }
    fs::copy("/usr/bin/busybox", path("usr/bin/busybox")).unwrap();
    for program in SHELL {
        symlink("busybox", path(&format!("usr/bin/{program}"))).unwrap();
    }
    for program in PROGRAMS {
        fs::copy(program, path(program)).unwrap();
        let needs = Command::new("ldd").arg(program).output().unwrap().stdout;
        let needs = String::from_utf8(needs).unwrap();
        for library in needs.split_whitespace().filter(|word| word.starts_with("/lib")) {
            fs::create_dir_all(path(library).parent().unwrap()).unwrap();
            fs::copy(library, path(library)).unwrap();
        }
    }
    fs::write(path("etc/os-release"), "ID=small\nVERSION_ID=1\n").unwrap();
    fs::write(path("etc/machine-id"), "0123\n").unwrap();
    let own = "Package: own\nStatus: install ok installed\nMaintainer: nobody\nArchitecture: amd64\nVersion: 1\nDescription: its own\n";
    fs::write(path("var/lib/dpkg/status"), own).unwrap();
    fs::write(path("var/lib/dpkg/info/own.list"), "/.\n").unwrap();
}

/// A package as AWS publishes the agent's: a program that runs, and settings.
fn package(to: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str, mode: u32| {
        let at = folder.path().join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&at, text).unwrap();
        fs::set_permissions(&at, PermissionsExt::from_mode(mode)).unwrap();
    };
    let control = format!(
        "Package: {AGENT}\nVersion: 3.3.1\nArchitecture: amd64\nMaintainer: AWS\nDescription: the agent\n"
    );
    put("DEBIAN/control", &control, 0o644);
    put("DEBIAN/conffiles", "/etc/amazon/ssm/seelog.xml.template\n", 0o644);
    put("etc/amazon/ssm/seelog.xml.template", "<seelog/>\n", 0o644);
    put("usr/bin/amazon-ssm-agent", "#!/bin/sh\n", 0o755);
    let built = Command::new("dpkg-deb").arg("--build").arg(folder.path()).arg(to).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// Runs what the user data runs, while another holds dpkg's lock until it was asked for.
fn first_boot(root: &Path, script: &str) {
    let opened = |name: &str| File::create(root.join("var/lib/dpkg").join(name)).unwrap();
    let locks = [opened("lock-frontend"), opened("lock")];
    for lock in &locks {
        fcntl_lock(lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    }
    let enter = "mount --bind /dev \"$0/dev\" && exec chroot \"$0\" /bin/sh -c \"$1\"";
    let mut boot = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--", "/bin/sh", "-c", enter])
        .arg(root)
        .arg(script)
        .env_clear()
        .env("PATH", "/fetched:/usr/sbin:/usr/bin:/sbin:/bin")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut locks = Some(locks);
    let mut text = String::new();
    for line in BufReader::new(boot.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("lock") {
            locks = None;
        }
        text.push_str(&line);
        text.push('\n');
    }
    assert!(boot.wait().unwrap().success() && locks.is_none(), "{text}");
    assert!(root.join("var/lib/bakehouse/ssm-agent-installed").exists(), "{text}");
}

/// A disk as it is after the first boot of a base without an agent, its bytes; `None` where it cannot be made here.
fn disk() -> Option<&'static [u8]> {
    static DISK: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let made = DISK.get_or_init(|| {
        if !gate::has_root(&NEEDED) || !gate::has(&PROGRAMS) {
            return None;
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (stand_in, cloud) = runtime.block_on(aws_cloud());
        let script = cloud.commands.agent();
        stand_in.finish();
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("root");
        root(&at);
        fs::create_dir(at.join("fetched")).unwrap();
        package(&at.join("fetched/agent.deb"));
        let from = "https://s3.amazonaws.com/ec2-downloads-windows/SSMAgent/latest/debian_amd64/amazon-ssm-agent.deb";
        let curl = format!("#!/bin/sh\n[ \"$6\" = {from} ] && cp /fetched/agent.deb \"$5\"\n");
        fs::write(at.join("fetched/curl"), curl).unwrap();
        fs::set_permissions(at.join("fetched/curl"), PermissionsExt::from_mode(0o755)).unwrap();
        first_boot(&at, script);
        fs::remove_dir_all(at.join("fetched")).unwrap();
        let disk = folder.path().join("disk.raw");
        let made = Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d"])
            .arg(&at)
            .arg(&disk)
            .arg("128M")
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(fs::read(disk).unwrap())
    });
    made.as_deref()
}

/// A bake of that disk, or of the bakery's own base.
fn bake(bakery: &Bakery, disk: Option<&[u8]>, launch: &str, step: &str) -> Said {
    let base = match disk {
        Some(bytes) => {
            let disk = bakery.yard.path().join("after-its-boot.raw");
            fs::write(&disk, bytes).unwrap();
            let image = json!({ "name": "after-its-boot", "disk": disk, "holes": true });
            bakery.cloud.seed_image(bakery.cloud.account(), image).0
        }
        None => bakery.base.clone(),
    };
    bakery.yard.recipe(
        "web",
        &format!(
            "version: 1\nname: web\narchitecture: x86_64\nbase: {{ image: {base} }}\nmethod: launch\n\
             launch: {{ profile: baker, bucket: {}{launch} }}\nprovision:\n  - shell: {{ run: '{step}' }}\n",
            bakery.bucket
        ),
    );
    bakery.cloud.program(&bakery.yard).args(["bake", "web"]).output().unwrap().into()
}

/// Scripts that were sent to instances.
fn scripts(bakery: &Bakery) -> Vec<String> {
    let exchanges = bakery.cloud.exchanges();
    let sent = exchanges.iter().filter(|one| one["operation"] == "SendCommand");
    sent.map(|one| one["parameters"]["Parameters"]["commands"].to_string()).collect()
}

fn nothing_of_the_bake_is_in_the_image(launch: &str) {
    let (Some(bakery), Some(disk)) = (Bakery::new(), disk()) else { return };
    let step = "echo made >/srv/page; test -e /usr/bin/amazon-ssm-agent; mkdir -p /var/lib/amazon/ssm/Vault";
    bake(&bakery, Some(disk), launch, step).ok();
    let record = bakery.yard.record("web");
    let packages = record["packages"].as_array().unwrap();
    let names: Vec<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["own"]);
    let result = bakery.yard.path().join("result.raw");
    bakery.cloud.write_disk(record["images"][0]["snapshot"].as_str().unwrap(), &result);
    let asked = |request: &str| {
        let shown = Command::new("debugfs").args(["-R", request]).arg(&result).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    assert_eq!(asked("cat /srv/page"), "made\n");
    assert_eq!(asked("cat /etc/machine-id"), "");
    let status = asked("cat /var/lib/dpkg/status");
    assert!(status.contains("Package: own") && !status.contains(AGENT), "{status}");
    for gone in ["/var/lib/bakehouse", "/var/lib/amazon", "/etc/amazon", "/usr/bin/amazon-ssm-agent"] {
        assert_eq!(asked(&format!("stat {gone}")), "", "{gone}");
    }
    let sent = scripts(&bakery);
    assert!(sent.iter().any(|script| script.contains("--seal --reachable")), "{sent:?}");
    assert_eq!(sent.last().unwrap().contains("--then-off"), launch.is_empty(), "{sent:?}");
    // It turned itself off, or said on its console that it was sealed: nobody stopped it.
    assert!(!bakery.cloud.operations().iter().any(|name| name == "ec2:StopInstances"));
    bakery.cloud.finish();
}

#[test]
fn an_agent_for_the_bake_alone_is_neither_in_the_image_nor_in_its_record() {
    nothing_of_the_bake_is_in_the_image("");
}

/// EC2 does not stop it, so its image is made while it runs: after it said that it is sealed.
#[test]
fn a_spot_instance_leaves_nothing_in_its_image_either() {
    nothing_of_the_bake_is_in_the_image(", spot: true");
}

/// The seal's own failure comes back as its answer, and the last of it is not begun.
#[test]
fn a_seal_that_fails_is_told_and_no_image_is_made() {
    let Some(bakery) = Bakery::new() else { return };
    let before = state(&bakery);
    let said = bake(&bakery, None, "", "rm /etc/machine-id; mkdir -p /etc/machine-id/x").code(3);
    for part in
        ["provisioning the instance failed", "cannot empty /etc/machine-id", "nothing was left behind"]
    {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let sent = scripts(&bakery);
    assert!(sent.last().unwrap().contains("--seal --reachable"), "{sent:?}");
    assert_eq!(state(&bakery), before);
    bakery.cloud.finish();
}

/// What fails when nobody can ask the machine any more is said on its console.
#[test]
fn an_agent_that_cannot_be_taken_out_fails_the_bake() {
    let (Some(bakery), Some(disk)) = (Bakery::new(), disk()) else { return };
    let step = "cd /var/lib/dpkg/info; echo exit 7 >amazon-ssm-agent.prerm; chmod 755 amazon-ssm-agent.prerm";
    let said = bake(&bakery, Some(disk), "", step).code(3);
    for part in [
        "the SSM agent, which was installed for the bake alone, cannot be taken out",
        "nothing was left behind",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert!(!bakery.cloud.operations().iter().any(|name| name == "ec2:CreateImage"));
    bakery.cloud.finish();
}

/// Whether a spot instance is sealed is seen by its console alone: one that has none is refused before a step runs.
#[test]
fn a_spot_instance_without_a_console_is_refused_before_its_steps() {
    let Some(bakery) = Bakery::new() else { return };
    let said = bake(&bakery, None, ", spot: true, instance-types: [t2.micro]", "true").code(3);
    for part in ["Nitro", "launch.instance-types", "launch.spot", "nothing was left behind"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_eq!(scripts(&bakery), Vec::<String>::new());
    bakery.cloud.finish();
}

/// Images and snapshots of the account.
fn state(bakery: &Bakery) -> (Value, Value) {
    let state = bakery.cloud.state();
    (state["images"].clone(), state["snapshots"].clone())
}
