//! Binding a phone: the activation code vouches for the server's keys, which are pinned here, and
//! for the phone's key, which is made here and never leaves (security 39, 44 to 46, 131).

use std::sync::Arc;

use semilla_core::id::DeviceId;
use semilla_core::protocol::MessageError;
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::jwk::SigningKey;
use semilla_core::protocol::messages::{self, Bind, Version};
use semilla_core::protocol::wire::{BindingStart, BindingStarted, Bound, Signed};
use serde::Serialize;

use super::Phone;
use super::connection::{Call, is_last_word};
use crate::contents::{Account, AccountState, Contents, Outgoing};
use crate::errors::Error;
use crate::invitation::{Invitation, server_address};

const START: &str = "/device/v1/bindings/start";
const BINDINGS: &str = "/device/v1/bindings";

/// A phone that is bound, or nearly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// The number of the account in this store.
    pub account: u32,
    /// The server's address as it stands in messages.
    pub issuer: String,
    /// The phone's id.
    pub device: DeviceId,
    /// Present where a phone that was bound before has to agree: the number to type there.
    pub match_number: Option<String>,
}

impl Phone {
    /// Binds this phone with an activation code, or with the address from a QR code. After an
    /// interruption the same code goes on where it stopped. [`Error::AlreadyBound`] where the
    /// store has a binding to that server.
    pub async fn bind(&self, code_or_uri: &str) -> Result<Binding, Error> {
        self.bind_with(&Invitation::read(code_or_uri, self.server.as_deref())?, false).await
    }

    /// As [`Phone::bind`], for one more person or company of the same bank.
    pub async fn bind_another(&self, code_or_uri: &str) -> Result<Binding, Error> {
        self.bind_with(&Invitation::read(code_or_uri, self.server.as_deref())?, true).await
    }

    /// Binds this phone with an invitation that was read; `another` beside one that exists.
    pub async fn bind_with(
        &self,
        invitation: &Invitation,
        another: bool,
    ) -> Result<Binding, Error> {
        let _turn = self.store.turn().await?;
        let number = match self.unfinished(invitation, another)? {
            Some(number) => number,
            None => self.begin(invitation).await?,
        };
        let (server, authority, message) = self.store.read(|contents| {
            let account = contents.account(number)?;
            let outgoing = account.outgoing.as_ref().ok_or(Error::NotBound)?;
            let authority = account.authority.as_deref().map(Arc::from);
            Ok((account.server.clone(), authority, outgoing.text.clone()))
        })?;
        let call = Call::post(BINDINGS, &Signed { message });
        let answer = self.call_unbound((&server, authority), call).await;
        let bound: Bound = match answer {
            Ok(answer) => answer.json()?,
            Err(error) => {
                // The code is used up or dead: what was begun leads nowhere.
                if is_last_word(&error) {
                    self.forget(number)?;
                }
                return Err(error);
            }
        };
        let binding = self.store.update(|contents| {
            let account = contents.account_mut(number)?;
            let Bound { device, device_token, match_number } = bound;
            let binding = Binding {
                account: number,
                issuer: account.issuer.clone(),
                device,
                match_number: match_number.clone(),
            };
            account.state = AccountState::Bound { device, device_token, match_number };
            account.outgoing = None;
            let server = account.server.clone();
            contents.accounts.retain(|other| !is_dead_at(other, &server));
            Ok(binding)
        })?;
        *self.chosen() = Some(number);
        Ok(binding)
    }

    /// The account that this code began and did not end.
    fn unfinished(&self, invitation: &Invitation, another: bool) -> Result<Option<u32>, Error> {
        let intent = intent(invitation);
        self.store.read(|contents| {
            let at_server = |account: &&Account| account.server == invitation.server;
            let began = |account: &&Account| {
                account.outgoing.as_ref().is_some_and(|outgoing| outgoing.intent == intent)
            };
            if let Some(account) = contents.accounts.iter().filter(at_server).find(began) {
                return Ok(Some(account.number));
            }
            let bound = contents.accounts.iter().filter(at_server).find(|a| a.bound().is_ok());
            match bound {
                Some(account) if !another => Err(Error::AlreadyBound(account.server.clone())),
                _ => Ok(None),
            }
        })
    }

    /// Checks that the server knows the code, pins its keys, and stores the message that binds.
    async fn begin(&self, invitation: &Invitation) -> Result<u32, Error> {
        let Invitation { server, code } = invitation;
        let start = BindingStart { activation: code.name() };
        let place = (server.as_str(), self.authority.clone());
        let answer = self.call_unbound(place, Call::post(START, &start)).await?;
        let BindingStarted { nonce, issuer, jwks, mac } = answer.json()?;
        let vouching = code.key();
        vouching.verify_server(&nonce, &issuer, jwks.text(), &mac)?;
        // Vouched for, and still an address that messages and proofs can be made for.
        let issuer = server_address(&issuer).ok().filter(|address| *address == issuer);
        let issuer = issuer.ok_or(MessageError::Malformed)?;

        let pkcs8 = SigningKey::generate(&self.random);
        let key = SigningKey::from_pkcs8(&pkcs8, &self.random).expect("just made");
        let bind = Bind {
            v: Version,
            iss: key.public().thumbprint(),
            aud: issuer.clone(),
            jti: Nonce::generate(self.entropy.as_ref()),
            iat: self.now(),
            ctr: 1,
            nonce,
            activation: code.name(),
            platform: self.platform.clone(),
            name: self.name.clone(),
            jkt_mac: vouching.phone_mac(&nonce, key.public().key_id()),
        };
        let text = messages::sign(&bind, &key, &self.random);
        self.store.update(|contents| {
            let server = server.clone();
            contents.accounts.retain(|other| {
                other.server != server || !matches!(other.state, AccountState::Binding)
            });
            contents.last_account += 1;
            let number = contents.last_account;
            contents.accounts.push(Account {
                number,
                server,
                issuer,
                authority: self.authority.as_deref().map(str::to_owned),
                jwks,
                key: pkcs8,
                next_key: None,
                state: AccountState::Binding,
                counter: bind.ctr,
                outgoing: Some(Outgoing { intent: intent(invitation), text }),
                tokens: Vec::new(),
                pending: Vec::new(),
                skew_milliseconds: None,
            });
            Ok(number)
        })
    }

    pub(super) fn forget(&self, number: u32) -> Result<(), Error> {
        self.store.update(|contents: &mut Contents| {
            contents.accounts.retain(|account| account.number != number);
            Ok(())
        })
    }
}

/// The code's name is no secret; the rest of it is never stored.
fn intent(invitation: &Invitation) -> String {
    format!("bind {}", invitation.code.name())
}

fn is_dead_at(account: &Account, server: &str) -> bool {
    account.server == server && matches!(account.state, AccountState::Revoked { .. })
}
