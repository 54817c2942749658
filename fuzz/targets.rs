//! Everything of ours that reads what others wrote, as functions over bytes: a property test of the suite and the long run of
//! `make fuzz` call the same ones. None may panic, run on without end, or take memory without bound, whatever it is given.

use std::cell::OnceCell;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};

use bakehouse::acceptance::{
    Boot, Case, Requirement, enabled, find_answer, junit, stage, static_checks, tail,
};
use bakehouse::cloud::{
    BlockIndex, BlockSink, BlockToken, Cloud, Clouds, Digest, NewSnapshot, PageToken, SnapshotId,
    SnapshotQuery, Tags, Token,
};
use bakehouse::disk::boot_check::check;
use bakehouse::disk::boot_check::grub::menu;
use bakehouse::disk::boot_check::initramfs::{Limits, modules};
use bakehouse::disk::btrfs::Subvolumes;
use bakehouse::disk::filesystem::Filesystem;
use bakehouse::disk::ids::{DeviceName, DiskIds};
use bakehouse::disk::layout::{Layout, OsRelease};
use bakehouse::disk::{BlockMap, fstab, table};
use bakehouse::host::glob;
use bakehouse::host::root_dir::RootDir;
use bakehouse::host::stop::Stop;
use bakehouse::image::Record;
use bakehouse::ledger::Ledger;
use bakehouse::local::{LocalClouds, metadata};
use bakehouse::method::keep;
use bakehouse::provision::{PackageFormat, RootFacts, installed};
use bakehouse::recipe::{self, Check, FileCheck, LoadOptions, Size, Span, buildspec};
use bakehouse::stage::StageToken;
use base64::Engine;
use tempfile::TempDir;

/// A reader, by the name of the folder of its seeds.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Whether a call starts programs of the host: such a call takes a thousand times as long as another.
    pub runs_programs: bool,
}

const fn pure(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, runs_programs: false }
}

const fn with_programs(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, runs_programs: true }
}

pub const TARGETS: [Target; 33] = [
    pure("recipe", read_recipe),
    pure("buildspec", read_buildspec),
    pure("record", read_record),
    pure("block-map", read_block_map),
    pure("sizes-and-durations", read_words),
    pure("sfdisk-json", read_sfdisk),
    with_programs("disk", read_disk),
    pure("blkid", read_blkid),
    pure("btrfs-list", read_subvolumes),
    pure("fstab", read_fstab),
    pure("os-release", read_os_release),
    pure("grub-menu", |data| boots("boot/grub/grub.cfg", data)),
    pure("grub-words", read_grub_words),
    pure("grub-environment", |data| boots("boot/grub/grubenv", data)),
    pure("bls-entry", |data| boots("boot/loader/entries/a.conf", data)),
    pure("loader-conf", |data| boots("boot/efi/loader/loader.conf", data)),
    pure("systemd-boot-entry", |data| boots("boot/efi/loader/entries/a.conf", data)),
    pure("extlinux", |data| boots("boot/extlinux/extlinux.conf", data)),
    pure("unified-kernel", |data| boots("boot/efi/EFI/Linux/a.efi", data)),
    pure("kernel", |data| boots("boot/vmlinuz", data)),
    with_programs("initramfs", read_initramfs),
    pure("dpkg-status", read_dpkg_status),
    pure("rpm-ndb", read_ndb),
    pure("versions", compare_versions),
    pure("accounts", read_accounts),
    pure("unit", read_unit),
    pure("console", read_console),
    pure("metadata-request", answer_metadata),
    pure("snapshot-json", |data| read_store("snapshot.json", data)),
    pure("snapshot-map", |data| read_store("blocks.map", data)),
    pure("stage-token", read_stage_token),
    pure("ledger", read_ledger),
    pure("kept-root", read_kept_root),
];

/// A folder in memory that lasts as long as its thread.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: OnceCell<tokio::runtime::Runtime> = const { OnceCell::new() };
    }
    RUNTIME.with(|runtime| {
        let make = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.get_or_init(make).block_on(future)
    })
}

/// Calls `read` with a folder in which the file `path` holds these bytes. It is made once, by `fill`.
fn with_file(fill: fn(&Path), path: &str, data: &[u8], read: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
    }
    FOLDER.with(|once| {
        let dir = once.get_or_init(|| {
            let dir = folder();
            fill(dir.path());
            dir
        });
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        // What was there before this input, for the next one may be for another file.
        let before = fs::read(&file).ok();
        fs::write(&file, data).unwrap();
        read(dir.path());
        match before {
            Some(before) => fs::write(&file, before).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
    });
}

