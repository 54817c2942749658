//! A disk put into a local cloud and registered, by the same calls that a bake makes.

use std::path::Path;
use std::sync::Arc;

use bakehouse::cloud::{
    Architecture, BLOCK_SIZE, Block, BlockDevice, BlockIndex, BootMode, Cloud, Clouds, Digest, DiskType,
    EbsDisk, Image, ImageAttributes, ImageQuery, LinearChecksum, NewImage, NewSnapshot, Place, SnapshotId,
    SnapshotQuery, SnapshotState, Tags, Token, retrying,
};
use bakehouse::disk::{Delta, Disk, Pipe};
use bakehouse::host::stop::Stop;
use bakehouse::local::{LocalClouds, LocalInstances};
use bakehouse::report::Reporter;

/// A local cloud in `folder` whose instances answer their metadata service by this package's own program.
pub fn cloud(folder: &Path) -> (Cloud, Place) {
    let clouds = LocalClouds::open(folder, None, None).unwrap();
    let place = clouds.home();
    let mut cloud = clouds.at(&place).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_bakehouse"));
    let instances = LocalInstances::new(clouds.store().clone(), place.clone()).with_program(program);
    cloud.instances = Arc::new(instances);
    (cloud, place)
}

/// A completed snapshot of a disk's blocks `delta`, and of no others.
pub async fn snapshot(cloud: &Cloud, disk: &Arc<dyn Disk>, delta: &Delta) -> SnapshotId {
    let new = NewSnapshot {
        volume_size: u32::try_from(disk.size().div_ceil(1 << 30)).unwrap(),
        parent: None,
        description: String::new(),
        tags: Tags::new(),
        encrypt: None,
        timeout_minutes: 60,
    };
    let snapshot = cloud.snapshots.start(&new, &Token::of("test", "snapshot", 1)).await.unwrap();
    let (snapshots, stop) = (cloud.snapshots.clone(), Stop::never());
    let pipe = Pipe { snapshots, reporter: Reporter::silent(), stop: stop.clone() };
    let sum = pipe.upload(disk, delta, &snapshot).await.unwrap();
    let count = u32::try_from(delta.len()).unwrap();
    retrying(&stop, || cloud.snapshots.complete(&snapshot, count, sum)).await.unwrap();
    completed(cloud, &snapshot).await;
    snapshot
}

async fn completed(cloud: &Cloud, snapshot: &SnapshotId) {
    loop {
        let query = SnapshotQuery { ids: vec![snapshot.clone()], ..SnapshotQuery::default() };
        let found = cloud.snapshots.describe(&query).await.unwrap();
        if found[0].state == SnapshotState::Completed {
            break;
        }
        tokio::task::yield_now().await;
    }
}

/// Registers an image whose root volume of `gib` GiB begins with `disk`.
pub async fn image(
    cloud: &Cloud,
    mut disk: impl std::io::Read,
    gib: u32,
    boot_mode: Option<BootMode>,
) -> Image {
    let new = NewSnapshot {
        volume_size: gib,
        parent: None,
        description: String::new(),
        tags: Tags::new(),
        encrypt: None,
        timeout_minutes: 60,
    };
    let snapshot = cloud.snapshots.start(&new, &Token::of("test", "snapshot", 1)).await.unwrap();
    let mut sum = LinearChecksum::default();
    let mut count = 0;
    for index in 0.. {
        let mut block = vec![0; BLOCK_SIZE];
        let mut filled = 0;
        while filled < BLOCK_SIZE {
            match disk.read(&mut block[filled..]).unwrap() {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            break;
        }
        let block = Block::from(block);
        let digest = Digest::of(&block);
        sum.add(&digest);
        count += 1;
        loop {
            match cloud.snapshots.put_block(&snapshot, BlockIndex(index), block.clone(), digest).await {
                Ok(()) => break,
                Err(error) if error.kind == bakehouse::cloud::ErrorKind::NotYet => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    cloud.snapshots.complete(&snapshot, count, sum.finish()).await.unwrap();
    completed(cloud, &snapshot).await;
    let root = EbsDisk {
        snapshot: Some(snapshot),
        size: gib,
        kind: DiskType::Gp3,
        iops: None,
        throughput: None,
        delete_on_termination: true,
    };
    let id = cloud
        .images
        .register(&NewImage {
            name: "test".into(),
            description: String::new(),
            attributes: ImageAttributes {
                architecture: Architecture::X86_64,
                boot_mode,
                ena: true,
                sriov: None,
                imds_v2: true,
                tpm: false,
                uefi_data: None,
                root_device: "/dev/xvda".into(),
                devices: vec![BlockDevice { name: "/dev/xvda".into(), ebs: Some(root), virtual_name: None }],
            },
            tags: Tags::new(),
        })
        .await
        .unwrap();
    loop {
        let query = ImageQuery { ids: vec![id.clone()], ..ImageQuery::default() };
        match cloud.images.find(&query).await {
            Ok(mut found)
                if !found.is_empty() && found[0].state == bakehouse::cloud::ImageState::Available =>
            {
                return found.remove(0);
            }
            Ok(_) => tokio::task::yield_now().await,
            Err(error) if error.kind == bakehouse::cloud::ErrorKind::NotYet => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}
