//! How a phone reaches a server: one request, one answer, both small, within a time. [`Http`] does
//! it over the network; tests and simulations put their own [`Transport`] in its place or around
//! it to lose, delay or change what passes.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use semilla_core::problem::Problem;
use semilla_core::time::Timestamp;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::errors::Error;

/// The longest answer that is read, in bytes: 256 KiB.
const ANSWER_MAX: usize = 256 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Names in lower case, and values, some of which are secret.
pub type Headers = Vec<(&'static str, Zeroizing<String>)>;

/// What a phone sends.
pub struct Request {
    /// In capitals.
    pub method: &'static str,
    /// The whole address.
    pub url: String,
    /// Its headers, those of the body aside.
    pub headers: Headers,
    /// JSON, where there is a body.
    pub body: Option<Zeroizing<Vec<u8>>>,
    /// How long the answer may take.
    pub patience: Duration,
    /// The one authority that is believed about the server, as PEM; none for the public ones.
    pub authority: Option<Arc<str>>,
}

/// What comes back, whatever its status.
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body: it may hold a device token or a sealed seed.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server never got the request: why.
    NotSent(String),
    /// The server may have got it: why no answer came.
    Lost(String),
    /// The address is one in clear, and not of this machine.
    InClear,
}

/// What a [`Transport`] gives back: an answer that is still on its way.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send + 'a>>;

/// A way to a server.
pub trait Transport: Send + Sync {
    /// Sends one request and waits for its answer, at most for the request's patience.
    fn send(&self, request: Request) -> Answering<'_>;
}

/// A client over TLS, or in clear to this machine.
type TlsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// HTTP/1.1 over TLS, or in clear to a server on this machine. Clones share their connections.
#[derive(Clone, Default)]
pub struct Http {
    /// One for each authority that is believed, since connections are kept.
    clients: Arc<Mutex<HashMap<Option<Arc<str>>, TlsClient>>>,
}

/// The authority that was named holds no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no certificate in PEM")]
pub struct NoCertificate;

/// How connections are made: TLS 1.2 or 1.3 by `ring`, HTTP/1.1. Where an `authority` is named, in
/// PEM, it alone is believed, and no public one (security 39).
///
/// # Errors
/// Where the authority holds no certificate.
pub fn connector(authority: Option<&str>) -> Result<HttpsConnector<HttpConnector>, NoCertificate> {
    let mut roots = RootCertStore::empty();
    match authority {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|_| NoCertificate)?;
                roots.add(certificate).map_err(|_| NoCertificate)?;
            }
            if roots.is_empty() {
                return Err(NoCertificate);
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has suites for the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
    Ok(builder.enable_http1().wrap_connector(tcp))
}

/// Whether what is sent there leaves this machine unprotected.
fn is_in_clear(url: &str) -> bool {
    let Ok(uri) = url.parse::<hyper::Uri>() else { return false };
    let here = uri.host().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    });
    uri.scheme_str() == Some("http") && !here
}

impl Http {
    /// A client without connections; they belong to the runtime that first uses it.
    pub fn new() -> Self {
        Self::default()
    }

    fn client(&self, authority: Option<Arc<str>>) -> Result<TlsClient, NoCertificate> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&authority) {
            return Ok(client.clone());
        }
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(15))
            .pool_max_idle_per_host(2)
            .build(connector(authority.as_deref())?);
        clients.insert(authority, client.clone());
        Ok(client)
    }

    async fn exchange(&self, request: Request) -> Result<Response, Failure> {
        if is_in_clear(&request.url) {
            return Err(Failure::InClear);
        }
        let client = self
            .client(request.authority.clone())
            .map_err(|error| Failure::NotSent(error.to_string()))?;
        let mut built = hyper::Request::builder().method(request.method).uri(&request.url);
        for (name, value) in &request.headers {
            built = built.header(*name, value.as_str());
        }
        let body = match &request.body {
            Some(body) => {
                built = built.header("content-type", "application/json");
                Bytes::copy_from_slice(body)
            }
            None => Bytes::new(),
        };
        let built =
            built.body(Full::new(body)).map_err(|error| Failure::NotSent(error.to_string()))?;
        let answer = client.request(built).await.map_err(|error| {
            let why = innermost(&error);
            if error.is_connect() { Failure::NotSent(why) } else { Failure::Lost(why) }
        })?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await;
        let body = body.map_err(|error| Failure::Lost(innermost(error.as_ref())))?.to_bytes();
        Ok(Response {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: Zeroizing::new(body.to_vec()),
        })
    }
}

impl Transport for Http {
    fn send(&self, request: Request) -> Answering<'_> {
        let patience = request.patience;
        Box::pin(async move {
            match tokio::time::timeout(patience, self.exchange(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(Failure::Lost("timeout".to_owned())),
            }
        })
    }
}

/// The cause at the bottom, which says the most: "connection refused".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

impl Response {
    /// Whether the server did what was asked.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The value of a header, where it is there and plain text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The server's time, from `Date` (RFC 9110 section 6.6.1), to the second.
    pub fn date(&self) -> Option<Timestamp> {
        http_date(self.header("date")?)
    }

    /// The body as what it must be.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // The position only: the text of such an error may quote the body.
            Error::UnexpectedAnswer(format!("line {}, column {}", error.line(), error.column()))
        })
    }

    /// The answer if it is a success, and else the problem it tells.
    pub fn successful(self) -> Result<Self, Error> {
        if self.is_success() {
            return Ok(self);
        }
        let problem: Result<Problem, _> = serde_json::from_slice(&self.body);
        match problem {
            Ok(problem) => Err(problem.into()),
            Err(_) => Err(Error::UnexpectedAnswer(format!("HTTP {}", self.status))),
        }
    }
}

/// Reads the one form that servers must write: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section
/// 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_once(", ")?.1.split(' ');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let (time, zone) = (parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    if zone != "GMT" || parts.next().is_some() {
        return None;
    }
    Timestamp::parse(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_header_is_read_in_its_one_form() {
        let moment = http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        assert_eq!(moment.to_string(), "1994-11-06T08:49:37.000Z");
        for other in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
        ] {
            assert_eq!(http_date(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn clear_text_stays_on_this_machine_and_a_closed_port_was_never_reached() {
        let send = |url: &str, authority: Option<&str>| {
            let request = Request {
                method: "GET",
                url: url.to_owned(),
                headers: vec![],
                body: None,
                patience: Duration::from_secs(5),
                authority: authority.map(Arc::from),
            };
            async move { Http::new().send(request).await.err() }
        };
        for url in ["http://192.0.2.1/x", "http://bank.example/x", "http://localhost.example/x"] {
            assert_eq!(send(url, None).await, Some(Failure::InClear), "{url}");
        }
        for url in ["http://127.0.0.1:1/x", "http://[::1]:1/x", "https://127.0.0.1:1/x"] {
            assert!(matches!(send(url, None).await, Some(Failure::NotSent(_))), "{url}");
        }
        let none = NoCertificate.to_string();
        for pem in ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"] {
            let failure = send("https://127.0.0.1:1/x", Some(pem)).await;
            assert_eq!(failure, Some(Failure::NotSent(none.clone())), "{pem}");
        }
    }
}
