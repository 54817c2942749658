//! Processes that outlived the one that started them: known by a folder that they have their root, their program or an
//! open file in, or that something is mounted in, in a mount namespace of their own; or by a variable of their environment.
//!
//! Must never: end this process, one of those that started it, or one that only sits in the folder, as a person's
//! shell may.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long a killed process may take to be gone: it may be writing to a slow disk.
const DYING: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Files of a work folder that any process may look into for a moment, to see whose it is.
const LOOKED_INTO: [&str; 4] = ["lock", "entered", "kept.json", "ledger.jsonl"];

/// A process that was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    pid: i32,
    /// Its short name.
    command: String,
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// Those of `folder`, and those that have one of the block devices (major, minor) mounted in a namespace of their own.
#[must_use]
pub fn of(folder: &Path, devices: &[(u32, u32)]) -> Vec<Survivor> {
    search(folder, devices).into_iter().map(|(survivor, _)| survivor).collect()
}

/// Kills them and waits until they are gone.
pub async fn end(folder: &Path, devices: &[(u32, u32)]) -> Vec<Result<Survivor, SurvivorError>> {
    let mut ended = Vec::new();
    for (survivor, process) in search(folder, devices) {
        let failed = |source: io::Error| SurvivorError { survivor: survivor.clone(), source };
        match pidfd_send_signal(&process, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                ended.push(Err(failed(error.into())));
                continue;
            }
        }
        let began = tokio::time::Instant::now();
        // A dead one that nobody waited for holds nothing any more.
        while is_alive(survivor.pid) {
            if began.elapsed() > DYING {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        ended.push(if is_alive(survivor.pid) {
            Err(failed(io::ErrorKind::TimedOut.into()))
        } else {
            Ok(survivor)
        });
    }
    ended
}

/// Whether a process has anything still: a zombie has not.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}

/// Ends those that have a variable with this value in their environment: with so much time to clean up, since they are
/// programs of their own.
pub async fn end_by_variable(name: &str, value: &OsStr, time_to_end: Duration) -> Vec<Survivor> {
    let entry = [name.as_bytes(), b"=", value.as_encoded_bytes()].concat();
    let has_it = |process: &Path| {
        let all = std::fs::read(process.join("environ")).unwrap_or_default();
        all.split(|byte| *byte == 0).any(|one| one == entry)
    };
    let found = processes(has_it);
    for (_, process) in &found {
        // One that is gone by now needs nothing.
        let _ = pidfd_send_signal(process, Signal::TERM);
    }
    let began = tokio::time::Instant::now();
    while found.iter().any(|(survivor, _)| is_alive(survivor.pid)) && began.elapsed() < time_to_end {
        tokio::time::sleep(LOOK).await;
    }
    for (_, process) in &found {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    found.into_iter().map(|(survivor, _)| survivor).collect()
}

fn search(folder: &Path, devices: &[(u32, u32)]) -> Vec<(Survivor, OwnedFd)> {
    // As the kernel shows it.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let own = super::namespace::mounts_below(&folder).unwrap_or_default();
    processes(|process| belongs(process, &folder, devices, &own))
}

/// Those that are meant, but for this one and those that it descends from.
fn processes(is_meant: impl Fn(&Path) -> bool) -> Vec<(Survivor, OwnedFd)> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let spared = lineage();
    let mut found: Vec<_> = processes
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            if spared.contains(&pid) {
                return None;
            }
            // Opened before it is looked at: whoever gets its number later is not meant.
            let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
            if !is_meant(&entry.path()) || !is_alive(pid) {
                return None;
            }
            let command = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            Some((Survivor { pid, command: command.trim_end().to_owned() }, process))
        })
        .collect();
    found.sort_by_key(|(survivor, _)| survivor.pid);
    found
}

