//! A mount namespace of this process's own. Nothing that a bake mounts is seen on the host, and all of it is gone with
//! the last process in it, however that ends.

use std::io;
use std::os::fd::AsFd;

use rustix::mount::{MountPropagationFlags, mount_change};
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

/// Whether this process may mount at all.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
