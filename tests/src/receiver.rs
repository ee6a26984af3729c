//! A receiver of webhooks on this machine: it keeps what comes, and answers as a story wants.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// How long a delivery may take to come: real time, since sockets have no other.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its headers.
    pub headers: Map<String, Value>,
    /// Its body.
    pub body: String,
}

impl Received {
    /// A header.
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].as_str().expect("a text")
    }

    /// The event.
    pub fn event(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The event's type.
    pub fn kind(&self) -> String {
        self.event()["type"].as_str().expect("a type").to_owned()
    }
}

/// A receiver.
pub struct Receiver {
    /// Where it listens.
    pub url: String,
    came: mpsc::UnboundedReceiver<Received>,
    answers: Arc<Mutex<VecDeque<(u16, &'static str)>>>,
}

impl Receiver {
    /// One that answers 204 until it is told otherwise.
    pub async fn begin() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/semilla", listener.local_addr().expect("an address"));
        let (came_in, came) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(VecDeque::new()));
        let to_give = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (came_in, to_give) = (came_in.clone(), Arc::clone(&to_give));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (came_in, to_give) = (came_in.clone(), Arc::clone(&to_give));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.expect("a body").to_bytes();
                        let headers = parts.headers.iter().map(|(name, value)| {
                            (name.to_string(), value.to_str().expect("text").into())
                        });
                        let body = String::from_utf8(body.to_vec()).expect("UTF-8");
                        let _ = came_in.send(Received { headers: headers.collect(), body });
                        let next = to_give.lock().expect("no panic").pop_front();
                        let (status, location) = next.unwrap_or((204, ""));
                        let mut response = Response::builder().status(status);
                        if !location.is_empty() {
                            response = response.header("location", location);
                        }
                        Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).expect("one"))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { url, came, answers }
    }

    /// Answers the next requests with these statuses, and with 204 again after them.
    pub fn will_answer(&self, statuses: &[u16]) {
        let next = statuses.iter().map(|status| (*status, ""));
        self.answers.lock().expect("no panic").extend(next);
    }

    /// Sends whoever comes next elsewhere.
    pub fn will_redirect(&self, location: &'static str) {
        self.answers.lock().expect("no panic").push_back((307, location));
    }

    /// The next request.
    pub async fn next(&mut self) -> Received {
        let came = tokio::time::timeout(PATIENCE, self.came.recv()).await;
        came.expect("a delivery comes in time").expect("the receiver runs")
    }

    /// Whether something came that nobody has looked at.
    pub fn is_empty(&self) -> bool {
        self.came.is_empty()
    }
}
