//! Operations on tokens that need no phone, and the lists of them.

use schemars::JsonSchema;
use semilla_core::audit::{Actor, Subject};
use semilla_core::id::{CompanyId, EnrollmentId, TokenId, UserId};
use semilla_core::operations::{self, Action, BlockCause, State};
use semilla_core::person::{Company, Role, User};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::text::fold;
use semilla_core::time::Timestamp;
use semilla_core::token::{Changed, Effect, Kind, Refused, Serial, Token};
use serde::Deserialize;

use super::caller::{Acting, Caller};
use super::effects::{apply, audit_kind, destroy_own_seed};
use super::unit::Unit;
use super::views::{
    EnrollmentOpened, EnrollmentView, GenerationView, Page, TokenView, TokensChanged,
};
use super::{Failure, Plan};
use crate::app::App;
use crate::records::{Generation, OwnSeed, StoredToken};
use crate::store::{Query, Record, Records, Scope, Topic, Value, Versioned, Write};

/// The problem of an operation that the rules refuse: the state that is in the way, what may be
/// asked in it, and whose move it is.
pub fn problem_of(refused: Refused, stored: Option<&StoredToken>) -> Problem {
    let mut problem = Problem::new(ProblemType::StateConflict, capitalized(&refused));
    let Some(stored) = stored else { return problem };
    let state = stored.token.state();
    let allowed = operations::allowed(state, None)
        .filter(|action| refused != Refused::SeedGone || *action != Action::Unblock);
    problem.state = Some(state.name().to_owned());
    problem.allowed = Some(allowed.map(|action| action.name().to_owned()).collect());
    problem.who_can_act = state.whose_move().map(|party| party.name().to_owned());
    if let Refused::Pending(operation) = refused {
        problem.detail = format!(
            "Operation {operation} waits for a phone: answer it, cancel it, or wait until it expires."
        );
        problem.who_can_act = Some("administrator".to_owned());
    }
    problem
}

fn capitalized(refused: &Refused) -> String {
    let text = refused.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}

/// A company's token, in this unit.
pub async fn token_of(
    unit: &mut Unit<'_>,
    company: CompanyId,
    id: TokenId,
) -> Result<Versioned<StoredToken>, Failure> {
    unit.get(company, &id.to_string()).await?.ok_or_else(|| Problem::not_found().into())
}

/// Holds a change to the version that its caller has seen.
pub fn require_version<R>(read: &Versioned<R>, if_match: Option<i64>) -> Result<(), Failure> {
    match if_match {
        Some(version) if version != read.version => Err(Problem::new(
            ProblemType::PreconditionFailed,
            "It was changed since you read it: read it again and decide anew.",
        )
        .into()),
        _ => Ok(()),
    }
}

/// *assign*: gives a token of the pool to a user and opens an enrollment for it.
pub async fn assign(
    app: &App,
    acting: &Acting,
    id: TokenId,
    user: UserId,
    if_match: Option<i64>,
) -> Result<Plan<EnrollmentOpened>, Failure> {
    let mut unit = Unit::new(app);
    let company = acting.caller.company.id;
    let stored = token_of(&mut unit, company, id).await?;
    require_version(&stored, if_match)?;
    let holder = unit.get::<User>(company, &user.to_string()).await?.map(|user| user.record);
    let Some(holder) = holder else {
        return Err(Problem::field("#/user", "there is no such person").into());
    };
    if !holder.active || holder.role == Role::Auditor {
        return Err(Problem::field(
            "#/user",
            "only an active administrator or secondary user can hold a token",
        )
        .into());
    }
    // One of our own, and one that came with its seed: who moves from the one to the other is never
    // without a code.
    let (of_phone, others) = held_by(app, company, user).await?;
    let same = if stored.record.token.kind == Kind::Virtual { of_phone } else { others };
    if let Some(other) = same {
        let mut problem = Problem::new(
            ProblemType::StateConflict,
            format!("This person holds token {} already: release it first.", other.token.serial),
        );
        problem.state = Some(other.token.state().name().to_owned());
        problem.who_can_act = Some("administrator".to_owned());
        return Err(problem.into());
    }
    // Two assignments at once meet in the person's record.
    unit.save(&holder);
    let enrollment = EnrollmentId::new(unit.now, app.entropy.as_ref());
    let changed = stored
        .record
        .token
        .clone()
        .assign(user, enrollment, unit.now)
        .map_err(|refused| problem_of(refused, Some(&stored.record)))?;
    apply(&mut unit, &stored, changed, acting.actor(), None).await?;
    enrollment_opened(unit, company, enrollment).await
}

