//! Blocks on their way: PutSnapshotBlock and GetSnapshotBlock, which are called by the thousand. They are written and read
//! here, signed by the SDK's own signer and sent by the HTTP library below it. What the SDK does around a call besides
//! (interceptors, layers of settings, rules of endpoints) was a seventh of an upload's processor time (docs/speed.md).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_ebs::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sdk_ec2::error::SdkError;
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SigningParams, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::request::Builder;
use tokio::sync::{OnceCell, RwLock};

use super::config::{ATTEMPT, IDENTITY, READ};
use super::http::Connections;
use super::place::{encoded, own_endpoint};
use super::{VERSION, error};
use crate::cloud::{
    BLOCK_SIZE, Block, BlockIndex, BlockSink, BlockToken, CloudError, Digest, ErrorKind, Place, Result,
    SnapshotId,
};
use crate::host::clock;

const PUT: &str = "PutSnapshotBlock";
const GET: &str = "GetSnapshotBlock";
/// The service's name in signatures.
const SERVICE: &str = "ebs";
const DATA_LENGTH: HeaderName = HeaderName::from_static("x-amz-data-length");
const CHECKSUM: HeaderName = HeaderName::from_static("x-amz-checksum");
const CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("x-amz-checksum-algorithm");
/// How long before they expire credentials are fetched anew: longer than a call may take.
const BEFORE_EXPIRY: Duration = Duration::from_secs(60);

/// How long a block may take to be sent, besides what a call may take: while as many others are under way as have memory
/// (24 MiB, `disk/buffers.rs`), on the slowest line of `config.rs`.
const SENT: Duration = Duration::from_secs(24);

/// The blocks of a place. Cloning shares connections and credentials.
#[derive(Clone, Debug)]
pub(super) struct AwsBlocks(Arc<Sender>);

#[derive(Debug)]
struct Sender {
    place: Place,
    config: SdkConfig,
    agent: String,
    /// Made when the first block is sent: the system's certificates are read for it.
    service: OnceCell<Service>,
    identity: RwLock<Option<(Identity, Option<SystemTime>)>>,
}

/// Where EBS is, and the way there.
#[derive(Debug)]
struct Service {
    endpoint: String,
    connections: Connections,
}

/// What the service says of a call that it refuses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(ErrorMetadata);

impl ProvideErrorMetadata for Refused {
    fn meta(&self) -> &ErrorMetadata {
        &self.0
    }
}

type Sent<T> = std::result::Result<T, SdkError<Refused, HttpResponse>>;

impl AwsBlocks {
    pub(super) fn new(config: &SdkConfig, place: &Place) -> Self {
        let app = config.app_name().map(|name| format!(" app/{name}")).unwrap_or_default();
        Self(Arc::new(Sender {
            place: place.clone(),
            config: config.clone(),
            agent: format!("bakehouse/{VERSION}{app}"),
            service: OnceCell::new(),
            identity: RwLock::default(),
        }))
    }

    /// PutSnapshotBlock.
    pub(super) async fn put(
        &self,
        id: &SnapshotId,
        index: BlockIndex,
        data: Block,
        digest: Digest,
    ) -> Result<()> {
        let request = Builder::new()
            .method(Method::PUT)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .header(CONTENT_LENGTH, data.len())
            .header(DATA_LENGTH, data.len())
            .header(CHECKSUM, digest.base64())
            .header(CHECKSUM_ALGORITHM, HeaderValue::from_static("SHA256"));
        let path = format!("/snapshots/{id}/blocks/{index}");
        self.0.send(PUT, request, path, SdkBody::from(data)).await.map(drop)
    }

