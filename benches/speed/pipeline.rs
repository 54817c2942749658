//! The program's own pipeline of blocks, on the local cloud: how fast it stores and reads, beside what the machine can do.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bakehouse::cloud::{
    Cloud, Clouds, NewSnapshot, SnapshotId, SnapshotQuery, SnapshotState, Tags, Token, Wait, retrying, until,
};
use bakehouse::disk::{Disk, Pipe, SparseDisk, delta};
use bakehouse::host::stop::Stop;
use bakehouse::local::LocalClouds;
use bakehouse::report::Reporter;

use super::bakes::{files, forget_blocks};
use super::machine::{Machine, SAMPLE, gb, rate};
use super::table::{Limit, Table};

/// The part of what the machine could do that the pipeline has to reach. It does more than the plain loop: a file for each
/// block, found by its digest, and the calls of a cloud.
const LEAST_WRITING: f64 = 0.5;
/// Less where it reads: a block's file is found before any of it is read, and the kernel reads ahead in one file only,
/// while what it is held against is one file.
const LEAST_READING: f64 = 0.25;

const COMPLETED: Wait =
    Wait { what: "snapshot completed", every: Duration::from_millis(100), within: Duration::from_secs(60) };

/// Stores the sample as a snapshot and reads it again, from the disk and from the page cache.
pub async fn measure(
    folder: &Path,
    sample: &Path,
    machine: &Machine,
    table: &mut Table,
) -> anyhow::Result<()> {
    let store = folder.join("pipeline");
    let clouds = LocalClouds::open(&store, None, None)?;
    let cloud = clouds.at(&clouds.home())?;
    let pipe = Pipe { snapshots: cloud.snapshots.clone(), reporter: Reporter::silent(), stop: Stop::never() };

    let began = Instant::now();
    let snapshot = put(&cloud, &pipe, sample).await?;
    let written = rate(SAMPLE, began.elapsed());
    let (binds, best) = slower(("the disk", machine.disk_write), ("hashing", machine.bare_loop));
    let what = format!("disk to snapshot (read, hash, store, durable); {binds} binds");
    rows(table, &what, written, best, LEAST_WRITING);

    forget_blocks(&files(&store)?)?;
    let (binds, best) = slower(("the disk", machine.disk_read), ("hashing", machine.bare_loop));
    for (name, binds, best) in
        [("from the disk", binds, best), ("from the page cache", "hashing", machine.bare_loop)]
    {
        let path = folder.join("pipeline.raw");
        let disk: Arc<dyn Disk> = Arc::new(SparseDisk::create(&path, SAMPLE)?);
        let began = Instant::now();
        pipe.download(&snapshot, &disk).await?;
        let read = rate(SAMPLE, began.elapsed());
        std::fs::remove_file(&path)?;
        let what = format!("snapshot to disk (read, verify, write), {name}; {binds} binds");
        rows(table, &what, read, best, LEAST_READING);
    }
    Ok(())
}

/// A rate in bytes a second beside the machine's best, of which it has to be `least`.
fn rows(table: &mut Table, what: &str, measured: f64, best: f64, least: f64) {
    table.row(format!("pipeline: {what}"), gb(measured), "GB/s", Limit::AtLeast(gb(best * least)));
    table.row("pipeline: the same, of what binds", measured / best * 100.0, "%", Limit::None);
}

fn slower(a: (&'static str, f64), b: (&'static str, f64)) -> (&'static str, f64) {
    if a.1 < b.1 { a } else { b }
}

/// From a disk to a completed snapshot, all of whose blocks are durable.
async fn put(cloud: &Cloud, pipe: &Pipe, sample: &Path) -> anyhow::Result<SnapshotId> {
    let disk: Arc<dyn Disk> = Arc::new(SparseDisk::open_read_only(sample)?);
    let whole = 0..SAMPLE;
    let delta = delta::whole(&disk, std::slice::from_ref(&whole), &pipe.stop).await?;
    let new = NewSnapshot {
        volume_size: u32::try_from(SAMPLE >> 30)?,
        parent: None,
        description: "measured".to_owned(),
        tags: Tags::default(),
        encrypt: None,
        timeout_minutes: 60,
    };
    let token = Token::of("bench", "pipeline", 1);
    let snapshot = retrying(&pipe.stop, || cloud.snapshots.start(&new, &token)).await?;
    let checksum = pipe.upload(&disk, &delta, &snapshot).await?;
    cloud.snapshots.complete(&snapshot, u32::try_from(delta.len())?, checksum).await?;
    let query = SnapshotQuery { ids: vec![snapshot.clone()], ..SnapshotQuery::default() };
    until(COMPLETED, &cloud.place, &pipe.stop, || async {
        let found = cloud.snapshots.describe(&query).await?;
        Ok(found.iter().any(|found| found.state == SnapshotState::Completed).then_some(()))
    })
    .await
    .context("the snapshot was not completed")?;
    Ok(snapshot)
}
