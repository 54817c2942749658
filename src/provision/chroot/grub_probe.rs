//! What the root's programs are told of the disk that they lie on, and the stand-in for `grub-probe` that tells them.
//!
//! The real grub-probe finds the device of a mounted folder and looks into it. On a loop device at an offset it fails,
//! or names another device without saying so, and the menu that a kernel update writes then does not boot. The
//! stand-in answers from the disk's identity instead.

use super::super::root::{RootError, shell_word};

/// The device's name in the root's /dev. One that no machine has, so that it cannot hide in a menu.
const NODE: &str = "bakehouse-root";
/// The same for a /boot of its own.
const BOOT_NODE: &str = "bakehouse-boot";

/// How the disk names itself to the system on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskIdentity {
    pub root: FileSystemIdentity,
    /// Where /boot is a file system of its own.
    pub boot: Option<FileSystemIdentity>,
    /// The partition table as GRUB names its module: `gpt`, `msdos`. Empty for a disk without one.
    pub partmap: String,
}

/// One file system of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystemIdentity {
    /// As blkid names it: `ext4`, `xfs`, `btrfs`.
    pub kind: String,
    pub uuid: String,
    pub label: Option<String>,
    pub partuuid: Option<String>,
    /// The partition's number in the table, from 1; 0 on a disk without a table.
    pub partition: u32,
    /// The major and minor number of the block device that holds the file system and nothing else (a loop device at
    /// its offset), for programs that look into it: initramfs-tools asks blkid which fsck the root needs. `None` for
    /// a root that is no file system of its own.
    pub device: Option<(u32, u32)>,
}

impl DiskIdentity {
    /// The partitions' nodes in /dev, with the numbers of those that have a block device.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&'static str, Option<(u32, u32)>)> {
        let boot = self.boot.iter().map(|fs| (BOOT_NODE, fs.device));
        std::iter::once((NODE, self.root.device)).chain(boot)
    }

    /// The links in /dev/disk: folder, name, and the node that it leads to.
    pub(super) fn links(&self) -> Vec<(&'static str, String, &'static str)> {
        let both = std::iter::once((&self.root, NODE)).chain(self.boot.iter().map(|fs| (fs, BOOT_NODE)));
        let mut links = Vec::new();
        for (fs, node) in both {
            let names = [
                ("by-uuid", Some(fs.uuid.clone())),
                ("by-partuuid", fs.partuuid.clone()),
                ("by-label", fs.label.as_deref().map(encoded)),
            ];
            for (folder, name) in names {
                let Some(name) = name.filter(|name| !name.is_empty()) else {
                    continue;
                };
                // Two file systems may have one label: the root's link is the one.
                if !links.iter().any(|(other, taken, _)| *other == folder && *taken == name) {
                    links.push((folder, name, node));
                }
            }
        }
        links
    }

    /// # Errors
    /// Where a value cannot be what it says: these come from a disk that anybody may have made.
    pub(super) fn check(&self) -> Result<(), RootError> {
        let word = |what: &'static str, value: &str| {
            if value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                Ok(())
            } else {
                Err(RootError::Identity { what, value: value.to_owned() })
            }
        };
        word("partition table's kind", &self.partmap)?;
        for fs in std::iter::once(&self.root).chain(&self.boot) {
            word("file system's kind", &fs.kind)?;
            word("UUID", &fs.uuid)?;
            word("PARTUUID", fs.partuuid.as_deref().unwrap_or_default())?;
            if fs.label.as_deref().unwrap_or_default().contains(['\0', '\n']) {
                return Err(RootError::Identity {
                    what: "label",
                    value: fs.label.clone().unwrap_or_default(),
                });
            }
        }
        Ok(())
    }

    /// The stand-in: a POSIX script with grub-probe's command line.
    pub(super) fn grub_probe(&self) -> String {
        let mut script = HEAD.to_owned();
        script.push_str("answer_root() {\n");
        script.push_str(&self.answers(&self.root, NODE));
        script.push_str("}\nanswer_boot() {\n");
        match &self.boot {
            Some(boot) => script.push_str(&self.answers(boot, BOOT_NODE)),
            None => script.push_str("  answer_root\n"),
        }
        script.push_str("}\n");
        script.push_str(TAIL);
        script
    }

    /// The arms of one file system: a target without an answer ends with exit code 1, as the real one does.
    fn answers(&self, fs: &FileSystemIdentity, node: &str) -> String {
        let kind = match fs.kind.as_str() {
            "ext2" | "ext3" | "ext4" => "ext2",
            "vfat" => "fat",
            other => other,
        };
        let drive = if self.partmap.is_empty() {
            "hd0".to_owned()
        } else {
            format!("hd0,{}{}", self.partmap, fs.partition)
        };
        let mut text = "  case $target in\n".to_owned();
        let mut arm = |names: &str, answer: Option<&str>| {
            let does = match answer {
                Some("") => ":".to_owned(),
                Some(answer) => format!("printf '%s\\n' {}", shell_word(answer)),
                None => "exit 1".to_owned(),
            };
            text.push_str(&format!("    {names}) {does} ;;\n"));
        };
        arm("device", Some(&format!("/dev/{node}")));
        arm("disk", Some(&format!("/dev/{node}")));
        arm("fs", Some(kind));
        arm("fs_uuid", (!fs.uuid.is_empty()).then_some(fs.uuid.as_str()));
        arm("fs_label", Some(fs.label.as_deref().unwrap_or_default()));
        arm("partuuid", fs.partuuid.as_deref().filter(|uuid| !uuid.is_empty()));
        arm("partmap", Some(&self.partmap));
        arm("drive", Some(&format!("({drive})")));
        arm("compatibility_hint|bios_hints|efi_hints|baremetal_hints", Some(&drive));
        arm(
            "hints_string",
            Some(&format!("--hint-bios={drive} --hint-efi={drive} --hint-baremetal={drive}")),
        );
        arm("abstraction|cryptodisk_uuid|ieee1275_hints|arc_hint|msdos_parttype|gpt_parttype", Some(""));
        arm("*", None);
        text.push_str("  esac\n");
        text
    }
}

