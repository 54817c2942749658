//! Logs: rotated ones and the journal go; the others are emptied, since their owners and modes are what the programs
//! that write them expect.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{SealError, Sealed};
use crate::host::root_dir::RootDir;

pub(super) fn clear(root: &RootDir, folder: &str, done: &mut Vec<Sealed>) -> Result<(), SealError> {
    // A list and no recursion: how deep folders lie is the root's choice.
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let names = match root.symlink_metadata(&folder) {
            Ok(found) if found.is_dir() => root.list_bytes(&folder),
            // A link leads to where no log of ours is, or out of the folder.
            _ => continue,
        };
        let unlisted = |source| SealError::file("list", &folder.display().to_string(), source);
        for name in names.map_err(unlisted)? {
            let path = folder.join(&name);
            match clear_one(root, &path, &name.to_string_lossy())? {
                Found::Folder => folders.push(path),
                Found::Cleared => {
                    done.push(Sealed { what: "logs".to_owned(), path: path.display().to_string() });
                }
                Found::Nothing => {}
            }
        }
    }
    Ok(())
}

enum Found {
    /// To be looked into.
    Folder,
    Cleared,
    Nothing,
}

fn clear_one(root: &RootDir, path: &Path, name: &str) -> Result<Found, SealError> {
    let failed = |doing| move |source| SealError::file(doing, &path.display().to_string(), source);
    let found = root.symlink_metadata(path).map_err(failed("look at"))?;
    let cleared = if found.is_dir() && path == Path::new("/var/log/journal") {
        // Its subfolder is named after the machine id. The folder itself says that the journal is kept.
        root.remove_content(path).map_err(failed("empty"))? > 0
    } else if found.is_dir() {
        return Ok(Found::Folder);
    } else if found.is_file() && is_rotated(name) {
        root.remove(path).map_err(failed("remove"))?
    } else if found.is_file() && found.len() > 0 {
        truncate(root, path).map_err(failed("empty"))?;
        true
    } else {
        false
    };
    Ok(if cleared { Found::Cleared } else { Found::Nothing })
}

fn truncate(root: &RootDir, path: &Path) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(root.open_at(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(())
}

/// As logrotate names them: `syslog.1`, `dpkg.log.2.gz`, `messages-20260101`, `x.old`.
fn is_rotated(name: &str) -> bool {
    let packed = [".gz", ".xz", ".bz2", ".zst"].iter().find_map(|end| name.strip_suffix(end));
    let numbered = |end: &str| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit());
    let after = |c: char| name.rsplit_once(c).map(|(_, end)| end);
    packed.is_some()
        || after('.').is_some_and(|end| numbered(end) || end == "old")
        || after('-').is_some_and(|end| numbered(end) && end.len() >= 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_as_deep_as_a_path_can_say_are_cleared() {
        use rustix::fs::{mkdirat, openat};
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("var/log")).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut at = rustix::fs::open(dir.path().join("var/log"), flags, Mode::empty()).unwrap();
        // PATH_MAX is 4096 with the NUL: `/var/log`, 2040 times `/d`, `/x`.
        for _ in 0..2040 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", flags, Mode::empty()).unwrap();
        }
        let log = openat(&at, "x", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
        rustix::io::write(&log, b"a line").unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        let mut done = Vec::new();
        clear(&root, "/var/log", &mut done).unwrap();
        assert_eq!(done.len(), 1);
        assert_eq!(File::from(log).metadata().unwrap().len(), 0);
    }

    #[test]
    fn rotated_logs_are_told_by_their_names() {
        for rotated in ["syslog.1", "dpkg.log.2.gz", "messages-20260101", "x.old", "a.zst"] {
            assert!(is_rotated(rotated), "{rotated}");
        }
        for current in ["syslog", "dpkg.log", "cloud-init-output.log", "x.", "node-18", "wtmp"] {
            assert!(!is_rotated(current), "{current}");
        }
    }
}
