//! Keys.

use bakehouse::cloud::{Cloud, ErrorKind};

use super::*;

on_every_cloud!(a_key_that_is_not_there_is_not_found_by_any_name);

async fn a_key_that_is_not_there_is_not_found_by_any_name(cloud: &Cloud) {
    let (place, id) = (&cloud.place, uuid::Uuid::new_v4().to_string());
    let arn = |rest: &str| format!("arn:{}:kms:{}:{}:{rest}", place.partition, place.region, place.account);
    let names = [
        id.clone(),
        format!("alias/{}", unique("bakery")),
        arn(&format!("key/{id}")),
        arn(&format!("alias/{}", unique("bakery"))),
    ];
    for name in names {
        let error = refused(cloud.keys.describe(&name).await, ErrorKind::NotFound);
        assert_eq!(error.code.as_deref(), Some("NotFoundException"), "{name}");
    }
}
