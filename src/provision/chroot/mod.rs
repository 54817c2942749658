//! A root that is a folder on this host, entered by chroot. Each command has mount, PID, IPC and UTS namespaces of
//! its own (util-linux `unshare`), and ends with all that it started.
//!
//! Never touches the host: mounts are made by descriptor ([`mounts`]), files are reached through [`RootDir`]. A command
//! does by mistake nothing to the machine: it has no means to change the kernel, whose settings are read-only to it, sees no
//! process of the host's, no descriptor and no terminal. It is no prison, though: it is root and may mount and make device
//! nodes, as packages' scripts need, and with those whoever means harm gets out. The container around Bakehouse holds those.

mod grub_probe;
mod kernels;
mod lent;
mod mounts;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
pub use grub_probe::{DiskIdentity, FileSystemIdentity};
pub use kernels::KernelIdentity;
pub(super) use lent::Lent;
use lent::{NameServers, is_program};
use mounts::Mounts;

use super::root::{PATH, Root, RootCommand, RootError, RootFacts, shell_word};
use crate::host::exec::{Cmd, Exit, Stream};
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

/// How a root is entered.
#[derive(Clone, Debug)]
pub struct ChrootOptions {
    /// The folder.
    pub root: PathBuf,
    /// What the root's programs are told of their disk. `None`: nothing, and the root's own grub-probe stays.
    pub disk: Option<DiskIdentity>,
    /// How kernels are installed on that disk.
    pub kernels: KernelIdentity,
    /// The name that `hostname` gives in the root, so that the host's own ends up in no file.
    pub hostname: String,
    /// Whether commands reach the network.
    pub network: bool,
}

impl ChrootOptions {
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            disk: None,
            kernels: KernelIdentity::default(),
            hostname: "localhost".to_owned(),
            network: true,
        }
    }
}

/// A root that was entered. Left by [`ChrootRoot::leave`], which says what failed, or by `Drop` as well as it can.
#[derive(Debug)]
pub struct ChrootRoot {
    dir: RootDir,
    facts: RootFacts,
    options: ChrootOptions,
    mounts: Option<Mounts>,
    name_servers: Option<NameServers>,
    lent: Vec<Lent>,
    diverted: Vec<&'static str>,
}

pub(super) const POLICY: &str = "/usr/sbin/policy-rc.d";
/// invoke-rc.d's contract: 101 is "action forbidden by policy".
pub(super) const NO_SERVICE_STARTS: &[u8] = b"#!/bin/sh\nexit 101\n";

/// The two names that distributions give to grub-probe.
const GRUB_PROBES: [&str; 2] = ["/usr/sbin/grub-probe", "/usr/sbin/grub2-probe"];

/// The host's shell that is the first process of a command's namespaces, until it becomes [`FIRST_PROCESS`] in the root. Of
/// /proc it makes read-only what is the whole machine's, as containers do: a package's script that sets a sysctl would set
/// the host's. What is mounted here is seen in these namespaces only, so that a root whose /proc is a link leads it nowhere.
const PREPARE: &str = r#"root=$1 workdir=$2 hostname=$3 first=$4; shift 4
mount -n -t proc -o nosuid,nodev,noexec proc "$root/proc" || exit
printf %s "$hostname" 2>/dev/null >"$root/proc/sys/kernel/hostname"
for name in sys sysrq-trigger irq bus fs; do
    [ ! -e "$root/proc/$name" ] || mount -n -o bind,ro "$root/proc/$name" "$root/proc/$name" || exit
done
exec unshare --root="$root" --wd="$workdir" -- /bin/sh -c "$first" sh "$@""#;

/// The shell of the root that it then is. The command is its child, so that signals mean to it what they always mean, and
/// orphans are reaped. The environment comes as assignments in one variable, so that what a recipe sets (PATH,
/// LD_LIBRARY_PATH) has no meaning for the programs of the host on the way in.
const FIRST_PROCESS: &str = r#"eval "$BAKEHOUSE_ENV"; unset BAKEHOUSE_ENV
"$@"
exit $?"#;

