//! Loop devices: a part of a disk file as a block device, without a partition table and without `losetup`, which cannot
//! ask the kernel to free the device with its last user. The one file of the crate that makes system calls which Rust
//! cannot check.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::ioctl::{Getter, Ioctl, IoctlOutput, Opcode, Setter};

use super::holders::{self, Holder};

const CONTROL: &str = "/dev/loop-control";
/// The major number of loop devices (Linux `include/uapi/linux/major.h`).
pub const LOOP_MAJOR: u32 = 7;

// Linux `include/uapi/linux/loop.h`.
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// Between asking for a free device and taking it another process may take it; each try asks anew.
const TRIES: usize = 64;
/// How long a device may take to be free after its last user has gone: the kernel writes its cache out first.
const RELEASE_TRIES: usize = 60;
const RELEASE_PAUSE: Duration = Duration::from_millis(50);

/// Whether the disk may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

/// An attached loop device. The kernel frees it when its last user goes: this guard, or the last mount of it, however
/// they end.
#[derive(Debug)]
pub struct LoopDevice {
    /// Held open: it is a user of the device.
    file: File,
    node: PathBuf,
    number: u32,
    backing: Option<String>,
    /// Where `/dev` has no node of the number and takes none, the node is here.
    _private: Option<tempfile::TempDir>,
}

impl LoopDevice {
    /// Attaches `size` bytes of `disk` from byte `offset` to a free device.
    ///
    /// # Errors
    /// [`LoopError`]: the disk cannot be opened, there is no loop device, or no right to use one.
    pub fn attach(disk: &Path, offset: u64, size: u64, access: Access) -> Result<Self, LoopError> {
        Self::configured(disk, offset, size, access, Lifetime::LastUser)
    }

    fn configured(
        disk: &Path,
        offset: u64,
        size: u64,
        access: Access,
        lifetime: Lifetime,
    ) -> Result<Self, LoopError> {
        let write = access == Access::ReadWrite;
        let backing = OpenOptions::new()
            .read(true)
            .write(write)
            .open(disk)
            .map_err(|source| LoopError::Disk { disk: disk.to_owned(), source })?;
        let refused = |source: io::Error| LoopError::Refused { disk: disk.to_owned(), source };
        let control = OpenOptions::new().read(true).write(true).open(CONTROL).map_err(refused)?;
        for _ in 0..TRIES {
            let number = get_free(&control).map_err(refused)?;
            let (node, private) = node_of(number).map_err(refused)?;
            let file = OpenOptions::new().read(true).write(write).open(&node).map_err(refused)?;
            match configure(&file, &backing, offset, size, access, lifetime) {
                Ok(()) => {
                    return Ok(Self { file, node, number, backing: backing_of(number), _private: private });
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        Err(LoopError::AllTaken { disk: disk.to_owned() })
    }

    /// The device's node: for mount and for tools that want a block device.
    #[must_use]
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// N of `/dev/loopN`.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether it takes freed blocks back: one on a device does where that one does.
    #[must_use]
    pub fn discards(&self) -> bool {
        let most = format!("/sys/block/loop{}/queue/discard_max_bytes", self.number);
        std::fs::read_to_string(most).ok().is_none_or(|bytes| bytes.trim() != "0")
    }

    /// Lets it go, and makes sure that it is free: then all that was written to it is in the disk file.
    ///
    /// # Errors
    /// [`LoopError::InUse`] where something else still uses it, with who does.
    pub async fn close(self) -> Result<(), LoopError> {
        let Self { file, number, backing, node, _private } = self;
        let written = file.sync_all();
        drop(file);
        for _ in 0..RELEASE_TRIES {
            // Without a file of its own in sysfs the kernel cannot be asked; the device goes with its last user.
            if backing.is_none() || backing_of(number) != backing {
                return written.map_err(|source| LoopError::Lost { node, source });
            }
            tokio::time::sleep(RELEASE_PAUSE).await;
        }
        Err(LoopError::InUse { number, holders: holders::of_device(LOOP_MAJOR, number) })
    }
}

/// Until when a device is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lifetime {
    /// The kernel frees it with its last user.
    LastUser,
    /// It stays until [`detach`], whoever made it and however that one ended, or until the machine goes down.
    Lasting,
}

/// Attaches a whole disk file to a free device for longer than this process: until [`detach`].
///
/// # Errors
/// [`LoopError`]
pub fn attach_lasting(disk: &Path) -> Result<(), LoopError> {
    LoopDevice::configured(disk, 0, 0, Access::ReadWrite, Lifetime::Lasting).map(drop)
}

/// What [`attach_lasting`] attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// N of `/dev/loopN`.
    pub number: u32,
    /// Whether it was told to go, and waits for its last user.
    pub is_going: bool,
}

/// What a disk file is attached to by [`attach_lasting`]. By the file itself and not by its name, which another mount
/// namespace may see in another place.
///
/// # Errors
/// Where the file is not there.
pub fn lasting(disk: &Path) -> io::Result<Option<Lasting>> {
    let file = std::fs::metadata(disk)?;
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let in_use = devices.filter(|one| one.path().join("loop").is_dir());
    let mut numbers = in_use.filter_map(|one| one.file_name().to_str()?.strip_prefix("loop")?.parse().ok());
    Ok(numbers.find_map(|number| {
        let (node, _private) = node_of(number).ok()?;
        let status = status(&File::open(node).ok()?).ok()?;
        // Of all of it; a part has a size of its own.
        let is_it = (status.device, status.inode) == (file.dev(), file.ino()) && status.size_limit == 0;
        is_it.then_some(Lasting { number, is_going: status.flags & LO_FLAGS_AUTOCLEAR != 0 })
    }))
}

/// The node of a device in `/dev`.
///
/// # Errors
/// Where `/dev` has none and takes none.
pub fn node(number: u32) -> io::Result<PathBuf> {
    match node_of(number)? {
        (node, None) => Ok(node),
        (_, Some(_)) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("/dev has no node for the loop device {number} and takes none"),
        )),
    }
}

