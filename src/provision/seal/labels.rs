//! SELinux labels as the files of a root have them: a walk that finds every file without one. Follows no link, and
//! opens folder by folder, so that nothing in the root leads out of it.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{Access, AtFlags, Dir, Mode, OFlags, XattrFlags, accessat, fstat};
use rustix::io::Errno;

use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

const ATTRIBUTE: &CStr = c"security.selinux";
/// The longest label that the kernel takes is a page less its end (selinuxfs).
const LONGEST: usize = 4096;
/// The longest path that the kernel takes, with its end (limits.h, PATH_MAX).
const LONGEST_PATH: usize = 4096;
/// What SELinux itself takes files without a label for; the second is the same type's older name.
const NO_TYPES: [&str; 2] = ["unlabeled_t", "file_t"];

/// What a walk found. Paths are as the root sees them, folders before what is in them.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Files, folders, links and nodes without a label.
    pub missing: Vec<PathBuf>,
    /// Folders where another file system begins, or a subvolume of btrfs, that takes labels.
    pub mounts: Vec<PathBuf>,
    /// Folders whose file system takes no labels, or not now: vfat has none, a read-only snapshot of btrfs keeps its
    /// own. What is in them was not looked at.
    pub closed: Vec<PathBuf>,
}

/// Looks at every file of all file systems that are mounted in the root. What is without a label and among `inherit`
/// gets that of the folder that it is in.
///
/// # Errors
/// The path, and the kernel's error; `Interrupted` on a stop.
pub(super) fn walk(
    root: &RootDir,
    inherit: &HashSet<PathBuf>,
    stop: &Stop,
) -> Result<Found, (PathBuf, io::Error)> {
    let top = PathBuf::from("/");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
    let dir = root.open_at("/", flags, Mode::empty()).map_err(|error| (top.clone(), error))?;
    let mut walk = Walk { inherit, stop, found: Found::default() };
    let own = match label(&dir, c".").map_err(|error| (top.clone(), error))? {
        Label::Some(own) => own,
        Label::None => {
            walk.found.missing.push(top.clone());
            Vec::new()
        }
        Label::Closed => {
            walk.found.closed.push(top);
            return Ok(walk.found);
        }
    };
    walk.all(Folder::new(dir, top, own)?)?;
    Ok(walk.found)
}

/// A folder that is being gone through.
struct Folder {
    dir: OwnedFd,
    entries: Dir,
    path: PathBuf,
    /// What a file in it gets that has none of its own.
    label: Vec<u8>,
}

impl Folder {
    fn new(dir: OwnedFd, path: PathBuf, label: Vec<u8>) -> Result<Self, (PathBuf, io::Error)> {
        // No program reaches what lies deeper, setfiles neither.
        if path.as_os_str().len() >= LONGEST_PATH {
            return Err((path, Errno::NAMETOOLONG.into()));
        }
        match Dir::read_from(&dir) {
            Ok(entries) => Ok(Self { dir, entries, path, label }),
            Err(error) => Err((path, error.into())),
        }
    }
}

struct Walk<'a> {
    inherit: &'a HashSet<PathBuf>,
    stop: &'a Stop,
    found: Found,
}

