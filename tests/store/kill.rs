//! `kill -9` at any moment: what was acknowledged is there, whole; what was not leaves nothing that stays for ever.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use bakehouse::cloud::{Cloud, Clouds, ImageId, NewParameter, SnapshotId, SnapshotState};
use bakehouse::host::stop::Stop;
use bakehouse::local::Collected;

use super::{Local, files, open, process};
use crate::conformance::*;

/// Which number's block each index has.
type Content = BTreeMap<u32, u64>;

const PARAMETER: &str = "/bakehouse/web/x86_64/release";

fn filled(content: &Content) -> BTreeMap<u32, Block> {
    content.iter().map(|(index, number)| (*index, block(*number))).collect()
}

/// The child: makes and deletes without end, and says what was done once it is.
async fn work(folder: &Path, round: u64) {
    let clouds = open(folder);
    let cloud = clouds.at(&clouds.home()).unwrap();
    let mut last: Option<(SnapshotId, Content)> = None;
    println!();
    for step in 0.. {
        let own = round * 10_000 + step;
        // Two that every snapshot has, one that it shares with its next, one of its own.
        let changed =
            Content::from([(0, 1), (1, 2), (2, own / 2), (10 + u32::try_from(step % 50).unwrap(), own)]);
        let parent = last.as_ref().filter(|_| step % 4 != 0);
        let new = new_snapshot(1, parent.map(|(id, _)| id));
        let mut content = parent.map_or_else(Content::new, |(_, content)| content.clone());
        content.extend(changed.clone());
        let id = cloud.snapshots.start(&new, &new_token()).await.unwrap();
        println!("hoped {id} {}", serde_json::to_string(&content).unwrap());
        let blocks = filled(&changed);
        for (index, data) in &blocks {
            put(&cloud, &id, *index, data).await.unwrap();
        }
        cloud.snapshots.complete(&id, 4, checksum(&blocks)).await.unwrap();
        wait_completed(&cloud, &id).await;
        println!("made {id} {}", serde_json::to_string(&content).unwrap());
        if step % 3 == 0 {
            let name = format!("web-{round}-{step}");
            let image = cloud.images.register(&new_image(&name, &id)).await.unwrap();
            println!("image {image} {name}");
            let value = NewParameter {
                name: PARAMETER.to_owned(),
                value: image.to_string(),
                data_type: "aws:ec2:image".to_owned(),
                overwrite: true,
            };
            let version = cloud.parameters.put(&value).await.unwrap();
            println!("parameter {version} {image}");
        } else if let Some((old, _)) = last.as_ref().filter(|_| step % 3 == 2) {
            println!("going {old}");
            cloud.snapshots.delete(old).await.unwrap();
        }
        if step % 5 == 4 {
            clouds.store().collect_garbage().await.unwrap();
        }
        last = Some((id, content));
    }
}

/// What the children acknowledged.
#[derive(Default)]
struct Promised {
    /// What a child was about to complete when it was killed: completed as a whole or not at all.
    hoped: BTreeMap<String, Content>,
    snapshots: BTreeMap<String, Content>,
    images: BTreeMap<String, String>,
    parameter: Option<(u64, String)>,
}

impl Promised {
    fn read(&mut self, line: &str) {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match words[..] {
            ["hoped", id, content] => {
                self.hoped.insert(id.to_owned(), serde_json::from_str(content).unwrap());
            }
            ["made", id, content] => {
                self.hoped.remove(id);
                self.snapshots.insert(id.to_owned(), serde_json::from_str(content).unwrap());
            }
            ["going", id] => drop(self.snapshots.remove(id)),
            ["image", id, name] => drop(self.images.insert(id.to_owned(), name.to_owned())),
            ["parameter", version, value] => {
                self.parameter = Some((version.parse().unwrap(), value.to_owned()));
            }
            _ => {}
        }
    }

    fn take(&mut self, newer: Self) {
        self.snapshots.extend(newer.snapshots);
        self.images.extend(newer.images);
        self.parameter = newer.parameter.or(self.parameter.take());
    }

    async fn check(&mut self, cloud: &Cloud) {
        for (id, content) in std::mem::take(&mut self.hoped) {
            let snapshot = SnapshotId::parse(&id).unwrap();
            // Twice: the first describe after completing still says pending.
            snapshot_state(cloud, &snapshot).await.unwrap();
            if snapshot_state(cloud, &snapshot).await.unwrap().state == SnapshotState::Completed {
                self.snapshots.insert(id, content);
            }
        }
        for (id, content) in &self.snapshots {
            let id = SnapshotId::parse(id).unwrap();
            wait_completed(cloud, &id).await;
            assert_eq!(read_all(cloud, &id).await, digests(&filled(content)), "{id}");
        }
        for (id, name) in &self.images {
            let image = find_image(cloud, &ImageId::parse(id).unwrap()).await.unwrap();
            assert_eq!(&image.name, name);
        }
        if let Some((version, value)) = &self.parameter {
            let found = cloud.parameters.get(&format!("{PARAMETER}:{version}")).await.unwrap();
            assert_eq!(&found.value, value);
        }
    }
}

#[tokio::test]
async fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    const ROUNDS: u8 = 20;
    if let Some((folder, round)) = process::part() {
        return work(&folder, round.parse().unwrap()).await;
    }
    let local = Local::new();
    let mut all = Promised::default();
    for round in 1..=ROUNDS {
        let mut promised = Promised::default();
        let test = "store::kill::a_kill_at_any_moment_loses_nothing_that_was_acknowledged";
        let mut child = process::start(test, local.folder.path(), &round.to_string());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let random = *uuid::Uuid::new_v4().as_bytes();
        for _ in 0..3 + random[0] % 12 {
            promised.read(&lines.next().unwrap().unwrap());
        }
        tokio::time::sleep(Duration::from_micros(u64::from(random[1]) * 100)).await;
        // SIGKILL.
        child.kill().unwrap();
        for line in lines {
            promised.read(&line.unwrap());
        }
        child.wait().unwrap();

        let verified = local.store().verify(&Stop::never()).await.unwrap();
        assert_eq!(verified.damaged, []);
        promised.check(&local.cloud).await;
        if round % 4 == 0 {
            local.store().collect_garbage().await.unwrap();
            let again = local.store().collect_garbage().await.unwrap();
            assert_eq!(again, Collected::default());
            all.check(&local.cloud).await;
        }
        all.take(promised);
    }
    all.check(&local.cloud).await;
    assert!(all.snapshots.len() > usize::from(ROUNDS), "the children hardly came to work");

    // All that is there can be taken away, to the last block and the last unfinished file.
    for image in local.cloud.images.find(&Default::default()).await.unwrap() {
        local.cloud.images.deregister(&image.id).await.unwrap();
    }
    for snapshot in local.cloud.snapshots.describe(&Default::default()).await.unwrap() {
        local.cloud.snapshots.delete(&snapshot.id).await.unwrap();
    }
    local.store().collect_garbage().await.unwrap();
    assert!(local.block_files().is_empty());
    let place = local.store().place_dir(&local.cloud.place);
    assert!(files(&place.join("snapshots")).is_empty() && files(&place.join("images")).is_empty());
}
