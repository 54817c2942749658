//! File locks between processes. The kernel gives a lock back when its holder dies, however it dies.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// A held lock on a file; given back when dropped.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// The locked file once more, for another process to inherit: the lock is given back when both are closed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn inheritable(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Waits for the lock on `path`, making the file where it is missing. Blocks the thread: hold it briefly.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn exclusive(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(Self { file })
    }

    /// Waits for the lock on `path` beside any number of other shared holders, making the file where it is missing.
    /// Blocks the thread: hold it briefly.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn shared(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        flock(&file, FlockOperation::LockShared)?;
        Ok(Self { file })
    }

    /// The lock if it is free, `None` if another process holds it.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        Self::try_file(open(path)?)
    }

    /// The same of a folder itself, which must be there: nothing is made in it.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn try_folder(path: &Path) -> io::Result<Option<Self>> {
        Self::try_file(File::open(path)?)
    }

    fn try_file(file: File) -> io::Result<Option<Self>> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}
