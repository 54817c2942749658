//! Reading what an initramfs holds, in every form that distributions pack it.

use std::fs::File;
use std::io::Write;

use bakehouse::disk::boot_check::initramfs::{InitramfsError, Limits, Modules, modules};
use bakehouse::host::exec::Cmd;
use bakehouse::host::stop::Stop;

use crate::gate;

/// A cpio archive in the `newc` form, of files with a few bytes each.
pub fn archive(names: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |name: &str, data: &[u8]| {
        bytes.extend_from_slice(&header(name.len() + 1, data.len()));
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    };
    for name in names {
        add(name, b"bytes");
    }
    add("TRAILER!!!", b"");
    bytes
}

fn header(name: usize, data: usize) -> Vec<u8> {
    let mut header = b"070701".to_vec();
    for field in [1, 0o100_644, 0, 0, 1, 0, data, 0, 0, 0, 0, name, 0] {
        header.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    header
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

async fn read(bytes: &[u8]) -> Result<Modules, InitramfsError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    modules(File::open(file.path()).unwrap(), Limits::default(), &Stop::never()).await
}

fn names(modules: &Modules) -> Vec<&str> {
    modules.by_version.values().flatten().map(String::as_str).collect()
}

#[tokio::test]
async fn plain_and_compressed_archives_one_after_another_are_read() {
    let early = archive(&["kernel/x86/microcode/AuthenticAMD.bin", "lib/modules/6/early.ko"]);
    let main = archive(&["init", "usr/lib/modules/6/kernel/nvme-core.ko.zst", "lib/modules/6/ena.ko"]);
    let found = read(&main).await.unwrap();
    assert_eq!(names(&found), ["ena", "nvme_core"]);
    // Zeros between, as dracut pads the first to whole blocks.
    let mut both = early.clone();
    both.resize(both.len().next_multiple_of(512), 0);
    both.extend_from_slice(&early);
    both.extend_from_slice(&gzip(&main));
    assert_eq!(names(&read(&both).await.unwrap()), ["early", "ena", "nvme_core"]);
    // What stands behind the compressed one is not read, by the kernel either.
    both.extend_from_slice(b"rubbish");
    assert_eq!(read(&both).await.unwrap().by_version["6"].len(), 3);
}

#[tokio::test]
async fn every_compression_is_read() {
    if !gate::has(&["zstd", "xz", "lz4", "bzip2"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, archive(&["lib/modules/6/ena.ko"])).unwrap();
    for tool in ["zstd -q", "xz --check=crc32", "xz --format=lzma", "lz4 -l -q", "bzip2"] {
        let packed = dir.path().join("packed");
        Cmd::new("sh")
            .args(["-c", &format!("{tool} -c <\"$1\" >\"$2\""), "sh"])
            .arg(&plain)
            .arg(&packed)
            .run(&Stop::never())
            .await
            .unwrap();
        let bytes = std::fs::read(&packed).unwrap();
        let found = read(&bytes).await;
        assert_eq!(names(&found.unwrap()), ["ena"], "{tool}");
        let cut = read(&bytes[..bytes.len() / 2]).await;
        assert!(cut.is_err(), "{tool}, cut off: {cut:?}");
    }
}

#[tokio::test]
async fn broken_archives_are_errors() {
    let good = archive(&["lib/modules/6/ena.ko", "lib/modules/6/nvme.ko"]);
    // Cut off anywhere before the trailer's end.
    for end in (1..good.len() - 4).step_by(7) {
        assert!(read(&good[..end]).await.is_err(), "cut at {end}");
    }
    let broken = |name: usize, data: usize| {
        let mut bytes = header(name, data);
        bytes.extend_from_slice(b"name\0\0");
        bytes
    };
    for (bytes, reason) in [
        (broken(0, 0), "no sensible length"),
        (broken(0xffff_ffff, 0), "no sensible length"),
        (broken(5, 0xffff_ffff), "ends within a file"),
        (b"070701zzzz".repeat(20), "no number"),
        (b"070707".repeat(40), "no known compression"),
        (b"\x28\xb5\x2f\xfdrubbish".to_vec(), "zstd cannot unpack"),
        (b"x".to_vec(), "no known compression"),
    ] {
        let error = read(&bytes).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    // An empty file, or zeros, hold nothing; that it lacks the drivers is for the check to say.
    assert_eq!(read(&[0; 2048]).await.unwrap(), Modules::default());
}
