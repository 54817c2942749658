//! What programs that install kernels find in a root: the image's own, and nothing of the build host.

use bakehouse::provision::{
    ChrootOptions, ChrootRoot, DiskIdentity, FileSystemIdentity, KernelIdentity, Root,
};

use super::roots::{debian, sh};
use crate::gate;

const UUID: &str = "0fe86d91-0f24-4f0c-a5a2-6e2ed4f0a001";

fn options(root: &std::path::Path, kernels: KernelIdentity) -> ChrootOptions {
    let root_identity = FileSystemIdentity {
        kind: "ext3".to_owned(),
        uuid: UUID.to_owned(),
        label: None,
        partuuid: None,
        partition: 1,
        device: None,
    };
    let disk = DiskIdentity { root: root_identity, boot: None, partmap: "gpt".to_owned() };
    ChrootOptions { disk: Some(disk), kernels, ..ChrootOptions::new(root) }
}

/// The real kernel-install of a Debian root: without what it is lent it writes the build host's command line into the
/// image's entries.
#[tokio::test]
async fn kernel_install_takes_nothing_from_the_build_host() {
    if !gate::has_root(&["mmdebstrap", "tar"]) {
        return;
    }
    let dir = debian().await;
    let add = "mkdir -p /boot/efi/loader/entries && echo type1 > /boot/efi/loader/entries.srel && echo k > /tmp/vmlinuz && \
               mkdir -p /lib/modules/6.1 && kernel-install add 6.1 /tmp/vmlinuz && cat /boot/efi/loader/entries/*.conf";
    let root = ChrootRoot::enter(options(dir.path(), KernelIdentity::default())).await.unwrap();
    let exit = sh(&root, add).await;
    assert!(exit.success(), "{exit:?}");
    let entry = exit.tail.join("\n");
    assert!(entry.contains(&format!("options    root=UUID={UUID} ro\n")), "{entry}");
    assert!(entry.contains("/debian/6.1/linux"), "{entry}");
    assert!(sh(&root, "cat /etc/dracut.conf.d/*").await.tail.join(" ").contains(r#"" nvme ena ext4 ""#));
    root.leave().await.unwrap();
    for path in ["etc/kernel/cmdline", "etc/kernel/entry-token", "etc/dracut.conf.d"] {
        assert!(!dir.path().join(path).exists(), "{path} stays");
    }

    // As the entries that are there have it; and the kernel goes with its entry.
    let kernels = KernelIdentity {
        command_line: format!("root=UUID={UUID} ro console=ttyS0"),
        entry_token: "debian".to_owned(),
        machine_id: Some("ec2a1b2c3d4e5f60718293a4b5c6d7e8".to_owned()),
        esp: Some("/boot/efi".to_owned()),
    };
    let root = ChrootRoot::enter(options(dir.path(), kernels)).await.unwrap();
    let exit = sh(&root, add).await;
    assert!(exit.tail.iter().any(|line| line.ends_with("ro console=ttyS0")), "{exit:?}");
    let exit =
        sh(&root, "kernel-install remove 6.1; ls /boot/efi/loader/entries /boot/efi/debian; env").await;
    assert!(!exit.tail.iter().any(|line| line.contains("6.1")), "{exit:?}");
    assert!(exit.tail.contains(&"SYSTEMD_ESP_PATH=/boot/efi".to_owned()), "{exit:?}");
    assert!(exit.tail.contains(&"MACHINE_ID=ec2a1b2c3d4e5f60718293a4b5c6d7e8".to_owned()), "{exit:?}");
    // What the image's maker wrote is what counts, and stays.
    root.dir().write("/etc/kernel/install.conf", b"", 0o644).unwrap();
    root.leave().await.unwrap();
    std::fs::write(dir.path().join("etc/kernel/cmdline"), "root=LABEL=own\n").unwrap();
    let root = ChrootRoot::enter(options(dir.path(), KernelIdentity::default())).await.unwrap();
    let exit = sh(&root, add).await;
    assert!(exit.tail.iter().any(|line| line == "options    root=LABEL=own"), "{exit:?}");
    root.leave().await.unwrap();
    assert!(dir.path().join("etc/kernel/cmdline").exists());
}
