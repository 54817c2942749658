//! Checks judged in a root made by hand.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use bakehouse::acceptance::{Enabled, Status, enabled, has_cloud_init, static_checks};
use bakehouse::host::root_dir::RootDir;
use bakehouse::host::stop::Stop;
use bakehouse::recipe::Check;

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn link(root: &Path, target: &str, path: &str) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

fn judge(root: &Path, check: serde_json::Value) -> Status {
    let check: Check =
        serde_json::from_value(check.clone()).unwrap_or_else(|error| panic!("{check}: {error}"));
    let root = RootDir::open(root).unwrap();
    // Only rpm's list is read by a program.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(static_checks(&root, &[check], &Stop::never())).remove(0).status
}

fn reason(status: Status) -> String {
    match status {
        Status::Failed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn packages() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let package = |name: &str, version: Option<&str>, installed: Option<bool>| {
        judge(
            root,
            serde_json::json!({"package": {"name": name, "version": version, "installed": installed}}),
        )
    };
    assert!(matches!(package("nginx", None, None), Status::NotJudged(_)));
    put(
        root,
        "var/lib/dpkg/status",
        "Package: nginx\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.22.1-9+deb12u3\n",
    );
    assert_eq!(package("nginx", Some(">=1.22"), None), Status::Passed);
    assert_eq!(package("apache2", None, Some(false)), Status::Passed);
    assert_eq!(reason(package("nginx", Some("<1.22"), None)), "has version 1.22.1-9+deb12u3, not <1.22");
    assert_eq!(reason(package("apache2", None, None)), "is not installed");
    assert!(reason(package("nginx", None, Some(false))).starts_with("is installed"));
    assert!(reason(package("nginx", Some("1.22"), None)).contains("write >=1.22"));
}

#[test]
fn files() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    put(root, "etc/passwd", "root:x:0:0::/root:/bin/sh\nbroken\nme:x:1234:5678::/:/bin/sh\n");
    put(root, "etc/group", "root:x:0:\nours:x:5678:\n");
    put(root, "etc/app.conf", "one\ntwo\n");
    std::fs::set_permissions(root.join("etc/app.conf"), std::fs::Permissions::from_mode(0o640)).unwrap();
    link(root, "/etc/app.conf", "etc/link");
    link(root, "/nowhere", "etc/dangling");
    link(root, "loop", "etc/loop");
    link(root, "/../../../../etc/hostname", "etc/out");
    let file = |more: serde_json::Value| judge(root, serde_json::json!({ "file": more }));
    let is = |path: &str| file(serde_json::json!({"path": path}));
    let is_not = |path: &str| file(serde_json::json!({"path": path, "exists": false}));

    assert_eq!(is("/etc/app.conf"), Status::Passed);
    assert_eq!(is_not("/etc/none"), Status::Passed);
    assert_eq!(is_not("/etc/app.conf/below"), Status::Passed);
    assert_eq!(reason(is_not("/etc/dangling")), "is there");
    for path in ["/etc/none", "/etc/dangling", "/etc/loop", "/etc/out", "/../../etc/hostname"] {
        assert_eq!(reason(is(path)), "is not there", "{path}");
    }
    let with = |key: &str, value: &str| file(serde_json::json!({"path": "/etc/link", key: value}));
    assert_eq!(with("mode", "0640"), Status::Passed);
    assert_eq!(with("mode", "640"), Status::Passed);
    assert_eq!(reason(with("mode", "0644")), "has mode 0640, not 0644");
    for bad in ["", "8", "rw", "777777", "+644"] {
        assert!(reason(with("mode", bad)).contains("is no mode"), "{bad}");
    }
    assert_eq!(with("contains", "one\ntwo"), Status::Passed);
    assert!(reason(with("contains", "three")).starts_with("does not contain"));
    // What belongs to whoever runs this test.
    let about = std::fs::metadata(root.join("etc/app.conf")).unwrap();
    let (user, group) = {
        use std::os::unix::fs::MetadataExt;
        (about.uid(), about.gid())
    };
    assert_eq!(with("owner", &format!("{user}:{group}")), Status::Passed);
    if user == 0 {
        assert_eq!(with("owner", "root"), Status::Passed);
        assert_eq!(reason(with("owner", "me")), "is owned by root, not me");
        assert_eq!(reason(with("owner", "root:ours")), "is of group root, not ours");
        std::os::unix::fs::chown(root.join("etc/app.conf"), Some(1234), Some(5678)).unwrap();
        assert_eq!(with("owner", "me:ours"), Status::Passed);
    }
    assert!(reason(with("owner", "nobody-knows")).contains("not nobody-knows"));
}

