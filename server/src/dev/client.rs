//! A program of a company or of the bank, as its developers would write it: client credentials, an
//! access token that is renewed when it is refused, JSON in and out over real HTTP. `dev` is one,
//! and so is every story in the tests.

use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use semilla_approver::http::{NoCertificate, connector};
use serde_json::Value;

/// What went wrong between a program and the server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answered, or not to the end.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// Another answer than the one expected.
    #[error("{method} {path} was answered {status}: {body}")]
    Unexpected {
        /// What was asked.
        method: String,
        /// Where.
        path: String,
        /// The status.
        status: StatusCode,
        /// The problem document.
        body: String,
    },
}

/// How it connects: as phones do, in clear to this machine, or over TLS.
type Connector = hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>;

/// A plain client: one request, its whole answer, nothing added.
#[derive(Clone)]
pub struct Http {
    client: Client<Connector, Full<Bytes>>,
    base: String,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl Http {
    /// A client of the server at `base`: `http://127.0.0.1:8080`.
    pub fn new(base: &str) -> Self {
        Self::trusting(base, None).expect("the public authorities")
    }

    /// The same, which believes this authority alone, as PEM, where there is one.
    ///
    /// # Errors
    /// Where it holds no certificate.
    pub fn trusting(base: &str, authority: Option<&str>) -> Result<Self, NoCertificate> {
        let connector = connector(authority)?;
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, base: base.to_owned() })
    }

    /// The server's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request as it is.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, ClientError> {
        let unusable = |error: &dyn std::fmt::Display| ClientError::NoAnswer(error.to_string());
        let method = Method::from_bytes(method.as_bytes()).map_err(|error| unusable(&error))?;
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body));
        let request = request.body(body).map_err(|error| unusable(&error))?;
        let response = self.client.request(request).await.map_err(|error| unusable(&error))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| unusable(&error))?.to_bytes();
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }
}

/// A program with credentials.
pub struct Program {
    /// How it reaches the server.
    pub http: Http,
    /// Its `client_id`.
    pub id: String,
    /// Its `client_secret`.
    pub secret: String,
    access_token: Mutex<Option<String>>,
}

impl Program {
    /// A program with these credentials.
    pub fn new(http: Http, id: &str, secret: &str) -> Self {
        Self { http, id: id.to_owned(), secret: secret.to_owned(), access_token: Mutex::new(None) }
    }

    /// The program whose credentials were handed out in `created`.
    pub fn of(http: Http, created: &Value) -> Self {
        let text = |name: &str| created[name].as_str().unwrap_or_default();
        Self::new(http, text("client_id"), text("client_secret"))
    }

    /// Asks for an access token (RFC 6749 section 4.4), for all its scopes or for those named.
    pub async fn ask_for_access_token(&self, scope: &str) -> Result<Reply, ClientError> {
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", self.id, self.secret)));
        let mut body = "grant_type=client_credentials".to_owned();
        if !scope.is_empty() {
            body = format!("{body}&scope={}", scope.replace(' ', "+").replace(':', "%3A"));
        }
        let headers = [
            ("authorization", basic.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.http.send("POST", "/token", &headers, body.as_bytes()).await
    }

    /// An access token: the one it has, or a new one.
    pub async fn access_token(&self) -> Result<String, ClientError> {
        let kept = self.access_token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(token) = kept {
            return Ok(token);
        }
        let reply = self.ask_for_access_token("").await?;
        let Some(token) = reply.json()["access_token"].as_str().map(str::to_owned) else {
            return Err(unexpected("POST", "/token", &reply));
        };
        *self.access_token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(token)
    }

    /// Forgets its access token.
    pub fn forget_access_token(&self) {
        *self.access_token.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Sends a request with its access token, JSON where there is a body, and once more where that
    /// token is no longer good.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, ClientError> {
        let reply = self.send_once(method, path, headers, body).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        self.forget_access_token();
        self.send_once(method, path, headers, body).await
    }

    async fn send_once(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, ClientError> {
        let bearer = format!("Bearer {}", self.access_token().await?);
        let mut all = vec![("authorization", bearer.as_str())];
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            all.push(("content-type", "application/json"));
        }
        all.extend_from_slice(headers);
        self.http.send(method, path, &all, body).await
    }

    /// Sends JSON and expects success.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value, ClientError> {
        let reply = self.send("POST", path, &[], body.to_string().as_bytes()).await?;
        if reply.status.is_success() {
            Ok(reply.json())
        } else {
            Err(unexpected("POST", path, &reply))
        }
    }

    /// Reads and expects success.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        let reply = self.send("GET", path, &[], b"").await?;
        if reply.status.is_success() {
            Ok(reply.json())
        } else {
            Err(unexpected("GET", path, &reply))
        }
    }
}

fn unexpected(method: &str, path: &str, reply: &Reply) -> ClientError {
    ClientError::Unexpected {
        method: method.to_owned(),
        path: path.to_owned(),
        status: reply.status,
        body: String::from_utf8_lossy(&reply.body).into_owned(),
    }
}
