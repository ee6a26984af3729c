//! The rotation of the master key: everything that is sealed under an older key is sealed again
//! under the first one, a few rows at a time, while the server works (security 94). How far it has
//! come is what the rows themselves say, so that it goes on after any interruption; the older key
//! opens until nothing needs it.
//!
//! Whatever stores something sealed is listed in `rows` here. What is forgotten there is found by
//! [`Store::sealed_under`] before the older key is destroyed.

use std::sync::Arc;

use semilla_core::approval::Operation;
use semilla_core::audit::{Actor, Draft};
use semilla_core::enrollment::{Activation, Enrollment, EnrollmentState};
use semilla_core::entropy::Entropy;
use semilla_core::id::CompanyId;
use semilla_core::seal::{Keyring, Purpose, SealError, Sealed};
use serde::{Deserialize, Serialize};

use super::Failure;
use crate::app::App;
use crate::records::{ConsentRequest, IdempotentAnswer, OwnSeed, Setting};
use crate::store::{
    Batch, Query, Record, Records, Store, StoreError, Topic, VerifierChange, Versioned, Write,
};
use crate::webhooks::{self, records::Webhook};

/// How many rows are written in one go.
const AT_ONCE: usize = 128;

/// How many rows are read in one go.
const PAGE: u32 = 500;

/// How often what changed meanwhile is looked for once more, before it is left for the next time.
const PASSES_MAX: usize = 32;

/// The setting in which the server states how far it is.
pub const STATE: &str = "key-rotation";

/// What it states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The key under which everything is sealed from now on.
    pub key: String,
    /// Whether everything that was sealed before is.
    pub done: bool,
    /// How many texts were sealed again, as far as this server knows.
    pub rewrapped: u64,
    /// What cannot be sealed again, and why, where something cannot: it is tried again and again.
    pub stuck: Option<String>,
}

/// Seals what is older than the keys.
struct Rewrap<'a> {
    ring: &'a Keyring,
    entropy: &'a dyn Entropy,
}

impl Rewrap<'_> {
    fn is_older(&self, sealed: &Sealed) -> bool {
        self.ring.ids().skip(1).any(|id| id == sealed.key_id())
    }

    /// Whether a row may hold something older, by its text.
    fn may_hold_older(&self, body: &str) -> bool {
        self.ring.ids().skip(1).any(|id| body.contains(&format!("\"{id}.")))
    }

    /// Seals one text again where it is older; whether it was.
    fn renew(&self, sealed: &mut Sealed, purpose: &Purpose<'_>) -> Result<bool, SealError> {
        if !self.is_older(sealed) {
            return Ok(false);
        }
        *sealed = self.ring.seal(&self.ring.open(sealed, purpose)?, purpose, self.entropy);
        Ok(true)
    }
}

