//! One account in one region: its clients, and the small turns between the seam's types and the SDK's.

use std::future::Future;

use aws_config::SdkConfig;
use aws_sdk_ec2::error::SdkError;
use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::service_config::ServiceConfigKey;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::blocks::AwsBlocks;
use super::error;
use crate::cloud::{CloudError, ErrorKind, Place, Result, Tags, retrying};
use crate::host::stop::Stop;

/// The clients of a place. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct AwsPlace {
    pub(super) place: Place,
    pub(super) ec2: aws_sdk_ec2::Client,
    pub(super) ebs: aws_sdk_ebs::Client,
    pub(super) blocks: AwsBlocks,
    pub(super) ssm: aws_sdk_ssm::Client,
    pub(super) sts: aws_sdk_sts::Client,
    pub(super) kms: aws_sdk_kms::Client,
    pub(super) quotas: aws_sdk_servicequotas::Client,
    pub(super) s3: aws_sdk_s3::Client,
}

impl AwsPlace {
    pub(super) fn new(config: &SdkConfig, place: &Place) -> Self {
        let own = has_own_s3(config);
        let s3 = aws_sdk_s3::config::Builder::from(config).force_path_style(own).build();
        Self {
            place: place.clone(),
            ec2: aws_sdk_ec2::Client::new(config),
            ebs: aws_sdk_ebs::Client::new(config),
            blocks: AwsBlocks::new(config, place),
            ssm: aws_sdk_ssm::Client::new(config),
            sts: aws_sdk_sts::Client::new(config),
            kms: aws_sdk_kms::Client::new(config),
            quotas: aws_sdk_servicequotas::Client::new(config),
            s3: aws_sdk_s3::Client::from_conf(s3),
        }
    }

    /// For `map_err` of what an operation answers.
    pub(super) fn failed<E>(
        &self,
        operation: &'static str,
    ) -> impl FnOnce(SdkError<E, HttpResponse>) -> CloudError + use<'_, E>
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        move |source| error::failed(operation, &self.place, source)
    }

    /// An answer that does not hold what its operation always answers.
    pub(super) fn odd(&self, operation: &'static str, what: &str) -> CloudError {
        CloudError::new(ErrorKind::Unknown, operation, &self.place, format!("the answer has {what}"))
    }
}

/// Whether S3 is at an endpoint of one's own, which has no name for each bucket.
fn has_own_s3(config: &SdkConfig) -> bool {
    own_endpoint(config, "S3").is_some()
}

/// The endpoint that a service is said to be at: its own `AWS_ENDPOINT_URL_…` of the environment or the profile, under the
/// names by which the SDK's clients ask for it, or one for all services.
pub(super) fn own_endpoint(config: &SdkConfig, service: &str) -> Option<String> {
    let for_all = || config.endpoint_url().map(str::to_owned);
    if config.get_origin("endpoint_url").is_client_config() {
        return for_all();
    }
    let key = ServiceConfigKey::builder()
        .service_id(service)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok();
    let own = config.service_config().zip(key).and_then(|(all, key)| all.load_config(key));
    own.or_else(for_all)
}

/// A text within a query, as signatures want it: all but letters, digits and `-._~` is encoded (SigV4, "URI encode").
pub(super) fn encoded(text: &str) -> String {
    const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, &KEPT).to_string()
}

/// One page of a listing. The first is tried again by whoever wants the listing; a later one here, by the same rules: to
/// begin anew would ask for every page before it once more, just when too much was asked for.
pub(super) async fn page<T, F, Fut>(is_first: bool, mut call: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    if is_first { call().await } else { retrying(&Stop::never(), call).await }
}

pub(super) fn ec2_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// What a resource is created with. `None` without tags: EC2 refuses an empty list.
pub(super) fn tagged(kind: ResourceType, tags: &Tags) -> Option<TagSpecification> {
    (!tags.is_empty())
        .then(|| TagSpecification::builder().resource_type(kind).set_tags(Some(ec2_tags(tags))).build())
}

pub(super) fn tags_of(tags: &[Tag]) -> Tags {
    tags.iter()
        .map(|tag| (tag.key().unwrap_or_default().to_owned(), tag.value().unwrap_or_default().to_owned()))
        .collect()
}

/// Filters for all of these tags with exactly these values, and all of these keys. `None` where nothing is asked.
pub(super) fn tag_filters(tags: &Tags, keys: &[String]) -> Vec<Filter> {
    let mut filters: Vec<Filter> = tags
        .iter()
        .map(|(key, value)| Filter::builder().name(format!("tag:{key}")).values(literally(value)).build())
        .collect();
    filters.extend(keys.iter().map(|key| Filter::builder().name("tag-key").values(literally(key)).build()));
    filters
}

/// A filter's value that matches this text alone: `*` and `?` are wildcards there, and a backslash takes that away.
fn literally(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A list that is left out where it is empty.
pub(super) fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

pub(super) fn timestamp(time: &aws_smithy_types::DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use aws_types::service_config::LoadServiceConfig;

    use super::*;

    /// An environment with an endpoint of one service.
    #[derive(Debug)]
    struct Endpoint(&'static str);

    impl LoadServiceConfig for Endpoint {
        fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
            let asked = (key.service_id(), key.env(), key.profile());
            (asked == (self.0, "AWS_ENDPOINT_URL", "endpoint_url")).then(|| "http://127.0.0.1:1".to_owned())
        }
    }

    #[test]
    fn an_endpoint_of_s3_is_known_whichever_way_it_is_set() {
        let of = |service| SdkConfig::builder().service_config(Endpoint(service)).build();
        assert!(has_own_s3(&of("S3")));
        assert!(!has_own_s3(&of("EC2")));
        assert!(!has_own_s3(&SdkConfig::builder().build()));
        assert!(has_own_s3(&SdkConfig::builder().endpoint_url("http://127.0.0.1:1").build()));
    }

    #[test]
    fn a_tag_is_asked_for_as_it_is() {
        assert_eq!(literally(r"a*b?c\d"), r"a\*b\?c\\d");
        let tags = Tags::from([("team".to_owned(), "*".to_owned())]);
        let filters = tag_filters(&tags, &["bakehouse:bake".to_owned()]);
        assert_eq!((filters[0].name(), filters[0].values()), (Some("tag:team"), &[r"\*".to_owned()][..]));
        assert_eq!(filters[1].name(), Some("tag-key"));
    }
}
