//! What is where on a disk: which part is the root, and what its fstab mounts from the same disk. Looks only; refuses by
//! name what cannot be changed here.

mod mounts;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};

use super::btrfs::{self, Subvolume, Subvolumes};
use super::filesystem::FilesystemKind;
use super::fstab::{self, FstabLine};
use super::ids::{DiskIds, IdsError, Volume};
use super::mount::{Mount, MountError, Target};
use crate::host::exec::ExecError;
use crate::host::kernel_log::KernelLog;
use crate::host::loop_device::{Access, LoopDevice, LoopError};
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;
pub use mounts::FstabMount;
use mounts::{DISCOVERED, Known, discovered, resolve};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// In bytes.
    pub disk_size: u64,
    pub ids: DiskIds,
    pub root: Volume,
    /// Which subvolume of the root's btrfs is the root.
    #[serde(default)]
    pub subvolume: Option<Subvolume>,
    /// Which one the kernel takes for the root where its command line names none.
    #[serde(default)]
    pub default_subvolume: Option<Subvolume>,
    /// What fstab mounts from this disk below the root, in the order in which it must be mounted.
    pub mounts: Vec<FstabMount>,
    pub esp: Option<Volume>,
    /// Where `/boot` is a file system of its own.
    pub boot: Option<Volume>,
    pub swap: Vec<Volume>,
    pub os: OsRelease,
}

/// What the root says of itself (os-release(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsRelease {
    /// `debian`, `ubuntu`.
    pub id: String,
    /// `12`, `24.04`; empty where there is none.
    pub version_id: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub pretty_name: String,
}

