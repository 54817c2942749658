//! One run: the tags by which what it makes is found again, and a cloud in which everything carries them. No look shows them,
//! so that the bodies see what they made. A call that is throttled is made again, since that says nothing of a behaviour; and
//! one by which something that was just made is unknown, as AWS may have it: how late it was is a finding.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bakehouse::cloud::{
    Block, BlockIndex, BlockPage, BlockSink, BlockToken, Cloud, Digest, ErrorKind, Image, ImageId,
    ImageQuery, Images, InstanceId, NewCopy, NewImage, NewImageOf, NewParameter, NewSnapshot, PageToken,
    Parameter, Parameters, Result, Snapshot, SnapshotId, SnapshotQuery, Snapshots, Tags, Token, tag,
};
use bakehouse::host::clock;
use jiff::SignedDuration;

use crate::findings::Findings;

/// After this long `bakehouse sweep` takes what a kill left. The bodies take minutes.
const LIFETIME: SignedDuration = SignedDuration::from_hours(2);
/// How long a throttled call is tried again, and how often: SSM takes three puts of parameters a second (memory).
const PATIENCE: u32 = 120;
const PAUSE: Duration = Duration::from_millis(500);
/// How long something that was made may be unknown: AWS-SETTLES.
const LATE: Duration = Duration::from_secs(120);

pub struct Run {
    /// The family of everything that it makes, the bake's image too.
    pub family: String,
    tags: Tags,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    parameters: BTreeSet<String>,
    /// What is there, by its id: since when.
    since: BTreeMap<String, Instant>,
    /// How long after its start a snapshot took its first put, of those that had one; and whether EBS did not know it before.
    first_puts: BTreeMap<SnapshotId, (bool, Option<Duration>)>,
    /// How long after it was made something was known to a call to which it was unknown before.
    late: Vec<Duration>,
    last: Option<Instant>,
}

