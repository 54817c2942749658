//! A disk in a sparse file: positioned reads and writes, and where its data lies. Never grows by a write.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Advice, SeekFrom, fadvise, seek};

use super::Disk;

/// Bytes that the kernel is asked to begin writing at once.
const WRITE_BACK: u64 = 64 << 20;
/// A disk with no more data than this is best not written at all: it is deleted before the kernel would do so.
const WRITTEN_LATE: u64 = 1 << 30;

/// An open disk file. Reads and writes carry their offset, so that one is shared by many threads.
#[derive(Debug)]
pub struct SparseDisk {
    file: File,
    path: PathBuf,
    size: u64,
    /// Bytes that were written through this descriptor.
    bytes_written: AtomicU64,
}

impl SparseDisk {
    /// Makes a new file of `bytes` bytes that holds nothing.
    ///
    /// # Errors
    /// Where there is a file already, or the kernel's refusal.
    pub fn create(path: &Path, bytes: u64) -> Result<Self, SparseError> {
        let at = |source| SparseError::new("make", path, source);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(at)?;
        file.set_len(bytes).map_err(at)?;
        Ok(Self { file, path: path.to_owned(), size: bytes, bytes_written: AtomicU64::new(0) })
    }

    /// Opens one for reading and writing.
    ///
    /// # Errors
    /// Where it is not there or is no regular file.
    pub fn open(path: &Path) -> Result<Self, SparseError> {
        Self::open_with(path, true)
    }

    /// Opens one for reading.
    ///
    /// # Errors
    /// Where it is not there or is no regular file.
    pub fn open_read_only(path: &Path) -> Result<Self, SparseError> {
        Self::open_with(path, false)
    }

    fn open_with(path: &Path, write: bool) -> Result<Self, SparseError> {
        let at = |source| SparseError::new("open", path, source);
        // A fifo in the file's place must not block.
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(at)?;
        let found = file.metadata().map_err(at)?;
        if !found.is_file() {
            return Err(SparseError::NotAFile { path: path.to_owned() });
        }
        Ok(Self { file, path: path.to_owned(), size: found.len(), bytes_written: AtomicU64::new(0) })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `into` from byte `offset`.
    ///
    /// # Errors
    /// The kernel's; `UnexpectedEof` beyond the disk's end.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    /// Writes all of `from` at byte `offset`.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` beyond the disk's end.
    pub fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        match offset.checked_add(from.len() as u64) {
            Some(end) if end <= self.size => {
                self.file.write_all_at(from, offset)?;
                self.write_back(from.len() as u64, end);
                Ok(())
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} bytes at {offset} lie beyond the end of a disk of {} bytes",
                    from.len(),
                    self.size
                ),
            )),
        }
    }

    /// Has the kernel begin with writing to the disk what was just written: it would wait until a tenth of the memory is
    /// full of it, and then make a large disk's writer wait.
    fn write_back(&self, bytes: u64, end: u64) {
        let before = self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
        let after = before + bytes;
        if after > WRITTEN_LATE && before / WRITE_BACK != after / WRITE_BACK {
            // Advice: where it is not taken, all is as without it.
            let begin = end.saturating_sub(WRITE_BACK);
            let _ = fadvise(&self.file, begin, NonZeroU64::new(end - begin), Advice::DontNeed);
        }
    }

    /// Makes it larger; the new part holds nothing.
    ///
    /// # Errors
    /// Where `bytes` is less than it has, or the kernel's refusal.
    pub fn grow(&mut self, bytes: u64) -> Result<(), SparseError> {
        if bytes < self.size {
            return Err(SparseError::Shrinks { path: self.path.clone(), from: self.size, to: bytes });
        }
        self.file.set_len(bytes).map_err(|source| SparseError::new("grow", &self.path, source))?;
        self.size = bytes;
        Ok(())
    }

    /// The byte ranges that are not holes, ascending. A file system without holes gives the whole file.
    ///
    /// # Errors
    /// The kernel's.
    pub fn data_ranges(&self) -> io::Result<Vec<Range<u64>>> {
        let mut ranges = Vec::new();
        let mut at = 0;
        while at < self.size {
            let start = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                // No data from here to the end.
                Err(rustix::io::Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let end = seek(&self.file, SeekFrom::Hole(start))?.min(self.size);
            if end <= start {
                break;
            }
            ranges.push(start..end);
            at = end;
        }
        Ok(ranges)
    }
}

impl Disk for SparseDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        SparseDisk::read_at(self, into, offset)
    }

    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        SparseDisk::write_at(self, from, offset)
    }

    fn written(&self) -> io::Result<Vec<Range<u64>>> {
        self.data_ranges()
    }
}

/// Why a disk file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SparseError {
    #[error("cannot {what} the disk file {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is no regular file; give a raw disk image", path.display())]
    NotAFile { path: PathBuf },
    #[error(
        "the disk {} has {from} bytes and cannot shrink to {to}; ask for at least as much as the base has",
        path.display()
    )]
    Shrinks { path: PathBuf, from: u64, to: u64 },
}

impl SparseError {
    fn new(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_not_data_and_a_write_never_grows_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        let mut disk = SparseDisk::create(&path, 8 << 20).unwrap();
        assert!(disk.data_ranges().unwrap().is_empty());
        disk.write_at(&[7; 4096], 1 << 20).unwrap();
        disk.write_at(&[9; 4096], (8 << 20) - 4096).unwrap();
        let ranges = disk.data_ranges().unwrap();
        assert!(ranges.iter().any(|r| r.start <= 1 << 20 && r.end >= (1 << 20) + 4096));
        assert_eq!(ranges.last().unwrap().end, 8 << 20);
        assert!(!ranges.iter().any(|r| r.contains(&0)));
        assert_eq!(disk.write_at(&[1], 8 << 20).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(disk.write_at(&[1], u64::MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let mut one = [0];
        assert_eq!(disk.read_at(&mut one, 8 << 20).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        disk.grow(16 << 20).unwrap();
        assert!(matches!(disk.grow(1 << 20), Err(SparseError::Shrinks { .. })));
        assert_eq!(SparseDisk::open(&path).unwrap().size(), 16 << 20);
    }

    #[test]
    fn only_a_regular_file_is_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        assert!(matches!(SparseDisk::open_read_only(&fifo), Err(SparseError::NotAFile { .. })));
        assert!(SparseDisk::open_read_only(&dir.path().join("none")).is_err());
        assert!(SparseDisk::create(&fifo, 1).is_err());
    }
}
