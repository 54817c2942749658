//! What a root's own boot entries tell of how its kernels are installed, for the programs that install more of them.

use crate::disk::boot_check::{self, Entry};
use crate::disk::layout::Layout;
use crate::disk::tree::{Esp, MountedTree, TreeError};
use crate::provision::KernelIdentity;

/// Reads the entries of a mounted disk.
pub(super) fn of(tree: &MountedTree, layout: &Layout) -> Result<KernelIdentity, TreeError> {
    let root = tree.root()?;
    let entries = boot_check::entries(&root, layout);
    let esp = match tree.esp() {
        Esp::Mounted(path) | Esp::Copied(path) => Some(path.clone()),
        Esp::Absent | Esp::Unseen(_) => None,
    };
    // A root that has an id of its own is asked for it, and names its entries by it.
    let has_id = root.read_text("/etc/machine-id").is_ok_and(|text| is_machine_id(text.trim()));
    // Not for systemd-boot: kernel-install would put it into the command line, for all machines of the image.
    let grubs = entries.iter().filter(|entry| !entry.tells_disk).find_map(token);
    Ok(KernelIdentity {
        command_line: entries
            .iter()
            .find_map(command_line)
            .or_else(|| of_subvolume(layout))
            .unwrap_or_default(),
        machine_id: grubs.filter(|token| !has_id && is_machine_id(token)),
        entry_token: entries.iter().find_map(token).unwrap_or_default(),
        esp,
    })
}

/// What is an entry's own, and not the loader's or one machine's.
fn command_line(entry: &Entry) -> Option<String> {
    let own = ["BOOT_IMAGE=", "initrd=", "systemd.machine_id="];
    let words: Vec<&str> = entry
        .args
        .iter()
        .map(String::as_str)
        .filter(|word| !own.iter().any(|own| word.starts_with(own)) && !word.contains(['$', '\n']))
        .collect();
    words.iter().any(|word| word.starts_with("root=")).then(|| words.join(" "))
}

/// What a root needs in its first entry where it is in a subvolume that is not the default one.
fn of_subvolume(layout: &Layout) -> Option<String> {
    let own = layout.subvolume.as_ref().filter(|own| layout.default_subvolume.as_ref() != Some(own))?;
    Some(format!("root=UUID={} ro rootflags=subvol={}", layout.root.uuid()?, own.path))
}

/// What an entry that has a file of its own is named by: `TOKEN-VERSION.conf`, whose kernel kernel-install puts at
/// `/TOKEN/VERSION/linux`; Fedora's GRUB has a machine id there.
fn token(entry: &Entry) -> Option<String> {
    let (_, name) = entry.file.rsplit_once("/loader/entries/")?;
    if let Some(id) = name.get(..32).filter(|id| is_machine_id(id)) {
        return Some(id.to_owned());
    }
    let mut folders = entry.kernel.path.strip_suffix("/linux")?.rsplit('/');
    let token = folders.nth(1).filter(|token| !token.is_empty())?;
    name.starts_with(&format!("{token}-")).then(|| token.to_owned())
}

fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::boot_check::Image;
    use crate::disk::btrfs::Subvolume;
    use crate::disk::filesystem::{Filesystem, FilesystemKind};
    use crate::disk::ids::{DiskIds, Volume};
    use crate::disk::layout::OsRelease;
    use crate::disk::table::{Partition, TableKind};

    fn entry(file: &str, kernel: &str, args: &str) -> Entry {
        Entry {
            file: file.to_owned(),
            title: String::new(),
            kernel: Image::file(kernel),
            initrds: Vec::new(),
            args: args.split(' ').map(str::to_owned).collect(),
            tells_disk: false,
        }
    }

    #[test]
    fn entries_are_named_as_those_that_are_there() {
        let id = "ec2a1b2c3d4e5f60718293a4b5c6d7e8";
        for (file, kernel, wanted) in [
            ("/boot/efi/loader/entries/debian-6.1.conf", "/boot/efi/debian/6.1/linux", Some("debian")),
            (&format!("/boot/loader/entries/{id}-6.1.conf"), "/boot/vmlinuz-6.1", Some(id)),
            ("/boot/efi/loader/entries/mine.conf", "/boot/efi/debian/6.1/linux", None),
            ("/boot/grub/grub.cfg", "/vmlinuz", None),
        ] {
            assert_eq!(token(&entry(file, kernel, "")).as_deref(), wanted, "{file}");
        }
    }

    #[test]
    fn a_root_in_another_subvolume_than_the_default_one_is_told_of_it() {
        let of = |id: u64, path: &str| Some(Subvolume { id, path: path.to_owned() });
        let root = Volume {
            partition: Partition::whole(1 << 30),
            filesystem: Some(Filesystem {
                kind: FilesystemKind::Btrfs,
                uuid: Some("1-2".to_owned()),
                label: None,
            }),
        };
        let mut layout = Layout {
            disk_size: 1 << 30,
            ids: DiskIds { kind: TableKind::None, disk_id: None, volumes: vec![root.clone()] },
            root,
            subvolume: of(256, "@"),
            default_subvolume: of(5, ""),
            mounts: Vec::new(),
            esp: None,
            boot: None,
            swap: Vec::new(),
            os: OsRelease::default(),
        };
        assert_eq!(of_subvolume(&layout).as_deref(), Some("root=UUID=1-2 ro rootflags=subvol=@"));
        layout.default_subvolume = of(256, "@");
        assert_eq!(of_subvolume(&layout), None);
    }

    #[test]
    fn a_command_line_is_taken_without_what_is_one_machines() {
        let args = "BOOT_IMAGE=/vmlinuz root=UUID=1 ro systemd.machine_id=ec2 ${extra} quiet";
        assert_eq!(command_line(&entry("", "", args)).as_deref(), Some("root=UUID=1 ro quiet"));
        assert_eq!(command_line(&entry("", "", "ro quiet")), None);
    }
}