/// The virtual token that a person holds, and the one that came with its seed.
pub async fn held_by(
    app: &App,
    company: CompanyId,
    user: UserId,
) -> Result<(Option<StoredToken>, Option<StoredToken>), Failure> {
    let query = Query::of(StoredToken::TABLE, company, 10).equals("holder", user.to_string());
    let held = app.store.find::<StoredToken>(&query).await?;
    let (of_phone, others): (Vec<_>, Vec<_>) = held
        .into_iter()
        .map(|stored| stored.record)
        .partition(|stored| stored.token.kind == Kind::Virtual);
    Ok((of_phone.into_iter().next(), others.into_iter().next()))
}

/// Opens another enrollment for a token that waits for one; the earlier one is dead.
pub async fn open_enrollment(
    app: &App,
    acting: &Acting,
    id: TokenId,
    if_match: Option<i64>,
) -> Result<Plan<EnrollmentOpened>, Failure> {
    let mut unit = Unit::new(app);
    let company = acting.caller.company.id;
    let stored = token_of(&mut unit, company, id).await?;
    require_version(&stored, if_match)?;
    let rotation = match stored.record.token.enrollment {
        Some(earlier) => {
            let earlier = unit
                .must::<semilla_core::enrollment::Enrollment>(company, &earlier.to_string())
                .await?;
            earlier.record.rotation
        }
        None => None,
    };
    let enrollment = EnrollmentId::new(unit.now, app.entropy.as_ref());
    let changed = stored
        .record
        .token
        .clone()
        .open_again(enrollment)
        .map_err(|refused| problem_of(refused, Some(&stored.record)))?;
    apply(&mut unit, &stored, changed, acting.actor(), rotation).await?;
    let subject = Subject {
        token: Some(id),
        user: stored.record.token.holder(),
        enrollment: Some(enrollment),
        ..Subject::default()
    };
    unit.record(unit.draft(company, "enrollment.opened", acting.actor()).about(subject));
    enrollment_opened(unit, company, enrollment).await
}

async fn enrollment_opened(
    mut unit: Unit<'_>,
    company: CompanyId,
    id: EnrollmentId,
) -> Result<Plan<EnrollmentOpened>, Failure> {
    let enrollment =
        unit.must::<semilla_core::enrollment::Enrollment>(company, &id.to_string()).await?;
    let view = EnrollmentOpened { enrollment: EnrollmentView::from(&enrollment.record) };
    Ok(unit.plan(view))
}

/// *block*, by an administrator: at once, without a phone.
pub async fn block(
    app: &App,
    acting: &Acting,
    id: TokenId,
    cause: BlockCause,
    if_match: Option<i64>,
) -> Result<Plan<TokenView>, Failure> {
    if operations::Cause::Block(cause).is_of_system() {
        return Err(Problem::field("#/cause", "only the system itself gives this cause").into());
    }
    let mut unit = Unit::new(app);
    let stored = token_of(&mut unit, acting.caller.company.id, id).await?;
    require_version(&stored, if_match)?;
    block_in(unit, stored, cause, acting.actor()).await
}

/// *block*, by a rule of the product.
pub async fn block_by_system(
    app: &App,
    company: CompanyId,
    id: TokenId,
    cause: BlockCause,
) -> Result<Plan<TokenView>, Failure> {
    let mut unit = Unit::new(app);
    let stored = token_of(&mut unit, company, id).await?;
    block_in(unit, stored, cause, Actor::System).await
}

