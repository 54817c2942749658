//! What has expired goes; what is the user's, what runs and what nobody can read stays.

use std::process::{Command, Stdio};

use bakehouse::cloud::{ImageId, NewImage, Region};
use bakehouse::ledger::sweep::{Why, sweep};
use serde_json::Value;

use super::*;

const OVER: &str = "2020-01-01T00:00:00Z";
const LATER: &str = "2999-01-01T00:00:00Z";

impl Bakery {
    /// A snapshot that expires, or never does. `whole`: completed.
    async fn snapshot(&self, expires: Option<&str>, whole: bool) -> SnapshotId {
        let tags = expires.map(|time| (tag("expires"), time.to_owned())).into_iter().collect();
        let new = NewSnapshot { tags, ..new_snapshot(1, None) };
        if whole {
            return make(&self.cloud, &new, &numbered(&[(0, 1)])).await;
        }
        let id = self.cloud.snapshots.start(&new, &new_token()).await.unwrap();
        put(&self.cloud, &id, 0, &block(7)).await.unwrap();
        id
    }

    async fn image(&self, snapshot: &SnapshotId, expires: Option<&str>) -> ImageId {
        let tags = expires.map(|time| (tag("expires"), time.to_owned())).into_iter().collect();
        let new = NewImage { tags, ..new_image(&unique("web"), snapshot) };
        self.cloud.images.register(&new).await.unwrap()
    }
}

