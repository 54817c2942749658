//! What a folder's files take on a disk, by counting them. Changes nothing.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::FormatError;

/// The block of every file system that is made here, in bytes.
pub(super) const BLOCK: u64 = 4096;

/// What a folder's files take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Files, folders, links, sockets: everything that has an inode.
    pub inodes: u64,
    /// Bytes in whole blocks.
    pub data: u64,
}

impl Needs {
    /// Counts a folder and all in it, without following links. A file of many names
    /// counts once, and holes do not count.
    ///
    /// # Errors
    /// [`FormatError::Root`] where something cannot be read, [`FormatError::Mounted`] where another file system is
    /// mounted below the folder.
    pub fn of(root: &Path) -> Result<Self, FormatError> {
        let mut needs = Self::default();
        let mut seen = HashSet::new();
        let mut folders = vec![root.to_owned()];
        let own =
            std::fs::metadata(root).map_err(|source| FormatError::Root { path: root.to_owned(), source })?;
        while let Some(folder) = folders.pop() {
            let at = |source| FormatError::Root { path: folder.clone(), source };
            // One block holds some 100 entries of usual names; each costs 8 bytes and its name.
            let mut entries = 0_u64;
            for entry in std::fs::read_dir(&folder).map_err(at)? {
                let entry = entry.map_err(at)?;
                entries += 16 + entry.file_name().len() as u64;
                let found = entry.metadata().map_err(at)?;
                if found.is_dir() {
                    // All of a `/proc` that was left mounted would go into the image.
                    if found.dev() != own.dev() {
                        return Err(FormatError::Mounted { path: entry.path() });
                    }
                    folders.push(entry.path());
                    continue;
                }
                if found.nlink() > 1 && !seen.insert((found.dev(), found.ino())) {
                    continue;
                }
                needs.inodes += 1;
                if found.is_file() {
                    let whole = found.len().next_multiple_of(BLOCK);
                    needs.data += whole.min((found.blocks() * 512).next_multiple_of(BLOCK));
                } else if found.is_symlink() && found.len() >= 60 {
                    // A shorter target lies in ext4's inode, and in the others' too.
                    needs.data += BLOCK;
                }
            }
            needs.inodes += 1;
            needs.data += entries.next_multiple_of(BLOCK).max(BLOCK);
        }
        Ok(needs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_and_second_names_take_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("sparse")).unwrap();
        file.set_len(1 << 40).unwrap();
        std::fs::write(dir.path().join("one"), [1; 5000]).unwrap();
        std::fs::hard_link(dir.path().join("one"), dir.path().join("two")).unwrap();
        std::os::unix::fs::symlink("x".repeat(70), dir.path().join("long")).unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let needs = Needs::of(dir.path()).unwrap();
        assert_eq!(needs, Needs { inodes: 5, data: 8192 + 4096 + 2 * 4096 });
    }
}
