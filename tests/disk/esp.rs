//! The EFI system partition as a folder: taken out and written back by mtools, whatever is on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use bakehouse::disk::esp::{EspError, EspFolder};
use bakehouse::disk::filesystem::{Filesystem, FilesystemKind};
use bakehouse::disk::ids::Volume;
use bakehouse::disk::layout::Layout;
use bakehouse::disk::mount::Target;
use bakehouse::disk::table::{Partition, TYPE_ESP, TYPE_ROOT_X86_64};
use bakehouse::disk::tree::{Esp as Shown, MountedTree};
use bakehouse::host::exec::Cmd;
use bakehouse::host::loop_device::Access;
use bakehouse::host::stop::Stop;
use tempfile::TempDir;

use super::fixture::{Disk, MIB, ROOT_UUID, TOOLS, small_root};
use crate::gate;

const NEEDS: &[&str] = &["mformat", "mcopy", "mdeltree", "fsck.fat"];
/// Where the partition lies; before and behind it is something else.
const START: u64 = MIB;
const SIZE: u64 = 40 * MIB;

/// A disk with a FAT, and a folder to show it at.
struct Esp {
    dir: TempDir,
    volume: Volume,
}

impl Esp {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("at")).unwrap();
        fs::write(dir.path().join("disk"), vec![0; usize::try_from(START + SIZE + MIB).unwrap()]).unwrap();
        let volume = Volume {
            partition: Partition {
                number: 15,
                start: START,
                type_id: TYPE_ESP.to_owned(),
                ..Partition::whole(SIZE)
            },
            filesystem: Some(Filesystem { kind: FilesystemKind::Vfat, uuid: None, label: None }),
        };
        let esp = Self { dir, volume };
        esp.mtools("mformat", &["-F", "-T", "81920", "-h", "255", "-s", "63", "-v", "ESP", "::"]).await;
        esp.mtools("mmd", &["::EFI", "::EFI/BOOT", "::EFI/debian"]).await;
        for (path, content) in [
            ("EFI/BOOT/BOOTX64.EFI", "a loader"),
            ("EFI/debian/grub.cfg", "configfile x"),
            ("EFI/debian/long name.txt", "x"),
        ] {
            let file = esp.path("file");
            fs::write(&file, content).unwrap();
            esp.mtools("mcopy", &[file.to_str().unwrap(), &format!("::{path}")]).await;
        }
        esp
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn mtools(&self, name: &str, args: &[&str]) -> String {
        Cmd::new(name)
            .env("MTOOLS_SKIP_CHECK", "1")
            .args(["-i", &format!("{}@@{START}", self.path("disk").display())])
            .args(args)
            .run(&Stop::never())
            .await
            .unwrap()
            .text()
    }

    async fn show(&self, access: Access) -> Result<EspFolder, EspError> {
        let at = self.path("at");
        let stop = Stop::never();
        EspFolder::show(
            &self.path("disk"),
            &self.volume,
            Target::Host(&at),
            self.path("at.esp"),
            access,
            &stop,
        )
        .await
    }

    fn disk(&self) -> Vec<u8> {
        fs::read(self.path("disk")).unwrap()
    }

    /// Changes it in a folder and writes that back; the folder is gone afterwards.
    async fn change(&self, change: impl FnOnce(PathBuf)) -> Result<(), EspError> {
        let shown = self.show(Access::ReadWrite).await.unwrap();
        change(self.path("at"));
        let written = shown.write_back(&Stop::never()).await;
        shown.close(&Stop::never()).await.unwrap();
        assert_eq!(fs::read_dir(self.path("at")).unwrap().count(), 0);
        assert!(!self.path("at.esp").exists());
        written
    }

    /// The bytes of a name as a FAT's long names have it, replaced by another of the same length.
    fn rename(&self, from: &str, to: &str) {
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let (from, to) = (wide(from), wide(to));
        assert_eq!(from.len(), to.len());
        let mut disk = self.disk();
        let at = disk.windows(from.len()).position(|part| part == from).unwrap();
        disk[at..at + to.len()].copy_from_slice(&to);
        fs::write(self.path("disk"), disk).unwrap();
    }
}

