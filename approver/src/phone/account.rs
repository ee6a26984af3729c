//! The phone itself, as the server knows it: the person's phones, a new seed for a token, a new
//! key for the phone, and the way out.

use semilla_core::id::EnrollmentId;
use semilla_core::operations::{Cause, RotateCause};
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::jwk::SigningKey;
use semilla_core::protocol::messages::{self, KeyProof};
use semilla_core::protocol::wire::{Bound, Device, Devices, HeldToken, Rotating, Signed};

use super::connection::{Call, Credentials};
use super::{Draft, Enrolled, Phone};
use crate::contents::{AccountState, Outgoing};
use crate::errors::{Error, StoreFault};

const KEYS: &str = "/device/v1/keys";

impl Phone {
    /// The phones of this phone's owner, the oldest first.
    pub async fn devices(&self) -> Result<Vec<Device>, Error> {
        let Devices { devices } = self.call(Call::get("/device/v1/devices")).await?.json()?;
        Ok(devices)
    }

    /// Asks for a new seed for a token of this phone and gives the enrollment that opens. For
    /// [`RotateCause::NewPhone`] another phone of the holder goes on with it; for the other
    /// causes this one, as [`Phone::renew`] does at once.
    pub async fn rotate(&self, serial: &str, cause: RotateCause) -> Result<Rotating, Error> {
        let held = self.held_tokens().await?;
        let held = held.into_iter().find(|held| held.serial == serial);
        let HeldToken { token, generation, state_version, .. } =
            held.ok_or_else(|| Error::UnknownToken(serial.to_owned()))?;
        let cause = Cause::Rotate(cause).name();
        // Something that happened to the token since makes it another wish.
        let intent = format!("rotate {token} {generation} {state_version} {cause}");
        let path = format!("/device/v1/tokens/{token}/rotate");
        let write = |draft: Draft| draft.rotate(token, generation, state_version, cause);
        self.store.take_presence()?;
        self.send_signed(&intent, &path, write, |_, _| ()).await?.json()
    }

    /// Gives a token of this phone a new seed, proven and live when this returns.
    pub async fn renew(&self, serial: &str, cause: RotateCause) -> Result<Enrolled, Error> {
        let Rotating { enrollment, .. } = self.rotate(serial, cause).await?;
        self.enroll(enrollment).await
    }

    /// Whether this phone has something of that enrollment.
    pub fn has_pending(&self, enrollment: EnrollmentId) -> Result<bool, Error> {
        self.read(|account| Ok(account.pending(enrollment).is_some()))
    }

    /// Unbinds this phone and forgets everything of this binding. A phone that the server trusts
    /// no more just forgets.
    pub async fn leave(&self) -> Result<(), Error> {
        let number = self.store.read(|contents| self.number(contents))?;
        match self.call(Call::delete("/device/v1/me")).await {
            Ok(_) | Err(Error::Revoked) => self.forget(number),
            Err(error) => Err(error),
        }
    }

    /// Puts a new key in the place of the phone's key; both sign (the old one the change, the new
    /// one the proof within it). After an interruption the same change is sent again.
    pub async fn change_keys(&self) -> Result<(), Error> {
        let _turn = self.store.turn().await?;
        let message = self.update(|account| {
            if let (Some(outgoing), Some(_)) = (&account.outgoing, &account.next_key)
                && outgoing.intent == KEYS
            {
                return Ok(outgoing.text.clone());
            }
            let old = account.signing_key()?;
            let pkcs8 = SigningKey::generate(&self.random);
            let new = SigningKey::from_pkcs8(&pkcs8, &self.random).expect("just made");
            let draft = self.draft(account)?;
            let proof = KeyProof {
                v: draft.v,
                iss: draft.iss.clone(),
                aud: draft.aud.clone(),
                jti: Nonce::generate(self.entropy.as_ref()),
                iat: draft.iat,
                old: old.public().key_id(),
            };
            let proof = messages::sign(&proof, &new, &self.random);
            let change = draft.key_change(new.public().clone(), proof);
            let text = messages::sign(&change, &old, &self.random);
            account.next_key = Some(pkcs8);
            account.outgoing = Some(Outgoing { intent: KEYS.to_owned(), text: text.clone() });
            Ok(text)
        })?;
        let bound: Bound = self.send_key_change(message).await?;
        self.update(|account| {
            let Bound { device, device_token, .. } = bound;
            if account.bound()?.0 != device {
                return Err(Error::UnexpectedAnswer("device".to_owned()));
            }
            account.state = AccountState::Bound { device, device_token, match_number: None };
            if let Some(key) = account.next_key.take() {
                account.key = key;
            }
            account.outgoing = None;
            Ok(())
        })
    }

    /// With the old key or, where the change went through and its answer was lost, with the new.
    async fn send_key_change(&self, message: String) -> Result<Bound, Error> {
        let call = || Call::post(KEYS, &Signed { message: message.clone() });
        match self.call(call()).await {
            Err(Error::Problem(problem)) if problem.status == 401 => {}
            answer => return answer?.json(),
        }
        let credentials = self.read(|account| {
            let pkcs8 = account.next_key.as_ref().ok_or(Error::NotBound)?;
            let key = SigningKey::from_pkcs8(pkcs8, &self.random);
            let key = key.map_err(|_| StoreFault::Damaged)?;
            Ok(Credentials::of(account)?.with_key(key))
        })?;
        self.send(&credentials, &call(), 1).await?.successful()?.json()
    }
}
