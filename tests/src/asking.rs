//! Operations that wait for a phone, as stories ask for them, look at them and answer them: as a
//! phone does, or with claims written by hand and signed by the phone's key all the same.

use std::marker::PhantomData;
use std::sync::Arc;

use ring::rand::SystemRandom;
use semilla_approver::Phone;
use semilla_approver::http::Response;
use semilla_approver::review::Request;
use semilla_core::protocol::approval::{ApprovalResponse, Decision, MatchNumber};
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::jwk::SigningKey;
use semilla_core::protocol::jws::KeyHeader;
use semilla_core::protocol::messages::{self, Envelope, Message};
use semilla_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::http::Expect;
use crate::world::Company;

/// An operation that was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its id.
    pub id: String,
    /// The number on the asker's screen.
    pub number: String,
}

impl Asked {
    /// What an answer with status 202 says.
    pub fn of(answer: &Value) -> Self {
        let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("no {name}"));
        Self { id: text("id").to_owned(), number: text("match_number").to_owned() }
    }

    /// A number that was never shown.
    pub fn wrong_number(&self) -> &'static str {
        if self.number == "000000" { "000001" } else { "000000" }
    }
}

impl Company {
    /// Asks for `action` on a token.
    pub async fn ask(&self, token: &str, action: &str, body: Value) -> Asked {
        let path = format!("/api/v1/tokens/{token}/{action}");
        Asked::of(&self.program.post(&path, body).await.expect(202))
    }

    /// Asks for the release of a token.
    pub async fn ask_for_release(&self, token: &str) -> Asked {
        self.ask(token, "release", json!({"cause": "seed_release"})).await
    }

    /// An operation as the company sees it.
    pub async fn operation(&self, id: &str) -> Value {
        self.program.get(&format!("/api/v1/operations/{id}")).await.expect(200)
    }

    /// A token as the company sees it.
    pub async fn token(&self, id: &str) -> Value {
        self.program.get(&format!("/api/v1/tokens/{id}")).await.expect(200)
    }

    /// The state of a token.
    pub async fn state_of(&self, token: &str) -> String {
        self.token(token).await["state"].as_str().expect("a state").to_owned()
    }

    /// Makes a secondary user and returns their id.
    pub async fn person(&self, login: &str, name: &str) -> String {
        let made = self.program.post("/api/v1/users", json!({"login": login, "name": name})).await;
        made.expect(201)["id"].as_str().expect("an id").to_owned()
    }
}

/// The one request that waits on a phone.
pub async fn request_on(phone: &Phone) -> Arc<Request> {
    let inbox = phone.inbox().await.expect("the inbox");
    assert_eq!((inbox.requests.len(), inbox.refused.len()), (1, 0), "{:?}", inbox.refused);
    Arc::clone(&inbox.requests[0])
}

/// The claims of a phone's good approval, to be changed before they are signed.
pub fn approval(phone: &Phone, request: &Request, number: &str) -> Value {
    let match_number = MatchNumber::parse(number).expect("six digits");
    answer(phone, request, Decision::Approved { match_number })
}

/// The claims of any good answer of a phone.
pub fn answer(phone: &Phone, request: &Request, decision: Decision) -> Value {
    let draft = phone.raw().draft().expect("a draft");
    serde_json::to_value(draft.response(request, decision)).expect("JSON")
}

/// Signs claims with a phone's key as an answer to a request.
pub fn sign_answer(phone: &Phone, claims: Value) -> String {
    sign_as::<ApprovalResponse>(phone, claims)
}

/// Signs claims with a phone's key as a message of any kind.
pub fn sign_as<M: Message>(phone: &Phone, claims: Value) -> String {
    phone.raw().sign(&ByHand::<M> { claims, kind: PhantomData }).expect("signed")
}

/// A message of a kind whose claims are whatever was written.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
struct ByHand<M> {
    claims: Value,
    #[serde(skip)]
    kind: PhantomData<M>,
}

impl<M: Message> Message for ByHand<M> {
    const TYP: &'static str = M::TYP;
    const KEY_HEADER: KeyHeader = M::KEY_HEADER;

    /// Needed by whoever verifies, which nobody does with this type.
    fn envelope(&self) -> Envelope<'_> {
        let jti = Nonce::from_bytes([0; 16]);
        Envelope { iss: "", aud: "", jti, iat: Timestamp::from_seconds(0), ctr: None }
    }
}

/// That a phone was answered with this problem. Returns the document.
#[track_caller]
pub fn refused(answer: &Response, problem: &str) -> Value {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    assert_eq!(body["type"], problem, "{} {body}", answer.status);
    body
}

/// That a phone was answered well. Returns the body.
#[track_caller]
pub fn accepted(answer: &Response) -> Value {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    assert!(answer.is_success(), "{} {body}", answer.status);
    body
}

/// Signs claims with any key as a message of any kind.
pub fn sign_with<M: Message>(key: &SigningKey, claims: Value) -> String {
    messages::sign(&ByHand::<M> { claims, kind: PhantomData }, key, &SystemRandom::new())
}

/// A key that nobody knows yet.
pub fn new_key() -> SigningKey {
    let random = SystemRandom::new();
    SigningKey::from_pkcs8(&SigningKey::generate(&random), &random).expect("a key")
}
