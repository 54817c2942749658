//! Files of the host that someone else may have put there: read whole, but never waited for and never without a bound;
//! and written so that they are whole or as they were.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fchmod};

use super::unfinished::Unfinished;

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

/// Writes a file in one step, with these permissions, and makes its folder where that is missing.
///
/// # Errors
/// The kernel's; then the old file stands.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let unfinished = Unfinished::file(folder)?;
    let mut file = unfinished.it;
    file.write_all(bytes)?;
    fchmod(file.as_file(), Mode::from_raw_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
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
    use std::os::unix::fs::PermissionsExt;

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

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/file");
        for (text, mode) in [("first", 0o644), ("2", 0o600)] {
            replace(&path, text.as_bytes(), mode).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(replace(&dir.path().join("new/file/below"), b"x", 0o600).is_err());
    }
}
