//! Calls no faster than a cloud takes them. The published quotas are kept by token buckets before a call is made; and
//! where the cloud refuses one all the same, since others use the account too, everything slows down together and not
//! only the call that was refused: one rate for all blocks, that falls by a factor on a refusal and recovers slowly.
//!
//! Stands below [`retrying`](super::retrying): a call that is tried again takes its turn like any other.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};

use super::{
    Block, BlockIndex, BlockPage, BlockSink, BlockToken, Cloud, Clouds, Digest, ErrorKind, NewSnapshot,
    PageToken, Place, Result, Snapshot, SnapshotId, SnapshotQuery, Snapshots, Token,
};

/// Calls a second that an account may make in a region. The defaults are those of Service Quotas for the EBS direct APIs.
/// That an account may have been given more is not looked up: of one snapshot, which is all that a bake reads or writes at a
/// time, nobody gets more than 1,000. Who shares the account with others, or talks to another endpoint, says so
/// (`--aws-block-rate`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// `PutSnapshotBlock`: of the account it can be raised, of one snapshot it cannot (Service Quotas: not adjustable).
    pub put: f64,
    /// `GetSnapshotBlock`, likewise.
    pub get: f64,
    /// `ListSnapshotBlocks`.
    pub list: f64,
    /// `StartSnapshot`, and as many of `CompleteSnapshot`.
    pub start: f64,
}

impl Default for Rates {
    fn default() -> Self {
        Self { put: 1000.0, get: 1000.0, list: 50.0, start: 10.0 }
    }
}

/// Of a quota so much is used: clocks differ, and a call that waits on its way comes together with later ones.
const USED: f64 = 0.985;
/// A bucket is full with the calls of this time. Timers wake up to a millisecond late, what was missed is made up for.
const BURST: Duration = Duration::from_millis(20);
/// What a refusal leaves of the rate.
const FALL: f64 = 0.8;
/// What comes back in a second, of the quota: a rate that fell once is whole again after four seconds.
const RECOVERY: f64 = 0.05;
/// The least rate, of the quota: where others use all of it, a bake gets on all the same.
const LEAST: f64 = 0.02;
/// After a refusal nothing is called for so long: the cloud's own bucket fills.
const PAUSE: Duration = Duration::from_millis(100);

/// One kind of calls.
#[derive(Debug)]
struct Bucket {
    /// Calls a second at best.
    quota: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Calls a second now, as of `since`.
    rate: f64,
    since: Instant,
    /// When the next call may be made.
    next: Instant,
    /// Nothing before.
    paused_until: Instant,
    /// When the rate fell last: what was called before and is refused says nothing new.
    fell: Instant,
}

