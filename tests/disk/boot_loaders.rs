//! The last look at a root, loader by loader: what each boots is found and judged, and a default that leads nowhere is
//! named with its file.

use std::fs;

use bakehouse::disk::boot_check::CheckedBoot;
use bakehouse::disk::btrfs::Subvolume;
use bakehouse::disk::ids::Volume;
use bakehouse::disk::layout::FstabMount;
use bakehouse::disk::table::TYPE_ROOT_X86_64;

use super::boot_check::{BOOT, ROOT, Root, VERSION};
use super::initramfs::{archive, gzip};

/// As the system keeps entries: named by its machine id at that time.
const ID: &str = "ec2a1b2c3d4e5f60718293a4b5c6d7e8";
const GRUB_CFG: &str = "/boot/grub2/grub.cfg";

/// A root without a menu.
fn bare() -> Root {
    let root = Root::new();
    fs::remove_dir_all(root.path("boot/grub")).unwrap();
    root
}

fn mount(root: &mut Root, path: &str, number: u32) -> Volume {
    let volume = root.layout.ids.volume(number).unwrap().clone();
    root.layout.mounts.push(FstabMount {
        path: path.to_owned(),
        volume: volume.clone(),
        subvolume: None,
        options: Vec::new(),
    });
    volume
}

async fn boots(root: &Root) -> Vec<CheckedBoot> {
    let checked = root.check().await.unwrap();
    assert_eq!(checked.warnings, Vec::<String>::new());
    checked.boots
}

async fn warns(root: &Root, text: &str) {
    let checked = root.check().await.unwrap();
    assert!(checked.warnings.iter().any(|one| one.contains(text)), "wanted `{text}` in {checked:#?}");
}

fn entry(name: &str) -> String {
    format!("boot/loader/entries/{ID}-{name}.conf")
}

/// The menu of Amazon Linux 2023, shortened: one file system, entries by grubby, `saved_entry` in grubenv.
fn amazon_linux() -> Root {
    let root = bare();
    root.put("boot/grub2/grub.cfg", amazon_menu("").as_bytes());
    root.put("boot/grub2/grubenv", grubenv(&format!("saved_entry={ID}-{VERSION}\n")).as_bytes());
    root.put(
        &entry(VERSION),
        format!(
            "title Amazon Linux ({VERSION}) 2023\nversion {VERSION}\nlinux /boot/vmlinuz-{VERSION}\n\
             initrd /boot/initrd.img-{VERSION}\noptions root=UUID={ROOT} ro console=tty0\ngrub_users $grub_users\n\
             grub_arg --unrestricted\ngrub_class amzn\n"
        )
        .as_bytes(),
    );
    root
}

fn amazon_menu(more: &str) -> String {
    format!(
        r#"set pager=1
if [ -f ${{config_directory}}/grubenv ]; then
  load_env -f ${{config_directory}}/grubenv
elif [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${{next_entry}}" ] ; then
   set default="${{next_entry}}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="${{saved_entry}}"
fi
if [ x"${{feature_menuentry_id}}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
insmod part_gpt
search --no-floppy --fs-uuid --set=root {ROOT}
insmod blscfg
blscfg
{more}if [ "$grub_platform" = "efi" ]; then
menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {{
	fwsetup
}}
fi
"#
    )
}

fn grubenv(lines: &str) -> String {
    let mut text = format!("# GRUB Environment Block\n{lines}");
    text.extend(std::iter::repeat_n('#', 1024 - text.len()));
    text
}

#[tokio::test]
async fn grubs_entries_in_files_are_followed_as_on_amazon_linux() {
    let root = amazon_linux();
    let found = boots(&root).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].file, format!("/{}", entry(VERSION)));
    assert_eq!(found[0].kernel, format!("/boot/vmlinuz-{VERSION}"));
    assert_eq!(found[0].version.as_deref(), Some(VERSION));

    // The default that grubby saved, when its kernel's entry is gone: GRUB takes the first.
    root.put("boot/grub2/grubenv", grubenv(&format!("saved_entry={ID}-5.10\n")).as_bytes());
    warns(&root, &format!("/boot/grub2/grubenv: the default `{ID}-5.10` is no entry of {GRUB_CFG}")).await;
    for good in ["0", "1", "UEFI Firmware Settings", "uefi-firmware", ""] {
        root.put("boot/grub2/grubenv", grubenv(&format!("saved_entry={good}\n")).as_bytes());
        boots(&root).await;
    }
    root.put("boot/grub2/grubenv", grubenv("next_entry=2\n").as_bytes());
    warns(&root, "the default `2` is no entry").await;
    fs::remove_file(root.path("boot/grub2/grubenv")).unwrap();
    boots(&root).await;
}