impl Run {
    pub fn new() -> Arc<Self> {
        let family = format!("live-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let expires = clock::whole_seconds(clock::wall() + LIFETIME);
        let tags = Tags::from([(tag("family"), family.clone()), (tag("expires"), expires.to_string())]);
        Arc::new(Self { family, tags, made: Mutex::default() })
    }

    /// `bakehouse:family=live-…`
    pub fn mark(&self) -> String {
        format!("{}={}", tag("family"), self.family)
    }

    /// The tag by which all of it but parameters is found.
    pub fn own(&self) -> Tags {
        Tags::from([(tag("family"), self.family.clone())])
    }

    /// The names of the parameters.
    pub fn parameters(&self) -> BTreeSet<String> {
        self.made().parameters.clone()
    }

    /// When something may have been made last.
    pub fn last(&self) -> Option<Instant> {
        self.made().last
    }

    /// Something is made now.
    pub fn makes(&self) {
        self.made().last = Some(Instant::now());
    }

    /// What was seen by the way.
    pub fn tell(&self, findings: &mut Findings) {
        let made = self.made();
        let puts: Vec<_> =
            made.first_puts.values().filter_map(|(late, after)| Some((*late, (*after)?))).collect();
        let late: Vec<Duration> = puts.iter().filter(|(late, _)| *late).map(|(_, after)| *after).collect();
        if !puts.is_empty() {
            let what = format!(
                "of {} snapshots {} were unknown to their first put{}",
                puts.len(),
                late.len(),
                longest(&late)
            );
            findings.add("EBS-PUT-NOT-YET", true, &what);
        }
        if made.last.is_some() {
            let late = &made.late;
            let what =
                format!("{} times something was unknown that had been made{}", late.len(), longest(late));
            findings.add("AWS-SETTLES", true, &what);
        }
    }

    /// The cloud in which this run makes things.
    pub fn of(self: &Arc<Self>, cloud: Cloud) -> Cloud {
        Cloud {
            snapshots: Arc::new(Marked { run: self.clone(), inner: cloud.snapshots }),
            images: Arc::new(Marked { run: self.clone(), inner: cloud.images }),
            parameters: Arc::new(Marked { run: self.clone(), inner: cloud.parameters }),
            ..cloud
        }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tags for something new.
    fn with(&self, tags: &Tags) -> Tags {
        self.makes();
        tags.iter().chain(&self.tags).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn without(&self, tags: &mut Tags) {
        tags.retain(|key, _| !self.tags.contains_key(key));
    }

    fn made_one(&self, id: &str) {
        self.made().since.entry(id.to_owned()).or_insert_with(Instant::now);
    }

    fn deleted(&self, id: &str) {
        self.made().since.remove(id);
    }

    /// Makes a call that has to do with these ids. Where one of them is none of this run's, it may well be unknown.
    async fn call<R, F, Fut>(&self, ids: &[&str], mut call: F) -> Result<R>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<R>>,
    {
        let mut unknown = None;
        let mut throttled = 0;
        loop {
            let ended = call().await;
            match &ended {
                Err(error) if error.kind == ErrorKind::Throttled && throttled < PATIENCE => throttled += 1,
                Err(error) if error.kind == ErrorKind::NotFound => {
                    let since =
                        ids.iter().map(|id| self.made().since.get(*id).copied()).collect::<Option<Vec<_>>>();
                    let newest = since.and_then(|since| since.into_iter().max());
                    let Some(since) = newest.filter(|since| since.elapsed() < LATE) else { return ended };
                    unknown = Some(since);
                }
                _ => {
                    if let Some(since) = unknown {
                        self.made().late.push(since.elapsed());
                    }
                    return ended;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// `, the longest for 3.1 s`
fn longest(late: &[Duration]) -> String {
    late.iter()
        .max()
        .map_or_else(String::new, |longest| format!(", the longest for {:.1} s", longest.as_secs_f64()))
}

/// One capability of a cloud, for a run.
struct Marked<T: ?Sized> {
    run: Arc<Run>,
    inner: Arc<T>,
}

#[async_trait]
impl Snapshots for Marked<dyn Snapshots> {
    async fn start(&self, new: &NewSnapshot, token: &Token) -> Result<SnapshotId> {
        let new = NewSnapshot { tags: self.run.with(&new.tags), ..new.clone() };
        let parent: Vec<&str> = new.parent.iter().map(SnapshotId::as_str).collect();
        let id = self.run.call(&parent, || self.inner.start(&new, token)).await?;
        self.run.made_one(id.as_str());
        Ok(id)
    }

    async fn put_block(&self, id: &SnapshotId, index: BlockIndex, data: Block, digest: Digest) -> Result<()> {
        let put = self.run.call(&[], || self.inner.put_block(id, index, data.clone(), digest)).await;
        {
            let mut made = self.run.made();
            let after = made.since.get(id.as_str()).map(Instant::elapsed);
            let (late, first) = made.first_puts.entry(id.clone()).or_default();
            match &put {
                Ok(()) if first.is_none() => *first = after,
                Err(error) if first.is_none() => *late |= error.kind == ErrorKind::NotYet,
                _ => {}
            }
        }
        if put.as_ref().is_err_and(|error| error.kind == ErrorKind::NotYet) {
            // A body puts it again at once.
            tokio::time::sleep(PAUSE).await;
        }
        put
    }

    async fn complete(&self, id: &SnapshotId, changed: u32, checksum: Digest) -> Result<()> {
        self.run.call(&[id.as_str()], || self.inner.complete(id, changed, checksum)).await
    }

    async fn list_blocks(&self, id: &SnapshotId, page: Option<&PageToken>) -> Result<BlockPage> {
        self.run.call(&[id.as_str()], || self.inner.list_blocks(id, page)).await
    }

    async fn get_block(
        &self,
        id: &SnapshotId,
        index: BlockIndex,
        token: &BlockToken,
        into: &dyn BlockSink,
    ) -> Result<()> {
        self.run.call(&[id.as_str()], || self.inner.get_block(id, index, token, into)).await
    }

    async fn describe(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>> {
        let ids: Vec<&str> = query.ids.iter().map(SnapshotId::as_str).collect();
        let mut found = self.run.call(&ids, || self.inner.describe(query)).await?;
        found.iter_mut().for_each(|snapshot| self.run.without(&mut snapshot.tags));
        Ok(found)
    }

    async fn delete(&self, id: &SnapshotId) -> Result<()> {
        self.run.call(&[id.as_str()], || self.inner.delete(id)).await?;
        self.run.deleted(id.as_str());
        Ok(())
    }

    fn puts_at_once(&self) -> usize {
        self.inner.puts_at_once()
    }

    fn gets_at_once(&self) -> usize {
        self.inner.gets_at_once()
    }
}

#[async_trait]
impl Images for Marked<dyn Images> {
    async fn find(&self, query: &ImageQuery) -> Result<Vec<Image>> {
        let ids: Vec<&str> = query.ids.iter().map(ImageId::as_str).collect();
        let mut found = self.run.call(&ids, || self.inner.find(query)).await?;
        found.iter_mut().for_each(|image| self.run.without(&mut image.tags));
        Ok(found)
    }

    async fn register(&self, new: &NewImage) -> Result<ImageId> {
        let new = NewImage { tags: self.run.with(&new.tags), ..new.clone() };
        let disks = new.attributes.devices.iter().filter_map(|device| device.ebs.as_ref()?.snapshot.as_ref());
        let disks: Vec<&str> = disks.map(SnapshotId::as_str).collect();
        let id = self.run.call(&disks, || self.inner.register(&new)).await?;
        self.run.made_one(id.as_str());
        Ok(id)
    }

    async fn copy(&self, new: &NewCopy, token: &Token) -> Result<ImageId> {
        let new = NewCopy { tags: self.run.with(&new.tags), ..new.clone() };
        let id = self.run.call(&[new.source.as_str()], || self.inner.copy(&new, token)).await?;
        self.run.made_one(id.as_str());
        Ok(id)
    }

    async fn uefi_data(&self, id: &ImageId) -> Result<Option<String>> {
        self.run.call(&[id.as_str()], || self.inner.uefi_data(id)).await
    }

    async fn deregister(&self, id: &ImageId) -> Result<()> {
        self.run.call(&[id.as_str()], || self.inner.deregister(id)).await?;
        self.run.deleted(id.as_str());
        Ok(())
    }

    /// No body makes an instance.
    async fn create(&self, of: &InstanceId, new: &NewImageOf) -> Result<ImageId> {
        self.inner.create(of, new).await
    }

    async fn tag(&self, id: &ImageId, tags: &Tags) -> Result<()> {
        self.run.call(&[id.as_str()], || self.inner.tag(id, tags)).await
    }

    async fn untag(&self, id: &ImageId, keys: &[String]) -> Result<()> {
        self.run.call(&[id.as_str()], || self.inner.untag(id, keys)).await
    }

    async fn require_imds_v2(&self, id: &ImageId) -> Result<()> {
        self.run.call(&[id.as_str()], || self.inner.require_imds_v2(id)).await
    }
}

#[async_trait]
impl Parameters for Marked<dyn Parameters> {
    async fn get(&self, name: &str) -> Result<Parameter> {
        self.run.call(&[], || self.inner.get(name)).await
    }

    async fn put(&self, new: &NewParameter) -> Result<u64> {
        self.run.makes();
        let is_new = self.run.made().parameters.insert(new.name.clone());
        let put = self.run.call(&[], || self.inner.put(new)).await;
        // What was refused is not there: many of these names nobody may have.
        if is_new && put.as_ref().is_err_and(|error| !error.kind.may_hide_an_effect()) {
            self.run.made().parameters.remove(&new.name);
        }
        put
    }

    async fn label(&self, name: &str, version: u64, label: &str) -> Result<()> {
        self.run.call(&[], || self.inner.label(name, version, label)).await
    }

    async fn history(&self, name: &str) -> Result<Vec<Parameter>> {
        self.run.call(&[], || self.inner.history(name)).await
    }
}
