//! Running programs: with a time limit, line by line, ended with their whole process group on a stop.
//! The only place that starts a process.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::sync::mpsc;

use super::stop::Stop;

/// How many of a command's last lines an error shows.
const TAIL_LINES: usize = 20;
/// A line longer than this is cut: output is shown and logged line by line and must not fill the memory.
const LINE_BYTES: usize = 16 * 1024;
/// Time between SIGTERM and SIGKILL when a command is ended.
const GRACE: Duration = Duration::from_secs(3);

/// A program to run. Its standard input is empty unless given.
#[derive(Debug, Clone)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    clear_env: bool,
    cwd: Option<PathBuf>,
    stdin: Vec<u8>,
    timeout: Option<Duration>,
}

/// What a program that ran to its end left.
#[derive(Debug, Clone, Default)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text, without the last newline.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 + n where signal n ended it.
    pub code: i32,
    /// The last lines of both streams, oldest first.
    pub tail: Vec<String>,
}

impl Exit {
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == 0
    }
}

impl Cmd {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            clear_env: false,
            cwd: None,
            stdin: Vec::new(),
            timeout: None,
        }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts with no environment but what `env` sets.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// The program's name, for messages. Arguments are left out: they may hold what must not be shown.
    #[must_use]
    pub fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// Runs it and takes what it wrote; an exit code other than 0 is an error.
    ///
    /// # Errors
    /// [`ExecError`]: not there, failed (with its last lines), out of time, stopped.
    pub async fn run(self, stop: &Stop) -> Result<Output, ExecError> {
        let name = self.name();
        let mut output = Output::default();
        let exit = self
            .stream(stop, &mut |stream, line| {
                let into = match stream {
                    Stream::Out => &mut output.stdout,
                    Stream::Err => &mut output.stderr,
                };
                into.extend_from_slice(line.as_bytes());
                into.push(b'\n');
            })
            .await?;
        if exit.success() {
            Ok(output)
        } else {
            Err(ExecError::Failed { name, code: exit.code, tail: exit.tail })
        }
    }

    /// Runs it and hands every line to `on_line` as it comes. Any exit code is `Ok`.
    ///
    /// # Errors
    /// [`ExecError`]: not there, out of time, stopped.
    pub async fn stream(
        self,
        stop: &Stop,
        on_line: &mut (dyn FnMut(Stream, &str) + Send),
    ) -> Result<Exit, ExecError> {
        let name = self.name();
        if stop.is_requested() {
            return Err(ExecError::Stopped { name });
        }
        let mut child = self.spawn(&name)?;
        let (send, mut lines) = mpsc::channel::<(Stream, String)>(256);
        let mut readers = Vec::new();
        if let Some(out) = child.stdout.take() {
            readers.push(tokio::spawn(read_lines(out, Stream::Out, send.clone())));
        }
        if let Some(err) = child.stderr.take() {
            readers.push(tokio::spawn(read_lines(err, Stream::Err, send.clone())));
        }
        drop(send);
        let feeder = child.stdin.take().map(|mut pipe| {
            let bytes = self.stdin.clone();
            tokio::spawn(async move {
                // A program may end without reading its input: not an error of ours.
                let _ = pipe.write_all(&bytes).await;
            })
        });

        let limit = self.timeout.unwrap_or(Duration::MAX);
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        let mut tail: VecDeque<String> = VecDeque::new();
        let mut status = None;
        let mut open = true;
        // A grandchild may keep the pipes open after the program ended; its lines are waited for only briefly.
        let linger = tokio::time::sleep(Duration::MAX);
        tokio::pin!(linger);
        let ended = loop {
            tokio::select! {
                line = lines.recv(), if open => match line {
                    Some((stream, text)) => {
                        on_line(stream, &text);
                        if tail.len() == TAIL_LINES { tail.pop_front(); }
                        tail.push_back(text);
                    }
                    None => { open = false; if status.is_some() { break Ok(()); } }
                },
                result = child.wait(), if status.is_none() => {
                    status = Some(result.map_err(|source| ExecError::Io { name: name.clone(), source })?);
                    if !open { break Ok(()); }
                    linger.as_mut().reset(tokio::time::Instant::now() + GRACE);
                }
                () = &mut linger, if status.is_some() => break Ok(()),
                () = &mut deadline => break Err(ExecError::TimedOut { name: name.clone(), limit, tail: tail.iter().cloned().collect() }),
                () = stop.requested() => break Err(ExecError::Stopped { name: name.clone() }),
            }
        };
        if let Err(error) = ended {
            end_group(&mut child).await;
            return Err(error);
        }
        for reader in readers {
            reader.abort();
        }
        if let Some(feeder) = feeder {
            feeder.abort();
        }
        use std::os::unix::process::ExitStatusExt;
        let code =
            status.map_or(-1, |status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        Ok(Exit { code, tail: tail.into() })
    }

    fn spawn(&self, name: &str) -> Result<Child, ExecError> {
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command.stdin(if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        if self.clear_env {
            command.env_clear();
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        command.spawn().map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                ExecError::Missing { name: name.to_owned() }
            } else {
                ExecError::Io { name: name.to_owned(), source }
            }
        })
    }

    /// Starts it with this process's own terminal and waits: for shells and consoles.
    ///
    /// # Errors
    /// [`ExecError`]: not there, or the kernel's refusal.
    pub fn interactive(&self) -> Result<Exit, ExecError> {
        let name = self.name();
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args);
        if self.clear_env {
            command.env_clear();
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        let status = command.status().map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                ExecError::Missing { name: name.clone() }
            } else {
                ExecError::Io { name: name.clone(), source }
            }
        })?;
        use std::os::unix::process::ExitStatusExt;
        Ok(Exit {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            tail: Vec::new(),
        })
    }

    /// Starts it in a session of its own, with its streams on the null device, and leaves it running. The caller
    /// keeps the process id; nothing here waits for it.
    ///
    /// # Errors
    /// [`ExecError`]: not there, or the kernel's refusal.
    pub fn detach(&self) -> Result<u32, ExecError> {
        self.detach_on(Stdio::null())
    }

    /// As [`Cmd::detach`], with an open file as its standard input: it holds the locks on that file from its first
    /// moment on.
    ///
    /// # Errors
    /// [`ExecError`]: not there, or the kernel's refusal.
    pub fn detach_holding(&self, file: std::fs::File) -> Result<u32, ExecError> {
        self.detach_on(file.into())
    }

    fn detach_on(&self, stdin: Stdio) -> Result<u32, ExecError> {
        let name = self.name();
        // setsid(1) forks where it must, so that the program outlives this one's terminal and process group.
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let mut command = std::process::Command::new("setsid");
        command.arg(&self.program).args(&self.args).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
        if self.clear_env {
            command.env_clear();
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        let child = command.spawn().map_err(|source| ExecError::Io { name, source })?;
        Ok(child.id())
    }
}

