//! The faulty cloud itself: what it fails, what took effect, what it counts.

use std::sync::{Arc, Mutex};

use bakehouse::cloud::faulty::Faults;
use bakehouse::cloud::{Cloud, ErrorKind, SnapshotQuery};

use crate::conformance::{local_cloud, new_snapshot, new_token};

type Told = Arc<Mutex<Vec<String>>>;

fn faulty(cloud: Cloud, fault: &str) -> (Cloud, Told) {
    let told = Told::default();
    let into = told.clone();
    let tell = Box::new(move |text: &str| into.lock().unwrap().push(text.to_owned()));
    (Faults::new(Some(fault.parse().unwrap()), tell).of(cloud), told)
}

async fn snapshots(cloud: &Cloud) -> usize {
    cloud.snapshots.describe(&SnapshotQuery::default()).await.unwrap().len()
}

#[tokio::test]
async fn a_call_fails_once_and_before_it_took_effect() {
    let (_folder, local) = local_cloud();
    let (cloud, calls) = faulty(local, "2:before:quota");
    let (new, token) = (new_snapshot(1, None), new_token());
    let first = cloud.snapshots.start(&new, &token).await.unwrap();
    let error = cloud.snapshots.delete(&first).await.unwrap_err();
    assert_eq!((error.kind, error.operation), (ErrorKind::Quota, "DeleteSnapshot"));
    assert_eq!(snapshots(&cloud).await, 1);
    cloud.snapshots.delete(&first).await.unwrap();
    assert_eq!(snapshots(&cloud).await, 0);
    let expected =
        ["call 1 StartSnapshot", "call 2 DeleteSnapshot", "struck 2 DeleteSnapshot", "call 3 DeleteSnapshot"];
    assert_eq!(*calls.lock().unwrap(), expected);
}

#[tokio::test]
async fn an_answer_is_lost_after_the_call_took_effect() {
    let (_folder, local) = local_cloud();
    let (cloud, _) = faulty(local, "1:after:transient");
    let (new, token) = (new_snapshot(1, None), new_token());
    assert_eq!(cloud.snapshots.start(&new, &token).await.unwrap_err().kind, ErrorKind::Transient);
    assert_eq!(snapshots(&cloud).await, 1);
    // The same token gives the same snapshot.
    cloud.snapshots.start(&new, &token).await.unwrap();
    assert_eq!(snapshots(&cloud).await, 1);
}

#[tokio::test]
async fn a_call_that_failed_by_itself_has_no_answer_to_lose() {
    let (_folder, local) = local_cloud();
    let (cloud, told) = faulty(local, "StartSnapshot#1:after:quota");
    let (mut new, token) = (new_snapshot(1, None), new_token());
    new.volume_size = 0;
    assert_eq!(cloud.snapshots.start(&new, &token).await.unwrap_err().kind, ErrorKind::Invalid);
    new.volume_size = 1;
    assert_eq!(cloud.snapshots.start(&new, &token).await.unwrap_err().kind, ErrorKind::Quota);
    assert_eq!(told.lock().unwrap().last().unwrap(), "struck 2 StartSnapshot");
}

#[tokio::test]
async fn a_lasting_fault_is_every_capabilitys() {
    let (_folder, local) = local_cloud();
    let (cloud, _) = faulty(local, "2:before:denied:lasting");
    let id = cloud.snapshots.start(&new_snapshot(1, None), &new_token()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(cloud.snapshots.delete(&id).await.unwrap_err().kind, ErrorKind::Denied);
    }
    let label = cloud.parameters.label("/bakehouse/web/x86_64/release", 1, "now").await;
    assert_eq!(label.unwrap_err().kind, ErrorKind::Denied);
    assert_eq!(snapshots(&cloud).await, 1);
}
