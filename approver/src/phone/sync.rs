//! What the server says about the tokens of the phone's owner, and what follows for this phone: a
//! generation that the server no longer has on this phone is forgotten here, so that the former
//! holder's app is dead for that token; one whose confirmation got lost goes live.

use semilla_core::id::{DeviceId, TokenId};
use semilla_core::protocol::wire::{HeldState, HeldToken, HeldTokens};
use semilla_core::time::Timestamp;
use semilla_core::token::Serial;
use serde::Serialize;

use super::Phone;
use super::connection::Call;
use crate::contents::{Account, AccountState};
use crate::errors::Error;

/// A token of the phone's owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenView {
    /// Its id.
    pub token: TokenId,
    /// Its serial number.
    pub serial: String,
    /// The company.
    pub company: String,
    /// What it can do, by the server's last word.
    pub state: HeldState,
    /// The generation of its seed.
    pub generation: u32,
    /// Whether this phone gives its codes.
    pub here: bool,
}

impl Phone {
    /// The tokens whose codes this phone gives, from its own memory.
    pub fn tokens(&self) -> Result<Vec<TokenView>, Error> {
        self.read(|account| {
            let view = |token: &crate::contents::Token| TokenView {
                token: token.token,
                serial: token.serial.clone(),
                company: token.company.to_string(),
                state: token.state,
                generation: token.generation,
                here: true,
            };
            account.bound()?;
            Ok(account.tokens.iter().map(view).collect())
        })
    }

    /// Asks the server for the tokens of the phone's owner, and forgets what is no longer live on
    /// this phone.
    pub async fn sync(&self) -> Result<Vec<TokenView>, Error> {
        let held = self.held_tokens().await?;
        let now = self.now();
        self.update(|account| {
            let (device, _) = account.bound()?;
            // Whoever is answered waits for no other phone any more.
            if let AccountState::Bound { match_number, .. } = &mut account.state {
                *match_number = None;
            }
            reconcile(account, device, &held, now);
            let here =
                |token: &HeldToken| account.tokens.iter().any(|own| own.token == token.token);
            let view = |token: &HeldToken| TokenView {
                token: token.token,
                serial: token.serial.clone(),
                company: token.company.to_string(),
                state: token.state,
                generation: token.generation,
                here: here(token),
            };
            Ok(held.iter().map(view).collect())
        })
    }

    pub(super) async fn held_tokens(&self) -> Result<Vec<HeldToken>, Error> {
        let answer = self.call(Call::get("/device/v1/tokens")).await?;
        let HeldTokens { tokens } = answer.json()?;
        tokens.iter().try_for_each(|token| require_serial(&token.serial))?;
        Ok(tokens)
    }
}

/// A serial number from the connection has its form, or it is not shown or stored.
pub(super) fn require_serial(serial: &str) -> Result<(), Error> {
    let serial: Result<Serial, _> = serial.parse();
    serial.map(|_| ()).map_err(|_| Error::UnexpectedAnswer("serial".to_owned()))
}

fn reconcile(account: &mut Account, device: DeviceId, held: &[HeldToken], now: Timestamp) {
    let is_live_here = |token: TokenId, generation: u32| {
        held.iter().find(|held| {
            held.token == token && held.generation == generation && held.device == Some(device)
        })
    };
    let proven: Vec<_> = account
        .pending
        .iter()
        .filter(|pending| is_live_here(pending.token, pending.generation).is_some())
        .map(|pending| pending.enrollment)
        .collect();
    for enrollment in proven {
        account.promote(enrollment);
    }
    account.tokens.retain_mut(|token| match is_live_here(token.token, token.generation) {
        Some(held) => {
            token.state = held.state;
            true
        }
        None => false,
    });
    // A generation that was never proven ends with its enrollment, or with the person's token.
    let now = account.server_time(now);
    let mine = |token: TokenId| held.iter().any(|held| held.token == token);
    account.pending.retain(|pending| now < pending.expires_at && mine(pending.token));
}
