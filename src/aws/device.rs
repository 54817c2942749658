//! Which block device of this machine a volume is. On the Nitro system a volume is an NVMe device, whose serial number is
//! the volume's id; its name says nothing, and changes. On Xen it has the name that it was attached by, with other first
//! letters.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::cloud::VolumeId;

/// The node of a volume that is attached by the name `device`. `None` where the kernel, or /dev, does not show it.
pub(super) fn node(id: &VolumeId, device: &str) -> Option<PathBuf> {
    find(Path::new("/sys/block"), Path::new("/dev"), id, device, &is_device)
}

/// A link may be an older attachment's.
fn is_device(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.file_type().is_block_device())
}

fn find(
    sys: &Path,
    dev: &Path,
    id: &VolumeId,
    device: &str,
    is_device: &dyn Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let serial = id.as_str().replace('-', "");
    let disks = std::fs::read_dir(sys).into_iter().flatten().flatten();
    let mut nvme = disks.filter(|one| one.file_name().to_string_lossy().starts_with("nvme"));
    let by_serial = nvme.find(|one| {
        let told = std::fs::read_to_string(one.path().join("device/serial")).unwrap_or_default();
        told.trim() == serial
    });
    let by_name = || {
        let letter = device.strip_prefix("/dev/sd").or_else(|| device.strip_prefix("/dev/xvd"))?;
        ["xvd", "sd"]
            .map(|first| dev.join(format!("{first}{letter}")))
            .into_iter()
            .find(|path| is_device(path))
    };
    match by_serial {
        Some(disk) => Some(dev.join(disk.file_name())).filter(|path| is_device(path)),
        None => by_name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_known_by_its_serial_number_or_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (sys, dev) = (dir.path().join("sys"), dir.path().join("dev"));
        for (name, serial) in [("nvme0n1", "vol0aaaaaaaaaaaaaaaa"), ("nvme3n1", "vol0123456789abcdef0 \n")] {
            std::fs::create_dir_all(sys.join(name).join("device")).unwrap();
            std::fs::write(sys.join(name).join("device/serial"), serial).unwrap();
        }
        std::fs::create_dir_all(sys.join("loop0")).unwrap();
        std::fs::create_dir_all(&dev).unwrap();
        let there = |names: &'static [&'static str]| {
            let dev = dev.clone();
            move |path: &Path| names.iter().any(|name| dev.join(name) == path)
        };
        let id = |text: &str| VolumeId::parse(text).unwrap();
        let known = id("vol-0123456789abcdef0");
        let found = |id: &VolumeId, names| find(&sys, &dev, id, "/dev/sdf", &there(names));
        assert_eq!(found(&known, &["nvme3n1", "sdf"]), Some(dev.join("nvme3n1")));
        // Seen by the kernel, and /dev has it not.
        assert_eq!(found(&known, &["sdf"]), None);
        let xen = id("vol-0bbbbbbbbbbbbbbbb");
        assert_eq!(found(&xen, &["xvdf", "nvme3n1"]), Some(dev.join("xvdf")));
        assert_eq!(found(&xen, &["sdf"]), Some(dev.join("sdf")));
        assert_eq!(found(&xen, &["xvdg"]), None);
    }
}
