//! What btrfs has beyond the other file systems: subvolumes, one of which is the root; and an identity that the kernel
//! takes for the device, so that two copies of one disk get in each other's way. Read by btrfs-progs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};

use super::mount::{Mount, MountError, Target};
use crate::host::exec::{Cmd, ExecError};
use crate::host::loop_device::LoopDevice;
use crate::host::stop::Stop;

/// The top level's id: it is always there, and never a subvolume of another (btrfs-subvolume(8), "SUBVOLUME AND
/// SNAPSHOT").
const TOP_LEVEL: u64 = 5;
/// Listing subvolumes and forgetting a device read one tree and none.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a copy that is mounted elsewhere on this machine is waited for: a bake's root is mounted for minutes.
/// Together 30 minutes.
const TRIES: usize = 3600;
const PAUSE: Duration = Duration::from_millis(500);

/// A subvolume, or the top level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subvolume {
    pub id: u64,
    /// From the top level, without a leading slash: `@`, `root`. Empty for the top level itself.
    pub path: String,
}

impl Subvolume {
    /// The mount option that means it and no other. By the id, since a path may hold a comma.
    #[must_use]
    pub fn option(&self) -> String {
        format!("subvolid={}", self.id)
    }

    fn top_level() -> Self {
        Self { id: TOP_LEVEL, path: String::new() }
    }
}

impl std::fmt::Display for Subvolume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() { f.write_str("the top level") } else { write!(f, "subvolume {}", self.path) }
    }
}

/// All subvolumes of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subvolumes {
    /// The top level first.
    pub all: Vec<Subvolume>,
    /// What a mount without an option gives.
    pub default: Subvolume,
}

/// The option that mounts the top level, under which all subvolumes are folders.
pub(super) fn top_level_option() -> String {
    Subvolume::top_level().option()
}

impl Subvolumes {
    /// Asks btrfs-progs about the file system whose top level is mounted at `at`.
    pub(super) async fn read(at: &Path, stop: &Stop) -> Result<Self, ExecError> {
        let ask = async |words: [&str; 2]| {
            let output = Cmd::new("btrfs").args(words).arg(at).timeout(LIMIT).run(stop).await?;
            Ok::<_, ExecError>(output.text())
        };
        let (list, default) = (ask(["subvolume", "list"]).await?, ask(["subvolume", "get-default"]).await?);
        Ok(Self::parse(&list, &default))
    }

    /// Reads what `btrfs subvolume list` and `get-default` wrote.
    #[must_use]
    pub fn parse(list: &str, default: &str) -> Self {
        let mut all = vec![Subvolume::top_level()];
        all.extend(list.lines().filter_map(line));
        // The top level shows as `ID 5 (FS_TREE)`.
        let default = default.lines().find_map(line).unwrap_or_else(Subvolume::top_level);
        Self { all, default }
    }

    /// The subvolume that mount options mean; the default one where they name none. `None` where it is not there.
    #[must_use]
    pub fn asked(&self, options: &[String]) -> Option<&Subvolume> {
        // Of several the kernel takes the last.
        let asked = options.iter().rev().find_map(|option| match option.split_once('=')? {
            ("subvol", path) => {
                let path = path.trim_matches('/');
                Some(self.all.iter().find(|one| one.path == path))
            }
            ("subvolid", id) => {
                // 0 means the top level too (btrfs(5), "MOUNT OPTIONS").
                let id = id.parse().ok().map(|id: u64| if id == 0 { TOP_LEVEL } else { id });
                Some(self.all.iter().find(|one| Some(one.id) == id))
            }
            _ => None,
        });
        asked.unwrap_or(Some(&self.default))
    }
}

/// Reads `ID 256 gen 9 top level 5 path @`.
fn line(text: &str) -> Option<Subvolume> {
    let (head, path) = text.split_once(" path ")?;
    let id = head.strip_prefix("ID ")?.split(' ').next()?.parse().ok()?;
    Some(Subvolume { id, path: path.to_owned() })
}

/// Mounts the btrfs of a device, and makes sure that it is this one. Kernels before 6.7 take two copies of one disk for
/// one file system: the second mount is refused, or shows the first copy. It then waits until the first is gone.
///
/// # Errors
/// [`MountError`]: the kernel's refusal; [`MountError::Copy`] where the other one stays, [`MountError::Stopped`] where a
/// stop was asked for meanwhile.
pub(super) async fn mount(
    device: &LoopDevice,
    target: Target<'_>,
    flags: MountFlags,
    data: &str,
    stop: &Stop,
) -> Result<Mount, MountError> {
    for _ in 0..TRIES {
        match Mount::new(device.node(), target, "btrfs", flags, data) {
            Ok(mount) => {
                if mount.is_of(device.node()) {
                    return Ok(mount);
                }
                mount.unmount(stop).await?;
            }
            Err(error) if error.is_copy_of_mounted() => {}
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.requested() => {
                return Err(MountError::Stopped { source_path: PathBuf::from(device.node()) });
            }
        }
    }
    Err(MountError::Copy { source_path: PathBuf::from(device.node()) })
}

/// Makes the kernel forget an unmounted device. Kernels before 6.7 remember it, and then refuse an older copy of the
/// same disk under another device.
pub(super) async fn forget(device: &LoopDevice) {
    // Best effort: most kernels have nothing to forget and say so with an exit code.
    let _ = Cmd::new("btrfs")
        .args(["device", "scan", "--forget"])
        .arg(device.node())
        .timeout(LIMIT)
        .run(&Stop::never())
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_mean_a_subvolume() {
        let subvolumes = Subvolumes::parse(
            "ID 256 gen 23 top level 5 path @\nID 257 gen 8 top level 5 path @home\n\
             ID 300 gen 9 top level 256 path @/a path b\n",
            "ID 256 gen 23 top level 5 path @\n",
        );
        let asked = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            subvolumes.asked(&options).map(|one| one.path.clone())
        };
        assert_eq!(asked(&["subvol=@home", "compress=zstd"]).as_deref(), Some("@home"));
        assert_eq!(asked(&["subvol=/@home/"]).as_deref(), Some("@home"));
        assert_eq!(asked(&["subvol=@", "subvolid=257"]).as_deref(), Some("@home"));
        assert_eq!(asked(&["subvolid=5"]).as_deref(), Some(""));
        assert_eq!(asked(&["subvolid=0"]).as_deref(), Some(""));
        assert_eq!(asked(&["subvol=/"]).as_deref(), Some(""));
        assert_eq!(asked(&["defaults"]).as_deref(), Some("@"));
        assert_eq!(asked(&["subvol=gone"]), None);
        assert_eq!(asked(&["subvolid=x"]), None);
        assert_eq!(subvolumes.all[3].path, "@/a path b");
        assert_eq!(Subvolumes::parse("", "ID 5 (FS_TREE)\n").default, Subvolume::top_level());
    }
}