/// `own` is what is mounted below the folder here: every namespace that was made from this one has it too.
fn belongs(process: &Path, folder: &Path, devices: &[(u32, u32)], own: &[PathBuf]) -> bool {
    let below = |link: &Path| {
        let target = std::fs::read_link(link).ok()?;
        target.strip_prefix(folder).ok().map(Path::to_owned)
    };
    if ["root", "exe"].iter().any(|name| below(&process.join(name)).is_some()) {
        return true;
    }
    let looked_into = |inside: &PathBuf| LOOKED_INTO.iter().any(|name| inside == Path::new(name));
    let open = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    if open.filter_map(|one| below(&one.path())).any(|inside| !looked_into(&inside)) {
        return true;
    }
    let namespace = |process: &Path| std::fs::read_link(process.join("ns/mnt")).ok();
    if namespace(process) == namespace(Path::new("/proc/thread-self")) {
        return false;
    }
    let mounts = std::fs::read(process.join("mountinfo")).unwrap_or_default();
    mounts.split(|byte| *byte == b'\n').any(|line| {
        let mut words = line.split(|byte| *byte == b' ').skip(2);
        let device = words.next().and_then(device);
        // proc(5): ID PARENT MAJOR:MINOR ROOT POINT and more.
        let point = words.nth(1).map(super::namespace::path_of).unwrap_or_default();
        let theirs = device.is_some_and(|device| devices.contains(&device)) || point.starts_with(folder);
        theirs && !own.contains(&point)
    })
}

fn device(word: &[u8]) -> Option<(u32, u32)> {
    let (major, minor) = std::str::from_utf8(word).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// This process and those that it descends from.
fn lineage() -> BTreeSet<i32> {
    let mut line = BTreeSet::new();
    let mut next = i32::try_from(std::process::id()).ok();
    while let Some(pid) = next.filter(|pid| *pid > 0) {
        if !line.insert(pid) {
            break;
        }
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // proc_pid_stat(5): the state, then the parent.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        next = parent.and_then(|parent| parent.parse().ok());
    }
    line
}

#[derive(Debug, thiserror::Error)]
#[error("{survivor}, which a killed bake left, cannot be ended: {source}")]
pub struct SurvivorError {
    survivor: Survivor,
    source: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::exec::Cmd;
    use crate::host::stop::Stop;

    #[tokio::test]
    async fn who_has_a_variable_is_ended_and_has_time_to_clean_up() {
        let dir = tempfile::tempdir().unwrap();
        let run = |value: &'static str, line: &str| {
            let command = Cmd::new("sh").args(["-c", line]).env("BAKEHOUSE_SURVIVOR", value).cwd(dir.path());
            tokio::spawn(async move { command.stream(&Stop::never(), &mut |_, _| {}).await })
        };
        let cleans = run("this", "trap 'echo >cleaned; exit 3' TERM; echo >up; sleep 1000 & wait");
        let other = run("this-other", "echo >other; exec sleep 1000");
        while !["up", "other"].iter().all(|file| dir.path().join(file).exists()) {
            tokio::time::sleep(LOOK).await;
        }
        let ended = end_by_variable("BAKEHOUSE_SURVIVOR", OsStr::new("this"), Duration::from_secs(60)).await;
        assert!(!ended.is_empty());
        assert_eq!(cleans.await.unwrap().unwrap().code, 3);
        assert!(dir.path().join("cleaned").exists() && !other.is_finished());
    }

    #[tokio::test]
    async fn who_has_a_file_open_below_is_ended_and_who_only_sits_there_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, other) = (dir.path().join("work"), dir.path().join("other"));
        for folder in [&folder, &other] {
            std::fs::create_dir(folder).unwrap();
        }
        let stop = Stop::never();
        let sleep = |line: &str, cwd: &Path| {
            let command = Cmd::new("sh").args(["-c", line]).cwd(cwd);
            let stop = stop.clone();
            tokio::spawn(async move { command.stream(&stop, &mut |_, _| {}).await })
        };
        let open = sleep("exec sleep 1000 >disk.raw", &folder);
        let sits = sleep("exec sleep 1000", &folder);
        let looks = sleep("exec sleep 1000 >lock", &folder);
        let elsewhere = sleep("exec sleep 1000 >disk.raw", &other);
        while !["work/disk.raw", "work/lock", "other/disk.raw"]
            .iter()
            .all(|file| dir.path().join(file).exists())
            || of(&folder, &[]).iter().all(|one| one.command != "sleep")
        {
            tokio::time::sleep(LOOK).await;
        }
        // An open file of this very process is no reason to end it.
        let _own = std::fs::File::create(folder.join("own")).unwrap();
        let ended = end(&folder, &[]).await;
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert_eq!(open.await.unwrap().unwrap().code, 128 + libc::SIGKILL);
        assert!(of(&folder, &[]).is_empty());
        assert!(![sits, looks, elsewhere].iter().any(tokio::task::JoinHandle::is_finished));
        stop.request(libc::SIGTERM);
    }
}
