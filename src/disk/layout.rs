//! What is where on a disk: which part is the root, and what its fstab mounts from the same disk. Looks only; refuses by
//! name what cannot be changed here.

use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};

use super::filesystem::FilesystemKind;
use super::fstab;
use super::ids::{DeviceName, DiskIds, IdsError, Volume};
use super::loop_device::{Access, LoopDevice, LoopError};
use super::mount::{Mount, MountError, Target};
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

/// More lines than this no system mounts from one disk.
const MOST_MOUNTS: usize = 32;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// In bytes.
    pub disk_size: u64,
    pub ids: DiskIds,
    pub root: Volume,
    /// What fstab mounts from this disk below the root, in the order in which it must be mounted.
    pub mounts: Vec<FstabMount>,
    pub esp: Option<Volume>,
    /// Where `/boot` is a file system of its own.
    pub boot: Option<Volume>,
    pub swap: Vec<Volume>,
    pub os: OsRelease,
}

/// One mount of the root's fstab that lies on this disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FstabMount {
    /// Absolute, as the root sees it.
    pub path: String,
    pub volume: Volume,
    pub options: Vec<String>,
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
        let disk_size = std::fs::metadata(disk)
            .map_err(|source| LayoutError::Io { path: disk.to_owned(), source })?
            .len();
        let mut root: Option<(Volume, Found)> = None;
        let mut unsupported: Option<(Volume, FilesystemKind)> = None;
        for volume in &ids.volumes {
            let Some(filesystem) = &volume.filesystem else {
                continue;
            };
            if !filesystem.kind.may_be_root() {
                continue;
            }
            if filesystem.kind.driver().is_none() {
                unsupported.get_or_insert((volume.clone(), filesystem.kind.clone()));
                continue;
            }
            let Some(found) = look_into(disk, volume).await? else {
                continue;
            };
            if let Some((first, _)) = &root {
                return Err(LayoutError::TwoRoots {
                    disk: disk.to_owned(),
                    first: first.to_string(),
                    second: volume.to_string(),
                });
            }
            root = Some((volume.clone(), found));
        }
        let Some((root, found)) = root else {
            return Err(match unsupported {
                Some((volume, kind)) => LayoutError::Unsupported {
                    disk: disk.to_owned(),
                    volume: volume.to_string(),
                    kind: kind.to_string(),
                },
                None => LayoutError::NoRoot { disk: disk.to_owned() },
            });
        };
        let mounts = resolve(&ids, root.number(), &found.fstab)
            .map_err(|reason| LayoutError::Fstab { disk: disk.to_owned(), reason })?;
        for mount in &mounts {
            let kind = mount.volume.filesystem.as_ref().map(|found| &found.kind);
            if kind.and_then(FilesystemKind::driver).is_none() {
                return Err(LayoutError::Unsupported {
                    disk: disk.to_owned(),
                    volume: format!("{} (mounted at {})", mount.volume, mount.path),
                    kind: kind.map_or_else(|| "unknown".to_owned(), ToString::to_string),
                });
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
        Ok(Self { disk_size, ids, root, mounts, esp, boot, swap, os: found.os })
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

struct Found {
    fstab: String,
    os: OsRelease,
}

/// Mounts a part read-only and reads what makes it a root. `None` where it is none.
async fn look_into(disk: &Path, volume: &Volume) -> Result<Option<Found>, LayoutError> {
    let Some(driver) = volume.filesystem.as_ref().and_then(|found| found.kind.driver()) else {
        return Ok(None);
    };
    let dir = tempfile::tempdir().map_err(|source| LayoutError::Io { path: std::env::temp_dir(), source })?;
    let device = LoopDevice::attach(disk, volume.partition.start, volume.partition.size, Access::ReadOnly)?;
    let mount = Mount::new(
        device.node(),
        Target::Host(dir.path()),
        driver.name,
        MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC,
        driver.read_only,
    )?;
    let found = read_root(dir.path());
    mount.unmount(&Stop::never()).await?;
    device.close().await?;
    found.map_err(|source| LayoutError::Io { path: disk.to_owned(), source })
}

fn read_root(at: &Path) -> std::io::Result<Option<Found>> {
    let root = RootDir::open(at)?;
    // `/etc/os-release` is usually a link; a root under construction may have only its target.
    let Some(os) =
        ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| root.read_text(path).ok())
    else {
        return Ok(None);
    };
    let fstab = match root.read_text("/etc/fstab") {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    Ok(Some(Found { fstab, os: OsRelease::parse(&os) }))
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

/// The mounts of an fstab that lie on this disk below the root, parents first. Entries of other disks, of the network
/// and of the kernel are left out, and those that are not mounted at boot.
fn resolve(ids: &DiskIds, root: u32, text: &str) -> Result<Vec<FstabMount>, String> {
    let mut mounts: Vec<FstabMount> = Vec::new();
    for line in fstab::parse(text) {
        if line.kind == "swap" || line.has_option("noauto") || line.path == "none" {
            continue;
        }
        let Some(volume) = DeviceName::parse(&line.device).and_then(|name| ids.find(&name)) else {
            continue;
        };
        let path = clean(&line.path).ok_or_else(|| format!("`{}` is no path to mount at", line.path))?;
        if path == "/" {
            if volume.number() != root {
                return Err(format!("it mounts {volume} at /, but the root that was found is another"));
            }
            continue;
        }
        if volume.number() == root {
            return Err(format!("it mounts the root again at {path}"));
        }
        if mounts.iter().any(|one| one.path == path) {
            return Err(format!("it mounts two parts at {path}"));
        }
        if mounts.len() == MOST_MOUNTS {
            return Err(format!("it mounts more than {MOST_MOUNTS} parts of this disk"));
        }
        mounts.push(FstabMount { path, volume: volume.clone(), options: line.options });
    }
    mounts.sort_by_key(|one| (one.path.matches('/').count(), one.path.clone()));
    Ok(mounts)
}

/// An absolute path without doubled and trailing slashes; `None` where it is not absolute or holds `..`.
fn clean(path: &str) -> Option<String> {
    let rest = path.strip_prefix('/')?;
    let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return None;
    }
    Some(format!("/{}", parts.join("/")))
}

/// Why a disk cannot be baked here.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error(
        "{volume} of {} is {layer}; a bake here needs a plain file system: use `method: launch`",
        disk.display()
    )]
    Layer { disk: PathBuf, volume: String, layer: &'static str },
    #[error(
        "{volume} of {} holds the file system `{kind}`, which a bake here cannot change; ext4 it can",
        disk.display()
    )]
    Unsupported { disk: PathBuf, volume: String, kind: String },
    #[error(
        "{} holds no root: no file system on it has /etc/os-release",
        disk.display()
    )]
    NoRoot { disk: PathBuf },
    #[error(
        "{} holds two roots, on {first} and {second}; a bake needs to know which is meant, so the disk may have one",
        disk.display()
    )]
    TwoRoots { disk: PathBuf, first: String, second: String },
    #[error("the /etc/fstab on {} cannot be followed: {reason}", disk.display())]
    Fstab { disk: PathBuf, reason: String },
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Ids(#[from] IdsError),
    #[error(transparent)]
    Loop(#[from] LoopError),
    #[error(transparent)]
    Mount(#[from] MountError),
}

#[cfg(test)]
mod tests {
    use super::super::filesystem::Filesystem;
    use super::super::table::{Partition, TableKind};
    use super::*;

    fn ids() -> DiskIds {
        let volume = |number: u32, uuid: &str, kind: &str| Volume {
            partition: Partition {
                number,
                uuid: Some(format!("part-{number}")),
                name: Some(format!("name{number}")),
                ..Partition::whole(1 << 20)
            },
            filesystem: Some(Filesystem {
                kind: FilesystemKind::from(kind.to_owned()),
                uuid: Some(uuid.to_owned()),
                label: Some(format!("label-{uuid}")),
            }),
        };
        DiskIds {
            kind: TableKind::Gpt,
            disk_id: None,
            volumes: vec![volume(1, "aaaa", "ext4"), volume(2, "bbbb", "ext4"), volume(15, "AB-CD", "vfat")],
        }
    }

    #[test]
    fn fstab_is_resolved_to_this_disk_parents_first() {
        let mounts = resolve(
            &ids(),
            1,
            "LABEL=label-aaaa / ext4 defaults 0 1\nUUID=ab-cd /boot/efi vfat nofail 0 0\nPARTLABEL=name2 /boot// ext4\n\
             UUID=gone /data ext4\nserver:/x /nfs nfs\ntmpfs /tmp tmpfs\n/dev/xvdb1 /other ext4\n\
             UUID=bbbb /later ext4 noauto\n",
        )
        .unwrap();
        let found: Vec<_> = mounts.iter().map(|one| (one.path.as_str(), one.volume.number())).collect();
        assert_eq!(found, [("/boot", 2), ("/boot/efi", 15)]);
        assert_eq!(mounts[1].options, ["nofail"]);
    }

    #[test]
    fn a_hostile_fstab_is_an_error() {
        for (text, reason) in [
            ("UUID=bbbb /../../etc ext4", "no path"),
            ("UUID=bbbb relative ext4", "no path"),
            ("UUID=bbbb / ext4", "another"),
            ("UUID=aaaa /again ext4", "again"),
            ("UUID=bbbb /x ext4\nUUID=ab-cd /x/ vfat", "two parts"),
        ] {
            let error = resolve(&ids(), 1, text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let many: String = (0..40).map(|n| format!("UUID=bbbb /m{n} ext4\n")).collect();
        assert!(resolve(&ids(), 1, &many).unwrap_err().contains("more than"));
    }

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
