//! What a ledger undoes and what it leaves, in a cloud that is real; and what has expired there.

mod late;
mod sweep;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bakehouse::cloud::{
    Cloud, CloudError, Clouds, ErrorKind, ImageQuery, NewImage, NewSnapshot, Place, SnapshotId,
    SnapshotQuery, Tags, tag,
};
use bakehouse::host::clock;
use bakehouse::host::stop::Stop;
use bakehouse::ledger::{
    CreateError, End, Header, Intent, Kind, Ledger, LedgerError, Left, Role, State, Undo,
};
use bakehouse::local::LocalClouds;
use jiff::SignedDuration;

use crate::conformance::*;

/// A cloud and the ledger of a bake in it.
struct Bakery {
    folder: tempfile::TempDir,
    clouds: LocalClouds,
    cloud: Cloud,
}

const BAKE: &str = "bake-000000000001";

impl Bakery {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clouds = LocalClouds::open(&folder.path().join("store"), None, None).unwrap();
        let cloud = clouds.at(&clouds.home()).unwrap();
        Self { folder, clouds, cloud }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ledger.jsonl")
    }

    fn ledger(&self) -> Ledger {
        let header = Header::new(&self.clouds.name(), "bake", BAKE, clock::wall());
        Ledger::begin(&self.path(), header).unwrap()
    }

    fn tags() -> Tags {
        [("bake", BAKE), ("stage", "bake"), ("family", "web")]
            .map(|(name, value)| (tag(name), value.to_owned()))
            .into()
    }

    fn intent(&self, kind: Kind, what: &str, role: Role) -> Intent {
        let place = self.cloud.place.clone();
        Intent { kind, place, what: what.to_owned(), token: None, tags: Self::tags(), role }
    }

    /// Starts a snapshot by the ledger. `lost`: nobody hears of the answer.
    async fn start(&self, ledger: &Ledger, what: &str, lost: bool) -> Result<SnapshotId, CreateError> {
        let new = NewSnapshot { tags: Self::tags(), ..new_snapshot(1, None) };
        let intent = self.intent(Kind::Snapshot, what, Role::Temporary);
        let token = new_token();
        ledger
            .create(intent, &Stop::never(), || async {
                let id = self.cloud.snapshots.start(&new, &token).await?;
                if lost { Err(self.error()) } else { Ok(id) }
            })
            .await
    }

    fn error(&self) -> CloudError {
        CloudError::new(ErrorKind::Unknown, "Test", &self.cloud.place, "the answer was lost")
    }

    async fn snapshots(&self) -> Vec<SnapshotId> {
        let found = self.cloud.snapshots.describe(&SnapshotQuery::default()).await.unwrap();
        found.into_iter().map(|snapshot| snapshot.id).collect()
    }

    /// As the next process does after a kill.
    async fn unwound_later(&self) -> Vec<Undo> {
        let ledger = Ledger::open(&self.path()).unwrap().unwrap();
        ledger.unwind(&self.clouds, clock::wall()).await
    }
}

fn ends(undone: &[Undo]) -> Vec<&End> {
    undone.iter().map(|undo| &undo.end).collect()
}

#[tokio::test]
async fn what_was_created_is_undone_in_reverse_and_the_file_goes_with_it() {
    let bakery = Bakery::new();
    let other = bakery.cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    let ledger = bakery.ledger();
    let first = bakery.start(&ledger, "first", false).await.unwrap();
    let second = bakery.start(&ledger, "second", false).await.unwrap();
    // It was deleted by hand.
    bakery.cloud.snapshots.delete(&first).await.unwrap();
    let undone = ledger.unwind(&bakery.clouds, clock::wall()).await;
    assert_eq!(ends(&undone), [&End::Removed, &End::Absent]);
    assert!(undone[0].what.contains(second.as_str()) && undone[1].what.contains(first.as_str()));
    assert_eq!(bakery.snapshots().await, [other]);
    assert!(ledger.is_settled() && !bakery.path().exists());
}

#[tokio::test]
async fn what_a_killed_process_created_is_undone_by_the_next() {
    let bakery = Bakery::new();
    let ledger = bakery.ledger();
    bakery.start(&ledger, "known", false).await.unwrap();
    bakery.start(&ledger, "lost", true).await.unwrap_err();
    // Announced, and never called.
    let intent = bakery.intent(Kind::Snapshot, "announced", Role::Temporary);
    ledger
        .create(intent, &Stop::never(), || async { Err::<SnapshotId, _>(bakery.error()) })
        .await
        .unwrap_err();
    drop(ledger);
    assert_eq!(bakery.snapshots().await.len(), 2);
    let undone = bakery.unwound_later().await;
    assert_eq!(ends(&undone), [&End::Removed, &End::Removed]);
    assert!(bakery.snapshots().await.is_empty());
    assert!(!bakery.path().exists());
}

