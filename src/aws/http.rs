//! The connections on which blocks come and go. The SDK's own client reads half a MiB ahead on each, which for 64 of them is
//! most of a download's memory, and has no setting for that; this is the same library below it, with less. Through a proxy
//! the SDK's client goes.

use std::time::Duration;

use aws_smithy_async::rt::sleep::SharedAsyncSleep;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::blocks::SENT;
use super::config::{CONNECT, READ, connector};

/// Bytes that are read ahead on a connection. With fewer a download takes more processor time, with more only more memory
/// (docs/speed.md).
const AHEAD: usize = 128 << 10;

/// Connections to one endpoint.
#[derive(Debug)]
pub(super) enum Connections {
    Straight(Box<Client<HttpsConnector<TcpConnector>, SdkBody>>),
    Proxied(SharedHttpConnector),
}

impl Connections {
    /// To this endpoint. They trust the system's certificates (`SSL_CERT_FILE`), and go through the proxy that the
    /// environment names, as those of the SDK.
    ///
    /// # Errors
    /// Where the system has no certificates.
    pub(super) fn to(endpoint: &str, sleep: Option<SharedAsyncSleep>) -> Result<Self, ConnectorError> {
        let uri =
            endpoint.parse().map_err(|error: http::uri::InvalidUri| ConnectorError::user(error.into()))?;
        if Matcher::from_env().intercept(&uri).is_some() {
            // It has one limit for all; whoever calls has a stricter one.
            let read = READ + SENT;
            let settings =
                HttpConnectorSettings::builder().connect_timeout(CONNECT).read_timeout(read).build();
            return Ok(Self::Proxied(SharedHttpConnector::new(connector(Some(&settings), sleep))));
        }
        let mut tcp = TcpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())
            .map_err(|error| ConnectorError::user(error.into()))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(AHEAD)
            .build(tls.https_or_http().enable_http1().wrap_connector(tcp));
        Ok(Self::Straight(Box::new(client)))
    }

    /// Sends a request and gives the head of its answer, which comes `within` so long.
    ///
    /// # Errors
    /// Where none comes, or not in time.
    pub(super) async fn call(
        &self,
        request: http::Request<SdkBody>,
        within: Duration,
    ) -> Result<HttpResponse, ConnectorError> {
        let user = |error: aws_smithy_runtime_api::http::HttpError| ConnectorError::user(error.into());
        match self {
            Self::Straight(client) => {
                let answer = tokio::time::timeout(within, client.request(request))
                    .await
                    .map_err(|elapsed| ConnectorError::timeout(elapsed.into()))?
                    .map_err(|error| ConnectorError::io(error.into()))?;
                HttpResponse::try_from(answer.map(SdkBody::from_body_1_x)).map_err(user)
            }
            Self::Proxied(connector) => connector.call(HttpRequest::try_from(request).map_err(user)?).await,
        }
    }
}
