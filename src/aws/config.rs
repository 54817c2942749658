//! How the SDK is set up: where settings come from, how long a call may take, and that it never tries again by itself.

use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_smithy_async::rt::sleep::SharedAsyncSleep;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpClient};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

use super::{ConnectError, Fixed};
use crate::cloud::Region;

// The SDK itself has no limit but on connecting: a stalled put would hang for ever (awslabs/coldsnap#437). The figures
// are those that coldsnap came to (awslabs/coldsnap#438); the first is the SDK's own. What has to be sent first has longer.
pub(super) const CONNECT: Duration = Duration::from_millis(3100);
pub(super) const READ: Duration = Duration::from_secs(12);
pub(super) const ATTEMPT: Duration = Duration::from_secs(20);
const OPERATION: Duration = Duration::from_secs(120);
/// Bytes a second that an object is sent with at least: less than any line on which a bake is worth while.
const SLOWEST: u64 = 1 << 20;
/// How long fetching credentials may take: assuming a role is a call like any other.
pub(super) const IDENTITY: Duration = Duration::from_secs(20);
/// What calls are known by in CloudTrail, where AWS_SDK_UA_APP_ID names nothing else.
const APP_NAME: &str = "bakehouse";

/// Settings as every AWS tool reads them: environment, shared files, container, instance. With `region`, that one; with
/// `fixed`, that endpoint and those keys.
pub(super) async fn load(region: Option<&Region>, fixed: Option<&Fixed>) -> Result<SdkConfig, ConnectError> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client())
        // The seam's retry.rs is the one retry layer: a second one would multiply tries and hide throttling.
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts_of(0))
        // The timeouts above bound calls already; measuring the flow of each body costs processor time.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .identity_cache(IdentityCache::lazy().load_timeout(IDENTITY).build());
    if let Some(region) = region {
        loader = loader.region(aws_config::Region::new(region.as_str().to_owned()));
    }
    if let Some(Fixed { endpoint, access_key, secret_key }) = fixed {
        let keys = Credentials::new(access_key, secret_key, None, None, "fixed");
        loader = loader.endpoint_url(endpoint).credentials_provider(keys);
    }
    let config = loader.load().await;
    if config.region().is_none() {
        return Err(ConnectError::NoRegion);
    }
    if config.app_name().is_some() {
        return Ok(config);
    }
    let name = AppName::new(APP_NAME).ok();
    let mut builder = config.into_builder();
    builder.set_app_name(name);
    Ok(builder.build())
}

/// How long a call may take whose body has so many bytes: the SDK waits for an answer from the moment that it begins to
/// send.
pub(super) fn timeouts_of(bytes: u64) -> TimeoutConfig {
    let sent = Duration::from_secs(bytes / SLOWEST);
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .read_timeout(READ + sent)
        .operation_attempt_timeout(ATTEMPT + sent)
        .operation_timeout(OPERATION + sent)
        .build()
}

/// One client, and so one pool of connections, for all services and places. It trusts the system's certificates
/// (`SSL_CERT_FILE`) and goes through the proxy that the environment names.
fn http_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components: Option<&RuntimeComponents>| {
        connector(settings, components.and_then(RuntimeComponents::sleep_impl))
    })
}

pub(super) fn connector(
    settings: Option<&HttpConnectorSettings>,
    sleep: Option<SharedAsyncSleep>,
) -> Connector {
    let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
    connector.set_connector_settings(settings.cloned());
    connector.set_sleep_impl(sleep);
    connector.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_body_has_the_time_that_a_slow_line_needs() {
        let (plain, large) = (timeouts_of(4096), timeouts_of(600 << 20));
        assert_eq!((plain.read_timeout(), plain.operation_attempt_timeout()), (Some(READ), Some(ATTEMPT)));
        let sent = Some(Duration::from_secs(600));
        assert!(large.read_timeout() > sent && large.operation_attempt_timeout() > sent);
        assert!(large.operation_timeout() > large.operation_attempt_timeout());
    }
}
