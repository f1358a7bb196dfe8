//! A small HTTP client: keeps connections, honours proxies, bounds what it reads.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::forward::Forward;
use crate::proxy::{Proxies, connect};

/// For a whole request.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of an answer.
const MAX_BODY: usize = 1 << 20;
/// Unused connections kept to one address.
const MAX_IDLE: usize = 64;

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON, if the request succeeded.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        if !self.status.is_success() {
            let why = self
                .headers
                .get("proxy-status")
                .and_then(|v| v.to_str().ok());
            let text = String::from_utf8_lossy(&self.body);
            let text = why.unwrap_or_else(|| text.trim());
            bail!("{}: {text}", self.status);
        }
        serde_json::from_slice(&self.body).context("the answer is not the JSON expected")
    }
}

type Connection = SendRequest<Full<Bytes>>;

/// Makes requests.
pub(crate) struct Client {
    proxies: Proxies,
    idle: Mutex<HashMap<String, Vec<Connection>>>,
}

impl Client {
    pub(crate) fn new(proxies: Proxies) -> Self {
        Self {
            proxies,
            idle: Mutex::default(),
        }
    }

    /// GETs an `http` URL.
    pub(crate) async fn get(&self, url: &str, forward: &Forward) -> anyhow::Result<Answer> {
        self.request(Method::GET, url, forward, Bytes::new()).await
    }

    /// POSTs JSON.
    pub(crate) async fn post(
        &self,
        url: &str,
        forward: &Forward,
        body: &serde_json::Value,
    ) -> anyhow::Result<Answer> {
        let body = body.to_string().into();
        self.request(Method::POST, url, forward, body).await
    }

    async fn request(
        &self,
        method: Method,
        url: &str,
        forward: &Forward,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let what = format!("{method} {url}");
        let request = prepare(method, url, forward, body)?;
        timeout(TIMEOUT, self.send(request))
            .await
            .with_context(|| format!("{what}: no answer within {} s", TIMEOUT.as_secs()))?
            .with_context(|| what)
    }

    async fn send(&self, mut request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let host = request.uri().host().context("the URL has no host")?;
        let address = if let Some(proxy) = self.proxies.for_http(host) {
            proxy.to_owned()
        } else {
            let address = format!("{host}:{}", request.uri().port_u16().unwrap_or(80));
            // RFC 9112, 3.2.1: only a proxy is sent the whole URL.
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
            address
        };
        // A kept connection may be closed by the other side just now; what it did not carry, or may
        // be done twice, goes over a new one.
        if let Some(mut connection) = self.kept(&address).await {
            let again = repeatable(&request).then(|| request.clone());
            match connection.try_send_request(request).await {
                Ok(response) => return self.finish(address, connection, response).await,
                Err(mut failed) => {
                    request = match failed.take_message().or(again) {
                        Some(request) => request,
                        None => return Err(failed.into_error().into()),
                    };
                }
            }
        }
        let (mut connection, driver) =
            http1::handshake(TokioIo::new(connect(&address).await?)).await?;
        tokio::spawn(driver);
        let response = connection.send_request(request).await?;
        self.finish(address, connection, response).await
    }

    async fn finish(
        &self,
        address: String,
        connection: Connection,
        response: http::Response<hyper::body::Incoming>,
    ) -> anyhow::Result<Answer> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY)
            .collect()
            .await
            .map_err(|e| anyhow::anyhow!("the answer broke off: {e}"))?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(address).or_default();
        if kept.len() < MAX_IDLE {
            kept.push(connection);
        }
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }

    /// A kept connection that is still good.
    async fn kept(&self, address: &str) -> Option<Connection> {
        loop {
            let mut connection = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_mut(address)?
                .pop()?;
            if connection.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }
}

fn repeatable(request: &Request<Full<Bytes>>) -> bool {
    request.method() == Method::GET || request.headers().contains_key("idempotency-key")
}

fn prepare(
    method: Method,
    url: &str,
    forward: &Forward,
    body: Bytes,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let uri: Uri = url.parse().with_context(|| format!("{url}: not a URL"))?;
    if uri.scheme_str() != Some("http") {
        bail!("{url}: only http:// is supported");
    }
    let authority = uri.authority().context("the URL has no host")?;
    let host = HeaderValue::from_str(authority.as_str())?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    forward.apply(headers);
    Ok(request)
}