impl ChrootRoot {
    /// Makes the root ready for commands: mounts, name servers, no service starts, grub-probe's stand-in.
    ///
    /// # Errors
    /// Where the folder is no root, or a mount is refused; what was made is taken back.
    pub async fn enter(options: ChrootOptions) -> Result<Self, RootError> {
        let name = &options.hostname;
        let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        // 64: the kernel's __NEW_UTS_LEN.
        if name.is_empty() || name.len() > 64 || !name.chars().all(letters) {
            return Err(RootError::HostName { name: name.clone() });
        }
        if let Some(disk) = &options.disk {
            disk.check()?;
        }
        let dir = RootDir::open(&options.root)
            .map_err(|source| RootError::Open { path: options.root.display().to_string(), source })?;
        let facts = RootFacts::read(&dir)?;
        let mut root = Self {
            dir,
            facts,
            options,
            mounts: None,
            name_servers: None,
            lent: Vec::new(),
            diverted: Vec::new(),
        };
        match root.prepare().await {
            Ok(()) => Ok(root),
            Err(error) => {
                // The first error is the one to tell; what can be taken back is.
                let _ = root.leave().await;
                Err(error)
            }
        }
    }

    async fn prepare(&mut self) -> Result<(), RootError> {
        self.mounts = Some(Mounts::make(&self.dir, self.options.disk.as_ref())?);
        if self.options.network {
            let servers = match std::fs::read("/etc/resolv.conf") {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                other => {
                    other.map_err(|source| RootError::Host { path: "/etc/resolv.conf".to_owned(), source })?
                }
            };
            if self.dir.exists("/etc") {
                self.name_servers = Some(NameServers::lend(&self.dir, servers)?);
            }
        }
        if self.dir.exists("/usr/sbin") {
            self.lent.push(Lent::lend(&self.dir, POLICY, NO_SERVICE_STARTS, 0o755)?);
            self.stand_in().await?;
        }
        if let Some(disk) = self.options.disk.as_ref().filter(|_| self.dir.exists("/etc")) {
            self.options.kernels.lend(&self.dir, disk, &self.facts.distribution, &mut self.lent)?;
        }
        Ok(())
    }

    /// Every variable that a command sees.
    fn environment(&self, command: &RootCommand) -> BTreeMap<String, String> {
        let mut all = self.options.kernels.environment();
        all.extend(command.environment());
        all
    }

    /// Puts the stand-in where grub-probe is, or will be once a package brings it. dpkg is told to put the package's
    /// own beside it, else an update of GRUB would replace the stand-in just before its own menu is written.
    async fn stand_in(&mut self) -> Result<(), RootError> {
        let Some(disk) = &self.options.disk else {
            return Ok(());
        };
        let script = disk.grub_probe();
        let diverts = is_program(&self.dir, "/usr/bin/dpkg-divert");
        for path in GRUB_PROBES {
            // Where nothing can be diverted a program that is not there needs no stand-in.
            if diverts && path == GRUB_PROBES[0] {
                self.divert("--add", path).await?;
                self.diverted.push(path);
            } else if !self.dir.exists(path) {
                continue;
            }
            self.lent.push(Lent::lend(&self.dir, path, script.as_bytes(), 0o755)?);
        }
        Ok(())
    }

    async fn divert(&self, action: &str, path: &str) -> Result<(), RootError> {
        let beside = format!("{path}.diverted-by-bakehouse");
        let command = ["dpkg-divert", "--local", "--quiet", "--rename", "--divert", &beside, action, path];
        let exit = self.run(&RootCommand::new(command), &Stop::never(), &mut |_, _| {}).await?;
        if exit.success() {
            return Ok(());
        }
        Err(RootError::Command {
            command: format!("dpkg-divert {action} {path}"),
            code: exit.code,
            tail: exit.tail,
        })
    }

    /// Takes back all that entering made, and goes on past a failure.
    ///
    /// # Errors
    /// The first thing that could not be taken back. The image must not be used then.
    pub async fn leave(mut self) -> Result<(), RootError> {
        let mut first = Lent::give_all_back(&mut self.lent, &self.dir);
        for path in std::mem::take(&mut self.diverted) {
            first = first.and(self.divert("--remove", path).await);
        }
        if let Some(servers) = self.name_servers.take() {
            first = first.and(servers.give_back(&self.dir));
        }
        if let Some(mounts) = self.mounts.take() {
            first = first.and(mounts.close());
        }
        first
    }

