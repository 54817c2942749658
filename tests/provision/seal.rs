//! The seal, on a made-up root and on a real one.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use bakehouse::host::root_dir::RootDir;
use bakehouse::host::stop::Stop;
use bakehouse::provision::{SealError, SealOptions, Sealed, seal, set_up_cloud};
use bakehouse::report::Reporter;

use super::roots::{debian, enter, sh};
use crate::gate;

async fn sealed(root: &Path, remove: &[&str]) -> Result<Vec<Sealed>, SealError> {
    let remove: Vec<String> = remove.iter().map(|path| (*path).to_owned()).collect();
    let reporter = Reporter::silent();
    let stop = Stop::never();
    let options = SealOptions { remove: &remove, reachable: false, reporter: &reporter, stop: &stop };
    seal(&RootDir::open(root).unwrap(), options).await
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

#[tokio::test]
async fn what_belongs_to_one_machine_goes_and_what_the_image_needs_stays() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let host = rustix::system::uname();
    let host = host.nodename().to_str().unwrap();
    write(root, "etc/hostname", host);
    let gone = [
        "etc/ssh/ssh_host_ed25519_key",
        "etc/ssh/ssh_host_ed25519_key.pub",
        "var/lib/systemd/random-seed",
        "var/lib/cloud/instance/boot-finished",
        "var/lib/cloud/data/instance-id",
        "etc/netplan/50-cloud-init.yaml",
        "var/lib/dhcp/dhclient.eth0.leases",
        "var/lib/amazon/ssm/Vault/Store/RegistrationKey",
        "var/cache/apt/pkgcache.bin",
        "var/cache/dnf/source-0123/repodata/repomd.xml",
        "var/cache/zypp/solv/@System/solv",
        "var/lib/zypp/AnonymousUniqueId",
        "var/cache/apt/archives/app_1_amd64.deb",
        "var/cache/apt/archives/partial/app_2_amd64.deb",
        "var/lib/apt/lists/archive.example_InRelease",
        "var/log/syslog.1",
        "var/log/apt/history.log.2.gz",
        "var/log/journal/0123456789abcdef/system.journal",
        "root/.bash_history",
        "home/admin/.bash_history",
        "root/.ansible/tmp/x",
        "tmp/.hidden",
        "var/tmp/deep/er",
        "run/lock/x",
        "etc/.pwd.lock",
        "opt/build/object.o",
        "opt/build/.cache/x",
        "var/lib/dbus/machine-id",
    ];
    let stays = [
        "etc/ssh/sshd_config",
        "var/lib/cloud/seed/nocloud/user-data",
        "var/lib/cloud/scripts/per-boot/mine.sh",
        "etc/netplan/10-mine.yaml",
        "root/.ssh/authorized_keys",
        "home/admin/.bashrc",
        "opt/app/app",
        "opt/build/kept",
        "var/lib/apt/extended_states",
    ];
    for path in gone.iter().chain(&stays) {
        write(root, path, "content");
    }
    write(root, "etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    write(root, "var/log/syslog", "a line\n");
    write(root, "var/log/private/app/app.log", "a line\n");
    std::fs::set_permissions(root.join("var/log/syslog"), std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(root.join("var/log/syslog"), Some(100), Some(4)).ok();
    let owner = std::fs::metadata(root.join("var/log/syslog")).unwrap().uid();

    let done = sealed(root, &["/opt/build/*.o", "/opt/build/.cache"]).await.unwrap();
    for path in gone {
        assert!(!root.join(path).exists(), "{path}");
    }
    for path in stays {
        assert_eq!(std::fs::read_to_string(root.join(path)).unwrap(), "content", "{path}");
    }
    assert_eq!(std::fs::read(root.join("etc/machine-id")).unwrap(), b"");
    assert_eq!(std::fs::read_to_string(root.join("etc/hostname")).unwrap(), "localhost\n");
    let log = std::fs::metadata(root.join("var/log/syslog")).unwrap();
    assert_eq!((log.len(), log.mode() & 0o7777, log.uid()), (0, 0o640, owner));
    assert_eq!(std::fs::metadata(root.join("var/log/private/app/app.log")).unwrap().len(), 0);
    assert!(root.join("var/log/journal").is_dir() && root.join("tmp").is_dir());
    // Everything that was done was said.
    for path in
        ["/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key", "/var/log/syslog", "/opt/build/object.o", "/run"]
    {
        assert!(done.iter().any(|sealed| sealed.path == path), "{path}");
    }
    assert_eq!(sealed(root, &["/opt/build/*.o"]).await.unwrap(), [], "a second time finds nothing");
}

#[tokio::test]
async fn the_seal_follows_no_link_out_of_the_root() {
    let outer = tempfile::tempdir().unwrap();
    write(outer.path(), "host/keep", "host's");
    let root = outer.path().join("root");
    let host = outer.path().join("host");
    for path in [
        "tmp",
        "var/log",
        "var/lib/cloud",
        "run",
        "var/lib/apt/lists",
        "home/a",
        "etc/machine-id",
        "etc/ssh",
        "var/log-real",
    ] {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(&host, path).unwrap();
    }
    write(&root, "usr/share/x", "");
    symlink(host.join("keep"), root.join("usr/share/link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("etc/hostname"), rustix::fs::Mode::from_raw_mode(0o600))
        .unwrap();
    sealed(&root, &["/tmp/*", "/home/a/keep", "/usr/share/link", "/var/log-real/keep"]).await.unwrap();
    assert_eq!(std::fs::read_to_string(host.join("keep")).unwrap(), "host's");
    assert!(std::fs::symlink_metadata(root.join("usr/share/link")).is_err());
    // Replaced by the empty file that it must be.
    assert!(std::fs::symlink_metadata(root.join("etc/machine-id")).unwrap().is_file());
}

#[tokio::test]
async fn a_recipe_cannot_remove_the_root_or_leave_it() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "etc/file", "content");
    for pattern in ["/", "/*", "etc", "/etc/../..", "/.", ""] {
        assert!(matches!(sealed(dir.path(), &[pattern]).await, Err(SealError::Pattern { .. })), "{pattern}");
    }
    assert!(dir.path().join("etc/file").exists());
}

/// What every path is: type, mode, owner, and content or target. Not times: no file's content depends on them.
fn content(root: &Path) -> BTreeMap<String, String> {
    use sha2::Digest;
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let what = if meta.is_file() {
                hex::encode(sha2::Sha256::digest(std::fs::read(&path).unwrap()))
            } else if meta.is_symlink() {
                std::fs::read_link(&path).unwrap().display().to_string()
            } else {
                if meta.is_dir() {
                    folders.push(path.clone());
                }
                String::new()
            };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.insert(name, format!("{:o} {}:{} {what}", meta.mode(), meta.uid(), meta.gid()));
        }
    }
    found
}

