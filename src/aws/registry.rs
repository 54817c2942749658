//! The registry of container images, as ECR keeps it.

use async_trait::async_trait;
use aws_sdk_ecr::types::{ImageIdentifier, ImageScanningConfiguration, ImageTagMutability};
use base64::Engine as _;

use super::place::AwsPlace;
use crate::cloud::{CloudError, ErrorKind, Login, Registry, Repository, Result};

const FIND: &str = "DescribeRepositories";
const CREATE: &str = "CreateRepository";
const LOGIN: &str = "GetAuthorizationToken";
/// EC2 has an operation of that name too.
const IMAGES: &str = "ecr:DescribeImages";

#[derive(Clone, Debug)]
pub(super) struct AwsRegistry {
    pub(super) here: AwsPlace,
    pub(super) ecr: aws_sdk_ecr::Client,
}

impl AwsRegistry {
    fn read(&self, found: &aws_sdk_ecr::types::Repository, operation: &'static str) -> Result<Repository> {
        let text = |text: Option<&str>| {
            text.map(str::to_owned)
                .ok_or_else(|| self.here.odd(operation, "a repository without name or uri"))
        };
        Ok(Repository {
            name: text(found.repository_name())?,
            arn: text(found.repository_arn())?,
            uri: text(found.repository_uri())?,
            immutable_tags: found.image_tag_mutability() == Some(&ImageTagMutability::Immutable),
            scans_on_push: found
                .image_scanning_configuration()
                .is_some_and(ImageScanningConfiguration::scan_on_push),
        })
    }
}

#[async_trait]
impl Registry for AwsRegistry {
    async fn repository(&self, name: &str) -> Result<Repository> {
        let call = self.ecr.describe_repositories().repository_names(name);
        let answer = call.send().await.map_err(self.here.failed(FIND))?;
        let found = answer.repositories().first().ok_or_else(|| self.here.odd(FIND, "no repository"))?;
        self.read(found, FIND)
    }

    async fn create(&self, name: &str) -> Result<Repository> {
        let scan = ImageScanningConfiguration::builder().scan_on_push(true).build();
        let call = self
            .ecr
            .create_repository()
            .repository_name(name)
            .image_tag_mutability(ImageTagMutability::Immutable)
            .image_scanning_configuration(scan);
        let answer = call.send().await.map_err(self.here.failed(CREATE))?;
        let made = answer.repository().ok_or_else(|| self.here.odd(CREATE, "no repository"))?;
        self.read(made, CREATE)
    }

    async fn login(&self) -> Result<Login> {
        let answer = self.ecr.get_authorization_token().send().await.map_err(self.here.failed(LOGIN))?;
        let data = answer.authorization_data().first();
        let decoded = data
            .and_then(|data| data.authorization_token())
            .and_then(|token| base64::engine::general_purpose::STANDARD.decode(token).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let parts = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (Some((user, password)), Some(endpoint)) = (parts, data.and_then(|data| data.proxy_endpoint()))
        else {
            return Err(self.here.odd(LOGIN, "no token of the form USER:PASSWORD with an endpoint"));
        };
        Ok(Login { user: user.to_owned(), password: password.to_owned(), endpoint: endpoint.to_owned() })
    }

    async fn digest(&self, name: &str, tag: &str) -> Result<String> {
        let call = self
            .ecr
            .describe_images()
            .repository_name(name)
            .image_ids(ImageIdentifier::builder().image_tag(tag).build());
        let answer = call.send().await.map_err(self.here.failed(IMAGES))?;
        let digest = answer.image_details().first().and_then(|image| image.image_digest());
        digest.map(str::to_owned).ok_or_else(|| {
            CloudError::new(
                ErrorKind::NotFound,
                IMAGES,
                &self.here.place,
                format!("no image in {name} has the tag {tag}"),
            )
        })
    }
}