async fn block_in(
    mut unit: Unit<'_>,
    stored: Versioned<StoredToken>,
    cause: BlockCause,
    actor: Actor,
) -> Result<Plan<TokenView>, Failure> {
    let token = stored.record.token.clone();
    let changed = token
        .block(cause, unit.now)
        .map_err(|refused| problem_of(refused, Some(&stored.record)))?;
    let blocked = apply(&mut unit, &stored, changed, actor, None).await?;
    let view = TokenView::of(&blocked, unit.version_after(&blocked));
    Ok(unit.plan(view))
}

/// How an operator names tokens: by a run of serial numbers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SerialRun {
    /// The first one.
    pub first: Serial,
    /// How many: 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub count: u32,
}

impl SerialRun {
    /// The serial numbers.
    pub fn serials(&self) -> Result<Vec<Serial>, Problem> {
        if !(1..=100).contains(&self.count) {
            return Err(Problem::field("#/count", "must be 1 to 100"));
        }
        (0..self.count).map(|place| self.first.plus(place)).collect::<Option<_>>().ok_or_else(
            || Problem::field("#/count", "the serial numbers of these letters end before"),
        )
    }
}

/// *issue*: new tokens in the bank's stock.
pub async fn issue(
    app: &App,
    caller: &Caller,
    run: &SerialRun,
    kind: Kind,
) -> Result<Plan<TokensChanged>, Failure> {
    if !run.first.is_ours() {
        let detail = "the serial number of a new token is three letters A-Z and seven digits";
        return Err(Problem::field("#/first", detail).into());
    }
    if kind == Kind::Software {
        return Err(Problem::field("#/kind", "comes with its seed: import it").into());
    }
    let mut unit = Unit::new(app);
    let mut tokens = Vec::new();
    for serial in run.serials()? {
        if app.store.lookup(Scope::Serial, serial.as_str()).await?.is_some() {
            return Err(Problem::field("#/first", format!("{serial} exists already")).into());
        }
        let token =
            Token::issue(TokenId::new(unit.now, app.entropy.as_ref()), serial, kind, unit.now);
        super::effects::reserve(
            &mut unit,
            Scope::Serial,
            token.serial.to_string(),
            CompanyId::BANK,
            token.id.to_string(),
        );
        record_operator(&mut unit, CompanyId::BANK, &token, caller, None);
        let stored = StoredToken { token, holder_name: None, updated: unit.now };
        unit.save(&stored);
        tokens.push(TokenView::of(&stored, 1));
    }
    Ok(unit.plan(TokensChanged { tokens }))
}

/// What an operator does with tokens that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// *allot*: to a company.
    Allot(CompanyId),
    /// *withdraw*: back to the stock.
    Withdraw,
    /// *retire*: the end.
    Retire,
}

/// *allot*, *withdraw* and *retire*: all of the run, or none.
pub async fn move_tokens(
    app: &App,
    caller: &Caller,
    run: &SerialRun,
    to: Move,
) -> Result<Plan<TokensChanged>, Failure> {
    let mut unit = Unit::new(app);
    if let Move::Allot(company) = to {
        let known = unit.get::<Company>(CompanyId::BANK, &company.to_string()).await?;
        if !known
            .is_some_and(|company| company.record.active && company.record.id != CompanyId::BANK)
        {
            return Err(Problem::field("#/company", "there is no such active company").into());
        }
    }
    let mut tokens = Vec::new();
    for serial in run.serials()? {
        let unknown = || Problem::field("#/first", format!("{serial} does not exist"));
        let (owner, id) =
            app.store.lookup(Scope::Serial, serial.as_str()).await?.ok_or_else(unknown)?;
        let stored = unit.get::<StoredToken>(owner, &id).await?.ok_or_else(unknown)?;
        let token = stored.record.token.clone();
        let changed = match to {
            Move::Allot(company) => token.allot(company, unit.now),
            Move::Withdraw => token.withdraw(unit.now),
            Move::Retire => token.retire(unit.now),
        };
        let changed = changed.map_err(|refused| {
            let mut problem = problem_of(refused, Some(&stored.record));
            problem.detail = format!("{serial}: {}", problem.detail);
            problem
        })?;
        let mut exported = None;
        if stored.record.token.has_own_seed {
            exported = follow_seed(&mut unit, &stored.record.token, &changed, to).await?;
        }
        let moved = StoredToken { token: changed.token, holder_name: None, updated: unit.now };
        tokens.push(TokenView::of(&moved, stored.version + 1));
        for company in [owner, moved.token.company] {
            record_operator(&mut unit, company, &moved.token, caller, exported);
            if owner == moved.token.company {
                break;
            }
        }
        if owner == moved.token.company {
            unit.save(&moved);
        } else {
            unit.forget(&stored.record);
            unit.batch.move_to(&stored, &moved);
            unit.batch.writes.push(Write::Assign(
                Scope::Serial,
                serial.to_string(),
                moved.token.company,
                id,
            ));
        }
    }
    Ok(unit.plan(TokensChanged { tokens }))
}

