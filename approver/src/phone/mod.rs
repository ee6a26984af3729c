//! A phone: one binding of one store, and everything a person can do with it. Each method is one
//! whole act that can be repeated after any interruption: what must not be done twice was stored
//! before it was sent.

mod account;
mod approvals;
mod bind;
mod codes;
mod connection;
mod enroll;
mod raw;
mod sync;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use ring::rand::SystemRandom;
use semilla_core::entropy::Entropy;
use semilla_core::id::{DeviceId, OperationId};
use semilla_core::text::Name;
use semilla_core::time::Timestamp;
use serde::Serialize;

use crate::clock::Clock;
use crate::contents::{Account, AccountState, Contents};
use crate::errors::{Error, Input};
use crate::http::{Http, Transport};
use crate::review::Request;
use crate::store::{MemoryStore, Store};

pub use approvals::{Inbox, Refused};
pub use bind::Binding;
pub use codes::{CodeRequest, ShownCode};
pub use enroll::Enrolled;
pub use raw::{Draft, Raw};
pub use sync::TokenView;
pub use watch::{News, Watch};

/// A phone. All methods take `&self`: one phone can wait for requests and show codes at once.
pub struct Phone {
    store: Arc<Store>,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// For signatures, whose library takes no other generator; they are left out of traces.
    random: SystemRandom,
    /// The server for codes that are typed.
    server: Option<String>,
    /// The one authority to believe about the server of a new binding, as PEM.
    authority: Option<Arc<str>>,
    name: Name,
    platform: Name,
    /// The number of the account, once it is known.
    account: Mutex<Option<u32>>,
    /// The server's last `DPoP-Nonce`.
    nonce: Mutex<Option<String>>,
    /// Requests that were shown: an answer is signed over what was shown, not over what the server
    /// sends next under the same id.
    shown: Mutex<BTreeMap<OperationId, Arc<Request>>>,
}

/// A binding, as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccountView {
    /// Its number in this store.
    pub account: u32,
    /// Where the server is reached.
    pub server: String,
    /// The server's address as it stands in messages.
    pub issuer: String,
    /// The phone's id, once it has one.
    pub device: Option<DeviceId>,
    /// Whether it may speak.
    pub state: BindingState,
    /// The number to type on the phone that was bound before, while that is waited for.
    pub match_number: Option<String>,
    /// How many tokens give codes here.
    pub tokens: usize,
    /// The names of the pinned server keys (RFC 7638 thumbprints).
    pub server_keys: Vec<String>,
    /// Seconds that this phone's clock is behind the server's, or, negative, ahead.
    pub skew_seconds: Option<i64>,
}

/// How far a binding has come, as this phone knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BindingState {
    /// The server has not answered yet.
    Binding,
    /// Done; or a phone bound before has to agree.
    Bound,
    /// The server trusts it no more.
    Revoked,
}

impl Phone {
    /// A simulated phone without file and PIN.
    pub fn in_memory(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self::new(Arc::new(MemoryStore::new().into()), clock, entropy)
    }

