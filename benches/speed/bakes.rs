//! Whole bakes, by the program itself as a user runs it: their time, their memory, and what they add to the store.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bakehouse::cloud::{BLOCK_SIZE, ZERO_BLOCK};
use bakehouse::disk::BlockMap;
use serde_json::Value;

use super::machine::forget;
use super::table::{Limit, Table};

const MIB: u64 = 1 << 20;
/// What the steps of a child write: random bytes, so that every block of them is a changed one.
const DELTA: u64 = 64 * MIB;
/// What a bake may do besides provisioning, on the smaller base.
const BESIDES: f64 = 3.0;
/// Peak memory of the program, on any base.
const MEMORY: f64 = 150.0;
/// A scratch bake against the run of mmdebstrap in it.
const SCRATCH: f64 = 1.25;
/// What a child adds to the store against its changed blocks.
const GROWTH: f64 = 1.1;
/// How often memory is looked at. The kernel keeps the peak: only what grows in the last of these is missed.
const LOOK: Duration = Duration::from_millis(5);
/// Runs of each child; the middle one counts, since other programs of the machine are in the way now and then.
const RUNS: usize = 3;

/// A store, a work folder and recipes.
pub struct Yard<'a> {
    pub folder: &'a Path,
}

/// One bake that succeeded.
struct Run {
    /// From the start of the process to its end.
    wall: f64,
    /// MiB.
    peak: f64,
    record: Value,
}

/// A base to bake children on.
struct Base {
    name: &'static str,
    /// GiB.
    disk: u64,
    /// Bytes of its files and file system.
    used: u64,
}

const SMALL: Base = Base { name: "small", disk: 2, used: 750 * MIB };
const LARGE: Base = Base { name: "large", disk: 20, used: 6144 * MIB };

impl Yard<'_> {
    /// All of the bakes, with the rows of the table that come of them.
    pub fn measure(&self, os_base: &str, table: &mut Table) -> anyhow::Result<()> {
        eprintln!("==> os-base of examples/quickstart from scratch (most of it is mmdebstrap)");
        let run = self.bake("os-base", os_base)?;
        let install = timing(&run.record, "install the distribution").context("no time of mmdebstrap")?;
        table.row("scratch bake / the mmdebstrap run in it", run.wall / install, "x", Limit::AtMost(SCRATCH));
        table.row("scratch bake: the whole", run.wall, "s", Limit::None);

        let small = self.children(&SMALL, table)?;
        let large = self.children(&LARGE, table)?;
        let times = large.in_use / small.in_use;
        table.row(
            format!("large / small base, for {times:.1} times the bytes in use"),
            large.besides / small.besides,
            "x",
            Limit::AtMost(times),
        );
        table.row(
            "direct bake besides provisioning, large base: as on the small one, in proportion",
            large.besides,
            "s",
            Limit::AtMost(BESIDES * times),
        );
        Ok(())
    }

    /// Makes a base and bakes children on it.
    fn children(&self, base: &Base, table: &mut Table) -> anyhow::Result<Besides> {
        let (name, gib, mib) = (base.name, base.disk, base.used / MIB);
        eprintln!("==> a base of {gib} GiB with {mib} MiB in use, and children of it");
        self.bake(name, &base.recipe())?;
        let map = BlockMap::read(&self.out(name).join("blocks.map"))?;
        let blocks = map.iter().filter(|(_, digest)| *digest != *ZERO_BLOCK).count();
        let in_use = (blocks * BLOCK_SIZE) as f64;

        let child = format!("{name}-child");
        let mut runs = Vec::new();
        let mut grown = 0.0;
        for _ in 0..RUNS {
            let before = allocated(&self.store())?;
            let run = self.bake(&child, &recipe(&child, name, "", DELTA))?;
            let changed = run.record["disk"]["changed-blocks"].as_u64().context("no changed blocks")?;
            let added = allocated(&self.store())?.saturating_sub(before) as f64;
            grown = added / (changed * BLOCK_SIZE as u64) as f64;
            runs.push(run);
        }
        let mut besides: Vec<f64> = runs.iter().map(Run::besides).collect();
        besides.sort_by(f64::total_cmp);
        let besides = besides[RUNS / 2];
        let peak = runs.iter().map(|run| run.peak).fold(0.0, f64::max);
        let limit = if base.disk == SMALL.disk { Limit::AtMost(BESIDES) } else { Limit::None };
        table.row(
            format!("direct bake besides provisioning: {gib} GiB disk, {mib} MiB in use, 64 MiB delta"),
            besides,
            "s",
            limit,
        );
        if let Some(run) = runs.iter().find(|run| run.besides() <= besides) {
            for (part, seconds) in run.parts() {
                table.row(format!("    of it: {part}"), seconds, "s", Limit::None);
            }
        }
        table.row(format!("    peak memory on {gib} GiB"), peak, "MiB", Limit::AtMost(MEMORY));
        table.row(
            format!("    store grown / changed blocks, on {gib} GiB"),
            grown,
            "x",
            Limit::AtMost(GROWTH),
        );

        forget_blocks(&files(&self.store().join("blocks"))?)?;
        let cold = self.bake(&child, &recipe(&child, name, "", DELTA))?;
        table.row(
            format!("    the same, the base's blocks not in the page cache, on {gib} GiB"),
            cold.besides(),
            "s",
            Limit::None,
        );
        Ok(Besides { besides, in_use })
    }

    fn bake(&self, name: &str, recipe: &str) -> anyhow::Result<Run> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("bake.yml"), recipe)?;
        let began = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_bakehouse"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder)
            .args(["bake", "--quiet", "--fresh"])
            .env("BAKEHOUSE_LOCAL", self.store())
            .env("BAKEHOUSE_WORK", self.folder.join("work"))
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut peak = 0;
        let status = loop {
            peak = peak.max(peak_kib(child.id()).unwrap_or(0));
            if let Some(status) = child.try_wait()? {
                break status;
            }
            std::thread::sleep(LOOK);
        };
        let wall = began.elapsed().as_secs_f64();
        if !status.success() {
            bail!("the bake of {name} failed: {status}");
        }
        let record = fs::read(self.out(name).join("image.json"))?;
        Ok(Run { wall, peak: peak as f64 / 1024.0, record: serde_json::from_slice(&record)? })
    }

    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.join(name).join("bakehouse-out")
    }
}

