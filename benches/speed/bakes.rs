//! Whole bakes, by the program itself as a user runs it: their time, their memory, and what they add to the store.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use bakehouse::cloud::{BLOCK_SIZE, ZERO_BLOCK};
use bakehouse::disk::BlockMap;
use serde_json::Value;

use super::child::{self, Base, SMALL};
use super::machine::forget;
use super::process;
use super::table::{Limit, Table};

const MIB: u64 = 1 << 20;
/// What a bake may do besides provisioning, on the smaller base.
const BESIDES: f64 = 3.0;
/// Peak memory of the program, on any base.
const MEMORY: f64 = 150.0;
/// A scratch bake against the run of mmdebstrap in it.
const SCRATCH: f64 = 1.25;
/// What a child adds to the store against its changed blocks.
const GROWTH: f64 = 1.1;
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
    /// Of the program itself, without those that it started, in seconds.
    processor: f64,
    record: Value,
}

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

        let of_it = format!("{name}-child");
        let mut runs = Vec::new();
        let mut grown = 0.0;
        for _ in 0..RUNS {
            let before = allocated(&self.store())?;
            let run = self.bake(&of_it, &child::recipe(&of_it, &format!("family: {name}")))?;
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
            table.row("    its own processor time", run.processor, "s", Limit::None);
            for (part, seconds) in child::parts(run.wall, &run.record) {
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
        let cold = self.bake(&of_it, &child::recipe(&of_it, &format!("family: {name}")))?;
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder)
            .args(["bake", "--quiet", "--fresh"])
            .env("BAKEHOUSE_LOCAL", self.store())
            .env("BAKEHOUSE_WORK", self.folder.join("work"))
            .arg(&folder);
        let (_, cost) = process::run(&mut command).with_context(|| format!("the bake of {name}"))?;
        let record = fs::read(self.out(name).join("image.json"))?;
        let (wall, peak) = (cost.wall.as_secs_f64(), cost.memory as f64 / MIB as f64);
        let processor = cost.processor.as_secs_f64();
        Ok(Run { wall, peak, processor, record: serde_json::from_slice(&record)? })
    }

    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.join(name).join("bakehouse-out")
    }
}

impl Run {
    fn besides(&self) -> f64 {
        child::besides(self.wall, &self.record)
    }
}

/// What children of a base took besides provisioning, in seconds, and the base's bytes that are not zero.
struct Besides {
    besides: f64,
    in_use: f64,
}

fn timing(record: &Value, name: &str) -> Option<f64> {
    record["timings"].as_array()?.iter().find(|timing| timing["name"] == name)?["seconds"].as_f64()
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