#[tokio::test]
async fn what_is_changed_in_the_folder_is_on_the_partition() {
    if !gate::has_root(NEEDS) {
        return;
    }
    let esp = Esp::new().await;
    let before = esp.disk();
    esp.change(|at| {
        assert_eq!(fs::read(at.join("EFI/BOOT/BOOTX64.EFI")).unwrap(), b"a loader");
        // Seen, and touched: the same content is no change.
        fs::write(at.join("EFI/debian/grub.cfg"), "configfile x").unwrap();
    })
    .await
    .unwrap();
    assert!(esp.disk() == before, "an ESP that nobody changed has other bytes");

    esp.change(|at| {
        fs::create_dir_all(at.join("loader/entries")).unwrap();
        fs::write(at.join("loader/entries/debian-6.1.0-9-cloud-amd64+3.conf"), "title Debian\n").unwrap();
        fs::write(at.join("EFI/BOOT/BOOTX64.EFI"), vec![7; 3 << 20]).unwrap();
        fs::remove_dir_all(at.join("EFI/debian")).unwrap();
    })
    .await
    .unwrap();
    let listed = esp.mtools("mdir", &["-/", "-b", "::"]).await;
    assert!(listed.contains("::/loader/entries/debian-6.1.0-9-cloud-amd64+3.conf"), "{listed}");
    assert!(!listed.contains("debian/grub.cfg"), "{listed}");
    let after = esp.disk();
    let part = usize::try_from(START).unwrap()..usize::try_from(START + SIZE).unwrap();
    assert!(after[..part.start] == before[..part.start] && after[part.end..] == before[part.end..]);
    fs::write(esp.path("part"), &after[part]).unwrap();
    Cmd::new("fsck.fat").arg("-n").arg(esp.path("part")).run(&Stop::never()).await.unwrap();
    let shown = esp.show(Access::ReadOnly).await.unwrap();
    assert_eq!(fs::metadata(esp.path("at/EFI/BOOT/BOOTX64.EFI")).unwrap().len(), 3 << 20);
    assert!(fs::write(esp.path("at/new"), "").is_err());
    shown.close(&Stop::never()).await.unwrap();
}

#[tokio::test]
async fn what_no_fat_can_hold_is_refused_by_its_name() {
    if !gate::has_root(NEEDS) {
        return;
    }
    let esp = Esp::new().await;
    let before = esp.disk();
    let error = esp.change(|at| symlink("BOOT", at.join("EFI/link")).unwrap()).await.unwrap_err();
    assert!(
        error.to_string().contains("/EFI/link of the EFI system partition is a symbolic link"),
        "{error}"
    );
    let error = esp.change(|at| fs::write(at.join("a:b"), "").unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("/a:b of the EFI system partition cannot be written"), "{error}");
    let error = esp.change(|at| fs::create_dir(at.join("EFI/boot")).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("/EFI/BOOT and /EFI/boot"), "{error}");
    assert!(esp.disk() == before, "a refused change was written");
    let error = esp.change(|at| fs::write(at.join("large"), vec![1; 50 << 20]).unwrap()).await.unwrap_err();
    assert!(
        error.to_string().contains("no room for /large on the EFI system partition, which has 40 MiB"),
        "{error}"
    );
}

