//! A cloud that fails on purpose: one chosen mutating call, before or after it took effect. How tests ask what a bake
//! leaves behind when the cloud, or the process itself, goes away at the worst moment.
//!
//! Every mutating call is counted, clean-up's too. Reading calls pass.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::process::{Signal, getpid, kill_process};

use super::{
    ActionType, ArtifactCredentials, Artifacts, Block, BlockIndex, BlockPage, BlockSink, BlockToken, Cloud,
    CloudError, Clouds, CommandId, Commands, Digest, ErrorKind, Execution, Image, ImageId, ImageQuery,
    Images, Instance, InstanceId, InstanceQuery, Instances, Interface, Job, JobArtifact, JobFailure, JobId,
    JobSuccess, Jobs, Machine, NewCommand, NewCopy, NewImage, NewImageOf, NewInstance, NewParameter, NewPart,
    NewSnapshot, NewSnapshotOf, NewVolume, ObjectContent, ObjectVersion, Objects, OfferedJob, PageToken,
    Parameter, Parameters, PartChange, PartId, PartKind, PartQuery, Place, Result, Snapshot, SnapshotId,
    SnapshotQuery, Snapshots, Tags, Token, Volume, VolumeId, VolumeQuery, Volumes, VpcPart, Vpcs,
};

/// On which side of a call's effect it is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Before,
    /// The call took effect and its answer is lost.
    After,
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// The call fails with this kind.
    Fail(ErrorKind),
    /// The process kills itself: SIGKILL.
    Kill,
    /// The process stops itself, until somebody continues it: SIGSTOP.
    Stop,
    /// The process panics, as it would by a mistake in it.
    Panic,
}

impl Strike {
    /// Strikes the process; a failure is the caller's to give.
    pub fn process(self) {
        let signal = match self {
            Self::Fail(_) => return,
            Self::Kill => Signal::KILL,
            Self::Stop => Signal::STOP,
            Self::Panic => panic!("a panic on purpose"),
        };
        // A process may always send itself a signal, and these two are delivered before the call returns.
        let _ = kill_process(getpid(), signal);
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        Ok(match word {
            "transient" => Self::Fail(ErrorKind::Transient),
            "throttled" => Self::Fail(ErrorKind::Throttled),
            "denied" => Self::Fail(ErrorKind::Denied),
            "quota" => Self::Fail(ErrorKind::Quota),
            "kill" => Self::Kill,
            "stop" => Self::Stop,
            "panic" => Self::Panic,
            other => {
                return Err(format!(
                    "`{other}` is none of transient, throttled, denied, quota, kill, stop and panic"
                ));
            }
        })
    }
}

/// Which calls are struck: `7:after:kill`, `PutSnapshotBlock#3:before:denied:lasting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The n-th mutating call, counted from 1, of this operation where one is named; after: the n-th that took effect.
    pub call: u64,
    pub operation: Option<String>,
    /// All later ones too, whatever their operation.
    pub lasting: bool,
    pub moment: Moment,
    pub strike: Strike,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let words: Vec<&str> = text.split(':').collect();
        let (call, moment, strike, lasting) = match words[..] {
            [call, moment, strike] => (call, moment, strike, false),
            [call, moment, strike, "lasting"] => (call, moment, strike, true),
            _ => return Err(format!("`{text}` is not [OPERATION#]N:before|after:WHAT[:lasting]")),
        };
        let (operation, call) = match call.split_once('#') {
            Some((operation, call)) => (Some(operation.to_owned()), call),
            None => (None, call),
        };
        Ok(Self {
            operation,
            call: call.parse().map_err(|_| format!("`{call}` is not the number of a call"))?,
            lasting,
            moment: match moment {
                "before" => Moment::Before,
                "after" => Moment::After,
                other => return Err(format!("`{other}` is neither before nor after")),
            },
            strike: strike.parse()?,
        })
    }
}

