//! From a folder to a disk that boots: all of its parts, and that nothing of a failed one stays.

use crate::gate;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use bakehouse::disk::boot_check;
use bakehouse::disk::boot_config::{ScratchIds, prepare_root};
use bakehouse::disk::boot_loader::Platform;
use bakehouse::disk::format::{Ext4, FormatError, Spec, make};
use bakehouse::disk::mount::{Mount, Target};
use bakehouse::disk::sparse::SparseDisk;
use bakehouse::disk::table::{TYPE_BIOS_BOOT, TYPE_ESP, TYPE_ROOT_X86_64, TableKind};
use bakehouse::disk::tree::{Access, MountedTree};
use bakehouse::host::exec::Cmd;
use bakehouse::host::root_dir::RootDir;
use bakehouse::host::stop::Stop;

use super::fixture::{MIB, small_root};
use super::initramfs::{archive, gzip};

/// Debian's packages grub-pc-bin and grub-efi-amd64-bin bring the modules, on the host as in an image.
pub const NEEDS: &[&str] = &[
    "sfdisk",
    "blkid",
    "mke2fs",
    "e2fsck",
    "mformat",
    "mcopy",
    "grub-mkimage",
    "/usr/lib/grub/i386-pc/modinfo.sh",
    "/usr/lib/grub/x86_64-efi/modinfo.sh",
];
pub const EPOCH: i64 = 1_700_000_000;
const GIB: u64 = 1 << 30;

