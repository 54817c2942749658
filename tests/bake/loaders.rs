//! Other boot loaders than GRUB: kernels are installed and removed in bakes, and what comes out boots, or is refused with
//! the file and the reason.

use crate::gate;
use crate::yard::foreign::{Foreign, GRUB_UEFI, Names, RootOn, Table};
use crate::yard::{Yard, machine};

/// SYSLINUX in a root without partitions. Its menu names the links that Debian's kernel packages keep.
const EXTLINUX: &str = r#"
mkdir "$root/boot/extlinux"
cat >"$root/boot/extlinux/extlinux.conf" <<END
default linux
label linux
	linux /vmlinuz
	initrd /initrd.img
	append $arguments
END
extlinux --install "$root/boot/extlinux"
"#;

/// Installs a kernel that is not there yet, and removes the one that was. One for clouds is smaller; where the suite has
/// no second one of them, any other will do.
const ANOTHER_KERNEL: &str = r#"
      old=$(basename /lib/modules/*)
      apt-get -q update
      others=$(apt-cache search --names-only '^linux-image-6\.1\.0-[0-9]*-(cloud-)?amd64$' | cut -d ' ' -f 1 |
        grep -v -e "linux-image-$old\$" | sort -V)
      new=$(echo "$others" | grep cloud | tail -n 1)
      [ -n "$new" ] || new=$(echo "$others" | tail -n 1)
      apt-get -q -y --no-install-recommends install "$new"
      apt-get -q -y purge "linux-image-$old" linux-image-cloud-amd64
      test -e "/boot/vmlinuz-$(echo $new | cut -d - -f 3-)" && test ! -e "/boot/vmlinuz-$old"
"#;

#[test]
fn a_kernel_is_exchanged_under_extlinux_and_boots() {
    if !gate::has(&["extlinux"]) {
        return;
    }
    let Some(yard) = Yard::shared() else { return };
    let folder = yard.recipe(
        "extlinux",
        &format!(
            "version: 1\nname: extlinux\narchitecture: x86_64\nbase: {{ file: base.raw }}\nimage: {{ boot-mode: legacy-bios }}\n\
             boot: {{ within: 10m }}\n\
             provision:\n  - shell:\n      run: |{}\n",
            ANOTHER_KERNEL.replace('\n', "\n    ")
        ),
    );
    Foreign {
        mib: 2048,
        table: Table::None,
        root: RootOn::Ext4,
        boot: false,
        esp: false,
        names: Names::Uuid,
        loader: EXTLINUX,
    }
    .make(&folder.join("base.raw"));
    yard.bake("extlinux", &[]).ok();
    let boot = machine();
    yard.run(&["test", "extlinux"]).ok();
    drop(boot);

    // A new default that is none, an initramfs that is taken away, and a root by a machine's name: each is told.
    yard.recipe(
        "extlinux-broken",
        "version: 1\nname: extlinux-broken\narchitecture: x86_64\nbase: { family: extlinux }\n\
         provision:\n  - shell:\n      run: |\n\
         \x20       sed -i 's/^default .*/default debian/; s/root=[^ ]*/root=\\/dev\\/vda/' /boot/extlinux/extlinux.conf\n\
         \x20       rm /boot/initrd.img-*\n",
    );
    let said = yard.bake("extlinux-broken", &[]).code(3);
    for reason in [
        "its default `debian` is no label in it",
        "the initramfs /initrd.img of the entry `linux` is not in the image",
        "the entry `linux` has root=/dev/vda, which depends on the machine",
    ] {
        assert!(said.err.contains(&format!("/boot/extlinux/extlinux.conf: {reason}")), "{}", said.err);
    }
}

/// GRUB's own tools in a child: a default that is no entry is said, since GRUB then takes the first; a kernel that is
/// taken away beneath the menu is refused.
#[test]
fn a_default_of_grub_is_looked_for_and_a_missing_kernel_is_named() {
    let Some(yard) = Yard::shared() else { return };
    let recipe = |name: &str, run: &str| {
        yard.recipe(
            name,
            &format!(
                "version: 1\nname: {name}\narchitecture: x86_64\nbase: {{ family: os-base }}\n\
                 provision:\n  - shell:\n      run: |\n        \
                 sed -i 's/^GRUB_DEFAULT=.*/GRUB_DEFAULT=saved/' /etc/default/grub\n        update-grub\n        {run}\n"
            ),
        );
    };
    recipe("grub-default", "grub-set-default gone");
    let said = yard.bake("grub-default", &[]).ok();
    let warning =
        "/boot/grub/grubenv: the default `gone` is no entry of /boot/grub/grub.cfg; GRUB takes the first";
    assert!(said.err.contains(warning), "{}", said.err);
    recipe("grub-kernel", "rm /boot/vmlinuz-*");
    let said = yard.bake("grub-kernel", &[]).code(3);
    assert!(said.err.contains("/boot/grub/grub.cfg: the kernel /boot/vmlinuz-"), "{}", said.err);
}

/// A disk with GRUB becomes one with systemd-boot, and an initramfs by dracut, in a bake; its child gets another kernel
/// by kernel-install, and boots.
#[test]
fn systemd_boot_and_dracut_are_put_in_place_of_grub_and_boot_another_kernel() {
    let Some(yard) = Yard::shared() else { return };
    let folder = yard.recipe(
        "systemd-boot",
        "version: 1\nname: systemd-boot\narchitecture: x86_64\nbase: { file: base.raw }\nimage: { boot-mode: uefi }\n\
         provision:\n  - packages: { install: [dracut] }\n  - packages: { install: [systemd-boot] }\n\
         \x20 - shell:\n      run: |\n\
         \x20       apt-get -q -y purge grub-efi-amd64-bin grub-pc-bin grub2-common\n\
         \x20       rm -rf /boot/grub\n\
         \x20       test -e /boot/efi/EFI/systemd/systemd-bootx64.efi\n\
         \x20       test -s /boot/efi/loader/entries/debian-$(basename /lib/modules/*).conf\n",
    );
    Foreign {
        mib: 2048,
        table: Table::Gpt,
        root: RootOn::Xfs,
        boot: false,
        esp: true,
        names: Names::Uuid,
        loader: GRUB_UEFI,
    }
    .make(&folder.join("base.raw"));
    yard.bake("systemd-boot", &[]).ok();
    yard.recipe(
        "systemd-boot-child",
        &format!(
            "version: 1\nname: systemd-boot-child\narchitecture: x86_64\nbase: {{ family: systemd-boot }}\n\
             boot: {{ within: 10m }}\nprovision:\n  - shell:\n      run: |{}\n",
            ANOTHER_KERNEL.replace('\n', "\n    ")
        ),
    );
    yard.bake("systemd-boot-child", &[]).ok();
    let boot = machine();
    yard.run(&["test", "systemd-boot-child"]).ok();
    drop(boot);
}
