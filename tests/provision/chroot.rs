//! Entering a root and leaving it again.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use bakehouse::host::exec::{Cmd, ExecError};
use bakehouse::host::stop::Stop;
use bakehouse::provision::{
    ChrootOptions, ChrootRoot, DiskIdentity, FileSystemIdentity, Root, RootCommand, RootError,
};

use super::roots::{enter, fill_small, mounted_ext4, sh, small, unmount};
use crate::gate;

/// Every path below a folder with what it is, its mode, owner, content or target.
fn listing(root: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() {
                format!("{:?}", std::fs::read(&path).unwrap())
            } else if meta.is_symlink() {
                format!("{:?}", std::fs::read_link(&path).unwrap())
            } else {
                folders.push(path.clone());
                String::new()
            };
            let content = if content.len() > 2000 { content.len().to_string() } else { content };
            found.push(format!("{} {:o} {} {content}", path.display(), meta.mode(), meta.uid()));
        }
    }
    found.sort();
    found
}

fn mounts_below(root: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let below = |line: &&str| line.contains(root.to_str().unwrap());
    table.lines().filter(below).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_root_is_left_as_it_was_entered() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    std::fs::write(dir.path().join("usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 0\n").unwrap();
    std::fs::write(dir.path().join("usr/sbin/grub2-probe"), "the real one").unwrap();
    let before = listing(dir.path());
    let mut options = ChrootOptions::new(dir.path());
    options.disk = Some(disk());
    let root = ChrootRoot::enter(options).await.unwrap();
    assert_eq!(sh(&root, "/usr/sbin/policy-rc.d").await.code, 101);
    assert_eq!(sh(&root, "/usr/sbin/grub2-probe -t fs_uuid /").await.tail, ["aaaa-1111"]);
    assert_eq!(sh(&root, "touch /run/a /tmp/b /dev/c /dev/shm/d").await.code, 0);
    assert!(!mounts_below(dir.path()).is_empty());
    root.leave().await.unwrap();
    assert_eq!(mounts_below(dir.path()), Vec::<String>::new());
    assert_eq!(listing(dir.path()), before);
}

#[tokio::test]
async fn a_root_that_is_dropped_is_left_too() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    std::fs::write(dir.path().join("etc/resolv.conf"), "search before\n").unwrap();
    let before = listing(dir.path());
    drop(enter(dir.path()).await);
    assert_eq!(mounts_below(dir.path()), Vec::<String>::new());
    assert_eq!(listing(dir.path()), before);
}

fn disk() -> DiskIdentity {
    DiskIdentity {
        root: FileSystemIdentity {
            kind: "ext4".into(),
            uuid: "aaaa-1111".into(),
            label: Some("cloud root".into()),
            partuuid: Some("bbbb-2222".into()),
            partition: 1,
            device: None,
        },
        boot: None,
        partmap: "gpt".into(),
    }
}