/// Told of every mutating call as it begins, `call 7 PutSnapshotBlock`, and of one that is struck, `struck 7 …`.
pub type Told = Box<dyn Fn(&str) + Send + Sync>;

/// Makes a cloud faulty. Clouds made with the same one share its count.
pub struct Faults {
    fault: Option<Fault>,
    calls: AtomicU64,
    /// Those that the fault means, before or after their effect as it says.
    counted: AtomicU64,
    /// The number of the call that was struck first.
    first: OnceLock<u64>,
    told: Told,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("fault", &self.fault)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl Faults {
    /// Without a fault the calls are counted and told, no more.
    #[must_use]
    pub fn new(fault: Option<Fault>, told: Told) -> Arc<Self> {
        Arc::new(Self {
            fault,
            calls: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            first: OnceLock::new(),
            told,
        })
    }

    /// The same cloud with these faults.
    #[must_use]
    pub fn of(self: &Arc<Self>, cloud: Cloud) -> Cloud {
        let place = &cloud.place;
        Cloud {
            snapshots: Arc::new(Faulty::new(self, place, cloud.snapshots)),
            images: Arc::new(Faulty::new(self, place, cloud.images)),
            instances: Arc::new(Faulty::new(self, place, cloud.instances)),
            volumes: Arc::new(Faulty::new(self, place, cloud.volumes)),
            parameters: Arc::new(Faulty::new(self, place, cloud.parameters)),
            // They only read.
            account: cloud.account,
            keys: cloud.keys,
            commands: Arc::new(Faulty::new(self, place, cloud.commands)),
            objects: Arc::new(Faulty::new(self, place, cloud.objects)),
            networks: cloud.networks,
            vpcs: Arc::new(Faulty::new(self, place, cloud.vpcs)),
            jobs: cloud.jobs.map(|jobs| -> Arc<dyn Jobs> { Arc::new(Faulty::new(self, place, jobs)) }),
            place: cloud.place,
        }
    }

    /// What is to happen to a call now. A call that failed by itself is none that took effect, and does not count.
    fn strike(&self, now: Moment, number: u64, operation: &str) -> Option<Strike> {
        let fault = self.fault.as_ref().filter(|fault| fault.moment == now)?;
        if fault.operation.as_ref().is_none_or(|named| named == operation) {
            let counted = self.counted.fetch_add(1, Ordering::Relaxed) + 1;
            if counted == fault.call {
                // Reached once only.
                let _ = self.first.set(number);
            }
        }
        let first = self.first.get()?;
        (number == *first || (fault.lasting && number > *first)).then_some(fault.strike)
    }

    /// Every place with these faults.
    #[must_use]
    pub fn clouds(self: &Arc<Self>, clouds: Arc<dyn Clouds>) -> Arc<dyn Clouds> {
        Arc::new(FaultyClouds { faults: self.clone(), inner: clouds })
    }
}

struct FaultyClouds {
    faults: Arc<Faults>,
    inner: Arc<dyn Clouds>,
}

impl Clouds for FaultyClouds {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn home(&self) -> Place {
        self.inner.home()
    }

    fn at(&self, place: &Place) -> Result<Cloud> {
        Ok(self.faults.of(self.inner.at(place)?))
    }

    fn settles_within(&self) -> Duration {
        self.inner.settles_within()
    }
}

/// One capability of a cloud, with faults.
struct Faulty<T: ?Sized> {
    faults: Arc<Faults>,
    place: Place,
    inner: Arc<T>,
}

impl<T: ?Sized> Faulty<T> {
    fn new(faults: &Arc<Faults>, place: &Place, inner: Arc<T>) -> Self {
        Self { faults: faults.clone(), place: place.clone(), inner }
    }

    /// Makes a mutating call.
    async fn mutate<R>(&self, operation: &'static str, call: impl Future<Output = Result<R>>) -> Result<R> {
        let number = self.faults.calls.fetch_add(1, Ordering::Relaxed) + 1;
        (self.faults.told)(&format!("call {number} {operation}"));
        self.strike(Moment::Before, number, operation)?;
        let result = call.await?;
        self.strike(Moment::After, number, operation)?;
        Ok(result)
    }

