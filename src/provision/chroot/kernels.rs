//! What the programs that install kernels are told, since they would ask the build host: the command line
//! (kernel-install takes /proc/cmdline where nothing else says it), the name of the entries (it makes one up from a
//! random machine id), where the EFI system partition is, and that an initramfs is for EC2 and not for this host
//! (dracut).
//!
//! All of it is lent and nothing stays: what the image's own machine does with its next kernel is its maker's choice,
//! and the next bake lends it again.

use std::collections::BTreeMap;

use super::super::root::RootError;
use super::grub_probe::DiskIdentity;
use super::lent::Lent;
use crate::host::root_dir::RootDir;

/// How the root's kernels are installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelIdentity {
    /// As the entries have it that are there; empty where there is none to go by.
    pub command_line: String,
    /// What kernel-install names entries by (kernel-install(8), "entry token"); empty for the distribution's name.
    pub entry_token: String,
    /// The machine id that the entries of Fedora's GRUB are named by, while the root itself has none.
    pub machine_id: Option<String>,
    /// Where the EFI system partition is, mounted or as a copy of its files.
    pub esp: Option<String>,
}

const COMMAND_LINES: [&str; 2] = ["/etc/kernel/cmdline", "/usr/lib/kernel/cmdline"];
const ENTRY_TOKEN: &str = "/etc/kernel/entry-token";
/// After all others, whose settings it overrides.
const DRACUT: &str = "/etc/dracut.conf.d/zz-bakehouse.conf";

impl KernelIdentity {
    /// Variables for every command, below those of its own.
    pub(super) fn environment(&self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        if let Some(esp) = &self.esp {
            // bootctl looks at no device then (systemd's docs/ENVIRONMENT.md).
            variables.insert("SYSTEMD_ESP_PATH".to_owned(), esp.clone());
        }
        if let Some(id) = &self.machine_id {
            variables.insert("MACHINE_ID".to_owned(), id.clone());
        }
        variables
    }

    /// Lends the files to a root on this disk. dracut may come in any step, so its file is there in any case.
    pub(super) fn lend(
        &self,
        root: &RootDir,
        disk: &DiskIdentity,
        distribution: &str,
        into: &mut Vec<Lent>,
    ) -> Result<(), RootError> {
        if !COMMAND_LINES.iter().any(|path| root.exists(path)) {
            let line = if self.command_line.is_empty() {
                format!("root=UUID={} ro\n", disk.root.uuid)
            } else {
                format!("{}\n", self.command_line)
            };
            into.push(Lent::lend(root, COMMAND_LINES[0], line.as_bytes(), 0o644)?);
        }
        let token = if self.entry_token.is_empty() { distribution } else { &self.entry_token };
        if !token.is_empty() && !root.exists(ENTRY_TOKEN) {
            into.push(Lent::lend(root, ENTRY_TOKEN, format!("{token}\n").as_bytes(), 0o644)?);
        }
        into.push(Lent::lend(root, DRACUT, dracut(&disk.root.kind).as_bytes(), 0o644)?);
        Ok(())
    }
}

/// dracut.conf(5). Without it the initramfs has what the build host has, and its root device too.
fn dracut(filesystem: &str) -> String {
    let module = match filesystem {
        // One driver for all three.
        "ext2" | "ext3" => "ext4",
        other => other,
    };
    format!(
        "# Lent for a bake: the image boots on other machines than the one it is made on.\n\
         hostonly=\"no\"\nhostonly_cmdline=\"no\"\nadd_drivers+=\" nvme ena {module} \"\n"
    )
}