#[tokio::test]
async fn devices_are_those_that_programs_take_for_granted_and_no_disk() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let mut options = ChrootOptions::new(dir.path());
    options.disk = Some(disk());
    let root = ChrootRoot::enter(options).await.unwrap();
    let script = "set -e; cd /dev; echo x >null; echo x >zero; test -c full; test -c random; test -c urandom
        test -c tty; test -c ptmx; test -d pts; test -d shm; echo y >/dev/stdout; test -e fd/0
        test -e disk/by-uuid/aaaa-1111; test -e disk/by-partuuid/bbbb-2222; test -e 'disk/by-label/cloud\\x20root'
        for node in * disk/*/*; do if test -b $node; then echo block device $node; exit 1; fi; done
        test $(stat -c %a shm) = 1777; test $(stat -c %a null) = 666; test $(stat -c %a /tmp) = 1777
        test $(stat -c %a /run/lock) = 1777; test -d /sys/class; ! touch /sys/kernel/x 2>/dev/null
        test $(readlink /proc/self/fd/0) = /dev/null; test \"$(cat)\" = ''";
    let exit = sh(&root, script).await;
    assert_eq!((exit.code, exit.tail.join(" ").as_str()), (0, "y"), "{exit:?}");
    root.leave().await.unwrap();
}

#[tokio::test]
async fn a_root_on_a_block_device_is_shown_it_and_frees_it() {
    if !gate::has_root(&["unshare", "mke2fs", "mount", "umount"]) {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let (_image, top) = mounted_ext4(dir.path()).await;
    fill_small(&top).await;
    let number = std::fs::metadata(&top).unwrap().dev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let mut options = ChrootOptions::new(&top);
    let mut disk = disk();
    disk.root.device = Some((major, minor));
    options.disk = Some(disk);
    let root = ChrootRoot::enter(options).await.unwrap();
    let exit = sh(&root, "stat -L -c '%F %Hr %Lr' /dev/disk/by-uuid/aaaa-1111").await;
    assert_eq!(exit.tail, [format!("block special file {major} {minor}")]);
    root.leave().await.unwrap();
    // Nothing of ours keeps it busy.
    unmount(&top).await;
}

#[tokio::test]
async fn a_command_has_namespaces_and_an_environment_of_its_own() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let mut options = ChrootOptions::new(dir.path());
    options.hostname = "image".into();
    options.network = false;
    let root = ChrootRoot::enter(options).await.unwrap();
    let mut command = RootCommand::new(["/usr/bin/env"]);
    command.env.insert("MINE".into(), "it's $HOME\nand more".into());
    let mut lines = Vec::new();
    let exit = root
        .run(&command, &Stop::never(), &mut |_, line| {
            lines.push(line.to_owned());
        })
        .await
        .unwrap();
    assert!(exit.success(), "{exit:?}");
    lines.sort();
    let expected = [
        "DEBIAN_FRONTEND=noninteractive",
        "HOME=/root",
        "LANG=C.UTF-8",
        "MINE=it's $HOME",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PWD=/",
        "SYSTEMD_OFFLINE=1",
        "and more",
    ];
    // A shell may export these of its own accord.
    lines.retain(|line| !["SHLVL=", "_=", "OLDPWD="].iter().any(|own| line.starts_with(own)));
    assert_eq!(lines, expected);

    assert_eq!(sh(&root, "cat /proc/sys/kernel/hostname").await.tail, ["image"]);
    // Process 1 is the shell that started the command, and there is nothing else.
    let processes = sh(&root, "for p in /proc/[0-9]*; do echo ${p#/proc/}; done").await.tail;
    assert_eq!((processes[0].as_str(), processes.len()), ("1", 2), "{processes:?}");
    // No network: two lines of heading, and the loopback device alone.
    assert_eq!(sh(&root, "cat /proc/net/dev").await.tail.len(), 3);
    let mut command = RootCommand::new(["/bin/sh", "-c", "echo $PATH; readlink /proc/self/cwd"]);
    command.env.insert("PATH".into(), "/nowhere:/usr/bin".into());
    command.env.insert("LD_LIBRARY_PATH".into(), "/nowhere".into());
    command.workdir = "/var/log".into();
    let exit = root.run(&command, &Stop::never(), &mut |_, _| {}).await.unwrap();
    assert_eq!(exit.tail, ["/nowhere:/usr/bin", "/var/log"]);
    root.leave().await.unwrap();
}

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    assert_eq!(sh(&root, "exit 42").await.code, 42);
    assert_eq!(sh(&root, "kill -9 $$").await.code, 128 + 9);
    assert_eq!(sh(&root, "kill -15 $$").await.code, 128 + 15);
    let exit =
        root.run(&RootCommand::new(["no-such-program"]), &Stop::never(), &mut |_, _| {}).await.unwrap();
    assert_eq!(exit.code, 127);
    let mut command = RootCommand::new(["/bin/sh", "-c", "echo before; sleep 1000"]);
    command.timeout = Duration::from_millis(300);
    let error = root.run(&command, &Stop::never(), &mut |_, _| {}).await.unwrap_err();
    let RootError::Exec(ExecError::TimedOut { name, tail, .. }) = error else { panic!("{error:?}") };
    assert_eq!((name.as_str(), tail), ("/bin/sh", vec!["before".to_owned()]));
    root.leave().await.unwrap();
}

#[tokio::test]
async fn nothing_that_a_command_started_outlives_it() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let script = "sleep 4711 & setsid nohup sleep 4711 >/dev/null 2>&1 & (setsid sh -c 'sleep 4711 & exec sleep 4711' &) ; echo started";
    let exit = sh(&root, script).await;
    assert_eq!((exit.code, exit.tail), (0, vec!["started".to_owned()]));
    assert_eq!(root.left_over().unwrap(), Vec::<String>::new());
    // The same where the command is ended because it takes too long.
    let mut command = RootCommand::new([
        "/bin/sh",
        "-c",
        "setsid nohup sleep 4711 & trap '' TERM; while :; do sleep 1; done",
    ]);
    command.timeout = Duration::from_millis(300);
    root.run(&command, &Stop::never(), &mut |_, _| {}).await.unwrap_err();
    assert_eq!(root.left_over().unwrap(), Vec::<String>::new());
    root.leave().await.unwrap();
}

#[tokio::test]
async fn a_process_that_is_left_in_the_root_is_seen() {
    if !gate::has_root(&["unshare", "chroot"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let stop = Stop::never();
    let asked = stop.clone();
    let path = dir.path().to_owned();
    // As a program of the host would, beside the namespaces.
    let other =
        tokio::spawn(async move { Cmd::new("chroot").arg(&path).args(["sleep", "1000"]).run(&asked).await });
    let mut seen = Vec::new();
    while seen.is_empty() && !other.is_finished() {
        tokio::task::yield_now().await;
        seen = root.left_over().unwrap();
    }
    stop.request(15);
    assert!(matches!(other.await.unwrap(), Err(ExecError::Stopped { .. })));
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(root.left_over().unwrap(), Vec::<String>::new());
    root.leave().await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_a_command_and_leaving_still_works() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let stop = Stop::never();
    let asked = stop.clone();
    let command = RootCommand::new(["/bin/sh", "-c", "echo ready; sleep 1000"]);
    let mut on_line = move |_, line: &str| {
        if line == "ready" {
            asked.request(2);
        }
    };
    let error = root.run(&command, &stop, &mut on_line).await.unwrap_err();
    assert!(matches!(error, RootError::Exec(ExecError::Stopped { .. })), "{error:?}");
    assert_eq!(root.left_over().unwrap(), Vec::<String>::new());
    root.leave().await.unwrap();
    assert_eq!(mounts_below(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn resolv_conf_is_lent_and_given_back_in_each_of_its_forms() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let dir = small().await;
    let path = dir.path().join("etc/resolv.conf");
    let lent = async || {
        let root = enter(dir.path()).await;
        let exit = sh(&root, "cat /etc/resolv.conf").await;
        assert_eq!(exit.tail.join("\n"), host.trim_end(), "{exit:?}");
        root.leave().await.unwrap();
    };
    // Missing.
    lent().await;
    assert!(std::fs::symlink_metadata(&path).is_err());
    // A regular file.
    std::fs::write(&path, "search example.org\n").unwrap();
    lent().await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "search example.org\n");
    // A link to what only a running system has.
    std::fs::remove_file(&path).unwrap();
    symlink("../run/systemd/resolve/stub-resolv.conf", &path).unwrap();
    lent().await;
    assert_eq!(std::fs::read_link(&path).unwrap(), Path::new("../run/systemd/resolve/stub-resolv.conf"));
    assert_eq!(std::fs::read_dir(dir.path().join("run")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(dir.path().join("etc")).unwrap().count(), 4);
}

#[tokio::test]
async fn a_hostile_root_cannot_lead_a_mount_out() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    let victim = outer.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("file"), "host's").unwrap();
    for name in ["dev", "run", "tmp", "sys", "proc", "dev/pts"] {
        let root = outer.path().join("root");
        std::fs::create_dir(&root).unwrap();
        fill_small(&root).await;
        // What a link of /dev/pts on the disk would be is hidden by the /dev that is mounted over it.
        let expected_to_fail = name != "dev/pts";
        let _ = std::fs::remove_dir(root.join(name));
        symlink(&victim, root.join(name)).unwrap();
        let entered = ChrootRoot::enter(ChrootOptions::new(&root)).await;
        assert_eq!(entered.is_err(), expected_to_fail, "{name}");
        drop(entered);
        assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 1, "{name}");
        assert_eq!(mounts_below(outer.path()), Vec::<String>::new(), "{name}");
        std::fs::remove_dir_all(&root).unwrap();
    }
}

#[tokio::test]
async fn a_command_that_moves_the_folders_under_the_mounts_cannot_lead_the_clean_up_out() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    let victim = outer.path().join("victim");
    std::fs::create_dir_all(victim.join("sub")).unwrap();
    let root = outer.path().join("root");
    std::fs::create_dir(&root).unwrap();
    fill_small(&root).await;
    std::fs::copy(std::fs::canonicalize("/usr/bin/umount").unwrap(), root.join("usr/bin/umount")).unwrap();
    let entered = enter(&root).await;
    let script = format!(
        "umount -l /run && rm -r /run && ln -s {0} /run && umount -l /tmp && rm -r /tmp && ln -s {0} /tmp",
        victim.display()
    );
    let exit = sh(&entered, &script).await;
    assert_eq!(exit.code, 0, "{exit:?}");
    // Whatever the outcome is, it is one, and nothing happened to the host.
    let _ = entered.leave().await;
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 1);
    assert_eq!(mounts_below(outer.path()), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_no_root_or_no_name_is_refused() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let nowhere = ChrootRoot::enter(ChrootOptions::new("/no/such/folder")).await;
    assert!(matches!(nowhere, Err(RootError::Open { .. })));
    let dir = small().await;
    for name in ["", "a b", "a;b", "$(reboot)", &"x".repeat(65)] {
        let mut options = ChrootOptions::new(dir.path());
        options.hostname = name.to_owned();
        assert!(matches!(ChrootRoot::enter(options).await, Err(RootError::HostName { .. })), "{name}");
    }
    let root = enter(dir.path()).await;
    let nul = root.run(&RootCommand::new(["a\0b"]), &Stop::never(), &mut |_, _| {}).await;
    assert!(matches!(nul, Err(RootError::Nul)));
    assert_eq!(root.facts().distribution, "small");
    assert!(root.facts().package_manager.is_none() && !root.facts().systemd);
    root.leave().await.unwrap();
}
