//! Objects.

use bakehouse::cloud::{Cloud, ErrorKind, ObjectContent, ObjectVersion, Tags};
use bytes::Bytes;

use super::*;

on_every_cloud!(
    an_object_is_read_as_it_was_put_last,
    an_object_that_is_not_there_is_not_given_and_deleting_it_is_fine,
    what_is_below_a_prefix_is_listed_and_nothing_beside_it,
    keys_and_tags_have_any_characters,
);

fn tags() -> Tags {
    Tags::from([
        ("bakehouse:bake".to_owned(), "bake-1".to_owned()),
        ("team".to_owned(), "a+b c=ü".to_owned()),
    ])
}

async fn put(cloud: &Cloud, key: &str, content: &[u8]) {
    let content = ObjectContent::Bytes(Bytes::copy_from_slice(content));
    cloud.objects.put(&bucket(cloud), key, &content, &tags()).await.unwrap();
}

async fn keys(cloud: &Cloud, prefix: &str) -> Vec<String> {
    let listed = cloud.objects.list(&bucket(cloud), prefix).await.unwrap();
    listed.into_iter().map(|object| object.key).collect()
}

/// Takes away all that there is of a key.
async fn delete(cloud: &Cloud, prefix: &str, key: &str) {
    for object in cloud.objects.list(&bucket(cloud), prefix).await.unwrap() {
        if object.key == key {
            cloud.objects.delete(&bucket(cloud), &object).await.unwrap();
        }
    }
}

async fn an_object_is_read_as_it_was_put_last(cloud: &Cloud) {
    let (bake, folder) = (unique("bake"), tempfile::tempdir().unwrap());
    let key = format!("{bake}/bundle");
    let large: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    for content in [&b"first"[..], &large, b""] {
        put(cloud, &key, content).await;
        assert_eq!(cloud.objects.get(&bucket(cloud), &key).await.unwrap(), content);
        let file = folder.path().join("file");
        std::fs::write(&file, content).unwrap();
        let content_of_file = ObjectContent::File(file);
        cloud.objects.put(&bucket(cloud), &key, &content_of_file, &tags()).await.unwrap();
        assert_eq!(cloud.objects.get(&bucket(cloud), &key).await.unwrap(), content);
    }
    assert_eq!(keys(cloud, &bake).await, std::slice::from_ref(&key));
    delete(cloud, &bake, &key).await;
    assert!(keys(cloud, &bake).await.is_empty());
    cloud.objects.get(&bucket(cloud), &key).await.unwrap_err();
}

/// S3 calls it denied, for whoever may not list the bucket with ListObjectsV2.
async fn an_object_that_is_not_there_is_not_given_and_deleting_it_is_fine(cloud: &Cloud) {
    let (bucket, key) = (bucket(cloud), unique("nothing"));
    let error = cloud.objects.get(&bucket, &key).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotFound | ErrorKind::Denied), "{error}");
    let absent = ObjectVersion { key: key.clone(), version: None };
    cloud.objects.delete(&bucket, &absent).await.unwrap();
    assert!(cloud.objects.list(&bucket, &key).await.unwrap().is_empty());
}

async fn what_is_below_a_prefix_is_listed_and_nothing_beside_it(cloud: &Cloud) {
    let bake = unique("bakehouse/bake");
    let own = ["bundle", "out/i-1/stdout", "provisioner"].map(|name| format!("{bake}/{name}"));
    for key in own.iter().rev() {
        put(cloud, key, b"own").await;
    }
    // The same beginning, and another folder; and the prefix itself.
    for key in [format!("{bake}-2/bundle"), bake.clone()] {
        put(cloud, &key, b"other").await;
    }
    assert_eq!(keys(cloud, &bake).await, own);
    delete(cloud, &bake, &own[1]).await;
    assert_eq!(keys(cloud, &bake).await, [own[0].clone(), own[2].clone()]);
    assert_eq!(cloud.objects.get(&bucket(cloud), &bake).await.unwrap(), &b"other"[..]);
}

async fn keys_and_tags_have_any_characters(cloud: &Cloud) {
    let bake = unique("bake");
    for name in ["a b", "ü", "a+b&c=d", "100%", "a//b", ".hidden"] {
        let key = format!("{bake}/{name}");
        put(cloud, &key, name.as_bytes()).await;
        assert_eq!(cloud.objects.get(&bucket(cloud), &key).await.unwrap(), name.as_bytes(), "{name}");
        assert_eq!(keys(cloud, &bake).await, std::slice::from_ref(&key));
        delete(cloud, &bake, &key).await;
    }
}
