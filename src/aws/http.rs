//! The connections on which blocks come and go. The SDK's own client reads 400 KiB ahead on each, which for 64 of them is
//! a quarter of a download's memory, and has no setting for that; this is the same library below it, with less. Through a
//! proxy the SDK's client goes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_async::rt::sleep::SharedAsyncSleep;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

use super::config::{CONNECT, connector};

/// Bytes that are read ahead on a connection. With fewer a download takes more processor time, with more only more memory
/// (docs/speed.md).
const AHEAD: usize = 128 << 10;

/// Connections to one endpoint.
#[derive(Debug)]
pub(super) enum Connections {
    Straight(Box<Client<InTime, SdkBody>>),
    Proxied(SharedHttpConnector),
}

impl Connections {
    /// To this endpoint. They trust the system's certificates (`SSL_CERT_FILE`), and go through the proxy that the
    /// environment names, as those of the SDK.
    ///
    /// # Errors
    /// Where the system has no certificates.
    pub(super) fn to(endpoint: &str, sleep: Option<SharedAsyncSleep>) -> Result<Self, ConnectorError> {
        let uri: Uri =
            endpoint.parse().map_err(|error: http::uri::InvalidUri| ConnectorError::user(error.into()))?;
        if Matcher::from_env().intercept(&uri).is_some() {
            let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT).build();
            return Ok(Self::Proxied(SharedHttpConnector::new(connector(Some(&settings), sleep))));
        }
        let mut tcp = TcpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())
            .map_err(|error| ConnectorError::user(error.into()))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(AHEAD)
            .build(InTime(tls.https_or_http().enable_http1().wrap_connector(tcp)));
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
        let answer = async {
            match self {
                Self::Straight(client) => {
                    let answer =
                        client.request(request).await.map_err(|error| ConnectorError::io(error.into()))?;
                    HttpResponse::try_from(answer.map(SdkBody::from_body_1_x)).map_err(user)
                }
                Self::Proxied(connector) => {
                    connector.call(HttpRequest::try_from(request).map_err(user)?).await
                }
            }
        };
        tokio::time::timeout(within, answer)
            .await
            .unwrap_or_else(|elapsed| Err(ConnectorError::timeout(elapsed.into())))
    }
}

/// Connects in the time that it may take, with finding the address and TLS.
#[derive(Clone, Debug)]
pub(super) struct InTime(HttpsConnector<TcpConnector>);

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

impl Service<Uri> for InTime {
    type Response = <HttpsConnector<TcpConnector> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.0.call(to);
        Box::pin(async { tokio::time::timeout(CONNECT, connecting).await? })
    }
}