/// What an operator's move of a token means for the seed it came with. Returns when that seed was
/// last exported.
async fn follow_seed(
    unit: &mut Unit<'_>,
    token: &Token,
    changed: &Changed,
    to: Move,
) -> Result<Option<Timestamp>, Failure> {
    let id = token.id.to_string();
    if changed.effects.contains(&Effect::OwnSeedDestroyed) {
        destroy_own_seed(unit, token).await?;
        return Ok(None);
    }
    let mut own = unit.must::<OwnSeed>(CompanyId::BANK, &id).await?.record;
    if to == Move::Withdraw {
        // The next company's verifier begins where this one's ended: nobody holds the token, so
        // that this one moves no more.
        let verifier = unit.app.store.verifier(token.company, token.id).await?;
        own.after = own.after.max(verifier.and_then(|verifier| verifier.counters.last_step));
        unit.save(&own);
    }
    Ok(own.exported)
}

/// An operator's work is in the bank's chain by name. A company's chain says that it happened.
fn record_operator(
    unit: &mut Unit<'_>,
    company: CompanyId,
    token: &Token,
    caller: &Caller,
    exported: Option<Timestamp>,
) {
    let actor = if company == CompanyId::BANK { caller.actor() } else { Actor::System };
    let subject = Subject { token: Some(token.id), ..Subject::default() };
    let draft = unit.draft(company, audit_kind(token.last.action), actor).about(subject);
    let mut draft = draft.with("serial", &token.serial).with("to", token.state().name());
    if let Some(at) = exported {
        // A company that is given such a token shall know that its seed is elsewhere as well.
        draft = draft.with("seed_exported_at", at);
    }
    unit.record(draft);
    unit.wake(Topic::Audit(company));
}

/// How a list of tokens is asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenListing {
    /// Only in this state.
    pub state: Option<State>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only of this person.
    pub holder: Option<UserId>,
    /// Only with this text in serial number or holder's name.
    pub q: Option<String>,
    /// By `serial`, `holder_name`, `state` or `updated`; with `-` before it, from the last.
    #[schemars(regex(pattern = "^-?(serial|holder_name|state|updated)$"))]
    pub sort: Option<String>,
    /// Behind this page.
    pub cursor: Option<String>,
    /// At most this many: 1 to 100, 20 if not said.
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u32>,
}

