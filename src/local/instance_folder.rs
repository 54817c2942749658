//! The folder of an instance of the local cloud: its record, its console, whether its QEMU lives and how that is ended.
//!
//! `alive` is locked by the QEMU, `launching` by the launch while it is under way; `process` is the number of the
//! process group, which is killed only where it still is the process that left it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use super::durable;
use super::metadata::Identity;
use crate::cloud::{ImageId, InstanceState, Tags, VolumeKind};
use crate::host::clock;

/// Bytes of a console that EC2 keeps.
const CONSOLE_WINDOW: u64 = 64 * 1024;

/// The version of [`Record`]. One that is higher is not read.
pub(super) const VERSION: u32 = 1;

/// What is kept of an instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) identity: Identity,
    pub(super) image: ImageId,
    pub(super) tags: Tags,
    pub(super) token: String,
    /// The digest of what was asked for under this token.
    pub(super) request: String,
    pub(super) lifetime_seconds: u32,
    pub(super) launched: Timestamp,
    /// Whether its disk is to become an image: it is stopped, and not terminated, when it powers itself off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) build: bool,
    /// What its root volume is to be of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<VolumeKind>,
    /// The port of the loopback address that leads to its ssh, where commands are sent to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    /// Set when its disk is gone.
    pub(super) ended: Option<Ended>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Ended {
    pub(super) at: Timestamp,
    pub(super) reason: String,
}

/// An instance's folder.
pub(super) struct InstanceFolder(pub(super) PathBuf);

impl InstanceFolder {
    pub(super) fn read(&self) -> io::Result<Option<Record>> {
        let record: Option<Record> =
            durable::read_json(&self.0.join("instance.json")).map_err(io::Error::other)?;
        match &record {
            Some(Record { version, .. }) if *version > VERSION => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("its record has version {version}; use the newer program"),
            )),
            _ => Ok(record),
        }
    }

    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        durable::write_json(&self.0.join("instance.json"), record).map_err(io::Error::other)
    }

    /// Whether its QEMU lives.
    pub(super) fn runs(&self) -> io::Result<bool> {
        held(&self.0.join("alive"))
    }

    /// What it is, and why where it ended.
    pub(super) fn state(&self, record: &Record) -> io::Result<(InstanceState, Option<String>)> {
        if let Some(ended) = &record.ended {
            return Ok((InstanceState::Terminated, Some(ended.reason.clone())));
        }
        // In this order: a launch holds its lock until QEMU has the other.
        if held(&self.0.join("launching"))? {
            return Ok((InstanceState::Pending, None));
        }
        if self.runs()? {
            return Ok((InstanceState::Running, None));
        }
        if !self.0.join("process").exists() {
            return Ok((InstanceState::Terminated, Some("its launch was broken off".to_owned())));
        }
        let lived = clock::wall().duration_since(record.launched).as_secs();
        let reason = if lived >= i64::from(record.lifetime_seconds) {
            format!("its life of {} s was over", record.lifetime_seconds)
        } else {
            self.last_words()
                .unwrap_or_else(|| "the guest powered itself off, or its QEMU was killed".to_owned())
        };
        // Without its disk its launch was broken off.
        let stopped = record.build && self.0.join("disk.raw").exists();
        let state = if stopped { InstanceState::Stopped } else { InstanceState::Terminated };
        Ok((state, Some(reason)))
    }

    /// What QEMU said at its end; warnings that it gives on a good day are nothing.
    pub(super) fn last_words(&self) -> Option<String> {
        let log = std::fs::read(self.0.join("qemu.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> =
            text.lines().filter(|line| !line.trim().is_empty() && !line.contains("warning:")).collect();
        (!lines.is_empty()).then(|| lines[lines.len().saturating_sub(10)..].join("; "))
    }

    /// Kills its process group. Nothing is done where its process is gone, whoever has its number now.
    pub(super) fn kill(&self) -> io::Result<()> {
        let kept = match std::fs::read_to_string(self.0.join("process")) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(kept) = Process::parse(&kept) else {
            return Ok(());
        };
        let now = std::fs::read_to_string(format!("/proc/{}/stat", kept.id)).unwrap_or_default();
        if Process::parse(&now) != Some(kept) {
            return Ok(());
        }
        let Some(group) = Pid::from_raw(kept.id) else {
            return Ok(());
        };
        match kill_process_group(group, Signal::KILL) {
            // It ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes its disk away and keeps its record and the end of its console.
    pub(super) fn end(&self, mut record: Record, reason: String) -> io::Result<()> {
        for name in ["disk.raw", "variables.fd", "user-data", "metadata.json", "key", "key.pub"] {
            match std::fs::remove_file(self.0.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let window = self.console()?;
        std::fs::write(self.0.join("console.log"), window)?;
        record.ended = Some(Ended { at: clock::wall(), reason });
        self.write(&record)
    }

    pub(super) fn console(&self) -> io::Result<Vec<u8>> {
        let mut file = match File::open(self.0.join("console.log")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_WINDOW)))?;
        let mut window = Vec::new();
        // Bounded also where the guest writes faster than this reads.
        file.take(CONSOLE_WINDOW).read_to_end(&mut window)?;
        Ok(window)
    }
}

/// A process that no later one is taken for: its id and when it began, in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    id: i32,
    began: u64,
}

impl Process {
    /// Reads `/proc/ID/stat` (proc(5)). The name in it may hold anything, also spaces and brackets.
    fn parse(stat: &str) -> Option<Self> {
        let (front, rest) = stat.rsplit_once(')')?;
        Some(Self {
            id: front.split('(').next()?.trim().parse().ok()?,
            // The 22nd field; the first after the name is the 3rd.
            began: rest.split_whitespace().nth(19)?.parse().ok()?,
        })
    }
}

/// Whether somebody holds the lock on `path`. Asks for a shared lock, so that two who ask do not take each other for
/// its holder.
pub(super) fn held(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::lock::FileLock;

    #[test]
    fn processes_are_told_apart_by_when_they_began() {
        let tail = "S 1 2 2 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        let process = Process::parse(&format!("42 (a) b (c)) {tail}")).unwrap();
        assert_eq!(process, Process { id: 42, began: 12345 });
        for bad in ["", "42", "42 (a", "42 (a) S 1", "x (a) S"] {
            assert_eq!(Process::parse(bad), None, "{bad}");
        }
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert_eq!(Process::parse(&own).map(|process| process.id), i32::try_from(std::process::id()).ok());
    }

    #[test]
    fn a_lock_is_seen_while_it_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!held(&path).unwrap());
        let lock = FileLock::exclusive(&path).unwrap();
        assert!(held(&path).unwrap());
        drop(lock);
        assert!(!held(&path).unwrap());
    }
}