#[tokio::test]
async fn a_kernel_taken_away_beneath_its_entry_is_named() {
    let root = amazon_linux();
    let file = format!("/{}", entry(VERSION));
    fs::remove_file(root.path(&format!("boot/vmlinuz-{VERSION}"))).unwrap();
    root.refused(&file, "the kernel /boot/vmlinuz-").await;
    let root = amazon_linux();
    fs::remove_file(root.path(&format!("boot/initrd.img-{VERSION}"))).unwrap();
    root.refused(&file, "the initramfs /boot/initrd.img-").await;
    let root = amazon_linux();
    root.initrd(&["kernel/a.ko"]);
    root.refused(&format!("/boot/initrd.img-{VERSION}"), "it lacks what EC2 needs: ena").await;
    let root = amazon_linux();
    root.put(
        &entry(VERSION),
        format!("linux /boot/vmlinuz-{VERSION}\noptions root=/dev/nvme0n1p1\n").as_bytes(),
    );
    root.refused(&file, "root=/dev/nvme0n1p1, which depends on the machine").await;
    // The last entry gone too.
    let root = amazon_linux();
    fs::remove_file(root.path(&entry(VERSION))).unwrap();
    root.refused("/boot", "; /boot/grub2/grub.cfg: `blscfg` finds no entry in /boot/loader/entries").await;
    root.put(&entry(VERSION), format!("linux /boot/vmlinuz-{VERSION}\n{}", "#\n".repeat(9000)).as_bytes());
    root.refused(&file, "it is larger than 16 KiB").await;
}

/// Fedora's: a /boot of its own, variables in the entries, and a small menu on the ESP that leads to the real one.
#[tokio::test]
async fn variables_of_the_environment_are_put_in_as_on_fedora() {
    let mut root = bare();
    let boot = mount(&mut root, "/boot", 2);
    root.layout.boot = Some(boot);
    mount(&mut root, "/boot/efi", 15);
    let menu =
        amazon_menu("if [ -z \"${kernelopts}\" ]; then\n  set kernelopts=\"root=/dev/xvda1 ro\"\nfi\n")
            .replace("blscfg\nif", "if")
            .replace("fi\nif [ \"$grub_platform\"", "fi\nblscfg\nif [ \"$grub_platform\"")
            .replace(ROOT, BOOT);
    root.put("boot/grub2/grub.cfg", menu.as_bytes());
    root.put(
        "boot/grub2/grubenv",
        grubenv(&format!(
            "saved_entry={ID}-{VERSION}\nkernelopts=root=UUID={ROOT} ro quiet\nboot_success=0\n"
        ))
        .as_bytes(),
    );
    root.put(
        &entry(VERSION),
        format!(
            "title Fedora Linux\nlinux /vmlinuz-{VERSION}\ninitrd /initrd.img-{VERSION} $tuned_initrd\n\
             options $kernelopts $tuned_params\nid fedora\n"
        )
        .as_bytes(),
    );
    let stub = |place: &str, path: &str| {
        format!(
            "search --no-floppy --fs-uuid --set=dev {place}\nset prefix=($dev){path}\nexport $prefix\nconfigfile $prefix/grub.cfg\n"
        )
    };
    let stub_file = "boot/efi/EFI/fedora/grub.cfg";
    root.put(stub_file, stub(BOOT, "/grub2").as_bytes());
    // A file among the loaders' folders is none of them.
    root.put("boot/efi/EFI/notes.txt", b"text");
    let found = boots(&root).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kernel, format!("/boot/vmlinuz-{VERSION}"));
    // What the environment has is kept; without it the menu's own counts, and this one is a machine's.
    root.put("boot/grub2/grubenv", grubenv("").as_bytes());
    root.refused(&format!("/{}", entry(VERSION)), "root=/dev/xvda1").await;
    // A small menu that leads to another disk, and one that leads to no menu.
    root.put(stub_file, stub("4711-0815", "/grub2").as_bytes());
    root.refused(&format!("/{stub_file}"), "it searches for UUID=4711-0815").await;
    root.put(stub_file, stub(BOOT, "/grub").as_bytes());
    root.refused(&format!("/{stub_file}"), "it goes on with /boot/grub/grub.cfg, which is not in the image")
        .await;
}