/// A page of the company's tokens.
pub async fn list(
    app: &App,
    caller: &Caller,
    listing: &TokenListing,
) -> Result<Page<TokenView>, Failure> {
    let limit = page_limit(listing.limit)?;
    let sort = listing.sort.as_deref().unwrap_or("serial");
    let (column, descending) = match sort.strip_prefix('-') {
        Some(column) => (column, true),
        None => (sort, false),
    };
    let order = match column {
        "serial" => "serial",
        "holder_name" => "holder_name_folded",
        "state" => "state",
        "updated" => "updated",
        _ => {
            return Err(Problem::field(
                "sort",
                "must be serial, holder_name, state or updated, or one with -",
            )
            .into());
        }
    };
    let mut query = Query::of(StoredToken::TABLE, caller.company.id, limit + 1);
    query.order = Some(order);
    query.descending = descending;
    if let Some(state) = listing.state {
        query = query.equals("state", state.name());
    }
    if let Some(kind) = listing.kind {
        query = query.equals("kind", kind.name());
    }
    if let Some(holder) = listing.holder {
        query = query.equals("holder", holder.to_string());
    }
    if let Some(text) = listing.q.as_deref().filter(|text| !text.is_empty()) {
        if text.chars().count() > 100 {
            return Err(Problem::field("q", "has at most 100 characters").into());
        }
        query.search = Some((&["serial_folded", "holder_name_folded"], fold(text)));
    }
    query.after = listing.cursor.as_deref().map(|cursor| read_cursor(cursor, sort)).transpose()?;
    let total = app.store.count(&query).await?;
    let found = app.store.find::<StoredToken>(&query).await?;
    Ok(page(found, limit, total, |last| {
        let place = StoredToken::TABLE.columns.iter().position(|name| *name == order);
        let value = place
            .and_then(|place| last.record.columns().into_iter().nth(place))
            .unwrap_or(Value::Null);
        write_cursor(sort, &value, &last.record.id())
    }))
}

/// The limit of a page.
pub fn page_limit(asked: Option<u32>) -> Result<u32, Failure> {
    match asked.unwrap_or(20) {
        limit @ 1..=100 => Ok(limit),
        _ => Err(Problem::field("limit", "must be 1 to 100").into()),
    }
}

/// Cuts what was found to a page.
pub fn page<R, T>(
    mut found: Vec<Versioned<R>>,
    limit: u32,
    total: u64,
    cursor: impl Fn(&Versioned<R>) -> String,
) -> Page<T>
where
    T: for<'a> From<&'a Versioned<R>>,
{
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(&cursor);
    Page { items: found.iter().map(T::from).collect(), next_cursor, total }
}

/// A cursor holds the sort it belongs to and the place of the last row. It is no secret and
/// proves nothing: whatever it says, the company's rows are all it can lead to.
pub fn write_cursor(sort: &str, value: &Value, id: &str) -> String {
    let value = match value {
        Value::Null => serde_json::Value::Null,
        Value::Integer(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
    };
    let text = serde_json::json!([sort, value, id]).to_string();
    semilla_core::base64url::encode(text.as_bytes())
}

/// Reads what [`write_cursor`] wrote, for the same sort.
pub fn read_cursor(cursor: &str, sort: &str) -> Result<(Value, String), Failure> {
    let wrong =
        || Failure::from(Problem::field("cursor", "is not a cursor of this list in this order"));
    let bytes = semilla_core::base64url::decode(cursor).ok_or_else(wrong)?;
    let (of, value, id): (String, serde_json::Value, String) =
        serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    let value = match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Number(number) => Value::Integer(number.as_i64().ok_or_else(wrong)?),
        serde_json::Value::String(text) => Value::Text(text),
        _ => return Err(wrong()),
    };
    if of != sort {
        return Err(wrong());
    }
    Ok((value, id))
}

/// One token.
pub async fn show(app: &App, caller: &Caller, id: TokenId) -> Result<TokenView, Failure> {
    let stored = app.store.get::<StoredToken>(caller.company.id, &id.to_string()).await?;
    stored.as_ref().map(TokenView::from).ok_or_else(|| Problem::not_found().into())
}

/// The generations of a token, the first one first; never a seed.
pub async fn generations(
    app: &App,
    caller: &Caller,
    id: TokenId,
) -> Result<Page<GenerationView>, Failure> {
    show(app, caller, id).await?;
    let query =
        Query::of(Generation::TABLE, caller.company.id, 100).equals("token", id.to_string());
    let total = app.store.count(&query).await?;
    let found = app.store.find::<Generation>(&query).await?;
    let items = found.iter().map(|generation| GenerationView::from(&generation.record)).collect();
    Ok(Page { items, next_cursor: None, total })
}