    /// GetSnapshotBlock.
    pub(super) async fn get(
        &self,
        id: &SnapshotId,
        index: BlockIndex,
        token: &BlockToken,
        into: &dyn BlockSink,
    ) -> Result<()> {
        let path = format!("/snapshots/{id}/blocks/{index}?blockToken={}", encoded(&token.0));
        let request = Builder::new().method(Method::GET);
        let mut answer = self.0.send(GET, request, path, SdkBody::empty()).await?;
        let claimed = answer.headers().get(CHECKSUM.as_str()).and_then(|text| STANDARD.decode(text).ok());
        let digest = claimed.and_then(|raw| raw.try_into().ok()).map(Digest);
        let place = &self.0.place;
        let digest = digest.ok_or_else(|| {
            CloudError::new(ErrorKind::Unknown, GET, place, "the answer has no checksum".to_owned())
        })?;
        let cut = |text: &str| CloudError::new(ErrorKind::Transient, GET, place, text);
        into.begin(digest);
        let mut length = 0;
        let mut body = ByteStream::new(answer.take_body());
        let read = async {
            while let Some(part) = body.next().await {
                let part = part.map_err(|error| cut("the block broke off").with_source(error))?;
                length += part.len();
                if length > BLOCK_SIZE {
                    return Err(cut("the answer is longer than a block"));
                }
                into.piece(&part);
            }
            Ok(())
        };
        tokio::time::timeout(ATTEMPT, read)
            .await
            .map_err(|error| cut("the block did not come in time").with_source(error))?
    }
}

impl Sender {
    async fn send(
        &self,
        operation: &'static str,
        request: Builder,
        path: String,
        body: SdkBody,
    ) -> Result<HttpResponse> {
        let more = if operation == PUT { SENT } else { Duration::ZERO };
        let exchange = self.exchange(request, path, body, READ + more);
        let sent = tokio::time::timeout(ATTEMPT + more, exchange).await;
        let source = match sent {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(source)) => source,
            Err(elapsed) => SdkError::timeout_error(elapsed),
        };
        Err(error::failed(operation, &self.place, source))
    }

    async fn exchange(
        &self,
        request: Builder,
        path: String,
        body: SdkBody,
        within: Duration,
    ) -> Sent<HttpResponse> {
        let Service { endpoint, connections } = self.service.get_or_try_init(|| self.resolve()).await?;
        let request = request
            .uri(format!("{endpoint}{path}"))
            .header(USER_AGENT, &self.agent)
            .body(body)
            .map_err(SdkError::construction_failure)?;
        let request = self.signed(request).await?;
        let answer = connections.call(request, within).await.map_err(SdkError::dispatch_failure)?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }

    /// By Signature Version 4, but for the payload: its checksum is a header that is signed (EBS API model, `unsignedPayload`).
    async fn signed(&self, mut request: http::Request<SdkBody>) -> Sent<http::Request<SdkBody>> {
        let identity = self.identity().await.map_err(|error| {
            // In the form in which the SDK tells it, for `error.rs` to find.
            SdkError::dispatch_failure(ConnectorError::user(error.into()))
        })?;
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.place.region.as_str())
            .name(SERVICE)
            .time(SystemTime::from(clock::wall()))
            .settings(settings)
            .build()
            .map_err(SdkError::construction_failure)?;
        let headers = request.headers().iter();
        let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let uri = request.uri().to_string();
        let signable =
            SignableRequest::new(request.method().as_str(), &uri, headers, SignableBody::UnsignedPayload)
                .map_err(SdkError::construction_failure)?;
        let signed = sign(signable, &SigningParams::from(params)).map_err(SdkError::construction_failure)?;
        signed.into_parts().0.apply_to_request_http1x(&mut request);
        Ok(request)
    }

    /// Where EBS is: as the SDK's own client of it finds out.
    async fn resolve(&self) -> Sent<Service> {
        let params = Params::builder()
            .region(self.place.region.as_str())
            .use_fips(self.config.use_fips().unwrap_or_default())
            .use_dual_stack(self.config.use_dual_stack().unwrap_or_default())
            .set_endpoint(own_endpoint(&self.config, "EBS"))
            .build()
            .map_err(SdkError::construction_failure)?;
        let resolver: &dyn ResolveEndpoint = &DefaultResolver::new();
        let endpoint = resolver.resolve_endpoint(&params).await.map_err(SdkError::construction_failure)?;
        let endpoint = endpoint.url().trim_end_matches('/').to_owned();
        let connections =
            Connections::to(&endpoint, self.config.sleep_impl()).map_err(SdkError::dispatch_failure)?;
        Ok(Service { endpoint, connections })
    }

    async fn identity(&self) -> std::result::Result<Identity, CredentialsError> {
        if let Some(identity) = lasting(&*self.identity.read().await) {
            return Ok(identity);
        }
        let mut known = self.identity.write().await;
        // Another call may have fetched them meanwhile.
        if let Some(identity) = lasting(&known) {
            return Ok(identity);
        }
        let credentials = fetch(self.config.credentials_provider()).await?;
        let expiry = credentials.expiry();
        let identity = Identity::from(credentials);
        *known = Some((identity.clone(), expiry));
        Ok(identity)
    }
}

