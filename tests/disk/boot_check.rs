//! The last look at a root: what boots passes, and every way not to boot is named with its file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use bakehouse::disk::boot_check::initramfs::Limits;
use bakehouse::disk::boot_check::{BootCheckError, Checked, check, check_within};
use bakehouse::disk::filesystem::{Filesystem, FilesystemKind};
use bakehouse::disk::ids::{DiskIds, Volume};
use bakehouse::disk::layout::{FstabMount, Layout, OsRelease};
use bakehouse::disk::table::{Partition, TYPE_ESP, TableKind};
use bakehouse::host::root_dir::RootDir;
use bakehouse::host::stop::Stop;
use tempfile::TempDir;

use super::initramfs::{archive, gzip};

pub const ROOT: &str = "0fe86d91-0f24-4f0c-a5a2-6e2ed4f0a001";
const ROOT_PART: &str = "11111111-1111-4111-8111-111111111101";
pub const BOOT: &str = "0fe86d91-0f24-4f0c-a5a2-6e2ed4f0a002";
pub const VERSION: &str = "6.1.0-9-cloud-amd64";
const ARGS: &str = "ro console=ttyS0";

/// A root that boots, to be broken.
pub struct Root {
    dir: TempDir,
    pub layout: Layout,
}

impl Root {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["boot/grub", "usr/lib"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::create_dir_all(dir.path().join(format!("usr/lib/modules/{VERSION}"))).unwrap();
        symlink("usr/lib", dir.path().join("lib")).unwrap();
        let root = Self { dir, layout: layout() };
        root.put(&format!("boot/vmlinuz-{VERSION}"), b"a kernel");
        symlink(format!("boot/vmlinuz-{VERSION}"), root.path("vmlinuz")).unwrap();
        symlink(format!("boot/initrd.img-{VERSION}"), root.path("initrd.img")).unwrap();
        root.built_in(&["kernel/drivers/nvme/host/nvme.ko", "kernel/fs/ext4/ext4.ko"]);
        root.initrd(&["kernel/drivers/net/ethernet/amazon/ena/ena.ko"]);
        root.menu(&format!("root=UUID={ROOT}"));
        root
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Writes a file, with the folders above it.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), bytes).unwrap();
    }

    pub fn built_in(&self, modules: &[&str]) {
        self.put(&format!("usr/lib/modules/{VERSION}/modules.builtin"), modules.join("\n").as_bytes());
    }

    pub fn initrd(&self, modules: &[&str]) {
        let names: Vec<String> =
            modules.iter().map(|name| format!("usr/lib/modules/{VERSION}/{name}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.put(&format!("boot/initrd.img-{VERSION}"), &gzip(&archive(&names)));
    }

    fn menu(&self, root_argument: &str) {
        self.grub_cfg(&format!(
            "search --no-floppy --fs-uuid --set=root {ROOT}\nmenuentry 'Debian' --class debian {{\n\
             \tlinux /vmlinuz {root_argument} {ARGS}\n\tinitrd /initrd.img\n}}\n"
        ));
    }

    pub fn grub_cfg(&self, text: &str) {
        self.put("boot/grub/grub.cfg", text.as_bytes());
    }

    pub async fn check(&self) -> Result<Checked, BootCheckError> {
        let root = RootDir::open(self.dir.path()).unwrap();
        check(&root, &self.layout, &Stop::never()).await
    }

    /// The problems, as `FILE: REASON`.
    async fn problems(&self) -> Vec<String> {
        match self.check().await {
            Ok(checked) => panic!("it passed: {checked:?}"),
            Err(BootCheckError::Problems { problems }) => {
                problems.iter().map(|one| format!("{}: {}", one.file, one.reason)).collect()
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn refused(&self, file: &str, reason: &str) {
        let problems = self.problems().await;
        assert!(
            problems.iter().any(|one| one.starts_with(&format!("{file}: ")) && one.contains(reason)),
            "wanted `{file}: … {reason}` in {problems:#?}"
        );
    }
}

fn layout() -> Layout {
    let volume = |number: u32, kind: FilesystemKind, uuid: &str, label: &str| Volume {
        partition: Partition {
            number,
            uuid: Some(format!("11111111-1111-4111-8111-1111111111{number:02}")),
            name: Some(format!("part{number}")),
            type_id: if number == 15 { TYPE_ESP.to_owned() } else { String::new() },
            ..Partition::whole(1 << 30)
        },
        filesystem: Some(Filesystem { kind, uuid: Some(uuid.to_owned()), label: Some(label.to_owned()) }),
    };
    let volumes = vec![
        volume(15, FilesystemKind::Vfat, "311A-37C8", "ESP"),
        volume(2, FilesystemKind::Ext4, BOOT, "boot"),
        volume(1, FilesystemKind::Ext4, ROOT, "cloudimg-rootfs"),
    ];
    Layout {
        disk_size: 4 << 30,
        root: volumes[2].clone(),
        subvolume: None,
        default_subvolume: None,
        mounts: Vec::new(),
        esp: Some(volumes[0].clone()),
        boot: None,
        swap: Vec::new(),
        os: OsRelease::default(),
        ids: DiskIds { kind: TableKind::Gpt, disk_id: None, volumes },
    }
}

#[tokio::test]
async fn a_root_that_boots_passes_and_is_told_of() {
    let root = Root::new();
    let checked = root.check().await.unwrap();
    assert_eq!(checked.warnings, Vec::<String>::new());
    assert_eq!(checked.boots.len(), 1);
    let boot = &checked.boots[0];
    assert_eq!((boot.title.as_str(), boot.kernel.as_str()), ("Debian", "/vmlinuz"));
    assert_eq!(boot.version.as_deref(), Some(VERSION));
    for argument in [
        format!("root=PARTUUID={ROOT_PART}"),
        "root=LABEL=cloudimg-rootfs".to_owned(),
        "root=PARTLABEL=part1".to_owned(),
        format!("root=/dev/disk/by-uuid/{ROOT}"),
        // The kernel takes the last one.
        format!("root=/dev/xvda1 root=UUID={}", ROOT.to_uppercase()),
    ] {
        root.menu(&argument);
        assert_eq!(root.check().await.unwrap().boots.len(), 1, "{argument}");
    }
}

#[tokio::test]
async fn a_root_argument_that_is_not_this_disks_root_is_refused() {
    let root = Root::new();
    let menu = "/boot/grub/grub.cfg";
    root.menu("root=UUID=0fe86d91-0f24-4f0c-a5a2-6e2ed4f0affff");
    root.refused(menu, "which is not on this disk").await;
    root.menu("root=PARTUUID=deadbeef-01");
    root.refused(menu, "which is not on this disk").await;
    root.menu("root=/dev/xvda2");
    root.refused(menu, "root=/dev/xvda2, which depends on the machine").await;
    root.menu("root=/dev/mapper/vg-root");
    root.refused(menu, "depends on the machine").await;
    root.menu("root=LABEL=boot");
    root.refused(menu, "which is partition 2 and not the root").await;
    root.menu("quiet");
    root.refused(menu, "has no root= argument").await;
    root.menu("root=${kernelroot}");
    let checked = root.check().await.unwrap();
    assert!(checked.warnings[0].contains("is not judged"), "{checked:?}");
}

#[tokio::test]
async fn a_search_for_another_disk_is_refused() {
    let root = Root::new();
    root.grub_cfg(&format!(
        "search --fs-uuid --set=root 4711-0815\nmenuentry 'x' {{ \nsearch.fs_uuid {ROOT} root\nlinux /vmlinuz root=UUID={ROOT}\ninitrd /initrd.img\n}}\n"
    ));
    root.refused("/boot/grub/grub.cfg", "searches for UUID=4711-0815").await;
    root.grub_cfg(&format!(
        "menuentry 'x' {{ \nlinux (hd1,gpt1)/vmlinuz root=UUID={ROOT}\ninitrd /initrd.img\n}}\n"
    ));
    root.refused("/boot/grub/grub.cfg", "loads from (hd1,gpt1), which is not on this disk").await;
}

#[tokio::test]
async fn a_missing_kernel_or_initramfs_is_named() {
    let menu = "/boot/grub/grub.cfg";
    let root = Root::new();
    fs::remove_file(root.path(&format!("boot/initrd.img-{VERSION}"))).unwrap();
    root.refused(menu, "the initramfs /initrd.img of the entry `Debian` is not in the image").await;
    root.put(&format!("boot/initrd.img-{VERSION}"), b"");
    root.refused(menu, "is empty").await;
    let root = Root::new();
    fs::remove_file(root.path(&format!("boot/vmlinuz-{VERSION}"))).unwrap();
    root.refused(menu, "the kernel /vmlinuz of the entry `Debian` is not in the image").await;
    let root = Root::new();
    root.grub_cfg(&format!("menuentry 'x' {{ \nlinux /vmlinuz root=UUID={ROOT}\n}}\n"));
    root.refused(menu, "has no initramfs, and without one the kernel cannot find root=UUID=").await;
}

#[tokio::test]
async fn an_entry_without_initramfs_needs_all_built_in_and_a_partuuid() {
    let root = Root::new();
    let text = format!("menuentry 'x' {{ \nlinux /vmlinuz root=PARTUUID={ROOT_PART} ro\n}}\n");
    root.grub_cfg(&text);
    assert_eq!(root.check().await.unwrap().boots.len(), 1);
    root.built_in(&["kernel/fs/ext4/ext4.ko"]);
    root.refused("/boot/grub/grub.cfg", "has not built in: nvme").await;
}

#[tokio::test]
async fn a_missing_driver_is_named_wherever_it_could_be() {
    let root = Root::new();
    root.initrd(&["kernel/a.ko"]);
    root.refused("/initrd.img", "it lacks what EC2 needs: ena (neither").await;
    root.built_in(&[]);
    root.initrd(&["net/ena.ko.zst", "nvme/nvme.ko.xz", "fs/ext4.ko"]);
    root.check().await.unwrap();
    root.initrd(&["net/ena.ko.zst", "nvme/nvme-core.ko.xz", "fs/ext4.ko"]);
    root.refused("/initrd.img", "needs: nvme (").await;
    // Modules of another kernel do not count.
    root.put(&format!("boot/initrd.img-{VERSION}"), &gzip(&archive(&["usr/lib/modules/5.10/ena.ko"])));
    root.refused("/initrd.img", "its modules are of 5.10").await;
}

#[tokio::test]
async fn a_kernel_tells_its_version_itself_where_its_name_does_not() {
    let root = Root::new();
    let mut kernel = vec![0; 0x800];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&0x400_u16.to_le_bytes());
    let text = format!("{VERSION} (buildd@debian) #1 SMP");
    kernel[0x600..0x600 + text.len()].copy_from_slice(text.as_bytes());
    fs::remove_file(root.path("vmlinuz")).unwrap();
    root.put("vmlinuz", &kernel);
    let checked = root.check().await.unwrap();
    assert_eq!(checked.boots[0].version.as_deref(), Some(VERSION));
    // One that says nothing has the modules beside it; what is built into it is then known too.
    root.put("vmlinuz", b"a kernel");
    assert_eq!(root.check().await.unwrap().boots[0].version, None);
    root.initrd(&["a.ko"]);
    root.refused("/initrd.img", "needs: ena").await;
}

#[tokio::test]
async fn what_lies_on_a_part_that_is_not_mounted_is_not_judged() {
    let root = Root::new();
    root.grub_cfg(&format!(
        "menuentry 'x' {{ \nsearch --fs-uuid --set=root 311A-37C8\nlinux /vmlinuz root=UUID={ROOT}\ninitrd /initrd.img\n}}\n"
    ));
    let checked = root.check().await.unwrap();
    assert!(checked.boots.is_empty());
    assert!(checked.warnings[0].contains("is on partition 15, which is not mounted"), "{checked:?}");
}

#[tokio::test]
async fn a_boot_of_its_own_has_its_own_paths() {
    let mut root = Root::new();
    let boot = root.layout.ids.volumes[1].clone();
    root.layout.mounts.push(FstabMount {
        path: "/boot".to_owned(),
        volume: boot.clone(),
        subvolume: None,
        options: Vec::new(),
    });
    root.layout.boot = Some(boot);
    for search in ["", "search --no-floppy --fs-uuid --set=root BOOT\n", "set root='hd0,gpt2'\n"] {
        root.grub_cfg(&format!(
            "{}menuentry 'x' {{ \nlinux /vmlinuz-{VERSION} root=UUID={ROOT}\ninitrd /initrd.img-{VERSION}\n}}\n",
            search.replace("BOOT", BOOT)
        ));
        let checked = root.check().await.unwrap();
        assert_eq!(checked.boots[0].kernel, format!("/boot/vmlinuz-{VERSION}"));
    }
    root.menu(&format!("root=UUID={BOOT}"));
    root.refused("/boot/grub/grub.cfg", "and not the root").await;
}

#[tokio::test]
async fn no_settings_name_a_loop_device() {
    let root = Root::new();
    root.put("boot/grub/device.map", b"(hd0) /dev/loop0\n");
    root.refused("/boot/grub/device.map", "it names a loop device").await;
    let root = Root::new();
    fs::create_dir_all(root.path("boot/loader/entries")).unwrap();
    root.put("boot/loader/entries/a.conf", b"options root=/dev/loop3 ro\n");
    root.refused("/boot/loader/entries/a.conf", "it names a loop device").await;
}

#[tokio::test]
async fn no_entry_at_all_is_refused() {
    let root = Root::new();
    root.grub_cfg("set timeout=0\nmenuentry 'Firmware' { fwsetup\n}\n");
    root.refused("/boot", "no menu with an entry that boots Linux").await;
    fs::remove_file(root.path("boot/grub/grub.cfg")).unwrap();
    root.refused("/boot", "no menu with an entry that boots Linux").await;
    root.refused("/boot", "partition 15, the EFI system partition, is not mounted").await;
    let root = Root::new();
    fs::remove_dir_all(root.path("boot")).unwrap();
    root.refused("/boot", "no menu with an entry that boots Linux").await;
    root.put("boot", b"a file");
    root.refused("/boot", "cannot be read").await;
}

#[tokio::test]
async fn hostile_files_are_problems_and_never_a_hang() {
    let menu = "/boot/grub/grub.cfg";
    // A menu and an initramfs that lead out of the root.
    let root = Root::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("grub.cfg"), "linux /vmlinuz").unwrap();
    fs::remove_file(root.path("boot/grub/grub.cfg")).unwrap();
    symlink(outside.path().join("grub.cfg"), root.path("boot/grub/grub.cfg")).unwrap();
    root.refused(menu, "a link that leads to nothing in the image").await;
    let root = Root::new();
    fs::remove_file(root.path("initrd.img")).unwrap();
    symlink("../../../../../../etc/hostname", root.path("initrd.img")).unwrap();
    root.refused(menu, "the initramfs /initrd.img of the entry `Debian` is not in the image").await;
    // A fifo in place of a menu, and of a kernel.
    let fifo = |root: &Root, path: &str| {
        fs::remove_file(root.path(path)).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.path(path), rustix::fs::Mode::from_raw_mode(0o600))
            .unwrap();
    };
    let root = Root::new();
    fifo(&root, "boot/grub/grub.cfg");
    root.refused(menu, "is not a regular file").await;
    let root = Root::new();
    fifo(&root, &format!("boot/vmlinuz-{VERSION}"));
    root.refused(menu, "is not a regular file").await;
    // A link that leads to itself.
    let root = Root::new();
    fs::remove_file(root.path("vmlinuz")).unwrap();
    symlink("vmlinuz", root.path("vmlinuz")).unwrap();
    root.refused(menu, "the kernel /vmlinuz").await;
    // A menu of many MiB, and one of bytes that are no text.
    let root = Root::new();
    root.put("boot/grub/grub.cfg", &vec![b'a'; 5 << 20]);
    root.refused(menu, "it is larger than 4 MiB").await;
    root.put("boot/grub/grub.cfg", &[0xff, 0, b'{', b'\'', b'$', b'{', 0xfe]);
    root.refused("/boot", "no menu").await;
    // A gigantic initramfs of holes, and one that is none.
    let root = Root::new();
    let initrd = format!("boot/initrd.img-{VERSION}");
    let file = fs::File::create(root.path(&initrd)).unwrap();
    file.set_len(1 << 40).unwrap();
    root.refused("/initrd.img", "the file is larger than 512 MiB").await;
    root.put(&initrd, b"no archive");
    root.refused("/initrd.img", "it is no initramfs").await;
}

#[tokio::test]
async fn a_bomb_costs_no_more_than_its_limit() {
    let root = Root::new();
    let path = format!("boot/initrd.img-{VERSION}");
    let limits = Limits { unpacked: 1 << 20, entries: 100, ..Limits::default() };
    let dir = RootDir::open(root.dir.path()).unwrap();
    for (bytes, reason) in [
        (gzip(&vec![0; 64 << 20]), "what is in it is larger than 1 MiB"),
        (gzip(&archive(&vec!["x"; 1000])), "it holds more files than any initramfs does"),
        (archive(&vec!["x"; 1000]), "it holds more files than any initramfs does"),
        (gzip(&gzip(&archive(&["x"]))), "is compressed again"),
    ] {
        root.put(&path, &bytes);
        let error = check_within(&dir, &root.layout, limits, &Stop::never()).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn a_stop_is_no_problem_of_the_image() {
    let root = Root::new();
    let stop = Stop::never();
    stop.request(15);
    let dir = RootDir::open(root.dir.path()).unwrap();
    let error = check(&dir, &root.layout, &stop).await.unwrap_err();
    assert!(matches!(error, BootCheckError::Exec(_)), "{error}");
}
