//! A new file system on a loop device, mounted, filled from a folder and taken back. Keeps everything that a file has:
//! owners, modes, times, hard links, holes, and every extended attribute, so ACLs, capabilities and SELinux labels too.

use std::path::Path;

use rustix::mount::MountFlags;

use super::{FormatError, LIMIT, Part};
use crate::disk::filesystem::{Driver, FilesystemKind};
use crate::disk::mount::{Mount, Target};
use crate::host::exec::Cmd;
use crate::host::loop_device::{Access, LoopDevice};
use crate::host::stop::Stop;

/// Runs `make` on a loop device of the part, and copies the root folder into what it made. When it fails, the mount and
/// the device go as well.
pub(super) async fn into_new(
    kind: &FilesystemKind,
    make: Cmd,
    part: &Part<'_>,
    stop: &Stop,
) -> Result<(), FormatError> {
    let driver = kind.driver().ok_or_else(|| FormatError::NoDriver { kind: kind.clone() })?;
    let device = LoopDevice::attach(part.disk, part.start, part.size, Access::ReadWrite)?;
    let filled = on(&device, driver, make, part.root, stop).await;
    // The first error is the one to tell.
    let closed = device.close().await;
    filled?;
    Ok(closed?)
}

async fn on(
    device: &LoopDevice,
    driver: Driver,
    make: Cmd,
    from: &Path,
    stop: &Stop,
) -> Result<(), FormatError> {
    make.arg(device.node()).run(stop).await?;
    let dir = tempfile::tempdir().map_err(|source| FormatError::Temporary { source })?;
    let at = Target::Host(dir.path());
    let mount = Mount::new(device.node(), at, driver.name, MountFlags::NOATIME, driver.read_write)?;
    let filled = fill(from, &mount, stop).await;
    // After a stop too, the mount is waited for.
    let unmounted = mount.unmount(&Stop::never()).await;
    filled?;
    Ok(unmounted?)
}

async fn fill(from: &Path, mount: &Mount, stop: &Stop) -> Result<(), FormatError> {
    Cmd::new("cp")
        .args(["--recursive", "--no-dereference", "--sparse=auto"])
        // Said one by one: what `--archive` or `all` cannot keep they drop without a word.
        .arg("--preserve=mode,ownership,timestamps,links,xattr")
        // The folder itself, into the file system's own top.
        .arg("--no-target-directory")
        .arg(from)
        .arg(mount.path())
        .env("LC_ALL", "C")
        .timeout(LIMIT)
        .run(stop)
        .await?;
    // What was written and given up on the way reads as zeros again.
    mount.sync()?;
    Cmd::new("fstrim").arg(mount.path()).timeout(LIMIT).run(stop).await?;
    Ok(())
}