async fn fetch(
    provider: Option<SharedCredentialsProvider>,
) -> std::result::Result<Credentials, CredentialsError> {
    let provider = provider.ok_or_else(|| CredentialsError::not_loaded("none are configured"))?;
    tokio::time::timeout(IDENTITY, provider.provide_credentials())
        .await
        .unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(IDENTITY)))
}

/// Those that are known, where they are good for long enough.
fn lasting(known: &Option<(Identity, Option<SystemTime>)>) -> Option<Identity> {
    let (identity, expiry) = known.as_ref()?;
    let until = SystemTime::from(clock::wall()) + BEFORE_EXPIRY;
    expiry.is_none_or(|expiry| expiry > until).then(|| identity.clone())
}

/// What an answer says that is not the one that was asked for.
async fn refusal(mut answer: HttpResponse) -> SdkError<Refused, HttpResponse> {
    let body = match ByteStream::new(answer.take_body()).collect().await {
        Ok(body) => body.into_bytes(),
        Err(error) => return SdkError::response_error(error, answer),
    };
    let said = said(answer.headers().get("x-amzn-errortype"), &body);
    *answer.body_mut() = SdkBody::from(body);
    match said {
        Ok(said) => SdkError::service_error(Refused(said), answer),
        Err(error) => SdkError::response_error(error, answer),
    }
}

/// Code and message as rest-json services give them: the code in a header, or in the body.
fn said(code: Option<&str>, body: &[u8]) -> std::result::Result<ErrorMetadata, BoxError> {
    #[derive(Default, serde::Deserialize)]
    struct Body {
        #[serde(alias = "__type")]
        code: Option<String>,
        #[serde(alias = "Message", alias = "errorMessage")]
        message: Option<String>,
    }
    let body: Body = if body.is_empty() { Body::default() } else { serde_json::from_slice(body)? };
    // `namespace#Code:address`
    let code = code.map(str::to_owned).or(body.code);
    let code =
        code.as_deref().and_then(|code| code.split(':').next()).and_then(|code| code.rsplit('#').next());
    let mut said = ErrorMetadata::builder();
    if let Some(code) = code {
        said = said.code(code);
    }
    if let Some(message) = body.message {
        said = said.message(message);
    }
    Ok(said.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_in_a_header_or_in_the_body() {
        let told = |header: Option<&str>, body: &str| {
            let said = said(header, body.as_bytes()).unwrap();
            (said.code().map(str::to_owned), said.message().map(str::to_owned))
        };
        let both = |code: &str, text: &str| (Some(code.to_owned()), Some(text.to_owned()));
        assert_eq!(told(Some("a.b#Denied:http://x/"), r#"{"Message":"no"}"#), both("Denied", "no"));
        assert_eq!(told(None, r#"{"__type":"a#Late","message":"not yet"}"#), both("Late", "not yet"));
        assert_eq!(told(Some("Denied"), ""), (Some("Denied".to_owned()), None));
        assert_eq!(told(None, "{}"), (None, None));
        assert!(said(None, b"<html>").is_err(), "a proxy's page");
    }

    #[test]
    fn credentials_are_used_until_shortly_before_they_expire() {
        let at = |seconds: u64| {
            let expiry = SystemTime::from(clock::wall()) + Duration::from_secs(seconds);
            let keys = Credentials::new("AKIA", "secret", None, Some(expiry), "test");
            Some((Identity::from(keys), Some(expiry)))
        };
        assert!(lasting(&at(600)).is_some() && lasting(&at(30)).is_none() && lasting(&None).is_none());
        let lasts = (Identity::from(Credentials::new("AKIA", "secret", None, None, "test")), None);
        assert!(lasting(&Some(lasts)).is_some(), "keys without an end");
    }
}