/// What children of a base took besides provisioning, in seconds, and the base's bytes that are not zero.
struct Besides {
    besides: f64,
    in_use: f64,
}

impl Run {
    /// Seconds from the process's start to its end, less what its steps and the seal took.
    fn besides(&self) -> f64 {
        self.wall
            - self.timings().filter(|(name, _)| provisions(name)).map(|(_, seconds)| seconds).sum::<f64>()
    }

    /// What [`Run::besides`] consists of.
    fn parts(&self) -> Vec<(String, f64)> {
        let mut parts: Vec<(String, f64)> = self
            .timings()
            .filter(|(name, _)| !provisions(name))
            .map(|(name, seconds)| (name.to_owned(), seconds))
            .collect();
        let told: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
        parts.push(("start, look, mount, trim, unmount, end".to_owned(), self.besides() - told));
        parts
    }

    fn timings(&self) -> impl Iterator<Item = (&str, f64)> {
        let timings = self.record["timings"].as_array().into_iter().flatten();
        timings.filter_map(|timing| Some((timing["name"].as_str()?, timing["seconds"].as_f64()?)))
    }
}

fn provisions(timing: &str) -> bool {
    timing.starts_with("step ") || timing == "seal"
}

fn timing(record: &Value, name: &str) -> Option<f64> {
    record["timings"].as_array()?.iter().find(|timing| timing["name"] == name)?["seconds"].as_f64()
}

impl Base {
    /// The quickstart's system with random bytes up to what shall be in use.
    fn recipe(&self) -> String {
        let disk = format!("disk: {{ size: {}GiB }}\n", self.disk);
        let fill = format!("$(({} - $(stat -f -c '(%b - %f) * %S' /)))", self.used);
        steps(self.name, "os-base", &disk, &fill)
    }
}

fn recipe(name: &str, base: &str, disk: &str, bytes: u64) -> String {
    steps(name, base, disk, &bytes.to_string())
}

fn steps(name: &str, base: &str, disk: &str, bytes: &str) -> String {
    format!(
        "version: 1\nname: {name}\narchitecture: x86_64\nbase: {{ family: {base} }}\n{disk}provision:\n\
         - shell: {{ run: \"head -c {bytes} /dev/urandom > /var/lib/{name}.random\" }}\n\
         image: {{ name: \"{{name}}-{{date}}\" }}\n"
    )
}

/// The most memory that a process had so far.
fn peak_kib(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes that the files below a folder have on the disk.
fn allocated(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for file in files(folder)? {
        bytes += file.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}

/// Every file below a folder.
pub fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(self::files(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Takes files out of the page cache.
pub fn forget_blocks(files: &[PathBuf]) -> anyhow::Result<()> {
    files.iter().try_for_each(|file| forget(file))
}
