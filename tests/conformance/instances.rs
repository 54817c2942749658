//! Instances, as far as none has to run: what runs is tests/acceptance's.

use bakehouse::cloud::{Cloud, ErrorKind, InstanceId, InstanceQuery, Tags};

use super::*;

on_every_cloud!(an_unknown_instance_is_not_found, no_instance_has_a_tag_that_was_never_set);

async fn an_unknown_instance_is_not_found(cloud: &Cloud) {
    let id = InstanceId::parse("i-0123456789abcdef0").unwrap();
    let query = InstanceQuery { ids: vec![id.clone()], ..InstanceQuery::default() };
    refused(cloud.instances.find(&query).await, ErrorKind::NotFound);
    refused(cloud.instances.describe(&id).await, ErrorKind::NotFound);
    refused(cloud.instances.terminate(&id).await, ErrorKind::NotFound);
}

async fn no_instance_has_a_tag_that_was_never_set(cloud: &Cloud) {
    let key = unique("key");
    let by_key = InstanceQuery { tag_keys: vec![key.clone()], ..InstanceQuery::default() };
    assert!(cloud.instances.find(&by_key).await.unwrap().is_empty());
    let by_value = InstanceQuery { tags: Tags::from([(key, String::new())]), ..InstanceQuery::default() };
    assert!(cloud.instances.find(&by_value).await.unwrap().is_empty());
}