impl Bucket {
    fn new(quota: f64) -> Self {
        let (now, quota) = (Instant::now(), quota * USED);
        let state = State { rate: quota, since: now, next: now, paused_until: now, fell: now };
        Self { quota, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next turn, and gives when it is.
    fn turn(&self) -> Instant {
        let (now, mut state) = (Instant::now(), self.state());
        state.recover(self.quota, now);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let at = state.next.max(earliest).max(state.paused_until);
        state.next = at + Duration::from_secs_f64(1.0 / state.rate);
        at
    }

    /// Waits for its turn. One that was given before a pause began is given back.
    async fn wait(&self) {
        loop {
            let at = self.turn();
            sleep_until(at).await;
            if self.state().paused_until <= at.max(Instant::now()) {
                return;
            }
        }
    }

    /// A call that was begun at `begun` was refused.
    fn refused(&self, begun: Instant) {
        let (now, mut state) = (Instant::now(), self.state());
        state.recover(self.quota, now);
        state.paused_until = state.paused_until.max(now + PAUSE);
        if begun >= state.fell {
            state.rate = (state.rate * FALL).max(self.quota * LEAST);
            state.fell = now;
            // Turns that were given out at the old rate are taken again, from the pause's end on.
            state.next = state.paused_until;
        }
    }

    /// Makes a call in its turn.
    async fn call<R>(&self, call: impl Future<Output = Result<R>>) -> Result<R> {
        self.wait().await;
        let begun = Instant::now();
        call.await.inspect_err(|error| {
            if error.kind == ErrorKind::Throttled {
                self.refused(begun);
            }
        })
    }
}

impl State {
    fn recover(&mut self, quota: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.rate = (self.rate + quota * RECOVERY * passed).min(quota);
        self.since = now;
    }
}

/// The pace of one account in one region, shared by all that is done there.
#[derive(Debug)]
struct Pace {
    put: Bucket,
    get: Bucket,
    list: Bucket,
    start: Bucket,
    complete: Bucket,
}

impl Pace {
    fn new(rates: &Rates) -> Self {
        Self {
            put: Bucket::new(rates.put),
            get: Bucket::new(rates.get),
            list: Bucket::new(rates.list),
            start: Bucket::new(rates.start),
            complete: Bucket::new(rates.start),
        }
    }
}

/// Makes clouds paced.
#[derive(Debug)]
pub struct Paces {
    rates: Rates,
    places: Mutex<BTreeMap<Place, Arc<Pace>>>,
}

impl Paces {
    #[must_use]
    pub fn new(rates: Rates) -> Arc<Self> {
        Arc::new(Self { rates, places: Mutex::default() })
    }

    /// The same cloud at this pace. All of one place share it.
    #[must_use]
    pub fn of(&self, cloud: Cloud) -> Cloud {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = places.entry(cloud.place.clone()).or_insert_with(|| Arc::new(Pace::new(&self.rates)));
        let snapshots = Arc::new(Paced { pace: pace.clone(), inner: cloud.snapshots });
        Cloud { snapshots, ..cloud }
    }

    /// Every place at this pace.
    #[must_use]
    pub fn clouds(self: &Arc<Self>, clouds: Arc<dyn Clouds>) -> Arc<dyn Clouds> {
        Arc::new(PacedClouds { paces: self.clone(), inner: clouds })
    }
}

struct PacedClouds {
    paces: Arc<Paces>,
    inner: Arc<dyn Clouds>,
}

impl Clouds for PacedClouds {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn home(&self) -> Place {
        self.inner.home()
    }

    fn at(&self, place: &Place) -> Result<Cloud> {
        Ok(self.paces.of(self.inner.at(place)?))
    }

    fn settles_within(&self) -> Duration {
        self.inner.settles_within()
    }
}

struct Paced {
    pace: Arc<Pace>,
    inner: Arc<dyn Snapshots>,
}

#[async_trait]
impl Snapshots for Paced {
    async fn start(&self, new: &NewSnapshot, token: &Token) -> Result<SnapshotId> {
        self.pace.start.call(self.inner.start(new, token)).await
    }

    async fn put_block(&self, id: &SnapshotId, index: BlockIndex, data: Block, digest: Digest) -> Result<()> {
        self.pace.put.call(self.inner.put_block(id, index, data, digest)).await
    }

    async fn complete(&self, id: &SnapshotId, changed: u32, checksum: Digest) -> Result<()> {
        self.pace.complete.call(self.inner.complete(id, changed, checksum)).await
    }

    async fn list_blocks(&self, id: &SnapshotId, page: Option<&PageToken>) -> Result<BlockPage> {
        self.pace.list.call(self.inner.list_blocks(id, page)).await
    }

    async fn get_block(
        &self,
        id: &SnapshotId,
        index: BlockIndex,
        token: &BlockToken,
        into: &dyn BlockSink,
    ) -> Result<()> {
        self.pace.get.call(self.inner.get_block(id, index, token, into)).await
    }

    async fn describe(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>> {
        self.inner.describe(query).await
    }

    async fn delete(&self, id: &SnapshotId) -> Result<()> {
        self.inner.delete(id).await
    }

    fn puts_at_once(&self) -> usize {
        self.inner.puts_at_once()
    }

    fn gets_at_once(&self) -> usize {
        self.inner.gets_at_once()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::cloud::{AccountId, CloudError, Partition, Region, retrying};
    use crate::host::stop::Stop;

    /// A cloud's own limiter: a bucket of `burst` calls that fills at `rate` a second.
    struct Limiter {
        rate: f64,
        burst: f64,
        state: Mutex<(f64, Instant)>,
        refused: AtomicU64,
    }

    impl Limiter {
        fn new(rate: f64, burst: f64) -> Self {
            Self { rate, burst, state: Mutex::new((burst, Instant::now())), refused: AtomicU64::new(0) }
        }

        async fn call(&self, latency: Duration) -> Result<()> {
            tokio::time::sleep(latency / 2).await;
            let good = {
                let (now, mut state) = (Instant::now(), self.state.lock().unwrap());
                let (tokens, at) = *state;
                let tokens = (tokens + self.rate * (now - at).as_secs_f64()).min(self.burst);
                *state = if tokens >= 1.0 { (tokens - 1.0, now) } else { (tokens, now) };
                tokens >= 1.0
            };
            tokio::time::sleep(latency / 2).await;
            if good {
                return Ok(());
            }
            self.refused.fetch_add(1, Ordering::Relaxed);
            let place = Place {
                partition: Partition::local(),
                account: AccountId::parse("000000000000").unwrap(),
                region: Region::parse("local").unwrap(),
            };
            Err(CloudError::new(ErrorKind::Throttled, "PutSnapshotBlock", &place, "slow down"))
        }
    }

    /// Makes `calls` calls, 64 at once, and gives how long they took and the most tries that one needed.
    async fn run(bucket: &Bucket, limiter: &Limiter, calls: u64, latency: Duration) -> (Duration, u64) {
        let (next, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let began = Instant::now();
        let workers = (0..64).map(|_| async {
            while next.fetch_add(1, Ordering::Relaxed) < calls {
                let tries = AtomicU64::new(0);
                let stop = Stop::never();
                retrying(&stop, || {
                    tries.fetch_add(1, Ordering::Relaxed);
                    bucket.call(limiter.call(latency))
                })
                .await
                .unwrap();
                most.fetch_max(tries.into_inner(), Ordering::Relaxed);
            }
        });
        futures::future::join_all(workers).await;
        (began.elapsed(), most.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_is_used_and_not_exceeded() {
        for latency in [0, 10, 30, 60] {
            let (bucket, limiter) = (Bucket::new(1000.0), Limiter::new(1000.0, 50.0));
            let (took, tries) = run(&bucket, &limiter, 8000, Duration::from_millis(latency)).await;
            assert_eq!((tries, limiter.refused.into_inner()), (1, 0), "{latency} ms");
            assert!((7.9..8.9).contains(&took.as_secs_f64()), "{latency} ms: {took:?}");
        }
    }

    /// Others use a part of the account's quota: all slow down, most of what is left is used, and nothing is refused
    /// again and again.
    #[tokio::test(start_paused = true)]
    async fn where_less_is_left_everything_slows_down_together() {
        for rate in [900.0, 500.0, 200.0] {
            let (bucket, limiter) = (Bucket::new(1000.0), Limiter::new(rate, 20.0));
            let (took, tries) = run(&bucket, &limiter, 8000, Duration::from_millis(30)).await;
            let reached = 8000.0 / took.as_secs_f64() / rate;
            let refused = limiter.refused.into_inner();
            assert!(reached > 0.6, "{rate}: {reached}");
            assert!(refused < 8000 / 10, "{rate}: {refused} were refused");
            assert!(tries <= 4, "{rate}: {tries} tries");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_fell_recovers() {
        let (bucket, used) = (Bucket::new(1000.0), 1000.0 * USED);
        tokio::time::sleep(Duration::from_secs(1)).await;
        bucket.refused(Instant::now());
        // What was under way then says nothing new.
        bucket.refused(Instant::now().checked_sub(Duration::from_millis(1)).unwrap());
        assert!((bucket.state().rate - used * FALL).abs() < 1.0);
        tokio::time::sleep(Duration::from_secs(5)).await;
        bucket.turn();
        assert!((bucket.state().rate - used).abs() < 1.0);
    }
}
