//! What every cloud does, as AWS does it. One body per behaviour, each on a [`Cloud`] that it shares with nobody's names:
//! every name and token is its own, and what it makes it need not take away. `make live` (`live/`) runs them in a real
//! account.

#![expect(clippy::unwrap_used, reason = "a test panics where something is not as it should be")]

mod account;
mod commands;
mod images;
mod instances;
mod jobs;
mod keys;
mod networks;
mod objects;
mod parameters;
mod snapshots;
mod volumes;
mod vpcs;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

pub(crate) use bakehouse::cloud::Block;
use bakehouse::cloud::{
    Architecture, BLOCK_SIZE, BlockDevice, BlockIndex, BlockSink, BlockToken, Cloud, CloudError, Digest,
    DiskType, EbsDisk, ErrorKind, Image, ImageAttributes, ImageId, ImageQuery, ImageState, LinearChecksum,
    ListedBlock, NewImage, NewSnapshot, PageToken, Result, Snapshot, SnapshotId, SnapshotQuery,
    SnapshotState, Tags, Token, Wait, until,
};
use bakehouse::host::stop::Stop;

/// Makes a test of each body for each cloud; and where no tests are compiled, the list of the bodies.
macro_rules! on_every_cloud {
    ($($body:ident),+ $(,)?) => {
        #[cfg(not(test))]
        pub(super) const BODIES: &[crate::conformance::Body] = &[$(crate::conformance::Body {
            name: stringify!($body),
            run: |cloud| Box::pin($body(cloud)),
        }),+];
        #[cfg(test)]
        mod local {
            $(#[tokio::test]
            async fn $body() {
                let (_folder, cloud) = crate::conformance::local_cloud();
                super::$body(&cloud).await;
            })+
        }
        #[cfg(test)]
        mod faulty {
            $(#[tokio::test]
            async fn $body() {
                let (_folder, cloud) = crate::conformance::local_cloud();
                // Without a fault it is the cloud that is behind it.
                let faults = bakehouse::cloud::faulty::Faults::new(None, Box::new(|_| {}));
                super::$body(&faults.of(cloud)).await;
            })+
        }
        #[cfg(all(test, feature = "aws"))]
        mod aws {
            $(#[tokio::test]
            async fn $body() {
                let (stand_in, cloud) = crate::conformance::aws_cloud().await;
                super::$body(&cloud).await;
                crate::conformance::finish(stand_in, stringify!($body));
            })+
        }
    };
}
pub(crate) use on_every_cloud;

/// One behaviour: it panics where the cloud has another.
#[cfg(not(test))]
#[derive(Clone, Copy)]
pub struct Body {
    pub name: &'static str,
    pub run: for<'a> fn(&'a Cloud) -> futures::future::LocalBoxFuture<'a, ()>,
}

/// All of them.
#[cfg(not(test))]
pub fn bodies() -> Vec<Body> {
    [
        account::BODIES,
        commands::BODIES,
        images::BODIES,
        instances::BODIES,
        jobs::BODIES,
        keys::BODIES,
        networks::BODIES,
        objects::BODIES,
        parameters::BODIES,
        snapshots::BODIES,
        volumes::BODIES,
        vpcs::BODIES,
    ]
    .concat()
}

/// A local cloud of its own; the folder goes when it is dropped.
#[cfg(test)]
pub(crate) fn local_cloud() -> (tempfile::TempDir, Cloud) {
    use bakehouse::cloud::Clouds as _;
    use bakehouse::local::LocalClouds;
    let folder = tempfile::tempdir().unwrap();
    let clouds = LocalClouds::open(&folder.path().join("store"), None, None).unwrap();
    let cloud = clouds.at(&clouds.home()).unwrap();
    (folder, cloud)
}

/// The cloud `aws` against the stand-in, in an account of its own.
#[cfg(all(test, feature = "aws"))]
pub(crate) async fn aws_cloud() -> (crate::aws::StandIn, Cloud) {
    use bakehouse::aws::{AwsClouds, ConnectOptions, Fixed, Roles, SETTLES_WITHIN};
    use bakehouse::cloud::Clouds as _;
    let stand_in = crate::aws::StandIn::start();
    let fixed = Fixed {
        endpoint: stand_in.endpoint(),
        access_key: crate::aws::StandIn::access_key(stand_in.account()),
        secret_key: "of-the-stand-in".to_owned(),
    };
    let options = ConnectOptions {
        region: bakehouse::cloud::Region::parse(crate::aws::REGION),
        account: None,
        roles: Roles::new(),
        settles_within: SETTLES_WITHIN,
        fixed: Some(fixed),
    };
    // Small pages, so that few blocks make many.
    stand_in.settings(serde_json::json!({ "page_blocks": 300 }));
    let clouds = AwsClouds::connect(&options).await.unwrap();
    let cloud = clouds.at(&clouds.home()).unwrap();
    stand_in.seed(serde_json::json!({ "bucket": bucket(&cloud) }));
    (stand_in, cloud)
}

