//! What a story asks of an answer. The client is the one that `dev` uses; here a wrong answer ends
//! the story, and says which answer it was.

use semilla_core::problem::ProblemType;
use semilla_server::dev::client;
use serde_json::Value;

pub use semilla_server::dev::client::{Http, Reply};

/// Expectations of an answer.
pub trait Expect {
    /// The name of the problem; empty where it is none.
    fn problem(&self) -> String;
    /// A header's text; empty where there is none.
    fn header(&self, name: &str) -> &str;
    /// The body, once the status is what the story expects.
    fn expect(self, status: u16) -> Value;
    /// The problem document, once it is this problem, with the status the list of problems says.
    fn refused(self, problem: &str) -> Value;
}

impl Expect for Reply {
    fn problem(&self) -> String {
        self.json()["type"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    #[track_caller]
    fn refused(self, problem: &str) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.problem(), problem, "{} {text}", self.status);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let known = ProblemType::ALL.iter().find(|kind| kind.name() == problem);
        assert_eq!(known.map(|kind| kind.status()), Some(self.status.as_u16()), "{text}");
        self.json()
    }
}

/// A program whose every answer ends the story where there is none.
pub struct Program(pub client::Program);

impl Program {
    /// The program whose credentials were handed out in `created`.
    pub fn of(http: Http, created: &Value) -> Self {
        Self(client::Program::of(http, created))
    }

    /// The client it uses.
    pub fn http(&self) -> &Http {
        &self.0.http
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], None).await
    }

    /// Sends JSON.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send("POST", path, &[], Some(body)).await
    }

    /// Sends JSON with headers of its own.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Reply {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.send_raw(method, path, headers, body.as_bytes()).await
    }

    /// Sends bytes as they are.
    pub async fn send_raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let reply = self.0.send(method, path, headers, body).await;
        reply.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Whether a code of a token is accepted.
    pub async fn verify(&self, token: &str, code: &str) -> bool {
        let body = serde_json::json!({"token": token, "code": code});
        let answer = self.post("/api/v1/otp/verify", body).await.expect(200);
        answer["accepted"].as_bool().expect("an answer")
    }
}
