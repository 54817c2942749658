//! Who holds a mount or a device: found in `/proc`, for the error that says why something cannot be let go. Ends nobody.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// An error names so many; a longer list helps nobody.
const SHOWN: usize = 8;

/// A process that uses what should be let go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    /// Its short name.
    pub command: String,
    /// What of it is there: `its working folder`, `an open file`.
    pub by: &'static str,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (process {}, {})", self.command, self.pid, self.by)
    }
}

/// The end of a sentence that says who holds it.
#[must_use]
pub fn shown(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "; no process of this system shows itself as its user".to_owned();
    }
    let names: Vec<String> = holders.iter().take(SHOWN).map(Holder::to_string).collect();
    let more = match holders.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(" by {}{more}", names.join(", "))
}

/// Who has something open below `path`, or on the file system of device `major:minor` where that is given.
#[must_use]
pub fn of_mount(path: &Path, device: Option<(u32, u32)>) -> Vec<Holder> {
    find(&|proc| {
        let inside = |link: PathBuf| {
            std::fs::read_link(&link).is_ok_and(|target| target.starts_with(path))
                || device.is_some_and(|device| device_of(&link) == Some(device))
        };
        for (name, by) in [("root", "its root"), ("cwd", "its working folder"), ("exe", "its program")] {
            if inside(proc.join(name)) {
                return Some(by);
            }
        }
        if let Ok(open) = std::fs::read_dir(proc.join("fd"))
            && open.flatten().any(|one| inside(one.path()))
        {
            return Some("an open file");
        }
        let maps = std::fs::read_to_string(proc.join("maps")).unwrap_or_default();
        device
            .is_some_and(|device| maps.lines().any(|line| mapped_device(line) == Some(device)))
            .then_some("a mapped file")
    })
}

/// Who has the block device `major:minor` mounted in a namespace of its own, or open.
#[must_use]
pub fn of_device(major: u32, minor: u32) -> Vec<Holder> {
    let mounted = format!("{major}:{minor}");
    let own = std::fs::read_link("/proc/thread-self/ns/mnt").ok();
    find(&|proc| {
        let elsewhere = std::fs::read_link(proc.join("ns/mnt")).ok() != own;
        let mounts = std::fs::read_to_string(proc.join("mountinfo")).unwrap_or_default();
        if mounts.lines().any(|line| line.split(' ').nth(2) == Some(&mounted)) {
            return Some(if elsewhere { "mounted in its namespace" } else { "mounted" });
        }
        let open = std::fs::read_dir(proc.join("fd")).ok()?;
        open.flatten()
            .any(|one| raw_device_of(&one.path()) == Some((major, minor)))
            .then_some("an open device")
    })
}

fn find(held: &dyn Fn(&Path) -> Option<&'static str>) -> Vec<Holder> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut holders: Vec<Holder> = processes
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            // A process may end while it is looked at: then it holds nothing.
            let by = held(&entry.path())?;
            let command = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            Some(Holder { pid, command: command.trim_end().to_owned(), by })
        })
        .collect();
    holders.sort_by_key(|one| one.pid);
    holders
}

/// The device of the file system that a link of `/proc` leads to, without asking a server that may not answer.
fn device_of(link: &Path) -> Option<(u32, u32)> {
    let found =
        rustix::fs::statx(CWD, link, AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE)
            .ok()?;
    Some((found.stx_dev_major, found.stx_dev_minor))
}

fn raw_device_of(link: &Path) -> Option<(u32, u32)> {
    let found =
        rustix::fs::statx(CWD, link, AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE)
            .ok()?;
    (found.stx_rdev_major != 0).then_some((found.stx_rdev_major, found.stx_rdev_minor))
}

/// The device in a line of `/proc/PID/maps`: `ADDRESSES PERMISSIONS OFFSET MAJOR:MINOR INODE PATH`, in hexadecimal.
fn mapped_device(line: &str) -> Option<(u32, u32)> {
    let (major, minor) = line.split_ascii_whitespace().nth(3)?.split_once(':')?;
    let number = |digits| u32::from_str_radix(digits, 16).ok();
    let device = (number(major)?, number(minor)?);
    (device != (0, 0)).then_some(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_and_a_working_folder_show_their_holder() {
        let dir = tempfile::tempdir().unwrap();
        let _file = std::fs::File::create(dir.path().join("open")).unwrap();
        let path = dir.path().canonicalize().unwrap();
        let holders = of_mount(&path, None);
        assert_eq!(holders.len(), 1, "{holders:?}");
        assert_eq!(holders[0].pid, std::process::id());
        assert_eq!(holders[0].by, "an open file");
        assert!(shown(&holders).contains(&std::process::id().to_string()));
    }

    #[test]
    fn a_map_line_gives_its_device() {
        assert_eq!(mapped_device("7f1-7f2 r-xp 00000000 07:1f 12 /lib/x.so"), Some((7, 31)));
        assert_eq!(mapped_device("7f1-7f2 rw-p 00000000 00:00 0 [heap]"), None);
        assert_eq!(mapped_device(""), None);
    }
}
