//! Programs that end, that do not, and what they leave.

use super::*;

#[tokio::test]
async fn lines_come_from_both_streams_and_the_code_is_kept() {
    let mut seen = Vec::new();
    let exit = Cmd::new("sh")
        .args(["-c", "echo a; echo b >&2; printf c; exit 3"])
        .stream(&Stop::never(), &mut |stream, line| {
            seen.push((stream, line.to_owned()));
        })
        .await
        .unwrap();
    assert_eq!(exit.code, 3);
    assert!(seen.contains(&(Stream::Out, "a".into())));
    assert!(seen.contains(&(Stream::Err, "b".into())));
    assert!(seen.contains(&(Stream::Out, "c".into())));
}

/// Waits until a process is gone; one that nobody has waited for yet is.
async fn gone(pid: &str) {
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    };
    for _ in 0..1000 {
        if !lives() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{pid} lives");
}

/// A shell that ends at once, and whose child keeps its pipes: its lines are their ids, the shell's first.
fn leaves_a_child() -> Cmd {
    Cmd::new("sh").args(["-c", "echo $$; sleep 1000 & echo $!"])
}

#[tokio::test]
async fn a_command_out_of_time_is_ended_with_its_children() {
    let line = "sleep 1000 & echo $!; wait";
    let command = Cmd::new("sh").args(["-c", line]).timeout(Duration::from_secs(2));
    let error = command.run(&Stop::never()).await.unwrap_err();
    let ExecError::TimedOut { tail, .. } = error else { panic!("{error}") };
    gone(&tail[0]).await;
}

#[tokio::test]
async fn a_child_that_keeps_the_pipes_is_ended_when_its_time_is_over() {
    let exit = leaves_a_child().stream(&Stop::never(), &mut |_, _| {}).await.unwrap();
    assert!(exit.success());
    gone(&exit.tail[1]).await;
}

#[tokio::test]
async fn a_stop_after_the_command_itself_has_ended_ends_its_children() {
    let stop = Stop::never();
    let (send, mut lines) = mpsc::unbounded_channel();
    let asked = stop.clone();
    let asker = tokio::spawn(async move {
        let (shell, child): (String, String) = (lines.recv().await.unwrap(), lines.recv().await.unwrap());
        while std::path::Path::new("/proc").join(&shell).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        asked.request(libc::SIGTERM);
        child
    });
    let told = &mut |_, line: &str| send.send(line.to_owned()).unwrap();
    let error = leaves_a_child().stream(&stop, told).await.unwrap_err();
    assert!(matches!(error, ExecError::Stopped { .. }), "{error}");
    gone(&asker.await.unwrap()).await;
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_ended_with_its_children() {
    let (send, mut lines) = mpsc::unbounded_channel();
    let waiting = tokio::spawn(async move {
        let told = &mut |_, line: &str| send.send(line.to_owned()).unwrap();
        Cmd::new("sh").args(["-c", "sleep 1000 & echo $!; wait"]).stream(&Stop::never(), told).await
    });
    let child: String = lines.recv().await.unwrap();
    waiting.abort();
    gone(&child).await;
}

#[tokio::test]
async fn what_was_left_behind_without_the_pipes_stays() {
    let line = "sleep 1000 >/dev/null 2>&1 & echo $!";
    let child = Cmd::new("sh").args(["-c", line]).run(&Stop::never()).await.unwrap().text();
    let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap();
    assert!(stat.contains("(sleep)") || stat.contains("(sh)"), "{stat}");
    Cmd::new("kill").arg(&child).run(&Stop::never()).await.unwrap();
    gone(&child).await;
}

#[tokio::test]
async fn a_stop_ends_what_has_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let stop = Stop::never();
    let (asked, watched) = (stop.clone(), ready.clone());
    let asker = tokio::spawn(async move {
        while !watched.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        asked.request(libc::SIGHUP);
    });
    let line = "trap 'touch ended; kill $!; exit' TERM; sleep 1000 & touch ready; wait";
    let command = Cmd::new("sh").args(["-c", line]).cwd(dir.path());
    let error = command.clone().interactive(&stop).await.unwrap_err();
    asker.await.unwrap();
    assert!(matches!(error, ExecError::Stopped { .. }), "{error}");
    // It was asked to end, and could clean up.
    assert!(dir.path().join("ended").exists());
    // After a stop nothing is started.
    std::fs::remove_file(&ready).unwrap();
    assert!(matches!(command.interactive(&stop).await, Err(ExecError::Stopped { .. })));
    assert!(!ready.exists());
}

#[tokio::test]
async fn what_has_the_terminal_tells_its_exit_code() {
    let never = Stop::never();
    let exit = Cmd::new("sh").args(["-c", "exit 7"]).interactive(&never).await.unwrap();
    assert_eq!(exit.code, 7);
    let exit = Cmd::new("sh").args(["-c", "kill -9 $$"]).interactive(&never).await.unwrap();
    assert_eq!(exit.code, 137);
}

