//! The disk as a boot loader sees it: its file systems, each with paths of its own, found again in the mounted root.

use crate::disk::ids::Volume;
use crate::disk::layout::Layout;
use crate::host::root_dir::RootDir;

/// A root whose file systems are mounted as the layout says.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    pub root: &'a RootDir,
    pub layout: &'a Layout,
}

impl Sight<'_> {
    /// Where a part of the disk is mounted: empty for the root. `None` where nothing of it can be seen.
    pub(super) fn mounted_at(&self, volume: &Volume) -> Option<&str> {
        if volume.number() == self.layout.root.number() {
            return Some("");
        }
        let mut mounts = self.layout.mounts.iter();
        let mount = mounts.find(|mount| mount.volume.number() == volume.number())?;
        // The ESP may be left out of the tree, where this machine can neither mount nor copy it: then its folder is empty.
        let seen =
            !volume.partition.is_esp() || self.root.list(&mount.path).is_ok_and(|names| !names.is_empty());
        seen.then_some(mount.path.as_str())
    }

    /// Where a path of a part of the disk is in the root. On a btrfs loaders see all subvolumes below the top level, and
    /// some begin at the root's own. `None` where that cannot be seen.
    pub(super) fn found_again(&self, volume: &Volume, path: &str) -> Option<String> {
        let (folder, rest) = match self.below_subvolume(volume, path) {
            Some(found) => found,
            None => (self.mounted_at(volume)?, path.trim_start_matches('/')),
        };
        Some(format!("{folder}/{rest}"))
    }

    /// Whether a path of a part of the disk leads into a subvolume that is the root or mounted.
    pub(super) fn is_below_subvolume(&self, volume: &Volume, path: &str) -> bool {
        self.below_subvolume(volume, path).is_some()
    }

    /// Where such a subvolume is mounted, and the path in it.
    fn below_subvolume<'p>(&self, volume: &Volume, path: &'p str) -> Option<(&str, &'p str)> {
        let path = path.trim_start_matches('/');
        let root = (volume.number() == self.layout.root.number()).then_some(("", &self.layout.subvolume));
        let mounts = self.layout.mounts.iter().filter(|mount| mount.volume.number() == volume.number());
        root.into_iter()
            .chain(mounts.map(|mount| (mount.path.as_str(), &mount.subvolume)))
            .filter_map(|(folder, subvolume)| {
                let subvolume = subvolume.as_ref().filter(|one| !one.path.is_empty())?;
                Some((folder, path.strip_prefix(&subvolume.path)?.strip_prefix('/')?))
            })
            .min_by_key(|(_, rest)| rest.len())
    }

    /// The part of the disk that a path of the root lies on, and the path there.
    pub(super) fn volume_of<'p>(&self, path: &'p str) -> (&Volume, &'p str) {
        let below = |folder: &str| path.strip_prefix(folder).filter(|rest| rest.starts_with('/'));
        self.layout
            .mounts
            .iter()
            .filter_map(|mount| Some((&mount.volume, below(&mount.path)?)))
            .min_by_key(|(_, rest)| rest.len())
            .unwrap_or((&self.layout.root, path))
    }

    /// A path on a FAT that is mounted at `folder`, with its names as they are written there: FAT does not tell capitals
    /// apart, and the loaders write `\` too. Names that are not there stay as they are asked for.
    pub(super) fn on_fat(&self, folder: &str, path: &str) -> String {
        let path = path.replace('\\', "/");
        path.split('/').filter(|name| !name.is_empty()).fold(folder.to_owned(), |so_far, name| {
            let names = self.root.list(&so_far).unwrap_or_default();
            let own = names
                .iter()
                .find(|own| *own == name)
                .or_else(|| names.iter().find(|own| own.eq_ignore_ascii_case(name)));
            format!("{so_far}/{}", own.map_or(name, String::as_str))
        })
    }
}