#[tokio::test]
async fn a_chosen_default_of_a_menu_leads_somewhere_or_is_said() {
    let root = Root::new();
    let menu = |default: &str| {
        format!(
            "set default=\"{default}\"\nmenuentry 'Debian' --id debian {{\n linux /vmlinuz root=UUID={ROOT}\n initrd /initrd.img\n}}\n\
             submenu 'Older' --id older {{\n menuentry 'Debian, old' $menuentry_id_option 'old' {{\n linux /vmlinuz root=UUID={ROOT}\n initrd /initrd.img\n }}\n}}\n"
        )
    };
    for good in ["0", "1>0", "debian", "older>old", "Older>Debian, old"] {
        root.grub_cfg(&menu(good));
        assert_eq!(boots(&root).await.len(), 2, "{good}");
    }
    for bad in ["2", "old", "1>1", "gone"] {
        root.grub_cfg(&menu(bad));
        warns(&root, &format!("/boot/grub/grub.cfg: the default `{bad}` is no entry of")).await;
    }
    // A menu that goes on with itself.
    root.grub_cfg(&format!("{}configfile /boot/grub/grub.cfg\n", menu("0")));
    boots(&root).await;
}

#[tokio::test]
async fn a_subvolume_is_found_in_grubs_paths_and_judged_in_the_roots_flags() {
    let mut root = Root::new();
    let own = Subvolume { id: 256, path: "@".to_owned() };
    root.layout.subvolume = Some(own.clone());
    root.layout.default_subvolume = Some(own);
    let menu = |flags: &str| {
        format!(
            "search --fs-uuid --set=root {ROOT}\nmenuentry 'x' {{\n linux /@/boot/vmlinuz-{VERSION} root=UUID={ROOT} {flags}\n\
             \tinitrd /@/boot/initrd.img-{VERSION}\n}}\n"
        )
    };
    for good in ["rootflags=subvol=@", "rootflags=noatime,subvol=/@", "rootflags=subvolid=256", ""] {
        root.grub_cfg(&menu(good));
        assert_eq!(boots(&root).await[0].kernel, format!("/boot/vmlinuz-{VERSION}"), "{good}");
    }
    root.layout.default_subvolume = Some(Subvolume { id: 5, path: String::new() });
    root.refused(
        "/boot/grub/grub.cfg",
        "boots the top level, and the root that was found is subvolume @; it must",
    )
    .await;
    root.grub_cfg(&menu("rootflags=subvol=@"));
    boots(&root).await;
    // GRUB would not find it; SUSE's, whose root is the default subvolume, does.
    root.grub_cfg(&menu("rootflags=subvol=@").replace("/@/", "/"));
    root.refused("/boot/grub/grub.cfg", "is in no subvolume that is mounted; the root's begin with /@/")
        .await;
    let top = root.layout.default_subvolume.take();
    root.layout.default_subvolume = root.layout.subvolume.clone();
    boots(&root).await;
    root.layout.default_subvolume = top;
    root.grub_cfg(&menu("rootflags=subvol=@old"));
    root.refused("/boot/grub/grub.cfg", "boots subvol=@old, and the root that was found is subvolume @")
        .await;
}

fn extlinux(root: &Root, text: &str) {
    root.put("boot/extlinux/extlinux.conf", text.as_bytes());
}

#[tokio::test]
async fn extlinux_is_judged_with_its_default() {
    let root = bare();
    let file = "/boot/extlinux/extlinux.conf";
    let good = format!(
        "# extlinux\ndefault l0\nprompt 0\ntimeout 1\nlabel l0\n\tmenu label Debian\n\tlinux /vmlinuz\n\tinitrd /initrd.img\n\
         \tappend root=UUID={ROOT} ro console=ttyS0\nlabel l1\n\tKERNEL ../vmlinuz-{VERSION}\n\
         \tAPPEND initrd=../initrd.img-{VERSION} root=LABEL=cloudimg-rootfs\nlabel mem\n\tkernel memdisk.c32\n"
    );
    extlinux(&root, &good.replace("label mem\n\tkernel memdisk.c32\n", ""));
    let found = boots(&root).await;
    let kernels: Vec<&str> = found.iter().map(|boot| boot.kernel.as_str()).collect();
    assert_eq!(kernels, ["/vmlinuz", &format!("/boot/extlinux/../vmlinuz-{VERSION}")]);
    extlinux(&root, &good);
    warns(&root, "`memdisk.c32` of the label `mem` is not judged").await;
    extlinux(&root, &good.replace("default l0", "DEFAULT gone"));
    root.refused(file, "its default `gone` is no label in it").await;
    extlinux(&root, &good.replace(ROOT, BOOT));
    root.refused(file, "which is partition 2 and not the root").await;
    extlinux(&root, &good.replace("linux /vmlinuz", "linux /vmlinuz-5.10"));
    root.refused(file, "the kernel /vmlinuz-5.10 of the entry `l0` is not in the image").await;
    extlinux(&root, &good.replace("console=ttyS0", &"x ".repeat(9000)));
    root.refused(file, "it has arguments of more than 16 KiB").await;
    // Menus in other files, as U-Boot and old distributions have them.
    extlinux(&root, "INCLUDE labels.conf\nDEFAULT l0\nFDTDIR /boot/dtbs\n");
    root.refused(file, "it includes /boot/extlinux/labels.conf, which is not in the image").await;
    root.put("boot/extlinux/labels.conf", good.replace("default l0", "").as_bytes());
    assert_eq!(root.check().await.unwrap().boots.len(), 2);
    // Files that include each other have an end.
    root.put("boot/extlinux/labels.conf", b"include extlinux.conf\ninclude labels.conf\n");
    root.refused("/boot/extlinux/labels.conf", "it includes more than 32 files").await;
}

