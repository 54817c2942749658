//! The folder that one bake works in, with a lock that says whether the bake is alive.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::lock::FileLock;

/// The work folder of one bake. Removed by [`WorkDir::close`], and by dropping it.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    lock: Option<FileLock>,
    keep: bool,
}

impl WorkDir {
    /// Makes the folder of a new bake below `base`.
    ///
    /// # Errors
    /// [`WorkError`]
    pub fn create(base: &Path, bake: &str) -> Result<Self, WorkError> {
        let path = base.join(bake);
        let failed = |source| WorkError::Create { path: path.clone(), source };
        std::fs::create_dir_all(base).map_err(failed)?;
        let failed = |source| WorkError::Create { path: path.clone(), source };
        // Files of the root, shadow among them, lie in it: nobody else may look.
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&path)
            .map_err(failed)?;
        Self::open(base, bake)
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
        let lock = FileLock::try_exclusive(&path.join("lock"))
            .map_err(|source| WorkError::Create { path: path.clone(), source })?
            .ok_or_else(|| WorkError::InUse { path: path.clone() })?;
        Ok(Self { path, lock: Some(lock), keep: false })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
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

    /// Removes the folder.
    ///
    /// # Errors
    /// [`WorkError::Remove`]
    pub fn close(mut self) -> Result<(), WorkError> {
        self.keep = true;
        self.lock = None;
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

fn remove(path: &Path) -> io::Result<()> {
    // Nothing is mounted below it any more when it goes; were something, its content must not be removed with it.
    if below(path)? {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "something is still mounted in it"));
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether something is mounted below `path` in this process's namespace.
fn below(path: &Path) -> io::Result<bool> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Ok(mounts.lines().filter_map(|line| line.split(' ').nth(1)).any(|at| Path::new(at).starts_with(&path)))
}

#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    #[error("cannot make the work folder {}; name another with --work", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("the work folder {} is not there (any more)", path.display())]
    Gone { path: PathBuf },
    #[error("the work folder {} is in use by a bake that runs", path.display())]
    InUse { path: PathBuf },
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
}
