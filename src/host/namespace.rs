//! A mount namespace of this process's own. Nothing that a bake mounts is seen on the host, and all of it is gone with
//! the last process in it, however that ends.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Moves this process into a new mount namespace, whose mounts do not reach the host's. Call it before any thread is
/// started: the other threads would stay behind.
///
/// # Errors
/// Where it is not allowed: without root, or in a container without `CAP_SYS_ADMIN`.
pub fn enter_private_mounts() -> io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "rustix marks unshare unsafe for the file descriptor flag, which is not used"
    )]
    // SAFETY: only CLONE_FILES can break I/O safety, and it is not among the flags.
    unsafe {
        rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)?;
    }
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    Ok(())
}

/// Moves this process into the mount namespace of another. Call it before any thread is started.
///
/// # Errors
/// Where the process is gone, or it is not allowed.
pub fn enter_mounts_of(process: i32) -> io::Result<()> {
    let namespace = std::fs::File::open(format!("/proc/{process}/ns/mnt"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    Ok(())
}

/// Where something is mounted at or below `path` in this process's namespace, the last mounted first.
///
/// # Errors
/// Where the mount table cannot be read.
pub fn mounts_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let table = std::fs::read("/proc/thread-self/mountinfo")?;
    // proc(5): ID PARENT MAJOR:MINOR ROOT POINT and more.
    let points =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let mut found: Vec<PathBuf> = points.map(path_of).filter(|at| at.starts_with(&path)).collect();
    found.reverse();
    Ok(found)
}

/// Takes everything at or below `path` out of this process's namespace. What is still in use goes when its last user
/// does: only for a namespace of one's own.
///
/// # Errors
/// The kernel's.
pub fn clear_mounts_below(path: &Path) -> io::Result<()> {
    for at in mounts_below(path)? {
        let flags = UnmountFlags::NOFOLLOW;
        unmount(&at, flags).or_else(|_| unmount(&at, flags | UnmountFlags::DETACH))?;
    }
    Ok(())
}

/// A path as `/proc/self/mountinfo` has it.
#[must_use]
pub fn path_of(text: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(text)))
}

/// Reads fstab's escapes, also those of `/proc/self/mountinfo`: `\040` is a space.
#[must_use]
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

/// Whether this process may mount at all.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
