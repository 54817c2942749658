//! A disk's file systems, mounted as its own system would have them: the root, and below it what its fstab mounts from
//! the same disk. Owns the mounts and their loop devices; changes no file. Where the kernel has no FAT, the EFI system
//! partition is shown as a folder ([`esp`](super::esp)).

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::MountFlags;

use super::btrfs::{self, Subvolume};
use super::esp::{EspError, EspFolder};
use super::filesystem::FilesystemKind;
use super::ids::Volume;
use super::layout::Layout;
use super::mount::{Mount, MountError, Target};
use super::zeroout;
use crate::host::exec::{Cmd, ExecError};
use crate::host::loop_device::{LoopDevice, LoopError};
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

pub use crate::host::loop_device::Access;

/// fstrim on 64 TiB of ext4 reads every group's bitmap; an hour is beyond all that was seen.
const TRIM_LIMIT: Duration = Duration::from_secs(3600);

/// The mounted root. [`MountedTree::close`] takes all back; dropped, it does what can be done without waiting.
#[derive(Debug)]
pub struct MountedTree {
    disk: PathBuf,
    at: PathBuf,
    /// The root first. Dropped from the back.
    mounts: Vec<Mounted>,
    esp: Esp,
    /// Of each EFI system partition that cannot be mounted.
    esp_folders: Vec<EspFolder>,
    zeroes: bool,
}

/// How the EFI system partition, the first of several, is seen in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Esp {
    /// The disk has none.
    Absent,
    /// Mounted at this path of the root.
    Mounted(String),
    /// At this path is a folder with its files. What is changed there is written by [`MountedTree::trim`].
    Copied(String),
    /// Not seen, with the reason. What would be written to it must be kept from being written below its mount point.
    Unseen(String),
}

/// A mount is declared before its device, so that it goes first.
#[derive(Debug)]
struct Mounted {
    mount: Mount,
    /// `None` where an earlier mount of the same part has it: more subvolumes of one btrfs.
    device: Option<LoopDevice>,
    /// The part's number.
    part: u32,
    kind: FilesystemKind,
}

impl Drop for MountedTree {
    fn drop(&mut self) {
        self.esp_folders.clear();
        while self.mounts.pop().is_some() {}
    }
}

