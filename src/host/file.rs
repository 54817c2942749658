//! Files of the host that someone else may have put there: read whole, but never waited for and never without a bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file for reading. A fifo in its place does not block, and a device is not opened for long.
///
/// # Errors
/// [`Unread`]
pub fn open(path: &Path) -> Result<File, Unread> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(Unread::NoFile) }
}

/// A regular file's content, of `most` bytes or fewer.
///
/// # Errors
/// [`Unread`]
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, Unread> {
    let mut bytes = Vec::new();
    // One byte more than is allowed tells that there is more, whatever size the file claims to have.
    open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(Unread::TooLarge { most }) } else { Ok(bytes) }
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error("it is not a regular file")]
    NoFile,
    #[error("it is larger than {} MiB", most >> 20)]
    TooLarge { most: u64 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Unread> for io::Error {
    fn from(why: Unread) -> Self {
        match why {
            Unread::Io(error) => error,
            other => Self::new(io::ErrorKind::InvalidData, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_to_its_bound_and_nothing_else_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"1234");
        assert!(matches!(read(&path, 3), Err(Unread::TooLarge { most: 3 })));
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        for other in [dir.path(), &fifo, Path::new("/dev/zero"), Path::new("/dev/null")] {
            assert!(matches!(read(other, 4), Err(Unread::NoFile)), "{}", other.display());
        }
        assert!(matches!(read(&dir.path().join("none"), 4), Err(Unread::Io(_))));
    }
}
