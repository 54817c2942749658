//! `bakehouse snapshot`: disk files to snapshots and back, by hand. The engine of bakes, used alone: for recovery, for
//! moving disks and for measuring. In AWS it calls the EBS direct APIs and DescribeSnapshots, and DeleteSnapshot where an
//! upload fails; for its tags StartSnapshot wants ec2:CreateTags as well.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::exit::{Failure, chain};
use super::print;
use super::session::{self, Global, Mounts, Session, absolute};
use super::settle::settle;
use crate::cloud::{BLOCK_SIZE, SnapshotId, SnapshotQuery, SnapshotState, Tags, retrying};
use crate::disk::{BlockMap, Disk, Pipe, SparseDisk, TransferError};
use crate::host::clock;
use crate::host::unfinished::{self, Unfinished};
use crate::ledger::{Header, Ledger, Left};
use crate::method::upload::{STAGE, Upload, Uploaded};
use crate::method::{BakeCause, WorkDir, disk_file};
use crate::plan::DiskFormat;

/// Store a disk file as a snapshot, or read a snapshot into a disk file.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    Upload(UploadArgs),
    Download(DownloadArgs),
}

/// Store a disk file, raw or qcow2, as a snapshot, and print its id last.
///
/// Every block of the disk is stored, zero or not: what a snapshot does not have reads as noise on an encrypted volume.
#[derive(clap::Args, Debug)]
struct UploadArgs {
    /// The disk: a raw or a qcow2 file.
    disk: PathBuf,
    /// Begin as this snapshot and store only what differs from it.
    #[arg(long, value_name = "SNAPSHOT", value_parser = snapshot_id)]
    parent: Option<SnapshotId>,
    /// Encrypt with this key, by its ARN. A child always has its parent's key.
    #[arg(long, value_name = "KEY", conflicts_with = "parent", value_parser = key)]
    encrypt: Option<String>,
    /// Leave blocks of zeros out. They may read as noise later, which few file systems bear.
    #[arg(long, conflicts_with = "parent")]
    omit_zero_blocks: bool,
    /// A tag of the snapshot; may be given often.
    #[arg(long = "tag", value_name = "K=V", value_parser = key_value)]
    tags: Vec<(String, String)>,
    /// The snapshot's description [default: the file's name].
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Read a snapshot into a disk file, and print its path last.
///
/// Every block's checksum is verified; the file is whole or not there. What the snapshot never had is a hole.
#[derive(clap::Args, Debug)]
struct DownloadArgs {
    #[arg(value_parser = snapshot_id)]
    snapshot: SnapshotId,
    /// The file to write: FILE.qcow2, or any other name for a raw one. Must not exist.
    disk: PathBuf,
}

fn snapshot_id(text: &str) -> Result<SnapshotId, String> {
    SnapshotId::parse(text).ok_or_else(|| "an id looks like snap-0123456789abcdef0".to_owned())
}

fn key(text: &str) -> Result<String, String> {
    // What StartSnapshot takes: ids and aliases are refused.
    let good = text.starts_with("arn:") && text.contains(":kms:") && text.contains(":key/");
    good.then(|| text.to_owned()).ok_or_else(|| {
        "give the key's whole ARN, arn:aws:kms:REGION:ACCOUNT:key/ID (`aws kms describe-key` shows it)"
            .to_owned()
    })
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, _)) if key.starts_with("aws:") || key.starts_with(crate::cloud::TAG_PREFIX) => Err(
            format!("`{key}`: tags that begin with aws: or {} are not the user's", crate::cloud::TAG_PREFIX),
        ),
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a tag is given as KEY=VALUE".to_owned()),
    }
}

pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    match &args.verb {
        Verb::Upload(args) => session::run(global, Mounts::No, |session| upload(args, global, session)),
        Verb::Download(args) => session::run(global, Mounts::No, |session| download(args, global, session)),
    }
}

fn pipe(session: &Session) -> Pipe {
    Pipe {
        snapshots: session.cloud.snapshots.clone(),
        reporter: session.reporter.clone(),
        stop: session.stop.clone(),
    }
}