    fn strike(&self, now: Moment, number: u64, operation: &'static str) -> Result<()> {
        let Some(strike) = self.faults.strike(now, number, operation) else { return Ok(()) };
        (self.faults.told)(&format!("struck {number} {operation}"));
        match strike {
            Strike::Fail(kind) => {
                let message = format!("call {number} fails on purpose");
                Err(CloudError::new(kind, operation, &self.place, message).with_code("InjectedFault"))
            }
            process @ (Strike::Kill | Strike::Stop | Strike::Panic) => {
                process.process();
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Snapshots for Faulty<dyn Snapshots> {
    async fn start(&self, new: &NewSnapshot, token: &Token) -> Result<SnapshotId> {
        self.mutate("StartSnapshot", self.inner.start(new, token)).await
    }

    async fn put_block(&self, id: &SnapshotId, index: BlockIndex, data: Block, digest: Digest) -> Result<()> {
        self.mutate("PutSnapshotBlock", self.inner.put_block(id, index, data, digest)).await
    }

    async fn complete(&self, id: &SnapshotId, changed: u32, checksum: Digest) -> Result<()> {
        self.mutate("CompleteSnapshot", self.inner.complete(id, changed, checksum)).await
    }

    async fn list_blocks(&self, of: &SnapshotId, page: Option<&PageToken>) -> Result<BlockPage> {
        self.inner.list_blocks(of, page).await
    }

    async fn get_block(
        &self,
        of: &SnapshotId,
        index: BlockIndex,
        token: &BlockToken,
        into: &dyn BlockSink,
    ) -> Result<()> {
        self.inner.get_block(of, index, token, into).await
    }

    async fn describe(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>> {
        self.inner.describe(query).await
    }

    async fn delete(&self, id: &SnapshotId) -> Result<()> {
        self.mutate("DeleteSnapshot", self.inner.delete(id)).await
    }

    fn puts_at_once(&self) -> usize {
        self.inner.puts_at_once()
    }

    fn gets_at_once(&self) -> usize {
        self.inner.gets_at_once()
    }
}

#[async_trait]
impl Images for Faulty<dyn Images> {
    async fn find(&self, query: &ImageQuery) -> Result<Vec<Image>> {
        self.inner.find(query).await
    }

    async fn register(&self, new: &NewImage) -> Result<ImageId> {
        self.mutate("RegisterImage", self.inner.register(new)).await
    }

    async fn copy(&self, new: &NewCopy, token: &Token) -> Result<ImageId> {
        self.mutate("CopyImage", self.inner.copy(new, token)).await
    }

    async fn uefi_data(&self, of: &ImageId) -> Result<Option<String>> {
        self.inner.uefi_data(of).await
    }

    async fn deregister(&self, id: &ImageId) -> Result<()> {
        self.mutate("DeregisterImage", self.inner.deregister(id)).await
    }

    async fn tag(&self, id: &ImageId, tags: &Tags) -> Result<()> {
        self.mutate("CreateTags", self.inner.tag(id, tags)).await
    }

    async fn create(&self, of: &InstanceId, new: &NewImageOf) -> Result<ImageId> {
        self.mutate("CreateImage", self.inner.create(of, new)).await
    }

    async fn require_imds_v2(&self, id: &ImageId) -> Result<()> {
        self.mutate("ModifyImageAttribute", self.inner.require_imds_v2(id)).await
    }

    async fn untag(&self, id: &ImageId, keys: &[String]) -> Result<()> {
        self.mutate("DeleteTags", self.inner.untag(id, keys)).await
    }
}

#[async_trait]
impl Instances for Faulty<dyn Instances> {
    async fn launch(&self, new: &NewInstance, token: &Token) -> Result<InstanceId> {
        self.mutate("RunInstances", self.inner.launch(new, token)).await
    }

    async fn find(&self, query: &InstanceQuery) -> Result<Vec<Instance>> {
        self.inner.find(query).await
    }

    async fn describe(&self, id: &InstanceId) -> Result<Instance> {
        self.inner.describe(id).await
    }

    async fn console(&self, id: &InstanceId) -> Result<Vec<u8>> {
        self.inner.console(id).await
    }

    async fn stop(&self, id: &InstanceId) -> Result<()> {
        self.mutate("StopInstances", self.inner.stop(id)).await
    }

    async fn terminate(&self, id: &InstanceId) -> Result<()> {
        self.mutate("TerminateInstances", self.inner.terminate(id)).await
    }
}

#[async_trait]
impl Volumes for Faulty<dyn Volumes> {
    async fn machine(&self) -> Result<Machine> {
        self.inner.machine().await
    }

    async fn create(&self, new: &NewVolume, token: &Token) -> Result<VolumeId> {
        self.mutate("CreateVolume", self.inner.create(new, token)).await
    }

    async fn find(&self, query: &VolumeQuery) -> Result<Vec<Volume>> {
        self.inner.find(query).await
    }

    async fn attach(&self, id: &VolumeId, to: &InstanceId, device: &str) -> Result<()> {
        self.mutate("AttachVolume", self.inner.attach(id, to, device)).await
    }

    async fn node(&self, id: &VolumeId, device: &str) -> Result<Option<PathBuf>> {
        self.inner.node(id, device).await
    }

    async fn detach(&self, id: &VolumeId) -> Result<()> {
        self.mutate("DetachVolume", self.inner.detach(id)).await
    }

    async fn delete(&self, id: &VolumeId) -> Result<()> {
        self.mutate("DeleteVolume", self.inner.delete(id)).await
    }

    async fn snapshot(&self, of: &VolumeId, new: &NewSnapshotOf) -> Result<SnapshotId> {
        self.mutate("CreateSnapshot", self.inner.snapshot(of, new)).await
    }
}

#[async_trait]
impl Vpcs for Faulty<dyn Vpcs> {
    async fn create(&self, new: &NewPart, tags: &Tags) -> Result<PartId> {
        self.mutate(new.operation(), self.inner.create(new, tags)).await
    }

    async fn find(&self, kind: PartKind, query: &PartQuery) -> Result<Vec<VpcPart>> {
        self.inner.find(kind, query).await
    }

    async fn change(&self, change: &PartChange) -> Result<()> {
        self.mutate(change.operation(), self.inner.change(change)).await
    }

    async fn tag(&self, ids: &[PartId], tags: &Tags) -> Result<()> {
        self.mutate("CreateTags", self.inner.tag(ids, tags)).await
    }

    async fn delete(&self, id: &PartId) -> Result<()> {
        self.mutate(id.kind().deletion(), self.inner.delete(id)).await
    }

    async fn interfaces(&self, vpc: &PartId) -> Result<Vec<Interface>> {
        self.inner.interfaces(vpc).await
    }
}

#[async_trait]
impl Commands for Faulty<dyn Commands> {
    async fn ready(&self, instance: &InstanceId) -> Result<bool> {
        self.inner.ready(instance).await
    }

    async fn send(&self, instance: &InstanceId, new: &NewCommand) -> Result<CommandId> {
        self.mutate("SendCommand", self.inner.send(instance, new)).await
    }

    async fn poll(&self, instance: &InstanceId, id: &CommandId) -> Result<Execution> {
        self.inner.poll(instance, id).await
    }

    async fn cancel(&self, instance: &InstanceId, id: &CommandId) -> Result<()> {
        self.mutate("CancelCommand", self.inner.cancel(instance, id)).await
    }

    fn agent(&self) -> &'static str {
        self.inner.agent()
    }

    fn ready_within(&self) -> Duration {
        self.inner.ready_within()
    }
}

#[async_trait]
impl Objects for Faulty<dyn Objects> {
    async fn put(&self, bucket: &str, key: &str, content: &ObjectContent, tags: &Tags) -> Result<()> {
        self.mutate("PutObject", self.inner.put(bucket, key, content, tags)).await
    }

    async fn get(&self, bucket: &str, key: &str) -> Result<Bytes> {
        self.inner.get(bucket, key).await
    }

    async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<ObjectVersion>> {
        self.inner.list(bucket, prefix).await
    }

    async fn delete(&self, bucket: &str, object: &ObjectVersion) -> Result<()> {
        self.mutate("DeleteObject", self.inner.delete(bucket, object)).await
    }

    async fn link(&self, bucket: &str, key: &str, lasting: Duration) -> Result<String> {
        self.inner.link(bucket, key, lasting).await
    }
}

#[async_trait]
impl Jobs for Faulty<dyn Jobs> {
    async fn poll(&self, of: &ActionType, most: usize) -> Result<Vec<OfferedJob>> {
        self.inner.poll(of, most).await
    }

    async fn acknowledge(&self, id: &JobId, nonce: &str) -> Result<bool> {
        self.mutate("AcknowledgeJob", self.inner.acknowledge(id, nonce)).await
    }

    async fn details(&self, id: &JobId) -> Result<Job> {
        self.inner.details(id).await
    }

    async fn succeed(&self, id: &JobId, success: &JobSuccess) -> Result<()> {
        self.mutate("PutJobSuccessResult", self.inner.succeed(id, success)).await
    }

    async fn fail(&self, id: &JobId, failure: &JobFailure) -> Result<()> {
        self.mutate("PutJobFailureResult", self.inner.fail(id, failure)).await
    }

    fn artifacts(&self, credentials: &ArtifactCredentials) -> Arc<dyn Artifacts> {
        Arc::new(Faulty::new(&self.faults, &self.place, self.inner.artifacts(credentials)))
    }
}

#[async_trait]
impl Artifacts for Faulty<dyn Artifacts> {
    async fn fetch(&self, artifact: &JobArtifact, into: &Path, most: u64) -> Result<u64> {
        self.inner.fetch(artifact, into, most).await
    }

    async fn store(&self, file: &Path, artifact: &JobArtifact, key: Option<&str>) -> Result<()> {
        self.mutate("PutObject", self.inner.store(file, artifact, key)).await
    }
}

#[async_trait]
impl Parameters for Faulty<dyn Parameters> {
    async fn get(&self, name: &str) -> Result<Parameter> {
        self.inner.get(name).await
    }

    async fn put(&self, new: &NewParameter) -> Result<u64> {
        self.mutate("PutParameter", self.inner.put(new)).await
    }

    async fn label(&self, name: &str, version: u64, label: &str) -> Result<()> {
        self.mutate("LabelParameterVersion", self.inner.label(name, version, label)).await
    }

    async fn history(&self, name: &str) -> Result<Vec<Parameter>> {
        self.inner.history(name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_from_its_words_and_nothing_else_is_one() {
        let fault = |text: &str| text.parse::<Fault>();
        let read = fault("7:after:kill").unwrap();
        assert_eq!((read.call, read.lasting, read.moment), (7, false, Moment::After));
        assert_eq!(read.strike, Strike::Kill);
        let read = fault("RegisterImage#2:before:denied:lasting").unwrap();
        assert_eq!((read.call, read.operation.as_deref()), (2, Some("RegisterImage")));
        assert_eq!((read.lasting, read.moment), (true, Moment::Before));
        assert_eq!(read.strike, Strike::Fail(ErrorKind::Denied));
        for wrong in
            ["", "7", "x:after:kill", "7:during:kill", "7:after:tea", "7:after:kill:ever", "-1:after:kill"]
        {
            fault(wrong).unwrap_err();
        }
    }
}
