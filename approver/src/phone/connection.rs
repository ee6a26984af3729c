//! How a phone speaks to its server: each request proves by DPoP (RFC 9449) that it comes from the
//! phone's key, with the server's nonce, so that a wrong clock does no harm; each answer teaches
//! the phone how far its clock is off. A request whose answer was lost is sent again as it was.

use std::sync::Arc;
use std::time::Duration;

use semilla_core::problem::ProblemType;
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::dpop;
use semilla_core::protocol::jwk::SigningKey;
use semilla_core::protocol::messages::{self, Message, Version};
use semilla_core::protocol::wire::{DeviceState, Devices, Signed};
use semilla_core::time::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Draft, Phone};
use crate::contents::{Account, Outgoing};
use crate::errors::Error;
use crate::http::{Failure, Headers, Request, Response};

/// How long an answer may take where nothing is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// How often a request is sent whose answer was lost.
const SENDINGS_MAX: u32 = 3;

/// A clock that differs by less is not noted: `Date` has whole seconds.
const SKEW_NOTED_MILLISECONDS: i64 = 2000;

pub(super) const GET: &str = "GET";
pub(super) const POST: &str = "POST";
pub(super) const DELETE: &str = "DELETE";

/// A request to the device API.
pub(super) struct Call<'a> {
    method: &'static str,
    /// From `/device/v1` on, with the query.
    path: &'a str,
    body: Option<Zeroizing<Vec<u8>>>,
    patience: Duration,
}

impl<'a> Call<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: GET, path, body: None, patience: PATIENCE }
    }

    pub(super) fn post(path: &'a str, body: &impl Serialize) -> Self {
        // Room for a code: it is copied nowhere else. Signed texts are no secret.
        let mut bytes = Zeroizing::new(Vec::with_capacity(128));
        serde_json::to_writer(&mut *bytes, body).expect("always JSON");
        Self { method: POST, path, body: Some(bytes), patience: PATIENCE }
    }

    pub(super) fn delete(path: &'a str) -> Self {
        Self { method: DELETE, path, body: None, patience: PATIENCE }
    }

    pub(super) fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(super) fn raw(method: &'static str, path: &'a str, body: Option<&str>) -> Self {
        let body = body.map(|body| Zeroizing::new(body.as_bytes().to_vec()));
        Self { method, path, body, patience: PATIENCE }
    }
}

/// Who speaks to whom.
pub(super) struct Credentials {
    server: String,
    authority: Option<Arc<str>>,
    issuer: String,
    device_token: Zeroizing<String>,
    key: SigningKey,
}

impl Credentials {
    pub(super) fn of(account: &Account) -> Result<Self, Error> {
        let (_, device_token) = account.bound()?;
        Ok(Self {
            server: account.server.clone(),
            authority: account.authority.as_deref().map(Arc::from),
            issuer: account.issuer.clone(),
            device_token: Zeroizing::new(device_token.expose().to_owned()),
            key: account.signing_key()?,
        })
    }

    pub(super) fn with_key(self, key: SigningKey) -> Self {
        Self { key, ..self }
    }
}

