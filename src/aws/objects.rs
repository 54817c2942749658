//! Objects, as S3 keeps them.

use std::fmt::Write;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::presigning::PresigningConfig;
use bytes::Bytes;

use super::place::AwsPlace;
use crate::cloud::{CloudError, ErrorKind, Objects, Result, Tags};

const PUT: &str = "PutObject";
const GET: &str = "GetObject";
const LIST: &str = "ListObjectsV2";
const DELETE: &str = "DeleteObject";
/// How long an object's bytes may take once their answer began.
const BODY: Duration = Duration::from_secs(300);
/// The longest that a link may last (SigV4): seven days.
const LONGEST_LINK: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Clone, Debug)]
pub(super) struct AwsObjects(pub(super) AwsPlace);

#[async_trait]
impl Objects for AwsObjects {
    async fn put(&self, bucket: &str, key: &str, content: Bytes, tags: &Tags) -> Result<()> {
        let call = self.0.s3.put_object().bucket(bucket).key(key).body(content.into());
        let call = call.set_tagging((!tags.is_empty()).then(|| tagging(tags)));
        call.send().await.map(drop).map_err(self.0.failed(PUT))
    }

    async fn get(&self, bucket: &str, key: &str) -> Result<Bytes> {
        let sent = self.0.s3.get_object().bucket(bucket).key(key).send().await;
        let answer = sent.map_err(self.0.failed(GET))?;
        let cut = |text: &str| CloudError::new(ErrorKind::Transient, GET, &self.0.place, text);
        let body = tokio::time::timeout(BODY, answer.body.collect())
            .await
            .map_err(|error| cut("the object did not come in time").with_source(error))?
            .map_err(|error| cut("the object broke off").with_source(error))?;
        Ok(body.into_bytes())
    }

    async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<String>> {
        let call = self.0.s3.list_objects_v2().bucket(bucket).prefix(format!("{prefix}/"));
        let answer = call.send().await.map_err(self.0.failed(LIST))?;
        Ok(answer.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect())
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        let sent = self.0.s3.delete_object().bucket(bucket).key(key).send().await;
        sent.map(drop).map_err(self.0.failed(DELETE))
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

fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Into a text it cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
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