/// A root that seems to boot, with the root's module in its initramfs.
pub fn root_with_grub(at: &Path, module: &str) {
    small_root(at);
    for platform in ["i386-pc", "x86_64-efi"] {
        let to = at.join("usr/lib/grub").join(platform);
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(Path::new("/usr/lib/grub").join(platform)).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
    }
    fs::create_dir_all(at.join("usr/lib/modules/6.1")).unwrap();
    symlink("usr/lib", at.join("lib")).unwrap();
    fs::write(at.join("boot/vmlinuz-6.1"), "a kernel").unwrap();
    let root = format!("lib/modules/6.1/{module}.ko");
    let modules = ["lib/modules/6.1/nvme.ko", "lib/modules/6.1/ena.ko", &root];
    fs::write(at.join("boot/initrd.img-6.1"), gzip(&archive(&modules))).unwrap();
    symlink("boot/vmlinuz-6.1", at.join("vmlinuz")).unwrap();
    symlink("boot/initrd.img-6.1", at.join("initrd.img")).unwrap();
    fs::write(at.join("srv/program"), "x").unwrap();
    fs::set_permissions(at.join("srv/program"), fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(at.join("srv/program"), Some(12), Some(34)).unwrap();
    fs::set_permissions(at.join("srv/program"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(at.join("srv/program"), at.join("srv/again")).unwrap();
}

#[tokio::test]
async fn a_folder_becomes_a_disk_with_all_that_boots_it() {
    if !gate::has_root(NEEDS) {
        return;
    }
    let stop = Stop::never();
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("root");
    root_with_grub(&folder, "ext4");
    // mke2fs makes this folder itself: one that is in the root gives it its label.
    const LABEL: &[u8] = b"system_u:object_r:lost_found_t:s0\0";
    let found = folder.join("lost+found");
    fs::create_dir(&found).unwrap();
    rustix::fs::lsetxattr(&found, "security.selinux", LABEL, rustix::fs::XattrFlags::empty()).unwrap();
    let ids = ScratchIds::derived("test");
    prepare_root(&RootDir::open(&folder).unwrap(), &ids, &Ext4).unwrap();
    let path = work.path().join("disk.raw");
    let spec = Spec { root: &folder, disk: &path, ids: &ids, format: &Ext4, epoch: EPOCH, size: None };
    let made = make(&spec, &stop).await.unwrap();

    assert_eq!(made.platforms, [Platform::Bios, Platform::UefiX86]);
    assert_eq!((made.size, fs::metadata(&path).unwrap().len()), (GIB, GIB));
    let layout = &made.layout;
    assert_eq!(layout.ids.kind, TableKind::Gpt);
    assert_eq!(layout.ids.disk_id.as_ref().unwrap().to_lowercase(), ids.disk.to_string());
    let parts: Vec<(u32, u64, &str)> = layout
        .ids
        .volumes
        .iter()
        .map(|one| (one.number(), one.partition.start, one.partition.type_id.as_str()))
        .collect();
    assert_eq!(parts, [(14, MIB, TYPE_BIOS_BOOT), (15, 4 * MIB, TYPE_ESP), (1, 68 * MIB, TYPE_ROOT_X86_64)]);
    assert_eq!(layout.root.uuid(), Some(ids.root.to_string().as_str()));
    assert_eq!(layout.root.partition.uuid.as_deref(), Some(ids.root_partition.to_string().as_str()));
    assert_eq!(layout.esp.as_ref().unwrap().uuid(), Some(ids.esp_uuid().as_str()));
    assert_eq!(layout.mounts[0].path, "/boot/efi");

    // The BIOS: a boot sector that leads to sector 2048, and there a core that leads on.
    let disk = SparseDisk::open_read_only(&path).unwrap();
    let mut sector = [0; 512];
    disk.read_at(&mut sector, 0).unwrap();
    assert_eq!(sector[0x5c..0x64], 2048_u64.to_le_bytes());
    assert_eq!(sector[510..], [0x55, 0xaa]);
    // The protective entry of the table is still there.
    assert_eq!(sector[0x1be + 4], 0xee);
    disk.read_at(&mut sector, MIB).unwrap();
    assert_eq!(sector[0x1f4..0x1fc], 2049_u64.to_le_bytes());
    // UEFI: a program at the name that firmware looks for.
    let efi = work.path().join("efi");
    Cmd::new("mcopy")
        .env("MTOOLS_SKIP_CHECK", "1")
        .args(["-i", &format!("{}@@{}", path.display(), 4 * MIB), "::EFI/BOOT/BOOTX64.EFI"])
        .arg(&efi)
        .run(&stop)
        .await
        .unwrap();
    assert!(fs::read(&efi).unwrap().starts_with(b"MZ"));

    // The root: clean, with owners, modes, links and names as in the folder.
    let at = tempfile::tempdir().unwrap();
    let tree = MountedTree::open(&path, layout, at.path(), Access::ReadOnly, &stop).await.unwrap();
    let program = fs::metadata(at.path().join("srv/program")).unwrap();
    assert_eq!((program.uid(), program.gid(), program.mode() & 0o7777, program.nlink()), (12, 34, 0o4711, 2));
    let mut label = [0; 64];
    let found = at.path().join("lost+found");
    let length = rustix::fs::lgetxattr(&found, "security.selinux", &mut label).unwrap();
    assert_eq!(&label[..length], LABEL);
    let folder_itself = fs::metadata(at.path()).unwrap();
    assert_eq!((folder_itself.uid(), folder_itself.gid()), (0, 0));
    assert_eq!(fs::read_link(at.path().join("vmlinuz")).unwrap(), Path::new("boot/vmlinuz-6.1"));
    let checked = boot_check::check(&tree.root().unwrap(), layout, &stop).await.unwrap();
    assert_eq!(checked.boots.len(), 1, "{checked:?}");
    let free = rustix::fs::statvfs(at.path()).unwrap();
    assert!(free.f_bavail * free.f_frsize > 64 * MIB);
    Cmd::new("e2fsck").args(["-f", "-n"]).arg(tree.root_device()).run(&stop).await.unwrap();
    tree.close(&stop).await.unwrap();

    // Once more: all but the root's own times is the same, byte for byte.
    let second = work.path().join("second.raw");
    let again = Spec { disk: &second, ..spec };
    make(&again, &stop).await.unwrap();
    let second = SparseDisk::open_read_only(&second).unwrap();
    for (from, length) in [(0, 68 * MIB), (GIB - MIB, MIB)] {
        let mut one = vec![0; usize::try_from(length).unwrap()];
        let mut other = one.clone();
        disk.read_at(&mut one, from).unwrap();
        second.read_at(&mut other, from).unwrap();
        let first = one.iter().zip(&other).position(|(one, other)| one != other);
        assert_eq!(first.map(|at| at as u64 + from), None);
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_made_leaves_no_file() {
    if !gate::has_root(NEEDS) {
        return;
    }
    let stop = Stop::never();
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("root");
    small_root(&folder);
    let ids = ScratchIds::derived("test");
    let path = work.path().join("disk.raw");
    let spec = |size| Spec { root: &folder, disk: &path, ids: &ids, format: &Ext4, epoch: EPOCH, size };
    let error = make(&spec(None), &stop).await.unwrap_err();
    assert!(matches!(error, FormatError::NoBootLoader { .. }), "{error}");
    // Modules that are none: grub-mkimage says so.
    fs::create_dir_all(folder.join("usr/lib/grub/i386-pc")).unwrap();
    fs::write(folder.join("usr/lib/grub/i386-pc/modinfo.sh"), "").unwrap();
    let error = make(&spec(None), &stop).await.unwrap_err();
    assert!(matches!(error, FormatError::BootLoader(_)), "{error}");
    assert!(!path.exists());
    let error = make(&spec(Some(128 * MIB)), &stop).await.unwrap_err();
    assert!(error.to_string().contains("ask for at least 1 GiB"), "{error}");
    assert!(!path.exists());
    // What is still mounted in the folder would be copied into the image.
    fs::create_dir(folder.join("proc")).unwrap();
    let mount = Mount::tmpfs(Target::Host(&folder.join("proc")), "size=1m").unwrap();
    let error = make(&spec(None), &stop).await.unwrap_err();
    assert!(matches!(error, FormatError::Mounted { .. }), "{error}");
    mount.unmount(&stop).await.unwrap();
    // A file that is there already is not touched.
    fs::write(&path, "mine").unwrap();
    assert!(matches!(make(&spec(None), &stop).await, Err(FormatError::Sparse(_))));
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}