impl MountedTree {
    /// Mounts the disk's file systems at `at`, an empty folder.
    ///
    /// # Errors
    /// [`TreeError`]; then nothing stays mounted.
    pub async fn open(
        disk: &Path,
        layout: &Layout,
        at: &Path,
        access: Access,
        stop: &Stop,
    ) -> Result<Self, TreeError> {
        let mut tree = Self {
            disk: disk.to_owned(),
            at: at.to_owned(),
            mounts: Vec::new(),
            esp: match layout.esp {
                Some(_) => Esp::Unseen("the root's fstab does not mount it".to_owned()),
                None => Esp::Absent,
            },
            esp_folders: Vec::new(),
            zeroes: false,
        };
        tree.add(&layout.root, layout.subvolume.as_ref(), Target::Host(at), access, stop).await?;
        for entry in &layout.mounts {
            // Opened anew for every mount, and closed again: a descriptor kept open would hold the mount.
            let root = tree.root()?;
            let is_fat =
                entry.volume.filesystem.as_ref().is_some_and(|found| found.kind == FilesystemKind::Vfat);
            let is_first = layout.esp.as_ref().is_some_and(|esp| esp.number() == entry.volume.number());
            if !root.exists(&entry.path) {
                if access == Access::ReadOnly {
                    return Err(TreeError::NoMountPoint { disk: disk.to_owned(), path: entry.path.clone() });
                }
                // systemd makes it at boot as well (systemd.mount(5), "DirectoryMode=").
                root.make_dirs(&entry.path, 0o755).map_err(|source| TreeError::Io {
                    path: at.join(entry.path.trim_start_matches('/')),
                    source,
                })?;
            }
            let target = Target::Inside(&root, &entry.path);
            match tree.add(&entry.volume, entry.subvolume.as_ref(), target, access, stop).await {
                Ok(()) if is_first => tree.esp = Esp::Mounted(entry.path.clone()),
                Ok(()) => {}
                Err(TreeError::Mount(error)) if is_fat && error.is_unknown_filesystem() => {
                    let seen = tree.copy_esp(&entry.volume, target, &entry.path, access, stop).await?;
                    match seen {
                        seen if is_first => tree.esp = seen,
                        // Packages that write to an ESP can be held; who writes elsewhere is not known.
                        Esp::Unseen(reason) if !entry.volume.partition.is_esp() => {
                            let (volume, path) = (entry.volume.to_string(), entry.path.clone());
                            return Err(TreeError::Fat { disk: disk.to_owned(), volume, path, reason });
                        }
                        _ => {}
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(tree)
    }

    /// Shows the ESP, or another FAT, as a folder, beside the one that the tree is mounted at. Where that cannot be, it stays unseen.
    async fn copy_esp(
        &mut self,
        volume: &Volume,
        target: Target<'_>,
        path: &str,
        access: Access,
        stop: &Stop,
    ) -> Result<Esp, TreeError> {
        // Two folders of one partition would be written back one over the other.
        if let Some(shown) = self.esp_folders.iter_mut().find(|shown| shown.part() == volume.number()) {
            shown.show_again(target)?;
            return Ok(Esp::Copied(path.to_owned()));
        }
        let folder = self.at.with_extension(format!("esp{}", volume.number()));
        match EspFolder::show(&self.disk, volume, target, folder, access, stop).await {
            Ok(shown) => {
                self.esp_folders.push(shown);
                Ok(Esp::Copied(path.to_owned()))
            }
            Err(error @ (EspError::Damaged { .. } | EspError::Exec(ExecError::Missing { .. }))) => {
                Ok(Esp::Unseen(format!("this machine's kernel has no vfat, and {error}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn add(
        &mut self,
        volume: &Volume,
        subvolume: Option<&Subvolume>,
        target: Target<'_>,
        access: Access,
        stop: &Stop,
    ) -> Result<(), TreeError> {
        let unsupported = || TreeError::Unsupported { disk: self.disk.clone(), volume: volume.to_string() };
        let kind = volume.filesystem.as_ref().map(|found| found.kind.clone()).ok_or_else(unsupported)?;
        let driver = kind.driver().ok_or_else(unsupported)?;
        let (flags, data) = match access {
            // Reading must not change the disk: not even the times of the last access.
            Access::ReadOnly => {
                (MountFlags::RDONLY | MountFlags::NOATIME | MountFlags::NOSUID, driver.read_only)
            }
            Access::ReadWrite => (MountFlags::NOATIME, driver.read_write),
        };
        let part = volume.number();
        let (start, size) = (volume.partition.start, volume.partition.size);
        // btrfs knows a device by what is on it: two loop devices on one part would be two of them.
        let own = match self.device_of(part) {
            None => Some(LoopDevice::attach(&self.disk, start, size, access)?),
            Some(_) => None,
        };
        let Some(device) = own.as_ref().or_else(|| self.device_of(part)) else {
            return Err(unsupported());
        };
        let mount = if kind == FilesystemKind::Btrfs {
            let option = subvolume.map(Subvolume::option);
            let data: Vec<&str> = [data, option.as_deref().unwrap_or_default()]
                .into_iter()
                .filter(|one| !one.is_empty())
                .collect();
            btrfs::mount(device, target, flags, &data.join(","), stop).await?
        } else {
            Mount::new(device.node(), target, driver.name, flags, data)?
        };
        if driver.name == "ext4"
            && access == Access::ReadWrite
            && let Some(device) = &own
        {
            self.zeroes |= zeroout::turn_off(device).is_err();
        }
        self.mounts.push(Mounted { mount, device: own, part, kind });
        Ok(())
    }

    fn device_of(&self, part: u32) -> Option<&LoopDevice> {
        self.mounts.iter().find(|one| one.part == part)?.device.as_ref()
    }

    /// The root, for reading and changing files. Drop it before [`MountedTree::close`]: while it is open it holds the
    /// mount.
    ///
    /// # Errors
    /// Where the folder cannot be opened.
    pub fn root(&self) -> Result<RootDir, TreeError> {
        RootDir::open(&self.at).map_err(|source| TreeError::Io { path: self.at.clone(), source })
    }

    /// Where the root is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// The device that the root is mounted from.
    #[must_use]
    pub fn root_device(&self) -> &Path {
        self.mounts.first().and_then(|root| root.device.as_ref()).map_or(Path::new(""), LoopDevice::node)
    }

    /// Whether a file system in it zeroes blocks by itself, which cannot be told from blocks that never were: an ext4 that
    /// this kernel, or this machine's rules, let nobody keep from it.
    #[must_use]
    pub fn zeroes_by_itself(&self) -> bool {
        self.zeroes
    }

    /// How the EFI system partition is seen.
    #[must_use]
    pub fn esp(&self) -> &Esp {
        &self.esp
    }

    /// Whether the disk takes freed blocks back. A file does; of a volume that does not, [`trim`](Self::trim) asks nothing,
    /// and what was deleted stays on it.
    #[must_use]
    pub fn takes_back(&self) -> bool {
        self.mounts.iter().all(|one| self.is_trimmed(one))
    }

    fn is_trimmed(&self, one: &Mounted) -> bool {
        let is_device = || {
            let found = std::fs::metadata(&self.disk);
            found.is_ok_and(|found| found.file_type().is_block_device())
        };
        one.device.as_ref().is_none_or(LoopDevice::discards) || !is_device()
    }

    /// Writes everything out and gives the freed blocks back: they become holes of the disk file and read as zeros, on xfs
    /// when it is unmounted. Without it a deleted file's bytes stay on the disk.
    ///
    /// # Errors
    /// [`TreeError`]: fstrim's, or changes were lost; on a copied ESP also what no FAT can hold.
    pub async fn trim(&self, stop: &Stop) -> Result<(), TreeError> {
        for esp in &self.esp_folders {
            esp.write_back(stop).await?;
        }
        for one in &self.mounts {
            if one.device.is_some() && one.kind == FilesystemKind::Xfs {
                // Since Linux 5.14 a deleted file's blocks are freed in the background, and fstrim would not see them yet;
                // this waits for it (`xfs_blockgc_free_space` of its fs/xfs/xfs_icache.c).
                let wait = Cmd::new("xfs_spaceman").args(["-c", "prealloc -s"]).arg(one.mount.path());
                wait.timeout(TRIM_LIMIT).run(stop).await?;
            }
            // Blocks that were freed are given back only when the transaction that freed them is written. It also
            // makes sure that the path is still this mount's.
            one.mount.sync()?;
            if one.device.is_some() && one.kind != FilesystemKind::Vfat && self.is_trimmed(one) {
                Cmd::new("fstrim").arg(one.mount.path()).timeout(TRIM_LIMIT).run(stop).await?;
            }
        }
        Ok(())
    }

    /// Unmounts all in reverse, frees the devices and syncs the disk file. Goes on after an error, so that as little
    /// as possible stays; gives the first.
    ///
    /// # Errors
    /// [`TreeError`]: who holds what, or what was lost.
    pub async fn close(mut self, stop: &Stop) -> Result<(), TreeError> {
        let mut first = Ok(());
        while let Some(esp) = self.esp_folders.pop() {
            first = first.and(esp.close(stop).await.map_err(TreeError::from));
        }
        while let Some(one) = self.mounts.pop() {
            let closed = close_one(one, stop).await;
            first = first.and(closed);
        }
        let synced = std::fs::File::open(&self.disk)
            .and_then(|file| file.sync_all())
            .map_err(|source| TreeError::Io { path: self.disk.clone(), source });
        first.and(synced)
    }
}

async fn close_one(one: Mounted, stop: &Stop) -> Result<(), TreeError> {
    let synced = one.mount.sync();
    one.mount.unmount(stop).await?;
    if let Some(device) = one.device {
        if one.kind == FilesystemKind::Btrfs {
            btrfs::forget(&device).await;
        }
        device.close().await?;
    }
    Ok(synced?)
}

/// Why a disk's file systems cannot be mounted or taken back.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("{volume} of {} holds no file system that can be mounted here", disk.display())]
    Unsupported { disk: PathBuf, volume: String },
    #[error(
        "the root on {} has no folder {path}, where its /etc/fstab mounts something",
        disk.display()
    )]
    NoMountPoint { disk: PathBuf, path: String },
    #[error("{volume} of {}, mounted at {path}, cannot be changed here: {reason}", disk.display())]
    Fat { disk: PathBuf, volume: String, path: String, reason: String },
    #[error("cannot use {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Loop(#[from] LoopError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Esp(#[from] EspError),
    #[error(transparent)]
    Exec(#[from] ExecError),
}