async fn upload(args: &UploadArgs, global: &Global, session: Session) -> anyhow::Result<()> {
    let file = absolute(&args.disk);
    let format = DiskFormat::of(&file).map_err(|error| Failure::Input(chain(&error)))?;
    if args.omit_zero_blocks {
        session.reporter.warning(
            "--omit-zero-blocks: what is left out is not zero later. On an encrypted volume, and in an account that \
             encrypts by default, it reads as noise, and nearly every file system needs the zeros that it wrote \
             (xfs does not even mount)",
        );
    }
    let name = format!("upload-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let work = WorkDir::create(&global.work(), &name)?;
    session::work_in(&work)?;
    let header = Header::new(&session.clouds.name(), STAGE, &name, clock::wall());
    let ledger = Ledger::begin(&work.ledger(), header)?;
    let stored = store(args, &file, format, &name, &work, &ledger, &session).await;
    let uploaded = settle(stored, &ledger, work, &session)
        .await
        .map_err(|undone| Failure::of(&undone.error, undone.left))?;
    let Uploaded { snapshot, put, of, volume_size } = uploaded;
    session.reporter.note(format!("{put} of {of} blocks were stored"));
    if global.json {
        let json = serde_json::json!({
            "snapshot": snapshot,
            "parent": args.parent,
            "volume-size": volume_size,
            "blocks": of,
            "blocks-put": put,
        });
        return print(&format!("{json:#}"));
    }
    print(snapshot.as_str())
}

async fn store(
    args: &UploadArgs,
    file: &Path,
    format: DiskFormat,
    name: &str,
    work: &WorkDir,
    ledger: &Ledger,
    session: &Session,
) -> Result<Uploaded, BakeCause> {
    let raw = match format {
        DiskFormat::Raw => file.to_owned(),
        DiskFormat::Qcow2 => {
            let phase = session.reporter.phase(format!("reading {}", file.display()));
            disk_file::copy(file, format, &work.disk(), &session.stop).await?;
            phase.done();
            work.disk()
        }
    };
    let shown = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let upload = Upload {
        name: name.to_owned(),
        parent: args.parent.clone(),
        encrypt: args.encrypt.clone(),
        omit_zero: args.omit_zero_blocks,
        description: args.description.clone().unwrap_or(shown),
        tags: args.tags.iter().cloned().collect::<Tags>(),
    };
    upload.run(&raw, &session.cloud, ledger, &pipe(session)).await
}

async fn download(args: &DownloadArgs, global: &Global, session: Session) -> anyhow::Result<()> {
    let (file, snapshot) = (absolute(&args.disk), &args.snapshot);
    let taken = || Failure::Input(format!("{} exists already; name another file", file.display()));
    if file.symlink_metadata().is_ok() {
        anyhow::bail!(taken());
    }
    let query = SnapshotQuery { ids: vec![snapshot.clone()], ..SnapshotQuery::default() };
    let found = retrying(&session.stop, || session.cloud.snapshots.describe(&query)).await?;
    let place = &session.cloud.place;
    let size = match found.first() {
        Some(found) if found.state == SnapshotState::Completed => found.volume_size,
        Some(_) => anyhow::bail!(Failure::Input(format!("{snapshot} is not completed; wait until it is"))),
        None => anyhow::bail!(Failure::Input(format!("{snapshot} is not in {place}"))),
    };
    let folder = file.parent().unwrap_or(Path::new("/"));
    let wrong =
        |error: std::io::Error| Failure::Input(format!("cannot write in {}: {error}", folder.display()));
    // Written beside its place and renamed: the file is whole or not there.
    unfinished::clear(folder);
    let beside = Unfinished::folder(folder).map_err(wrong)?;
    let raw = beside.it.path().join("disk.raw");
    let phase = session.reporter.phase(format!("reading {snapshot} ({size} GiB) into {}", file.display()));
    let disk: Arc<dyn Disk> = Arc::new(SparseDisk::create(&raw, u64::from(size) << 30)?);
    let map = pipe(&session).download(snapshot, &disk).await.map_err(of_download)?;
    drop(disk);
    let finished = if file.extension().is_some_and(|extension| extension == "qcow2") {
        let packed = beside.it.path().join("disk.qcow2");
        disk_file::pack(&raw, &packed, &session.stop).await?;
        packed
    } else {
        raw
    };
    // A link is refused where the name was taken meanwhile; renaming would replace what took it.
    std::fs::hard_link(&finished, &file).or_else(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Err(anyhow::Error::from(taken())),
        // A file system without links.
        _ => std::fs::rename(&finished, &file).map_err(|error| wrong(error).into()),
    })?;
    phase.done();
    if let Err(error) = beside.it.close() {
        session.reporter.warning(format!("left behind: {}", chain(&error)));
    }
    holes(&map, size, &session);
    if global.json {
        let json = serde_json::json!({
            "disk": file,
            "snapshot": snapshot,
            "volume-size": size,
            "blocks": map.len(),
        });
        return print(&format!("{json:#}"));
    }
    print(&file.display().to_string())
}

fn of_download(error: TransferError) -> anyhow::Error {
    Failure::of(&error, Left::Nothing).into()
}

/// Tells what the file cannot show: where the snapshot has nothing, a volume of it may read as noise.
fn holes(map: &BlockMap, size: u32, session: &Session) {
    let blocks = (u64::from(size) << 30) / BLOCK_SIZE as u64;
    let absent = blocks.saturating_sub(map.len() as u64);
    if absent > 0 {
        session.reporter.note(format!(
            "{absent} of its {blocks} blocks were never stored: zeros in the file, perhaps noise on a volume"
        ));
    }
}
