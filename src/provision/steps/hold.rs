//! Holding back packages whose scripts write boot code that is not a file of the root: to the EFI system partition
//! while it is not mounted (a copy of its files is no device, which grub-install asks for), or to the disk's first
//! sectors, which a mounted root cannot reach. What is on the disk stays as the base had it; without the hold the
//! scripts would fail, or write to a folder that the boot never reads.

use super::{EspAccess, StepContext, StepError};
use crate::provision::installed::installed;
use crate::provision::root::Root;

/// Packages of Debian and Ubuntu that write to the EFI system partition when they are configured, then of SUSE, where
/// their scripts run `update-bootloader --reinit`. Those that only carry GRUB's modules (grub-efi-amd64-bin) write nothing
/// and are not here.
const ESP_WRITERS: [&str; 10] = [
    "grub-cloud-amd64",
    "grub-cloud-arm64",
    "grub-efi-amd64",
    "grub-efi-amd64-signed",
    "grub-efi-arm64",
    "grub-efi-arm64-signed",
    "shim-signed",
    "grub2-x86_64-efi",
    "grub2-arm64-efi",
    "shim",
];
/// Write files to it and need no more than that: systemd-boot, whose bootctl is told where the partition is, and
/// Fedora's, Red Hat's and Amazon's packages of boot loaders, whose files are there.
const ESP_FILE_WRITERS: [&str; 7] = [
    "systemd-boot",
    "grub2-efi-x64",
    "grub2-efi-x64-ec2",
    "grub2-efi-aa64",
    "grub2-efi-aa64-ec2",
    "shim-x64",
    "shim-aa64",
];
/// Write to the boot sector and the sectors after it: Debian's, and SUSE's.
const SECTOR_WRITERS: [&str; 2] = ["grub-pc", "grub2-i386-pc"];

/// Holds those that are installed and gives what it held. Packages that the image's maker holds are left alone.
pub(super) async fn hold(root: &dyn Root, context: &StepContext) -> Result<Vec<String>, StepError> {
    let Some(manager) = root.facts().package_manager else {
        return Ok(Vec::new());
    };
    let packages = installed(root.dir(), &context.stop).await?.packages;
    let concerned = |name: &str| {
        SECTOR_WRITERS.contains(&name)
            || (context.esp != EspAccess::Full && ESP_WRITERS.contains(&name))
            || (context.esp == EspAccess::None && ESP_FILE_WRITERS.contains(&name))
    };
    let mut names: Vec<String> =
        packages.into_iter().map(|p| p.name).filter(|name| concerned(name)).collect();
    names.dedup();
    if names.is_empty() {
        return Ok(names);
    }
    let names = manager.hold(root, &names, &context.stop).await?;
    if names.is_empty() {
        return Ok(names);
    }
    context.reporter.note(format!(
        "held at the base's version, since they write boot code outside of the root's files: {}",
        names.join(", ")
    ));
    Ok(names)
}

/// Gives them back, after a stop too.
pub(super) async fn release(root: &dyn Root, held: &[String]) -> Result<(), StepError> {
    match root.facts().package_manager {
        Some(manager) if !held.is_empty() => Ok(manager.release(root, held).await?),
        _ => Ok(()),
    }
}