/// Registers an image of a finished snapshot by the ledger.
async fn registered(bakery: &Bakery, ledger: &Ledger, lost: bool) -> SnapshotId {
    let snapshot = bakery.start(ledger, "root snapshot", false).await.unwrap();
    let blocks = numbered(&[(0, 1)]);
    put(&bakery.cloud, &snapshot, 0, &blocks[&0]).await.unwrap();
    bakery.cloud.snapshots.complete(&snapshot, 1, checksum(&blocks)).await.unwrap();
    wait_completed(&bakery.cloud, &snapshot).await;
    let new = NewImage { tags: Bakery::tags(), ..new_image("web-1", &snapshot) };
    let intent = bakery.intent(Kind::Image, "web-1", Role::Commit);
    let image = ledger
        .create(intent, &Stop::never(), || async {
            let id = bakery.cloud.images.register(&new).await?;
            if lost { Err(bakery.error()) } else { Ok(id) }
        })
        .await;
    assert_eq!(image.is_err(), lost);
    snapshot
}

#[tokio::test]
async fn a_registered_image_and_its_snapshot_are_the_users() {
    for lost in [false, true] {
        let bakery = Bakery::new();
        let ledger = bakery.ledger();
        let snapshot = registered(&bakery, &ledger, lost).await;
        drop(ledger);
        let undone = bakery.unwound_later().await;
        let image = bakery.cloud.images.find(&ImageQuery::default()).await.unwrap().remove(0);
        assert_eq!(bakery.snapshots().await, [snapshot]);
        if lost {
            // Told by its id: nobody else knows it.
            assert!(matches!(ends(&undone)[..], [End::Kept(_)]), "{undone:?}");
            assert!(undone[0].what.contains(image.id.as_str()), "{undone:?}");
            let mut left = Left::Nothing;
            undone.iter().for_each(|undo| undo.add_all(&mut left));
            assert!(left.to_string().contains(image.id.as_str()), "{left}");
        } else {
            assert!(undone.is_empty(), "{undone:?}");
        }
        assert!(!bakery.path().exists());
    }
}

/// The local cloud, which cannot be reached.
struct Away<'a>(&'a LocalClouds);

impl Clouds for Away<'_> {
    fn name(&self) -> String {
        self.0.name()
    }

    fn home(&self) -> Place {
        self.0.home()
    }

    fn at(&self, place: &Place) -> bakehouse::cloud::Result<Cloud> {
        Err(CloudError::new(ErrorKind::Denied, "AssumeRole", place, "no"))
    }

    fn settles_within(&self) -> Duration {
        self.0.settles_within()
    }
}

#[tokio::test]
async fn what_is_stuck_is_told_and_stays_for_the_next() {
    let bakery = Bakery::new();
    let ledger = bakery.ledger();
    bakery.start(&ledger, "root snapshot", true).await.unwrap_err();
    let undone = ledger.unwind(&Away(&bakery.clouds), clock::wall()).await;
    assert!(matches!(ends(&undone)[..], [End::Unseen(_)]), "{undone:?}");
    assert!(!ledger.is_settled() && bakery.path().exists());
    drop(ledger);
    assert_eq!(ends(&bakery.unwound_later().await), [&End::Removed]);
    assert!(bakery.snapshots().await.is_empty() && !bakery.path().exists());
}

#[tokio::test]
async fn what_was_handed_on_is_left_until_its_time_and_what_is_shared_for_ever() {
    let bakery = Bakery::new();
    let ledger = bakery.ledger();
    let handed = bakery.start(&ledger, "handed", false).await.unwrap();
    let until = clock::wall() + SignedDuration::from_hours(1);
    ledger.hand(handed.clone(), until).unwrap();
    let shared = bakery.cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    ledger.adopt(bakery.intent(Kind::Snapshot, "import", Role::Shared), shared.clone()).unwrap();
    assert!(matches!(ledger.hand(nobody(), until), Err(LedgerError::Illegal { .. })));
    drop(ledger);
    assert_eq!(ends(&bakery.unwound_later().await), [&End::Waiting(until)]);
    assert_eq!(bakery.snapshots().await.len(), 2);
    let ledger = Ledger::open(&bakery.path()).unwrap().unwrap();
    assert_eq!(ledger.entries()[0].state, State::Handed);
    assert_eq!(ends(&ledger.unwind(&bakery.clouds, until).await), [&End::Removed]);
    assert_eq!(bakery.snapshots().await, [shared]);
}

fn nobody() -> SnapshotId {
    SnapshotId::parse("snap-0123456789abcdef0").unwrap()
}

#[tokio::test]
async fn without_a_ledger_nothing_is_called_and_another_clouds_is_refused() {
    let bakery = Bakery::new();
    let nowhere = bakery.folder.path().join("none/ledger.jsonl");
    let header = |cloud: &str| Header::new(cloud, "bake", BAKE, clock::wall());
    assert!(matches!(Ledger::begin(&nowhere, header("a")), Err(LedgerError::Write { .. })));
    drop(Ledger::begin(&bakery.path(), header("a")).unwrap());
    assert!(matches!(Ledger::begin(&bakery.path(), header("b")), Err(LedgerError::OtherCloud { .. })));
    assert!(Ledger::begin(&bakery.path(), header("a")).is_ok());
    assert!(bakery.snapshots().await.is_empty());
}
