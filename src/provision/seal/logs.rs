//! Logs: rotated ones and the journal go; the others are emptied, since their owners and modes are what the programs
//! that write them expect.

use std::fs::File;
use std::io;

use rustix::fs::{Mode, OFlags};

use super::{SealError, Sealed};
use crate::host::root_dir::RootDir;

pub(super) fn clear(root: &RootDir, folder: &str, done: &mut Vec<Sealed>) -> Result<(), SealError> {
    let names = match root.symlink_metadata(folder) {
        Ok(found) if found.is_dir() => root.list(folder),
        // A link leads to where no log of ours is, or out of the folder.
        _ => return Ok(()),
    };
    for name in names.map_err(|source| SealError::file("list", folder, source))? {
        let path = format!("{folder}/{name}");
        let found = match root.symlink_metadata(&path) {
            Ok(found) => found,
            // A name that is not UTF-8 cannot be said here. No program of a distribution has such a log.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(SealError::file("look at", &path, source)),
        };
        let cleared = if found.is_dir() && path == "/var/log/journal" {
            // Its subfolder is named after the machine id. The folder itself says that the journal is kept.
            root.remove_content(&path).map_err(|source| SealError::file("empty", &path, source))? > 0
        } else if found.is_dir() {
            clear(root, &path, done)?;
            false
        } else if found.is_file() && is_rotated(&name) {
            root.remove(&path).map_err(|source| SealError::file("remove", &path, source))?
        } else if found.is_file() && found.len() > 0 {
            truncate(root, &path).map_err(|source| SealError::file("empty", &path, source))?;
            true
        } else {
            false
        };
        if cleared {
            done.push(Sealed { what: "logs".to_owned(), path });
        }
    }
    Ok(())
}

fn truncate(root: &RootDir, path: &str) -> io::Result<()> {
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
    fn rotated_logs_are_told_by_their_names() {
        for rotated in ["syslog.1", "dpkg.log.2.gz", "messages-20260101", "x.old", "a.zst"] {
            assert!(is_rotated(rotated), "{rotated}");
        }
        for current in ["syslog", "dpkg.log", "cloud-init-output.log", "x.", "node-18", "wtmp"] {
            assert!(!is_rotated(current), "{current}");
        }
    }
}