#[tokio::test]
async fn extlinux_on_a_boot_of_its_own_has_its_own_paths() {
    let mut root = bare();
    let boot = mount(&mut root, "/boot", 2);
    root.layout.boot = Some(boot);
    extlinux(
        &root,
        &format!(
            "default l0\nlabel l0\nlinux /vmlinuz-{VERSION}\ninitrd /initrd.img-{VERSION}\nappend root=UUID={ROOT}\n"
        ),
    );
    assert_eq!(boots(&root).await[0].kernel, format!("/boot/vmlinuz-{VERSION}"));
}

/// systemd-boot on an ESP at /boot/efi, with one entry as kernel-install makes it.
fn systemd_boot() -> Root {
    let mut root = bare();
    mount(&mut root, "/boot/efi", 15);
    root.put("boot/efi/EFI/systemd/systemd-bootx64.efi", b"MZ");
    root.put("boot/efi/loader/loader.conf", b"timeout 0\ndefault debian-*\n");
    let folder = format!("boot/efi/debian/{VERSION}");
    root.put(&format!("{folder}/linux"), b"a kernel");
    fs::rename(root.path(&format!("boot/initrd.img-{VERSION}")), root.path(&format!("{folder}/initrd.img")))
        .unwrap();
    root.put(
        &format!("boot/efi/loader/entries/debian-{VERSION}.conf"),
        format!(
            "title      Debian\nversion    {VERSION}\nsort-key   debian\noptions    root=UUID={ROOT} ro\n\
             linux      /debian/{VERSION}/linux\ninitrd     /debian/{VERSION}/initrd.img\n"
        )
        .as_bytes(),
    );
    root
}

#[tokio::test]
async fn systemd_boots_entries_and_default_are_judged() {
    let root = systemd_boot();
    let file = format!("/boot/efi/loader/entries/debian-{VERSION}.conf");
    let found = boots(&root).await;
    assert_eq!((found.len(), found[0].file.as_str()), (1, file.as_str()));
    for good in ["debian-*", &format!("debian-{VERSION}"), &format!("DEBIAN-{VERSION}.conf"), "@saved"] {
        root.put("boot/efi/loader/loader.conf", format!("default {good}\n").as_bytes());
        boots(&root).await;
    }
    root.put("boot/efi/loader/loader.conf", b"default arch*\n");
    warns(&root, "/boot/efi/loader/loader.conf: no entry fits the default `arch*`").await;
    // That it takes the newest helps nobody where there is none.
    let text = fs::read(root.path(&file[1..])).unwrap();
    fs::remove_file(root.path(&file[1..])).unwrap();
    root.refused("/boot", "no menu with an entry that boots Linux").await;
    root.put(&file[1..], &text);
    fs::remove_file(root.path("boot/efi/loader/loader.conf")).unwrap();
    boots(&root).await;
    // FAT does not tell capitals apart.
    fs::rename(root.path("boot/efi/debian"), root.path("boot/efi/Debian")).unwrap();
    assert_eq!(boots(&root).await[0].kernel, format!("/boot/efi/Debian/{VERSION}/linux"));
    fs::remove_file(root.path(&format!("boot/efi/Debian/{VERSION}/linux"))).unwrap();
    root.refused(&file, "is not in the image").await;
}

