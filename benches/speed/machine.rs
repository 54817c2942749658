//! What this machine can do without Bakehouse: SHA-256, its disk, and the plain loop that any pipeline of blocks is at
//! best as fast as.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bakehouse::cloud::{BLOCK_SIZE, Digest};
use rustix::fs::Advice;

use super::table::{Limit, Table};

/// Bytes of the file that is written and read.
pub const SAMPLE: u64 = 1 << 30;
/// How long hashing is measured.
const HASH_FOR: Duration = Duration::from_secs(1);

/// What it can do, in bytes a second.
pub struct Machine {
    /// Writing a file and waiting until the disk has it.
    pub disk_write: f64,
    /// Reading a file that is not in the page cache, as many at once as the local cloud's blocks.
    pub disk_read: f64,
    /// On all processors: read a block from the page cache, hash it, write it to a sparse file.
    pub bare_loop: f64,
}

pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes a second as the table shows them: 10^9 a second.
pub fn gb(bytes_a_second: f64) -> f64 {
    bytes_a_second / 1e9
}

pub fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64()
}

/// Measures it in `folder`, and leaves a file of [`SAMPLE`] random bytes there, which is not in the page cache's debt any
/// more: it is on the disk.
pub fn measure(folder: &Path, sample: &Path, table: &mut Table) -> anyhow::Result<Machine> {
    let one = hash_rate(1);
    table.row("machine: SHA-256 on one processor, as the program does it", gb(one), "GB/s", Limit::None);
    if let Some(openssl) = openssl() {
        table.row("machine: SHA-256 on one processor, openssl", gb(openssl), "GB/s", Limit::None);
    }
    let all = hash_rate(processors());
    table.row(format!("machine: SHA-256 on all {} processors", processors()), gb(all), "GB/s", Limit::None);

    let disk_write = write_sample(sample)?;
    table.row("machine: disk, write and fsync", gb(disk_write), "GB/s", Limit::None);
    forget(sample)?;
    let disk_read = read_rate(sample)?;
    table.row("machine: disk, read", gb(disk_read), "GB/s", Limit::None);
    let cached = read_rate(sample)?;
    table.row("machine: page cache, read", gb(cached), "GB/s", Limit::None);
    let bare_loop = bare_loop(sample, &folder.join("loop.raw"))?;
    table.row(
        "machine: plain loop on all processors: read cached, hash, write to a sparse file",
        gb(bare_loop),
        "GB/s",
        Limit::None,
    );
    Ok(Machine { disk_write, disk_read, bare_loop })
}

/// Takes a file out of the page cache.
pub fn forget(path: &Path) -> anyhow::Result<()> {
    let file = File::open(path)?;
    // Pages that are not on the disk yet cannot be dropped.
    file.sync_data()?;
    Ok(rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?)
}

fn hash_rate(threads: usize) -> f64 {
    let done = AtomicU64::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let done = &done;
            scope.spawn(move || {
                let block = vec![u8::try_from(thread % 256).unwrap_or(0) | 1; BLOCK_SIZE];
                while began.elapsed() < HASH_FOR {
                    std::hint::black_box(Digest::of(std::hint::black_box(&block)));
                    done.fetch_add(BLOCK_SIZE as u64, Ordering::Relaxed);
                }
            });
        }
    });
    rate(done.into_inner(), began.elapsed())
}

/// What `openssl speed` says, where there is one.
fn openssl() -> Option<f64> {
    let output = Command::new("openssl")
        .args(["speed", "-mr", "-seconds", "1", "-bytes", &BLOCK_SIZE.to_string(), "-evp", "sha256"])
        .output()
        .ok()?;
    // `+F:NUMBER:NAME:BYTES A SECOND`
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find(|line| line.starts_with("+F:"))?.rsplit(':').next()?.trim().parse().ok()
}

/// Writes random bytes, so that no disk can make them less.
fn write_sample(path: &Path) -> anyhow::Result<f64> {
    let mut random = vec![0; 64 << 20];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut file = File::create_new(path)?;
    let began = Instant::now();
    for round in 0..SAMPLE / random.len() as u64 {
        // No two blocks alike: the local cloud would store them once.
        for block in random.chunks_exact_mut(BLOCK_SIZE) {
            block[..8].copy_from_slice(&round.to_le_bytes());
        }
        file.write_all(&random)?;
    }
    file.sync_all()?;
    Ok(rate(SAMPLE, began.elapsed()))
}

fn read_rate(path: &Path) -> anyhow::Result<f64> {
    let file = File::open(path)?;
    let began = Instant::now();
    on_all(|index, buffer| file.read_exact_at(buffer, index * BLOCK_SIZE as u64))?;
    Ok(rate(SAMPLE, began.elapsed()))
}

fn bare_loop(from: &Path, to: &Path) -> anyhow::Result<f64> {
    let source = File::open(from)?;
    let target = OpenOptions::new().write(true).create_new(true).open(to)?;
    target.set_len(SAMPLE)?;
    let began = Instant::now();
    on_all(|index, buffer| {
        let offset = index * BLOCK_SIZE as u64;
        source.read_exact_at(buffer, offset)?;
        std::hint::black_box(Digest::of(buffer));
        target.write_all_at(buffer, offset)
    })?;
    let took = began.elapsed();
    fs::remove_file(to)?;
    Ok(rate(SAMPLE, took))
}

/// Calls `work` with the number of each block of the sample and a buffer, on all processors.
fn on_all(work: impl Fn(u64, &mut [u8]) -> std::io::Result<()> + Sync) -> anyhow::Result<()> {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..processors())
            .map(|_| {
                scope.spawn(|| {
                    let mut buffer = vec![0; BLOCK_SIZE];
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= SAMPLE / BLOCK_SIZE as u64 {
                            return Ok::<(), std::io::Error>(());
                        }
                        work(index, &mut buffer)?;
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().ok().context("a thread panicked")??;
        }
        Ok(())
    })
}
