//! The package managers that a root may have: one file each, found by the table [`ALL`].
//!
//! They only say which commands to run, as an administrator would at the keyboard: settings of the root decide what
//! its distribution lets them decide (which packages are recommended, how often a download is tried again), nothing is
//! asked, and configuration files that somebody changed stay as they are. Who runs the commands is `steps`.

mod apt;
mod dnf;
mod excludes;
mod yum;
mod zypper;

use std::fmt;
use std::io;

use async_trait::async_trait;

use super::installed::PackageFormat;
use super::root::{Root, RootCommand, RootError};
use crate::host::glob;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;
use crate::recipe::UpdateScope;

/// Every package manager that is known. Where a root has several and its os-release does not say which is its own,
/// the first counts: yum stands after dnf, whose distributions keep its name as a link.
const ALL: [&dyn PackageManager; 5] =
    [&apt::Apt, &dnf::Dnf("dnf"), &dnf::Dnf("dnf5"), &zypper::Zypper, &yum::Yum];

/// A package manager of a root.
#[async_trait]
pub trait PackageManager: fmt::Debug + Send + Sync {
    /// Its program, in /usr/bin.
    fn program(&self) -> &'static str;

    /// `ID` or `ID_LIKE` in the os-release of the distributions whose own package manager it is.
    fn families(&self) -> &'static [&'static str];

    /// What kind of packages it installs.
    fn format(&self) -> PackageFormat;

    /// Patterns of the files that say where it gets packages from.
    fn sources(&self) -> &'static [&'static str];

    /// Fetches what the sources have. A source that is not reached is an error, unless the root says otherwise of that
    /// source.
    fn refresh(&self) -> Invocation;

    /// Installs packages by name, and from files by their absolute paths in the root, with what they depend on.
    fn install(&self, names: &[String], files: &[String]) -> Invocation;

    /// Removes packages. One that is not installed is no error; to apt one of which it never heard is.
    fn remove(&self, names: &[String]) -> Invocation;

    /// Brings packages up to date. `release` is for Amazon Linux 2023: the release whose packages to take.
    ///
    /// # Errors
    /// Where the root has no source for what is wanted, or a file that is needed cannot be written.
    fn update(
        &self,
        root: &dyn Root,
        scope: UpdateScope,
        release: Option<&str>,
    ) -> Result<Invocation, PackagesError>;

    /// Lists what the sources say of security updates for installed packages. `None` where an update for security
    /// needs no such list.
    fn advisories(&self, release: Option<&str>) -> Option<Invocation>;

    /// Keeps packages at their versions, and gives those that were not kept before.
    ///
    /// # Errors
    /// Where its command fails, or its file cannot be read or written.
    async fn hold(
        &self,
        root: &dyn Root,
        names: &[String],
        stop: &Stop,
    ) -> Result<Vec<String>, PackagesError>;

    /// Takes back what [`PackageManager::hold`] did. A package that is gone is no error.
    ///
    /// # Errors
    /// As there.
    async fn release(&self, root: &dyn Root, names: &[String]) -> Result<(), PackagesError>;
}

/// The package manager of a root, by the programs that it has and the `ID` and `ID_LIKE` of its os-release.
pub(super) fn find(has: impl Fn(&str) -> bool, ids: &[&str]) -> Option<&'static dyn PackageManager> {
    let there: Vec<_> = ALL.into_iter().filter(|manager| has(manager.program())).collect();
    let own = there.iter().find(|manager| ids.iter().any(|id| manager.families().contains(id)));
    own.or(there.first()).copied()
}

/// All that says where packages come from, for telling whether it changed.
pub(super) fn sources(manager: &dyn PackageManager, root: &RootDir) -> Result<String, RootError> {
    let files = read(root, manager.sources())?;
    Ok(files.into_iter().map(|(path, text)| format!("{path}\n{text}\n")).collect())
}

/// Bytes of all files that say where packages come from: a distribution has some KiB, most of them keys.
const LARGEST: usize = 8 << 20;

