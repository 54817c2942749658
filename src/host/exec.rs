//! Running programs: with a time limit, line by line, ended with their whole process group on a stop.
//! The only place that starts a process.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::stop::Stop;

mod apart;
mod dialogue;

use apart::Apart;
pub use dialogue::{Dialogue, Heard};

/// How many of a command's last lines an error shows.
const TAIL_LINES: usize = 20;
/// A line longer than this is cut: output is shown and logged line by line and must not fill the memory.
/// `report::mask` shows less of a line than this, so that a secret at the cut is known as one.
const LINE_BYTES: usize = 16 * 1024;
/// What is taken of a program's output as a whole: a list of 100,000 packages is a tenth of it.
const LARGEST_OUTPUT: usize = 64 * 1024 * 1024;
/// Lines that wait to be looked at; a program that writes faster waits too.
const LINES: usize = 256;
/// Time between SIGTERM and SIGKILL when a command is ended.
const GRACE: Duration = Duration::from_secs(3);
/// How often is looked whether a group has ended.
const LOOK: Duration = Duration::from_millis(200);

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
    time_to_end: Option<Duration>,
    apart: Apart,
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
            time_to_end: None,
            apart: Apart::default(),
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

    /// When it is stopped, all that it started in its process group has so long to end by itself, and not only the program.
    #[must_use]
    pub fn time_to_end(mut self, limit: Duration) -> Self {
        self.time_to_end = Some(limit);
        self
    }

    /// It, and all that it starts, can change files and processes, but not the machine's kernel: no module, no clock, no
    /// network's settings, no reboot, whoever it runs as.
    #[must_use]
    pub fn apart_from_the_machine(mut self) -> Self {
        self.apart.machine = true;
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
    /// [`ExecError`]: not there, failed (with its last lines), wrote too much, out of time, stopped.
    pub async fn run(self, stop: &Stop) -> Result<Output, ExecError> {
        let name = self.name();
        let mut output = Output::default();
        let exit = self
            .follow(stop, &mut |stream, line| {
                let into = match stream {
                    Stream::Out => &mut output.stdout,
                    Stream::Err => &mut output.stderr,
                };
                into.extend_from_slice(line.as_bytes());
                into.push(b'\n');
                if into.len() > LARGEST_OUTPUT { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
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
        self.follow(stop, &mut |stream, line| {
            on_line(stream, line);
            ControlFlow::Continue(())
        })
        .await
    }

    /// As [`Cmd::stream`], until `on_line` breaks off: then it wrote more than it may.
    async fn follow(
        self,
        stop: &Stop,
        on_line: &mut (dyn FnMut(Stream, &str) -> ControlFlow<()> + Send),
    ) -> Result<Exit, ExecError> {
        let name = self.name();
        if stop.is_requested() {
            return Err(ExecError::Stopped { name });
        }
        let mut program = self.start(!self.stdin.is_empty())?;
        let (send, mut lines) = mpsc::channel::<(Stream, String)>(LINES);
        // Ended with this call: who still holds the pipes is not waited for.
        let mut tasks = JoinSet::new();
        if let Some(out) = program.child.stdout.take() {
            tasks.spawn(read_lines(out, Stream::Out, send.clone()));
        }
        if let Some(err) = program.child.stderr.take() {
            tasks.spawn(read_lines(err, Stream::Err, send.clone()));
        }
        drop(send);
        if let Some(mut pipe) = program.child.stdin.take() {
            let bytes = self.stdin.clone();
            tasks.spawn(async move {
                // A program may end without reading its input: not an error of ours.
                let _ = pipe.write_all(&bytes).await;
            });
        }

        let limit = self.timeout.unwrap_or(Duration::MAX);
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        let mut tail: VecDeque<String> = VecDeque::new();
        let mut status = None;
        let mut open = true;
        // A grandchild may keep the pipes open after the program ended; its lines are waited for only briefly, and then
        // it is ended too.
        let linger = tokio::time::sleep(Duration::MAX);
        tokio::pin!(linger);
        let ended = loop {
            tokio::select! {
                line = lines.recv(), if open => match line {
                    Some((stream, text)) => {
                        if on_line(stream, &text).is_break() {
                            break Err(ExecError::TooMuch { name: name.clone() });
                        }
                        if tail.len() == TAIL_LINES { tail.pop_front(); }
                        tail.push_back(text);
                    }
                    None => { open = false; if status.is_some() { program.let_go(); break Ok(()); } }
                },
                result = program.child.wait(), if status.is_none() => {
                    status = Some(result.map_err(|source| ExecError::Io { name: name.clone(), source })?);
                    if !open { program.let_go(); break Ok(()); }
                    linger.as_mut().reset(tokio::time::Instant::now() + GRACE);
                }
                () = &mut linger, if status.is_some() => { program.kill(); break Ok(()); }
                () = &mut deadline => break Err(ExecError::TimedOut { name: name.clone(), limit, tail: tail.iter().cloned().collect() }),
                () = stop.requested() => break Err(ExecError::Stopped { name: name.clone() }),
            }
        };
        if let Err(error) = ended {
            program.end().await;
            return Err(error);
        }
        Ok(Exit { code: status.map_or(-1, code), tail: tail.into() })
    }

    /// `input`: whether something will be written into it.
    fn start(&self, input: bool) -> Result<Running, ExecError> {
        let mut command = self.command(None);
        // Its session is a process group, too.
        Apart { session: true, ..self.apart }.keep(&mut command);
        let mut command = tokio::process::Command::from(command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.stdin(if input { Stdio::piped() } else { Stdio::null() });
        let child = command.spawn().map_err(|source| self.refused(&self.program, source))?;
        // Noted now: a child that was waited for has no id any more, and its group may live on.
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Running { child, group, time_to_end: self.time_to_end })
    }

    /// The program with its arguments, environment and folder; `through` is a program that starts it.
    fn command(&self, through: Option<&str>) -> std::process::Command {
        let first = through.map_or(self.program.as_os_str(), OsStr::new);
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let mut command = std::process::Command::new(first);
        if through.is_some() {
            command.arg(&self.program);
        }
        command.args(&self.args);
        if self.clear_env {
            command.env_clear();
        } else {
            // With ours: what a program leaves goes with it.
            command.env("TMPDIR", tempfile::env::temp_dir());
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        command
    }

    /// Why `program` could not be started. A folder to start in that is not there gives the same error of the
    /// kernel's as a program that is not there.
    fn refused(&self, program: &OsStr, source: std::io::Error) -> ExecError {
        let name = program.to_string_lossy().into_owned();
        if source.kind() == std::io::ErrorKind::NotFound && self.cwd.as_ref().is_none_or(|dir| dir.is_dir()) {
            ExecError::Missing { name }
        } else {
            ExecError::Io { name, source }
        }
    }

    /// Starts it with this process's own terminal, in its process group, and waits: for shells and consoles. A stop
    /// ends the program itself; what it started is its own to end.
    ///
    /// # Errors
    /// [`ExecError`]: not there, stopped, or the kernel's refusal.
    pub async fn interactive(self, stop: &Stop) -> Result<Exit, ExecError> {
        let name = self.name();
        if stop.is_requested() {
            return Err(ExecError::Stopped { name });
        }
        let mut command = self.command(None);
        self.apart.keep(&mut command);
        let mut command = tokio::process::Command::from(command);
        let mut child =
            command.kill_on_drop(true).spawn().map_err(|source| self.refused(&self.program, source))?;
        let status = tokio::select! {
            status = child.wait() => status.map_err(|source| ExecError::Io { name, source })?,
            () = stop.requested() => {
                if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
                    // It may have ended by itself: then there is nothing to end.
                    let _ = kill_process(id, Signal::TERM);
                }
                if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                    // As above; and after this nothing can keep it.
                    let _ = child.kill().await;
                }
                return Err(ExecError::Stopped { name });
            }
        };
        Ok(Exit { code: code(status), tail: Vec::new() })
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
        // Looked for here: setsid would tell it on its standard error, which nobody reads.
        if !self.is_there() {
            return Err(ExecError::Missing { name: self.name() });
        }
        // setsid(1) forks where it must, so that the program outlives this one's terminal and process group.
        const SETSID: &str = "setsid";
        let mut command = self.command(Some(SETSID));
        self.apart.keep(&mut command);
        command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|source| self.refused(OsStr::new(SETSID), source))?;
        Ok(child.id())
    }

    /// Whether the program's file is there, as execvp(3) looks for it.
    fn is_there(&self) -> bool {
        let here = self.cwd.clone().unwrap_or_default();
        if self.program.as_encoded_bytes().contains(&b'/') {
            return here.join(&self.program).exists();
        }
        let given = self.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
        let own = || if self.clear_env { None } else { std::env::var_os("PATH") };
        // Without PATH it is execvp's own: /bin:/usr/bin.
        let path = given.or_else(own).unwrap_or_else(|| "/bin:/usr/bin".into());
        std::env::split_paths(&path).any(|folder| here.join(folder).join(&self.program).exists())
    }
}

/// The exit code of a program that ended; 128 + n where signal n ended it.
fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Whether a process group has a process that is no zombie: who took over the dead ones may never ask for them.
fn is_alive(group: Pid) -> bool {
    let group = group.as_raw_nonzero().to_string();
    std::fs::read_dir("/proc").into_iter().flatten().flatten().any(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // proc_pid_stat(5): behind the name in parentheses the state, the parent, the group.
        let mut words = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let state = words.next();
        words.nth(1) == Some(&group) && state.is_some_and(|state| state != "Z" && state != "X")
    })
}

