//! The boot loaders that are known: what one must tell, and the table of all.

use super::Sight;
use super::entry::Found;
use super::extlinux::Extlinux;
use super::grub::Grub;
use super::systemd_boot::SystemdBoot;

/// A boot loader whose settings can be read.
pub(super) trait Loader: Sync {
    /// What it would boot by the settings in the root, and what is wrong with them: a default that leads nowhere, a
    /// file that is not there. Nothing where it is not installed. Never looks into a kernel or an initramfs, and takes
    /// every path of the settings as hostile.
    fn find(&self, disk: &Sight<'_>) -> Found;
}

/// All of them. A disk can hold several, and each must be right: which one the machine starts is not known here.
pub(super) const LOADERS: [&dyn Loader; 3] = [&Grub, &SystemdBoot, &Extlinux];