fn nothing(_: &Path) {}

fn read_recipe(data: &[u8]) {
    with_file(nothing, recipe::FILE, data, |dir| match recipe::load(dir, &LoadOptions::default()) {
        Ok(loaded) => {
            let shown = loaded.recipe.to_yaml().unwrap();
            assert!(shown.len() < 64 << 20, "{} bytes of recipe", shown.len());
        }
        Err(error) => {
            let told = error.to_string();
            assert!(!told.is_empty() && told.len() < 1 << 20, "{} bytes of error", told.len());
        }
    });
}

fn read_buildspec(data: &[u8]) {
    with_file(nothing, buildspec::FILE, data, |dir| match buildspec::load(&dir.join(buildspec::FILE)) {
        Ok(loaded) => {
            let told: Vec<String> = loaded.warnings.iter().map(|warning| warning.as_warning()).collect();
            assert!(told.join("\n").len() < 1 << 20);
        }
        Err(error) => {
            let told = error.to_string();
            assert!(!told.is_empty() && told.len() < 1 << 20, "{} bytes of error", told.len());
        }
    });
}

fn read_record(data: &[u8]) {
    with_file(nothing, "image.json", data, |dir| {
        if let Ok(record) = Record::read(&dir.join("image.json")) {
            record.write(&dir.join("again.json")).unwrap();
            assert_eq!(Record::read(&dir.join("again.json")).unwrap(), record);
            let _ = bakehouse::image::environment(&record);
        }
    });
}

/// With the checksum that belongs to it, too: what one who means harm would write.
fn read_block_map(data: &[u8]) {
    let _ = BlockMap::from_bytes(data);
    let mut signed = data.to_vec();
    signed.extend_from_slice(&Digest::of(data).0);
    if let Ok(map) = BlockMap::from_bytes(&signed) {
        let _ = (map.digest(), map.len());
        assert_eq!(BlockMap::from_bytes(&map.to_bytes()), Ok(map));
    }
}

fn read_words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = (Size::parse(&text), Span::parse(&text));
    let _ = (SnapshotId::parse(&text), Digest::from_hex(&text), DeviceName::parse(&text));
    // A pattern is as long as a recipe may be, a name is not (NAME_MAX of Linux).
    let (pattern, name) = data.split_at(data.len().saturating_sub(255).max(data.len() / 2));
    let (pattern, name) = (String::from_utf8_lossy(pattern), String::from_utf8_lossy(name));
    let _ = (glob::fits(&pattern, &name), glob::fits_path(&pattern, &name));
}

fn read_sfdisk(data: &[u8]) {
    const SIZE: u64 = 1 << 30;
    if let Ok(table) = table::parse(&String::from_utf8_lossy(data), SIZE) {
        assert!(table.partitions.iter().all(|one| one.start > 0 && one.size > 0 && one.end() <= SIZE));
    }
}

/// Bytes at a disk's beginning, and again where a GPT has its copy: what the host's tools make of them, and what is
/// made of that.
fn read_disk(data: &[u8]) {
    with_file(nothing, "disk.raw", data, |dir| {
        let disk = dir.join("disk.raw");
        fs::File::options().write(true).open(&disk).unwrap().set_len(8 << 20).unwrap();
        if let Ok(ids) = wait(DiskIds::read(&disk, &Stop::never())) {
            assert!(ids.volumes.iter().all(|one| one.partition.end() <= 8 << 20));
        }
    });
}

fn read_blkid(data: &[u8]) {
    if let Some(found) = Filesystem::parse(&String::from_utf8_lossy(data)) {
        let _ = (found.kind.driver(), found.kind.module(), found.kind.to_string());
    }
}

fn read_subvolumes(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (list, default) = text.split_once("\n\n").unwrap_or((&text, ""));
    let found = Subvolumes::parse(list, default);
    let options: Vec<String> = text.lines().map(str::to_owned).collect();
    let _ = found.asked(&options);
}

fn read_fstab(data: &[u8]) {
    for line in fstab::parse(&String::from_utf8_lossy(data)) {
        let _ = DeviceName::parse(&line.device);
    }
    boots("etc/fstab", data);
}

