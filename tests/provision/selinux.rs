//! SELinux labels, in a root with Debian's policy. The host's kernel needs no SELinux.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bakehouse::host::exec::Cmd;
use bakehouse::host::root_dir::RootDir;
use bakehouse::host::stop::Stop;
use bakehouse::provision::{SealError, SealOptions, Sealed, StepContext, seal};
use serde_json::json;

use super::roots::{Recipe, Shown, chain, enter, selinux, small, unmount};
use crate::gate;

const TOOLS: [&str; 3] = ["unshare", "mmdebstrap", "tar"];

/// Seals, and gives what was shown.
async fn sealed(root: &Path, stop: &Stop) -> (Result<Vec<Sealed>, SealError>, String) {
    let context = StepContext::new(root);
    let shown = Shown::of(&context);
    let options = SealOptions { remove: &[], reachable: false, reporter: &context.reporter, stop };
    let result = seal(&RootDir::open(root).unwrap(), options).await;
    (result, shown.text())
}

fn config(root: &Path, mode: &str) {
    let text = format!("# SELINUX=disabled\nSELINUX={mode}\nSELINUXTYPE=default\n");
    std::fs::write(root.join("etc/selinux/config"), text).unwrap();
}

fn label(path: &Path) -> Option<String> {
    let mut bytes = [0; 4096];
    match rustix::fs::lgetxattr(path, c"security.selinux", &mut bytes) {
        Ok(length) => Some(String::from_utf8_lossy(&bytes[..length]).trim_end_matches('\0').to_owned()),
        Err(rustix::io::Errno::NODATA) => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The labels of all files, by path.
fn labels(root: &Path) -> BTreeMap<PathBuf, Option<String>> {
    let mut found = BTreeMap::from([(root.to_owned(), label(root))]);
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            found.insert(entry.path(), label(&entry.path()));
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

#[tokio::test]
async fn a_root_that_enforces_is_labelled_by_its_own_policy() {
    if !gate::has_root(&TOOLS) {
        return;
    }
    let dir = selinux().await;
    config(dir.path(), "enforcing");
    let at = |path: &str| dir.path().join(path);
    let root = enter(dir.path()).await;
    let recipe = Recipe::new();
    recipe.write("app.conf", "a=1\n");
    let script = "mkdir -p /root/.ssh /srv/web /mnt/data/deep /var/spool/cron; touch /root/.ssh/authorized_keys /.autorelabel
        touch /var/spool/cron/root \"/mnt/data/deep/a name\"; ln -s /nowhere /etc/app.link; mkfifo /srv/web/fifo";
    let steps = json!([
        {"files": {"from": "app.conf", "to": "/etc/app/"}},
        {"shell": {"run": script}},
    ]);
    recipe.run(&root, steps).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    root.leave().await.unwrap();
    // Names need not be UTF-8, nor without newlines.
    let odd = std::ffi::OsStr::new("not\nutf8-").to_owned();
    let odd = [std::os::unix::ffi::OsStrExt::as_bytes(&*odd), b"\xff"].concat();
    let odd = at("mnt/data").join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&odd));
    std::fs::write(&odd, "").unwrap();
    // A label that came with a file from elsewhere is replaced.
    let foreign = b"staff_u:object_r:tmp_t:s0\0";
    rustix::fs::lsetxattr(
        at("etc/app/app.conf"),
        c"security.selinux",
        foreign,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let outside = dir.path().parent().unwrap().to_owned();
    symlink(&outside, at("srv/out")).unwrap();

    let (done, shown) = sealed(dir.path(), &Stop::never()).await;
    let done = done.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(shown.contains("every file is labelled by the policy `default`"), "{shown}");
    assert!(done.iter().any(|sealed| sealed.path == "/.autorelabel") && !at(".autorelabel").exists());
    let first = labels(dir.path());
    let none: Vec<_> = first.iter().filter(|(_, label)| label.is_none()).collect();
    assert!(first.len() > 10_000 && none.is_empty(), "{} {none:?}", first.len());
    for (path, kind) in [
        ("", "root_t"),
        ("etc/shadow", "shadow_t"),
        ("etc/app/app.conf", "etc_t"),
        ("etc/app.link", "etc_t"),
        ("etc/machine-id", "etc_t"),
        ("root/.ssh/authorized_keys", "ssh_home_t"),
        ("usr/bin/dash", "shell_exec_t"),
        ("dev/null", "null_device_t"),
        ("srv/web/fifo", "var_t"),
        ("srv/out", "var_t"),
        // The policy has no label for these: they have that of their folder.
        ("proc", "root_t"),
        ("mnt/data/deep/a name", "mnt_t"),
        ("var/spool/cron/root", "cron_spool_t"),
    ] {
        let label = first[&at(path)].clone().unwrap();
        assert_eq!(label.split(':').skip(1).collect::<Vec<_>>(), ["object_r", kind, "s0"], "{path}");
    }
    assert!(label(&odd).unwrap().contains(":mnt_t:"));
    assert_eq!(label(&outside), None, "what a link leads to outside has no label");

    let (done, _) = sealed(dir.path(), &Stop::never()).await;
    assert_eq!(done.unwrap(), [], "a second time finds nothing");
    assert!(labels(dir.path()) == first, "and labels the same");
}

/// A script in the place of the root's setfiles.
fn write_script(root: &Path, text: &str) {
    let path = root.join("usr/sbin/setfiles");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_file_that_stays_without_a_label_fails_the_seal() {
    if !gate::has_root(&[&TOOLS[..], &["mount", "umount"]].concat()) {
        return;
    }
    let dir = selinux().await;
    let at = |path: &str| dir.path().join(path);
    config(dir.path(), "permissive");
    for folder in ["boot/efi", "opt/.snapshot", "opt/app"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    std::fs::write(at("opt/app/missed"), "").unwrap();
    // A setfiles that leaves out a folder.
    // By its name it knows that it is not restorecon.
    let real = at("usr/lib/real/setfiles");
    std::fs::create_dir(at("usr/lib/real")).unwrap();
    std::fs::rename(at("usr/sbin/setfiles"), &real).unwrap();
    write_script(dir.path(), "exec /usr/lib/real/setfiles -e /opt/app \"$@\"");
    // vfat takes no attributes, nor does ramfs, which every kernel has; a snapshot takes no changes.
    // The third is any other file system of the image.
    let (efi, snapshot, srv) = (at("boot/efi"), at("opt/.snapshot"), at("srv"));
    for (kind, option, top) in [("ramfs", "rw", &efi), ("tmpfs", "ro", &snapshot), ("tmpfs", "rw", &srv)] {
        let mount = Cmd::new("mount").args(["-t", kind, "-o", option, "none"]).arg(top);
        mount.run(&Stop::never()).await.unwrap();
    }
    std::fs::create_dir(efi.join("EFI")).unwrap();
    std::fs::write(srv.join("inside"), "").unwrap();
    let missed = sealed(dir.path(), &Stop::never()).await;
    std::fs::rename(&real, at("usr/sbin/setfiles")).unwrap();
    let whole = sealed(dir.path(), &Stop::never()).await;
    // One that is stopped while it works.
    let started = at("started");
    std::fs::rename(at("usr/sbin/setfiles"), &real).unwrap();
    write_script(dir.path(), "touch /started; sleep 1000");
    let stop = Stop::never();
    let asker = async {
        while !started.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        stop.request(15);
    };
    let ((stopped, _), ()) = tokio::join!(sealed(dir.path(), &stop), asker);
    std::fs::rename(&real, at("usr/sbin/setfiles")).unwrap();
    let inside = [label(&srv), label(&srv.join("inside"))];
    for top in [&efi, &snapshot, &srv] {
        unmount(top).await;
    }

    let error = missed.0.unwrap_err();
    assert!(matches!(error, SealError::Unlabelled { count: 2, .. }), "{}", chain(&error));
    assert!(chain(&error).contains("/opt/app, /opt/app/missed;"), "{}", chain(&error));
    let shown = whole.1;
    whole.0.unwrap_or_else(|error| panic!("{}", chain(&error)));
    for path in ["/boot/efi", "/opt/.snapshot"] {
        assert!(shown.contains(&format!("SELinux: no labels in {path}:")), "{shown}");
    }
    let error = stopped.unwrap_err();
    assert!(chain(&error).contains("a stop was asked for"), "{}", chain(&error));
    for label in inside {
        assert!(label.as_ref().is_some_and(|label| label.contains(":var_t:")), "{label:?}");
    }
    assert_eq!(label(&at("opt/app/missed")).unwrap(), "system_u:object_r:usr_t:s0");
    // What was below a mount point meanwhile is not labelled.
    assert_eq!(label(&efi), None);

    // A context that the policy does not know would be none to the kernel.
    let local = at("etc/selinux/default/contexts/files/file_contexts.local");
    std::fs::write(&local, "/opt/app/.* system_u:object_r:no_such_t:s0\n").unwrap();
    let error = chain(&sealed(dir.path(), &Stop::never()).await.0.unwrap_err());
    assert!(error.contains("`setfiles` failed") && error.contains("no_such_t"), "{error}");
    std::fs::remove_file(local).unwrap();
    // A policy without the tool that labels by it.
    std::fs::remove_file(at("usr/sbin/setfiles")).unwrap();
    let error = chain(&sealed(dir.path(), &Stop::never()).await.0.unwrap_err());
    assert!(error.contains("no setfiles") && error.contains("install policycoreutils"), "{error}");
}

#[tokio::test]
async fn a_root_without_selinux_gets_no_label() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    std::fs::create_dir_all(dir.path().join("etc/selinux")).unwrap();
    for mode in ["disabled", "permissive", "enforcing"] {
        config(dir.path(), mode);
        let (done, shown) = sealed(dir.path(), &Stop::never()).await;
        done.unwrap_or_else(|error| panic!("{}", chain(&error)));
        // One that is to enforce a policy that it does not have is worth a word.
        assert_eq!(
            shown.contains("no policy `default` in /etc/selinux/default"),
            mode == "enforcing",
            "{shown}"
        );
        assert!(labels(dir.path()).values().all(Option::is_none));
    }
    // A root with the policy, switched off.
    let contexts = dir.path().join("etc/selinux/default/contexts/files");
    std::fs::create_dir_all(&contexts).unwrap();
    std::fs::write(contexts.join("file_contexts"), "/.* system_u:object_r:etc_t:s0\n").unwrap();
    std::fs::create_dir_all(dir.path().join("etc/selinux/default/policy")).unwrap();
    std::fs::write(dir.path().join("etc/selinux/default/policy/policy.33"), "").unwrap();
    config(dir.path(), "disabled");
    sealed(dir.path(), &Stop::never()).await.0.unwrap();
    assert!(labels(dir.path()).values().all(Option::is_none));
    // A name that would lead to another folder.
    std::fs::write(dir.path().join("etc/selinux/config"), "SELINUX=enforcing\nSELINUXTYPE=../../tmp\n")
        .unwrap();
    let error = sealed(dir.path(), &Stop::never()).await.0.unwrap_err();
    assert!(matches!(error, SealError::Policy { .. }), "{error}");
}
