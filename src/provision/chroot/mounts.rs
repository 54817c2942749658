//! The file systems in memory that a root needs while commands run in it: /dev, /dev/pts, /sys, /run and /tmp.
//!
//! Invariant: no mount is made or taken away by a path. A mount is made unattached, put on a folder that was opened
//! inside the root without following a link, and taken away through the descriptor of the mount itself. So nothing
//! that runs in the root can lead a mount of ours, or its removal, to a place of the host.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::super::root::RootError;
use super::grub_probe::DiskIdentity;
use crate::host::root_dir::RootDir;

/// A mount in a root. Taken away by [`Mount::close`], or by `Drop` as well as it can.
#[derive(Debug)]
struct Mount {
    /// The mount's own top, not the folder beneath it.
    top: OwnedFd,
    path: &'static str,
    attached: bool,
}

impl Mount {
    fn close(mut self) -> Result<(), RootError> {
        self.detach().map_err(|source| RootError::Unmount { path: self.path.to_owned(), source })
    }

    fn detach(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.attached) {
            return Ok(());
        }
        // Detached rather than refused while busy: the commands have ended with their PID namespaces, and our own
        // descriptor alone would make it busy. These are file systems in memory; none keeps the root's disk.
        match unmount(format!("/proc/self/fd/{}", self.top.as_raw_fd()), UnmountFlags::DETACH) {
            // It is no mount any more: a command in the root removed the folder beneath it.
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.detach();
    }
}

/// All of a root's mounts, in the order in which they were made.
#[derive(Debug)]
pub(super) struct Mounts(Vec<Mount>);

impl Mounts {
    /// Makes them all. Where one fails, those made so far are taken away again.
    pub(super) fn make(root: &RootDir, disk: Option<&DiskIdentity>) -> Result<Self, RootError> {
        // The command's own /proc is mounted in its namespaces; here the folder is only made sure of.
        folder(root, "/proc", 0o555).map_err(failed("proc", "/proc"))?;
        let mut mounts = Self(Vec::new());
        let no_devices = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;

        let dev =
            mounts.add(root, "tmpfs", "/dev", &[("mode", "0755")], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
        fill_dev(dev, disk).map_err(failed("tmpfs", "/dev"))?;
        // gid 5 is `tty` wherever udev's rules are; glibc's grantpt relies on it.
        let pts = [("mode", "0620"), ("ptmxmode", "0666"), ("gid", "5")];
        mounts.add(root, "devpts", "/dev/pts", &pts, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
        mounts.add(root, "sysfs", "/sys", &[], no_devices | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
        let run = mounts.add(root, "tmpfs", "/run", &[("mode", "0755")], no_devices)?;
        // /var/lock leads here.
        make_folder(run, "lock", 0o1777).map_err(failed("tmpfs", "/run"))?;
        make_folder(run, "bakehouse", 0o700).map_err(failed("tmpfs", "/run"))?;
        mounts.add(root, "tmpfs", "/tmp", &[("mode", "1777")], no_devices)?;
        Ok(mounts)
    }

    fn add(
        &mut self,
        root: &RootDir,
        kind: &'static str,
        path: &'static str,
        options: &[(&str, &str)],
        flags: MountAttrFlags,
    ) -> Result<&OwnedFd, RootError> {
        let mount = attach(root, kind, path, options, flags).map_err(failed(kind, path))?;
        self.0.push(mount);
        let last = self.0.len() - 1;
        Ok(&self.0[last].top)
    }

    /// Takes them all away, the last one first, and goes on past a failure.
    pub(super) fn close(mut self) -> Result<(), RootError> {
        let mut first = Ok(());
        while let Some(mount) = self.0.pop() {
            let closed = mount.close();
            if first.is_ok() {
                first = closed;
            }
        }
        first
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        // A vector drops its first element first, and what lies on /dev must go before /dev.
        while self.0.pop().is_some() {}
    }
}

fn failed(kind: &'static str, path: &'static str) -> impl FnOnce(io::Error) -> RootError {
    move |source| RootError::Mount { kind, path: path.to_owned(), source }
}

fn attach(
    root: &RootDir,
    kind: &'static str,
    path: &'static str,
    options: &[(&str, &str)],
    flags: MountAttrFlags,
) -> io::Result<Mount> {
    let beneath = folder(root, path, 0o755)?;
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if kind == "devpts" {
        // The default since Linux 4.7; older kernels would show the host's terminals.
        fsconfig_set_flag(context.as_fd(), "newinstance")?;
    }
    for (name, value) in options {
        fsconfig_set_string(context.as_fd(), *name, *value)?;
    }
    fsconfig_create(context.as_fd())?;
    let top = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(top.as_fd(), "", beneath.as_fd(), "", flags)?;
    Ok(Mount { top, path, attached: true })
}

/// Opens a folder of the root that must be one itself and no link to one. Every root has these; one that a tool made
/// without them gets them.
fn folder(root: &RootDir, path: &str, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    match root.open_at(path, flags, Mode::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            root.make_dirs(path, mode)?;
            root.open_at(path, flags, Mode::empty())
        }
        other => other,
    }
}

/// The devices that programs take for granted, and of disks the root's own alone.
fn fill_dev(dev: &OwnedFd, disk: Option<&DiskIdentity>) -> io::Result<()> {
    // Numbers: the kernel's Documentation/admin-guide/devices.txt.
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        make_node(dev, name, FileType::CharacterDevice, (major, minor), 0o666)?;
    }
    for (target, name) in [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ] {
        rustix::fs::symlinkat(target, dev, name)?;
    }
    make_folder(dev, "pts", 0o755)?;
    make_folder(dev, "shm", 0o1777)?;
    let Some(disk) = disk else { return Ok(()) };
    for (node, device) in disk.nodes() {
        match device {
            Some((major, minor)) => make_node(dev, node, FileType::BlockDevice, (major, minor), 0o600)?,
            // Stands for the partition wherever a program asks only whether it is there (grub-mkconfig's 10_linux
            // does). It is the null device under another name: a program that opens it reads nothing.
            None => make_node(dev, node, FileType::CharacterDevice, (1, 3), 0o600)?,
        }
    }
    make_folder(dev, "disk", 0o755)?;
    for folder in ["by-uuid", "by-partuuid", "by-label"] {
        make_folder(dev, &format!("disk/{folder}"), 0o755)?;
    }
    for (folder, name, node) in disk.links() {
        rustix::fs::symlinkat(format!("../../{node}"), dev, format!("disk/{folder}/{name}"))?;
    }
    Ok(())
}

fn make_node(dev: &OwnedFd, name: &str, kind: FileType, numbers: (u32, u32), mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::mknodat(dev, name, kind, mode, makedev(numbers.0, numbers.1))?;
    own(dev, name, mode)
}

fn make_folder(at: &OwnedFd, name: &str, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::mkdirat(at, name, mode)?;
    own(at, name, mode)
}

/// The mode again, since the process's umask took its part at creation.
fn own(at: &OwnedFd, name: &str, mode: Mode) -> io::Result<()> {
    rustix::fs::chownat(at, name, Some(Uid::ROOT), Some(Gid::ROOT), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::chmodat(at, name, mode, AtFlags::empty())?)
}
