//! What a phone remembers: the form in which the store keeps it. Nothing here is shown or sent;
//! `Serialize` writes secrets into the one buffer that is sealed next, which is why these types
//! stay inside the crate and have no `Debug`.

use std::io;

use semilla_core::base64url;
use semilla_core::id::{DeviceId, EnrollmentId, TokenId};
use semilla_core::otp::{Parameters, Step};
use semilla_core::protocol::jwk::{JwkSet, SigningKey};
use semilla_core::protocol::seed_delivery::SeedKem;
use semilla_core::protocol::wire::HeldState;
use semilla_core::secret::{SecretText, Seed};
use semilla_core::text::Name;
use semilla_core::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::errors::{Error, StoreFault};

/// Everything.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contents {
    /// The number of the last account that was made: numbers are never used twice.
    pub(crate) last_account: u32,
    /// The bindings, the oldest first.
    pub(crate) accounts: Vec<Account>,
}

/// One binding: this phone as one server knows it for one person.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Account {
    /// Its number in this store.
    pub(crate) number: u32,
    /// Where the server is reached.
    pub(crate) server: String,
    /// The server's address as it stands in messages.
    pub(crate) issuer: String,
    /// The one authority that is believed about the server's certificate, as PEM, where one was
    /// named when this phone was bound; none for the public ones.
    #[serde(default)]
    pub(crate) authority: Option<String>,
    /// The server's keys, pinned when the code vouched for them (security 39, 131).
    pub(crate) jwks: JwkSet,
    /// The phone's private key for this server, PKCS#8.
    #[serde(with = "secret_bytes")]
    pub(crate) key: Zeroizing<Vec<u8>>,
    /// The key that is to replace it, until the server has confirmed.
    #[serde(with = "optional_secret_bytes")]
    pub(crate) next_key: Option<Zeroizing<Vec<u8>>>,
    /// How far it has come.
    pub(crate) state: AccountState,
    /// The counter of the last message that was signed (security 130).
    pub(crate) counter: u64,
    /// The last signed message, until the server has answered it.
    pub(crate) outgoing: Option<Outgoing>,
    /// Tokens whose generation is live here.
    pub(crate) tokens: Vec<Token>,
    /// Generations that were asked for and are not yet proven.
    pub(crate) pending: Vec<Pending>,
    /// How far the server's clock is ahead of this phone's, in milliseconds, as last learned.
    pub(crate) skew_milliseconds: Option<i64>,
}

/// How far a binding has come.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum AccountState {
    /// The server has not answered yet. The message is in `outgoing`.
    Binding,
    /// It is bound, or waits for a phone that was bound before.
    Bound {
        /// The phone's id.
        device: DeviceId,
        /// Its access token.
        #[serde(serialize_with = "exposed_text")]
        device_token: SecretText,
        /// The number to type on the phone that was bound before.
        match_number: Option<String>,
    },
    /// The server trusts it no more.
    Revoked {
        /// The phone's id.
        device: DeviceId,
    },
}

/// A signed message that may or may not have reached the server.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outgoing {
    /// What the person wanted, in a word: who wants the same again sends the same text again.
    pub(crate) intent: String,
    /// The message.
    pub(crate) text: String,
}

/// A token that makes codes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    pub(crate) token: TokenId,
    pub(crate) serial: String,
    pub(crate) company: Name,
    pub(crate) generation: u32,
    /// The server's last word on it.
    pub(crate) state: HeldState,
    pub(crate) seed: LiveSeed,
}

/// A seed and what its codes need.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LiveSeed {
    /// Whose token it is, as the bank wants it shown.
    pub(crate) issuer: Name,
    pub(crate) parameters: Parameters,
    #[serde(with = "secret_seed")]
    pub(crate) secret: Seed,
    /// The last step whose code was handed out as unused, or proved the enrollment.
    pub(crate) used: Option<Step>,
}

/// A generation on its way.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pending {
    pub(crate) enrollment: EnrollmentId,
    pub(crate) token: TokenId,
    pub(crate) serial: String,
    pub(crate) company: Name,
    pub(crate) generation: u32,
    pub(crate) expires_at: Timestamp,
    /// The private key to which the seed is sealed.
    #[serde(with = "secret_kem")]
    pub(crate) kem: SeedKem,
    /// The `enroll+jwt`: the seed opens only with its exact text.
    pub(crate) request: String,
    /// The seed, once it has come.
    pub(crate) seed: Option<LiveSeed>,
}

