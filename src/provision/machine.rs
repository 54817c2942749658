//! The root of the machine on which this process runs: an instance that is going to be an image.
//!
//! A command means the same here as in a root that is entered by chroot: its environment is made, services are not started
//! by it nor by packages' scripts, it cannot change the kernel, and nothing that it started outlives it. What differs: the
//! machine runs. Services of the base are there, /run and /tmp are the machine's own, /proc shows its processes, its kernel
//! is the base's, and what first boots write is written (the seal takes most of it away).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rustix::mount::mount_bind;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait};

use super::chroot::{Lent, NO_SERVICE_STARTS, POLICY};
use super::root::{Root, RootCommand, RootError, RootFacts};
use crate::host::exec::{Cmd, ExecError, Exit, Stream};
use crate::host::namespace;
use crate::host::root_dir::RootDir;
use crate::host::stop::Stop;

/// Where scripts and secrets of steps are.
const LENT: &str = "/run/bakehouse";
/// The exit code of a shell for a program that is not there.
const MISSING: i32 = 127;
/// For processes that sit in the kernel, as in a chroot.
const DYING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// The machine's own root. Left by [`MachineRoot::leave`].
#[derive(Debug)]
pub struct MachineRoot {
    dir: RootDir,
    facts: RootFacts,
    lent: Vec<Lent>,
}

impl MachineRoot {
    /// Makes the machine ready for commands. What they leave running becomes this process's child, so that it is found.
    ///
    /// # Errors
    /// Where the root cannot be opened or written to.
    pub fn enter() -> Result<Self, RootError> {
        let dir = RootDir::open(Path::new("/"))
            .map_err(|source| RootError::Open { path: "/".to_owned(), source })?;
        let facts = RootFacts::read(&dir)?;
        set_child_subreaper(Some(getpid()))
            .map_err(|error| RootError::Host { path: "/proc/self".to_owned(), source: error.into() })?;
        let mut root = Self { dir, facts, lent: Vec::new() };
        // What steps lend their commands: in memory on a machine that runs, and gone with it.
        root.dir.make_dirs(LENT, 0o700).map_err(|source| RootError::file("make", LENT, source))?;
        if root.dir.exists("/usr/sbin") {
            root.lent.push(Lent::lend(&root.dir, POLICY, NO_SERVICE_STARTS, 0o755)?);
        }
        Ok(root)
    }

    /// Takes back what entering made.
    ///
    /// # Errors
    /// The first thing that could not be taken back.
    pub fn leave(mut self) -> Result<(), RootError> {
        Lent::give_all_back(&mut self.lent, &self.dir)
    }

