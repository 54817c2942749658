//! All of a store and a machine that a bake could leave something in, and the one comparison of before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bakehouse::cloud::{Cloud, Clouds, ImageQuery, Tags, tag};
use bakehouse::host::stop::Stop;
use bakehouse::local::{Collected, LocalClouds};

use crate::yard::{Said, Yard, loops};

/// What is there, as lines of text: whatever differs is told by its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State(BTreeSet<String>);

/// How long processes, mounts and loop devices may take to be gone once nobody holds them: the kernel lets go of them
/// after it has told the last process's end.
const SETTLED: u32 = 100;
const LOOK: Duration = Duration::from_millis(50);

/// Smaller than a block.
const SMALL: u64 = 512 << 10;

impl State {
    /// Takes away what no snapshot has, as any later bake may, and looks at all that is left.
    pub fn of(yard: &Yard) -> Self {
        collect(yard);
        let mut lines = BTreeSet::new();
        for path in files(&yard.store()) {
            let size = path.metadata().unwrap().len();
            // A block is named by its content: whether it is its own is asked by `assert_sound`.
            let content = if size < SMALL { fs::read(&path).unwrap() } else { Vec::new() };
            let digest = bakehouse::cloud::Digest::of(&content).hex();
            lines.insert(format!("file {} {size} {digest}", path.display()));
        }
        // The base's lock stays: who waits for it holds the file, not the name.
        let lock = yard.work().join(".lock");
        lines.extend(
            files(&yard.work())
                .iter()
                .filter(|path| **path != lock)
                .map(|path| format!("file {}", path.display())),
        );
        lines.extend(
            loops()
                .iter()
                .filter(|file| Path::new(file).starts_with(yard.path()))
                .map(|file| format!("loop device on {file}")),
        );
        lines.extend(processes(yard.path()));
        Self(lines)
    }

    /// That all is as it was.
    #[track_caller]
    pub fn assert_again(&self, yard: &Yard, after: &str) {
        let mut now = Self::of(yard);
        for _ in 0..SETTLED {
            if now == *self {
                return;
            }
            std::thread::sleep(LOOK);
            now = Self::of(yard);
        }
        let (gone, new): (Vec<_>, Vec<_>) =
            (self.0.difference(&now.0).collect(), now.0.difference(&self.0).collect());
        panic!("{after}\nnot as before: gone {gone:#?}\nnew {new:#?}");
    }

    /// That what is more than before is what the error lists, and the other way round.
    #[track_caller]
    pub fn assert_told(&self, yard: &Yard, said: &Said) {
        let listed: Vec<&str> =
            said.err.split("left behind").nth(1).unwrap_or_default().lines().skip(1).collect();
        let before = self.snapshots();
        let more: Vec<String> = yard.snapshots().into_iter().filter(|id| !before.contains(id)).collect();
        for id in &more {
            assert!(
                listed.iter().any(|line| line.contains(id.as_str())),
                "{id} is left and not told: {}",
                said.err
            );
        }
        let told: BTreeSet<String> = listed.iter().flat_map(|line| ids(line, "snap-")).collect();
        for id in told {
            assert!(more.contains(&id), "{id} is told and not left: {}", said.err);
        }
        for folder in folders(&yard.work()) {
            // A ledger stays with what it tells of; what takes room does not.
            let held = folder.join("ledger.jsonl").exists() && !folder.join("disk.raw").exists();
            assert!(
                held || listed.iter().any(|line| line.contains(folder.to_str().unwrap())),
                "{}: {}",
                folder.display(),
                said.err
            );
        }
        assert!(!listed.is_empty(), "{}", said.err);
    }

    fn snapshots(&self) -> BTreeSet<String> {
        self.0.iter().flat_map(|line| ids(line, "snap-")).collect()
    }
}

/// Every completed snapshot's every block is what it was.
#[track_caller]
pub fn assert_sound(yard: &Yard) {
    let store = open(yard);
    let verified = block_on(store.store().verify(&Stop::never())).unwrap();
    assert_eq!(verified.damaged, []);
    assert!(verified.blocks > 0);
}

/// The ids of a family's images.
pub fn images(yard: &Yard, family: &str) -> Vec<String> {
    let found = block_on(home(yard).images.find(&of_family(family))).unwrap();
    found.into_iter().map(|image| image.id.to_string()).collect()
}

/// Deletes a family's images with their snapshots: after a bake that succeeded, all is as before again.
pub fn delete(yard: &Yard, family: &str) {
    let cloud = home(yard);
    for image in block_on(cloud.images.find(&of_family(family))).unwrap() {
        block_on(cloud.images.deregister(&image.id)).unwrap();
        block_on(cloud.snapshots.delete(image.root().unwrap().1)).unwrap();
    }
}

fn of_family(family: &str) -> ImageQuery {
    ImageQuery { tags: Tags::from([(tag("family"), family.to_owned())]), ..ImageQuery::default() }
}

fn home(yard: &Yard) -> Cloud {
    let clouds = open(yard);
    clouds.at(&clouds.home()).unwrap()
}

/// Sweeps, and that all went.
#[track_caller]
pub fn sweep(yard: &Yard) {
    yard.run(&["sweep"]).ok();
}

fn open(yard: &Yard) -> LocalClouds {
    LocalClouds::open(&yard.store(), None, None).unwrap()
}

fn collect(yard: &Yard) {
    block_on(open(yard).store().collect_garbage()).unwrap();
}

/// What of a store only a sweep would take away, and no error tells of.
pub fn garbage(yard: &Yard) -> Collected {
    block_on(open(yard).store().find_garbage()).unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The ids in a line that begin so.
fn ids(line: &str, prefix: &str) -> Vec<String> {
    let rest = line.match_indices(prefix).map(|(at, _)| &line[at + prefix.len()..]);
    let digits = rest.map(|rest| rest.chars().take_while(char::is_ascii_hexdigit).collect::<String>());
    digits.filter(|digits| digits.len() == 17).map(|digits| format!("{prefix}{digits}")).collect()
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Every file and folder below one. What goes while it is looked at is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// The processes that have to do with a folder, and what they have mounted in it.
fn processes(folder: &Path) -> Vec<String> {
    let (folder, own) = (folder.to_str().unwrap(), std::process::id().to_string());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let (process, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let text = |file: &str| {
            fs::read(process.join(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let link = |file: &str| fs::read_link(process.join(file)).map(|path| path.display().to_string());
        let below = format!("{folder}/");
        // The yard itself may be a mount of the test's own.
        for line in text("mountinfo").unwrap_or_default().lines().filter(|line| line.contains(&below)) {
            found.push(format!("mount {}", line.split(' ').nth(4).unwrap_or_default()));
        }
        let seen = [text("cmdline"), text("environ"), link("cwd"), link("root"), link("exe")];
        if name != own && seen.iter().flatten().any(|text| text.contains(folder)) {
            found.push(format!("process {name} {}", text("comm").unwrap_or_default().trim()));
        }
    }
    found
}