#[test]
fn services() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let units = "usr/lib/systemd/system";
    for unit in ["nginx", "idle", "tty@", "ssh", "masked-one", "vendor"] {
        put(root, &format!("{units}/{unit}.service"), "[Unit]\n");
    }
    put(root, &format!("{units}/empty.service"), "");
    let system = "etc/systemd/system";
    link(
        root,
        "/usr/lib/systemd/system/nginx.service",
        &format!("{system}/multi-user.target.wants/nginx.service"),
    );
    link(
        root,
        "/usr/lib/systemd/system/tty@.service",
        &format!("{system}/getty.target.requires/tty@one.service"),
    );
    link(root, "/usr/lib/systemd/system/ssh.service", &format!("{system}/sshd.service"));
    link(root, "/dev/null", &format!("{system}/masked-one.service"));
    link(root, "../vendor.service", &format!("{units}/sysinit.target.wants/vendor.service"));
    link(root, "round.service", &format!("{system}/square.service"));
    link(root, "square.service", &format!("{system}/round.service"));
    put(root, "etc/init.d/old", "#!/bin/sh\n");
    put(root, "etc/init.d/older", "#!/bin/sh\n");
    link(root, "../init.d/old", "etc/rc3.d/S01old");

    let opened = RootDir::open(root).unwrap();
    let table = [
        ("nginx", Enabled::Yes),
        ("nginx.service", Enabled::Yes),
        ("idle", Enabled::No),
        ("tty@one", Enabled::Yes),
        ("tty@two", Enabled::No),
        ("ssh", Enabled::Yes),
        ("sshd", Enabled::Yes),
        ("vendor", Enabled::Yes),
        ("masked-one", Enabled::Masked),
        ("empty", Enabled::Masked),
        ("nothing", Enabled::Missing),
        ("nginx.timer", Enabled::Missing),
        ("square", Enabled::Missing),
        ("old", Enabled::Yes),
        ("older", Enabled::No),
    ];
    for (name, right) in table {
        assert_eq!(enabled(&opened, name).unwrap(), right, "{name}");
    }
    let service = |name: &str, enabled: Option<bool>, running: Option<bool>| {
        judge(root, serde_json::json!({"service": {"name": name, "enabled": enabled, "running": running}}))
    };
    assert_eq!(service("nginx", Some(true), None), Status::Passed);
    // Half of a check that holds is no check that passed; half of one that does not is one that failed.
    assert!(matches!(service("nginx", Some(true), Some(true)), Status::NotJudged(_)));
    assert_eq!(reason(service("idle", Some(true), Some(true))), "is not enabled");
    assert_eq!(service("masked-one", Some(false), None), Status::Passed);
    assert_eq!(reason(service("masked-one", Some(true), None)), "is masked");
    assert_eq!(reason(service("idle", Some(true), None)), "is not enabled");
    assert_eq!(reason(service("nginx", Some(false), None)), "is enabled");
    assert!(matches!(service("nginx", None, Some(true)), Status::NotJudged(_)));
    for bad in ["../../etc/passwd", "", "a b", "-x"] {
        assert!(reason(service(bad, Some(true), None)).contains("is not the name"), "{bad}");
    }
}

#[test]
fn what_only_a_boot_can_tell_is_left_to_it() {
    let dir = tempfile::tempdir().unwrap();
    for check in [serde_json::json!({"port": {"tcp": 80}}), serde_json::json!({"command": {"run": "true"}})] {
        assert!(matches!(judge(dir.path(), check), Status::NotJudged(_)));
    }
}

#[test]
fn cloud_init_is_there_unless_it_is_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let root = RootDir::open(dir.path()).unwrap();
    assert!(!has_cloud_init(&root));
    put(dir.path(), "usr/bin/cloud-init", "");
    assert!(has_cloud_init(&root));
    put(dir.path(), "etc/cloud/cloud-init.disabled", "");
    assert!(!has_cloud_init(&root));
    std::fs::remove_file(dir.path().join("etc/cloud/cloud-init.disabled")).unwrap();
    link(dir.path(), "/dev/null", "etc/systemd/system/cloud-final.service");
    assert!(!has_cloud_init(&root));
}
