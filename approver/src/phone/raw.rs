//! The protocol by hand, for tests that need a phone which does not behave: any message under the
//! phone's key, any request under its name, and copies of the phone. A phone in use needs none of
//! it.

use semilla_core::id::{DeviceId, EnrollmentId, TokenId};
use semilla_core::otp::Step;
use semilla_core::protocol::approval::{
    ApprovalResponse, Decision, UserVerification, VerificationMethod, request_hash,
};
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::dpop;
use semilla_core::protocol::jwk::{JwkSet, PublicKey};
use semilla_core::protocol::messages::{self, Enroll, KeyChange, Message, RotateRequest, Version};
use semilla_core::protocol::wire::Signed;
use semilla_core::secret::SecretText;
use semilla_core::time::Timestamp;
use std::sync::Arc;

use super::Phone;
use super::codes::ShownCode;
use super::connection::{Call, Credentials};
use crate::contents::Contents;
use crate::errors::Error;
use crate::http::Response;
use crate::review::Request;
use crate::store::MemoryStore;

/// What every message of a phone begins with; all of it may be changed before signing.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The version.
    pub v: Version,
    /// The phone's id.
    pub iss: String,
    /// The server's address.
    pub aud: String,
    /// The message's name.
    pub jti: Nonce,
    /// The moment, by the phone's clock.
    pub iat: Timestamp,
    /// The counter.
    pub ctr: u64,
}

impl Draft {
    /// Asks for the seed of an enrollment, sealed to `seed_kem`.
    pub fn enroll(self, enrollment: EnrollmentId, seed_kem: PublicKey) -> Enroll {
        let Self { v, iss, aud, jti, iat, ctr } = self;
        Enroll { v, iss, aud, jti, iat, ctr, enrollment, seed_kem }
    }

    /// Answers a request.
    pub fn response(self, request: &Request, decision: Decision) -> ApprovalResponse {
        let Self { v, iss, aud, jti, iat, ctr } = self;
        let claims = request.claims();
        ApprovalResponse {
            v,
            iss,
            aud,
            jti,
            iat,
            ctr,
            nonce: claims.nonce,
            txn: claims.txn,
            decision,
            request_hash: request_hash(request.text()),
            display_hash: claims.display.digest(),
            uv: UserVerification { method: VerificationMethod::Pin },
        }
    }

    /// Asks for a new seed.
    pub fn rotate(
        self,
        token: TokenId,
        generation: u32,
        state_version: u64,
        cause: &str,
    ) -> RotateRequest {
        let Self { v, iss, aud, jti, iat, ctr } = self;
        let cause = cause.to_owned();
        RotateRequest { v, iss, aud, jti, iat, ctr, token, generation, cause, state_version }
    }

    /// Replaces the phone's key.
    pub fn key_change(self, new_key: PublicKey, proof: String) -> KeyChange {
        let Self { v, iss, aud, jti, iat, ctr } = self;
        KeyChange { v, iss, aud, jti, iat, ctr, new_key, proof }
    }
}

/// A phone's protocol by hand.
pub struct Raw<'p>(&'p Phone);

impl Phone {
    /// The protocol by hand.
    pub fn raw(&self) -> Raw<'_> {
        Raw(self)
    }
}

impl Raw<'_> {
    /// The phone's id.
    pub fn device(&self) -> Result<DeviceId, Error> {
        self.0.read(|account| Ok(account.bound()?.0))
    }

    /// The phone's public key.
    pub fn public_key(&self) -> Result<PublicKey, Error> {
        self.0.read(|account| Ok(account.signing_key()?.public().clone()))
    }

    /// The pinned keys of the server.
    pub fn server_keys(&self) -> Result<JwkSet, Error> {
        self.0.read(|account| Ok(account.jwks.clone()))
    }

    /// The phone's access token.
    pub fn device_token(&self) -> Result<SecretText, Error> {
        self.0.read(|account| Ok(SecretText::new(account.bound()?.1.expose().to_owned())))
    }

    /// The counter of the last message.
    pub fn counter(&self) -> Result<u64, Error> {
        self.0.read(|account| Ok(account.counter))
    }

    /// Sets the counter, forwards or back: what a restored backup does.
    pub fn set_counter(&self, counter: u64) -> Result<(), Error> {
        self.0.update(|account| {
            account.counter = counter;
            Ok(())
        })
    }

    /// The beginning of the next message; its counter is used up.
    pub fn draft(&self) -> Result<Draft, Error> {
        self.0.update(|account| self.0.draft(account))
    }

    /// Signs any message with the phone's key.
    pub fn sign<M: Message>(&self, message: &M) -> Result<String, Error> {
        let key = self.0.read(|account| Ok(account.signing_key()?))?;
        Ok(messages::sign(message, &key, &self.0.random))
    }

    /// A DPoP proof for any request to `path` at the server, with this nonce.
    pub fn proof(&self, method: &str, path: &str, nonce: Option<&str>) -> Result<String, Error> {
        self.0.read(|account| {
            let uri = format!("{}{path}", account.issuer);
            let access_token = Some(account.bound()?.1.expose());
            let request = dpop::Request { method, uri: &uri, access_token };
            let jti = Nonce::generate(self.0.entropy.as_ref());
            let key = account.signing_key()?;
            Ok(dpop::create(&key, &request, jti, self.0.now(), nonce, &self.0.random))
        })
    }

    /// Sends any request to the device API as this phone, once, and gives any answer. `path` is
    /// from `/device/v1` on.
    pub async fn send(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&str>,
    ) -> Result<Response, Error> {
        let credentials = self.0.read(Credentials::of)?;
        self.0.send(&credentials, &Call::raw(method, path, body), 1).await
    }

    /// Posts a signed text as this phone, once.
    pub async fn send_signed(&self, path: &str, message: String) -> Result<Response, Error> {
        let credentials = self.0.read(Credentials::of)?;
        self.0.send(&credentials, &Call::post(path, &Signed { message }), 1).await
    }

    /// Posts an answer to a request.
    pub async fn respond(&self, request: &Request, message: String) -> Result<Response, Error> {
        let path = format!("/device/v1/approvals/{}/response", request.id());
        self.send_signed(&path, message).await
    }

    /// The code of any step, used or not, whatever the clock says.
    pub fn code_at(&self, serial: &str, step: Step) -> Result<ShownCode, Error> {
        self.0.read(|account| super::codes::at_step(account, serial, step, self.0.now()))
    }

    /// The seed of a token, in base 32: for tests that make sure that it is nowhere else.
    pub fn seed(&self, serial: &str) -> Result<SecretText, Error> {
        self.0.read(|account| super::codes::seed(account, serial))
    }

    /// A copy of this phone with everything it holds, in memory: a clone, a backup to be restored
    /// later, or a former holder's app that never heard of the release.
    pub fn copy(&self) -> Result<Phone, Error> {
        let phone = self.0;
        let contents = phone
            .store
            .read(|contents| Contents::from_bytes(&contents.to_bytes(0)).map_err(Error::from))?;
        let mut copy = phone.for_account(phone.store.read(|contents| phone.number(contents))?);
        copy.store = Arc::new(MemoryStore::of(&contents).into());
        Ok(copy)
    }
}
