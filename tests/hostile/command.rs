//! What a command in a root can reach of the machine that it runs on.

use bakehouse::provision::{Root, RootCommand};

use crate::gate;
use crate::provision::roots::{enter, sh, small};

/// The settings of the host's kernel, its key for emergencies and its devices' interrupts can be read and not written;
/// the host's name is its own.
#[tokio::test]
async fn the_settings_of_the_hosts_kernel_are_read_only() {
    if !gate::has_root(&["unshare", "mount"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let script = "cat /proc/sys/kernel/core_pattern
        for file in sys/kernel/core_pattern sys/vm/overcommit_memory sys/kernel/hostname sysrq-trigger irq/default_smp_affinity; do
            test -e /proc/$file || continue
            if (echo h >/proc/$file) 2>/dev/null; then echo written: $file; fi
        done; echo end";
    let exit = sh(&root, script).await;
    assert_eq!(exit.tail, [before.trim_end(), "end"]);
    root.leave().await.unwrap();
}

/// No module, no raw memory, no clock, no network's settings, no reboot.
#[tokio::test]
async fn a_command_has_no_means_to_change_the_machine() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let exit = sh(&root, "cat /proc/self/status").await;
    let line = exit.tail.iter().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim().to_owned();
    let bits = u64::from_str_radix(&line, 16).unwrap();
    // linux/capability.h: of network, modules, raw input and output, reboot, time, log.
    for bit in [12, 16, 17, 22, 25, 34] {
        assert_eq!(bits >> bit & 1, 0, "capability {bit} of {line}");
    }
    // What packages need: files of any owner, devices' nodes, mounts.
    for bit in [0, 1, 3, 6, 7, 21, 27] {
        assert_eq!(bits >> bit & 1, 1, "capability {bit} of {line}");
    }
    root.leave().await.unwrap();
}

/// It can end all processes that it sees; of the host's it sees none.
#[tokio::test]
async fn a_command_sees_no_process_and_no_descriptor_of_the_host() {
    if !gate::has_root(&["unshare"]) {
        return;
    }
    let dir = small().await;
    let marker = tempfile::tempdir().unwrap();
    let _open =
        rustix::fs::open(marker.path(), rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    let root = enter(dir.path()).await;
    let exit = sh(&root, "ls -l /proc/self/fd /proc/1/fd; ls -d /proc/[0-9]*").await;
    let said = exit.tail.join("\n");
    assert!(!said.contains(marker.path().to_str().unwrap()), "{said}");
    assert!(exit.tail.iter().filter(|line| line.starts_with("/proc/")).count() <= 6, "{said}");
    // Whatever lives outside lives on: this test does.
    let exit = sh(&root, "kill -9 -1; echo survived").await;
    assert_eq!(exit.tail.last().map(String::as_str), Some("survived"), "{exit:?}");
    // No terminal: `/dev/tty` is the one of a session, and this one has none.
    assert_ne!(sh(&root, "echo x >/dev/tty").await.code, 0);
    root.leave().await.unwrap();
}

/// What a command mounts is gone with it, wherever it was: over /etc, or the folder of another process.
#[tokio::test]
async fn what_a_command_mounts_is_gone_with_it() {
    if !gate::has_root(&["unshare", "mount"]) {
        return;
    }
    let dir = small().await;
    let root = enter(dir.path()).await;
    let script = "mount -t tmpfs none /etc && touch /etc/hidden && mkdir /root/host && mount --rbind /proc/1/root /root/host && echo mounted";
    assert_eq!(sh(&root, script).await.tail, ["mounted"]);
    assert!(!root.dir().exists("/etc/hidden") && root.dir().exists("/etc/passwd"));
    assert_eq!(root.dir().list("/root/host").unwrap(), Vec::<String>::new());
    // A command that made its /proc a link finds no other's there, and leads no mount of ours away.
    let script = "umount -l /proc 2>/dev/null; rm -rf /proc/* 2>/dev/null; echo done";
    let _ = sh(&root, script).await;
    let command = RootCommand::new(["/bin/sh", "-c", "echo again"]);
    let exit = root.run(&command, &bakehouse::host::stop::Stop::never(), &mut |_, _| {}).await.unwrap();
    assert_eq!(exit.tail, ["again"]);
    root.leave().await.unwrap();
}
