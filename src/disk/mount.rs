//! One mount: made on a path that the kernel resolved, taken back by its own id. Never follows a link that the mounted
//! system controls, and never lets a mount go lazily but when it is dropped.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, statx};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use crate::host::holders::{self, Holder};
use crate::host::namespace;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

/// A process that just ended may hold a mount for moments longer. Together 5 seconds.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Where to mount.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// A path of this host that nobody else can change.
    Host(&'a Path),
    /// A path of another system, resolved inside of it.
    Inside(&'a RootDir, &'a str),
}

impl Target<'_> {
    fn open(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Host(path) => {
                Ok(rustix::fs::open(*path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
            }
            Self::Inside(root, path) => root.open_at(path, OFlags::PATH, Mode::empty()),
        }
    }

    fn shown(&self) -> PathBuf {
        match self {
            Self::Host(path) => path.to_path_buf(),
            Self::Inside(root, path) => root.path().join(path.trim_start_matches('/')),
        }
    }
}

/// A mount that this process made. Dropped without [`Mount::unmount`], it is taken off the tree at once and goes with
/// its last user.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    /// The kernel's id of it: names it whatever happens to the folders above it.
    id: u64,
    /// Of the file system, where it is this mount's own: finds who holds it. Not for a bind mount, whose file system
    /// others use too.
    device: Option<(u32, u32)>,
    mounted: bool,
}

impl Mount {
    /// Mounts `source` as a file system of kind `kind` with the file system's own options `data`.
    ///
    /// # Errors
    /// [`MountError`]: the target cannot be opened, or the kernel refuses.
    pub fn new(
        source: &Path,
        target: Target<'_>,
        kind: &str,
        flags: MountFlags,
        data: &str,
    ) -> Result<Self, MountError> {
        let refused = |source_error| MountError::Refused {
            source_path: source.to_owned(),
            target: target.shown(),
            kind: kind.to_owned(),
            source: source_error,
        };
        let data = CString::new(data).map_err(|_| refused(io::ErrorKind::InvalidInput.into()))?;
        Self::make(target, true, &refused, |at| mount(source, at, kind, flags, Some(data.as_c_str())))
    }

    /// Shows `source`, a file or a folder of this host, at the target too.
    ///
    /// # Errors
    /// [`MountError`]: the target cannot be opened, or the kernel refuses.
    pub fn bind(source: &Path, target: Target<'_>, read_only: bool) -> Result<Self, MountError> {
        let refused = |source_error| MountError::Refused {
            source_path: source.to_owned(),
            target: target.shown(),
            kind: "bind".to_owned(),
            source: source_error,
        };
        let made = Self::make(target, false, &refused, |at| mount_bind(source, at))?;
        if read_only {
            // A bind mount takes its flags only in a second call (mount(2)). The descriptor must be a new one: the one
            // that was mounted on still means what lies below.
            let fd = target.open().map_err(refused)?;
            mount_remount(
                format!("/proc/self/fd/{}", fd.as_raw_fd()),
                MountFlags::BIND | MountFlags::RDONLY,
                "",
            )
            .map_err(|error| refused(error.into()))?;
        }
        Ok(made)
    }

    /// Mounts a new file system in memory, with tmpfs's own options: `mode=755,size=16m`.
    ///
    /// # Errors
    /// [`MountError`]: the target cannot be opened, or the kernel refuses.
    pub fn tmpfs(target: Target<'_>, options: &str) -> Result<Self, MountError> {
        Self::new(Path::new("tmpfs"), target, "tmpfs", MountFlags::NOSUID, options)
    }

