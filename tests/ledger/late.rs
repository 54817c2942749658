//! A cloud that does not show at once what was made in it, as EC2 may not: nothing is taken for gone too early.

use std::sync::Arc;

use async_trait::async_trait;
use bakehouse::cloud::{
    Block, BlockIndex, BlockPage, BlockSink, BlockToken, Digest, PageToken, Result, Snapshot, Snapshots,
    Token,
};
use tokio::time::Instant;

use super::*;

const SETTLES: Duration = Duration::from_secs(120);

/// The local cloud, whose snapshots are seen from a moment on. The clock of these tests stands still, but for waits.
struct Late {
    clouds: LocalClouds,
    from: Instant,
    /// Each of them so much later than the one before.
    stagger: Duration,
    /// No look ever shows one.
    blind: bool,
    /// Until when each is in use.
    held: Option<Instant>,
}

impl Late {
    fn new(bakery: &Bakery, after: Duration) -> Self {
        Self {
            clouds: bakery.clouds.clone(),
            from: Instant::now() + after,
            stagger: Duration::ZERO,
            blind: false,
            held: None,
        }
    }
}

impl Clouds for Late {
    fn name(&self) -> String {
        self.clouds.name()
    }

    fn home(&self) -> Place {
        self.clouds.home()
    }

    fn at(&self, place: &Place) -> Result<Cloud> {
        let cloud = self.clouds.at(place)?;
        let late = LateSnapshots {
            inner: cloud.snapshots.clone(),
            place: place.clone(),
            from: self.from,
            stagger: self.stagger,
            blind: self.blind,
            held: self.held,
        };
        Ok(Cloud { snapshots: Arc::new(late), ..cloud })
    }

    fn settles_within(&self) -> Duration {
        SETTLES
    }
}

struct LateSnapshots {
    inner: Arc<dyn Snapshots>,
    place: Place,
    from: Instant,
    stagger: Duration,
    blind: bool,
    held: Option<Instant>,
}

#[async_trait]
impl Snapshots for LateSnapshots {
    async fn start(&self, new: &NewSnapshot, token: &Token) -> Result<SnapshotId> {
        self.inner.start(new, token).await
    }

    async fn put_block(&self, id: &SnapshotId, index: BlockIndex, data: Block, digest: Digest) -> Result<()> {
        self.inner.put_block(id, index, data, digest).await
    }

    async fn complete(&self, id: &SnapshotId, changed: u32, checksum: Digest) -> Result<()> {
        self.inner.complete(id, changed, checksum).await
    }

    async fn list_blocks(&self, id: &SnapshotId, page: Option<&PageToken>) -> Result<BlockPage> {
        self.inner.list_blocks(id, page).await
    }

    async fn get_block(
        &self,
        id: &SnapshotId,
        index: BlockIndex,
        token: &BlockToken,
        into: &dyn BlockSink,
    ) -> Result<()> {
        self.inner.get_block(id, index, token, into).await
    }