/// Bodies that ask for what AWS's models do not allow: the findings are what is wanted.
#[cfg(all(test, feature = "aws"))]
const WRONG_ON_PURPOSE: [&str; 4] = [
    "a_request_beyond_the_limits_is_refused",
    "an_image_without_its_root_is_refused",
    "labels_that_ssm_refuses_are_refused",
    "names_that_ssm_refuses_are_refused",
];

/// Fails on any finding of the stand-in, or where a body that makes one on purpose made none.
#[cfg(all(test, feature = "aws"))]
pub(crate) fn finish(mut stand_in: crate::aws::StandIn, body: &str) {
    if WRONG_ON_PURPOSE.contains(&body) {
        let findings = stand_in.expect_findings();
        assert!(!findings.is_empty(), "{body} asks for nothing wrong any more");
        assert!(!findings.iter().any(|finding| finding.to_string().contains("not emulated")), "{findings:?}");
    } else {
        stand_in.finish();
    }
}

/// Whether it is the local cloud, where AWS and it cannot be the same.
pub(crate) fn is_local(cloud: &Cloud) -> bool {
    cloud.place.partition == bakehouse::cloud::Partition::local()
}

/// A bucket that is there in every cloud: names are one account's in the whole of S3.
pub(crate) fn bucket(cloud: &Cloud) -> String {
    format!("bakery-{}", cloud.place.account)
}

pub(crate) fn unique(word: &str) -> String {
    format!("{word}-{}", uuid::Uuid::new_v4().simple())
}

pub(crate) fn new_token() -> Token {
    Token::of(&unique("bake"), "test", 1)
}

pub(crate) fn new_snapshot(volume_size: u32, parent: Option<&SnapshotId>) -> NewSnapshot {
    NewSnapshot {
        volume_size,
        parent: parent.cloned(),
        description: "made by a test".to_owned(),
        tags: Tags::from([("made-by".to_owned(), "test".to_owned())]),
        encrypt: None,
        timeout_minutes: 60,
    }
}

/// A block that no other number gives.
pub(crate) fn block(number: u64) -> Block {
    number.to_le_bytes().repeat(BLOCK_SIZE / 8).into()
}

/// How long the slowest cloud takes for what these tests wait for.
pub(crate) fn soon(what: &'static str) -> Wait {
    Wait { what, every: Duration::from_millis(1), within: Duration::from_secs(180) }
}

pub(crate) async fn put(cloud: &Cloud, id: &SnapshotId, index: u32, data: &Block) -> Result<()> {
    let digest = Digest::of(data);
    until(soon("block put"), &cloud.place, &Stop::never(), || async {
        cloud.snapshots.put_block(id, BlockIndex(index), data.clone(), digest).await.map(Some)
    })
    .await
}

pub(crate) fn checksum(blocks: &BTreeMap<u32, Block>) -> Digest {
    let mut sum = LinearChecksum::default();
    for data in blocks.values() {
        sum.add(&Digest::of(data));
    }
    sum.finish()
}

pub(crate) async fn snapshot_state(cloud: &Cloud, id: &SnapshotId) -> Result<Snapshot> {
    let query = SnapshotQuery { ids: vec![id.clone()], ..SnapshotQuery::default() };
    let mut found = cloud.snapshots.describe(&query).await?;
    assert_eq!(found.len(), 1);
    Ok(found.remove(0))
}

pub(crate) async fn wait_completed(cloud: &Cloud, id: &SnapshotId) {
    until(soon("snapshot completed"), &cloud.place, &Stop::never(), || async {
        let snapshot = snapshot_state(cloud, id).await?;
        Ok((snapshot.state == SnapshotState::Completed).then_some(()))
    })
    .await
    .unwrap();
}

/// Starts, puts, completes and waits.
pub(crate) async fn make(cloud: &Cloud, new: &NewSnapshot, blocks: &BTreeMap<u32, Block>) -> SnapshotId {
    let id = cloud.snapshots.start(new, &new_token()).await.unwrap();
    for (index, data) in blocks {
        put(cloud, &id, *index, data).await.unwrap();
    }
    let (count, sum) = (u32::try_from(blocks.len()).unwrap(), checksum(blocks));
    // Without a put before it, it may be the first to hear that the snapshot is not there yet.
    until(soon("snapshot told to complete"), &cloud.place, &Stop::never(), || async {
        cloud.snapshots.complete(&id, count, sum).await.map(Some)
    })
    .await
    .unwrap();
    wait_completed(cloud, &id).await;
    id
}

