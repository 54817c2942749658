//! A base of 64 MiB, whose bakes take about a second, and yards that lie in memory: for tests that bake hundreds of times.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::mount::{MountFlags, mount};

use super::{TOOLS, Yard};
use crate::disk::boot_check::{ROOT, Root};
use crate::gate;

/// Static, so that it needs nothing else of a root.
const BUSYBOX: &str = "/usr/bin/busybox";
/// Of its programs those that steps here use, and that a root's own users expect.
const PROGRAMS: [&str; 12] =
    ["sh", "cat", "echo", "env", "head", "ls", "mkdir", "rm", "sleep", "sync", "test", "yes"];

/// Both methods, by the name of the recipe that bakes by it.
pub const METHODS: [&str; 2] = ["scratch", "direct"];

/// Two steps, so that there is something between them.
const STEPS: &str = "provision:\n  - shell: { run: 'yes changed | head -c 2000000 >/srv/changed' }\n  \
                     - shell: { run: 'mkdir -p /etc/made; echo made >/etc/made/by' }\n";

impl Yard {
    /// An empty one in memory: what the other processes of a machine write to its disk does not slow it down. `None`
    /// where this machine cannot bake.
    pub fn in_memory() -> Option<Self> {
        if !gate::has_root(&TOOLS) || !gate::has(&[BUSYBOX]) {
            return None;
        }
        let yard = Self::new();
        // It goes with the thread's namespace, or with the folder below it.
        mount("tmpfs", yard.path(), "tmpfs", MountFlags::NOSUID, Some(c"size=2g,mode=0755")).unwrap();
        Some(yard)
    }

    /// [`small`](Self::small) on disk: for what does not share this thread's mounts.
    pub fn small_on_disk() -> Option<Self> {
        if !gate::has_root(&TOOLS) || !gate::has(&[BUSYBOX]) {
            return None;
        }
        let yard = Self::new();
        yard.fill();
        Some(yard)
    }

    /// One in memory with a small base: as the file `disk.raw` in the recipe `scratch`, and as the family `small`, which
    /// the recipe `direct` has as its base.
    pub fn small() -> Option<Self> {
        let yard = Self::in_memory()?;
        yard.fill();
        Some(yard)
    }

    fn fill(&self) {
        let copied = Command::new("cp")
            .args(["-a", "--sparse=always"])
            .arg(template().join("."))
            .arg(self.path())
            .status();
        assert!(copied.unwrap().success());
    }
}

/// Made once for all tests, on disk, and copied.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let yard = Yard { path: Path::new(env!("CARGO_TARGET_TMPDIR")).join("small"), _dir: None };
        let _ = fs::remove_dir_all(yard.path());
        yard.recipe("scratch", &recipe("scratch", "{ file: disk.raw }", STEPS));
        yard.recipe("direct", &recipe("direct", "{ family: small }", STEPS));
        yard.recipe("small", &recipe("small", "{ file: disk.raw }", ""));
        disk(&yard.path().join("scratch/disk.raw"));
        fs::hard_link(yard.path().join("scratch/disk.raw"), yard.path().join("small/disk.raw")).unwrap();
        yard.bake("small", &[]).ok();
        yard.path
    })
}

pub fn recipe(name: &str, base: &str, rest: &str) -> String {
    format!("version: 1\nname: {name}\narchitecture: x86_64\nbase: {base}\n{rest}")
}

/// A disk without a partition table: an ext4 with a root that passes the look at /boot, and runs a shell.
fn disk(to: &Path) {
    let root = Root::new();
    root.put("etc/os-release", b"ID=small\nVERSION_ID=1\n");
    root.put("etc/fstab", format!("UUID={ROOT} / ext4 defaults 0 1\n").as_bytes());
    root.put("usr/bin/busybox", &fs::read(BUSYBOX).unwrap());
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(root.path("usr/bin/busybox"), executable).unwrap();
    for program in PROGRAMS {
        symlink("busybox", root.path(&format!("usr/bin/{program}"))).unwrap();
    }
    symlink("usr/bin", root.path("bin")).unwrap();
    for folder in ["dev", "proc", "run", "srv", "sys", "tmp", "usr/sbin", "var/log", "root"] {
        fs::create_dir_all(root.path(folder)).unwrap();
    }
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-L", "cloudimg-rootfs", "-U", ROOT, "-E", "root_owner=0:0", "-d"])
        .arg(root.path(""))
        .arg(to)
        .arg("64M")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
