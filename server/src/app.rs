//! What every part of the server works with: the store, the keys, the clock, the randomness, and
//! whom to wake. One value, made at start and shared.

use std::sync::Arc;
use std::time::Duration;

use ring::rand::SystemRandom;
use semilla_core::audit;
use semilla_core::entropy::Entropy;
use semilla_core::id::CompanyId;
use semilla_core::protocol::jwk::{JwkSet, SigningKey};
use semilla_core::seal::{Keyring, Purpose, Sealed};
use semilla_core::time::Timestamp;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::clock::{Clock, ClockWatch};
use crate::keyring::Keys;
use crate::metrics::Metrics;
use crate::outbound::Outbound;
use crate::records::Setting;
use crate::store::{Batch, Records, Store, StoreError, Topic};
use crate::workflow::checkpoints::Checkpoints;
use crate::workflow::retention::Forgetting;

/// The operating system's generator.
#[derive(Debug)]
pub struct SystemEntropy(SystemRandom);

impl Default for SystemEntropy {
    fn default() -> Self {
        Self(SystemRandom::new())
    }
}

impl Entropy for SystemEntropy {
    fn fill(&self, out: &mut [u8]) {
        use ring::rand::SecureRandom;
        // Without randomness there is no key worth having: nothing may go on.
        self.0.fill(out).expect("the operating system has random bytes");
    }
}

/// The keys a server signs with.
pub struct ServerKeys {
    /// The key that signs now.
    pub signing: SigningKey,
    /// The key that states what the audit chains are, and signs nothing else (security 92).
    pub checkpoints: SigningKey,
    /// The key that signs ID tokens, and nothing else: relying parties trust it, phones do not.
    pub id_tokens: SigningKey,
    /// The public keys of messages to phones, as the exact text that phones pin.
    pub public: JwkSet,
    /// All its public keys, as they are published.
    pub published: JwkSet,
    /// What idempotency keys and requests are hashed with: 32 bytes.
    pub idempotency: Zeroizing<Vec<u8>>,
}

/// How much programs may ask of the company API. 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramLimits {
    /// Requests of one program in a second; twice as many in a burst, and four times as many of a
    /// company's programs together.
    pub requests_per_second: u32,
    /// Codes of one program that may fail in a minute, for whatever reason.
    pub failed_codes_per_minute: u32,
}

/// What every part of the server works with.
pub struct App {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// What seals and opens at rest.
    pub keyring: Keys,
    /// What signs.
    pub keys: ServerKeys,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub entropy: Arc<dyn Entropy>,
    /// The same for signatures, which `ring` wants from its own source.
    pub random: SystemRandom,
    /// The server's address as its callers know it: `iss`, and what codes and phones name.
    pub issuer: String,
    /// Set once the server is to stop: whoever waits for something gives up.
    pub stopping: CancellationToken,
    /// When the database was last restored from a backup, if ever: what a phone signed before may
    /// have counted already.
    pub restored: Option<Timestamp>,
    /// Whether the clock can be believed (security 110).
    pub clock_watch: ClockWatch,
    /// How many failed codes within a minute, over all companies, raise the alarm (security 20).
    pub alarm_failures_per_minute: u32,
    /// How much programs may ask.
    pub program_limits: ProgramLimits,
    /// The failures of the last minute.
    pub failures: crate::workflow::codes::FailureWindow,
    /// Requests of the server's own.
    pub outbound: Outbound,
    /// Where checkpoints of the audit chains go, and how often.
    pub checkpoints: Checkpoints,
    /// What is forgotten when.
    pub forgetting: Forgetting,
    /// What is counted and measured.
    pub metrics: Metrics,
}

impl App {
    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Waits until `ready` has something to say, or `patience` is over, or the server stops.
    /// `ready` is asked first, and again whenever something of `topic` became durable.
    pub async fn wait_for<T, F>(
        &self,
        topic: &Topic,
        patience: Duration,
        mut ready: impl FnMut() -> F,
    ) -> Result<Option<T>, StoreError>
    where
        F: Future<Output = Result<Option<T>, StoreError>>,
    {
        let deadline = tokio::time::Instant::now() + patience;
        let _waits = (!patience.is_zero()).then(|| self.metrics.waits(topic));
        // Subscribed before the first look, so that nothing falls in between.
        let mut news = self.store.subscribe();
        loop {
            if let Some(found) = ready().await? {
                return Ok(Some(found));
            }
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(deadline) => return Ok(None),
                    () = self.stopping.cancelled() => return Ok(None),
                    told = news.recv() => match told {
                        Ok(topics) if topics.contains(topic) => break,
                        Ok(_) => {}
                        // Too much happened to have heard it all: look.
                        Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => break,
                        Err(tokio::sync::broadcast::error::RecvError::Closed) => return Ok(None),
                    },
                }
            }
        }
    }
}

/// Opens the keys that are kept in `store`, or makes and keeps the first ones.
pub async fn server_keys(
    store: &dyn Store,
    keyring: &Keyring,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<ServerKeys, KeysError> {
    let new_key = || Ok(SigningKey::generate(&SystemRandom::new()));
    let signing = kept_secret(store, keyring, entropy, now, "signing-key", new_key).await?;
    let checkpoints = kept_secret(store, keyring, entropy, now, "checkpoint-key", new_key).await?;
    let id_tokens = kept_secret(store, keyring, entropy, now, "id-token-key", new_key).await?;
    let idempotency = kept_secret(store, keyring, entropy, now, "idempotency-key", || {
        Ok(Zeroizing::new(semilla_core::entropy::bytes::<32>(entropy).to_vec()))
    })
    .await?;
    let key = |pkcs8: &[u8]| {
        SigningKey::from_pkcs8(pkcs8, &SystemRandom::new()).map_err(|_| KeysError::Unreadable)
    };
    let (signing, checkpoints) = (key(&signing)?, key(&checkpoints)?);
    let id_tokens = key(&id_tokens)?;
    let public = JwkSet::new(vec![signing.public().clone()]);
    let published = [&signing, &checkpoints, &id_tokens].map(|key| key.public().clone());
    let published = JwkSet::new(published.to_vec());
    Ok(ServerKeys { signing, checkpoints, id_tokens, public, published, idempotency })
}

async fn kept_secret(
    store: &dyn Store,
    keyring: &Keyring,
    entropy: &dyn Entropy,
    now: Timestamp,
    name: &str,
    make: impl Fn() -> Result<Zeroizing<Vec<u8>>, KeysError>,
) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let purpose = Purpose::Other { kind: "secret", company: CompanyId::BANK, id: name };
    if let Some(kept) = store.get::<Setting>(CompanyId::BANK, name).await? {
        return Ok(keyring.open(&Sealed::from_stored(kept.record.value), &purpose)?);
    }
    let made = make()?;
    let sealed = keyring.seal(&made, &purpose, entropy);
    let mut batch = Batch::default();
    batch.insert(&Setting { name: name.to_owned(), value: sealed.as_str().to_owned() });
    let record = audit::Draft::new(CompanyId::BANK, now, "key.created", audit::Actor::Local);
    batch.audit.push(record.with("name", name));
    store.commit(batch).await?;
    Ok(made)
}

/// Why there are no keys to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The master key is not the one the database was sealed under (security 33).
    #[error("the server's keys do not open: this master key belongs to another database ({0})")]
    Sealed(#[from] semilla_core::seal::SealError),
    /// What opened is no key.
    #[error("the signing key does not read")]
    Unreadable,
}
