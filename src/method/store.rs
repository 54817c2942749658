//! Storing a finished disk: start a snapshot, put the blocks, complete it, wait, read a sample back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::change::Changed;
use super::{BakeCause, BakeError, Baked, Bench};
use crate::cloud::{
    Cloud, CloudError, ErrorKind, NewSnapshot, SnapshotId, SnapshotQuery, SnapshotState, Token, Wait,
    retrying, until,
};
use crate::disk::transfer::checksum;
use crate::disk::{BlockMap, Delta, Disk, Pipe, SparseDisk};
use crate::host::stop::Stop;
use crate::ledger::{CreateError, Intent, Kind, Ledger, Role};
use crate::plan::Plan;
use crate::report::Timing;

/// What the snapshot is for, as its token and the ledger call it.
const ROOT: &str = "root snapshot";
/// Minutes without a put after which the cloud itself gives an abandoned snapshot up: EBS's default (StartSnapshot).
pub(super) const TIMEOUT_MINUTES: u32 = 60;
/// Blocks of the delta that are read back.
const SAMPLE: usize = 16;
const COMPLETED: Wait =
    Wait { what: "snapshot completed", every: Duration::from_secs(1), within: Duration::from_secs(600) };
/// EBS's answers are as late as EC2's are (AWS-SETTLES in docs/what-aws-has-seen.md).
const LISTED: Wait =
    Wait { what: "snapshot listed by EBS", every: Duration::from_secs(1), within: Duration::from_secs(120) };

/// A disk's blocks on their way into a snapshot.
#[derive(Debug)]
pub(super) struct Store<'a> {
    pub disk: &'a Path,
    pub delta: Delta,
    /// The snapshot that the new one starts as, with its blocks.
    pub parent: Option<(SnapshotId, BlockMap)>,
    /// GiB.
    pub volume_size: u32,
}

/// What was stored.
pub(super) struct Stored {
    pub snapshot: SnapshotId,
    pub map: BlockMap,
    pub changed: u64,
}

impl Stored {
    /// With what was found in the root.
    pub fn baked(self, changed: Changed, timings: Vec<Timing>) -> Baked {
        Baked {
            snapshot: self.snapshot,
            image: None,
            map: self.map,
            changed: self.changed,
            installed: changed.installed,
            timings,
            base: None,
        }
    }
}

pub(super) fn pipe(bench: &Bench) -> Pipe {
    Pipe {
        snapshots: bench.cloud.snapshots.clone(),
        reporter: bench.reporter.clone(),
        stop: bench.stop.clone(),
    }
}

impl Store<'_> {
    /// Stores the blocks. The snapshot is in the bake's ledger: on an error, unwinding it takes the snapshot away.
    pub async fn run(self, plan: &Plan, bench: &Bench) -> Result<Stored, BakeError> {
        let new = NewSnapshot {
            volume_size: self.volume_size,
            parent: self.parent.as_ref().map(|(id, _)| id.clone()),
            description: plan.description.clone(),
            tags: plan.temporary_tags(),
            // A child has its parent's key, and says none.
            encrypt: plan.encryption.key.clone().filter(|_| self.parent.is_none()),
            timeout_minutes: TIMEOUT_MINUTES,
        };
        let token = Token::of(&plan.bake, ROOT, 1);
        let snapshot = start(&new, &token, &bench.cloud, &bench.ledger, &bench.stop).await?;
        self.fill(snapshot, bench).await
    }

    async fn fill(self, snapshot: SnapshotId, bench: &Bench) -> Result<Stored, BakeError> {
        let disk: Arc<dyn Disk> = Arc::new(SparseDisk::open_read_only(self.disk)?);
        let pipe = pipe(bench);
        pipe.upload(&disk, &self.delta, &snapshot).await?;
        let changed = complete(&snapshot, &self.delta, &bench.cloud, &pipe).await?;
        let mut map = self.parent.map(|(_, map)| map).unwrap_or_default();
        map.volume_size = self.volume_size;
        for (index, digest) in &self.delta {
            map.insert(*index, *digest);
        }
        Ok(Stored { snapshot, map, changed: u64::from(changed) })
    }
}

/// Starts a snapshot, by the ledger.
pub(super) async fn start(
    new: &NewSnapshot,
    token: &Token,
    cloud: &Cloud,
    ledger: &Ledger,
    stop: &Stop,
) -> Result<SnapshotId, CreateError> {
    let intent = Intent {
        kind: Kind::Snapshot,
        place: cloud.place.clone(),
        what: ROOT.to_owned(),
        token: Some(token.as_str().to_owned()),
        tags: new.tags.clone(),
        role: Role::Temporary,
    };
    ledger.create(intent, stop, || cloud.snapshots.start(new, token)).await
}

/// Completes a snapshot into which `delta` was put, waits until it is, reads a sample back, and gives the number of
/// blocks.
pub(super) async fn complete(
    snapshot: &SnapshotId,
    delta: &Delta,
    cloud: &Cloud,
    pipe: &Pipe,
) -> Result<u32, BakeCause> {
    let (snapshots, stop) = (&cloud.snapshots, &pipe.stop);
    // A volume of 64 TiB has 2^27 blocks.
    let changed = u32::try_from(delta.len()).unwrap_or(u32::MAX);
    let sum = checksum(delta);
    retrying(stop, || snapshots.complete(snapshot, changed, sum)).await?;
    let query = SnapshotQuery { ids: vec![snapshot.clone()], ..SnapshotQuery::default() };
    let completed = until(COMPLETED, &cloud.place, stop, || async {
        let found = match snapshots.describe(&query).await {
            // Just made, and not seen by EC2 yet.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            other => other?.into_iter().next(),
        };
        match found.map(|found| found.state) {
            Some(SnapshotState::Completed) => Ok(Some(())),
            Some(SnapshotState::Error) => Err(CloudError::new(
                ErrorKind::Invalid,
                "CompleteSnapshot",
                &cloud.place,
                format!("{snapshot} is in the state error"),
            )),
            _ => Ok(None),
        }
    });
    // EBS is asked meanwhile: its time begins when EC2's may be over.
    let within = COMPLETED.within + LISTED.within;
    tokio::try_join!(completed, listed_within(within, snapshot, cloud, stop))?;
    pipe.read_back(snapshot, delta, SAMPLE).await?;
    Ok(changed)
}

/// Waits until EBS, too, knows that a snapshot is completed: EC2 and EBS do not come to know of it at once, and whoever
/// reads its blocks asks EBS.
pub(super) async fn listed(snapshot: &SnapshotId, cloud: &Cloud, stop: &Stop) -> Result<(), CloudError> {
    listed_within(LISTED.within, snapshot, cloud, stop).await
}

async fn listed_within(
    within: Duration,
    snapshot: &SnapshotId,
    cloud: &Cloud,
    stop: &Stop,
) -> Result<(), CloudError> {
    until(Wait { within, ..LISTED }, &cloud.place, stop, || async {
        match cloud.snapshots.list_blocks(snapshot, None).await {
            Ok(_) => Ok(Some(())),
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Invalid) => {
                // What it said is told where it says so for too long.
                Err(CloudError { kind: ErrorKind::NotYet, ..error })
            }
            Err(error) => Err(error),
        }
    })
    .await
}
