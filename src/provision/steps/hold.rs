//! Holding back packages whose scripts write boot code that is not a file of the root: to the EFI system partition
//! while it is not mounted, or to the disk's first sectors, which a mounted root cannot reach. What is on the disk
//! stays as the base had it; without the hold the scripts would fail, or write to a folder that the boot never reads.

use super::{StepContext, StepError};
use crate::provision::installed::installed;
use crate::provision::root::Root;

/// Debian's and Ubuntu's packages that write to the EFI system partition when they are configured. Those that only
/// carry GRUB's modules (grub-efi-amd64-bin) write nothing and are not here.
const ESP_WRITERS: [&str; 8] = [
    "grub-cloud-amd64",
    "grub-cloud-arm64",
    "grub-efi-amd64",
    "grub-efi-amd64-signed",
    "grub-efi-arm64",
    "grub-efi-arm64-signed",
    "shim-signed",
    "systemd-boot",
];
/// Writes to the boot sector and the sectors after it.
const SECTOR_WRITERS: [&str; 1] = ["grub-pc"];

/// Holds those that are installed and gives what it held. Packages that the image's maker holds are left alone.
pub(super) async fn hold(root: &dyn Root, context: &StepContext) -> Result<Vec<String>, StepError> {
    let Some(manager) = root.facts().package_manager else {
        return Ok(Vec::new());
    };
    let packages = installed(root.dir(), &context.stop).await?.packages;
    let concerned =
        |name: &str| SECTOR_WRITERS.contains(&name) || (!context.esp_writable && ESP_WRITERS.contains(&name));
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
