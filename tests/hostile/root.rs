//! Roots in which any file may be anything: whatever is done to one, nothing of the host is read or changed, nothing is
//! waited for, and the outcome is one.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use bakehouse::acceptance::{enabled, has_cloud_init, static_checks};
use bakehouse::disk::boot_check::check;
use bakehouse::disk::layout::Layout;
use bakehouse::host::root_dir::RootDir;
use bakehouse::host::stop::Stop;
use bakehouse::provision::{ChrootOptions, ChrootRoot, SealOptions, installed, seal, set_up_cloud};
use bakehouse::recipe::Check;
use bakehouse::report::Reporter;
use serde_json::json;

use crate::gate;
use crate::provision::roots::{Recipe, disk_identity};

/// Every path of a root that is read or written by name.
const PATHS: [&str; 38] = [
    "boot/grub/grub.cfg",
    "boot/grub/grubenv",
    "boot/initrd.img",
    "boot/loader/entries/a.conf",
    "boot/vmlinuz",
    "dev",
    "etc/apt/sources.list",
    "etc/cloud/cloud.cfg.d/95_bakehouse.cfg",
    "etc/default/grub",
    "etc/fstab",
    "etc/group",
    "etc/hostname",
    "etc/kernel/install.conf.d",
    "etc/machine-id",
    "etc/os-release",
    "etc/passwd",
    "etc/resolv.conf",
    "etc/selinux/config",
    "etc/ssh/ssh_host_rsa_key",
    "home/a/.bash_history",
    "lib/modules",
    "opt/build",
    "proc",
    "root/.bash_history",
    "run",
    "sys",
    "tmp",
    "usr/lib/os-release",
    "usr/lib/sysimage/rpm/Packages.db",
    "usr/lib/systemd/system/a.service",
    "usr/sbin/grub-probe",
    "usr/sbin/policy-rc.d",
    "var/lib/cloud/instance",
    "var/lib/dpkg/status",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/systemd/random-seed",
    "var/log",
    "var/tmp",
];

/// What is put there instead of what belongs there.
const KINDS: [&str; 9] = [
    "link to a file",
    "link to a folder",
    "link up",
    "link to itself",
    "fifo",
    "device",
    "folder",
    "huge",
    "disk",
];

/// Far longer than all that is done to one root takes: then something waits.
const HANG: Duration = Duration::from_secs(60);

fn put(kind: &str, at: &Path, outside: &Path) {
    let make = |kind, number| {
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, at, kind, mode, number).unwrap();
    };
    match kind {
        "link to a file" => symlink(outside.join("file"), at).unwrap(),
        "link to a folder" => symlink(outside.join("folder"), at).unwrap(),
        // However deep it lies, the host's own top comes in between.
        "link up" => {
            symlink(format!("{}{}", "../".repeat(40), outside.join("folder").display()), at).unwrap();
        }
        "link to itself" => symlink(at.file_name().unwrap(), at).unwrap(),
        "fifo" => make(rustix::fs::FileType::Fifo, 0),
        "device" => make(rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 5)),
        // A number that no driver has: were it opened, that would be an error, and no test's disk is at risk.
        "disk" => make(rustix::fs::FileType::BlockDevice, rustix::fs::makedev(240, 77)),
        "folder" => fs::create_dir(at).unwrap(),
        "huge" => File::create(at).unwrap().set_len(1 << 40).unwrap(),
        _ => unreachable!(),
    }
}

/// All that is outside: names, kinds, owners, times and content.
fn state(of: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut folders = vec![of.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            let content = if about.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if about.is_dir() {
                folders.push(path.clone());
            }
            let times = (about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec());
            all.push(format!("{} {:o} {} {times:?} {content:?}", path.display(), about.mode(), about.uid()));
        }
    }
    all.sort();
    all
}

/// All that a bake and a test do to a root without running a program of it. Each part may refuse.
async fn everything(top: &Path, path: &str) {
    let root = RootDir::open(top).unwrap();
    let stop = Stop::never();
    let mut options = ChrootOptions::new(top);
    options.disk = Some(disk_identity());
    if let Ok(entered) = ChrootRoot::enter(options).await {
        let recipe = Recipe::new();
        recipe.write("a", "ours\n");
        let steps = json!([{ "files": { "from": "a", "to": format!("/{path}"), "owner": "a" } },
            { "files": { "from": "a", "to": format!("/{path}/b") } }]);
        let _ = recipe.run(&entered, steps).await;
        let _ = entered.leave().await;
    }
    let _ = set_up_cloud(&root);
    let _ = installed(&root, &stop).await;
    let checks: Vec<Check> = serde_json::from_value(json!([
        { "file": { "path": format!("/{path}"), "owner": "root", "contains": "x" } },
        { "package": { "name": "a", "version": ">=1" } },
        { "service": { "name": "a", "enabled": true } },
    ]))
    .unwrap();
    for outcome in static_checks(&root, &checks, &stop).await {
        assert!(!format!("{outcome:?}").contains("secret of the host"), "{path}: {outcome:?}");
    }
    let _ = (has_cloud_init(&root), enabled(&root, "a"));
    let layout: Layout = serde_json::from_str(include_str!("../../fuzz/layout.json")).unwrap();
    let _ = check(&root, &layout, &stop).await;
    let remove = ["/opt/build".to_owned(), "/home/*/*".to_owned(), format!("/{path}")];
    let _ = seal(
        &root,
        SealOptions { remove: &remove, reachable: false, reporter: &Reporter::silent(), stop: &stop },
    )
    .await;
}

