//! The snapshot of the volume: made, waited for, and the only one.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::ChrootError;
use crate::cloud::{
    CloudError, ErrorKind, NewSnapshotOf, Snapshot, SnapshotId, SnapshotQuery, SnapshotState, VolumeId, Wait,
    retrying, until,
};
use crate::ledger::{Intent, Kind, Role};
use crate::method::{BakeCause, Bench};
use crate::plan::Plan;
use crate::report::Event;

/// It takes as long as its blocks take to be stored: 100 GiB some ten minutes.
const COMPLETED: Wait =
    Wait { what: "snapshot completed", every: Duration::from_secs(5), within: Duration::from_secs(2 * 3600) };

pub(super) async fn make(of: &VolumeId, plan: &Plan, bench: &Bench) -> Result<SnapshotId, BakeCause> {
    let (snapshots, place) = (&bench.cloud.snapshots, &bench.cloud.place);
    let new = NewSnapshotOf { description: plan.description.clone(), tags: plan.temporary_tags() };
    let intent = Intent {
        kind: Kind::Snapshot,
        place: place.clone(),
        what: "root snapshot".to_owned(),
        // CreateSnapshot has none: what came of a call whose answer was lost is found by its tags.
        token: None,
        tags: new.tags.clone(),
        role: Role::Temporary,
    };
    let own = SnapshotQuery { tags: intent.own_tags(), ..SnapshotQuery::default() };
    let call = || async {
        let error = match bench.cloud.volumes.snapshot(of, &new).await {
            Ok(id) => return Ok(id),
            Err(error) => error,
        };
        let found = if error.kind.may_hide_an_effect() { snapshots.describe(&own).await.ok() } else { None };
        found.into_iter().flatten().next().map(|found| found.id).ok_or(error)
    };
    let made = bench.ledger.create(intent.clone(), &bench.stop, call).await?;
    let query = SnapshotQuery { ids: vec![made.clone()], ..SnapshotQuery::default() };
    let shown = AtomicU8::new(0);
    let completed = until(COMPLETED, place, &bench.stop, || async {
        let found = match snapshots.describe(&query).await {
            // Just made, and not seen yet.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            other => other?.into_iter().next(),
        };
        match found.as_ref().map(|found| found.state) {
            Some(SnapshotState::Completed) => Ok(found),
            Some(SnapshotState::Error) => {
                let text = format!("{made} is in the state error");
                Err(CloudError::new(ErrorKind::Invalid, "CreateSnapshot", place, text))
            }
            _ => {
                found.iter().for_each(|found| progress(found, bench, &shown));
                Ok(None)
            }
        }
    })
    .await?;
    if plan.encryption.refused && completed.encrypt.is_some() {
        return Err(ChrootError::Encrypted { snapshot: made }.into());
    }
    // One whose answer was lost, and which did not show at once.
    let all = retrying(&bench.stop, || snapshots.describe(&own)).await?;
    for other in all.into_iter().map(|found| found.id).filter(|id| *id != made) {
        bench.ledger.adopt(intent.clone(), other.clone())?;
        retrying(&bench.stop, || snapshots.delete(&other)).await?;
    }
    Ok(made)
}

fn progress(snapshot: &Snapshot, bench: &Bench, shown: &AtomicU8) {
    let Some(percent) = snapshot.progress else { return };
    if shown.fetch_max(percent, Ordering::Relaxed) < percent {
        let name = format!("storing {}", snapshot.id);
        bench.reporter.emit(Event::Progress { name, done: u64::from(percent), total: 100 });
    }
}
