//! Removing a whole tree of files, on several threads. A link in it is removed and never followed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::threads;

/// So many folders keep all threads busy: below them the tree is not divided further.
const PARTS: usize = 1000;
/// A tree of fewer folders is divided so deep: a hostile one may be a chain of any length.
const DEPTH: usize = 8;

/// Removes a folder with all in it, as far as it can be removed; one that is not there is well.
///
/// # Errors
/// The first one.
pub fn remove(folder: &Path) -> io::Result<()> {
    if folder.is_symlink() {
        // Its folders are not in the tree.
        return fs::remove_file(folder);
    }
    let mut levels = vec![vec![folder.to_owned()]];
    while let Some(last) = levels.last().filter(|last| last.len() < PARTS)
        && levels.len() < DEPTH
    {
        let below: Vec<PathBuf> = last.iter().flat_map(|folder| folders_in(folder)).collect();
        if below.is_empty() {
            break;
        }
        levels.push(below);
    }
    // From the lowest: each time what is left of a folder is its own files and what is empty.
    let mut first = Ok(());
    for level in levels.iter().rev() {
        let removed = threads::for_each(level, |folder| match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        first = first.and(removed);
    }
    first
}

/// The folders in a folder. What cannot be listed is for its removal to tell.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_goes_and_what_its_links_lead_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        let mut deep = tree.clone();
        for level in 0..2 * DEPTH {
            deep.push(level.to_string());
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("file"), "x").unwrap();
            std::os::unix::fs::symlink(&outside, deep.join("link")).unwrap();
        }
        for number in 0..PARTS + 10 {
            fs::create_dir(tree.join(format!("d{number}"))).unwrap();
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&tree, &link).unwrap();
        remove(&link).unwrap();
        assert!(!link.is_symlink() && deep.join("file").exists());
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("file").exists());
        remove(&tree).unwrap();
    }
}
