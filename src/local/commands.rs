//! Commands in instances of the local cloud: over ssh, through a port of the loopback address that QEMU forwards. The key
//! was made for this one instance, and lies in its folder. What runs is known to this process only: with it a command ends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::instance_folder::InstanceFolder;
use super::objects::LocalObjects;
use super::place::LocalPlace;
use crate::cloud::{
    CloudError, CommandId, CommandState, Commands, ErrorKind, Execution, InstanceId, InstanceState,
    NewCommand, ObjectContent, Objects, OutputTo, REBOOT, Result, Tags,
};
use crate::host::exec::{Cmd, ExecError, Exit, Stream};
use crate::host::stop::Stop;

/// As SSM's answers are cut (GetCommandInvocation): characters of each stream.
const OUTPUT: usize = 24_000;
const ERRORS: usize = 8_000;
/// Bytes of a command's output that are kept at all.
const LARGEST: usize = 64 << 20;
/// The exit code of ssh where it did not reach the machine (ssh(1)).
const UNREACHED: i32 = 255;
/// For one try to get in: a machine in software emulation is slow to answer.
const CONNECTING: Duration = Duration::from_secs(30);
const REBOOTING: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct LocalCommands {
    here: LocalPlace,
    known: Arc<Mutex<HashMap<String, Known>>>,
}

#[derive(Debug)]
struct Known {
    execution: Execution,
    stop: tokio::task::AbortHandle,
}

/// The way into one instance.
#[derive(Clone, Debug)]
struct Way {
    key: PathBuf,
    port: u16,
}

impl Way {
    fn ssh(&self, command: &str) -> Cmd {
        let options = [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            // It is the guest of the process that holds this port, whatever its key.
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=20",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=8",
        ];
        Cmd::new("ssh")
            .args(["-F", "/dev/null", "-T", "-p", &self.port.to_string(), "-i"])
            .arg(&self.key)
            .args(options.iter().flat_map(|option| ["-o", *option]))
            .args(["root@127.0.0.1", command])
    }

    /// What one boot is told from another by.
    async fn boot_id(&self) -> Option<String> {
        let command = self.ssh("cat /proc/sys/kernel/random/boot_id").timeout(CONNECTING);
        command.run(&Stop::never()).await.ok().map(|output| output.text())
    }

    /// Restarts the machine and waits until it is there again.
    async fn reboot(&self) -> bool {
        let before = self.boot_id().await;
        // It may be gone before it answers.
        let _ = self
            .ssh("sync; systemctl reboot 2>/dev/null || reboot")
            .timeout(CONNECTING)
            .run(&Stop::never())
            .await;
        let began = tokio::time::Instant::now();
        while began.elapsed() < REBOOTING {
            tokio::time::sleep(LOOK).await;
            let now = self.boot_id().await;
            if now.is_some() && now != before {
                return true;
            }
        }
        false
    }

    async fn run(&self, script: &str) -> Execution {
        let mut execution = Execution {
            state: CommandState::Running,
            output: String::new(),
            errors: String::new(),
            cut: false,
            object: None,
        };
        loop {
            let mut on_line = |stream: Stream, line: &str| {
                let into = match stream {
                    Stream::Out => &mut execution.output,
                    Stream::Err => &mut execution.errors,
                };
                if into.len() < LARGEST {
                    into.push_str(line);
                    into.push('\n');
                }
            };
            let result = self
                .ssh("exec /bin/sh -s")
                .stdin(script.as_bytes().to_vec())
                .stream(&Stop::never(), &mut on_line)
                .await;
            execution.state = match result {
                Ok(Exit { code: REBOOT, .. }) if self.reboot().await => continue,
                Ok(Exit { code: REBOOT | UNREACHED, .. }) => CommandState::Undelivered,
                Ok(Exit { code, .. }) => CommandState::Ended(code),
                Err(ExecError::TimedOut { .. }) => CommandState::TimedOut,
                Err(error) => {
                    execution.errors.push_str(&error.to_string());
                    CommandState::Undelivered
                }
            };
            return execution;
        }
    }
}

