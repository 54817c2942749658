//! Checks in a root, the guest's script, the metadata service, and instances in QEMU.

mod boot;
mod guest;
mod in_root;
mod metadata;
pub mod qemu;
mod waiting;