#[tokio::test]
async fn a_stop_ends_the_command() {
    let stop = Stop::never();
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        asked.request(libc::SIGTERM);
    });
    let error = Cmd::new("sleep").arg("60").run(&stop).await.unwrap_err();
    assert!(matches!(error, ExecError::Stopped { .. }));
    assert_eq!(stop.signal(), Some(libc::SIGTERM));
}

#[tokio::test]
async fn a_missing_program_is_told_by_its_own_name() {
    let missing = |error| {
        let ExecError::Missing { name } = error else { panic!("{error}") };
        name
    };
    let never = Stop::never();
    let command = Cmd::new("program-that-is-not-there");
    assert_eq!(missing(command.detach().unwrap_err()), "program-that-is-not-there");
    assert_eq!(missing(command.clone().interactive(&never).await.unwrap_err()), command.name());
    assert_eq!(missing(command.clone().run(&never).await.unwrap_err()), command.name());
    let path = Cmd::new("/nowhere/program");
    assert_eq!(missing(path.detach().unwrap_err()), "/nowhere/program");
    // What is there, and setsid is not.
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("alone");
    std::os::unix::fs::symlink("/bin/true", &alone).unwrap();
    let command = Cmd::new(&alone).clear_env().env("PATH", dir.path());
    assert_eq!(missing(command.detach().unwrap_err()), "setsid");
    // A folder that is not there is no missing program.
    let error = Cmd::new("true").cwd("/nowhere").run(&never).await.unwrap_err();
    assert!(matches!(error, ExecError::Io { .. }), "{error}");
}

#[test]
fn a_hint_is_a_command_that_can_be_run() {
    for (program, package) in HINTS {
        let hint = hint(program);
        assert!(hint.ends_with(&format!("apt-get install {package})")), "{hint}");
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-._".contains(c);
        assert!(package.chars().all(good), "{package}");
    }
    assert_eq!(hint("something-else"), "");
}

#[tokio::test]
async fn a_program_that_writes_without_end_is_ended() {
    let endless = Cmd::new("yes").arg("x".repeat(8000));
    let error = endless.run(&Stop::never()).await.unwrap_err();
    assert!(matches!(error, ExecError::TooMuch { .. }), "{error}");
}

/// A file that stays open over an exec, as what the caller of Bakehouse left open does.
fn left_open() -> std::os::fd::OwnedFd {
    let (file, flags) = (std::path::Path::new("/etc"), rustix::fs::OFlags::RDONLY);
    rustix::fs::open(file, flags, rustix::fs::Mode::empty()).unwrap()
}

#[tokio::test]
async fn a_program_gets_three_streams_and_nothing_else_that_was_open() {
    let _open = left_open();
    let seen = Cmd::new("sh").args(["-c", "ls -l /proc/$$/fd"]).run(&Stop::never()).await.unwrap().text();
    assert!(seen.contains("0 -> /dev/null") && !seen.contains("/etc"), "{seen}");
}

#[tokio::test]
async fn a_program_has_a_session_of_its_own_and_no_terminal() {
    let stat =
        Cmd::new("sh").args(["-c", "echo $$; cat /proc/$$/stat"]).run(&Stop::never()).await.unwrap().text();
    let (id, stat) = stat.split_once('\n').unwrap();
    // proc(5): after the name state, parent, group, session, terminal.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    assert_eq!((fields[2], fields[3], fields[4]), (id, id, "0"), "{stat}");
}

#[tokio::test]
async fn a_program_apart_from_the_machine_can_never_change_its_kernel() {
    use rustix::thread::{capabilities, set_capabilities};
    // Of this thread alone, as some container engines start a process. Only root may.
    let mut sets = capabilities(None).unwrap();
    sets.inheritable = sets.permitted;
    set_capabilities(None, sets).unwrap();
    let cat = || Cmd::new("cat").arg("/proc/self/status");
    let read = async |command: Cmd| {
        let text = command.run(&Stop::never()).await.unwrap().text();
        ["CapBnd:", "CapPrm:", "CapInh:"].map(|name| {
            let bits = text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
            u64::from_str_radix(bits, 16).unwrap()
        })
    };
    let (all, left) = (read(cat()).await, read(cat().apart_from_the_machine()).await);
    // capabilities(7), linux/capability.h: of network, modules, raw input and output, reboot, time, log and the two of sleep.
    let gone = [12, 16, 17, 22, 25, 34, 35, 36].iter().fold(0, |bits, bit| bits | 1 << bit);
    let expected = if rustix::process::geteuid().is_root() { all.map(|bits| bits & !gone) } else { all };
    assert_eq!(left, expected, "{left:x?} of {all:x?}");
}