/// Which of a program's streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

async fn read_lines(pipe: impl AsyncRead + Unpin, stream: Stream, send: mpsc::Sender<(Stream, String)>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        let chunk = match reader.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(chunk) => chunk,
        };
        let (taken, whole) = match chunk.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (chunk.len(), false),
        };
        let room = LINE_BYTES.saturating_sub(line.len());
        line.extend_from_slice(&chunk[..taken.min(room)]);
        reader.consume(taken);
        if whole {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            line.clear();
            if send.send((stream, text)).await.is_err() {
                return;
            }
        }
    }
    if !line.is_empty() {
        let text = String::from_utf8_lossy(&line).into_owned();
        // The receiver is gone only where the program was ended: nobody wants the line.
        let _ = send.send((stream, text)).await;
    }
}

async fn end_group(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else {
        return;
    };
    // The group may be gone already; then there is nothing to end.
    let _ = kill_process_group(group, Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait().await;
    }
    let _ = kill_process_group(group, Signal::KILL);
}

/// Why a program did not run to its end, or did so with an exit code that the caller takes for a failure.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("`{name}` is not installed{}", hint(name))]
    Missing { name: String },
    #[error("`{name}` failed with exit code {code}{}", shown(tail))]
    Failed { name: String, code: i32, tail: Vec<String> },
    #[error("`{name}` did not end within {} s and was ended{}", limit.as_secs(), shown(tail))]
    TimedOut { name: String, limit: Duration, tail: Vec<String> },
    #[error("`{name}` was ended because a stop was asked for")]
    Stopped { name: String },
    #[error("cannot run `{name}`")]
    Io { name: String, source: std::io::Error },
}

fn shown(tail: &[String]) -> String {
    if tail.is_empty() { String::new() } else { format!("; its last lines:\n    {}", tail.join("\n    ")) }
}

/// Which Debian package brings a program, for the error that says that it is missing.
fn hint(name: &str) -> String {
    let package = match name {
        "mmdebstrap" => "mmdebstrap",
        "sfdisk" => "fdisk",
        "blkid" | "losetup" | "fstrim" | "prlimit" | "unshare" | "nsenter" | "setsid" => "util-linux",
        "mke2fs" | "resize2fs" | "e2fsck" | "tune2fs" => "e2fsprogs",
        "grub-mkimage" => "grub2-common (grub-common)",
        "mformat" | "mcopy" | "mmd" => "mtools",
        "qemu-system-x86_64" => "qemu-system-x86",
        "qemu-img" => "qemu-utils",
        "xorriso" => "xorriso",
        "ansible-playbook" => "ansible-core",
        _ => return String::new(),
    };
    format!(" (on Debian and Ubuntu: apt-get install {package})")
}

#[cfg(test)]
mod tests {
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

    #[tokio::test]
    async fn a_command_out_of_time_is_ended_with_its_children() {
        let error = Cmd::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .timeout(Duration::from_millis(100))
            .run(&Stop::never())
            .await
            .unwrap_err();
        assert!(matches!(error, ExecError::TimedOut { .. }));
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
    async fn a_missing_program_names_its_package() {
        let error = Cmd::new("mmdebstrap-that-is-not-there").run(&Stop::never()).await.unwrap_err();
        assert!(matches!(error, ExecError::Missing { .. }));
        assert!(hint("sfdisk").contains("fdisk"));
    }
}