#[tokio::test]
async fn what_has_expired_goes_and_nothing_else() {
    let bakery = Bakery::new();
    let pending = bakery.snapshot(Some(OVER), false).await;
    let whole = bakery.snapshot(Some(OVER), true).await;
    let used = bakery.snapshot(Some(OVER), true).await;
    let image = bakery.image(&used, None).await;
    let temporary = bakery.snapshot(Some(OVER), true).await;
    let expired = bakery.image(&temporary, Some(OVER)).await;
    let later = bakery.snapshot(Some(LATER), false).await;
    let untagged = bakery.snapshot(None, false).await;
    let strange = bakery.snapshot(Some("soon"), false).await;

    let dry = sweep(&bakery.cloud, Duration::ZERO, clock::wall(), true).await;
    assert_eq!(bakery.snapshots().await.len(), 7);
    let real = sweep(&bakery.cloud, Duration::ZERO, clock::wall(), false).await;
    let gone = |undone: &[Undo]| -> Vec<String> {
        assert!(undone.iter().all(|undo| undo.end == End::Removed), "{undone:?}");
        let mut ids: Vec<_> =
            undone.iter().map(|undo| undo.what.split(' ').next().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let mut expected =
        vec![pending.to_string(), whole.to_string(), temporary.to_string(), expired.to_string()];
    expected.sort();
    assert_eq!(gone(&dry.undone), expected);
    assert_eq!(gone(&real.undone), expected);
    let mut stay = vec![used.clone(), later, untagged, strange.clone()];
    stay.sort();
    let mut found = bakery.snapshots().await;
    found.sort();
    assert_eq!(found, stay);
    let images = bakery.cloud.images.find(&ImageQuery::default()).await.unwrap();
    assert_eq!(images.iter().map(|one| &one.id).collect::<Vec<_>>(), [&image]);
    let why =
        |id: &SnapshotId| real.kept.iter().find(|(kept, _)| *kept == id.clone().into()).map(|kept| &kept.1);
    assert_eq!(why(&used), Some(&Why::Used(image)));
    assert_eq!(why(&strange), Some(&Why::Unreadable("soon".to_owned())));
    assert!(sweep(&bakery.cloud, Duration::ZERO, clock::wall(), false).await.undone.is_empty());
}

#[tokio::test]
async fn the_verb_sweeps_every_place_or_the_one_that_is_named() {
    let home = Bakery::new();
    let place = Place { region: Region::parse("eu-west-1").unwrap(), ..home.cloud.place.clone() };
    let new = NewSnapshot { tags: [(tag("expires"), OVER.to_owned())].into(), ..new_snapshot(1, None) };
    let cloud = home.clouds.at(&place).unwrap();
    let there = cloud.snapshots.start(&new, &new_token()).await.unwrap();
    let here = home.snapshot(Some(OVER), false).await;
    let ids =
        |said: &Value| [&here, &there].map(|id| removed(said).iter().any(|line| line.contains(id.as_str())));
    assert_eq!(ids(&swept(&home, &["--dry-run"])), [true, true]);
    assert_eq!(ids(&swept(&home, &["--region", "local"])), [true, false]);
    assert_eq!(ids(&swept(&home, &[])), [false, true]);
}

/// The program, as a user runs it: JSON, exit code 0.
fn swept(bakery: &Bakery, args: &[&str]) -> Value {
    #[expect(clippy::disallowed_methods, reason = "the program is started here as a user starts it")]
    let said = Command::new(env!("CARGO_BIN_EXE_bakehouse"))
        .args(["sweep", "--json"])
        .args(args)
        .env("BAKEHOUSE_LOCAL", bakery.folder.path().join("store"))
        .env("BAKEHOUSE_WORK", bakery.folder.path().join("work"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).unwrap()
}

fn removed(report: &Value) -> Vec<String> {
    serde_json::from_value(report["removed"].clone()).unwrap()
}

#[tokio::test]
async fn the_verb_clears_work_folders_that_are_nobodys_with_what_their_ledgers_name() {
    let bakery = Bakery::new();
    let work = bakery.folder.path().join("work");
    let folder = |name: &str| {
        let folder = work.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("disk.raw"), "x").unwrap();
        folder
    };
    std::fs::create_dir(&work).unwrap();
    std::fs::set_permissions(&work, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let header = |cloud: &str| Header::new(cloud, "bake", BAKE, clock::wall());

    let left = folder("bake-00000000000a");
    let ledger = Ledger::begin(&left.join("ledger.jsonl"), header(&bakery.clouds.name())).unwrap();
    let snapshot = bakery.start(&ledger, "root snapshot", false).await.unwrap();
    drop(ledger);
    // All that was left to do was to delete something.
    let emptied = folder("bake-00000000000d");
    drop(Ledger::begin(&emptied.join("ledger.jsonl"), header(&bakery.clouds.name())).unwrap());
    std::fs::remove_file(emptied.join("disk.raw")).unwrap();
    let elsewhere = folder("bake-00000000000b");
    drop(Ledger::begin(&elsewhere.join("ledger.jsonl"), header("local /nowhere")).unwrap());
    let photos = folder("photos");
    let running = folder("bake-00000000000c");
    let _held = bakehouse::host::lock::FileLock::exclusive(&running.join("lock")).unwrap();

    let dry = removed(&swept(&bakery, &["--dry-run"]));
    assert!(left.join("disk.raw").exists() && bakery.snapshots().await.len() == 1, "{dry:?}");
    let real = removed(&swept(&bakery, &[]));
    for said in [&dry, &real] {
        assert!(said.iter().any(|line| line.contains(snapshot.as_str())), "{said:?}");
        for folder in [&left, &emptied] {
            assert!(said.iter().any(|line| Path::new(line) == folder), "{said:?}");
        }
        assert!(!said.iter().any(|line| line.contains("0000c") || line.contains("photos")), "{said:?}");
    }
    assert!(bakery.snapshots().await.is_empty());
    assert!(!left.exists());
    // What it names is found by its ledger in the other cloud; its disk only takes room.
    assert!(elsewhere.join("ledger.jsonl").exists() && !elsewhere.join("disk.raw").exists());
    assert!(photos.join("disk.raw").exists() && running.join("disk.raw").exists());
    assert!(removed(&swept(&bakery, &[])).is_empty());
}