    async fn describe(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>> {
        if self.blind || Instant::now() < self.from {
            return Ok(Vec::new());
        }
        let mut found = self.inner.describe(query).await?;
        found.sort_by(|a, b| a.id.cmp(&b.id));
        let shown = (0u32..).zip(found).filter(|(n, _)| Instant::now() >= self.from + self.stagger * *n);
        Ok(shown.map(|(_, snapshot)| snapshot).collect())
    }

    async fn delete(&self, id: &SnapshotId) -> Result<()> {
        if Instant::now() < self.from {
            return Err(CloudError::new(ErrorKind::NotFound, "DeleteSnapshot", &self.place, "not yet"));
        }
        if self.held.is_some_and(|until| Instant::now() < until) {
            return Err(CloudError::new(ErrorKind::InUse, "DeleteSnapshot", &self.place, "in use"));
        }
        self.inner.delete(id).await
    }

    fn puts_at_once(&self) -> usize {
        self.inner.puts_at_once()
    }

    fn gets_at_once(&self) -> usize {
        self.inner.gets_at_once()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_seen_yet_is_looked_for_again() {
    for (lost, killed) in [(false, false), (false, true), (true, false), (true, true)] {
        let bakery = Bakery::new();
        let late = Late::new(&bakery, SETTLES / 2);
        let ledger = bakery.ledger();
        assert_eq!(bakery.start(&ledger, "root snapshot", lost).await.is_err(), lost);
        let undone = if killed {
            drop(ledger);
            Ledger::open(&bakery.path()).unwrap().unwrap().unwind(&late, clock::wall()).await
        } else {
            ledger.unwind(&late, clock::wall()).await
        };
        assert_eq!(ends(&undone), [&End::Removed], "{lost} {killed}");
        assert!(bakery.snapshots().await.is_empty() && !bakery.path().exists());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_never_seen_is_given_up_and_what_was_refused_is_not_waited_for() {
    let bakery = Bakery::new();
    let late = Late::new(&bakery, SETTLES * 9);
    let refused = |kind| CloudError::new(kind, "StartSnapshot", &bakery.cloud.place, "no");
    for (kind, waited) in [(ErrorKind::Unknown, true), (ErrorKind::Denied, false), (ErrorKind::Quota, false)]
    {
        let ledger = bakery.ledger();
        let intent = bakery.intent(Kind::Snapshot, "root snapshot", Role::Temporary);
        let call = || async { Err::<SnapshotId, _>(refused(kind)) };
        ledger.create(intent, &Stop::never(), call).await.unwrap_err();
        let began = Instant::now();
        assert_eq!(ends(&ledger.unwind(&late, clock::wall()).await), [] as [&End; 0]);
        assert_eq!(began.elapsed() >= SETTLES, waited, "{kind:?}");
        assert!(!bakery.path().exists());
    }
    // One that no look shows is deleted all the same, for a look may be behind.
    let ledger = bakery.ledger();
    bakery.start(&ledger, "root snapshot", false).await.unwrap();
    let dry = ledger.would_unwind(&late, clock::wall()).await;
    assert_eq!((ends(&dry), bakery.snapshots().await.len()), (vec![&End::Absent], 1));
    let late = Late { blind: true, ..Late::new(&bakery, Duration::ZERO) };
    assert_eq!(ends(&ledger.unwind(&late, clock::wall()).await), [&End::Removed]);
    assert!(bakery.snapshots().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_on_and_is_not_seen_yet_is_another_processs() {
    let bakery = Bakery::new();
    let late = Late::new(&bakery, SETTLES / 2);
    let ledger = bakery.ledger();
    let id = bakery.start(&ledger, "handed", false).await.unwrap();
    let until = clock::wall() + SignedDuration::from_hours(1);
    ledger.hand(id, until).unwrap();
    drop(ledger);
    let ledger = Ledger::open(&bakery.path()).unwrap().unwrap();
    assert_eq!(ends(&ledger.unwind(&late, clock::wall()).await), [&End::Waiting(until)]);
    assert_eq!(bakery.snapshots().await.len(), 1);
}

/// One call makes several, and they come into sight one after the other.
#[tokio::test(start_paused = true)]
async fn of_several_that_were_announced_all_are_looked_for() {
    for killed in [false, true] {
        let bakery = Bakery::new();
        let late = Late { stagger: SETTLES / 4, ..Late::new(&bakery, SETTLES / 4) };
        let ledger = bakery.ledger();
        let _ =
            ledger.announce(bakery.intent(Kind::Snapshot, "the image's snapshot", Role::Temporary)).unwrap();
        for _ in 0..3 {
            let new = NewSnapshot { tags: Bakery::tags(), ..new_snapshot(1, None) };
            bakery.cloud.snapshots.start(&new, &new_token()).await.unwrap();
        }
        let undone = if killed {
            drop(ledger);
            Ledger::open(&bakery.path()).unwrap().unwrap().unwind(&late, clock::wall()).await
        } else {
            ledger.unwind(&late, clock::wall()).await
        };
        assert_eq!(ends(&undone), [&End::Removed; 3], "{killed}");
        assert!(bakery.snapshots().await.is_empty() && !bakery.path().exists());
    }
}

/// Of several some cannot be taken away: whoever comes next finds all of them, not the first alone.
#[tokio::test(start_paused = true)]
async fn of_several_that_are_stuck_none_is_forgotten() {
    let bakery = Bakery::new();
    let ledger = bakery.ledger();
    let _ = ledger.announce(bakery.intent(Kind::Snapshot, "the image's snapshot", Role::Temporary)).unwrap();
    for _ in 0..2 {
        let new = NewSnapshot { tags: Bakery::tags(), ..new_snapshot(1, None) };
        bakery.cloud.snapshots.start(&new, &new_token()).await.unwrap();
    }
    let late = Late { held: Some(Instant::now() + SETTLES * 9), ..Late::new(&bakery, Duration::ZERO) };
    let undone = ledger.unwind(&late, clock::wall()).await;
    assert!(matches!(ends(&undone)[..], [End::Stuck(_), End::Stuck(_)]), "{undone:?}");
    drop(ledger);
    assert_eq!(ends(&bakery.unwound_later().await), [&End::Removed, &End::Removed]);
    assert!(bakery.snapshots().await.is_empty() && !bakery.path().exists());
}

/// A snapshot may be held as in use for a while after the image that used it is gone.
#[tokio::test(start_paused = true)]
async fn what_an_image_that_went_still_holds_is_tried_again() {
    for (held, end) in [(SETTLES / 2, Some(End::Removed)), (SETTLES * 9, None)] {
        let bakery = Bakery::new();
        let ledger = bakery.ledger();
        bakery.start(&ledger, "root snapshot", false).await.unwrap();
        let began = Instant::now();
        let late = Late { held: Some(began + held), ..Late::new(&bakery, Duration::ZERO) };
        let undone = ledger.unwind(&late, clock::wall()).await;
        match end {
            Some(end) => assert_eq!(ends(&undone), [&end]),
            None => assert!(matches!(ends(&undone)[..], [End::Stuck(_)]), "{undone:?}"),
        }
        assert!(began.elapsed() >= held.min(SETTLES) && began.elapsed() < SETTLES + SETTLES / 4);
    }
}