impl LocalCommands {
    pub(super) fn new(here: LocalPlace) -> Self {
        Self { here, known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        // Whoever panicked while it held the lock had put in one command as a whole or not at all.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, operation: &'static str, kind: ErrorKind, code: &str, message: String) -> CloudError {
        CloudError::new(kind, operation, &self.here.place, message).with_code(code)
    }

    fn way(&self, operation: &'static str, id: &InstanceId) -> Result<Option<Way>> {
        let folder = self.here.store.place_dir(&self.here.place).join("instances").join(id.as_str());
        let unreadable = |source| {
            CloudError::new(
                ErrorKind::Unknown,
                operation,
                &self.here.place,
                format!("{id} cannot be looked at"),
            )
            .with_source(source)
        };
        let home = InstanceFolder(folder.clone());
        let Some(record) = home.read().map_err(unreadable)? else { return Ok(None) };
        let (state, _) = home.state(&record).map_err(unreadable)?;
        let port = record.port.filter(|_| state == InstanceState::Running);
        Ok(port.map(|port| Way { key: key(&folder), port }))
    }
}

/// Cuts what a command wrote as SSM does; all of it is in an object then, where that was asked for.
async fn kept(
    mut execution: Execution,
    output: Option<OutputTo>,
    objects: &LocalObjects,
    id: &str,
) -> Execution {
    let Some((at, _)) = execution.output.char_indices().nth(OUTPUT) else { return execution };
    if let Some(OutputTo { bucket, prefix }) = output {
        let key = format!("{prefix}/{id}/stdout");
        let content = ObjectContent::Bytes(execution.output.clone().into());
        // As an agent that may not write to the bucket: then there is no more than the answer.
        if objects.put(&bucket, &key, &content, &Tags::new()).await.is_ok() {
            execution.object = Some(key);
        }
    }
    execution.output.truncate(at);
    execution.cut = true;
    if let Some((at, _)) = execution.errors.char_indices().nth(ERRORS) {
        execution.errors.truncate(at);
    }
    execution
}

/// Asks a guest to power itself off; whether it does is seen.
pub(super) async fn power_off(folder: &Path, port: u16) {
    let way = Way { key: key(folder), port };
    let command = way.ssh("sync; systemctl poweroff 2>/dev/null || poweroff").timeout(CONNECTING);
    // It may be gone before it answers; one that cannot be asked is ended by force.
    let _ = command.run(&Stop::never()).await;
}

/// The private key of an instance.
pub(super) fn key(folder: &Path) -> PathBuf {
    folder.join("key")
}

#[async_trait]
impl Commands for LocalCommands {
    async fn ready(&self, instance: &InstanceId) -> Result<bool> {
        let Some(way) = self.way("DescribeInstanceInformation", instance)? else { return Ok(false) };
        match way.ssh("true").timeout(CONNECTING).run(&Stop::never()).await {
            Ok(_) => Ok(true),
            Err(error @ ExecError::Missing { .. }) => Err(CloudError::new(
                ErrorKind::Invalid,
                "DescribeInstanceInformation",
                &self.here.place,
                "ssh is not installed (on Debian and Ubuntu: apt-get install openssh-client)",
            )
            .with_source(error)),
            Err(_) => Ok(false),
        }
    }

    async fn send(&self, instance: &InstanceId, new: &NewCommand) -> Result<CommandId> {
        let way = self.way("SendCommand", instance)?.ok_or_else(|| {
            let message = format!("{instance} does not run, or takes no commands");
            self.refused("SendCommand", ErrorKind::Invalid, "InvalidInstanceId", message)
        })?;
        let id = CommandId(uuid::Uuid::new_v4().to_string());
        let (script, within, known, name) =
            (new.script.clone(), new.within, self.known.clone(), id.0.clone());
        let (output, objects) = (new.output.clone(), LocalObjects(self.here.clone()));
        let mut all = self.known();
        let task = tokio::spawn(async move {
            let execution = match tokio::time::timeout(within, way.run(&script)).await {
                Ok(execution) => kept(execution, output, &objects, &name).await,
                Err(_) => Execution {
                    state: CommandState::TimedOut,
                    output: String::new(),
                    errors: String::new(),
                    cut: false,
                    object: None,
                },
            };
            if let Some(kept) = known.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&name) {
                kept.execution = execution;
            }
        });
        let execution = Execution {
            state: CommandState::Running,
            output: String::new(),
            errors: String::new(),
            cut: false,
            object: None,
        };
        all.insert(id.0.clone(), Known { execution, stop: task.abort_handle() });
        Ok(id)
    }

    async fn poll(&self, _: &InstanceId, id: &CommandId) -> Result<Execution> {
        self.known().get(&id.0).map(|known| known.execution.clone()).ok_or_else(|| {
            let message = format!("there is no command {}", id.0);
            self.refused("GetCommandInvocation", ErrorKind::NotFound, "InvocationDoesNotExist", message)
        })
    }

    async fn cancel(&self, _: &InstanceId, id: &CommandId) -> Result<()> {
        if let Some(known) = self.known().get_mut(&id.0)
            && known.execution.state == CommandState::Running
        {
            known.stop.abort();
            known.execution.state = CommandState::Cancelled;
        }
        Ok(())
    }

    fn agent(&self) -> &'static str {
        // cloud-init gives root the key that the metadata service names; sshd is the image's own.
        ""
    }

    /// In software emulation a boot takes a minute or two, and twice that beside other work.
    fn ready_within(&self) -> Duration {
        Duration::from_secs(600)
    }
}