#[tokio::test]
async fn a_root_is_found_by_its_partitions_type_where_systemd_looks_for_it() {
    let mut root = systemd_boot();
    let file = format!("/boot/efi/loader/entries/debian-{VERSION}.conf");
    let text = fs::read_to_string(root.path(&file[1..])).unwrap().replace(&format!("root=UUID={ROOT}"), "");
    root.put(&file[1..], text.as_bytes());
    root.refused(&file, "has no root= argument, and partition 1 has not the type of a root").await;
    root.layout.root.partition.type_id = TYPE_ROOT_X86_64.to_owned();
    root.refused(&file, "it has no systemd-gpt-auto-generator").await;
    let module = format!("usr/lib/modules/{VERSION}/ena.ko");
    let names = [module.as_str(), "usr/lib/systemd/system-generators/systemd-gpt-auto-generator"];
    root.put(&format!("boot/efi/debian/{VERSION}/initrd.img"), &gzip(&archive(&names)));
    boots(&root).await;
}

/// A UEFI program with these sections.
fn program(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 0x40];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes.extend_from_slice(b"PE\0\0");
    bytes.extend_from_slice(&[0x64, 0x86, u8::try_from(sections.len()).unwrap(), 0]);
    bytes.resize(0x40 + 24, 0);
    let mut at = 0x40 + 24 + 40 * sections.len();
    for (name, content) in sections {
        let length = u32::try_from(content.len()).unwrap();
        let mut header = name.as_bytes().to_vec();
        header.resize(8, 0);
        let padded = length.next_multiple_of(512);
        for field in [length, 0x1000, padded, u32::try_from(at).unwrap()] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        header.resize(40, 0);
        bytes.extend_from_slice(&header);
        at += padded as usize;
    }
    for (_, content) in sections {
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len() + content.len().next_multiple_of(512) - content.len(), 0);
    }
    bytes
}

#[tokio::test]
async fn unified_kernels_are_looked_into() {
    let mut root = bare();
    mount(&mut root, "/boot/efi", 15);
    let initrd = gzip(&archive(&[&format!("usr/lib/modules/{VERSION}/ena.ko")]));
    let mut kernel = vec![0; 0x800];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&0x400_u16.to_le_bytes());
    kernel[0x600..0x600 + VERSION.len()].copy_from_slice(VERSION.as_bytes());
    let line = format!("root=UUID={ROOT} ro\0");
    let good: [(&str, &[u8]); 4] = [
        (".osrel", b"ID=debian\n"),
        (".cmdline", line.as_bytes()),
        (".linux", &kernel),
        (".initrd", &initrd),
    ];
    let path = "boot/efi/EFI/Linux/debian.efi";
    root.put(path, &program(&good));
    let found = boots(&root).await;
    assert_eq!((found[0].title.as_str(), found[0].version.as_deref()), ("debian.efi", Some(VERSION)));
    // A system whose ESP is elsewhere needs no /boot.
    fs::rename(root.path("boot/efi"), root.path("efi")).unwrap();
    fs::remove_dir_all(root.path("boot")).unwrap();
    root.layout.mounts[0].path = "/efi".to_owned();
    assert_eq!(boots(&root).await[0].file, "/efi/EFI/Linux/debian.efi");
    root.layout.mounts[0].path = "/boot/efi".to_owned();
    // A part that is missing, wrong, or lies.
    let file = &format!("/{path}");
    root.put(path, &program(&[good[1], good[2]]));
    root.refused(file, "no initramfs").await;
    root.put(path, &program(&[(".cmdline", b"root=/dev/sda1"), good[2], good[3]]));
    root.refused(file, "root=/dev/sda1, which depends on the machine").await;
    root.put(path, &program(&[good[1], good[2], (".initrd", b"rubbish")]));
    root.refused(file, "it is no initramfs").await;
    let mut lies = program(&good);
    let end = lies.len() - 600;
    lies.truncate(end);
    root.put(path, &lies);
    root.refused(file, "a section lies beyond its end").await;
    for broken in [&b"MZ"[..], b"", b"ELF", &[0xff; 4096]] {
        root.put(path, broken);
        root.refused(file, "it is no UEFI program").await;
    }
    // Another program beside it is no matter; one in place of the loader is looked at as well.
    fs::remove_dir_all(root.path("boot/efi/EFI")).unwrap();
    root.put("boot/efi/EFI/BOOT/BOOTX64.EFI", &program(&good));
    root.put("boot/efi/EFI/BOOT/fbx64.efi", &program(&[(".text", b"code")]));
    assert_eq!(boots(&root).await[0].file, "/boot/efi/EFI/BOOT/BOOTX64.EFI");
    root.put("boot/efi/EFI/BOOT/notes.efi", b"text");
    warns(&root, "/boot/efi/EFI/BOOT/notes.efi: it is no UEFI program").await;
}