pub(crate) async fn list_all(cloud: &Cloud, id: &SnapshotId) -> Result<Vec<ListedBlock>> {
    let mut listed = Vec::new();
    let mut next: Option<PageToken> = None;
    loop {
        let page = cloud.snapshots.list_blocks(id, next.as_ref()).await?;
        listed.extend(page.blocks);
        match page.next {
            Some(token) => next = Some(token),
            None => return Ok(listed),
        }
    }
}

/// A block's bytes, and the digest that came before them.
pub(crate) async fn get(
    cloud: &Cloud,
    id: &SnapshotId,
    index: BlockIndex,
    token: &BlockToken,
) -> Result<(Vec<u8>, Digest)> {
    #[derive(Default)]
    struct Bytes(Mutex<(Option<Digest>, Vec<u8>)>);
    impl BlockSink for Bytes {
        fn begin(&self, claimed: Digest) {
            *self.0.lock().unwrap() = (Some(claimed), Vec::new());
        }

        fn piece(&self, bytes: &[u8]) {
            self.0.lock().unwrap().1.extend(bytes);
        }
    }
    let bytes = Bytes::default();
    cloud.snapshots.get_block(id, index, token, &bytes).await?;
    let (claimed, bytes) = bytes.0.into_inner().unwrap();
    Ok((bytes, claimed.unwrap()))
}

/// The digest of everything that the snapshot has, each computed from what was read.
pub(crate) async fn read_all(cloud: &Cloud, id: &SnapshotId) -> BTreeMap<u32, Digest> {
    let mut blocks = BTreeMap::new();
    for listed in list_all(cloud, id).await.unwrap() {
        let (data, digest) = get(cloud, id, listed.index, &listed.token).await.unwrap();
        assert_eq!(Digest::of(&data), digest);
        blocks.insert(listed.index.0, digest);
    }
    blocks
}

pub(crate) fn digests(blocks: &BTreeMap<u32, Block>) -> BTreeMap<u32, Digest> {
    blocks.iter().map(|(index, data)| (*index, Digest::of(data))).collect()
}

pub(crate) fn numbered(blocks: &[(u32, u64)]) -> BTreeMap<u32, Block> {
    blocks.iter().map(|(index, number)| (*index, block(*number))).collect()
}

pub(crate) fn new_image(name: &str, snapshot: &SnapshotId) -> NewImage {
    NewImage {
        name: name.to_owned(),
        description: "made by a test".to_owned(),
        attributes: ImageAttributes {
            architecture: Architecture::X86_64,
            boot_mode: None,
            ena: true,
            sriov: Some("simple".to_owned()),
            imds_v2: true,
            tpm: false,
            uefi_data: None,
            root_device: "/dev/xvda".to_owned(),
            devices: vec![BlockDevice {
                name: "/dev/xvda".to_owned(),
                ebs: Some(EbsDisk {
                    snapshot: Some(snapshot.clone()),
                    size: 1,
                    kind: DiskType::Gp3,
                    iops: None,
                    throughput: None,
                    delete_on_termination: true,
                }),
                virtual_name: None,
            }],
        },
        tags: Tags::new(),
    }
}

pub(crate) async fn find_image(cloud: &Cloud, id: &ImageId) -> Result<Image> {
    let query = ImageQuery { ids: vec![id.clone()], ..ImageQuery::default() };
    let mut found = cloud.images.find(&query).await?;
    assert_eq!(found.len(), 1);
    Ok(found.remove(0))
}

/// A small completed snapshot and an image of it that is available.
pub(crate) async fn make_image(cloud: &Cloud, name: &str) -> (SnapshotId, ImageId) {
    let snapshot = make(cloud, &new_snapshot(1, None), &numbered(&[(0, 1)])).await;
    let id = cloud.images.register(&new_image(name, &snapshot)).await.unwrap();
    until(soon("image available"), &cloud.place, &Stop::never(), || async {
        let image = find_image(cloud, &id).await?;
        Ok((image.state == ImageState::Available).then_some(()))
    })
    .await
    .unwrap();
    (snapshot, id)
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> CloudError {
    let error = result.expect_err("the call should be refused");
    assert_eq!(error.kind, kind, "{error} ({:?})", error.source);
    error
}
