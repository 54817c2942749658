//! A registry of container images: where Bakehouse's own image is kept, for CodeBuild to run. Not part of [`Cloud`]: no
//! bake needs it, and only AWS has one.
//!
//! [`Cloud`]: super::Cloud

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Result;

/// Where images of one name are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Repository {
    pub name: String,
    pub arn: String,
    /// `123456789012.dkr.ecr.eu-west-1.amazonaws.com/bakehouse`: what an image is tagged with to be pushed there.
    pub uri: String,
    /// Whether a tag, once pushed, stays with its image.
    pub immutable_tags: bool,
    /// Whether every image is scanned when it is pushed.
    pub scans_on_push: bool,
}

/// What `docker login` is told: the user, and the password for its standard input.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Login {
    pub user: String,
    pub password: String,
    /// The registry's address.
    pub endpoint: String,
}

// A password is in no log.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

#[async_trait]
pub trait Registry: Send + Sync {
    /// `DescribeRepositories` of one name. One that does not exist is [`NotFound`](super::ErrorKind::NotFound).
    async fn repository(&self, name: &str) -> Result<Repository>;

    /// `CreateRepository`: with immutable tags and a scan of every image that is pushed. A name that exists is
    /// [`Exists`](super::ErrorKind::Exists).
    async fn create(&self, name: &str) -> Result<Repository>;

    /// `GetAuthorizationToken`: good for twelve hours (ECR API model).
    async fn login(&self) -> Result<Login>;

    /// `DescribeImages` of one tag: `sha256:` and 64 digits. An image that is not there is
    /// [`NotFound`](super::ErrorKind::NotFound).
    async fn digest(&self, name: &str, tag: &str) -> Result<String>;
}
