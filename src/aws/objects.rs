//! Objects, as S3 keeps them.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::config::timeouts_of;
use super::place::{AwsPlace, encoded};
use crate::cloud::{CloudError, ErrorKind, ObjectContent, ObjectVersion, Objects, Result, Tags};

const PUT: &str = "PutObject";
const GET: &str = "GetObject";
const LIST: &str = "ListObjectVersions";
const DELETE: &str = "DeleteObject";
/// How long an object's bytes may take once their answer began.
const BODY: Duration = Duration::from_secs(300);
/// The longest that a link may last (SigV4): seven days.
const LONGEST_LINK: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Clone, Debug)]
pub(super) struct AwsObjects(pub(super) AwsPlace);

impl AwsObjects {
    /// Names of buckets are everybody's: whoever takes the name of one that was deleted is given nothing.
    fn owner(&self) -> &str {
        self.0.place.account.as_str()
    }

    /// What is sent, and its bytes.
    async fn body(&self, content: &ObjectContent) -> Result<(ByteStream, u64)> {
        let path = match content {
            ObjectContent::Bytes(bytes) => {
                return Ok((ByteStream::from(bytes.clone()), bytes.len() as u64));
            }
            ObjectContent::File(path) => path,
        };
        let unread = || {
            CloudError::new(ErrorKind::Invalid, PUT, &self.0.place, format!("cannot read {}", path.display()))
        };
        let about = tokio::fs::metadata(path).await.map_err(|error| unread().with_source(error))?;
        let body = ByteStream::from_path(path).await.map_err(|error| unread().with_source(error))?;
        Ok((body, about.len()))
    }
}

#[async_trait]
impl Objects for AwsObjects {
    async fn put(&self, bucket: &str, key: &str, content: &ObjectContent, tags: &Tags) -> Result<()> {
        let (body, size) = self.body(content).await?;
        let call = self.0.s3.put_object().bucket(bucket).key(key).body(body);
        let call = call.set_tagging((!tags.is_empty()).then(|| tagging(tags)));
        let call = call.expected_bucket_owner(self.owner()).customize();
        let timeouts = aws_sdk_s3::Config::builder().timeout_config(timeouts_of(size));
        call.config_override(timeouts).send().await.map(drop).map_err(self.0.failed(PUT))
    }

    async fn get(&self, bucket: &str, key: &str) -> Result<Bytes> {
        let call = self.0.s3.get_object().bucket(bucket).key(key).expected_bucket_owner(self.owner());
        let answer = call.send().await.map_err(self.0.failed(GET))?;
        let cut = |text: &str| CloudError::new(ErrorKind::Transient, GET, &self.0.place, text);
        let body = tokio::time::timeout(BODY, answer.body.collect())
            .await
            .map_err(|error| cut("the object did not come in time").with_source(error))?
            .map_err(|error| cut("the object broke off").with_source(error))?;
        Ok(body.into_bytes())
    }

    async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<ObjectVersion>> {
        let call = self.0.s3.list_object_versions().bucket(bucket).prefix(format!("{prefix}/"));
        let call = call.expected_bucket_owner(self.owner());
        let answer = call.send().await.map_err(self.0.failed(LIST))?;
        // In a bucket that keeps no versions each object is one that is called `null`.
        let objects = answer.versions().iter().map(|one| (one.key(), one.version_id()));
        let marks = answer.delete_markers().iter().map(|one| (one.key(), one.version_id()));
        let version = |(key, version): (Option<&str>, Option<&str>)| {
            Some(ObjectVersion { key: key?.to_owned(), version: version.map(str::to_owned) })
        };
        Ok(objects.chain(marks).filter_map(version).collect())
    }

    async fn delete(&self, bucket: &str, object: &ObjectVersion) -> Result<()> {
        let call = self.0.s3.delete_object().bucket(bucket).key(&object.key);
        let call = call.set_version_id(object.version.clone()).expected_bucket_owner(self.owner());
        call.send().await.map(drop).map_err(self.0.failed(DELETE))
    }

    async fn link(&self, bucket: &str, key: &str, lasting: Duration) -> Result<String> {
        let lasting = PresigningConfig::expires_in(lasting.min(LONGEST_LINK)).map_err(|error| {
            CloudError::new(ErrorKind::Invalid, GET, &self.0.place, "no link lasts that long")
                .with_source(error)
        })?;
        let signed = self.0.s3.get_object().bucket(bucket).key(key).presigned(lasting).await;
        signed.map(|signed| signed.uri().to_owned()).map_err(self.0.failed(GET))
    }
}

/// Tags as PutObject takes them: a query string.
fn tagging(tags: &Tags) -> String {
    let pairs: Vec<String> =
        tags.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_an_object_are_a_query() {
        let tags = Tags::from([
            ("bakehouse:bake".to_owned(), "bake-1".to_owned()),
            ("team".to_owned(), "a&b c".to_owned()),
        ]);
        assert_eq!(tagging(&tags), "bakehouse%3Abake=bake-1&team=a%26b%20c");
    }
}