impl Walk<'_> {
    /// Goes through folders in a list of its own: the stack would end before a hostile tree does.
    fn all(&mut self, top: Folder) -> Result<(), (PathBuf, io::Error)> {
        let mut folders = vec![top];
        while let Some(folder) = folders.last_mut() {
            let Some(entry) = folder.entries.next() else {
                folders.pop();
                continue;
            };
            let at = |error: Errno| (folder.path.clone(), io::Error::from(error));
            if self.stop.is_requested() {
                return Err(at(Errno::INTR));
            }
            let entry = entry.map_err(at)?;
            let name = entry.file_name();
            let is_inside = name != c"." && name != c"..";
            let inner = if is_inside { self.entry(folder, name)? } else { None };
            folders.extend(inner);
        }
        Ok(())
    }

    /// Looks at a file, and gives the folder that it is, if there is something to look at in it.
    fn entry(&mut self, folder: &Folder, name: &CStr) -> Result<Option<Folder>, (PathBuf, io::Error)> {
        let path = folder.path.join(OsStr::from_bytes(name.to_bytes()));
        let at = |error: io::Error| (path.clone(), error);
        let flags =
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let inner = match rustix::fs::openat(&folder.dir, name, flags, Mode::empty()) {
            Ok(inner) => Some(inner),
            // A link, a file, or a node: opened as a folder only, none of them is opened at all.
            Err(Errno::NOTDIR | Errno::LOOP) => None,
            Err(error) => return Err(at(error.into())),
        };
        let boundary = match &inner {
            Some(inner) => boundary(&folder.dir, inner).map_err(at)?,
            None => Boundary::None,
        };
        if matches!(boundary, Boundary::ReadOnly) {
            self.found.closed.push(path);
            return Ok(None);
        }
        let own = match label(&folder.dir, name).map_err(at)? {
            Label::Some(own) => own,
            Label::Closed => {
                self.found.closed.push(path);
                return Ok(None);
            }
            Label::None => {
                if self.inherit.contains(&path) {
                    let file = anchored(&folder.dir, name).map_err(at)?;
                    rustix::fs::lsetxattr(file, ATTRIBUTE, &folder.label, XattrFlags::empty())
                        .map_err(|error| at(error.into()))?;
                } else {
                    // What is in it is looked at all the same, so that all are named at once.
                    self.found.missing.push(path.clone());
                }
                folder.label.clone()
            }
        };
        if matches!(boundary, Boundary::Writable) {
            self.found.mounts.push(path.clone());
        }
        inner.map(|inner| Folder::new(inner, path, own)).transpose()
    }
}

/// Whether another file system begins at a folder.
enum Boundary {
    None,
    Writable,
    ReadOnly,
}

fn boundary(folder: &OwnedFd, inner: &OwnedFd) -> io::Result<Boundary> {
    if fstat(folder)?.st_dev == fstat(inner)?.st_dev {
        return Ok(Boundary::None);
    }
    match accessat(inner, c".", Access::WRITE_OK, AtFlags::empty()) {
        Err(Errno::ROFS) => Ok(Boundary::ReadOnly),
        Ok(()) => Ok(Boundary::Writable),
        Err(error) => Err(error.into()),
    }
}

enum Label {
    Some(Vec<u8>),
    None,
    /// The file system has no such attributes.
    Closed,
}

/// The label of a file in an open folder. Nothing is opened and no link followed: a device's driver never sees it.
fn label(folder: &OwnedFd, name: &CStr) -> io::Result<Label> {
    let mut bytes = [0; LONGEST];
    match rustix::fs::lgetxattr(anchored(folder, name)?, ATTRIBUTE, &mut bytes) {
        Ok(length) if is_a_label(&bytes[..length]) => Ok(Label::Some(bytes[..length].to_owned())),
        Ok(_) | Err(Errno::NODATA) => Ok(Label::None),
        Err(Errno::OPNOTSUPP) => Ok(Label::Closed),
        Err(error) => Err(error.into()),
    }
}

/// The calls for attributes of a link itself take a path and no folder: this path begins at the folder that is open.
fn anchored(folder: &OwnedFd, name: &CStr) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    Ok(CString::new(path)?)
}

/// `user:role:type`, and perhaps a level; the kernel's own has a zero byte at its end.
fn is_a_label(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.trim_end_matches('\0').split(':');
    let (user, role, kind) = (parts.next(), parts.next(), parts.next());
    [user, role, kind].iter().all(|part| part.is_some_and(|part| !part.is_empty()))
        && kind.is_some_and(|kind| !NO_TYPES.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_deeper_than_any_path_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        crate::host::root_dir::nest(dir.path(), 2500);
        let root = RootDir::open(dir.path()).unwrap();
        let (path, error) = walk(&root, &HashSet::new(), &Stop::never()).unwrap_err();
        assert_eq!((path.as_os_str().len(), error.raw_os_error()), (4096, Some(libc::ENAMETOOLONG)));
        root.remove("/d").unwrap();
    }

    #[test]
    fn a_label_names_a_type_that_is_one() {
        for good in ["system_u:object_r:etc_t:s0\0", "system_u:object_r:etc_t", "u:r:t:s0-s0:c0.c1023\0"] {
            assert!(is_a_label(good.as_bytes()), "{good:?}");
        }
        for bad in ["", "\0", "etc_t", "u:r", "u:r:", "system_u:object_r:unlabeled_t:s0\0", "u:r:file_t"] {
            assert!(!is_a_label(bad.as_bytes()), "{bad:?}");
        }
    }
}
