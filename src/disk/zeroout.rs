//! Zeros that ext4 writes on its own account: where a file's reserved blocks are used in part, it zeroes the rest of a small
//! extent at once. A loop device makes a hole of that, which cannot be told from a block that a base never had, and such a
//! block reads as noise later. Turned off for one mount: ext4 splits the extent then, as it does with a larger one.

use std::fs::OpenOptions;
use std::io::{self, Write};

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::host::loop_device::LoopDevice;

/// Keeps the ext4 that is mounted from `device` from it. The setting goes with the mount.
///
/// # Errors
/// The kernel's, where it has no such setting or lets nobody change it.
pub(super) fn turn_off(device: &LoopDevice) -> io::Result<()> {
    // Linux Documentation/ABI/testing/sysfs-fs-ext4: the size up to which an extent is zeroed, in KiB.
    let setting = format!("fs/ext4/loop{}/extent_max_zeroout_kb", device.number());
    match OpenOptions::new().write(true).open(format!("/sys/{setting}")) {
        Ok(mut file) => file.write_all(b"0"),
        // A container has it read-only, or not at all: one of our own that is mounted nowhere.
        Err(_) => {
            let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            let own = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
            let file = openat(&own, &setting, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            std::fs::File::from(file).write_all(b"0")
        }
    }
}
