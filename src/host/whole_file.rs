//! Files that are whole or as they were: written beside their place, made durable, then renamed into it.

use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{Mode, fchmod};

/// Writes a file in one step, with these permissions, and makes its folder where that is missing.
///
/// # Errors
/// The kernel's; then the old file stands.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    fchmod(file.as_file(), Mode::from_raw_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/file");
        for (text, mode) in [("first", 0o644), ("2", 0o600)] {
            write(&path, text.as_bytes(), mode).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(write(&dir.path().join("new/file/below"), b"x", 0o600).is_err());
    }
}
