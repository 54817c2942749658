//! How a disk file holds its disk: known by what is in it, never by its name.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::file;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    Raw,
    Qcow2,
}

impl DiskFormat {
    /// A qcow2 file says so in its first four bytes; anything else is raw. One whose data lies in another file is refused:
    /// that may be any file of this host (QEMU's qcow2 specification: bytes 8 to 15, where the name of a backing file is;
    /// bytes 72 to 79, bit 2, in version 3).
    ///
    /// # Errors
    /// [`DiskFormatError`]
    pub fn of(path: &Path) -> Result<Self, DiskFormatError> {
        let unreadable = |source| DiskFormatError::Read { path: path.to_owned(), source };
        let mut head = Vec::new();
        let file = file::open(path).map_err(|why| unreadable(why.into()))?;
        file.take(80).read_to_end(&mut head).map_err(unreadable)?;
        if !head.starts_with(b"QFI\xfb") {
            return Ok(Self::Raw);
        }
        if head.get(8..16).is_none_or(|name| name.iter().any(|byte| *byte != 0)) {
            return Err(DiskFormatError::BackingFile { path: path.to_owned() });
        }
        let version_3 = head.get(7).is_some_and(|version| *version >= 3);
        if version_3 && head.get(79).is_none_or(|features| features & 4 != 0) {
            return Err(DiskFormatError::ExternalData { path: path.to_owned() });
        }
        Ok(Self::Qcow2)
    }
}

/// Why a disk file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum DiskFormatError {
    #[error("{} keeps its data in another file; write it into one file by `qemu-img convert -O qcow2 {} whole.qcow2`", path.display(), path.display())]
    ExternalData { path: PathBuf },
    #[error(
        "{} shows what lies in another file, its backing file, which is not read; write it into one file by \
         `qemu-img convert -O qcow2 {} whole.qcow2`",
        path.display(), path.display()
    )]
    BackingFile { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
}
