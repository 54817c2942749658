//! The root that is being changed, wherever it is: commands are run in it and files are reached through its
//! [`RootDir`]. Nothing above this trait knows how a command gets in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::time::Duration;

use async_trait::async_trait;

use super::packages::{self, PackageManager};
use crate::host::exec::{ExecError, Exit, Stream};
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

/// A root that commands can be run in.
#[async_trait]
pub trait Root: Send + Sync {
    /// Runs a command in the root and hands over every line that it writes. Nothing that it started outlives it.
    /// Any exit code is `Ok`.
    ///
    /// # Errors
    /// Where the command could not be started, ran out of time, or was stopped.
    async fn run(
        &self,
        command: &RootCommand,
        stop: &Stop,
        on_line: &mut (dyn for<'line> FnMut(Stream, &'line str) + Send),
    ) -> Result<Exit, RootError>;

    /// The root's files.
    fn dir(&self) -> &RootDir;

    /// What kind of system it is.
    fn facts(&self) -> &RootFacts;

    /// The words of a command of the host which runs in the root what is added to them, for programs of the host
    /// that work on a root by themselves. `None` where the host has no such way in.
    fn entry(&self) -> Option<Vec<OsString>>;

    /// The processes that still live in the root: their ids and names.
    ///
    /// # Errors
    /// Where the process table cannot be read.
    fn left_over(&self) -> Result<Vec<String>, RootError>;
}

/// A command as it is run in a root: its environment is exactly [`RootCommand::environment`].
#[derive(Clone)]
pub struct RootCommand {
    pub argv: Vec<String>,
    /// Besides the usual: see [`RootCommand::environment`].
    pub env: BTreeMap<String, String>,
    /// An absolute path in the root.
    pub workdir: String,
    /// Empty where the command has no input.
    pub stdin: Vec<u8>,
    /// For all of the command.
    pub timeout: Duration,
}

impl RootCommand {
    /// A command without input or a variable of its own, in `/`, with half an hour to run.
    pub fn new<I: IntoIterator<Item = S>, S: Into<String>>(argv: I) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            workdir: "/".to_owned(),
            stdin: Vec::new(),
            timeout: Duration::from_secs(30 * 60),
        }
    }

    /// The program's name, for messages. Arguments may hold what must not be shown.
    #[must_use]
    pub fn name(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// Every variable that the command sees: the usual ones, overridden by its own.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> =
            USUAL.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        all.extend(self.env.clone());
        all
    }

    /// That the kernel and a shell take it, with these variables.
    pub(super) fn check(&self, environment: &BTreeMap<String, String>) -> Result<(), RootError> {
        let nul = |word: &String| word.contains('\0');
        if self.argv.iter().any(nul) || nul(&self.workdir) || environment.values().any(nul) {
            return Err(RootError::Nul);
        }
        let is_name = |name: &str| {
            let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            letters && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())
        };
        match environment.keys().find(|name| !is_name(name)) {
            Some(name) => Err(RootError::Variable { name: name.clone() }),
            None => Ok(()),
        }
    }
}

/// Arguments and values may be secrets.
impl fmt::Debug for RootCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCommand")
            .field("name", &self.name())
            .field("env", &self.env.keys())
            .field("workdir", &self.workdir)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What every command finds in its environment.
///
/// `SYSTEMD_OFFLINE` tells systemctl (systemd 231 and later) and Ansible's service modules that no systemd runs here:
/// `systemctl daemon-reload` in a package's script is then a success that did nothing, as in any chroot. They cannot
/// see it by themselves, since the first process of the command's PID namespace has the same root.
const USUAL: [(&str, &str); 5] = [
    ("PATH", PATH),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("SYSTEMD_OFFLINE", "1"),
];

