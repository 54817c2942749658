//! Files and folders that are whole or not there: written beside their place, made durable, then renamed into it. A
//! process may be killed between any two lines here.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::host::file;

/// What an unfinished or deleted thing's name begins with. No name of anything whole does.
const HIDDEN: char = '.';
/// A file of JSON larger than this is none of a store's: the largest, a parameter's history, is of a few hundred KiB.
const LARGEST: u64 = 16 << 20;

/// A name in `folder` that nothing else has, hidden from every reader.
pub(super) fn hidden_name(folder: &Path) -> PathBuf {
    folder.join(format!("{HIDDEN}{}", uuid::Uuid::new_v4().simple()))
}

/// Writes a file in one step: after an error or a kill, the old one stands.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let folder = parent(path)?;
    let fresh = hidden_name(folder);
    let mut file = File::create_new(&fresh).map_err(StoreError::io("create", &fresh))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    or_remove(&fresh, written.map_err(StoreError::io("write", &fresh)).and_then(|()| move_in(&fresh, path)))
}

/// [`write`] of what another file holds, which may be large.
pub(super) fn copy(from: &Path, path: &Path) -> Result<(), StoreError> {
    let fresh = hidden_name(parent(path)?);
    let mut source = File::open(from).map_err(StoreError::io("open", from))?;
    let mut file = File::create_new(&fresh).map_err(StoreError::io("create", &fresh))?;
    let copied = io::copy(&mut source, &mut file).and_then(|_| file.sync_all());
    or_remove(&fresh, copied.map_err(StoreError::io("write", &fresh)).and_then(|()| move_in(&fresh, path)))
}

/// Makes a folder in one step: `fill` gets it while nobody else sees it.
pub(super) fn place(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let staged = stage(parent(path)?)?;
    or_remove(&staged, fill(&staged).and_then(|()| move_in(&staged, path)))
}

/// Removes what did not get to its place: a full disk must not fill up further. What stays even so is collected as garbage.
pub(super) fn or_remove<T>(fresh: &Path, result: Result<T, StoreError>) -> Result<T, StoreError> {
    if result.is_err() {
        let _ = if fresh.is_dir() { fs::remove_dir_all(fresh) } else { fs::remove_file(fresh) };
    }
    result
}

/// [`write`] of a value as JSON.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| StoreError::Damaged { path: path.to_owned(), why: error.to_string() })?;
    bytes.push(b'\n');
    write(path, &bytes)
}

/// What [`write_json`] wrote, or `None` where there is no such file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match file::read(path, LARGEST).map_err(io::Error::from) {
        Ok(bytes) => bytes,
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| StoreError::Damaged { path: path.to_owned(), why: error.to_string() })
}

/// Renames a finished file or folder to its place, durably.
pub(super) fn move_in(fresh: &Path, path: &Path) -> Result<(), StoreError> {
    fs::rename(fresh, path).map_err(StoreError::io("rename into place", path))?;
    sync_folder(parent(path)?)
}

/// Takes a file or folder out of sight in one durable step and gives its new name, or `None` where it is not there.
pub(super) fn move_out(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    let folder = parent(path)?;
    let old = hidden_name(folder);
    match fs::rename(path, &old) {
        Ok(()) => {}
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(StoreError::io("take away", path)(error)),
    }
    sync_folder(folder)?;
    Ok(Some(old))
}

/// Makes an empty hidden folder in `folder`, to be filled and then moved in.
fn stage(folder: &Path) -> Result<PathBuf, StoreError> {
    make_folders(folder)?;
    let fresh = hidden_name(folder);
    fs::create_dir(&fresh).map_err(StoreError::io("create", &fresh))?;
    Ok(fresh)
}

/// Makes `folder` and those above it where they are missing, durably.
pub(super) fn make_folders(folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = parent(folder)?;
    make_folders(above)?;
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(above),
        // Another process was quicker.
        Err(_) if folder.is_dir() => Ok(()),
        Err(error) => Err(StoreError::io("create", folder)(error)),
    }
}

/// Deletes a file, and says whether this call did.
pub(super) fn take(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if gone(&error) => Ok(false),
        Err(error) => Err(StoreError::io("delete", path)(error)),
    }
}

/// The whole things in `folder`, sorted; none where it is missing.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = all_names(folder)?;
    names.retain(|name| !name.starts_with(HIDDEN));
    Ok(names)
}

/// How many hidden things are in `folder`.
pub(super) fn count_hidden(folder: &Path) -> Result<u64, StoreError> {
    Ok(all_names(folder)?.iter().filter(|name| name.starts_with(HIDDEN)).count() as u64)
}

/// Deletes what is hidden in `folder` and says how many there were. The caller keeps all writers out.
pub(super) fn clear_hidden(folder: &Path) -> Result<u64, StoreError> {
    let mut cleared = 0;
    for name in all_names(folder)?.into_iter().filter(|name| name.starts_with(HIDDEN)) {
        let path = folder.join(name);
        let removed = match path.symlink_metadata() {
            Ok(about) if about.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => cleared += 1,
            // Whoever moved it out deletes it too, and may have been quicker.
            Err(error) if gone(&error) => {}
            Err(error) => return Err(StoreError::io("delete", &path)(error)),
        }
    }
    Ok(cleared)
}

/// Whether the error says that a file or a folder on its path is not there.
pub(super) fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn all_names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", folder))?;
        // A name that is no text is none of ours.
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", folder))
}

fn parent(path: &Path) -> Result<&Path, StoreError> {
    path.parent()
        .ok_or_else(|| StoreError::Damaged { path: path.to_owned(), why: "it is in no folder".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unfinished_is_not_seen_and_can_be_cleared() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("whole"), b"1").unwrap();
        fs::write(hidden_name(dir.path()), b"half").unwrap();
        stage(dir.path()).unwrap();
        assert_eq!(names(dir.path()).unwrap(), ["whole"]);
        assert_eq!(clear_hidden(dir.path()).unwrap(), 2);
        assert_eq!(all_names(dir.path()).unwrap(), ["whole"]);
    }

    #[test]
    fn what_cannot_be_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let full = || StoreError::io("write", dir.path())(io::ErrorKind::StorageFull.into());
        let fill = |folder: &Path| write(&folder.join("first"), b"1").and(Err(full()));
        assert!(place(&dir.path().join("folder"), fill).is_err());
        // A file cannot take the place of a folder that has something in it.
        fs::create_dir_all(dir.path().join("taken/below")).unwrap();
        assert!(write(&dir.path().join("taken"), b"1").is_err());
        assert_eq!(all_names(dir.path()).unwrap(), ["taken"]);
        place(&dir.path().join("folder"), |folder| write(&folder.join("first"), b"1")).unwrap();
        assert_eq!(fs::read(dir.path().join("folder/first")).unwrap(), b"1");
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.json");
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), None);
        write_json(&path, &vec![1, 2]).unwrap();
        write_json(&path, &vec![3]).unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), Some(vec![3]));
        assert!(read_json::<String>(&path).is_err());
        assert_eq!(all_names(dir.path()).unwrap(), ["file.json"]);
        assert!(take(&path).unwrap());
        assert!(!take(&path).unwrap());
        assert!(move_out(&path).unwrap().is_none());
    }
}
