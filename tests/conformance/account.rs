//! What an account is and how it is set.

use bakehouse::cloud::{Cloud, Quota};

use super::*;

on_every_cloud!(
    the_caller_is_of_the_places_account,
    nothing_is_encrypted_unless_the_account_says_so,
    nothing_is_made_public_by_asking,
    a_quota_has_room_for_something,
);

async fn the_caller_is_of_the_places_account(cloud: &Cloud) {
    let caller = cloud.account.identity().await.unwrap();
    assert_eq!(caller.account, cloud.place.account);
    let of = format!("arn:{}:", cloud.place.partition);
    assert!(caller.arn.starts_with(&of) && caller.arn.contains(caller.account.as_str()), "{}", caller.arn);
}

async fn nothing_is_encrypted_unless_the_account_says_so(cloud: &Cloud) {
    assert!(!cloud.account.encrypts_by_default().await.unwrap());
    let key = cloud.account.default_key().await.unwrap();
    assert_eq!(key.is_none(), is_local(cloud), "{key:?}");
    if let Some(key) = key {
        // By whichever of its names it is told: AWS's own, since nobody chose another.
        let key = cloud.keys.describe(&key).await.unwrap();
        assert!(key.enabled && key.symmetric && key.aws_managed, "{key:?}");
        assert!(key.arn.starts_with("arn:") && key.arn.contains(":key/"), "{key:?}");
    }
    let snapshot = make(cloud, &new_snapshot(1, None), &numbered(&[(0, 1)])).await;
    assert_eq!(snapshot_state(cloud, &snapshot).await.unwrap().encrypt, None);
}

async fn nothing_is_made_public_by_asking(cloud: &Cloud) {
    for _ in 0..2 {
        assert!(!cloud.account.blocks_public_images().await.unwrap());
        assert!(!cloud.account.blocks_public_snapshots().await.unwrap());
    }
}

async fn a_quota_has_room_for_something(cloud: &Cloud) {
    for quota in Quota::ALL {
        let limit = cloud.account.quota(quota).await.unwrap();
        assert_eq!(limit.is_none(), is_local(cloud), "{quota:?}: {limit:?}");
        assert!(limit.is_none_or(|limit| limit > 0), "{quota:?}");
    }
}