#[tokio::test]
async fn a_hostile_fat_does_not_get_out_of_its_folder() {
    if !gate::has_root(NEEDS) {
        return;
    }
    // A name with slashes and dots.
    let esp = Esp::new().await;
    esp.rename("long ", "../..");
    let shown = esp.show(Access::ReadWrite).await.unwrap();
    let mut names: Vec<String> = fs::read_dir(esp.path("at/EFI/debian"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    let mut beside: Vec<_> =
        fs::read_dir(esp.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["at", "at.esp", "disk", "file"]);
    shown.write_back(&Stop::never()).await.unwrap();
    shown.close(&Stop::never()).await.unwrap();

    // A folder that holds itself: the entry of EFI/debian leads to EFI.
    let esp = Esp::new().await;
    let mut disk = esp.disk();
    let find = |disk: &[u8], name: &[u8]| disk.windows(11).position(|part| part == name).unwrap();
    let (efi, debian) = (find(&disk, b"EFI        "), find(&disk, b"DEBIAN     "));
    for field in [20, 21, 26, 27] {
        disk[debian + field] = disk[efi + field];
    }
    fs::write(esp.path("disk"), disk).unwrap();
    let error = esp.show(Access::ReadWrite).await.unwrap_err();
    assert!(matches!(error, EspError::Damaged { .. }), "{error}");
    assert!(!esp.path("at.esp").exists());

    // No FAT at all.
    let esp = Esp::new().await;
    fs::write(esp.path("disk"), vec![0xaa; usize::try_from(START + SIZE).unwrap()]).unwrap();
    let error = esp.show(Access::ReadOnly).await.unwrap_err();
    assert!(matches!(error, EspError::Damaged { .. }), "{error}");
}

/// In a tree it is where fstab has it, whether this kernel mounts it or not, and nothing stays behind.
#[tokio::test]
async fn a_tree_shows_the_partition_and_writes_it() {
    if !gate::has_root(&[NEEDS, TOOLS].concat()) {
        return;
    }
    let stop = Stop::never();
    let table = format!(
        "label: gpt\n15: start=2048, size=81920, type={TYPE_ESP}\n1: start=83968, size=61440, type={TYPE_ROOT_X86_64}\n"
    );
    let disk = Disk::with_table(72 * MIB, &table).await;
    let fat = format!("{}@@{MIB}", disk.path.display());
    let mtools = |name: &str| Cmd::new(name).env("MTOOLS_SKIP_CHECK", "1").args(["-i", &fat]);
    mtools("mformat")
        .args(["-F", "-T", "81920", "-h", "255", "-s", "63", "-N", "311a37c8", "::"])
        .run(&stop)
        .await
        .unwrap();
    let folder = disk.dir.path().join("root");
    small_root(&folder);
    fs::write(folder.join("etc/fstab"), "UUID=311A-37C8 /boot/efi vfat umask=0077 0 0\n").unwrap();
    disk.ext4(41 * MIB, 30 * MIB, ROOT_UUID, "root", &folder).await;
    let layout = Layout::find(&disk.path, &stop).await.unwrap();
    let at = disk.dir.path().join("at");
    fs::create_dir(&at).unwrap();
    let tree = MountedTree::open(&disk.path, &layout, &at, Access::ReadWrite, &stop).await.unwrap();
    let path = "/boot/efi".to_owned();
    assert!([Shown::Mounted(path.clone()), Shown::Copied(path)].contains(tree.esp()), "{:?}", tree.esp());
    tree.root().unwrap().write("/boot/efi/loader.conf", b"timeout 0\n", 0o600).unwrap();
    tree.trim(&stop).await.unwrap();
    tree.close(&stop).await.unwrap();
    assert_eq!(mtools("mtype").arg("::loader.conf").run(&stop).await.unwrap().text(), "timeout 0");
    let tree = MountedTree::open(&disk.path, &layout, &at, Access::ReadOnly, &stop).await.unwrap();
    assert_eq!(tree.root().unwrap().read_text("/boot/efi/loader.conf").unwrap(), "timeout 0\n");
    assert!(tree.root().unwrap().write("/boot/efi/other", b"", 0o600).is_err());
    // Dropped without a close, it leaves nothing either.
    drop(tree);
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    assert!(!disk.dir.path().join("at.esp15").exists());
}

/// Each partition has a folder of its own, one that is no ESP (here an extended boot loader partition) too; and one that is
/// mounted twice has one.
#[tokio::test]
async fn two_partitions_and_two_places_of_one_are_kept_apart() {
    if !gate::has_root(&[NEEDS, TOOLS].concat()) {
        return;
    }
    let stop = Stop::never();
    let table = format!(
        "label: gpt\n14: start=2048, size=20480, type={TYPE_ESP}\n15: start=22528, size=20480, type=BC13C2FF-59E6-4262-A352-B275FD6F7172\n\
         1: start=43008, size=61440, type={TYPE_ROOT_X86_64}\n"
    );
    let disk = Disk::with_table(52 * MIB, &table).await;
    let mtools = |name: &str, mib: u64| {
        let fat = format!("{}@@{}", disk.path.display(), mib * MIB);
        Cmd::new(name).env("MTOOLS_SKIP_CHECK", "1").args(["-i", &fat])
    };
    for (mib, serial) in [(1, "311a37c8"), (11, "311a37c9")] {
        let size = ["-T", "20480", "-h", "255", "-s", "63"];
        mtools("mformat", mib).args(size).args(["-N", serial, "::"]).run(&stop).await.unwrap();
        let file = disk.dir.path().join("old");
        fs::write(&file, serial).unwrap();
        mtools("mcopy", mib).arg(&file).arg("::old").run(&stop).await.unwrap();
    }
    let folder = disk.dir.path().join("root");
    small_root(&folder);
    let fstab = "UUID=311A-37C8 /boot/efi vfat\nUUID=311A-37C8 /efi vfat\nUUID=311A-37C9 /second vfat\n";
    fs::write(folder.join("etc/fstab"), fstab).unwrap();
    disk.ext4(21 * MIB, 30 * MIB, ROOT_UUID, "root", &folder).await;
    let layout = Layout::find(&disk.path, &stop).await.unwrap();
    let at = disk.dir.path().join("at");
    fs::create_dir(&at).unwrap();
    let tree = MountedTree::open(&disk.path, &layout, &at, Access::ReadWrite, &stop).await.unwrap();
    {
        let root = tree.root().unwrap();
        assert_eq!(root.read_text("/second/old").unwrap(), "311a37c9");
        root.write("/boot/efi/one", b"1", 0o600).unwrap();
        assert_eq!(root.read_text("/efi/one").unwrap(), "1");
        root.write("/efi/two", b"2", 0o600).unwrap();
        root.write("/second/three", b"3", 0o600).unwrap();
    }
    tree.trim(&stop).await.unwrap();
    tree.close(&stop).await.unwrap();
    for (mib, files) in [(1, "::/old\n::/one\n::/two"), (11, "::/old\n::/three")] {
        assert_eq!(mtools("mdir", mib).args(["-b", "::"]).run(&stop).await.unwrap().text(), files);
    }
    let left: Vec<_> = fs::read_dir(disk.dir.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[tokio::test]
async fn a_folder_of_a_bake_that_goes_on_is_shown_as_it_is() {
    if !gate::has_root(NEEDS) {
        return;
    }
    let esp = Esp::new().await;
    fs::create_dir(esp.path("at.esp")).unwrap();
    fs::write(esp.path("at.esp/kept"), "by the failed step").unwrap();
    esp.change(|at| assert!(at.join("kept").exists())).await.unwrap();
    let listed = esp.mtools("mdir", &["-/", "-b", "::"]).await;
    assert_eq!(listed.trim(), "::/kept");
}