#[tokio::test]
async fn two_bakes_of_one_recipe_are_the_same_after_the_seal() {
    if !gate::has_root(&["unshare", "mmdebstrap", "tar"]) {
        return;
    }
    let mut bakes = Vec::new();
    for _ in 0..2 {
        let dir = debian().await;
        let root = enter(dir.path()).await;
        // What installing and trying out leaves: some of it differs every time.
        let script = "set -e; adduser --system app >/dev/null; systemd-machine-id-setup >/dev/null 2>&1
            mkdir -p /etc/ssh /var/lib/systemd /var/log/journal/$(cat /etc/machine-id) /var/lib/cloud/instances/i-1 /etc/cloud
            head -c 32 /dev/urandom >/etc/ssh/ssh_host_rsa_key; head -c 512 /dev/urandom >/var/lib/systemd/random-seed
            date +%N >/var/log/journal/$(cat /etc/machine-id)/system.journal; date +%N >>/var/log/dpkg.log
            date +%N >/var/tmp/x; date +%N >/root/.bash_history; ldconfig; dpkg-reconfigure debconf >/dev/null 2>&1";
        let exit = sh(&root, script).await;
        assert!(exit.success(), "{exit:?}");
        root.leave().await.unwrap();
        let dir_root = RootDir::open(dir.path()).unwrap();
        set_up_cloud(&dir_root).unwrap();
        assert!(!sealed(dir.path(), &[]).await.unwrap().is_empty());
        assert_eq!(sealed(dir.path(), &[]).await.unwrap(), []);
        bakes.push(content(dir.path()));
    }
    let (first, second) = (&bakes[0], &bakes[1]);
    let paths: std::collections::BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let different: Vec<&&String> =
        paths.iter().filter(|path| first.get(**path) != second.get(**path)).collect();
    assert!(different.is_empty(), "{different:?}");
    assert!(first.len() > 5000);
}

#[tokio::test]
async fn a_root_without_cloud_init_cannot_be_set_up_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let error = set_up_cloud(&RootDir::open(dir.path()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("/etc/cloud"));
}