    fn make(
        target: Target<'_>,
        own_device: bool,
        refused: &dyn Fn(io::Error) -> MountError,
        call: impl FnOnce(&str) -> rustix::io::Result<()>,
    ) -> Result<Self, MountError> {
        let below = target.open().map_err(refused)?;
        let at = format!("/proc/self/fd/{}", below.as_raw_fd());
        let path = std::fs::read_link(&at).map_err(refused)?;
        call(&at).map_err(|error| refused(error.into()))?;
        let found = target.open().and_then(|fd| {
            let found = statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
            if StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID) {
                Ok(found)
            } else {
                // Linux before 5.8; loop devices need that version too.
                Err(io::ErrorKind::Unsupported.into())
            }
        });
        match found {
            Ok(found) => Ok(Self {
                path,
                id: found.stx_mnt_id,
                device: own_device.then_some((found.stx_dev_major, found.stx_dev_minor)),
                mounted: true,
            }),
            Err(error) => {
                // What cannot be told apart later must not stay. That it is gone is all that matters now.
                let _ = unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
                Err(refused(error))
            }
        }
    }

    /// Where it was made, without links: for tools that are given a path. Who can write inside another mount above it
    /// may have moved it since.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the kernel says that the mounted file system lies on the block device `node`.
    #[must_use]
    pub fn is_of(&self, node: &Path) -> bool {
        let number =
            |path: &Path| std::fs::metadata(path).map(|found| found.rdev()).ok().filter(|id| *id != 0);
        let Ok(table) = std::fs::read("/proc/thread-self/mountinfo") else {
            return false;
        };
        let source = table.split(|byte| *byte == b'\n').find_map(|line| source_in_mountinfo(line, self.id));
        source.is_some_and(|source| {
            source == node || (number(&source).is_some() && number(&source) == number(node))
        })
    }

    /// Writes all of the file system's changes to its device.
    ///
    /// # Errors
    /// The kernel's: changes were lost. [`MountError::Gone`] where something else is there now: a command in another
    /// mount namespace can take a mount point away from under this one.
    pub fn sync(&self) -> Result<(), MountError> {
        let failed = |source| MountError::Sync { path: self.path.clone(), source };
        let sync = || -> io::Result<bool> {
            let fd = rustix::fs::open(
                &self.path,
                OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW,
                Mode::empty(),
            )?;
            if statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id != self.id {
                return Ok(false);
            }
            rustix::fs::syncfs(&fd)?;
            Ok(true)
        };
        if sync().map_err(failed)? { Ok(()) } else { Err(MountError::Gone { path: self.path.clone() }) }
    }

    /// Takes it off. Where something holds it, waits a little for that to end.
    ///
    /// # Errors
    /// [`MountError::Busy`] with who holds it; after that it is off the tree and goes with its last user.
    pub async fn unmount(mut self, stop: &Stop) -> Result<(), MountError> {
        for _ in 0..TRIES {
            match self.try_unmount() {
                Ok(()) => {
                    self.mounted = false;
                    return Ok(());
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(source) => {
                    return Err(MountError::Unmount { path: self.path.clone(), source });
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.requested() => break,
            }
        }
        Err(MountError::Busy { path: self.path.clone(), holders: holders::of_mount(&self.path, self.device) })
    }

    fn try_unmount(&self) -> io::Result<()> {
        match self.current_path()? {
            Some(path) => Ok(unmount(&path, UnmountFlags::NOFOLLOW)?),
            // Somebody else took it off.
            None => Ok(()),
        }
    }

    /// Where the kernel has it now; `None` where it is gone.
    fn current_path(&self) -> io::Result<Option<PathBuf>> {
        let table = std::fs::read("/proc/thread-self/mountinfo")?;
        Ok(table.split(|byte| *byte == b'\n').find_map(|line| path_in_mountinfo(line, self.id)))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted
            && let Ok(Some(path)) = self.current_path()
        {
            // Best effort: there is nobody to tell.
            let _ = unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

/// The mount point in a line of mountinfo (proc(5): `ID PARENT MAJOR:MINOR ROOT POINT …`) if it is the mount `id`.
fn path_in_mountinfo(line: &[u8], id: u64) -> Option<PathBuf> {
    let mut fields = line.split(|byte| *byte == b' ');
    let own: u64 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = fields.nth(3)?;
    (own == id).then(|| PathBuf::from(OsString::from_vec(namespace::unescape(point))))
}

/// The device in such a line: after the optional fields and a `-` come the file system's kind and its source.
fn source_in_mountinfo(line: &[u8], id: u64) -> Option<PathBuf> {
    path_in_mountinfo(line, id)?;
    let source = line.split(|byte| *byte == b' ').skip_while(|field| *field != b"-").nth(2)?;
    Some(PathBuf::from(OsString::from_vec(namespace::unescape(source))))
}

/// Why something cannot be mounted, or does not come off.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("cannot mount {} ({kind}) at {}{}", source_path.display(), target.display(), advice(source))]
    Refused { source_path: PathBuf, target: PathBuf, kind: String, source: io::Error },
    #[error(
        "a copy of the btrfs on {} is mounted on this machine, whose kernel takes the two for one (before Linux 6.7); \
         try again when it is not",
        source_path.display()
    )]
    Copy { source_path: PathBuf },
    #[error(
        "stopped while a copy of the btrfs on {} was mounted on this machine, whose kernel takes the two for one (before \
         Linux 6.7)",
        source_path.display()
    )]
    Stopped { source_path: PathBuf },
    #[error("cannot write out what was changed in {}", path.display())]
    Sync { path: PathBuf, source: io::Error },
    #[error("what was mounted at {} is not there any more", path.display())]
    Gone { path: PathBuf },
    #[error("cannot unmount {}", path.display())]
    Unmount { path: PathBuf, source: io::Error },
    #[error("{} cannot be unmounted: it is held{}", path.display(), holders::shown(holders))]
    Busy { path: PathBuf, holders: Vec<Holder> },
}

impl MountError {
    /// Whether the kernel does not know the file system.
    #[must_use]
    pub fn is_unknown_filesystem(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(libc::ENODEV))
    }

    /// Whether the kernel has another device of the same btrfs mounted (`device_list_add` of its fs/btrfs/volumes.c).
    pub(super) fn is_copy_of_mounted(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(libc::EEXIST))
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; that needs root, and in a container `--privileged`",
        Some(libc::ENODEV) => "; this machine's kernel does not know the file system",
        Some(libc::EINVAL | libc::EUCLEAN) => {
            "; it is damaged, or uses features that this machine's kernel lacks"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_id_and_its_path_is_read() {
        let line = b"36 35 7:3 / /mnt/a\\040b rw,noatime - ext4 /dev/loop3 rw";
        assert_eq!(path_in_mountinfo(line, 36), Some(PathBuf::from("/mnt/a b")));
        assert_eq!(path_in_mountinfo(line, 35), None);
        assert_eq!(path_in_mountinfo(b"36 35", 36), None);
        assert_eq!(path_in_mountinfo(b"", 0), None);
        assert_eq!(source_in_mountinfo(line, 36), Some(PathBuf::from("/dev/loop3")));
        let line = b"36 35 0:4 /@ /mnt rw shared:1 master:2 - btrfs /tmp/a\\040b/loop9 rw,subvol=/@";
        assert_eq!(source_in_mountinfo(line, 36), Some(PathBuf::from("/tmp/a b/loop9")));
        assert_eq!(source_in_mountinfo(line, 35), None);
    }
}