    /// Ends what a command left running.
    async fn settle(&self) {
        let began = tokio::time::Instant::now();
        loop {
            // Children that ended are only numbers; no command of ours is under way.
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            let left = descendants();
            if left.is_empty() || began.elapsed() > DYING {
                return;
            }
            for id in left.keys() {
                if let Some(id) = Pid::from_raw(*id) {
                    // It may have ended meanwhile.
                    let _ = kill_process(id, Signal::KILL);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for MachineRoot {
    fn drop(&mut self) {
        // After `leave` there is nothing left to do.
        let _ = Lent::give_all_back(&mut self.lent, &self.dir);
    }
}

#[async_trait]
impl Root for MachineRoot {
    async fn run(
        &self,
        command: &RootCommand,
        stop: &Stop,
        on_line: &mut (dyn for<'line> FnMut(Stream, &'line str) + Send),
    ) -> Result<Exit, RootError> {
        let environment = command.environment();
        command.check(&environment)?;
        let mut process = Cmd::new(command.name())
            .args(command.argv.iter().skip(1))
            .apart_from_the_machine()
            .clear_env()
            .cwd(&command.workdir)
            .stdin(command.stdin.clone())
            .timeout(command.timeout);
        for (name, value) in &environment {
            process = process.env(name, value);
        }
        let result = process.stream(stop, on_line).await;
        self.settle().await;
        match result {
            Err(ExecError::Missing { name }) => {
                Ok(Exit { code: MISSING, tail: vec![format!("{name}: not found")] })
            }
            other => Ok(other?),
        }
    }

    fn dir(&self) -> &RootDir {
        &self.dir
    }

    fn facts(&self) -> &RootFacts {
        &self.facts
    }

    fn entry(&self) -> Option<Vec<OsString>> {
        None
    }

    fn left_over(&self) -> Result<Vec<String>, RootError> {
        Ok(descendants().into_iter().map(|(id, name)| format!("{id} ({name})")).collect())
    }
}

/// The processes that descend from this one and have not ended: their names by their ids.
fn descendants() -> BTreeMap<i32, String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // It may have ended since it was listed.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // proc(5): ID (NAME) STATE PARENT; the name may hold anything.
        let Some((front, rest)) = stat.rsplit_once(')') else { continue };
        let mut words = rest.split_whitespace();
        let (state, parent) = (words.next(), words.next().and_then(|word| word.parse::<i32>().ok()));
        let name = front.split_once('(').map_or("", |(_, name)| name).to_owned();
        if let (Some(state), Some(parent)) = (state, parent)
            && state != "Z"
        {
            all.push((id, parent, name));
        }
    }
    let mut family = BTreeSet::from([getpid().as_raw_nonzero().get()]);
    // Parents may have higher numbers than their children.
    loop {
        let before = family.len();
        for (id, parent, _) in &all {
            if family.contains(parent) {
                family.insert(*id);
            }
        }
        if family.len() == before {
            break;
        }
    }
    family.remove(&getpid().as_raw_nonzero().get());
    all.into_iter().filter(|(id, ..)| family.contains(id)).map(|(id, _, name)| (id, name)).collect()
}

/// The machine's disks as a root in which nothing is mounted on /run, /tmp, /proc, /dev and the like: what an image of the
/// machine will hold. The process must have a mount namespace of its own.
///
/// # Errors
/// The kernel's, and what the table of mounts says.
pub fn disks_alone() -> Result<RootDir, RootError> {
    /// Folders to see it in: one that is there in this root, and that the seal does not take away.
    const AT: [&str; 3] = ["/mnt", "/media", "/sys"];
    /// File systems that lie on a disk.
    const ON_DISK: [&str; 7] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "f2fs"];
    let mount = |path: &Path, source: rustix::io::Errno| RootError::Mount {
        kind: "the machine's own disks",
        path: path.display().to_string(),
        source: source.into(),
    };
    let at = AT.into_iter().map(Path::new).find(|at| at.is_dir()).unwrap_or(Path::new("/sys"));
    mount_bind("/", at).map_err(|error| mount(at, error))?;
    let table = std::fs::read("/proc/self/mountinfo")
        .map_err(|source| RootError::Host { path: "/proc/self/mountinfo".to_owned(), source })?;
    let mut points: Vec<PathBuf> = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let Some(dash) = words.iter().position(|word| *word == b"-") else { continue };
        let kind = words.get(dash + 1).map(|word| String::from_utf8_lossy(word).into_owned());
        let Some(point) = words.get(4).map(|word| namespace::path_of(word)) else { continue };
        if kind.is_some_and(|kind| ON_DISK.contains(&kind.as_str()))
            && point != Path::new("/")
            && !point.starts_with(at)
        {
            points.push(point);
        }
    }
    points.sort();
    for point in points {
        let to = at.join(point.strip_prefix("/").unwrap_or(&point));
        // What is mounted over something that lies in memory has no place on the disk.
        if to.is_dir() {
            mount_bind(&point, &to).map_err(|error| mount(&to, error))?;
        }
    }
    RootDir::open(at).map_err(|source| RootError::Open { path: at.display().to_string(), source })
}