impl Layout {
    /// Looks at a disk file. Mounts what may be the root, read-only and one at a time.
    ///
    /// # Errors
    /// [`LayoutError`]: no root, two of them, or one that cannot be changed here; each by its name.
    pub async fn find(disk: &Path, stop: &Stop) -> Result<Self, LayoutError> {
        let ids = DiskIds::read(disk, stop).await?;
        refuse_layers(disk, &ids)?;
        let disk_size =
            super::size_of(disk).map_err(|source| LayoutError::Io { path: disk.to_owned(), source })?;
        let mut roots: Vec<(Volume, Found)> = Vec::new();
        let mut unusable: Option<LayoutError> = None;
        let mut subvolumes = HashMap::new();
        for volume in &ids.volumes {
            let Some(filesystem) = volume.filesystem.as_ref().filter(|found| found.kind.may_be_root()) else {
                continue;
            };
            if filesystem.kind.driver().is_none() {
                unusable.get_or_insert_with(|| LayoutError::unsupported(disk, volume, &volume.to_string()));
                continue;
            }
            match look_into(disk, volume, stop).await {
                Ok(seen) => {
                    roots.extend(seen.roots.into_iter().map(|found| (volume.clone(), found)));
                    subvolumes.insert(volume.number(), seen.subvolumes);
                }
                // It may be no part of the system: an error only where no other is the root.
                Err(error @ LayoutError::NotMounted { .. }) => {
                    unusable.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let none = || LayoutError::NoRoot { disk: disk.to_owned(), found: listed(&ids.volumes) };
        let (root, found) = the_root(disk, roots)?.ok_or_else(|| unusable.unwrap_or_else(none))?;
        let known = Known { ids: &ids, subvolumes: &subvolumes };
        let mut mounts = resolve(&known, &root, &found)
            .map_err(|reason| LayoutError::Fstab { disk: disk.to_owned(), reason })?;
        discovered(&ids, &found, &mut mounts);
        for mount in &mounts {
            let kind = mount.volume.filesystem.as_ref().map(|found| &found.kind);
            if kind.and_then(FilesystemKind::driver).is_none() {
                let place = format!("{} (mounted at {})", mount.volume, mount.path);
                return Err(LayoutError::unsupported(disk, &mount.volume, &place));
            }
        }
        let esp = ids.volumes.iter().find(|one| one.partition.is_esp()).cloned();
        let boot = mounts.iter().find(|one| one.path == "/boot").map(|one| one.volume.clone());
        let swap = ids
            .volumes
            .iter()
            .filter(|one| one.filesystem.as_ref().is_some_and(|found| found.kind == FilesystemKind::Swap))
            .cloned()
            .collect();
        let default_subvolume = subvolumes.remove(&root.number()).flatten().map(|all| all.default);
        Ok(Self {
            disk_size,
            ids,
            root,
            subvolume: found.subvolume,
            default_subvolume,
            mounts,
            esp,
            boot,
            swap,
            os: found.os,
        })
    }
}

/// Layers below a file system hide it from a bake: naming them is better than finding no root.
fn refuse_layers(disk: &Path, ids: &DiskIds) -> Result<(), LayoutError> {
    for volume in &ids.volumes {
        let layer = match volume.filesystem.as_ref().map(|found| &found.kind) {
            Some(FilesystemKind::Lvm) => "an LVM physical volume",
            Some(FilesystemKind::Luks) => "encrypted (LUKS)",
            Some(FilesystemKind::Raid) => "a member of a software RAID",
            _ => continue,
        };
        return Err(LayoutError::Layer { disk: disk.to_owned(), volume: volume.to_string(), layer });
    }
    Ok(())
}

/// What makes a file system, or a subvolume of one, a root.
struct Found {
    subvolume: Option<Subvolume>,
    fstab: Vec<FstabLine>,
    os: OsRelease,
    /// Those of [`DISCOVERED`] that are there and empty.
    empty: Vec<&'static str>,
}

/// What was seen in a part.
struct Seen {
    roots: Vec<Found>,
    /// A btrfs's.
    subvolumes: Option<Subvolumes>,
}

/// Mounts a part read-only and reads what makes it, or its subvolumes, a root.
async fn look_into(disk: &Path, volume: &Volume, stop: &Stop) -> Result<Seen, LayoutError> {
    let nothing = Seen { roots: Vec::new(), subvolumes: None };
    let Some(kind) = volume.filesystem.as_ref().map(|found| &found.kind) else {
        return Ok(nothing);
    };
    let Some(driver) = kind.driver() else {
        return Ok(nothing);
    };
    let dir = tempfile::tempdir().map_err(|source| LayoutError::Io { path: std::env::temp_dir(), source })?;
    let device = LoopDevice::attach(disk, volume.partition.start, volume.partition.size, Access::ReadOnly)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let target = Target::Host(dir.path());
    let is_btrfs = *kind == FilesystemKind::Btrfs;
    let log = KernelLog::from_now();
    let mount = if is_btrfs {
        let data = format!("{},{}", driver.read_only, btrfs::top_level_option());
        btrfs::mount(&device, target, flags, &data, stop).await
    } else {
        Mount::new(device.node(), target, driver.name, flags, driver.read_only)
    };
    let mount = match mount {
        Ok(mount) => mount,
        Err(source @ MountError::Refused { .. }) => {
            // Mounting a device that does not fit is refused as an invalid argument; the log says what is meant.
            let reason = log.about(&format!("loop{}", device.number()));
            let error = LayoutError::NotMounted {
                disk: disk.to_owned(),
                volume: volume.to_string(),
                kind: kind.to_string(),
                reason,
                source,
            };
            device.close().await?;
            return Err(error);
        }
        Err(error) => return Err(error.into()),
    };
    let seen = read_part(dir.path(), is_btrfs, stop).await;
    mount.unmount(&Stop::never()).await?;
    if is_btrfs {
        btrfs::forget(&device).await;
    }
    device.close().await?;
    seen.map_err(|error| match error {
        PartError::Io(source) => LayoutError::Io { path: disk.to_owned(), source },
        PartError::Exec(error) => error.into(),
    })
}

enum PartError {
    Io(io::Error),
    Exec(ExecError),
}

async fn read_part(at: &Path, is_btrfs: bool, stop: &Stop) -> Result<Seen, PartError> {
    if !is_btrfs {
        let root = read_root(at, "/", None).map_err(PartError::Io)?;
        return Ok(Seen { roots: root.into_iter().collect(), subvolumes: None });
    }
    let subvolumes = Subvolumes::read(at, stop).await.map_err(PartError::Exec)?;
    let read =
        |one: &Subvolume| read_root(at, &format!("/{}", one.path), Some(one.clone())).map_err(PartError::Io);
    let mut roots = Vec::new();
    // What the kernel mounts when it is told nothing is the root, unless its own fstab names another.
    if let Some(default) = read(&subvolumes.default)? {
        roots.push(default);
    }
    let elsewhere = |found: &Found| {
        found
            .fstab
            .iter()
            .find(|line| line.path == "/")
            .is_some_and(|line| subvolumes.asked(&line.options) != found.subvolume.as_ref())
    };
    if roots.iter().all(elsewhere) {
        roots.clear();
        for one in &subvolumes.all {
            roots.extend(read(one)?);
        }
        // A snapshot of a root has its fstab too, which names the one that it was taken of.
        if roots.iter().any(|found| !elsewhere(found)) {
            roots.retain(|found| !elsewhere(found));
        }
    }
    Ok(Seen { roots, subvolumes: Some(subvolumes) })
}

/// Reads what is at `path` of what is mounted at `at`. `None` where it is no root.
fn read_root(at: &Path, path: &str, subvolume: Option<Subvolume>) -> io::Result<Option<Found>> {
    let top = RootDir::open(at)?;
    let root = match top.enter(path) {
        // Named by btrfs, but no folder of that name: no root in any case.
        Err(_) if path != "/" => return Ok(None),
        other => other?,
    };
    // `/etc/os-release` is usually a link; a root under construction may have only its target.
    let Some(os) =
        ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| root.read_text(path).ok())
    else {
        return Ok(None);
    };
    let fstab = match root.read_text("/etc/fstab") {
        Ok(text) => fstab::parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let is_empty = |path: &&str| root.list(path).is_ok_and(|names| names.is_empty());
    let empty = DISCOVERED.into_iter().filter(is_empty).collect();
    Ok(Some(Found { subvolume, fstab, os: OsRelease::parse(&os), empty }))
}

/// The one root of what was found, if there is one.
fn the_root(disk: &Path, mut roots: Vec<(Volume, Found)>) -> Result<Option<(Volume, Found)>, LayoutError> {
    let name = |(volume, found): &(Volume, Found)| match &found.subvolume {
        Some(subvolume) => format!("{subvolume} of {volume}"),
        None => volume.to_string(),
    };
    if let [first, second, ..] = roots.as_slice() {
        return Err(LayoutError::TwoRoots {
            disk: disk.to_owned(),
            first: name(first),
            second: name(second),
        });
    }
    Ok(roots.pop())
}

/// What is on a disk, for an error.
fn listed(volumes: &[Volume]) -> String {
    let one = |volume: &Volume| match &volume.filesystem {
        Some(found) => format!("{} on {volume}", found.kind),
        None => format!("nothing that is known on {volume}"),
    };
    if volumes.is_empty() {
        "no partitions".to_owned()
    } else {
        volumes.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

impl OsRelease {
    /// Reads the file's text. What is not there stays empty.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let value = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned())
                .unwrap_or_default()
        };
        Self { id: value("ID"), version_id: value("VERSION_ID"), pretty_name: value("PRETTY_NAME") }
    }
}

/// Why a disk cannot be baked here.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error(
        "{volume} of {} is {layer}; a bake needs the root on a plain ext4, xfs or btrfs: use an image of the system that has one, or write `method: launch`",
        disk.display()
    )]
    Layer { disk: PathBuf, volume: String, layer: &'static str },
    #[error(
        "{volume} of {} holds `{kind}`, which a bake here cannot change; it can ext2, ext3, ext4, xfs and btrfs: \
         use an image of the system that has one of them",
        disk.display()
    )]
    Unsupported { disk: PathBuf, volume: String, kind: String },
    #[error(
        "{volume} of {} holds {kind}, which this machine's kernel does not mount{}; check it with the file system's \
         own tool, and where it is sound, bake on a machine with a newer kernel",
        disk.display(),
        reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
    )]
    NotMounted { disk: PathBuf, volume: String, kind: String, reason: Option<String>, source: MountError },
    #[error(
        "{} holds no root: no file system on it has /etc/os-release; it has {found}; a bake needs a disk with an installed \
         Linux",
        disk.display()
    )]
    NoRoot { disk: PathBuf, found: String },
    #[error(
        "{} holds two roots, on {first} and {second}; a bake needs to know which is meant, so the disk may have one",
        disk.display()
    )]
    TwoRoots { disk: PathBuf, first: String, second: String },
    #[error("the /etc/fstab on {} cannot be followed: {reason}", disk.display())]
    Fstab { disk: PathBuf, reason: String },
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Ids(#[from] IdsError),
    #[error(transparent)]
    Loop(#[from] LoopError),
    #[error(transparent)]
    Mount(#[from] MountError),
}

impl LayoutError {
    fn unsupported(disk: &Path, volume: &Volume, place: &str) -> Self {
        let kind = volume.filesystem.as_ref().map(|found| found.kind.to_string());
        Self::Unsupported {
            disk: disk.to_owned(),
            volume: place.to_owned(),
            kind: kind.unwrap_or_else(|| "nothing that is known".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let os = OsRelease::parse("PRETTY_NAME=\"Debian 12\"\n# ID=no\nVERSION_ID='12'\nID=debian\n");
        assert_eq!(
            (os.id.as_str(), os.version_id.as_str(), os.pretty_name.as_str()),
            ("debian", "12", "Debian 12")
        );
        assert_eq!(OsRelease::parse("garbage"), OsRelease::default());
    }
}
