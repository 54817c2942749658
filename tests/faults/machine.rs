//! What the machine does to a bake: a disk that fills up, a store that cannot be written, a block that rotted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bakehouse::local::Collected;
use rustix::mount::{MountFlags, mount, mount_remount};

use super::run::{bake, continued, stopped};
use super::state::{State, assert_sound, delete, garbage, images, sweep};
use crate::yard::small::METHODS;
use crate::yard::{Said, Yard, foreign};

/// Puts a folder of the yard on a file system of its own.
fn on_its_own(folder: &Path, mib: u64) {
    let aside = folder.with_extension("aside");
    fs::create_dir_all(folder).unwrap();
    fs::rename(folder, &aside).unwrap();
    fs::create_dir(folder).unwrap();
    let options = std::ffi::CString::new(format!("size={mib}m,mode=0700")).unwrap();
    mount("tmpfs", folder, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
    let copied = Command::new("cp").arg("-a").arg(aside.join(".")).arg(folder).status().unwrap();
    assert!(copied.success());
    fs::remove_dir_all(aside).unwrap();
}

/// Takes all but `bytes` of the room on a folder's file system.
fn fill(folder: &Path, bytes: u64) -> PathBuf {
    let room = rustix::fs::statvfs(folder).unwrap();
    let file = folder.join("filler");
    let taken = (room.f_bavail * room.f_frsize).saturating_sub(bytes);
    let filler = fs::File::create(&file).unwrap();
    rustix::fs::fallocate(filler, rustix::fs::FallocateFlags::empty(), 0, taken).unwrap();
    file
}

/// That a bake failed for want of room, and left nothing but what it lists.
#[track_caller]
fn failed_for_room(yard: &Yard, said: Said, before: &State, after: &str) {
    assert!([3, 4].contains(&said.code), "{after}: {} {}", said.code, said.err);
    assert!(said.err.contains("free some space"), "{after}: {}", said.err);
    if said.code == 4 {
        before.assert_told(yard, &said);
        sweep(yard);
    }
    before.assert_again(yard, after);
}

/// The number of a boundary that begins so in a bake that goes well.
fn boundary(yard: &Yard, method: &str, text: &str) -> usize {
    let said = bake(yard, method, "list").ok();
    delete(yard, method);
    let all = super::run::told(&said, "boundary");
    1 + all.iter().position(|one| one.starts_with(text)).unwrap_or_else(|| panic!("{text}: {all:?}"))
}

/// An image whose registration only came to light, and whose record cannot be written: it is kept until it can.
#[test]
fn a_record_that_cannot_be_written_is_delivered_later() {
    let Some(yard) = Yard::small() else { return };
    let before = State::of(&yard);
    for (method, fault) in
        [("direct", "list"), ("direct", "call:RegisterImage#1:after:denied"), ("scratch", "list")]
    {
        let in_its_way = yard.out(method).join("blocks.map");
        fs::create_dir_all(&in_its_way).unwrap();
        let said = bake(&yard, method, fault).code(4);
        let image = images(&yard, method).remove(0);
        assert!(said.err.contains(&image) && said.err.contains("tries again"), "{}", said.err);
        // It is still in its way.
        let said = yard.run(&["sweep"]).code(4);
        assert!(said.err.contains(&image) && said.err.contains("cannot be delivered"), "{}", said.err);
        fs::remove_dir(&in_its_way).unwrap();
        // As one that was killed while it wrote.
        let unfinished = yard.out(method).join(".bakehouse-unfinished-123456");
        fs::write(&unfinished, "half").unwrap();
        let said = yard.bake(method, &[]).ok();
        assert_eq!(said.out.trim(), image, "{}", said.err);
        assert!(!unfinished.exists());
        assert_sound(&yard);
        delete(&yard, method);
        fs::remove_dir_all(yard.out(method)).unwrap();
        before.assert_again(&yard, method);
    }
}

#[test]
fn a_work_folder_that_fills_up_fails_the_bake_and_leaves_nothing() {
    let Some(yard) = Yard::small() else { return };
    // A bake begins only where 512 MiB are free.
    on_its_own(&yard.work(), 600);
    let before = State::of(&yard);
    for method in METHODS {
        for moment in ["begin copying", "begin reading", "begin step", "end step", "begin sealing"] {
            if [("scratch", "begin reading"), ("direct", "begin copying")].contains(&(method, moment)) {
                continue;
            }
            let at = boundary(&yard, method, moment);
            let child = stopped(&yard, method, &format!("boundary:{at}:stop"));
            let filler = fill(&yard.work(), 256 << 10);
            let said = continued(child);
            fs::remove_file(filler).unwrap();
            let after = format!("{method} full at {moment}");
            if said.code == 0 && ["end step", "begin sealing"].contains(&moment) {
                // What was changed had been written out already. Then all of it is in the image.
                foreign::assert_sound(&yard, method);
                delete(&yard, method);
                before.assert_again(&yard, &after);
            } else {
                failed_for_room(&yard, said, &before, &after);
            }
        }
        yard.bake(method, &[]).ok();
        delete(&yard, method);
        before.assert_again(&yard, method);
    }
}

#[test]
fn a_store_that_fills_up_fails_the_bake_and_damages_nothing() {
    let Some(yard) = Yard::small() else { return };
    on_its_own(&yard.store(), 128);
    let before = State::of(&yard);
    for method in METHODS {
        for call in ["StartSnapshot#1", "PutSnapshotBlock#1", "PutSnapshotBlock#5"] {
            let child = stopped(&yard, method, &format!("call:{call}:before:stop"));
            let filler = fill(&yard.store(), 0);
            let said = continued(child);
            // Also while it is full, what is there is read and verified.
            assert_sound(&yard);
            fs::remove_file(filler).unwrap();
            assert_eq!(garbage(&yard), Collected::default(), "{method} full at call {call}");
            failed_for_room(&yard, said, &before, &format!("{method} full at call {call}"));
        }
        yard.bake(method, &[]).ok();
        delete(&yard, method);
        before.assert_again(&yard, method);
    }
}

#[test]
fn a_store_that_cannot_be_written_is_named_and_stays_as_it_is() {
    let Some(yard) = Yard::small() else { return };
    on_its_own(&yard.store(), 256);
    let before = State::of(&yard);
    let remount = |flags| mount_remount(yard.store(), flags, c"").unwrap();
    for method in METHODS {
        // From the beginning, and from the first call on.
        remount(MountFlags::RDONLY);
        let said = yard.bake(method, &[]);
        remount(MountFlags::empty());
        assert!([2, 3, 5].contains(&said.code), "{}: {}", said.code, said.err);
        assert!(said.err.contains("Read-only file system"), "{}", said.err);
        assert!(said.err.contains(yard.store().to_str().unwrap()), "{}", said.err);
        before.assert_again(&yard, method);

        // Neither has a file open for writing beside it.
        for call in ["StartSnapshot#1", "CompleteSnapshot#1"] {
            let child = stopped(&yard, method, &format!("call:{call}:before:stop"));
            remount(MountFlags::RDONLY);
            let said = continued(child);
            remount(MountFlags::empty());
            assert!(said.err.contains("Read-only file system"), "{}", said.err);
            if call == "StartSnapshot#1" {
                assert_eq!(said.code, 3, "{}", said.err);
            } else {
                before.assert_told(&yard, &said.code(4));
                sweep(&yard);
            }
            before.assert_again(&yard, &format!("{method} read-only at call {call}"));
        }
        yard.bake(method, &[]).ok();
        delete(&yard, method);
        before.assert_again(&yard, method);
    }
}

#[test]
fn a_block_of_the_base_that_rotted_is_named_and_nothing_is_left() {
    let Some(yard) = Yard::small() else { return };
    let snapshot = yard.record("small")["images"][0]["snapshot"].as_str().unwrap().to_owned();
    let mut blocks = Vec::new();
    for folder in fs::read_dir(yard.store().join("blocks")).unwrap().flatten() {
        blocks.extend(fs::read_dir(folder.path()).unwrap().flatten().map(|block| block.path()));
    }
    assert!(blocks.len() > 2);
    for (number, block) in blocks.iter().enumerate() {
        let whole = fs::read(block).unwrap();
        let mut rotten = whole.clone();
        // Another byte in each, once shorter, once gone.
        rotten[number * 4711 % whole.len()] ^= 1;
        match number {
            0 => fs::remove_file(block).unwrap(),
            1 => fs::write(block, &whole[..whole.len() - 1]).unwrap(),
            _ => fs::write(block, &rotten).unwrap(),
        }
        let before = State::of(&yard);
        let said = yard.bake("direct", &[]).code(3);
        let index = said.err.split("block ").nth(1).and_then(|rest| rest.split(' ').next());
        assert!(index.is_some_and(|index| index.parse::<u32>().is_ok()), "{}", said.err);
        assert!(said.err.contains(&snapshot), "{}", said.err);
        assert!(said.err.contains("nothing was left behind"), "{}", said.err);
        before.assert_again(&yard, block.to_str().unwrap());
        fs::write(block, whole).unwrap();
        assert!(block.metadata().unwrap().len() > 0);
    }
    yard.bake("direct", &[]).ok();
    assert_sound(&yard);
}

/// A clean-up that fails after a good image is no failure: it is told, stands in the record, and is swept later.
#[test]
fn a_clean_up_that_fails_after_a_good_image_is_told_and_swept() {
    let Some(yard) = Yard::small() else { return };
    // A file that even root cannot remove: file systems in memory have none.
    let disk = yard.path().join("work.ext4");
    fs::create_dir_all(yard.work()).unwrap();
    let script =
        "set -e; mke2fs -q -F -t ext4 \"$1\" 1G; mount -o loop \"$1\" \"$2\"; rmdir \"$2/lost+found\"";
    command("sh", &["-c", script, "sh", disk.to_str().unwrap(), yard.work().to_str().unwrap()]);
    let before = State::of(&yard);
    for method in METHODS {
        let at = boundary(&yard, method, "end storing");
        let child = stopped(&yard, method, &format!("boundary:{at}:stop"));
        let folder =
            fs::read_dir(yard.work()).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap();
        let (folder, file) = (folder.path(), folder.path().join("immutable"));
        fs::write(&file, "").unwrap();
        command("chattr", &["+i", file.to_str().unwrap()]);
        let said = continued(child).ok();
        assert!(said.err.contains(folder.to_str().unwrap()), "{}", said.err);
        let leftovers = yard.record(method)["leftovers"].to_string();
        assert!(leftovers.contains(folder.to_str().unwrap()), "{leftovers}");
        assert_sound(&yard);
        // What cannot be removed yet is told by the sweep too.
        let said = yard.run(&["sweep"]).code(4);
        assert!(said.err.contains(folder.to_str().unwrap()), "{}", said.err);
        command("chattr", &["-i", file.to_str().unwrap()]);
        sweep(&yard);
        delete(&yard, method);
        before.assert_again(&yard, method);
    }
}

#[track_caller]
fn command(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
