//! The same bank over HTTP, for the program itself.

use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use semilla_approver::http::Request;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use super::Bank;

impl Bank {
    /// A bank that listens on a port of its own, in the system's time.
    pub(crate) async fn listen() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let bank = Self::at(format!("http://{address}"), None);
        let serving = Arc::clone(&bank);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let bank = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(|request| serve(&bank, request));
                    let connection = hyper::server::conn::http1::Builder::new();
                    // A client that goes is no concern of the bank's.
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        bank
    }
}

async fn serve(
    bank: &Bank,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let header = |name: &'static str| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some((name, Zeroizing::new(value.to_owned())))
    };
    let asked = Request {
        method: match parts.method.as_str() {
            "GET" => "GET",
            "DELETE" => "DELETE",
            _ => "POST",
        },
        url: format!("{}{}", bank.issuer, parts.uri),
        headers: ["authorization", "dpop"].into_iter().filter_map(header).collect(),
        body: (!body.is_empty()).then(|| Zeroizing::new(body.to_vec())),
        patience: std::time::Duration::ZERO,
        authority: None,
    };
    let answer = bank.answer(&asked);
    let mut response = hyper::Response::new(Full::new(Bytes::copy_from_slice(&answer.body)));
    *response.status_mut() = answer.status.try_into().expect("a status");
    *response.headers_mut() = answer.headers;
    Ok(response)
}
