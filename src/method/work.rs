//! The folder that one bake works in, with a lock that says whether the bake is alive.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::host::lock::FileLock;
use crate::host::{namespace, tree};

/// Less than this is no room for any disk: the smallest Debian root takes as much.
const LEAST_ROOM: u64 = 512 << 20;

/// With less than this left, a write to the work folder's file system may just have failed: a mounted disk in it tells
/// of that as an input/output error. Twice the largest single write.
const FULL: u64 = 4 << 20;

const LEDGER: &str = "ledger.jsonl";
const LOCK: &str = "lock";
/// What the name of a folder begins with that is being removed.
const HIDDEN: &str = ".";
/// What has a work folder: a bake, a test, copies of images to look into and to boot, a disk that is stored by hand, a
/// job of a pipeline, and the making of a VPC.
const WORDS: [&str; 7] = ["bake", "test", "copy", "boot", "upload", "job", "vpc"];

/// The work folder of one bake. Removed by [`WorkDir::close`], and by dropping it.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    lock: Option<FileLock>,
    keep: bool,
}

impl WorkDir {
    /// A bake's record and its block map, as long as they are not delivered.
    pub const DELIVERY: [&str; 2] = ["delivery.json", "delivery.map"];

    /// Makes the folder of a new bake below `base`.
    ///
    /// # Errors
    /// [`WorkError`]
    pub fn create(base: &Path, bake: &str) -> Result<Self, WorkError> {
        own_folder(base)?;
        let path = base.join(bake);
        let failed = |source| WorkError::Create { path: path.clone(), source };
        // So that no folder is seen before its lock is held.
        let _still = Self::base_lock(base)?;
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        let free = free(&path).map_err(failed)?;
        if free < LEAST_ROOM {
            remove(&path).map_err(failed)?;
            return Err(WorkError::Full { path: base.to_owned(), free: free >> 20 });
        }
        Self::open(base, bake)
    }

    /// While it is held, work folders neither come nor go.
    pub(super) fn base_lock(base: &Path) -> Result<FileLock, WorkError> {
        FileLock::exclusive(&base.join(".lock"))
            .map_err(|source| WorkError::Create { path: base.to_owned(), source })
    }

    /// The folder of a bake that left it.
    ///
    /// # Errors
    /// [`WorkError`]: not there, or in use.
    pub fn open(base: &Path, bake: &str) -> Result<Self, WorkError> {
        let path = base.join(bake);
        if !path.is_dir() {
            return Err(WorkError::Gone { path });
        }
        let lock = FileLock::try_exclusive(&path.join(LOCK))
            .map_err(|source| WorkError::Create { path: path.clone(), source })?
            .ok_or_else(|| WorkError::InUse { path: path.clone() })?;
        Ok(Self { path, lock: Some(lock), keep: false })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its file system has no room any more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        free(&self.path).is_ok_and(|free| free < FULL)
    }

    /// The disk that is being made.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.path.join("disk.raw")
    }

    /// Where the root is mounted, or made.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    /// What was created in a cloud, as long as something of it is not settled.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.path.join(LEDGER)
    }

    /// Whether anything is in it besides what an unsettled ledger needs.
    pub(super) fn has_more_than_a_ledger(&self) -> bool {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        names.any(|name| name != LOCK && !is_for_later(&name)) || !self.ledger().exists()
    }

    /// The folder's lock, for a process that goes on with it.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn inheritable_lock(&self) -> Result<File, WorkError> {
        let held = self.lock.as_ref().ok_or_else(|| WorkError::Gone { path: self.path.clone() })?;
        held.inheritable().map_err(|source| WorkError::Create { path: self.path.clone(), source })
    }

    /// Leaves the folder where it is.
    pub fn keep(mut self) -> PathBuf {
        self.keep = true;
        self.path.clone()
    }

    /// Removes the folder; where a ledger is in it, all but that and what is to be delivered: its work is not over.
    ///
    /// # Errors
    /// [`WorkError::Remove`], with as much removed as can be.
    pub fn close(mut self) -> Result<(), WorkError> {
        self.keep = true;
        remove(&self.path).map_err(|source| WorkError::Remove { path: self.path.clone(), source })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if !self.keep {
            // Best effort: whoever wants to know of a failure calls `close`.
            let _ = remove(&self.path);
        }
    }
}