/// Detaches what [`attach_lasting`] attached; one that is in use goes with its last user.
///
/// # Errors
/// The kernel's.
pub fn detach(number: u32) -> io::Result<()> {
    let (node, _private) = node_of(number)?;
    let file = OpenOptions::new().read(true).write(true).open(node)?;
    // What was written to it is in the disk file then.
    file.sync_all()?;
    clear(&file)
}

/// What the kernel says lies under a loop device, with its offset: two devices on one file are told apart.
fn backing_of(number: u32) -> Option<String> {
    let of = |name: &str| std::fs::read_to_string(format!("/sys/block/loop{number}/loop/{name}")).ok();
    Some(format!("{}{}", of("backing_file")?, of("offset")?))
}

/// N of every `/dev/loopN` whose disk file lies in `folder`, or lay there until it was deleted.
#[must_use]
pub fn backed_below(folder: &Path) -> Vec<u32> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let numbers = devices.filter_map(|one| one.file_name().to_str()?.strip_prefix("loop")?.parse().ok());
    let below = |number: &u32| {
        let file = std::fs::read_to_string(format!("/sys/block/loop{number}/loop/backing_file"));
        file.is_ok_and(|file| Path::new(file.trim_end()).starts_with(&folder))
    };
    let mut numbers: Vec<u32> = numbers.filter(below).collect();
    numbers.sort_unstable();
    numbers
}

/// Detaches those of [`backed_below`] whose last user has gone, and gives those that somebody still uses.
pub async fn release_below(folder: &Path) -> Vec<u32> {
    for _ in 0..RELEASE_TRIES {
        let numbers = backed_below(folder);
        if numbers.is_empty() {
            break;
        }
        for number in numbers {
            // One that is in use is freed by the kernel with its last user; the next look tells.
            let _ = node_of(number).and_then(|(node, _private)| clear(&File::open(node)?));
        }
        tokio::time::sleep(RELEASE_PAUSE).await;
    }
    backed_below(folder)
}

/// The node of a device, made where it is missing: in `/dev`, or in a folder of its own where `/dev` takes none, as in a
/// container.
fn node_of(number: u32) -> io::Result<(PathBuf, Option<tempfile::TempDir>)> {
    let device = makedev(LOOP_MAJOR, number);
    let is_it = |path: &Path| {
        std::fs::metadata(path)
            .is_ok_and(|found| found.file_type().is_block_device() && found.rdev() == device)
    };
    let usual = PathBuf::from(format!("/dev/loop{number}"));
    let mode = Mode::from_raw_mode(0o600);
    if is_it(&usual) {
        return Ok((usual, None));
    }
    match mknodat(CWD, &usual, FileType::BlockDevice, mode, device) {
        Ok(()) => return Ok((usual, None)),
        // Another process, or the kernel itself, was quicker.
        Err(rustix::io::Errno::EXIST) if is_it(&usual) => return Ok((usual, None)),
        Err(_) => {}
    }
    let dir = tempfile::tempdir()?;
    let node = dir.path().join(format!("loop{number}"));
    mknodat(CWD, &node, FileType::BlockDevice, mode, device)?;
    Ok((node, Some(dir)))
}

/// `struct loop_info64` of Linux `include/uapi/linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of Linux `include/uapi/linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

