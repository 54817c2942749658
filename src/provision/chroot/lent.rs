//! Files that are lent to a root while commands run in it, and what they stand in for, which is given back: the name
//! servers, the policy that no service starts, the stand-in for grub-probe.
//!
//! A file that is in the way is renamed aside and renamed back: it stays the same file to the byte. A bind mount over
//! it would be simpler, but then a package that brings its own cannot put it there ("Device or resource busy"), and
//! the bake of that package fails.

use std::io;

use super::super::root::RootError;
use crate::host::root_dir::RootDir;

/// Appended to the name of what is put aside.
const ASIDE: &str = ".put-aside-by-bakehouse";

/// A file lent to the root.
#[derive(Debug)]
pub(in crate::provision) struct Lent {
    path: String,
    content: Vec<u8>,
    had: bool,
    /// The folders that were made for it, parents first.
    folders: Vec<String>,
}

impl Lent {
    /// Puts `content` at `path`, in place of what is there. What a bake that was killed had put aside counts as
    /// being there. Folders above it that are missing are made.
    pub(in crate::provision) fn lend(
        root: &RootDir,
        path: &str,
        content: &[u8],
        mode: u32,
    ) -> Result<Self, RootError> {
        let left_aside = root.symlink_metadata(aside(path)).is_ok();
        let above = path.match_indices('/').skip(1).map(|(at, _)| &path[..at]);
        let folders: Vec<String> = above.filter(|folder| !root.exists(folder)).map(str::to_owned).collect();
        if let Some(last) = folders.last() {
            root.make_dirs(last, 0o755).map_err(|source| RootError::file("make", last, source))?;
        }
        let lent = Self {
            folders,
            path: path.to_owned(),
            content: content.to_owned(),
            had: left_aside
                || rename(root, path, &aside(path))
                    .map_err(|source| RootError::file("put aside", path, source))?,
        };
        if let Err(source) = root.write(path, content, mode) {
            // The first error is the one to tell.
            let _ = lent.give_back(root);
            return Err(RootError::file("write", path, source));
        }
        Ok(lent)
    }

    /// Gives all of them back, the last one first, and goes on past a failure; the first one is told.
    pub(in crate::provision) fn give_all_back(lent: &mut Vec<Self>, root: &RootDir) -> Result<(), RootError> {
        let mut first = Ok(());
        while let Some(one) = lent.pop() {
            first = first.and(one.give_back(root));
        }
        first
    }

    /// Puts back what was there. Where a step put something else in the lent file's place, or wrote into it, that is
    /// what the image was meant to have: it stays, and what was there before goes.
    pub(in crate::provision) fn give_back(&self, root: &RootDir) -> Result<(), RootError> {
        let path = self.path.as_str();
        let failed = |source| RootError::file("give back", path, source);
        let ours = match root.symlink_metadata(path) {
            Ok(found) if found.is_file() => {
                found.len() == self.content.len() as u64 && root.read(path).map_err(failed)? == self.content
            }
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(source) => return Err(failed(source)),
        };
        if ours {
            root.remove(path).map_err(failed)?;
            if self.had {
                rename(root, &aside(path), path).map_err(failed)?;
            }
        } else if self.had {
            root.remove(aside(path)).map_err(failed)?;
        }
        for folder in self.folders.iter().rev() {
            // A step may have put something into it, or taken it away.
            if root.list(folder).is_ok_and(|names| names.is_empty()) {
                root.remove(folder).map_err(failed)?;
            }
        }
        Ok(())
    }
}

fn aside(path: &str) -> String {
    format!("{path}{ASIDE}")
}

