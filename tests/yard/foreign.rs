//! Whole disks made by other means than the program's own, out of the root of the shared base image: what people bring
//! as `base: file`. Each begins as noise, since a block that nobody wrote need not read as zero on a real volume.

#![expect(clippy::disallowed_methods, reason = "the disks are made by the system's tools")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::Yard;

/// The script that makes a disk; it says at its head what a loader finds, and has GRUB's.
const SCRIPT: &str = include_str!("foreign.sh");

/// Where the root of a disk from scratch begins (`src/disk/format/mod.rs`).
const BASE_ROOT: u64 = 68 << 20;

/// How the disk is divided.
#[derive(Clone, Copy)]
pub enum Table {
    Gpt,
    Mbr,
    None,
}

/// What the root lies on.
#[derive(Clone, Copy)]
pub enum RootOn {
    Ext4,
    Xfs,
    /// `@` at / and `@home` at /home, by fstab and `rootflags=`.
    BtrfsSubvolumes,
    /// `root`, which is the default subvolume; fstab names none.
    BtrfsDefault,
}

/// How fstab names what it mounts.
#[derive(Clone, Copy)]
pub enum Names {
    Uuid,
    Label,
    PartUuid,
    Device,
}

/// A disk to be made.
#[derive(Clone, Copy)]
pub struct Foreign {
    pub mib: u64,
    pub table: Table,
    pub root: RootOn,
    /// Whether /boot is an ext4 of its own.
    pub boot: bool,
    /// Whether there is an EFI system partition, mounted at /boot/efi.
    pub esp: bool,
    pub names: Names,
    /// A piece of shell that makes it boot: [`GRUB_BIOS`], [`GRUB_UEFI`], or another.
    pub loader: &'static str,
}

impl Foreign {
    /// Makes the disk file, in place of what is there.
    #[track_caller]
    pub fn make(&self, disk: &Path) {
        let work =
            tempfile::Builder::new().prefix("foreign-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        noise(disk, self.mib << 20);
        let yes = |yes: bool| if yes { "yes" } else { "no" };
        let output = Command::new("unshare")
            .args(["--mount", "bash", "-c", SCRIPT, "foreign.sh"])
            .env("DISK", disk)
            .env("WORK", work.path())
            .env("TREE", tree())
            .env(
                "TABLE",
                match self.table {
                    Table::Gpt => "gpt",
                    Table::Mbr => "mbr",
                    Table::None => "none",
                },
            )
            .env(
                "ROOT",
                match self.root {
                    RootOn::Ext4 => "ext4",
                    RootOn::Xfs => "xfs",
                    RootOn::BtrfsSubvolumes => "btrfs-subvolumes",
                    RootOn::BtrfsDefault => "btrfs-default",
                },
            )
            .env("BOOT", yes(self.boot))
            .env("ESP", yes(self.esp))
            .env(
                "NAMES",
                match self.names {
                    Names::Uuid => "uuid",
                    Names::Label => "label",
                    Names::PartUuid => "partuuid",
                    Names::Device => "device",
                },
            )
            .env("LOADER", self.loader)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Writes out an image, in which every block that was never stored is noise, and asks each file system's own checker,
/// which must find nothing to correct.
#[track_caller]
pub fn assert_sound(yard: &Yard, recipe: &str) {
    let image = yard.record(recipe)["images"][0]["image"].as_str().unwrap().to_owned();
    let disk = yard.path().join(recipe).join("sound.raw");
    yard.run(&["export", &image, disk.to_str().unwrap()]).ok();
    let output = Command::new("bash").args(["-c", CHECK, "check"]).arg(&disk).output().unwrap();
    assert!(
        output.status.success(),
        "{recipe}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::remove_file(disk).unwrap();
}

/// Every file system of a disk file that a root may lie on is checked, read-only.
const CHECK: &str = r#"set -eu
partitions=$(sfdisk --dump "$1" 2>/dev/null | sed -n 's/.*start= *\([0-9]*\), size= *\([0-9]*\).*/\1 \2/p')
# Without a table it is all one file system.
[ -n "$partitions" ] || partitions="0 $(($(stat -c %s "$1") / 512))"
checked=0
while read -r start sectors; do
  node=$(losetup --find --show --read-only --offset $((start * 512)) --sizelimit $((sectors * 512)) "$1")
  trap 'losetup -d "$node"' EXIT
  case $(blkid -p -s TYPE -o value "$node" || true) in
    ext4) e2fsck -f -n "$node" ;;
    xfs) xfs_repair -n "$node" ;;
    btrfs) btrfs check --readonly "$node" ;;
    *) checked=$((checked - 1)) ;;
  esac
  checked=$((checked + 1))
  losetup -d "$node"
  trap - EXIT
done <<<"$partitions"
[ $checked -gt 0 ]
"#;

/// Fills a new file with bytes that look like nothing: the same always, so that a failure comes again.
pub fn noise(path: &Path, bytes: u64) {
    let mut file = fs::File::create(path).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chunk = vec![0; 1 << 20];
    for word in chunk.chunks_exact_mut(8) {
        // xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    // The same piece again and again: as good as any other noise, and a store keeps it once.
    for _ in 0..bytes.div_ceil(1 << 20) {
        file.write_all(&chunk).unwrap();
    }
    file.set_len(bytes).unwrap();
}

/// The shared base image's files, unpacked once for all tests.
pub fn tree() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let yard = Yard::shared().unwrap();
        let image = yard.record("os-base")["images"][0]["image"].as_str().unwrap().to_owned();
        let (raw, tree) = (yard.path().join("base.raw"), yard.path().join("tree"));
        yard.run(&["export", &image, raw.to_str().unwrap()]).ok();
        // The mount and its loop device go with the namespace.
        let script = format!(
            "set -eu; mkdir \"$2\" \"$2.mount\"; mount -o ro,noload,loop,offset={BASE_ROOT} \"$1\" \"$2.mount\"
            cp -a --sparse=always \"$2.mount/.\" \"$2\""
        );
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script, "sh"])
            .args([&raw, &tree])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::remove_file(raw).unwrap();
        tree
    })
}

/// GRUB for the BIOS: its core in the BIOS boot partition of a GPT, or in the gap behind an MBR.
pub const GRUB_BIOS: &str = "grub_bios";
/// GRUB for UEFI, where firmware looks on a disk that it knows nothing of.
pub const GRUB_UEFI: &str = "grub_uefi";
