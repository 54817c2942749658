//! Objects of the local cloud. Each is a file `objects/SHA-256`, named by the digest of its bucket and key, beside one
//! with its key and tags; an instance fetches it through its metadata service (metadata.rs).

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::durable;
use super::place::LocalPlace;
use super::refusal::Refusal;
use super::store::StoreError;
use crate::cloud::{Digest, ObjectContent, ObjectVersion, Objects, Result, Tags};

/// `ListObjectVersions` gives at most so many.
const PAGE: usize = 1000;

/// What the metadata service's addresses of objects begin with.
pub(super) const LINKS: &str = "bakehouse-objects";

#[derive(Debug)]
pub(super) struct LocalObjects(pub(super) LocalPlace);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Kept {
    bucket: String,
    key: String,
    tags: Tags,
}

/// The name of an object's file.
fn name(bucket: &str, key: &str) -> String {
    Digest::of(format!("{bucket}\n{key}").as_bytes()).hex()
}

/// Whether a text is such a name: it becomes a path.
pub(super) fn is_name(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[async_trait]
impl Objects for LocalObjects {
    async fn put(&self, bucket: &str, key: &str, content: &ObjectContent, tags: &Tags) -> Result<()> {
        let (name, tags, content) = (name(bucket, key), tags.clone(), content.clone());
        let kept = Kept { bucket: bucket.to_owned(), key: key.to_owned(), tags };
        self.0
            .call("PutObject", move |here| {
                let folder = here.objects();
                durable::make_folders(&folder)?;
                // Its key first: a file without one would be nobody's.
                durable::write_json(&folder.join(format!("{name}.json")), &kept)?;
                let to = folder.join(&name);
                Ok(match content {
                    ObjectContent::Bytes(bytes) => durable::write(&to, &bytes),
                    ObjectContent::File(from) => durable::copy(&from, &to),
                }?)
            })
            .await
    }

    async fn get(&self, bucket: &str, key: &str) -> Result<Bytes> {
        let (name, key) = (name(bucket, key), key.to_owned());
        self.0
            .call("GetObject", move |here| {
                let path = here.objects().join(&name);
                match std::fs::read(&path) {
                    Ok(bytes) => Ok(Bytes::from(bytes)),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        Err(Refusal::not_found("NoSuchKey", format!("there is no object {key}")))
                    }
                    Err(error) => Err(StoreError::io("read", &path)(error).into()),
                }
            })
            .await
    }

    async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<ObjectVersion>> {
        let (bucket, prefix) = (bucket.to_owned(), format!("{prefix}/"));
        self.0
            .call("ListObjectVersions", move |here| {
                let folder = here.objects();
                let mut keys = Vec::new();
                for name in durable::names(&folder)? {
                    if !name.ends_with(".json") {
                        continue;
                    }
                    let kept: Option<Kept> = durable::read_json(&folder.join(&name))?;
                    keys.extend(
                        kept.filter(|kept| kept.bucket == bucket && kept.key.starts_with(&prefix))
                            .map(|kept| kept.key),
                    );
                }
                keys.sort();
                keys.truncate(PAGE);
                Ok(keys.into_iter().map(|key| ObjectVersion { key, version: None }).collect())
            })
            .await
    }

    async fn delete(&self, bucket: &str, object: &ObjectVersion) -> Result<()> {
        let name = name(bucket, &object.key);
        self.0
            .call("DeleteObject", move |here| {
                let folder = here.objects();
                // The key last, as it came first.
                for path in [folder.join(&name), folder.join(format!("{name}.json"))] {
                    match std::fs::remove_file(&path) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            return Err(StoreError::io("delete", &path)(error).into());
                        }
                        _ => {}
                    }
                }
                Ok(())
            })
            .await
    }

    async fn link(&self, bucket: &str, key: &str, _: Duration) -> Result<String> {
        Ok(format!("http://169.254.169.254/{LINKS}/{}", name(bucket, key)))
    }
}
