//! Roots to try things on, and what the tests ask of them.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bakehouse::host::exec::{Cmd, Exit};
use bakehouse::host::stop::Stop;
use bakehouse::provision::{
    ChrootOptions, ChrootRoot, DiskIdentity, FileSystemIdentity, Root, RootCommand, StepContext, StepFailed,
    StepTiming, run_steps,
};
use bakehouse::recipe::Step;
use bakehouse::report::{Event, Sink};
use tokio::sync::OnceCell;

/// What the small root can run.
const PROGRAMS: [&str; 17] = [
    "sh", "cat", "ls", "sleep", "setsid", "nohup", "env", "stat", "mkdir", "touch", "chmod", "id",
    "readlink", "ln", "rm", "test", "mount",
];

/// A folder that is a root with a shell and a few programs of the host, with the libraries that they need.
pub async fn small() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("bakehouse-root-").tempdir().unwrap();
    fill_small(dir.path()).await;
    dir
}

pub async fn fill_small(root: &Path) {
    for folder in
        ["usr/bin", "usr/sbin", "etc", "root", "var/log", "home", "dev", "proc", "sys", "run", "tmp"]
    {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    // As in today's distributions; the libraries' paths then are what the host's linker says.
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::fs::create_dir_all(root.join("usr").join(name)).unwrap();
        symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:990:991::/:/bin/sh\n").unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\ntty:x:5:\napp:x:991:\nweb:x:33:\n").unwrap();
    std::fs::write(root.join("etc/os-release"), "ID=small\nVERSION_ID=\"1\"\n").unwrap();
    let stop = Stop::never();
    let mut files: Vec<String> = PROGRAMS.iter().map(|name| format!("/usr/bin/{name}")).collect();
    let needed = Cmd::new("ldd").args(&files).run(&stop).await.unwrap().text();
    files.extend(
        needed
            .split_whitespace()
            .filter(|word| word.starts_with('/') && !word.ends_with(':'))
            .map(str::to_owned),
    );
    files.sort();
    files.dedup();
    // By a program of its own: what this process itself writes and then runs may be "busy", since another test's
    // child has the file open between its fork and its exec.
    let copy = Cmd::new("cp").args(["--dereference", "--parents"]).args(&files);
    copy.arg(root).run(&stop).await.unwrap();
}

/// A file system of 96 MiB in a file, mounted at a folder of its own. Whoever made it calls [`unmount`].
pub async fn mounted_ext4(dir: &Path) -> (PathBuf, PathBuf) {
    let (image, top) = (dir.join("disk.img"), dir.join("top"));
    std::fs::create_dir(&top).unwrap();
    let stop = Stop::never();
    let make = Cmd::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&image).arg("96M");
    make.run(&stop).await.unwrap();
    let mount = Cmd::new("mount").args(["-o", "loop"]).arg(&image).arg(&top);
    mount.run(&stop).await.unwrap();
    (image, top)
}

/// For the same reason as in [`fill_small`] a file system that nothing uses may be busy for a moment.
pub async fn unmount(top: &Path) {
    for _ in 0..100 {
        if Cmd::new("umount").arg(top).run(&Stop::never()).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{} stays busy", top.display());
}

/// A Debian root with apt, systemd and Python.
pub async fn debian() -> tempfile::TempDir {
    static TAR: OnceCell<PathBuf> = OnceCell::const_new();
    let options = ["--include=python3,systemd,adduser"];
    unpacked(TAR.get_or_init(|| bootstrapped("debian-bookworm-1", &options)).await).await
}

/// A Debian root with SELinux: its policy and the tools that Debian has beside it.
pub async fn selinux() -> tempfile::TempDir {
    static TAR: OnceCell<PathBuf> = OnceCell::const_new();
    let options = ["--include=systemd,selinux-policy-default"];
    unpacked(TAR.get_or_init(|| bootstrapped("selinux-bookworm-1", &options)).await).await
}

/// A root with rpm, dnf and zypper, none of whose own packages are rpm's. Its list of those is empty, where other
/// distributions than Debian have it.
pub async fn rpm() -> tempfile::TempDir {
    static TAR: OnceCell<PathBuf> = OnceCell::const_new();
    let options = [
        "--include=rpm,dnf,zypper",
        // Half of its size.
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
    ];
    let dir = unpacked(TAR.get_or_init(|| bootstrapped("rpm-bookworm-1", &options)).await).await;
    std::fs::create_dir_all(dir.path().join("etc/rpm")).unwrap();
    std::fs::write(dir.path().join("etc/rpm/macros"), "%_dbpath /var/lib/rpm\n").unwrap();
    dir
}

/// A root as a tar file. Made once for all tests and runs, since that takes half a minute; every test gets a copy of
/// its own.
async fn bootstrapped(name: &str, options: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let tar = folder.join(format!("{name}.tar"));
    if !tar.exists() {
        let beside = folder.join(format!("{name}-{}.tar", std::process::id()));
        let make = Cmd::new("mmdebstrap").args(["--mode=root", "--variant=minbase"]).args(options);
        make.arg("bookworm").arg(&beside).run(&Stop::never()).await.unwrap();
        std::fs::rename(beside, &tar).unwrap();
    }
    tar
}

async fn unpacked(tar: &Path) -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("bakehouse-debian-").tempdir().unwrap();
    let options = ["--extract", "--numeric-owner", "--xattrs", "--directory"];
    Cmd::new("tar").args(options).arg(dir.path()).arg("--file").arg(tar).run(&Stop::never()).await.unwrap();
    dir
}

pub async fn enter(root: &Path) -> ChrootRoot {
    ChrootRoot::enter(ChrootOptions::new(root)).await.unwrap()
}

/// Runs a line of shell in the root and gives how it ended, with its last lines.
pub async fn sh(root: &dyn Root, line: &str) -> Exit {
    root.run(&RootCommand::new(["/bin/sh", "-c", line]), &Stop::never(), &mut |_, _| {}).await.unwrap()
}

/// Everything that was shown.
#[derive(Clone, Default)]
pub struct Shown(Arc<Mutex<Vec<String>>>);

impl Shown {
    pub fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    pub fn of(context: &StepContext) -> Self {
        let shown = Self::default();
        context.reporter.add_sink(Box::new(shown.clone()));
        shown
    }
}

impl Sink for Shown {
    fn take(&mut self, event: &Event) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

/// A recipe's folder, and its steps as they are written in `bake.yml`.
pub struct Recipe {
    pub folder: tempfile::TempDir,
    pub context: StepContext,
    pub shown: Shown,
}

impl Recipe {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let context = StepContext::new(folder.path());
        let shown = Shown::of(&context);
        Self { folder, context, shown }
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub async fn run(
        &self,
        root: &dyn Root,
        steps: serde_json::Value,
    ) -> Result<Vec<StepTiming>, StepFailed> {
        let steps: Vec<Step> = serde_json::from_value(steps).unwrap();
        run_steps(root, &steps, &self.context).await
    }
}

/// An error with all that is behind it, as a person sees it.
/// A disk whose root is an ext4 in the first partition of a GPT.
pub fn disk_identity() -> DiskIdentity {
    DiskIdentity {
        root: FileSystemIdentity {
            kind: "ext4".into(),
            uuid: "aaaa-1111".into(),
            label: None,
            partuuid: None,
            partition: 1,
            device: None,
        },
        boot: None,
        partmap: "gpt".into(),
    }
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