/// A label as udev writes it into a link's name.
fn encoded(label: &str) -> String {
    label
        .bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
            b'#' | b'+' | b'-' | b'.' | b':' | b'=' | b'@' | b'_' => char::from(byte).to_string(),
            other => format!("\\x{other:02x}"),
        })
        .collect()
}

const HEAD: &str = r#"#!/bin/sh
# Stands in for grub-probe while an image is baked, and is taken away afterwards.
target=fs devices= names=
"#;

const TAIL: &str = r#"while [ $# -gt 0 ]; do
  case $1 in
    --target=*) target=${1#--target=} ;;
    -t|--target) target=$2; shift ;;
    -t?*) target=${1#-t} ;;
    -d|--device) devices=yes ;;
    -m|--device-map) shift ;;
    --device-map=*|-v|--verbose|-0) ;;
    -V|--version) echo 'grub-probe (GRUB) 2.06'; exit 0 ;;
    --) ;;
    -*) echo "grub-probe: unknown option $1" >&2; exit 1 ;;
    *) names="$names
$1" ;;
  esac
  [ $# -gt 0 ] && shift
done
if [ -z "$names" ]; then
  echo 'grub-probe: no path or device is specified' >&2
  exit 1
fi
IFS='
'
set -f
for name in $names; do
  if [ -n "$devices" ]; then
    case $name in
      /dev/bakehouse-boot) answer_boot ;;
      *) answer_root ;;
    esac
  elif [ ! -e "$name" ]; then
    echo "grub-probe: error: failed to get canonical path of \`$name'." >&2
    exit 1
  else
    case $(readlink -f "$name") in
      /boot|/boot/*) answer_boot ;;
      *) answer_root ;;
    esac
  fi
done
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::exec::Cmd;
    use crate::host::stop::Stop;

    fn disk(boot: bool) -> DiskIdentity {
        let fs = |uuid: &str, partition| FileSystemIdentity {
            kind: "ext4".into(),
            uuid: uuid.into(),
            label: Some("a root's/label".into()),
            partuuid: Some(format!("part-{partition}")),
            partition,
            device: None,
        };
        DiskIdentity {
            root: fs("1111-root", 1),
            boot: boot.then(|| fs("2222-boot", 2)),
            partmap: "gpt".into(),
        }
    }

    async fn ask(disk: &DiskIdentity, args: &[&str]) -> Result<String, String> {
        let script = disk.grub_probe();
        let args = std::iter::once("-c").chain([script.as_str(), "grub-probe"]).chain(args.iter().copied());
        let output = Cmd::new("sh").args(args).run(&Stop::never()).await;
        output.map(|output| output.text()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_stand_in_answers_what_grub_mkconfig_asks() {
        let one = disk(false);
        for (args, answer) in [
            (vec!["--target=device", "/"], "/dev/bakehouse-root"),
            (vec!["--device", "/dev/bakehouse-root", "--target=fs_uuid"], "1111-root"),
            (vec!["-t", "fs", "/"], "ext2"),
            (vec!["-t", "abstraction", "/"], ""),
            (vec!["--device", "/dev/bakehouse-root", "--target=partmap"], "gpt"),
            (vec!["--device", "/dev/bakehouse-root", "--target=compatibility_hint"], "hd0,gpt1"),
            (vec!["-t", "drive", "/"], "(hd0,gpt1)"),
            (vec!["-tpartuuid", "/", "/usr"], "part-1\npart-1"),
            (vec!["-t", "fs_label", "/"], "a root's/label"),
        ] {
            assert_eq!(ask(&one, &args).await.as_deref(), Ok(answer), "{args:?}");
        }
        assert!(ask(&one, &["-t", "device", "/not/there"]).await.is_err());
        assert!(ask(&one, &["-t", "device"]).await.is_err());
        assert!(ask(&one, &["-t"]).await.is_err());
        assert!(ask(&one, &["-t", "moon_phase", "/"]).await.is_err());
    }

    #[tokio::test]
    async fn kinds_and_tables_have_the_names_of_grubs_modules() {
        for (kind, partmap, partition, answers) in [
            ("xfs", "msdos", 3, ["xfs", "msdos", "hd0,msdos3", "(hd0,msdos3)"]),
            ("btrfs", "gpt", 1, ["btrfs", "gpt", "hd0,gpt1", "(hd0,gpt1)"]),
            ("ext3", "", 0, ["ext2", "", "hd0", "(hd0)"]),
        ] {
            let mut one = disk(false);
            one.root.kind = kind.into();
            one.root.partition = partition;
            one.partmap = partmap.into();
            for (target, answer) in ["fs", "partmap", "bios_hints", "drive"].iter().zip(answers) {
                assert_eq!(ask(&one, &["-t", target, "/"]).await.as_deref(), Ok(answer), "{kind} {target}");
            }
        }
    }

    #[tokio::test]
    async fn a_boot_of_its_own_has_its_own_answers() {
        let two = disk(true);
        let args = ["-d", "/dev/bakehouse-boot", "-t", "fs_uuid"];
        assert_eq!(ask(&two, &args).await.unwrap(), "2222-boot");
        assert_eq!(ask(&two, &["-t", "fs_uuid", "/"]).await.unwrap(), "1111-root");
        assert_eq!(ask(&two, &["-t", "fs_uuid", "/boot"]).await.unwrap(), "2222-boot");
    }

    #[test]
    fn a_label_is_one_name_in_dev_disk() {
        let links = disk(true).links();
        let labels: Vec<_> = links.iter().filter(|(folder, ..)| *folder == "by-label").collect();
        assert_eq!(labels, [&("by-label", r"a\x20root\x27s\x2flabel".to_owned(), NODE)]);
        assert!(links.contains(&("by-uuid", "2222-boot".to_owned(), BOOT_NODE)));
    }

    #[test]
    fn a_uuid_that_leads_elsewhere_is_refused() {
        for uuid in ["../../etc", "a b", "x'; rm -rf /"] {
            let mut disk = disk(false);
            disk.root.uuid = uuid.into();
            assert!(matches!(disk.check(), Err(RootError::Identity { what: "UUID", .. })), "{uuid}");
        }
        disk(true).check().unwrap();
    }
}
