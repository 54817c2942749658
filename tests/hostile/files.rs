//! Files that the program is given on its command line, or finds where its own should be: with too little memory for what
//! they pretend to be, each is an error with the exit code of wrong input.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::yard::{Said, Yard};

/// Bytes of data that the program may have. A file that it took whole would need more.
const MEMORY: u64 = 192 << 20;

#[expect(clippy::disallowed_methods, reason = "the program is started here as a user starts it")]
fn run(yard: &Yard, args: &[&str]) -> Said {
    let own = yard.command();
    let mut command = std::process::Command::new("prlimit");
    command.arg(format!("--data={MEMORY}")).arg(own.get_program()).args(args);
    command.env_clear().envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(yard.path()).output().unwrap().into()
}

fn fifo(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
}

/// Puts each kind of thing that is no such file at `path`, and looks at what `args` tell of it.
fn each_is_told(yard: &Yard, path: &Path, args: &[&str], kinds: [(&str, &str); 4]) {
    for (kind, told) in kinds {
        let _ = std::fs::remove_file(path);
        match kind {
            "fifo" => fifo(path),
            "device" => symlink("/dev/zero", path).unwrap(),
            // Sparse, so that the test writes none of it.
            "huge" => File::create(path).unwrap().set_len(1 << 30).unwrap(),
            "deep" => std::fs::write(path, format!("{{\"a\": {}", "[".repeat(1 << 19))).unwrap(),
            _ => unreachable!(),
        }
        let said = run(yard, args).code(2);
        assert!(said.err.contains(told), "{kind}: {}", said.err);
        assert!(said.err.len() < 4096, "{kind}: {} bytes of error", said.err.len());
    }
}

#[test]
fn a_recipe_that_is_no_such_file_is_told() {
    let yard = Yard::new();
    yard.recipe("web", "");
    let path = yard.path().join("web/bake.yml");
    for verb in ["validate", "plan", "bake"] {
        each_is_told(
            &yard,
            &path,
            &[verb, "web"],
            [
                ("fifo", "not a file"),
                ("device", "not a file"),
                ("huge", "larger than 1 MiB"),
                ("deep", "bake.yml:1:"),
            ],
        );
    }
    // One that was really written, and a bomb of aliases.
    let mut file = File::create(&path).unwrap();
    for _ in 0..100 {
        file.write_all(&[b'a'; 1 << 20]).unwrap();
    }
    assert!(run(&yard, &["validate", "web"]).code(2).err.contains("larger than 1 MiB"));
    let mut bomb = String::from("version: 1\nvars:\n  a0: &a0 [x, x]\n");
    for number in 1..30 {
        bomb += &format!("  a{number}: &a{number} [{}]\n", vec![format!("*a{}", number - 1); 9].join(", "));
    }
    std::fs::write(&path, bomb).unwrap();
    assert!(run(&yard, &["validate", "web"]).code(2).err.contains("every alias is written out"));
}

#[test]
fn a_record_that_is_no_such_file_is_told() {
    let yard = Yard::new();
    yard.file("web", "bakehouse-out/image.json", "");
    let path = yard.out("web").join("image.json");
    each_is_told(
        &yard,
        &path,
        &["test", "web/bakehouse-out/image.json"],
        [
            ("fifo", "not a regular file"),
            ("device", "not a regular file"),
            ("huge", "larger than 64 MiB"),
            ("deep", "is no record"),
        ],
    );
}

/// A base that is no disk: not waited for and not read whole.
#[test]
fn a_base_that_is_no_disk_is_told() {
    let yard = Yard::new();
    yard.recipe("web", "version: 1\nname: web\narchitecture: x86_64\nbase: { file: disk.raw }\n");
    let path = yard.path().join("web/disk.raw");
    for kind in ["fifo", "device", "folder"] {
        match kind {
            "fifo" => fifo(&path),
            "device" => symlink("/dev/zero", &path).unwrap(),
            _ => std::fs::create_dir(&path).unwrap(),
        }
        for verb in ["validate", "plan", "bake"] {
            let said = run(&yard, &[verb, "web"]).code(2);
            assert!(said.err.contains("disk.raw"), "{kind}: {}", said.err);
        }
        let _ = std::fs::remove_file(&path);
    }
}

/// A disk file that shows what lies in another file, which may be any file of this host.
#[test]
fn a_base_that_leads_to_another_file_is_refused() {
    let yard = Yard::new();
    yard.recipe("web", "version: 1\nname: web\narchitecture: x86_64\nbase: { file: disk.qcow2 }\n");
    // QEMU's qcow2 specification: the magic, the version, where the backing file's name is and how long; from byte 72 the
    // features that a reader must know, of which bit 2 is external data.
    let header = |backing: bool, external: bool| {
        let mut header = vec![0; 512];
        header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        if backing {
            header[8..20].copy_from_slice(b"\0\0\0\0\0\0\x01\0\0\0\0\x0b");
            header[256..267].copy_from_slice(b"/etc/shadow");
        }
        header[79] = if external { 4 } else { 0 };
        header
    };
    for (header, told) in
        [(header(true, false), "backing file"), (header(false, true), "keeps its data in another file")]
    {
        std::fs::write(yard.path().join("web/disk.qcow2"), header).unwrap();
        for verb in ["plan", "bake"] {
            let said = run(&yard, &[verb, "web"]).code(2);
            assert!(said.err.contains(told) && said.err.contains("qemu-img convert"), "{}", said.err);
        }
    }
}