impl Contents {
    /// As JSON, in a buffer that was made large enough at once, with `spare` bytes more: a buffer
    /// that grows leaves copies behind.
    pub(crate) fn to_bytes(&self, spare: usize) -> Zeroizing<Vec<u8>> {
        let mut length = Count(0);
        serde_json::to_writer(&mut length, self).expect("always JSON");
        let mut bytes = Zeroizing::new(Vec::with_capacity(length.0 + spare));
        serde_json::to_writer(&mut *bytes, self).expect("always JSON");
        bytes
    }

    /// Reads what [`Contents::to_bytes`] wrote.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, StoreFault> {
        serde_json::from_slice(bytes).map_err(|_| StoreFault::Damaged)
    }

    pub(crate) fn account(&self, number: u32) -> Result<&Account, Error> {
        self.accounts.iter().find(|account| account.number == number).ok_or(Error::NotBound)
    }

    pub(crate) fn account_mut(&mut self, number: u32) -> Result<&mut Account, Error> {
        self.accounts.iter_mut().find(|account| account.number == number).ok_or(Error::NotBound)
    }
}

impl Account {
    /// The phone's id and its access token.
    pub(crate) fn bound(&self) -> Result<(DeviceId, &SecretText), Error> {
        match &self.state {
            AccountState::Bound { device, device_token, .. } => Ok((*device, device_token)),
            AccountState::Binding => Err(Error::NotBound),
            AccountState::Revoked { .. } => Err(Error::Revoked),
        }
    }

    /// The key, ready to sign. It is dropped by whoever asked for it.
    pub(crate) fn signing_key(&self) -> Result<SigningKey, StoreFault> {
        SigningKey::from_pkcs8(&self.key, &ring::rand::SystemRandom::new())
            .map_err(|_| StoreFault::Damaged)
    }

    /// The server trusts this phone no more: whatever it could still open is forgotten.
    pub(crate) fn revoke(&mut self) {
        if let Ok((device, _)) = self.bound() {
            self.state = AccountState::Revoked { device };
        }
        self.tokens.clear();
        self.pending.clear();
        self.outgoing = None;
        self.next_key = None;
    }

    pub(crate) fn pending(&self, enrollment: EnrollmentId) -> Option<&Pending> {
        self.pending.iter().find(|pending| pending.enrollment == enrollment)
    }

    pub(crate) fn pending_mut(&mut self, enrollment: EnrollmentId) -> Option<&mut Pending> {
        self.pending.iter_mut().find(|pending| pending.enrollment == enrollment)
    }

    /// The proven generation takes the place of the one before it. `None` where no seed has come.
    pub(crate) fn promote(&mut self, enrollment: EnrollmentId) -> Option<&Token> {
        let place = self.pending.iter().position(|pending| pending.enrollment == enrollment)?;
        self.pending[place].seed.as_ref()?;
        let Pending { token, serial, company, generation, seed, .. } = self.pending.remove(place);
        self.tokens.retain(|held| held.token != token);
        self.pending.retain(|other| other.token != token || other.generation > generation);
        let state = HeldState::Active;
        self.tokens.push(Token { token, serial, company, generation, state, seed: seed? });
        self.tokens.last()
    }

    /// The moment it is by the server's clock, as far as the phone knows.
    pub(crate) fn server_time(&self, now: Timestamp) -> Timestamp {
        let skew = self.skew_milliseconds.unwrap_or(0);
        Timestamp::from_milliseconds(now.milliseconds().saturating_add(skew))
    }
}

/// Counts what is written.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn exposed_text<S: Serializer>(secret: &SecretText, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

fn exposed<S: Serializer>(secret: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&Zeroizing::new(base64url::encode(secret)))
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
    let text = Zeroizing::new(String::deserialize(deserializer)?);
    let bytes = base64url::decode(&text).map(Zeroizing::new);
    bytes.ok_or_else(|| de::Error::custom("not base64url"))
}

mod secret_bytes {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        bytes: &Zeroizing<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        exposed(bytes, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Zeroizing<Vec<u8>>, D::Error> {
        read(deserializer)
    }
}

mod optional_secret_bytes {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Zeroizing<Vec<u8>>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        // An absent key is an empty text: no key is empty.
        exposed(bytes.as_ref().map_or(&[], |bytes| bytes), serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, D::Error> {
        read(deserializer).map(|bytes| Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

mod secret_seed {
    use super::*;

    pub(super) fn serialize<S: Serializer>(seed: &Seed, serializer: S) -> Result<S::Ok, S::Error> {
        exposed(seed.expose(), serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Seed, D::Error> {
        Seed::from_bytes(read(deserializer)?).map_err(de::Error::custom)
    }
}

mod secret_kem {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        kem: &SeedKem,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        exposed(kem.expose().as_slice(), serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SeedKem, D::Error> {
        SeedKem::from_bytes(&read(deserializer)?).map_err(de::Error::custom)
    }
}
