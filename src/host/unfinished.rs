//! What is written beside its place before it is renamed into it. A process that is killed leaves it there; its lock says
//! that it is nobody's, and whoever writes there next takes it away.

use std::io;
use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

use super::lock::FileLock;

/// What its name begins with: nobody calls a file of their own so.
const PREFIX: &str = ".bakehouse-unfinished-";

/// Something unfinished, and its lock; without one where the file system has no locks.
#[derive(Debug)]
pub struct Unfinished<T> {
    pub it: T,
    _lock: Option<FileLock>,
}

impl Unfinished<NamedTempFile> {
    /// A file in `folder`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn file(folder: &Path) -> io::Result<Self> {
        Self::locked(|builder| builder.tempfile_in(folder), NamedTempFile::path)
    }
}

impl Unfinished<TempDir> {
    /// A folder in `folder`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn folder(folder: &Path) -> io::Result<Self> {
        Self::locked(|builder| builder.tempdir_in(folder), TempDir::path)
    }
}

impl<T> Unfinished<T> {
    fn locked(make: impl Fn(&Builder) -> io::Result<T>, path: impl Fn(&T) -> &Path) -> io::Result<Self> {
        loop {
            let it = make(Builder::new().prefix(PREFIX))?;
            let lock = FileLock::try_folder(path(&it)).ok().flatten();
            // Somebody may have cleared it before it was locked; afterwards nobody does.
            if path(&it).exists() {
                return Ok(Self { it, _lock: lock });
            }
        }
    }
}

/// Takes away what killed processes left in `folder`, as far as that goes: it is in nobody's way.
pub fn clear(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let is = |wanted: fn(&std::fs::FileType) -> bool| kind.as_ref().is_ok_and(wanted);
        if !is(std::fs::FileType::is_dir) && !is(std::fs::FileType::is_file) {
            continue;
        }
        // Held while it goes.
        let Ok(Some(_free)) = FileLock::try_folder(&path) else { continue };
        let _ = if is(std::fs::FileType::is_dir) {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_goes_and_all_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let names = || {
            let entries = std::fs::read_dir(dir.path()).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let (file, folder) = (Unfinished::file(dir.path()).unwrap(), Unfinished::folder(dir.path()).unwrap());
        std::fs::write(folder.it.path().join("disk.raw"), "x").unwrap();
        clear(dir.path());
        assert_eq!(names().len(), 2);
        // As after a kill: nothing is removed, and the lock is given back.
        file.it.keep().unwrap();
        let _left = folder.it.keep();
        drop((file._lock, folder._lock));
        for own in [".bakehouse", "unfinished"] {
            std::fs::write(dir.path().join(own), "x").unwrap();
        }
        std::os::unix::fs::symlink(dir.path(), dir.path().join(format!("{PREFIX}link"))).unwrap();
        assert_eq!(names().len(), 5);
        clear(dir.path());
        let mut stay = names();
        stay.sort();
        assert_eq!(stay, [".bakehouse", ".bakehouse-unfinished-link", "unfinished"]);
    }
}