// The kernel copies this many bytes from the pointer it is given.
const _: () = assert!(size_of::<LoopInfo64>() == 232 && size_of::<LoopConfig>() == 304);

fn configure(
    node: &File,
    backing: &File,
    offset: u64,
    size: u64,
    access: Access,
    lifetime: Lifetime,
) -> io::Result<()> {
    let config = LoopConfig {
        fd: u32::try_from(backing.as_raw_fd()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        block_size: 512,
        info: LoopInfo64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset,
            size_limit: size,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: match lifetime {
                Lifetime::LastUser => LO_FLAGS_AUTOCLEAR,
                Lifetime::Lasting => 0,
            } | match access {
                Access::ReadOnly => LO_FLAGS_READ_ONLY,
                Access::ReadWrite => 0,
            },
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    #[expect(unsafe_code, reason = "no safe wrapper of LOOP_CONFIGURE exists")]
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config` from its argument and writes nothing back. `LoopConfig` has
    // that struct's layout (`repr(C)`, its size asserted above), holds integers only, and lives until the call returns.
    // Both descriptors are open for the whole call.
    unsafe {
        rustix::ioctl::ioctl(node.as_fd(), Setter::<LOOP_CONFIGURE, LoopConfig>::new(config))?;
    }
    Ok(())
}

/// The request for a free device, whose number is the call's own result.
struct GetFree;

#[expect(unsafe_code, reason = "the trait is how rustix is told of an ioctl")]
// SAFETY: LOOP_CTL_GET_FREE takes no argument, touches no memory of ours, and its result is a number or an error.
unsafe impl Ioctl for GetFree {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        out: IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<Self::Output> {
        Ok(out)
    }
}

fn get_free(control: &File) -> io::Result<u32> {
    #[expect(unsafe_code, reason = "no safe wrapper of LOOP_CTL_GET_FREE exists")]
    // SAFETY: see `GetFree`; the descriptor is open for the whole call.
    let number = unsafe { rustix::ioctl::ioctl(control.as_fd(), GetFree)? };
    u32::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

fn status(node: &File) -> io::Result<LoopInfo64> {
    #[expect(unsafe_code, reason = "no safe wrapper of LOOP_GET_STATUS64 exists")]
    // SAFETY: LOOP_GET_STATUS64 writes one `struct loop_info64`, whose layout `LoopInfo64` has (`repr(C)`, its size asserted
    // above) and which holds integers only, for which all bytes are good. The descriptor is open for the whole call.
    let status =
        unsafe { rustix::ioctl::ioctl(node.as_fd(), Getter::<LOOP_GET_STATUS64, LoopInfo64>::new())? };
    Ok(status)
}

fn clear(node: &File) -> io::Result<()> {
    #[expect(unsafe_code, reason = "no safe wrapper of LOOP_CLR_FD exists")]
    // SAFETY: LOOP_CLR_FD takes no argument and touches no memory of ours; the descriptor is open for the whole call.
    unsafe {
        rustix::ioctl::ioctl(node.as_fd(), rustix::ioctl::NoArg::<LOOP_CLR_FD>::new())?;
    }
    Ok(())
}

/// Why there is no loop device, or it does not go.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    #[error("cannot open the disk file {}", disk.display())]
    Disk { disk: PathBuf, source: io::Error },
    #[error("cannot attach {} to a loop device; {}", disk.display(), advice(source))]
    Refused { disk: PathBuf, source: io::Error },
    #[error(
        "every free loop device was taken by others before {} could be attached; try again",
        disk.display()
    )]
    AllTaken { disk: PathBuf },
    #[error("not all that was written to {} has reached the disk file", node.display())]
    Lost { node: PathBuf, source: io::Error },
    #[error("the loop device {number} is still in use{}", holders::shown(holders))]
    InUse { number: u32, holders: Vec<Holder> },
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "that needs root, and in a container `--privileged` (CodeBuild: privileged mode)"
        }
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => {
            "this machine offers no loop devices: load the kernel module `loop`, and in a container run with `--privileged`"
        }
        Some(libc::ENOSPC) => "all loop devices are in use (losetup --list shows by whom)",
        Some(libc::EINVAL | libc::ENOTTY) => "that needs Linux 5.8 or later",
        _ => "the kernel refuses",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let error =
            LoopError::Refused { disk: "d".into(), source: io::Error::from_raw_os_error(libc::EPERM) };
        assert!(error.to_string().contains("--privileged"), "{error}");
        let error =
            LoopError::Refused { disk: "d".into(), source: io::Error::from_raw_os_error(libc::ENOENT) };
        assert!(error.to_string().contains("module `loop`"), "{error}");
    }
}