/// `Ok(false)` where there was nothing to rename. A link is renamed, not what it leads to.
fn rename(root: &RootDir, from: &str, to: &str) -> io::Result<bool> {
    let (from_folder, from_name) = match root.parent(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let (to_folder, to_name) = root.parent(to)?;
    match rustix::fs::renameat(&from_folder, &*from_name, &to_folder, &*to_name) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The host's name servers, lent as the root's /etc/resolv.conf.
#[derive(Debug)]
pub(super) struct NameServers {
    content: Vec<u8>,
    lent: Option<Lent>,
}

impl NameServers {
    pub(super) fn lend(root: &RootDir, content: Vec<u8>) -> Result<Self, RootError> {
        let mut servers = Self { content, lent: None };
        if !servers.reach_link(root)? {
            servers.lent = Some(Lent::lend(root, RESOLV_CONF, &servers.content, 0o644)?);
        }
        Ok(servers)
    }

    /// Once more before each command: a package may have made the file a link to one that only a running system has.
    pub(super) fn renew(&self, root: &RootDir) -> Result<(), RootError> {
        if !root.exists(RESOLV_CONF) {
            self.reach_link(root)?;
        }
        Ok(())
    }

    pub(super) fn give_back(&self, root: &RootDir) -> Result<(), RootError> {
        self.lent.as_ref().map_or(Ok(()), |lent| lent.give_back(root))
    }

    /// Where /etc/resolv.conf is a link into /run, which is in memory, the file that it leads to is written and the
    /// link is left alone. `Ok(false)` for anything else.
    fn reach_link(&self, root: &RootDir) -> Result<bool, RootError> {
        let Ok(target) = root.read_link(RESOLV_CONF) else {
            return Ok(false);
        };
        let Some(target) = in_run(&target) else {
            return Ok(false);
        };
        if root.exists(&target) {
            return Ok(true);
        }
        let folder = target.rsplit_once('/').map_or("/", |(folder, _)| folder);
        root.make_dirs(folder, 0o755)
            .and_then(|()| root.write(&target, &self.content, 0o644))
            .map_err(|source| RootError::file("write", &target, source))?;
        Ok(true)
    }
}

/// Where a link in /etc leads, if that is below /run: the absolute path there.
fn in_run(target: &str) -> Option<String> {
    let absolute = match target.strip_prefix("../") {
        Some(rest) => format!("/{rest}"),
        None => target.to_owned(),
    };
    let below = absolute.strip_prefix("/run/").or_else(|| absolute.strip_prefix("/var/run/"))?;
    let plain = below.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    plain.then(|| format!("/run/{below}"))
}

/// Whether a regular file that can be run is at `path`.
pub(super) fn is_program(root: &RootDir, path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    root.metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn root() -> (tempfile::TempDir, RootDir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn what_was_there_is_the_same_file_again() {
        let (dir, root) = root();
        let path = dir.path().join("etc/resolv.conf");
        std::fs::write(&path, "search example.org\n").unwrap();
        let before = std::fs::metadata(&path).unwrap();
        let lent = NameServers::lend(&root, b"nameserver 192.0.2.1\n".to_vec()).unwrap();
        assert_eq!(root.read_text(RESOLV_CONF).unwrap(), "nameserver 192.0.2.1\n");
        lent.give_back(&root).unwrap();
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "search example.org\n");
        assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
        assert_eq!(root.list("/etc").unwrap(), ["resolv.conf"]);
    }

    #[test]
    fn a_file_that_was_not_there_is_not_there_again() {
        let (_dir, root) = root();
        let lent = NameServers::lend(&root, b"nameserver 192.0.2.1\n".to_vec()).unwrap();
        assert!(root.exists(RESOLV_CONF));
        lent.give_back(&root).unwrap();
        assert!(root.list("/etc").unwrap().is_empty());
    }

    #[test]
    fn folders_that_were_made_for_a_file_go_with_it_unless_they_are_used() {
        let (_dir, root) = root();
        let lent = Lent::lend(&root, "/etc/kernel/a/b", b"lent", 0o644).unwrap();
        assert_eq!(root.read_text("/etc/kernel/a/b").unwrap(), "lent");
        lent.give_back(&root).unwrap();
        assert!(root.list("/etc").unwrap().is_empty());
        let lent = Lent::lend(&root, "/etc/kernel/a/b", b"lent", 0o644).unwrap();
        root.write("/etc/kernel/own", b"", 0o644).unwrap();
        lent.give_back(&root).unwrap();
        assert_eq!(root.list("/etc/kernel").unwrap(), ["own"]);
    }

    #[test]
    fn what_a_killed_bake_put_aside_is_not_lost() {
        let (_dir, root) = root();
        root.write(RESOLV_CONF, b"the image's\n", 0o644).unwrap();
        std::mem::forget(NameServers::lend(&root, b"lent\n".to_vec()).unwrap());
        let lent = NameServers::lend(&root, b"lent again\n".to_vec()).unwrap();
        lent.give_back(&root).unwrap();
        assert_eq!(root.read_text(RESOLV_CONF).unwrap(), "the image's\n");
        assert_eq!(root.list("/etc").unwrap(), ["resolv.conf"]);
    }

    #[test]
    fn what_a_step_wrote_instead_stays() {
        let (_dir, root) = root();
        root.write(RESOLV_CONF, b"old\n", 0o644).unwrap();
        let lent = NameServers::lend(&root, b"lent\n".to_vec()).unwrap();
        root.write(RESOLV_CONF, b"nameserver 198.51.100.7\n", 0o644).unwrap();
        lent.give_back(&root).unwrap();
        assert_eq!(root.read_text(RESOLV_CONF).unwrap(), "nameserver 198.51.100.7\n");
        assert_eq!(root.list("/etc").unwrap(), ["resolv.conf"]);
    }

    #[test]
    fn a_link_into_run_gets_its_target_and_any_other_is_put_aside() {
        let (_dir, root) = root();
        root.symlink("../run/systemd/resolve/stub-resolv.conf", RESOLV_CONF).unwrap();
        let lent = NameServers::lend(&root, b"lent\n".to_vec()).unwrap();
        assert_eq!(root.read_text("/run/systemd/resolve/stub-resolv.conf").unwrap(), "lent\n");
        lent.give_back(&root).unwrap();
        root.symlink("/usr/lib/systemd/resolv.conf", RESOLV_CONF).unwrap();
        let lent = NameServers::lend(&root, b"lent\n".to_vec()).unwrap();
        assert_eq!(root.read_text(RESOLV_CONF).unwrap(), "lent\n");
        lent.give_back(&root).unwrap();
        assert_eq!(root.read_link(RESOLV_CONF).unwrap(), "/usr/lib/systemd/resolv.conf");
    }

    #[test]
    fn a_package_that_turns_the_file_into_a_link_leaves_names_working() {
        let (_dir, root) = root();
        let lent = NameServers::lend(&root, b"lent\n".to_vec()).unwrap();
        root.symlink("../run/systemd/resolve/stub-resolv.conf", RESOLV_CONF).unwrap();
        lent.renew(&root).unwrap();
        assert_eq!(root.read_text(RESOLV_CONF).unwrap(), "lent\n");
        lent.give_back(&root).unwrap();
        assert!(root.read_link(RESOLV_CONF).is_ok());
    }

    #[test]
    fn only_a_plain_path_below_run_is_one() {
        assert_eq!(in_run("../run/a/b").as_deref(), Some("/run/a/b"));
        assert_eq!(in_run("/var/run/a").as_deref(), Some("/run/a"));
        for other in ["/etc/other", "../run/../etc/shadow", "/run/", "run/a", "../../run/a"] {
            assert_eq!(in_run(other), None, "{other}");
        }
    }
}