/// A root of folders alone, beside what must not be touched.
fn root_and_outside(dir: &Path) -> (PathBuf, PathBuf) {
    let (top, outside) = (dir.join("root"), dir.join("outside"));
    for folder in ["proc", "sys", "run", "tmp", "dev", "usr/sbin", "etc/selinux/policy"] {
        fs::create_dir_all(top.join(folder)).unwrap();
    }
    fs::create_dir_all(outside.join("folder/inner")).unwrap();
    for file in ["file", "folder/file", "folder/inner/file", "folder/syslog.1", "folder/b"] {
        fs::write(outside.join(file), "ID=x\nroot:x:0:0\nsecret of the host\n").unwrap();
    }
    (top, outside)
}

/// Runs it on a thread of its own and says of which root it is that waits.
fn bounded(what: &str, work: impl Future<Output = ()> + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work);
        let _ = done.send(());
    });
    if ended.recv_timeout(HANG) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("{what}: it waits");
    }
    worker.join().unwrap_or_else(|_| panic!("{what}: it panicked"));
}

#[test]
fn whatever_a_roots_files_are_the_host_is_left_alone() {
    if !gate::has_root(&["unshare", "mount"]) {
        return;
    }
    for kind in KINDS {
        for path in PATHS {
            let dir = tempfile::tempdir().unwrap();
            let (top, outside) = root_and_outside(dir.path());
            let at = top.join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            let _ = fs::remove_dir(&at);
            put(kind, &at, &outside);
            let before = state(&outside);
            let what = format!("{path} is a {kind}");
            bounded(&what, async move { everything(&top, path).await });
            assert_eq!(state(&outside), before, "{what}");
            let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
            assert!(!mounts.contains(dir.path().to_str().unwrap()), "{what}: {mounts}");
        }
    }
}

/// Names that are no text, of 255 bytes and with newlines; very many of them; folders deeper than a path can say; links in
/// circles; files that are larger than the disk; a file that cannot be changed.
#[test]
fn odd_names_and_sizes_are_no_matter_or_an_error() {
    if !gate::has_root(&["unshare", "mount", "chattr"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (top, outside) = root_and_outside(dir.path());
    let before = state(&outside);
    let log = top.join("var/log");
    fs::create_dir_all(&log).unwrap();
    for name in [b"\xff\xfe".as_slice(), &[b'n'; 255], b"a\nb", b"\x1b[2J", b"-rf", b"a b"] {
        let name = std::ffi::OsStr::from_bytes(name);
        for folder in ["var/log", "home", "tmp", "boot", "etc/apt", "usr/lib/systemd/system"] {
            fs::create_dir_all(top.join(folder)).unwrap();
            fs::write(top.join(folder).join(name), "x").unwrap();
        }
    }
    // What a log holds, or what the recipe wants gone, may be a secret, whatever it and its folder are called.
    let odd = std::ffi::OsStr::from_bytes(b"\xfe");
    let secrets = [log.join(odd).join(odd), top.join("home").join(odd).join(odd)];
    for secret in &secrets {
        fs::create_dir_all(secret.parent().unwrap()).unwrap();
        fs::write(secret, "secret").unwrap();
    }
    fs::create_dir_all(top.join("tmp/many")).unwrap();
    for number in 0..20_000 {
        File::create(top.join(format!("tmp/many/{number}"))).unwrap();
    }
    for folder in ["home/a", "boot/a", "opt/a"] {
        fs::create_dir_all(top.join(folder)).unwrap();
        symlink("../a", top.join(folder).join("a")).unwrap();
    }
    for file in ["etc/passwd", "var/lib/dpkg/status", "boot/initrd.img", "root/core", "var/log/lastlog"] {
        fs::create_dir_all(top.join(file).parent().unwrap()).unwrap();
        File::create(top.join(file)).unwrap().set_len(1 << 40).unwrap();
    }
    let here = top.clone();
    bounded("odd names", async move {
        everything(&here, "var/log/a").await;
        // Emptied or gone; what the names' bytes are is no matter for a folder as a whole.
        assert_eq!(fs::read_dir(here.join("tmp")).unwrap().count(), 0);
        assert_eq!(fs::metadata(here.join("var/log/lastlog")).unwrap().len(), 0);
        assert_eq!(fs::metadata(here.join("var/log/a\nb")).unwrap().len(), 0);
        assert_eq!(fs::metadata(&secrets[0]).unwrap().len(), 0);
        assert!(!secrets[1].exists());
    });
    assert_eq!(state(&outside), before);
}

/// One that cannot be changed (chattr +i) is named, and it can be told from one that was not there.
#[tokio::test]
async fn a_file_that_cannot_be_changed_is_named() {
    if !gate::has_root(&["mke2fs", "mount", "chattr", "umount"]) {
        return;
    }
    use bakehouse::host::exec::Cmd;
    let dir = tempfile::tempdir().unwrap();
    let (_image, top) = crate::provision::roots::mounted_ext4(dir.path()).await;
    fs::create_dir_all(top.join("etc/ssh")).unwrap();
    let key = top.join("etc/ssh/ssh_host_rsa_key");
    fs::write(&key, "key").unwrap();
    let flag = async |flag: &str| {
        Cmd::new("chattr").arg(flag).arg(&key).run(&Stop::never()).await.unwrap();
    };
    flag("+i").await;
    let stop = Stop::never();
    let options = SealOptions { remove: &[], reachable: false, reporter: &Reporter::silent(), stop: &stop };
    let error = seal(&RootDir::open(&top).unwrap(), options).await.unwrap_err().to_string();
    assert!(error.contains("/etc/ssh/ssh_host_rsa_key") && error.contains("remove"), "{error}");
    flag("-i").await;
    crate::provision::roots::unmount(&top).await;
}