fn read_os_release(data: &[u8]) {
    let _ = OsRelease::parse(&String::from_utf8_lossy(data));
    with_file(nothing, "etc/os-release", data, |dir| {
        let _ = RootFacts::read(&RootDir::open(dir).unwrap());
    });
}

const VERSION: &str = "6.1.0-9-cloud-amd64";

/// A root that boots, by each of the loaders that are known.
fn bootable(dir: &Path) {
    let put = |path: &str, bytes: &[u8]| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    put("boot/vmlinuz", include_bytes!("seeds/kernel/header"));
    put("boot/initrd.img", include_bytes!("seeds/initramfs/plain"));
    put("boot/grub/grub.cfg", include_bytes!("seeds/grub-menu/entry"));
    put("boot/efi/loader/loader.conf", include_bytes!("seeds/loader-conf/default"));
    put("boot/efi/vmlinuz", include_bytes!("seeds/kernel/header"));
    let list = format!("lib/modules/{VERSION}/modules.builtin");
    put(&list, b"kernel/drivers/nvme/host/nvme.ko\nkernel/fs/ext4/ext4.ko\n");
}

/// The last look at a root with this file in it.
fn boots(path: &str, data: &[u8]) {
    thread_local! {
        static LAYOUT: Layout = serde_json::from_str(include_str!("layout.json")).unwrap();
    }
    with_file(bootable, path, data, |dir| {
        let root = RootDir::open(dir).unwrap();
        LAYOUT.with(|layout| {
            let told = match wait(check(&root, layout, &Stop::never())) {
                Ok(checked) => format!("{checked:?}"),
                Err(error) => error.to_string(),
            };
            assert!(told.len() < 64 << 20, "{} bytes are told", told.len());
        });
    });
}

fn read_grub_words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(menu) = menu::parse(&text, menu::Variables::new()) {
        let variables = menu::Variables::from([("a".to_owned(), text.clone().into_owned())]);
        let _ = (menu.boots.len(), menu::filled_in(&text, &variables).len());
    }
}

/// With bounds that keep a bomb small: a mutation is soon one.
fn read_initramfs(data: &[u8]) {
    with_file(nothing, "initrd", data, |dir| {
        let limits = Limits { unpacked: 8 << 20, ..Limits::default() };
        let _ = wait(modules(fs::File::open(dir.join("initrd")).unwrap(), limits, &Stop::never()));
    });
}

fn read_dpkg_status(data: &[u8]) {
    list_packages("var/lib/dpkg/status", data);
}

fn read_ndb(data: &[u8]) {
    list_packages("usr/lib/sysimage/rpm/Packages.db", data);
}

fn list_packages(path: &str, data: &[u8]) {
    with_file(nothing, path, data, |dir| {
        let _ = wait(installed(&RootDir::open(dir).unwrap(), &Stop::never()));
    });
}

fn compare_versions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (left, right) = text.split_once('\n').unwrap_or((&text, &text));
    for format in [PackageFormat::Deb, PackageFormat::Rpm] {
        for (one, other) in [(left, right), (right, left)] {
            if let Ok(wanted) = Requirement::parse(&format!(">={other}")) {
                let allowed = wanted.allows(format, one);
                let own = wanted.allows(format, other);
                assert!(own, "{format:?}: {other} is not {wanted}");
                let _ = allowed;
            }
        }
    }
}

/// A root's list of users, for a check of a file's owner.
fn read_accounts(data: &[u8]) {
    with_file(nothing, "etc/passwd", data, |dir| {
        let root = RootDir::open(dir).unwrap();
        let check: FileCheck = serde_json::from_value(serde_json::json!({
            "path": "/etc/passwd", "owner": "root:root", "contains": "root"
        }))
        .unwrap();
        let outcomes = wait(static_checks(&root, &[Check::File(check)], &Stop::never()));
        let cases: Vec<Case> = outcomes.iter().map(Case::from).collect();
        let _ = junit("fuzz", &cases, &String::from_utf8_lossy(data));
    });
}

fn read_unit(data: &[u8]) {
    with_file(nothing, "usr/lib/systemd/system/a.service", data, |dir| {
        let root = RootDir::open(dir).unwrap();
        let _ = (enabled(&root, "a"), enabled(&root, &String::from_utf8_lossy(data)));
    });
}

fn read_console(data: &[u8]) {
    let _ = (stage(data).to_string(), find_answer(data, "nonce"));
    assert!(tail(data, 20, 4096).len() <= 3 * 4096);
}

