//! The distributions that a root can be made of: what is its own of each, one file a distribution, and the table.

mod debian;
mod ubuntu;

use crate::recipe::{self, RootFilesystem};

/// A distribution of the Debian family, which mmdebstrap installs.
pub(super) trait Distribution: Sync {
    /// As its own pages write it.
    fn name(&self) -> &'static str;

    /// The package of the kernel that is made for clouds. It keeps links to the newest kernel and initramfs in `/` or
    /// `/boot`, where `disk/boot_config.rs` looks for them.
    fn kernel(&self) -> &'static str;

    /// Archive components, where the recipe names none.
    fn components(&self) -> &'static [&'static str];

    /// The keys of its archive on the host.
    fn keyring(&self) -> Keyring;

    /// The package with the tools of a root's file system, which check it and let it grow at boot.
    fn tools(&self, filesystem: RootFilesystem) -> &'static str {
        match filesystem {
            RootFilesystem::Ext4 => "e2fsprogs",
            RootFilesystem::Xfs => "xfsprogs",
            RootFilesystem::Btrfs => "btrfs-progs",
        }
    }
}

/// Where an archive's keys are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyring {
    pub file: &'static str,
    /// What to install where the file is missing.
    pub package: &'static str,
}

/// The table.
pub(super) fn of(name: recipe::Distribution) -> &'static dyn Distribution {
    match name {
        recipe::Distribution::Debian => &debian::Debian,
        recipe::Distribution::Ubuntu => &ubuntu::Ubuntu,
    }
}
