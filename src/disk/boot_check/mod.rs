//! Will it boot? The last look at a root before its disk is stored: that every entry of the boot menu leads to a kernel, an
//! initramfs and a root that are on this disk, with the drivers that EC2 needs. Changes nothing, and believes nothing
//! that the root says without a look.

mod bls;
mod entry;
mod extlinux;
pub mod grub;
pub mod initramfs;
mod judge;
mod kernel;
mod loader;
mod sight;
mod systemd_boot;
mod unified;

use std::collections::HashMap;
use std::io::{self, Read};

use super::layout::Layout;
use crate::host::exec::ExecError;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;
use entry::Found;
pub use entry::{Entry, Image};
use initramfs::Limits;
use judge::Judge;
use loader::LOADERS;
pub use sight::Sight;

/// A menu or settings file larger than this is none.
const LARGEST_TEXT: u64 = 4 << 20;
/// Bounds of the walk below `/boot`.
const DEEPEST: usize = 8;
const MOST_FILES: usize = 20_000;

/// What was found good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub boots: Vec<CheckedBoot>,
    /// What could not be judged, for the report.
    pub warnings: Vec<String>,
}

/// One entry that leads to a kernel and a root of this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBoot {
    /// The menu's file.
    pub file: String,
    pub title: String,
    /// As the root sees it.
    pub kernel: String,
    /// The kernel's version, where it could be found.
    pub version: Option<String>,
    pub initrds: Vec<String>,
}

/// What keeps an image from booting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    pub reason: String,
}

/// Looks at the boot files of a root whose file systems are mounted as `layout` says.
///
/// # Errors
/// [`BootCheckError::Problems`] with all that is wrong; or a stop.
pub async fn check(root: &RootDir, layout: &Layout, stop: &Stop) -> Result<Checked, BootCheckError> {
    check_within(root, layout, Limits::default(), stop).await
}

/// [`check`] with other bounds for an initramfs than the usual.
///
/// # Errors
/// As [`check`].
pub async fn check_within(
    root: &RootDir,
    layout: &Layout,
    limits: Limits,
    stop: &Stop,
) -> Result<Checked, BootCheckError> {
    let disk = Sight { root, layout };
    let mut found = Found::default();
    loop_devices(&disk, &mut found);
    let mut judge = Judge { disk, limits, initramfs: HashMap::new(), good: Vec::new(), found };
    for loader in LOADERS {
        let found = loader.find(&disk);
        judge.found.problems.extend(found.problems);
        judge.found.warnings.extend(found.warnings);
        judge.found.unjudged |= found.unjudged;
        for entry in &found.entries {
            judge.entry(entry, stop).await?;
        }
    }
    let Judge { good, mut found, .. } = judge;
    if good.is_empty() && found.problems.is_empty() && !found.unjudged {
        let unseen = match &layout.esp {
            Some(esp) if disk.mounted_at(esp).is_none() => {
                format!("; {esp}, the EFI system partition, is not mounted and was not looked into")
            }
            _ => String::new(),
        };
        let odd: String = found.warnings.iter().map(|warning| format!("; {warning}")).collect();
        found.problem("/boot", format!("no menu with an entry that boots Linux was found{unseen}{odd}"));
    }
    if found.problems.is_empty() {
        Ok(Checked { boots: good, warnings: found.warnings })
    } else {
        Err(BootCheckError::Problems { problems: found.problems })
    }
}

/// What the boot loaders of a root would start, good or not.
#[must_use]
pub fn entries(root: &RootDir, layout: &Layout) -> Vec<Entry> {
    let disk = Sight { root, layout };
    LOADERS.iter().flat_map(|loader| loader.find(&disk).entries).collect()
}

/// No settings of a boot loader name a loop device: those are the build host's.
fn loop_devices(disk: &Sight<'_>, found: &mut Found) {
    let esp = disk.layout.esp.as_ref().and_then(|esp| disk.mounted_at(esp));
    let outside = esp.filter(|esp| !esp.starts_with("/boot"));
    let mut folders: Vec<(String, usize)> =
        ["/boot"].into_iter().chain(outside).map(|folder| (folder.to_owned(), 0)).collect();
    let mut files = 0;
    while let Some((folder, depth)) = folders.pop() {
        let names = match disk.root.list(&folder) {
            Ok(names) => names,
            // All that boots may lie on the EFI system partition.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                found.problem(&folder, format!("it cannot be read: {error}"));
                continue;
            }
        };
        for name in names {
            files += 1;
            if files > MOST_FILES || depth > DEEPEST {
                found.problem(
                    &folder,
                    "it holds more files than a boot loader has; nothing more was looked at",
                );
                return;
            }
            let path = format!("{folder}/{name}");
            let Ok(kind) = disk.root.symlink_metadata(&path) else {
                continue;
            };
            if kind.is_dir() {
                folders.push((path, depth + 1));
            } else if kind.is_file() && is_settings(&name) {
                match read_text(disk.root, &path) {
                    Ok(text) if text.contains("/dev/loop") => {
                        found.problem(
                            &path,
                            "it names a loop device (/dev/loop…), which exists only where the image was baked",
                        );
                    }
                    Ok(_) => {}
                    Err(error) => found.problem(&path, format!("it cannot be read: {error}")),
                }
            }
        }
    }
}

fn is_settings(name: &str) -> bool {
    name.ends_with(".cfg") || name.ends_with(".conf") || name == "grubenv" || name == "device.map"
}

/// A text file of bounded size.
fn read_text(root: &RootDir, path: &str) -> io::Result<String> {
    let file = root.open_file(path)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_TEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_TEXT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is larger than {} MiB", LARGEST_TEXT >> 20),
        ));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Why an image would not boot.
#[derive(Debug, thiserror::Error)]
pub enum BootCheckError {
    #[error("the image would not boot:{}", shown(problems))]
    Problems { problems: Vec<Problem> },
    #[error(transparent)]
    Exec(#[from] ExecError),
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n    {}: {}", problem.file, problem.reason)).collect()
}
