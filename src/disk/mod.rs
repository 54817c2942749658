//! Disks: partition tables, file systems, mounts, boot loaders, and their blocks. A disk is a raw file, or a volume that
//! is attached to this machine.
//! Nothing here knows of clouds, recipes or provisioning steps, and nothing needs the kernel to read a partition
//! table: everything works by byte offset.

mod arrival;
pub mod block_map;
pub mod boot_check;
pub mod boot_config;
pub mod boot_loader;
pub mod btrfs;
mod buffers;
pub mod delta;
pub mod esp;
pub mod filesystem;
pub mod format;
pub mod fstab;
pub mod grow;
pub mod ids;
pub mod layout;
pub mod mount;
mod pairing;
pub mod sparse;
pub mod table;
pub mod transfer;
pub mod tree;
mod zeroout;

use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

pub use block_map::BlockMap;
pub use delta::Delta;
pub use layout::Layout;
pub use sparse::SparseDisk;
pub use transfer::{Pipe, TransferError, Unless};

/// The sector of every disk here, in bytes: what EBS volumes and raw files have.
pub const SECTOR: u64 = 512;

/// One mebibyte: what partitions are aligned to.
pub const MIB: u64 = 1024 * 1024;

/// The bytes of a disk: of a file, or of a volume that is attached to this machine, whose node has no length.
///
/// # Errors
/// The kernel's.
pub fn size_of(disk: &Path) -> io::Result<u64> {
    let found = std::fs::metadata(disk)?;
    if !found.file_type().is_block_device() {
        return Ok(found.len());
    }
    std::fs::File::open(disk)?.seek(SeekFrom::End(0))
}

/// A disk's bytes. The sparse file implements it; a device that fetches blocks when they are touched may later.
pub trait Disk: Send + Sync {
    /// In bytes.
    fn size(&self) -> u64;

    /// Fills `into` from byte `offset`.
    ///
    /// # Errors
    /// The kernel's; `UnexpectedEof` beyond the disk's end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `from` at byte `offset`.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` beyond the disk's end: a disk never grows by a write.
    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()>;

    /// The byte ranges that may hold anything but zeros, ascending. What lies outside of them reads as zeros.
    ///
    /// # Errors
    /// The kernel's.
    fn written(&self) -> io::Result<Vec<Range<u64>>>;
}