/// The files that patterns fit, with their paths. One that is not there is left out.
fn read(root: &RootDir, patterns: &[&str]) -> Result<Vec<(String, String)>, RootError> {
    let mut files = Vec::new();
    let mut size = 0;
    for pattern in patterns {
        let paths =
            glob::expand(root, pattern).map_err(|source| RootError::file("look for", pattern, source))?;
        for path in paths {
            match root.read_text(&path) {
                Ok(text) => {
                    size += text.len();
                    if size > LARGEST {
                        let why = format!("package sources of more than {} MiB in all", LARGEST >> 20);
                        let source = io::Error::new(io::ErrorKind::InvalidData, why);
                        return Err(RootError::file("read", &path, source));
                    }
                    files.push((path, text));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(RootError::file("read", &path, source)),
            }
        }
    }
    Ok(files)
}

/// A command of a package manager, and what its exit codes mean.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// For messages: `dnf install`.
    pub name: String,
    pub command: RootCommand,
    /// Exit codes other than 0 with which it did what it was asked for.
    pub fine: &'static [i32],
    /// The exit code with which it asks to be run once more.
    pub again: Option<i32>,
}

impl Invocation {
    /// `program` with options that every command of it gets, the verb, and what follows it.
    fn new<'a>(program: &str, options: &[&str], verb: &str, args: impl IntoIterator<Item = &'a str>) -> Self {
        let before = [program].into_iter().chain(options.iter().copied()).chain([verb]).map(str::to_owned);
        let command = RootCommand::new(before.chain(args.into_iter().map(str::to_owned)));
        Self { name: format!("{program} {verb}"), command, fine: &[], again: None }
    }

    /// Runs it by itself, outside of a step, and gives its lines.
    async fn lines(&self, root: &dyn Root, stop: &Stop) -> Result<Vec<String>, PackagesError> {
        let mut lines = Vec::new();
        let exit = root.run(&self.command, stop, &mut |_, line| lines.push(line.trim().to_owned())).await?;
        if exit.success() || self.fine.contains(&exit.code) {
            return Ok(lines);
        }
        Err(RootError::Command { command: self.name.clone(), code: exit.code, tail: exit.tail }.into())
    }
}

/// Whether a line says that a package is installed and the script that should have finished it failed. rpm counts that
/// as done ("non-fatal"), and so do dnf and yum; it must not pass unseen.
pub(super) fn is_unfinished(line: &str) -> bool {
    line.trim_start().starts_with("warning: %") && line.contains("scriptlet failed")
}

/// Why a package manager could not be told what to do.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(
        "the root has no package source whose suite is for security updates (bookworm-security, noble-security); \
         add one, or use `update: all`"
    )]
    NoSecuritySuite,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(programs: &[&str], ids: &[&str]) -> Option<&'static str> {
        find(|name| programs.contains(&name), ids).map(PackageManager::program)
    }

    #[test]
    fn a_root_has_the_package_manager_of_its_distribution() {
        assert_eq!(found(&["apt-get"], &["debian"]), Some("apt-get"));
        assert_eq!(found(&["dnf", "yum"], &["amzn", "fedora"]), Some("dnf"));
        assert_eq!(found(&["yum"], &["amzn", "centos", "rhel", "fedora"]), Some("yum"));
        assert_eq!(found(&["zypper", "dnf"], &["opensuse-leap", "suse", "opensuse"]), Some("zypper"));
        // Tools of another family are packages like any other.
        assert_eq!(found(&["apt-get", "dnf", "zypper"], &["debian"]), Some("apt-get"));
        assert_eq!(found(&["apt-get", "dnf"], &["rocky", "rhel", "centos", "fedora"]), Some("dnf"));
        assert_eq!(found(&["dnf5"], &["fedora"]), Some("dnf5"));
        // Where os-release does not say, what is there counts, in the table's order.
        assert_eq!(found(&["zypper", "dnf"], &["unknown"]), Some("dnf"));
        assert_eq!(found(&["yum"], &[]), Some("yum"));
        assert_eq!(found(&["apk"], &["alpine"]), None);
    }

    #[test]
    fn sources_are_read_to_a_bound_in_all() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        for name in ["a", "b"] {
            std::fs::write(dir.path().join(name), vec![b'#'; LARGEST / 2]).unwrap();
        }
        assert_eq!(read(&root, &["/*"]).unwrap().len(), 2);
        std::fs::write(dir.path().join("c"), "x").unwrap();
        let error = read(&root, &["/*"]).unwrap_err();
        assert!(crate::host::error::chain(&error).contains("more than 8 MiB"), "{error}");
    }

    #[test]
    fn a_script_that_failed_after_its_package_was_installed_is_seen() {
        assert!(is_unfinished("warning: %post(app-1-1.noarch) scriptlet failed, exit status 3"));
        // This one's package is not installed: the command fails.
        assert!(!is_unfinished("error: %prein(app-1-1.noarch) scriptlet failed, exit status 3"));
        assert!(!is_unfinished("  Installing       : app-1-1.noarch"));
    }
}
