//! `make bench`: how fast a bake is and how much it needs, as a table with the limit of each value and how far from it the
//! value is. Ends with 1 where a limit is missed. Needs root, the network and 25 GB of disk for some minutes.
//!
//! ```text
//! cargo bench --no-default-features --bench speed -- [--json FILE] [--folder FOLDER]
//! ```

#![expect(
    clippy::disallowed_methods,
    reason = "the program is started and timed here as a user starts and times it"
)]

mod bakes;
mod child;
mod machine;
mod pipeline;
mod process;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use bakehouse::host::lock::FileLock;
use bakehouse::host::tree;
use clap::Parser;

use bakes::Yard;
use table::Table;

/// Measure the speed of bakes.
#[derive(Parser)]
struct Args {
    /// Write the results as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to work: on the disk that is to be measured. What is made there is removed.
    #[arg(long, value_name = "FOLDER", default_value = env!("CARGO_TARGET_TMPDIR"))]
    folder: PathBuf,
    /// What cargo itself gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if !rustix::process::geteuid().is_root() {
        bail!("bakes mount file systems: run the benchmark as root");
    }
    let work = Work::begin(&args.folder)?;
    let dir = &*work.folder;
    let mut table = Table::default();

    eprintln!("==> what this machine can do");
    let sample = dir.join("sample.raw");
    let machine = machine::measure(dir, &sample, &mut table)?;
    eprintln!("==> the pipeline of blocks, 1 GiB");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(pipeline::measure(dir, &sample, &machine, &mut table))?;
    std::fs::remove_file(&sample)?;
    std::fs::remove_dir_all(dir.join("pipeline"))?;
    Yard { folder: dir }.measure(&child::os_base()?, &mut table)?;

    table.note(format!(
        "{} processors; a factor is how often a value fits into its limit: below 1 it is missed",
        machine::processors()
    ));
    println!("{}", table.text());
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{:#}\n", table.json()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    eprintln!("==> removing what was made");
    tree::remove(dir)?;
    let missed = table.missed();
    if missed > 0 {
        eprintln!("error: {missed} limits are missed");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the measurement works. One that was killed leaves gigabytes there, which the next one removes.
struct Work {
    folder: PathBuf,
    _lock: FileLock,
}

impl Work {
    const LOCK: &str = "bench.lock";

    fn begin(base: &Path) -> anyhow::Result<Self> {
        let folder = base.join("bakehouse-bench");
        let lock = folder.join(Self::LOCK);
        if folder.exists() && !lock.exists() {
            bail!("{} is no work folder of this program: name another --folder", folder.display());
        }
        let hold = || {
            std::fs::create_dir_all(&folder)?;
            FileLock::try_exclusive(&lock)?
                .with_context(|| format!("another measurement runs in {}", folder.display()))
        };
        let _before = hold()?;
        tree::remove(&folder)?;
        let held = hold()?;
        Ok(Self { folder, _lock: held })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Where a bake failed: as far as it can be removed. The next measurement removes the rest.
        let _ = tree::remove(&self.folder);
    }
}