/// A record that holds something sealed.
trait Holds: Record {
    fn renew(&mut self, with: &Rewrap<'_>) -> Result<bool, SealError>;
}

impl Holds for Setting {
    fn renew(&mut self, with: &Rewrap<'_>) -> Result<bool, SealError> {
        let mut sealed = Sealed::from_stored(self.value.clone());
        let purpose = Purpose::Other { kind: "secret", company: CompanyId::BANK, id: &self.name };
        let renewed = with.renew(&mut sealed, &purpose)?;
        sealed.as_str().clone_into(&mut self.value);
        Ok(renewed)
    }
}

impl Holds for Enrollment {
    fn renew(&mut self, with: &Rewrap<'_>) -> Result<bool, SealError> {
        let (company, token, generation) = (self.company, self.token, self.generation);
        match &mut self.state {
            EnrollmentState::Delivered { seed, .. }
            | EnrollmentState::Shown { seed }
            | EnrollmentState::InHand { seed, .. } => {
                with.renew(seed, &Purpose::Seed { company, token, generation })
            }
            _ => Ok(false),
        }
    }
}

impl Holds for OwnSeed {
    fn renew(&mut self, with: &Rewrap<'_>) -> Result<bool, SealError> {
        let id = self.token.to_string();
        let purpose = Purpose::Other { kind: "own-seed", company: CompanyId::BANK, id: &id };
        with.renew(&mut self.sealed, &purpose)
    }
}

impl Holds for Operation {
    fn renew(&mut self, with: &Rewrap<'_>) -> Result<bool, SealError> {
        let id = self.id.to_string();
        let purpose = Purpose::Other { kind: "match-number", company: self.company, id: &id };
        with.renew(&mut self.number, &purpose)
    }
}

impl Holds for Activation {
    fn renew(&mut self, with: &Rewrap<'_>) -> Result<bool, SealError> {
        let purpose = Purpose::Other { kind: "activation", company: self.company, id: &self.name };
        with.renew(&mut self.key, &purpose)
    }
}

impl Holds for IdempotentAnswer {
    fn renew(&mut self, with: &Rewrap<'_>) -> Result<bool, SealError> {
        let id = self.id();
        let purpose = Purpose::Other { kind: "idempotency", company: self.company, id: &id };
        with.renew(&mut self.answer, &purpose)
    }
}

impl Holds for Webhook {
    fn renew(&mut self, with: &Rewrap<'_>) -> Result<bool, SealError> {
        let (webhook, company) = (self.id, self.company);
        let mut renewed = false;
        for kept in &mut self.secrets {
            let id = webhooks::secret_id(webhook, kept.number);
            let purpose = Purpose::Other { kind: "webhook-secret", company, id: &id };
            renewed |= with.renew(&mut kept.sealed, &purpose)?;
        }
        Ok(renewed)
    }
}

impl Holds for ConsentRequest {
    fn renew(&mut self, with: &Rewrap<'_>) -> Result<bool, SealError> {
        let id = self.operation.to_string();
        let purpose = Purpose::Other { kind: "ping", company: self.company, id: &id };
        self.ping.as_mut().map_or(Ok(false), |ping| with.renew(ping, &purpose))
    }
}

/// Seals again what is older than the first key. Does nothing where there is no older key. Where it
/// is interrupted, or fails, it is begun again and finds what is left.
pub async fn run(app: &Arc<App>) -> Result<State, Failure> {
    let ring = app.keyring.ring();
    let key = ring.sealing().to_owned();
    let kept = app.store.get::<Setting>(CompanyId::BANK, STATE).await?;
    let before = kept.as_ref().and_then(|it| serde_json::from_str::<State>(&it.record.value).ok());
    let mut state = State { key: key.clone(), done: true, rewrapped: 0, stuck: None };
    if ring.ids().count() == 1 {
        return Ok(state);
    }
    match before {
        Some(before) if before.key == key && before.done => return Ok(before),
        Some(before) if before.key == key => state = before,
        _ => {
            let draft = draft(app, "key.rotation_began").with("key", &key);
            let older: Vec<_> = ring.ids().skip(1).collect();
            let draft = draft.with("older", older.join(" "));
            state.done = false;
            tell(app, &state, Some(draft)).await?;
        }
    }
    state.stuck = None;
    let ended = passes(app, &ring, &mut state).await;
    if let Err(Failure::Store(StoreError::Inconsistent { table, what })) = &ended {
        state.stuck = Some(format!("{table}: {what}"));
        tell(app, &state, None).await?;
    }
    ended.map(|()| state)
}

async fn passes(app: &App, ring: &Keyring, state: &mut State) -> Result<(), Failure> {
    let with = Rewrap { ring, entropy: app.entropy.as_ref() };
    for _ in 0..PASSES_MAX {
        let renewed = seeds(app, &with).await? + rows(app, &with).await?;
        state.rewrapped += renewed;
        if renewed == 0 {
            let older: Vec<_> = ring.ids().skip(1).collect();
            let left = app.store.sealed_under(&older).await?;
            if let Some((table, _)) = left.first() {
                tracing::warn!(table, "something is left under an older key");
                state.stuck = Some(format!("{table}: nothing here knows how"));
                tell(app, state, None).await?;
            } else {
                state.done = true;
                let draft = draft(app, "key.rotated").with("key", &state.key);
                tell(app, state, Some(draft.with("rewrapped", state.rewrapped))).await?;
                tracing::info!(
                    key = state.key,
                    rewrapped = state.rewrapped,
                    "everything is sealed anew"
                );
            }
            break;
        }
        tell(app, state, None).await?;
    }
    Ok(())
}

fn draft(app: &App, kind: &str) -> Draft {
    Draft::new(CompanyId::BANK, app.now(), kind, Actor::System)
}

async fn tell(app: &App, state: &State, draft: Option<Draft>) -> Result<(), Failure> {
    let mut batch = Batch::default();
    let value = serde_json::to_string(state).unwrap_or_default();
    batch.put(&Setting { name: STATE.to_owned(), value });
    batch.topics.extend(draft.as_ref().map(|_| Topic::Audit(CompanyId::BANK)));
    batch.audit.extend(draft);
    Ok(app.store.commit(batch).await?)
}

fn unsealed(table: &'static str, error: SealError) -> Failure {
    StoreError::Inconsistent { table, what: error.to_string() }.into()
}

/// Commits a few writes; those that met a change are left for the next pass.
async fn commit(store: &dyn Store, writes: Vec<Write>) -> Result<u64, Failure> {
    let mut done = 0;
    let count = writes.len() as u64;
    match store.commit(Batch { writes: writes.clone(), ..Batch::default() }).await {
        Ok(()) => return Ok(count),
        Err(StoreError::Conflict) => {}
        Err(error) => return Err(error.into()),
    }
    for write in writes {
        match store.commit(Batch { writes: vec![write], ..Batch::default() }).await {
            Ok(()) => done += 1,
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // What met a change is looked at again, whoever has changed it.
    Ok(done.max(1))
}

async fn seeds(app: &App, with: &Rewrap<'_>) -> Result<u64, Failure> {
    let (mut renewed, mut after) = (0, None);
    loop {
        let page = app.store.verifiers(after, PAGE).await?;
        let Some((company, token, _)) = page.last() else { return Ok(renewed) };
        after = Some((*company, *token));
        let mut writes = Vec::new();
        for (company, token, verifier) in page {
            let Some(from) = verifier.sealed.filter(|sealed| with.is_older(sealed)) else {
                continue;
            };
            let mut to = from.clone();
            let purpose = Purpose::Seed { company, token, generation: verifier.generation };
            with.renew(&mut to, &purpose).map_err(|error| unsealed("verifiers", error))?;
            writes.push(Write::Verifier(company, token, VerifierChange::Reseal { from, to }));
        }
        for some in writes.chunks(AT_ONCE) {
            renewed += commit(app.store.as_ref(), some.to_vec()).await?;
            if app.stopping.is_cancelled() {
                return Err(StoreError::Unavailable("stopping".to_owned()).into());
            }
        }
    }
}

/// Everything sealed that is no live seed.
async fn rows(app: &App, with: &Rewrap<'_>) -> Result<u64, Failure> {
    let mut renewed = 0;
    for company in app.store.audit_chains().await? {
        renewed += records::<Setting>(app, with, company).await?
            + records::<Enrollment>(app, with, company).await?
            + records::<OwnSeed>(app, with, company).await?
            + records::<Operation>(app, with, company).await?
            + records::<Activation>(app, with, company).await?
            + records::<ConsentRequest>(app, with, company).await?
            + records::<IdempotentAnswer>(app, with, company).await?
            + records::<Webhook>(app, with, company).await?;
    }
    Ok(renewed)
}

async fn records<R: Holds>(
    app: &App,
    with: &Rewrap<'_>,
    company: CompanyId,
) -> Result<u64, Failure> {
    let mut query = Query::of(R::TABLE, company, PAGE);
    let mut renewed = 0;
    loop {
        let page = app.store.rows(&query).await?;
        let Some(last) = page.last() else { return Ok(renewed) };
        query.after = Some((crate::store::Value::Null, last.id.clone()));
        let mut batch = Batch::default();
        for row in page.into_iter().filter(|row| with.may_hold_older(&row.body)) {
            let Versioned { mut record, version } = crate::store::read::<R>(row)?;
            if record.renew(with).map_err(|error| unsealed(R::TABLE.name, error))? {
                batch.update(&Versioned { record, version });
            }
        }
        for some in batch.writes.chunks(AT_ONCE) {
            renewed += commit(app.store.as_ref(), some.to_vec()).await?;
        }
    }
}
