//! Which parts of a disk its own system mounts below its root, by its fstab and by what systemd finds by itself. Pure:
//! looks at nothing.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Found;
use crate::disk::btrfs::{Subvolume, Subvolumes};
use crate::disk::ids::{DeviceName, DiskIds, Volume};
use crate::disk::table::{TYPE_XBOOTLDR, TableKind};

/// More lines than this no system mounts from one disk.
const MOST_MOUNTS: usize = 32;

/// Where systemd mounts an ESP and its extension that no fstab names (systemd-gpt-auto-generator(8)).
pub(super) const DISCOVERED: [&str; 2] = ["/efi", "/boot"];

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

/// What fstab's names can mean.
pub(super) struct Known<'a> {
    pub ids: &'a DiskIds,
    /// By the part's number, those of a btrfs.
    pub subvolumes: &'a HashMap<u32, Option<Subvolumes>>,
}

/// The mounts of an fstab that lie on this disk below the root, parents first. Entries of other disks, of the network
/// and of the kernel are left out, and those that are not mounted at boot.
pub(super) fn resolve(known: &Known<'_>, root: &Volume, found: &Found) -> Result<Vec<FstabMount>, String> {
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
        if let Some(one) = mounts.iter().find(|one| one.path == path) {
            // A line that is there twice is mounted once at boot too.
            if one.volume.number() == volume.number() && one.subvolume == subvolume {
                continue;
            }
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
pub(super) fn discovered(ids: &DiskIds, found: &Found, mounts: &mut Vec<FstabMount>) {
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

#[cfg(test)]
mod tests {
    use super::super::OsRelease;
    use super::*;
    use crate::disk::filesystem::{Filesystem, FilesystemKind};
    use crate::disk::fstab;
    use crate::disk::table::{Partition, TYPE_ESP};

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
             LABEL=label-ab-cd /boot/efi vfat\n\
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
}