    /// A phone with that store, over the network.
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let name = |text| Name::parse(text).expect("a name");
        Self {
            store,
            transport: Arc::new(Http::new()),
            clock,
            entropy,
            random: SystemRandom::new(),
            server: None,
            authority: None,
            name: name("AppMóvil"),
            platform: name(std::env::consts::OS),
            account: Mutex::default(),
            nonce: Mutex::default(),
            shown: Mutex::default(),
        }
    }

    /// Takes another way to the server: shared connections, or one that loses what passes.
    #[must_use]
    pub fn over(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = transport;
        self
    }

    /// Takes another clock, as if somebody had set this one.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Calls the phone what its owner calls it.
    pub fn named(mut self, name: &str) -> Result<Self, Error> {
        self.name = Name::parse(name).map_err(|_| Input::Name)?;
        Ok(self)
    }

    /// The server for codes that are typed without one.
    pub fn at_server(mut self, address: &str) -> Result<Self, Error> {
        self.server = Some(crate::invitation::server_address(address)?);
        Ok(self)
    }

    /// Believes this authority alone, as PEM, about the server of a new binding, from then on
    /// (security 39). Without it the public ones are believed.
    pub fn trusting(mut self, authority: &str) -> Result<Self, Error> {
        crate::http::connector(Some(authority)).map_err(|_| Input::Authority)?;
        self.authority = Some(authority.into());
        Ok(self)
    }

    /// Another binding of the same store, or the same one with fresh memory.
    #[must_use]
    pub fn for_account(&self, number: u32) -> Self {
        Self {
            store: Arc::clone(&self.store),
            transport: Arc::clone(&self.transport),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            random: self.random.clone(),
            server: self.server.clone(),
            authority: self.authority.clone(),
            name: self.name.clone(),
            platform: self.platform.clone(),
            account: Mutex::new(Some(number)),
            nonce: Mutex::default(),
            shown: Mutex::default(),
        }
    }

    /// The binding to the server of that address, where there is only one.
    pub fn for_server(&self, address: &str) -> Result<Self, Error> {
        let address = crate::invitation::server_address(address)?;
        let at_server =
            |account: &AccountView| account.server == address || account.issuer == address;
        let all = self.accounts()?;
        let here: Vec<&AccountView> = all.iter().filter(|account| at_server(account)).collect();
        match here.as_slice() {
            [] => Err(Error::NotBound),
            [account] => Ok(self.for_account(account.account)),
            many => {
                let name = |view: &&AccountView| format!("{} {}", view.account, view.server);
                Err(Error::WhichAccount(many.iter().map(name).collect()))
            }
        }
    }

    /// The bindings of this store, the oldest first.
    pub fn accounts(&self) -> Result<Vec<AccountView>, Error> {
        self.store.read(|contents| Ok(contents.accounts.iter().map(AccountView::of).collect()))
    }

    /// This phone's own binding.
    pub fn account(&self) -> Result<AccountView, Error> {
        self.read(|account| Ok(AccountView::of(account)))
    }

    /// The moment it is, by this phone's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The moment it is by the server's clock, as far as this phone knows.
    pub fn server_time(&self) -> Result<Timestamp, Error> {
        self.read(|account| Ok(account.server_time(self.now())))
    }

    fn read<T>(&self, look: impl FnOnce(&Account) -> Result<T, Error>) -> Result<T, Error> {
        self.store.read(|contents| look(contents.account(self.number(contents)?)?))
    }

    fn update<T>(&self, change: impl FnOnce(&mut Account) -> Result<T, Error>) -> Result<T, Error> {
        self.store.update(|contents| {
            let number = self.number(contents)?;
            change(contents.account_mut(number)?)
        })
    }

    /// Which account is meant: the one that was named or, where there is only one, that.
    fn number(&self, contents: &Contents) -> Result<u32, Error> {
        if let Some(number) = *self.chosen() {
            return Ok(number);
        }
        let bound: Vec<&Account> =
            contents.accounts.iter().filter(|account| account.bound().is_ok()).collect();
        match bound.as_slice() {
            // One that is not bound, or no more: its state says what to do.
            [] => contents.accounts.last().map(|account| account.number).ok_or(Error::NotBound),
            [account] => Ok(account.number),
            many => {
                let name = |account: &&Account| format!("{} {}", account.number, account.server);
                Err(Error::WhichAccount(many.iter().map(name).collect()))
            }
        }
    }

    fn chosen(&self) -> MutexGuard<'_, Option<u32>> {
        self.account.lock().expect("no panic while it was held")
    }
}

impl AccountView {
    fn of(account: &Account) -> Self {
        let (device, state, match_number) = match &account.state {
            AccountState::Binding => (None, BindingState::Binding, None),
            AccountState::Bound { device, match_number, .. } => {
                (Some(*device), BindingState::Bound, match_number.clone())
            }
            AccountState::Revoked { device } => (Some(*device), BindingState::Revoked, None),
        };
        let skew = account.skew_milliseconds;
        Self {
            account: account.number,
            server: account.server.clone(),
            issuer: account.issuer.clone(),
            device,
            state,
            match_number,
            tokens: account.tokens.len(),
            server_keys: account.jwks.keys().iter().map(|key| key.thumbprint()).collect(),
            skew_seconds: skew.map(seconds),
        }
    }
}

/// Milliseconds as whole seconds, the nearest.
fn seconds(milliseconds: i64) -> i64 {
    (milliseconds + 500 * milliseconds.signum()) / 1000
}