fn answer_metadata(data: &[u8]) {
    let fill: fn(&Path) = |dir| {
        fs::write(dir.join("metadata.json"), include_bytes!("metadata.json")).unwrap();
        fs::write(dir.join("user-data"), "#!/bin/sh\n").unwrap();
    };
    with_file(fill, "unused", data, |dir| {
        let mut answer = Vec::new();
        metadata::answer(dir, data, &mut answer).unwrap();
        assert!(data.is_empty() || answer.starts_with(b"HTTP/1.1 "));
    });
}

struct Shelf {
    _dir: TempDir,
    cloud: Cloud,
    snapshot: SnapshotId,
    folder: PathBuf,
}

/// A store with one snapshot, which was started and has no blocks.
fn shelf() -> Shelf {
    let dir = folder();
    let clouds = LocalClouds::open(dir.path(), None, None).unwrap();
    let place = clouds.home();
    let folder = clouds.store().place_dir(&place).join("snapshots");
    let cloud = clouds.at(&place).unwrap();
    let new = NewSnapshot {
        volume_size: 1,
        parent: None,
        description: String::new(),
        tags: Tags::new(),
        encrypt: None,
        timeout_minutes: 60,
    };
    let snapshot = wait(cloud.snapshots.start(&new, &Token::of("fuzz", "snapshot", 1))).unwrap();
    Shelf { folder: folder.join(snapshot.as_str()), _dir: dir, cloud, snapshot }
}

/// A snapshot of a local store with this file in it; the bytes are tokens too.
fn read_store(file: &str, data: &[u8]) {
    struct Nobody;
    impl BlockSink for Nobody {
        fn begin(&self, _: Digest) {}
        fn piece(&self, _: &[u8]) {}
    }
    thread_local! {
        static SHELF: OnceCell<Shelf> = const { OnceCell::new() };
    }
    SHELF.with(|once| {
        let shelf = once.get_or_init(shelf);
        fs::write(shelf.folder.join(file), data).unwrap();
        if file != "snapshot.json" {
            fs::write(shelf.folder.join("snapshot.json"), include_bytes!("seeds/snapshot-json/completed"))
                .unwrap();
        }
        let text = String::from_utf8_lossy(data).into_owned();
        let (snapshots, id) = (&shelf.cloud.snapshots, &shelf.snapshot);
        wait(async {
            let _ = snapshots
                .describe(&SnapshotQuery { ids: vec![id.clone()], ..SnapshotQuery::default() })
                .await;
            let _ = snapshots.list_blocks(id, None).await;
            let _ = snapshots.list_blocks(id, Some(&PageToken(text.clone()))).await;
            let _ = snapshots.get_block(id, BlockIndex(0), &BlockToken(text), &Nobody).await;
        });
    });
}

/// As it is, and as what a token says, with the digest that belongs to it: a token is not signed.
fn read_stage_token(data: &[u8]) {
    let _ = StageToken::parse(&String::from_utf8_lossy(data));
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(data);
    let sum = Digest::of(claims.as_bytes()).hex();
    let text = format!("bakehouse-1.{claims}.{}", &sum[..16]);
    match StageToken::parse(&text) {
        Ok(token) => {
            if let Ok(claims) = token.claims::<Boot>("test") {
                assert_eq!(StageToken::of(&claims).unwrap().claims::<Boot>("test").unwrap(), claims);
            }
        }
        Err(error) => assert!(text.len() > StageToken::LONGEST, "{error}"),
    }
}

/// What was read is there again when it is read again, after what a kill tore off.
fn read_ledger(data: &[u8]) {
    with_file(nothing, "ledger.jsonl", data, |dir| {
        let path = dir.join("ledger.jsonl");
        if let Ok(Some(ledger)) = Ledger::open(&path) {
            let _ = (ledger.image(), ledger.is_settled());
            let again = Ledger::open(&path).unwrap().unwrap();
            assert_eq!((again.header(), again.entries()), (ledger.header(), ledger.entries()));
        }
    });
}

/// Nobody holds it, so that none is found.
fn read_kept_root(data: &[u8]) {
    const BAKE: &str = "bake-0123456789ab";
    with_file(nothing, &format!("{BAKE}/kept.json"), data, |dir| {
        assert!(!keep::find(dir, BAKE).unwrap_err().to_string().is_empty());
    });
}
