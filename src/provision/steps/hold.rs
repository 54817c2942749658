//! Holding back packages whose scripts write boot code that is not a file of the root: to the EFI system partition
//! while it is not mounted (a copy of its files is no device, which grub-install asks for), or to the disk's first
//! sectors, which a mounted root cannot reach. What is on the disk stays as the base had it; without the hold the
//! scripts would fail, or write to a folder that the boot never reads.

use super::{EspAccess, StepContext, StepError};
use crate::host::stop::Stop;
use crate::provision::installed::installed;
use crate::provision::root::{PackageManager, Root, RootCommand};

/// Debian's and Ubuntu's packages that write to the EFI system partition when they are configured. Those that only
/// carry GRUB's modules (grub-efi-amd64-bin) write nothing and are not here.
const ESP_WRITERS: [&str; 7] = [
    "grub-cloud-amd64",
    "grub-cloud-arm64",
    "grub-efi-amd64",
    "grub-efi-amd64-signed",
    "grub-efi-arm64",
    "grub-efi-arm64-signed",
    "shim-signed",
];
/// Writes files to it and needs no more than that: its bootctl is told where the partition is.
const ESP_FILE_WRITERS: [&str; 1] = ["systemd-boot"];
/// Writes to the boot sector and the sectors after it.
const SECTOR_WRITERS: [&str; 1] = ["grub-pc"];

/// Holds those that are installed and gives what it held. Packages that the image's maker holds are left alone.
pub(super) async fn hold(root: &dyn Root, context: &StepContext) -> Result<Vec<String>, StepError> {
    if root.facts().package_manager != Some(PackageManager::Apt) {
        return Ok(Vec::new());
    }
    let packages = installed(root.dir())?;
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
    let already = apt_mark(root, "showhold", &[], &context.stop).await?;
    names.retain(|name| !already.contains(name));
    if names.is_empty() {
        return Ok(names);
    }
    apt_mark(root, "hold", &names, &context.stop).await?;
    context.reporter.note(format!(
        "held at the base's version, since they write boot code outside of the root's files: {}",
        names.join(", ")
    ));
    Ok(names)
}

/// Gives them back, after a stop too.
pub(super) async fn release(root: &dyn Root, held: &[String]) -> Result<(), StepError> {
    if held.is_empty() {
        return Ok(());
    }
    // A step may have removed one of them: its hold went with it.
    let still = apt_mark(root, "showhold", &[], &Stop::never()).await?;
    let still: Vec<String> = held.iter().filter(|name| still.contains(name)).cloned().collect();
    if !still.is_empty() {
        apt_mark(root, "unhold", &still, &Stop::never()).await?;
    }
    Ok(())
}

async fn apt_mark(
    root: &dyn Root,
    action: &str,
    names: &[String],
    stop: &Stop,
) -> Result<Vec<String>, StepError> {
    let words = ["apt-mark", action].into_iter().map(str::to_owned);
    let command = RootCommand::new(words.chain(names.iter().cloned()));
    let mut lines = Vec::new();
    let exit = root.run(&command, stop, &mut |_, line| lines.push(line.trim().to_owned())).await?;
    if exit.success() {
        Ok(lines)
    } else {
        Err(StepError::Failed { command: format!("apt-mark {action}"), code: exit.code, tail: exit.tail })
    }
}
