//! A folder with everything that a file can be, and what is told of a tree, so that two can be compared.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use bakehouse::cloud::Digest;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::fixture::MIB;

/// Linux `include/uapi/linux/capability.h`: revision 2, effective; CAP_NET_BIND_SERVICE is 10.
const NET_BIND: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Linux `include/uapi/linux/posix_acl_xattr.h`: version 2; owner rw, user 1000 r, group r, mask r, others nothing.
const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xe8, 3, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255,
    0x10, 0, 4, 0, 255, 255, 255, 255, 0x20, 0, 0, 0, 255, 255, 255, 255,
];
const LABEL: &[u8] = b"system_u:object_r:etc_t:s0\0";

/// Fills a folder. Needs root.
pub fn fill(at: &Path) {
    let file = |name: &str| {
        let path = at.join(name);
        fs::write(&path, name).unwrap();
        path
    };
    // Names.
    file("with space and\nnewline and 'quotes\" $(x)");
    file("-rf");
    file(&"x".repeat(255));
    fs::write(at.join(OsStr::from_bytes(b"not utf-8 \xff\xfe")), "x").unwrap();
    let deep: PathBuf =
        (0..40).map(|number| format!("a folder with quite a long name, number {number}")).collect();
    fs::create_dir_all(at.join(&deep)).unwrap();
    fs::write(at.join(&deep).join("at the end"), "here").unwrap();
    // Links.
    fs::hard_link(file("one of three"), at.join("two of three")).unwrap();
    fs::hard_link(at.join("one of three"), at.join(&deep).join("three of three")).unwrap();
    symlink("nowhere/at/all", at.join("dangling")).unwrap();
    symlink("y".repeat(1000), at.join("long link")).unwrap();
    // Neither files nor folders.
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, at.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    node("fifo", FileType::Fifo, 0);
    node("console", FileType::CharacterDevice, rustix::fs::makedev(5, 1));
    node("disk", FileType::BlockDevice, rustix::fs::makedev(259, 70_000));
    drop(UnixListener::bind(at.join("socket")).unwrap());
    // Owners and modes.
    for (name, owner, mode) in [
        ("setuid", 12, 0o4755),
        ("setgid", 34, 0o2711),
        ("nobody's", 65_534, 0),
        ("large id", 3_000_000_000, 0o644),
    ] {
        let path = file(name);
        chown(&path, Some(owner), Some(owner)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(at.join("sticky")).unwrap();
    fs::set_permissions(at.join("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::lchown(at.join("dangling"), Some(5), Some(6)).unwrap();
    // Attributes.
    let attribute = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    let capable = file("capable");
    chown(&capable, Some(7), Some(8)).unwrap();
    attribute(&capable, "security.capability", &NET_BIND);
    attribute(&file("labelled"), "security.selinux", LABEL);
    attribute(&at.join("sticky"), "security.selinux", LABEL);
    attribute(&at.join("dangling"), "security.selinux", LABEL);
    attribute(&file("with acl"), "system.posix_acl_access", &ACL);
    attribute(&at.join("sticky"), "system.posix_acl_default", &ACL);
    attribute(&file("with words"), "user.words", &[b'w'; 300]);
    attribute(&at.join("with words"), "trusted.own", b"1");
    // Holes.
    let sparse = fs::File::create(at.join("sparse")).unwrap();
    sparse.set_len(64 * MIB).unwrap();
    sparse.write_all_at(b"in the middle", 40 * MIB).unwrap();
    file("empty but for a hole");
    fs::write(at.join("large"), vec![0x5a; 3 * 1024 * 1024 + 1]).unwrap();
    // Times, the folders' last: whatever is made in one changes it.
    for path in paths(at).into_iter().rev() {
        let time =
            Timespec { tv_sec: 1_234_567_890 + i64::try_from(path.as_os_str().len()).unwrap(), tv_nsec: 0 };
        let both = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, at.join(path), &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// Every path below a folder, itself first, parents before their children.
fn paths(at: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(at.join(&path)).unwrap().is_dir() {
            found.extend(
                fs::read_dir(at.join(&path)).unwrap().map(|entry| path.join(entry.unwrap().file_name())),
            );
        }
    }
    found
}

/// What is told of every path of a tree: type, mode, owners, device, time, links, content, attributes. Which names are one
/// file is told by the first of them.
pub fn told(at: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = paths(at);
    all.sort();
    let mut first = BTreeMap::new();
    let mut told = BTreeMap::new();
    for path in all {
        // mkfs makes it, and no root has it.
        if path == Path::new("lost+found") {
            continue;
        }
        let full = at.join(&path);
        let found = fs::symlink_metadata(&full).unwrap();
        let content = if found.is_file() {
            Digest::of(&fs::read(&full).unwrap()).hex()
        } else if found.is_symlink() {
            fs::read_link(&full).unwrap().display().to_string()
        } else {
            String::new()
        };
        let one = first.entry(found.ino()).or_insert_with(|| path.clone()).display().to_string();
        let one = if found.is_dir() { String::new() } else { format!("{one:?} of {}", found.nlink()) };
        let attributes = attributes(&full);
        // The time of the top itself is the time of the making.
        let time = if path.as_os_str().is_empty() { 0 } else { found.mtime() };
        told.insert(
            path,
            format!(
                "{:o} {}:{} {:x} {} {one} {content} {attributes:?}",
                found.mode(),
                found.uid(),
                found.gid(),
                found.rdev(),
                time,
            ),
        );
    }
    told
}

fn attributes(path: &Path) -> Vec<String> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
    let mut all: Vec<String> = names[..length]
        .split(|byte| *byte == 0)
        // xfs shows its ACLs under names of its own too.
        .filter(|name| !name.is_empty() && !name.starts_with(b"trusted.SGI_ACL_"))
        .map(|name| {
            let name = std::str::from_utf8(name).unwrap();
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap();
            format!("{name}={}", value[..length].escape_ascii())
        })
        .collect();
    all.sort();
    all
}