impl Phone {
    /// Sends a request as this phone and gives the answer if it is a success.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Response, Error> {
        let credentials = self.read(Credentials::of)?;
        match self.send(&credentials, &call, SENDINGS_MAX).await?.successful() {
            Err(Error::Revoked) => Err(self.what_became_of_me(&credentials).await?),
            answer => answer,
        }
    }

    /// The server does not serve this phone. A phone that is revoked forgets its seeds; one that
    /// waits for another phone, or was found to exist twice, is told so.
    async fn what_became_of_me(&self, credentials: &Credentials) -> Result<Error, Error> {
        let call = Call::get("/device/v1/devices");
        let answer = match self.send(credentials, &call, SENDINGS_MAX).await?.successful() {
            Err(Error::Revoked) => None,
            answer => Some(answer?.json::<Devices>()?),
        };
        self.update(|account| {
            let (own, _) = account.bound()?;
            let listed = answer.iter().flat_map(|answer| &answer.devices);
            match listed.into_iter().find(|device| device.device == own).map(|own| own.state) {
                Some(DeviceState::Waiting) => return Ok(Error::Waiting),
                Some(DeviceState::Suspended) => return Ok(Error::Suspended),
                // Agreed to a moment ago.
                Some(DeviceState::Bound) => return Ok(Error::Waiting),
                Some(DeviceState::Revoked) | None => account.revoke(),
            }
            Ok(Error::Revoked)
        })
    }

    /// Sends a request as `credentials` say and gives the answer, whatever it is. Where an answer
    /// is lost, the request goes out again, `sendings` times in all, each with a proof of its own.
    pub(super) async fn send(
        &self,
        credentials: &Credentials,
        call: &Call<'_>,
        sendings: u32,
    ) -> Result<Response, Error> {
        // The first request of all has no nonce yet, and a nonce may run out at any moment.
        for _ in 0..3 {
            let headers = || self.headers(credentials, call);
            let server = (credentials.server.as_str(), credentials.authority.clone());
            let answer = self.exchange(server, call, headers, sendings).await?;
            self.learn_time(&answer)?;
            let nonce = answer.header("dpop-nonce").map(str::to_owned);
            let asks_for_nonce = answer.status == 401
                && answer
                    .header("www-authenticate")
                    .is_some_and(|challenge| challenge.contains("use_dpop_nonce"));
            let is_new = nonce.is_some();
            if is_new {
                *self.nonce.lock().expect("no panic while it was held") = nonce;
            }
            if !(asks_for_nonce && is_new) {
                return Ok(answer);
            }
        }
        Err(Error::UnexpectedAnswer("use_dpop_nonce".to_owned()))
    }

    /// Sends a request of a phone that is not bound yet.
    pub(super) async fn call_unbound(
        &self,
        place: (&str, Option<Arc<str>>),
        call: Call<'_>,
    ) -> Result<Response, Error> {
        self.exchange(place, &call, Vec::new, SENDINGS_MAX).await?.successful()
    }

    /// Signs what `write` makes of the next counter, stores both with whatever `keep` adds, and
    /// only then sends the message: no counter leaves twice (security 130). Whoever has the same
    /// `intent` as the message that is still unanswered sends that message again.
    pub(super) async fn send_signed<M: Message>(
        &self,
        intent: &str,
        path: &str,
        write: impl FnOnce(Draft) -> M,
        keep: impl FnOnce(&mut Account, &str),
    ) -> Result<Response, Error> {
        let _turn = self.store.turn().await?;
        let message = self.update(|account| {
            if let Some(outgoing) = &account.outgoing
                && outgoing.intent == intent
            {
                return Ok(outgoing.text.clone());
            }
            let draft = self.draft(account)?;
            let key = account.signing_key()?;
            let text = messages::sign(&write(draft), &key, &self.random);
            keep(account, &text);
            account.outgoing = Some(Outgoing { intent: intent.to_owned(), text: text.clone() });
            Ok(text)
        })?;
        let answer = self.call(Call::post(path, &Signed { message })).await;
        if answer.as_ref().err().is_none_or(is_last_word) {
            self.update(|account| {
                account.outgoing = None;
                Ok(())
            })?;
        }
        answer
    }

    /// What the next message of this phone begins with. The counter rises at once.
    pub(super) fn draft(&self, account: &mut Account) -> Result<Draft, Error> {
        let (device, _) = account.bound()?;
        account.counter += 1;
        Ok(Draft {
            v: Version,
            iss: device.to_string(),
            aud: account.issuer.clone(),
            jti: Nonce::generate(self.entropy.as_ref()),
            iat: self.now(),
            ctr: account.counter,
        })
    }

    fn headers(&self, credentials: &Credentials, call: &Call<'_>) -> Headers {
        let Credentials { issuer, device_token, key, .. } = credentials;
        let nonce = self.nonce.lock().expect("no panic while it was held").clone();
        let uri = format!("{issuer}{}", call.path);
        let request = dpop::Request {
            method: call.method,
            uri: &uri,
            access_token: Some(device_token.as_str()),
        };
        let jti = Nonce::generate(self.entropy.as_ref());
        let proof = dpop::create(key, &request, jti, self.now(), nonce.as_deref(), &self.random);
        let mut authorization = Zeroizing::new(String::with_capacity(5 + device_token.len()));
        authorization.push_str("DPoP ");
        authorization.push_str(device_token);
        vec![("authorization", authorization), ("dpop", Zeroizing::new(proof))]
    }

    async fn exchange(
        &self,
        (server, authority): (&str, Option<Arc<str>>),
        call: &Call<'_>,
        headers: impl Fn() -> Headers,
        sendings: u32,
    ) -> Result<Response, Error> {
        let mut failure = None;
        for _ in 0..sendings.max(1) {
            let request = Request {
                method: call.method,
                url: format!("{server}{}", call.path),
                headers: headers(),
                body: call.body.clone(),
                patience: call.patience,
                authority: authority.clone(),
            };
            match self.transport.send(request).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::InClear) => return Err(Error::InClear(server.to_owned())),
                // Trying again at once would find the same; the person decides.
                Err(Failure::NotSent(why)) => {
                    return Err(Error::Unreachable(server.to_owned(), why));
                }
                Err(Failure::Lost(why)) => failure = Some(why),
            }
        }
        Err(Error::Unreachable(server.to_owned(), failure.unwrap_or_default()))
    }

    /// Notes how far the server's clock is ahead, from the second that `Date` names.
    fn learn_time(&self, answer: &Response) -> Result<(), Error> {
        let Some(date) = answer.date() else { return Ok(()) };
        // In the middle of that second.
        self.note_skew(date.milliseconds() + 500)
    }

    fn note_skew(&self, server_milliseconds: i64) -> Result<(), Error> {
        let skew = server_milliseconds - self.now().milliseconds();
        let known = self.read(|account| Ok(account.skew_milliseconds))?;
        if known.is_some_and(|known| (known - skew).abs() < SKEW_NOTED_MILLISECONDS) {
            return Ok(());
        }
        self.update(|account| {
            account.skew_milliseconds = Some(skew);
            Ok(())
        })
    }

    /// Notes that the server's clock has passed the moment at which it signed a message.
    pub(super) fn learn_signed_time(&self, iat: Timestamp) -> Result<(), Error> {
        let believed = self.read(|account| Ok(account.server_time(self.now())))?;
        if believed < iat { self.note_skew(iat.milliseconds()) } else { Ok(()) }
    }
}

/// Whether the server has said its last word on a message: sending it again would change nothing.
pub(super) fn is_last_word(error: &Error) -> bool {
    match error {
        Error::Expired | Error::Revoked => true,
        Error::Problem(problem) => !matches!(
            problem.kind,
            ProblemType::Unauthenticated
                | ProblemType::IdempotencyConflict
                | ProblemType::RateLimited
                | ProblemType::Internal
                | ProblemType::Unavailable
        ),
        _ => false,
    }
}