/// A program under way in a process group of its own. Dropped before it was let go, it takes the whole group along.
#[derive(Debug)]
struct Running {
    child: Child,
    /// The group's id, which is the program's. It stands for this group after the program itself has ended too: the
    /// kernel gives a number again only when it has been once around all others.
    group: Option<Pid>,
    /// How long the whole group has to end when it is told to; `None`: [`GRACE`], and no longer than the program lives.
    time_to_end: Option<Duration>,
}

impl Running {
    /// The program ended by itself, and nobody holds its pipes: what it left behind on purpose may stay.
    fn let_go(&mut self) {
        self.group = None;
    }

    fn kill(&mut self) {
        if let Some(group) = self.group.take() {
            // The group may be gone already; then there is nothing to end.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Gives the program time to end, then kills the group.
    async fn end(mut self) {
        if let Some(group) = self.group {
            // As in `kill`.
            let _ = kill_process_group(group, Signal::TERM);
        }
        // At once where it has ended already: those that outlive their leader get no time of their own, unless they were
        // promised some.
        let _ = tokio::time::timeout(self.time_to_end.unwrap_or(GRACE), async {
            // It is reaped by this, and else would count as one of its group.
            let _ = self.child.wait().await;
            while self.time_to_end.is_some() && self.group.is_some_and(is_alive) {
                tokio::time::sleep(LOOK).await;
            }
        })
        .await;
        self.kill();
        let _ = self.child.wait().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
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

/// Why a program did not run to its end, or did so with an exit code that the caller takes for a failure.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("`{name}` is not installed{}", hint(name))]
    Missing { name: String },
    #[error("`{name}` failed with exit code {code}{}", shown(tail))]
    Failed { name: String, code: i32, tail: Vec<String> },
    #[error("`{name}` did not end within {} s and was ended{}", limit.as_secs(), shown(tail))]
    TimedOut { name: String, limit: Duration, tail: Vec<String> },
    #[error("`{name}` wrote more than {} MiB and was ended", LARGEST_OUTPUT >> 20)]
    TooMuch { name: String },
    #[error("`{name}` was ended because a stop was asked for")]
    Stopped { name: String },
    #[error("cannot run `{name}`")]
    Io { name: String, source: std::io::Error },
}

fn shown(tail: &[String]) -> String {
    if tail.is_empty() { String::new() } else { format!("; its last lines:\n    {}", tail.join("\n    ")) }
}

/// Which Debian package brings a program.
const HINTS: [(&str, &str); 31] = [
    ("mmdebstrap", "mmdebstrap"),
    ("sfdisk", "fdisk"),
    ("blkid", "util-linux"),
    ("losetup", "util-linux"),
    ("fstrim", "util-linux"),
    ("prlimit", "util-linux"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("setsid", "util-linux"),
    ("mount", "mount"),
    ("mke2fs", "e2fsprogs"),
    ("resize2fs", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("tune2fs", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_growfs", "xfsprogs"),
    ("xfs_spaceman", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("btrfs", "btrfs-progs"),
    ("grub-mkimage", "grub-common"),
    ("fsck.fat", "dosfstools"),
    ("mformat", "mtools"),
    ("mcopy", "mtools"),
    ("mdir", "mtools"),
    ("mmd", "mtools"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("xorriso", "xorriso"),
    ("ansible-playbook", "ansible-core"),
    ("rpm", "rpm"),
];

/// For the error that says that a program is missing.
fn hint(program: &str) -> String {
    match HINTS.iter().find(|(name, _)| *name == program) {
        Some((_, package)) => format!(" (on Debian and Ubuntu: apt-get install {package})"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