/// What kind of system a root is.
#[derive(Clone, Debug)]
pub struct RootFacts {
    /// `ID` of os-release: `debian`, `ubuntu`. Empty where the root does not say.
    pub distribution: String,
    /// `VERSION_ID` of os-release: `12`, `24.04`.
    pub version: String,
    /// `VERSION_CODENAME` of os-release: `bookworm`, `noble`.
    pub codename: String,
    /// `None` where the root has none that is known here.
    pub package_manager: Option<&'static dyn PackageManager>,
    /// Whether systemd is the root's first process when it boots.
    pub systemd: bool,
}

impl RootFacts {
    /// Reads them from the root's files; runs nothing.
    ///
    /// # Errors
    /// Where os-release is there and cannot be read.
    pub fn read(dir: &RootDir) -> Result<Self, RootError> {
        let mut os_release = String::new();
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            match dir.read_text(path) {
                Ok(text) => {
                    os_release = text;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(RootError::file("read", path, source)),
            }
        }
        let is_executable = |path: &str| {
            use std::os::unix::fs::PermissionsExt;
            dir.metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        let distribution = os_release_value(&os_release, "ID");
        let like = os_release_value(&os_release, "ID_LIKE");
        let ids: Vec<&str> = [distribution.as_str()].into_iter().chain(like.split_whitespace()).collect();
        let has = |program: &str| is_executable(&format!("/usr/bin/{program}"));
        Ok(Self {
            package_manager: packages::find(has, &ids),
            version: os_release_value(&os_release, "VERSION_ID"),
            codename: os_release_value(&os_release, "VERSION_CODENAME"),
            systemd: ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].into_iter().any(is_executable),
            distribution,
        })
    }
}

/// A value of os-release(5): assignments as a shell reads them, so with or without quotes.
fn os_release_value(text: &str, key: &str) -> String {
    text.lines()
        .filter_map(|line| line.trim().split_once('='))
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.trim_matches(['"', '\'']).to_owned())
        .unwrap_or_default()
}

/// `text` as one word of a POSIX shell.
pub(super) fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Why something could not be done in a root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("cannot {doing} {path} in the root")]
    File { doing: &'static str, path: String, source: io::Error },
    #[error("cannot open the root {path}")]
    Open { path: String, source: io::Error },
    #[error(
        "cannot mount {kind} on {path} in the root; it must be a folder, and Bakehouse needs CAP_SYS_ADMIN"
    )]
    Mount { kind: &'static str, path: String, source: io::Error },
    #[error("cannot take {path} out of the root again")]
    Unmount { path: String, source: io::Error },
    #[error("`{command}` failed in the root with exit code {code}: {}", tail.join("; "))]
    Command { command: String, code: i32, tail: Vec<String> },
    #[error("`{name}` is not a name for a variable: letters, digits and _, not beginning with a digit")]
    Variable { name: String },
    #[error("a command's words and variables must not hold a NUL character")]
    Nul,
    #[error("`{name}` is not a host name: letters, digits, - and dots, at most 64")]
    HostName { name: String },
    #[error("the disk's {what} `{value}` holds a character that no {what} has")]
    Identity { what: &'static str, value: String },
    #[error("cannot read the host's {path}")]
    Host { path: String, source: io::Error },
}

impl RootError {
    pub(super) fn file(doing: &'static str, path: &str, source: io::Error) -> Self {
        Self::File { doing, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME='bookworm'\n";
        assert_eq!(os_release_value(text, "ID"), "debian");
        assert_eq!(os_release_value(text, "VERSION_ID"), "12");
        assert_eq!(os_release_value(text, "VERSION_CODENAME"), "bookworm");
        assert_eq!(os_release_value(text, "BUILD_ID"), "");
    }

    #[test]
    fn a_commands_debug_text_holds_no_value_and_no_argument() {
        let mut command = RootCommand::new(["sh", "-c", "echo hunter2"]);
        command.env.insert("TOKEN".into(), "hunter2".into());
        let shown = format!("{command:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_shell_word_keeps_quotes() {
        assert_eq!(shell_word("it's $HOME"), r"'it'\''s $HOME'");
    }
}