    /// Waits until a command that was ended is gone with all that it started: the kernel kills its namespace after
    /// `unshare` has ended, and not before that is told. No longer than 5 s, which is for processes that sit in the
    /// kernel; what is left then is seen by the next look at [`Root::left_over`], or keeps the disk busy.
    async fn settle(&self) {
        for _ in 0..500 {
            if self.left_over().is_ok_and(|left| left.is_empty()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn command_line(&self, workdir: &str) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--uts", "--ipc"]
                .iter()
                .map(OsString::from)
                .collect();
        if !self.options.network {
            words.push("--net".into());
        }
        words.extend(["--", "/bin/sh", "-c", PREPARE, "sh"].map(OsString::from));
        words.push(self.dir.path().into());
        words.extend([workdir, &self.options.hostname, FIRST_PROCESS].map(OsString::from));
        words
    }
}

impl Drop for ChrootRoot {
    fn drop(&mut self) {
        // After `leave` there is nothing left to do. Without it the diversion stays: to undo it, a command would have
        // to run, and the image of a bake that got here is thrown away.
        let _ = Lent::give_all_back(&mut self.lent, &self.dir);
        if let Some(servers) = self.name_servers.take() {
            let _ = servers.give_back(&self.dir);
        }
    }
}

#[async_trait]
impl Root for ChrootRoot {
    async fn run(
        &self,
        command: &RootCommand,
        stop: &Stop,
        on_line: &mut (dyn for<'line> FnMut(Stream, &'line str) + Send),
    ) -> Result<Exit, RootError> {
        if let Some(servers) = &self.name_servers {
            servers.renew(&self.dir)?;
        }
        let environment = self.environment(command);
        command.check(&environment)?;
        let words = self.command_line(&command.workdir);
        let result = Cmd::new(&words[0])
            .args(&words[1..])
            .args(&command.argv)
            .apart_from_the_machine()
            .clear_env()
            .env("PATH", PATH)
            .env("BAKEHOUSE_ENV", assignments(&environment))
            .stdin(command.stdin.clone())
            .timeout(command.timeout)
            .stream(stop, on_line)
            .await;
        if result.is_err() {
            self.settle().await;
        }
        result.map_err(|error| named(error, command.name()))
    }

    fn dir(&self) -> &RootDir {
        &self.dir
    }

    fn facts(&self) -> &RootFacts {
        &self.facts
    }

    fn entry(&self) -> Option<Vec<OsString>> {
        let env = assignments(&self.environment(&RootCommand::new([""])));
        let mut words: Vec<OsString> = vec!["env".into(), "-i".into(), format!("PATH={PATH}").into()];
        words.push(format!("BAKEHOUSE_ENV={env}").into());
        words.extend(self.command_line("/"));
        Some(words)
    }

    fn left_over(&self) -> Result<Vec<String>, RootError> {
        use std::os::unix::fs::MetadataExt;
        let host = |path: &str| {
            let path = path.to_owned();
            move |source| RootError::Host { path, source }
        };
        let ours =
            std::fs::metadata(self.dir.path()).map_err(host(&self.dir.path().display().to_string()))?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").map_err(host("/proc"))? {
            let name = entry.map_err(host("/proc"))?.file_name().to_string_lossy().into_owned();
            if !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            // A process may end while it is looked at; then it is not left over.
            let Ok(root) = std::fs::metadata(format!("/proc/{name}/root")) else {
                continue;
            };
            if (root.dev(), root.ino()) == (ours.dev(), ours.ino()) {
                let comm = std::fs::read_to_string(format!("/proc/{name}/comm")).unwrap_or_default();
                found.push(format!("{name} ({})", comm.trim()));
            }
        }
        Ok(found)
    }
}

/// `export` lines for a shell, of variables that are good.
fn assignments(env: &BTreeMap<String, String>) -> String {
    env.iter().map(|(name, value)| format!("export {name}={}\n", shell_word(value))).collect()
}

/// The error says the command's name, not that of the program of the host which enters the root.
fn named(error: crate::host::exec::ExecError, command: &str) -> RootError {
    use crate::host::exec::ExecError;
    let name = command.to_owned();
    RootError::Exec(match error {
        ExecError::TimedOut { limit, tail, .. } => ExecError::TimedOut { name, limit, tail },
        ExecError::Stopped { .. } => ExecError::Stopped { name },
        ExecError::Failed { code, tail, .. } => ExecError::Failed { name, code, tail },
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_a_name_and_a_quoted_value() {
        let env = BTreeMap::from([("A".to_owned(), "it's; rm -rf /".to_owned())]);
        assert_eq!(assignments(&env), "export A='it'\\''s; rm -rf /'\n");
        let command = RootCommand::new([""]);
        command.check(&env).unwrap();
        for name in ["", "1A", "A B", "A=B", "A;reboot", "é"] {
            let env = BTreeMap::from([(name.to_owned(), String::new())]);
            assert!(matches!(command.check(&env), Err(RootError::Variable { .. })), "{name}");
        }
        let env = BTreeMap::from([("A".to_owned(), "\0".to_owned())]);
        assert!(matches!(command.check(&env), Err(RootError::Nul)));
    }
}