/// In bytes.
fn free(path: &Path) -> io::Result<u64> {
    let room = rustix::fs::statvfs(path)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

/// Removes a work folder as [`WorkDir::close`] does. Goes on past what cannot be removed: the disk is the largest, and
/// whatever stays stays for another reason.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    // A tool that was killed may have left mounts; were one still there, its content would be removed with the folder.
    namespace::clear_mounts_below(path)?;
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let unsettled = path.join(LEDGER).exists();
    let mut first = None;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name == LOCK || (unsettled && is_for_later(&name)) {
            continue;
        }
        let removed = if entry.file_type()?.is_dir() {
            tree::remove(&entry.path())
        } else {
            std::fs::remove_file(entry.path())
        };
        if let Err(error) = removed.or_else(absent) {
            first.get_or_insert(error);
        }
    }
    match first {
        Some(error) => Err(error),
        None if unsettled => Ok(()),
        None => vanish(path),
    }
}

/// Takes an empty folder away with its lock. In one step for whoever looks for folders whose lock is free: where the lock
/// went first, it would find one.
fn vanish(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // It is hidden already where a process was killed between these two steps.
    let hidden = path.with_file_name(format!("{HIDDEN}{}", name.trim_start_matches(HIDDEN)));
    std::fs::rename(path, &hidden).or_else(absent)?;
    std::fs::remove_dir_all(&hidden).or_else(absent)
}

/// What an unsettled bake's folder keeps.
fn is_for_later(name: &OsStr) -> bool {
    name == LEDGER || WorkDir::DELIVERY.iter().any(|kept| name == *kept)
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Whether a name is one that work folders have: `WORD-` and twelve hexadecimal digits. In a folder that a user names
/// there may be anything else.
pub(super) fn is_name(name: &str) -> bool {
    let name = name.strip_prefix(HIDDEN).unwrap_or(name);
    let digits = name.split_once('-').filter(|(word, _)| WORDS.contains(word)).map(|(_, digits)| digits);
    digits.is_some_and(|digits| digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Makes the folder that work folders are in, for root's or the user's own eyes, and refuses one that somebody else could
/// have prepared: files of roots lie in it, and other users' hands in it could lead root anywhere.
pub(super) fn own_folder(base: &Path) -> Result<(), WorkError> {
    let failed = |source| WorkError::Create { path: base.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(base).map_err(failed)?;
    let found = std::fs::symlink_metadata(base).map_err(failed)?;
    let own = found.is_dir()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.permissions().mode() & 0o022 == 0;
    if own { Ok(()) } else { Err(WorkError::NotOurs { path: base.to_owned() }) }
}

#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    #[error("cannot make the work folder {}; name another with --work", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("the work folder {} is not there (any more)", path.display())]
    Gone { path: PathBuf },
    #[error("the work folder {} is in use by a bake that runs", path.display())]
    InUse { path: PathBuf },
    #[error(
        "the work folder {} is not this user's own folder, or others may write to it; remove it, or name another with --work",
        path.display()
    )]
    NotOurs { path: PathBuf },
    #[error("only {free} MiB are free in the work folder {}; free some space, or name another with --work", path.display())]
    Full { path: PathBuf, free: u64 },
    #[error("cannot remove the work folder {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_folder_is_one_bakes_own_and_goes_with_it() {
        let base = tempfile::tempdir().unwrap();
        let work = WorkDir::create(base.path(), "bake-1").unwrap();
        assert!(matches!(WorkDir::open(base.path(), "bake-1"), Err(WorkError::InUse { .. })));
        std::fs::write(work.disk(), "x").unwrap();
        work.close().unwrap();
        assert!(matches!(WorkDir::open(base.path(), "bake-1"), Err(WorkError::Gone { .. })));
        let kept = WorkDir::create(base.path(), "bake-2").unwrap().keep();
        assert!(kept.exists());
        drop(WorkDir::open(base.path(), "bake-2").unwrap());
        assert!(!kept.exists());
    }

    #[test]
    fn what_cannot_be_removed_is_told_and_all_else_goes() {
        let base = tempfile::tempdir().unwrap();
        let work = WorkDir::create(base.path(), "bake-1").unwrap();
        std::fs::write(work.disk(), "x").unwrap();
        std::fs::write(work.ledger(), "x").unwrap();
        let path = work.path().to_owned();
        work.close().unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(&path).unwrap().map(|one| one.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [LEDGER, LOCK]);
    }

    #[test]
    fn only_names_of_work_folders_are_taken_for_such() {
        for good in ["bake-0123456789ab", "test-abcdefabcdef", ".copy-000000000000"] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "bake-1",
            "bake-0123456789abc",
            "photos",
            "photos-0123456789ab",
            "bake-",
            ".lock",
            "..bake-0123456789ab",
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let base = tempfile::tempdir().unwrap();
        std::fs::set_permissions(base.path(), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(matches!(WorkDir::create(base.path(), "bake-1"), Err(WorkError::NotOurs { .. })));
        let link = base.path().join("link");
        std::os::unix::fs::symlink("/nowhere", &link).unwrap();
        assert!(WorkDir::create(&link, "bake-1").is_err());
    }
}
