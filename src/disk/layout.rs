//! What is where on a disk: which part is the root, and what its fstab mounts from the same disk. Looks only; refuses by
//! name what cannot be changed here.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};

use super::btrfs::{self, Subvolume, Subvolumes};
use super::filesystem::{self, FilesystemKind};
use super::fstab::{self, FstabLine};
use super::ids::{DeviceName, DiskIds, IdsError, Volume};
use super::loop_device::{Access, LoopDevice, LoopError};
use super::mount::{Mount, MountError, Target};
use super::table::{TYPE_XBOOTLDR, TableKind};
use crate::host::exec::ExecError;
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
    /// Which subvolume of the root's btrfs is the root.
    #[serde(default)]
    pub subvolume: Option<Subvolume>,
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
    /// Which subvolume of a btrfs.
    #[serde(default)]
    pub subvolume: Option<Subvolume>,
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
        let (root, found) = the_root(disk, roots, unusable)?;
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
        Ok(Self { disk_size, ids, root, subvolume: found.subvolume, mounts, esp, boot, swap, os: found.os })
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

/// Where systemd mounts an ESP and its extension that no fstab names (systemd-gpt-auto-generator(8)).
const DISCOVERED: [&str; 2] = ["/efi", "/boot"];

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
    let mount = if is_btrfs {
        let data = format!("{},{}", driver.read_only, btrfs::top_level_option());
        btrfs::mount(&device, target, flags, &data, stop).await
    } else {
        Mount::new(device.node(), target, driver.name, flags, driver.read_only)
    };
    let mount = match mount {
        Ok(mount) => mount,
        Err(source @ MountError::Refused { .. }) => {
            let features = filesystem::features(kind, device.node(), stop).await;
            let error = LayoutError::NotMounted {
                disk: disk.to_owned(),
                volume: volume.to_string(),
                kind: kind.to_string(),
                features,
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

/// The one root of what was found.
fn the_root(
    disk: &Path,
    mut roots: Vec<(Volume, Found)>,
    unusable: Option<LayoutError>,
) -> Result<(Volume, Found), LayoutError> {
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
    roots.pop().ok_or_else(|| unusable.unwrap_or_else(|| LayoutError::NoRoot { disk: disk.to_owned() }))
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

/// What fstab's names can mean.
struct Known<'a> {
    ids: &'a DiskIds,
    /// By the part's number, those of a btrfs.
    subvolumes: &'a HashMap<u32, Option<Subvolumes>>,
}

/// The mounts of an fstab that lie on this disk below the root, parents first. Entries of other disks, of the network
/// and of the kernel are left out, and those that are not mounted at boot.
fn resolve(known: &Known<'_>, root: &Volume, found: &Found) -> Result<Vec<FstabMount>, String> {
    let mut mounts: Vec<FstabMount> = Vec::new();
    for line in &found.fstab {
        if line.kind == "swap" || line.has_option("noauto") || line.path == "none" {
            continue;
        }
        let Some(volume) = DeviceName::parse(&line.device).and_then(|name| known.ids.find(&name)) else {
            continue;
        };
        let path = clean(&line.path).ok_or_else(|| format!("`{}` is no path to mount at", line.path))?;
        let subvolume = match known.subvolumes.get(&volume.number()) {
            Some(Some(subvolumes)) => Some(
                subvolumes
                    .asked(&line.options)
                    .ok_or_else(|| {
                        let options = line.options.join(",");
                        format!("it mounts `{options}` of {volume} at {path}, and there is no such subvolume")
                    })?
                    .clone(),
            ),
            _ => None,
        };
        let is_root = volume.number() == root.number() && subvolume == found.subvolume;
        if path == "/" {
            if !is_root {
                let what = subvolume.map_or_else(String::new, |one| format!("{one} of "));
                return Err(format!("it mounts {what}{volume} at /, but the root that was found is another"));
            }
            continue;
        }
        if is_root {
            return Err(format!("it mounts the root again at {path}"));
        }
        if mounts.iter().any(|one| one.path == path) {
            return Err(format!("it mounts two parts at {path}"));
        }
        if mounts.len() == MOST_MOUNTS {
            return Err(format!("it mounts more than {MOST_MOUNTS} parts of this disk"));
        }
        let (volume, options) = (volume.clone(), line.options.clone());
        mounts.push(FstabMount { path, volume, subvolume, options });
    }
    mounts.sort_by_key(|one| (one.path.matches('/').count(), one.path.clone()));
    Ok(mounts)
}

/// Adds what systemd mounts of a GPT without being told (systemd-gpt-auto-generator(8)): the extended boot loader
/// partition at /boot, the ESP at /efi or else at /boot, each where the folder is there, empty and no mount point.
fn discovered(ids: &DiskIds, found: &Found, mounts: &mut Vec<FstabMount>) {
    if ids.kind != TableKind::Gpt {
        return;
    }
    let esp = |one: &&Volume| one.partition.is_esp();
    let extended = |one: &&Volume| one.partition.type_id == TYPE_XBOOTLDR;
    let candidates = [
        (ids.volumes.iter().find(extended), &["/boot"][..]),
        (ids.volumes.iter().find(esp), &DISCOVERED[..]),
    ];
    for (volume, places) in candidates {
        let Some(volume) = volume.filter(|volume| {
            volume.filesystem.is_some() && !mounts.iter().any(|one| one.volume.number() == volume.number())
        }) else {
            continue;
        };
        let free =
            |place: &&&str| found.empty.contains(*place) && !mounts.iter().any(|one| one.path == **place);
        if let Some(place) = places.iter().find(free) {
            mounts.push(FstabMount {
                path: (*place).to_owned(),
                volume: volume.clone(),
                subvolume: None,
                options: Vec::new(),
            });
        }
    }
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
        "{volume} of {} holds `{kind}`, which a bake here cannot change; it can ext2, ext3, ext4, xfs and btrfs, \
         and for others use `method: launch`",
        disk.display()
    )]
    Unsupported { disk: PathBuf, volume: String, kind: String },
    #[error(
        "{volume} of {} holds {kind}, which this machine's kernel does not mount{}; check it with the file system's \
         own tool, and where it is sound, bake on a machine with a newer kernel or use `method: launch`",
        disk.display(),
        features.as_ref().map(|features| format!(" (its features: {features})")).unwrap_or_default()
    )]
    NotMounted { disk: PathBuf, volume: String, kind: String, features: Option<String>, source: MountError },
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
    use super::super::filesystem::Filesystem;
    use super::super::table::{Partition, TYPE_ESP};
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

    fn found(text: &str) -> Found {
        Found { subvolume: None, fstab: fstab::parse(text), os: OsRelease::default(), empty: Vec::new() }
    }

    fn resolved(text: &str) -> Result<Vec<FstabMount>, String> {
        let ids = ids();
        resolve(&Known { ids: &ids, subvolumes: &HashMap::new() }, &ids.volumes[0], &found(text))
    }

    #[test]
    fn fstab_is_resolved_to_this_disk_parents_first() {
        let mounts = resolved(
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
            let error = resolved(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let many: String = (0..40).map(|n| format!("UUID=bbbb /m{n} ext4\n")).collect();
        assert!(resolved(&many).unwrap_err().contains("more than"));
    }

    #[test]
    fn a_subvolume_is_found_by_its_option_and_one_that_is_not_there_is_an_error() {
        let ids = ids();
        let of = |id: u64, path: &str| Subvolume { id, path: path.to_owned() };
        let all = vec![of(5, ""), of(256, "@"), of(257, "@home")];
        let known = HashMap::from([(1, Some(Subvolumes { default: all[0].clone(), all }))]);
        let resolved = |text: &str| {
            let found = Found { subvolume: Some(of(256, "@")), ..found(text) };
            resolve(&Known { ids: &ids, subvolumes: &known }, &ids.volumes[0], &found)
        };
        let mounts = resolved(
            "UUID=aaaa / btrfs subvol=@\nUUID=aaaa /home btrfs subvolid=257\nUUID=aaaa /all btrfs subvol=/\n",
        )
        .unwrap();
        let found: Vec<_> =
            mounts.iter().map(|one| (one.path.as_str(), one.subvolume.as_ref().unwrap().id)).collect();
        assert_eq!(found, [("/all", 5), ("/home", 257)]);
        for (text, reason) in [
            ("UUID=aaaa / btrfs subvol=@home", "mounts subvolume @home of partition 1 at /"),
            ("UUID=aaaa / btrfs defaults", "the top level"),
            ("UUID=aaaa /x btrfs subvol=/@", "again"),
            ("UUID=aaaa /x btrfs subvol=@gone", "no such subvolume"),
        ] {
            let error = resolved(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn what_no_fstab_names_is_mounted_where_systemd_does() {
        let mut ids = ids();
        ids.volumes[2].partition.type_id = TYPE_ESP.to_owned();
        let places = |ids: &DiskIds, empty: &[&'static str], fstab: &str| -> Vec<(String, u32)> {
            let found = Found { empty: empty.to_vec(), ..found(fstab) };
            let known = Known { ids, subvolumes: &HashMap::new() };
            let mut mounts = resolve(&known, &ids.volumes[0], &found).unwrap();
            discovered(ids, &found, &mut mounts);
            mounts.into_iter().map(|one| (one.path, one.volume.number())).collect()
        };
        assert_eq!(places(&ids, &["/efi", "/boot"], ""), [("/efi".to_owned(), 15)]);
        assert_eq!(places(&ids, &["/boot"], ""), [("/boot".to_owned(), 15)]);
        assert_eq!(places(&ids, &[], ""), []);
        assert_eq!(places(&ids, &["/boot"], "UUID=bbbb /boot ext4"), [("/boot".to_owned(), 2)]);
        let named = places(&ids, &["/efi"], "UUID=ab-cd /boot/efi vfat");
        assert_eq!(named, [("/boot/efi".to_owned(), 15)]);
        ids.volumes[1].partition.type_id = TYPE_XBOOTLDR.to_owned();
        let both = [("/boot".to_owned(), 2), ("/efi".to_owned(), 15)];
        assert_eq!(places(&ids, &["/efi", "/boot"], ""), both);
        ids.kind = TableKind::Mbr;
        assert_eq!(places(&ids, &["/efi", "/boot"], ""), []);
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
