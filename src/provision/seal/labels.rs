//! SELinux labels as the files of a root have them: a walk that finds every file without one. Follows no link, and
//! opens folder by folder, so that nothing in the root leads out of it.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Dir, Mode, OFlags, XattrFlags, accessat, fstat};
use rustix::io::Errno;

use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

const ATTRIBUTE: &CStr = c"security.selinux";
/// The longest label that the kernel takes is a page less its end (selinuxfs).
const LONGEST: usize = 4096;
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
    walk.folder(&dir, &top, &own)?;
    Ok(walk.found)
}

struct Walk<'a> {
    inherit: &'a HashSet<PathBuf>,
    stop: &'a Stop,
    found: Found,
}

impl Walk<'_> {
    fn folder(&mut self, dir: &OwnedFd, path: &Path, above: &[u8]) -> Result<(), (PathBuf, io::Error)> {
        let at = |error: Errno| (path.to_owned(), io::Error::from(error));
        if self.stop.is_requested() {
            return Err(at(Errno::INTR));
        }
        for entry in Dir::read_from(dir).map_err(at)? {
            let entry = entry.map_err(at)?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.entry(dir, name, &path.join(OsStr::from_bytes(name.to_bytes())), above)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        folder: &OwnedFd,
        name: &CStr,
        path: &Path,
        above: &[u8],
    ) -> Result<(), (PathBuf, io::Error)> {
        let at = |error: io::Error| (path.to_owned(), error);
        let flags =
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let inner = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
            Ok(inner) => Some(inner),
            // A link, a file, or a node: opened as a folder only, none of them is opened at all.
            Err(Errno::NOTDIR | Errno::LOOP) => None,
            Err(error) => return Err(at(error.into())),
        };
        if let Some(inner) = &inner {
            match boundary(folder, inner).map_err(at)? {
                Boundary::None => {}
                Boundary::Writable => self.found.mounts.push(path.to_owned()),
                Boundary::ReadOnly => {
                    self.found.closed.push(path.to_owned());
                    return Ok(());
                }
            }
        }
        let own = match label(folder, name).map_err(at)? {
            Label::Some(own) => own,
            Label::Closed => {
                self.found.mounts.retain(|mount| mount != path);
                self.found.closed.push(path.to_owned());
                return Ok(());
            }
            Label::None if self.inherit.contains(path) => {
                rustix::fs::lsetxattr(
                    anchored(folder, name).map_err(at)?,
                    ATTRIBUTE,
                    above,
                    XattrFlags::empty(),
                )
                .map_err(|error| at(error.into()))?;
                above.to_owned()
            }
            Label::None => {
                self.found.missing.push(path.to_owned());
                // What is in it is looked at all the same, so that all are named at once.
                above.to_owned()
            }
        };
        match inner {
            Some(inner) => self.folder(&inner, path, &own),
            None => Ok(()),
        }
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
    fn a_label_names_a_type_that_is_one() {
        for good in ["system_u:object_r:etc_t:s0\0", "system_u:object_r:etc_t", "u:r:t:s0-s0:c0.c1023\0"] {
            assert!(is_a_label(good.as_bytes()), "{good:?}");
        }
        for bad in ["", "\0", "etc_t", "u:r", "u:r:", "system_u:object_r:unlabeled_t:s0\0", "u:r:file_t"] {
            assert!(!is_a_label(bad.as_bytes()), "{bad:?}");
        }
    }
}
