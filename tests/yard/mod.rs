//! A store, a work folder and recipes of a test's own, and the program run in them as a user runs it. The base image
//! is baked from scratch once for all tests.

#![expect(clippy::disallowed_methods, reason = "the program is started here as a user starts it")]

pub mod foreign;
pub mod small;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use bakehouse::host::tree;
use serde_json::Value;
use tempfile::TempDir;

use crate::gate;

/// What whole bakes need besides root and loop devices.
const TOOLS: [&str; 5] = ["mmdebstrap", "mke2fs", "sfdisk", "mformat", "qemu-system-x86_64"];

/// Boots that run at once. On two processors without KVM one alone took 134 s and two together 183 s; more of them, beside
/// other tests, would time out.
const BOOTS: usize = 2;
static MACHINE: Mutex<usize> = Mutex::new(BOOTS);
static FREED: Condvar = Condvar::new();

/// The right to boot a machine, until it is dropped.
pub struct Boot(());

/// Takes a part of this machine for a boot.
pub fn machine() -> Boot {
    let free = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    *FREED.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner) -= 1;
    Boot(())
}

impl Drop for Boot {
    fn drop(&mut self) {
        *MACHINE.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        FREED.notify_one();
    }
}

/// What the program said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

pub struct Yard {
    path: PathBuf,
    /// Removes the folder; the shared one stays until the next run, since nothing is dropped when a process ends.
    _dir: Option<TempDir>,
}

impl Yard {
    /// An empty one.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("bakehouse-test-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        Self { path: dir.path().to_owned(), _dir: Some(dir) }
    }

    /// The one that all tests share, with the family `os-base` baked from scratch in it. Tests only add to it. `None`
    /// where this machine cannot bake.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Yard> = OnceLock::new();
        if !gate::has_root(&TOOLS) {
            return None;
        }
        Some(SHARED.get_or_init(|| {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bakes");
            if path.exists() {
                tree::remove(&path).unwrap();
            }
            fs::create_dir_all(&path).unwrap();
            let yard = Self { path, _dir: None };
            let recipe =
                fs::read_to_string(repository().join("examples/quickstart/os-base/bake.yml")).unwrap();
            yard.recipe("os-base", &recipe);
            yard.bake("os-base", &[]).ok();
            yard
        }))
    }

    /// One of its own with the images that the shared one has in its store.
    pub fn of_shared() -> Option<Self> {
        let (shared, yard) = (Self::shared()?, Self::new());
        // Others are at work in the shared one. What an image needs is there before the image, so it is linked after it;
        // instances come and go and change their files in place, so they stay where they are.
        let place = "places/local/000000000000/local";
        for part in [&format!("{place}/images"), &format!("{place}/snapshots"), "blocks", "format"] {
            link(&shared.store().join(part), &yard.store().join(part));
        }
        Some(yard)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    pub fn work(&self) -> PathBuf {
        self.path().join("work")
    }

    /// Writes a recipe into a folder of its own.
    pub fn recipe(&self, name: &str, text: &str) -> PathBuf {
        self.file(name, "bake.yml", text);
        self.path().join(name)
    }

    /// Writes a file into a recipe's folder.
    pub fn file(&self, recipe: &str, path: &str, text: &str) {
        let path = self.path().join(recipe).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn out(&self, recipe: &str) -> PathBuf {
        self.path().join(recipe).join("bakehouse-out")
    }

    pub fn record(&self, recipe: &str) -> Value {
        serde_json::from_slice(&fs::read(self.out(recipe).join("image.json")).unwrap()).unwrap()
    }

    /// The program, with an empty environment and this yard's folders.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.path())
            .env("BAKEHOUSE_LOCAL", self.store())
            .env("BAKEHOUSE_WORK", self.work())
            .current_dir(self.path());
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        self.command().args(args).output().unwrap().into()
    }

    pub fn bake(&self, recipe: &str, args: &[&str]) -> Said {
        self.command().arg("bake").arg(recipe).args(args).output().unwrap().into()
    }

    /// Starts a bake and does not wait for it.
    pub fn start(&self, args: &[&str]) -> Child {
        self.command()
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// That no bake left anything on this machine: no work folder, and no loop device on one of its files.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.work())
            .map(|all| all.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "work folders are left: {left:?}");
        let loops: Vec<_> =
            loops().into_iter().filter(|file| Path::new(file).starts_with(self.path())).collect();
        assert!(loops.is_empty(), "loop devices are left: {loops:?}");
    }

    /// The ids of all snapshots in the store.
    pub fn snapshots(&self) -> Vec<String> {
        let folder = self.store().join("places/local/000000000000/local/snapshots");
        let mut names: Vec<String> = fs::read_dir(folder)
            .map(|all| all.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        names.retain(|name| name.starts_with("snap-"));
        names.sort();
        names
    }
}

/// Links whole files and folders, as a store has them: those that are still being made have a dot before their name.
fn link(from: &Path, to: &Path) {
    if !from.is_dir() {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        // None is changed in place: a link is as good as a copy and costs nothing.
        return fs::hard_link(from, to).unwrap();
    }
    for entry in fs::read_dir(from).unwrap().flatten() {
        if !entry.file_name().to_string_lossy().starts_with('.') {
            link(&entry.path(), &to.join(entry.file_name()));
        }
    }
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files behind the loop devices of this machine.
pub fn loops() -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        if let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file")) {
            files.push(file.trim().to_owned());
        }
    }
    files
}
