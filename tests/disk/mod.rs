//! Disks for real: files with tables and file systems made here, loop devices, mounts.

pub mod boot_check;
mod boot_loaders;
mod btrfs;
mod esp;
pub mod fixture;
mod format;
mod formats;
mod grow;
mod initramfs;
mod kinds;
mod layout;
mod loops;
mod odd;
mod table;
mod tree;
