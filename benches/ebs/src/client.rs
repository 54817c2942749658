//! A client run against an endpoint: how long it took, what processor time and what memory it needed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Bakehouse,
    Coldsnap,
}

/// The programs that are compared, and where they work.
pub struct Clients {
    pub bakehouse: PathBuf,
    pub coldsnap: PathBuf,
    pub folder: PathBuf,
}

/// Where an endpoint is.
pub struct Target {
    pub url: String,
    /// Whom to trust.
    pub authority: Option<PathBuf>,
}

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub wall: Duration,
    pub processor: Duration,
    /// The peak of its resident memory in bytes.
    pub memory: u64,
}

impl Clients {
    fn command(&self, client: Client, target: &Target) -> Command {
        let mut command = Command::new(match client {
            Client::Bakehouse => &self.bakehouse,
            Client::Coldsnap => &self.coldsnap,
        });
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.folder)
            .env("AWS_ENDPOINT_URL", &target.url)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("BAKEHOUSE_WORK", self.folder.join("work"));
        if let Some(authority) = &target.authority {
            command.env("SSL_CERT_FILE", authority);
        }
        command
    }

    /// Stores `disk`, and gives the snapshot's id.
    pub fn upload(
        &self,
        client: Client,
        target: &Target,
        disk: &Path,
        more: &[&str],
    ) -> anyhow::Result<(String, Cost)> {
        let mut command = self.command(client, target);
        match client {
            Client::Bakehouse => command.args(["--quiet", "snapshot", "upload"]).args(more).arg(disk),
            Client::Coldsnap => command.args(["upload", "--no-progress"]).args(more).arg(disk),
        };
        let (out, cost) = run(command)?;
        Ok((out.lines().last().context("no snapshot id")?.to_owned(), cost))
    }

    /// Reads a snapshot into `disk`.
    pub fn download(
        &self,
        client: Client,
        target: &Target,
        snapshot: &str,
        disk: &Path,
    ) -> anyhow::Result<Cost> {
        let mut command = self.command(client, target);
        match client {
            Client::Bakehouse => command.args(["--quiet", "snapshot", "download", snapshot]).arg(disk),
            Client::Coldsnap => command.args(["download", "--no-progress", snapshot]).arg(disk),
        };
        Ok(run(command)?.1)
    }
}

/// Runs it to its end. What it needed is the kernel's own count of the process and what it waited for.
fn run(mut command: Command) -> anyhow::Result<(String, Cost)> {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut out = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        std::io::Read::read_to_string(&mut stdout, &mut out)?;
    }
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: all zeros is a valid `rusage`, and both pointers are to this function's own variables.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    let wall = began.elapsed();
    if waited != pid {
        return Err(std::io::Error::last_os_error().into());
    }
    if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        bail!("{} ended with the status {status}", command.get_program().display());
    }
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    let processor = time(usage.ru_utime) + time(usage.ru_stime);
    Ok((out, Cost { wall, processor, memory: usage.ru_maxrss.unsigned_abs() * 1024 }))
}
