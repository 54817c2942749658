//! Objects in buckets: how files come to an instance, and what it wrote comes back. A bucket of another account than the
//! place's takes nothing and gives nothing, whoever may have taken its name.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Result, Tags};

/// All objects below one prefix: `s3://bucket/prefix`. A bake's own are known by it before they exist.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ObjectsId(String);

impl ObjectsId {
    /// `None` where one is empty, the bucket holds a slash, or the prefix begins or ends with one.
    #[must_use]
    pub fn new(bucket: &str, prefix: &str) -> Option<Self> {
        let good = !bucket.is_empty()
            && !bucket.contains('/')
            && !prefix.is_empty()
            && !prefix.starts_with('/')
            && !prefix.ends_with('/');
        good.then(|| Self(format!("s3://{bucket}/{prefix}")))
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (bucket, prefix) = text.strip_prefix("s3://")?.split_once('/')?;
        Self::new(bucket, prefix)
    }

    #[must_use]
    pub fn bucket(&self) -> &str {
        self.0["s3://".len()..].split_once('/').map_or("", |(bucket, _)| bucket)
    }

    /// Without a slash at its end.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.0["s3://".len()..].split_once('/').map_or("", |(_, prefix)| prefix)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// Checked on the way in, as other ids are.
impl<'de> Deserialize<'de> for ObjectsId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::invalid_value(
                serde::de::Unexpected::Str(&text),
                &"objects like s3://bucket/prefix",
            )
        })
    }
}

impl fmt::Display for ObjectsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an object is made of.
#[derive(Clone, Debug)]
pub enum ObjectContent {
    Bytes(Bytes),
    /// A file of this host: it may be large, and is read while it is sent.
    File(PathBuf),
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion {
    pub key: String,
    /// Which one of those that a bucket keeps under this key; a mark of deletion is one too. `None` where a cloud knows no
    /// versions.
    pub version: Option<String>,
}

#[async_trait]
pub trait Objects: Send + Sync {
    /// `PutObject`, with tags in the call.
    async fn put(&self, bucket: &str, key: &str, content: &ObjectContent, tags: &Tags) -> Result<()>;

    /// `GetObject`. One that is not there may be [`Denied`](super::ErrorKind::Denied): [`list`](Self::list) first.
    async fn get(&self, bucket: &str, key: &str) -> Result<Bytes>;

    /// `ListObjectVersions`: the first below `prefix/`, at most a thousand, with all that the bucket keeps of them.
    async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<ObjectVersion>>;

    /// `DeleteObject`, of this version for good. One that is not there is fine.
    async fn delete(&self, bucket: &str, object: &ObjectVersion) -> Result<()>;

    /// An address from which an instance of this place can fetch the object for a while, without credentials.
    async fn link(&self, bucket: &str, key: &str, lasting: Duration) -> Result<String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_a_bucket_and_a_prefix() {
        let id = ObjectsId::new("bakery", "bakehouse/bake-1").unwrap();
        assert_eq!((id.bucket(), id.prefix()), ("bakery", "bakehouse/bake-1"));
        assert_eq!(ObjectsId::parse(id.as_str()), Some(id));
        for bad in
            ["", "s3://", "s3://bakery", "s3://bakery/", "s3:///a", "s3://b//a", "s3://b/a/", "ami-01234567"]
        {
            assert!(ObjectsId::parse(bad).is_none(), "{bad}");
        }
    }
}
