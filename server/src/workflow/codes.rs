//! The one verifier. Every path that checks a code of a token goes through [`attempt`]: the same
//! counters, the same waits, the same record.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use semilla_core::audit::{Actor, Draft, Subject};
use semilla_core::id::{ClientId, CompanyId, TokenId, UserId};
use semilla_core::operations::{BlockCause, State};
use semilla_core::otp::{Code, Method, Step};
use semilla_core::person::{Company, Login, User};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::seal::{Purpose, Sealed};
use semilla_core::secret::SecretText;
use semilla_core::time::Timestamp;
use semilla_core::token::{Kind, Serial};
use semilla_core::verifier::{Locked, Lockout, Reach, Search, Verdict};
use serde::Deserialize;

use super::caller::Caller;
use super::effects::Proved;
use super::views::VerifyView;
use super::{Failure, act};
use crate::app::App;
use crate::records::StoredToken;
use crate::store::{Attempt, Batch, Check, Judged, Records, Scope, Topic, Verifier};

/// Whose code it is said to be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [
    { "token": "FEF4900032", "code": "12345678" },
    { "user": "laura.valencia", "code": "12345678" },
]))]
pub struct VerifyRequest {
    /// A token, by its id or serial number.
    pub token: Option<String>,
    /// A person, by their id or login.
    pub user: Option<String>,
    /// The code. Kept as text, since anything that is not a code is refused like a wrong one.
    pub code: SecretText,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The code is right, and its step is consumed.
    Accepted,
    /// The code proves the seed it was checked against; its step is yet to be consumed.
    Proved(Proved),
    /// It is not, for whichever reason.
    Refused,
    /// Attempts are refused unseen until then; `None` is for good.
    Locked(Option<Timestamp>),
    /// The seed does not open: nobody can say.
    Unreadable,
}

/// Which seed a code is checked against.
#[derive(Clone)]
pub enum Against {
    /// The live generation, as the verifier holds it. A right code consumes its step there.
    Live,
    /// A generation that is being proven. A right code changes nothing yet: the enrollment's
    /// confirmation opens the verifier and consumes the step in one transaction.
    Proving {
        /// Its number.
        generation: u32,
        /// Its seed.
        sealed: Sealed,
        /// How its codes are made.
        method: Method,
        /// The last step that another generation of the same seed reached.
        after: Option<Step>,
        /// By how many steps the token's own clock is said to be ahead.
        drift: i32,
    },
}

/// What was sent to be checked; none where it was no code.
pub enum Sent {
    /// A code.
    One(Option<Code>),
    /// Two codes in a row, by which a token is found that has left the window.
    Two(Option<[Code; 2]>),
}

impl Sent {
    /// Reads what a person typed: a code, or two in a row.
    pub fn read(code: &SecretText, next: Option<&SecretText>) -> Self {
        let read = |text: &SecretText| Code::parse(text.expose()).ok();
        match next {
            None => Self::One(read(code)),
            Some(next) => Self::Two(read(code).zip(read(next)).map(|(code, next)| [code, next])),
        }
    }

    /// Whether it can be right for any seed with this method.
    fn fits(&self, method: &Method) -> bool {
        let fits = |code: &Code| code.digits() == method.digits();
        match self {
            Self::One(code) => code.as_ref().is_some_and(fits),
            Self::Two(codes) => codes.as_ref().is_some_and(|codes| codes.iter().all(fits)),
        }
    }
}

/// Checks a code for a program. One answer for wrong, used, waiting, blocked, unknown and foreign
/// (security 10); what it was is in the record.
pub async fn verify(
    app: &Arc<App>,
    caller: &Caller,
    request: VerifyRequest,
) -> Result<VerifyView, Failure> {
    let company = &caller.company;
    let token = match (&request.token, &request.user) {
        (Some(token), None) => token_named(app, company.id, token).await?,
        (None, Some(user)) => token_of_user(app, company.id, user).await?,
        _ => return Err(Problem::field("#/token", "name either a token or a user").into()),
    };
    let by = By { company, token, client: Some(caller.client.id) };
    answered(attempt(app, by, Sent::read(&request.code, None), Against::Live).await?)
}

/// Finds a token with a clock or counter of its own again, by two codes in a row. It is an attempt
/// like any other: counted, recorded, and never accepted twice.
pub async fn resynchronize(
    app: &Arc<App>,
    caller: &Caller,
    id: TokenId,
    codes: [SecretText; 2],
) -> Result<VerifyView, Failure> {
    let company = &caller.company;
    let stored = app.store.get::<StoredToken>(company.id, &id.to_string()).await?;
    let token = stored.ok_or_else(Problem::not_found)?.record.token;
    if token.kind == Kind::Virtual {
        let mut problem = Problem::new(
            ProblemType::StateConflict,
            "Only a token that came with its seed has a clock or a counter of its own.",
        );
        problem.state = Some(token.state().name().to_owned());
        return Err(problem.into());
    }
    let by = By { company, token: Some(id), client: Some(caller.client.id) };
    answered(attempt(app, by, Sent::read(&codes[0], Some(&codes[1])), Against::Live).await?)
}

fn answered(tried: Tried) -> Result<VerifyView, Failure> {
    match tried {
        Tried::Unreadable => Err(unreadable()),
        tried => Ok(VerifyView { accepted: tried == Tried::Accepted }),
    }
}

fn unreadable() -> Failure {
    Problem::new(ProblemType::Unavailable, "Codes cannot be checked now. The attempt was counted.")
        .into()
}

async fn token_named(
    app: &App,
    company: CompanyId,
    name: &str,
) -> Result<Option<TokenId>, Failure> {
    let id = match name.parse::<Serial>() {
        Ok(serial) => match app.store.lookup(Scope::Serial, serial.as_str()).await? {
            Some((owner, id)) if owner == company => id.parse().ok(),
            _ => None,
        },
        Err(_) => name.parse::<TokenId>().ok(),
    };
    let Some(id) = id else { return Ok(None) };
    // A foreign token is an unknown one.
    let owned = app.store.verifier(company, id).await?.is_some();
    Ok(Some(id).filter(|_| owned))
}

async fn token_of_user(
    app: &App,
    company: CompanyId,
    name: &str,
) -> Result<Option<TokenId>, Failure> {
    let user = match name.parse::<UserId>() {
        Ok(id) => app.store.get::<User>(company, &id.to_string()).await?.map(|user| user.record.id),
        Err(_) => match Login::parse(name) {
            Ok(login) => {
                let found = app.store.lookup(Scope::Login, &format!("{company}/{login}")).await?;
                found.and_then(|(_, id)| id.parse().ok())
            }
            Err(_) => None,
        },
    };
    let Some(user) = user else { return Ok(None) };
    // The virtual one, unless it is yet to be enrolled: who moves from a token of another kind to a
    // virtual one is never without a code.
    let (of_phone, other) = super::tokens::held_by(app, company, user).await?;
    let waits = |held: &StoredToken| held.token.state() == State::Assigned;
    let held = match (of_phone, other) {
        (Some(of_phone), Some(other)) if waits(&of_phone) => Some(other),
        (of_phone, other) => of_phone.or(other),
    };
    Ok(held.map(|stored| stored.token.id))
}

/// Who tries a code, and of what.
#[derive(Clone, Copy)]
pub struct By<'a> {
    /// Whose token.
    pub company: &'a Company,
    /// Which; none where the caller named none of its company's.
    pub token: Option<TokenId>,
    /// The program that asks; none for a phone.
    pub client: Option<ClientId>,
}

/// One attempt: claimed, checked, counted and recorded in one transaction, and what follows from
/// too many of them. What is no code is refused, and not counted, since it can be right for no seed
/// (security 2).
pub async fn attempt(
    app: &Arc<App>,
    by: By<'_>,
    sent: Sent,
    against: Against,
) -> Result<Tried, Failure> {
    require_steady_clock(app).await?;
    let lockout = by.company.policy.lockout;
    let reach = Reach { look_ahead: by.company.policy.look_ahead };
    let now = app.now();
    let rule = Rule {
        app: Arc::clone(app),
        company: by.company.id,
        token: by.token,
        client: by.client,
        sent,
        against,
        lockout,
        reach,
        now,
    };
    let check = Check {
        company: by.company.id,
        token: by.token,
        judge: Box::new(move |verifier| rule.judge(verifier)),
    };
    let attempt = app.store.check(check).await?;
    app.metrics.tried(&attempt.outcome);
    let tried = read_outcome(&attempt.outcome);
    if let Some(token) = by.token {
        follow_up(app, by.company.id, token, &lockout, &attempt).await?;
    }
    if !matches!(tried, Tried::Accepted | Tried::Proved(_)) {
        raise_alarm(app, now).await?;
    }
    Ok(tried)
}

/// Codes are checked only while the clock can be believed; a step of it is told (security 110).
pub async fn require_steady_clock(app: &App) -> Result<(), Failure> {
    if let Some(step) = app.clock_watch.look(app.clock.as_ref()) {
        tracing::warn!(milliseconds = step, "the clock made a step");
        let draft = Draft::new(CompanyId::BANK, app.now(), "alarm.clock_stepped", Actor::System);
        let audit = vec![draft.with("milliseconds", step)];
        app.store
            .commit(Batch {
                audit,
                topics: vec![Topic::Audit(CompanyId::BANK)],
                ..Batch::default()
            })
            .await?;
    }
    if app.clock_watch.is_doubted() {
        let detail = "The server's clock made a jump. Codes are refused until it is right and the server was restarted.";
        return Err(Problem::new(ProblemType::Unavailable, detail).into());
    }
    Ok(())
}

struct Rule {
    app: Arc<App>,
    company: CompanyId,
    token: Option<TokenId>,
    client: Option<ClientId>,
    sent: Sent,
    against: Against,
    lockout: Lockout,
    reach: Reach,
    now: Timestamp,
}

impl Rule {
    fn judge(&self, verifier: Option<&Verifier>) -> Judged {
        let counters = verifier.map(|verifier| verifier.counters).unwrap_or_default();
        let outcome = |outcome: String, counters, failures| Judged {
            counters,
            attempt: Attempt {
                at: self.now,
                token: self.token,
                client: self.client,
                outcome,
                failures,
            },
        };
        let unseen = |word: &str| outcome(word.to_owned(), None, counters.failures);
        let Some(token) = self.token else { return unseen("unknown") };
        let (generation, sealed, method) = match (&self.against, verifier) {
            (Against::Proving { generation, sealed, method, .. }, _) => {
                (*generation, sealed, *method)
            }
            (
                Against::Live,
                Some(Verifier { open: true, sealed: Some(sealed), generation, method, .. }),
            ) => (*generation, sealed, *method),
            (Against::Live, Some(Verifier { sealed: Some(_), .. })) => return unseen("closed"),
            (Against::Live, _) => return unseen("no_seed"),
        };
        // Also a code of another length can be right for nothing.
        if !self.sent.fits(&method) {
            return unseen("malformed");
        }
        // Claimed first: what follows can only be done with a claimed attempt.
        let claimed = match counters.claim(&self.lockout, self.now) {
            Ok(claimed) => claimed,
            Err(Locked::Waiting(until)) => {
                return unseen(&format!("waiting:{}", until.milliseconds()));
            }
            Err(Locked::ForGood) => return unseen("locked"),
        };
        let purpose = Purpose::Seed { company: self.company, token, generation };
        let Ok(seed) = self.app.keyring.open_seed(sealed, &purpose) else {
            let counters = claimed.unchecked();
            return outcome("unreadable".to_owned(), Some(counters), counters.failures);
        };
        let before = counters.failures;
        // Of an attempt that is not accepted all that is stored is that it was made.
        let pending = claimed_counters(&counters, &self.lockout, self.now);
        let failures = pending.map_or(before, |pending| pending.failures);
        let (claimed, search) = match &self.against {
            Against::Live => (claimed, Search::Forward),
            Against::Proving { after, drift, .. } => {
                (claimed.on_new_generation(*after, *drift), Search::Afresh)
            }
        };
        let (reach, now) = (self.reach, self.now);
        let ((verdict, after), accepted) = match &self.sent {
            Sent::One(Some(code)) => (claimed.check(&seed, &method, reach, code, now), "accepted"),
            Sent::Two(Some([code, next])) => {
                let codes = [code, next];
                (claimed.resynchronize(&seed, &method, search, codes, now), "resynchronized")
            }
            Sent::One(None) | Sent::Two(None) => return unseen("malformed"),
        };
        match (verdict, &self.against) {
            (Verdict::Accepted(_), Against::Live) => {
                outcome(accepted.to_owned(), Some(after), before)
            }
            // Proven, but not yet live: the attempt stays claimed until the confirmation is durable.
            (Verdict::Accepted(step), Against::Proving { .. }) => {
                outcome(format!("proved:{}:{}", step.0, after.drift), pending, before)
            }
            (Verdict::Used, _) => outcome("used".to_owned(), pending, failures),
            (Verdict::Wrong, _) => outcome("wrong".to_owned(), pending, failures),
        }
    }
}

fn claimed_counters(
    counters: &semilla_core::verifier::Counters,
    lockout: &Lockout,
    now: Timestamp,
) -> Option<semilla_core::verifier::Counters> {
    counters.claim(lockout, now).ok().map(semilla_core::verifier::Claimed::unchecked)
}

fn read_outcome(outcome: &str) -> Tried {
    match outcome.split_once(':') {
        Some(("waiting", until)) => {
            Tried::Locked(until.parse().ok().map(Timestamp::from_milliseconds))
        }
        Some(("proved", shown)) => match shown.split_once(':') {
            Some((step, drift)) => match (step.parse().map(Step), drift.parse()) {
                (Ok(step), Ok(drift)) => Tried::Proved(Proved { step, drift }),
                _ => Tried::Refused,
            },
            None => Tried::Refused,
        },
        _ => match outcome {
            "accepted" | "resynchronized" => Tried::Accepted,
            "locked" => Tried::Locked(None),
            "unreadable" => Tried::Unreadable,
            _ => Tried::Refused,
        },
    }
}

/// What the holder and the company are told, and the block at the end (security 15, 22).
async fn follow_up(
    app: &Arc<App>,
    company: CompanyId,
    token: TokenId,
    lockout: &Lockout,
    attempt: &Attempt,
) -> Result<(), Failure> {
    let failures = attempt.failures;
    let tell = |kind: &str| {
        let subject = Subject { token: Some(token), ..Subject::default() };
        Draft::new(company, attempt.at, kind, Actor::System)
            .about(subject)
            .with("failures", failures)
    };
    let draft = match attempt.outcome.as_str() {
        "wrong" | "used" if failures >= lockout.block_at => {
            app.metrics.locked("blocked");
            let app_of_task = Arc::clone(app);
            let blocked = act(app, None, move |_| {
                let app = Arc::clone(&app_of_task);
                async move {
                    super::tokens::block_by_system(
                        &app,
                        company,
                        token,
                        BlockCause::TooManyFailures,
                    )
                    .await
                }
            })
            .await;
            return match blocked {
                // Refused: it is blocked already.
                Ok(_) | Err(Failure::Refused(_) | Failure::Recorded(..)) => Ok(()),
                Err(error) => Err(error),
            };
        }
        "wrong" | "used" if failures == lockout.wait_from => {
            app.metrics.locked("waiting");
            tell("otp.waiting_began")
        }
        "wrong" | "used" if failures + 5 == lockout.block_at => tell("otp.block_is_near"),
        "accepted" if failures >= lockout.wait_from => tell("otp.accepted_after_failures"),
        "resynchronized" => tell("otp.resynchronized"),
        "unreadable" => tell("otp.seed_unreadable"),
        _ => return Ok(()),
    };
    let topics = vec![Topic::Audit(company)];
    app.store.commit(Batch { audit: vec![draft], topics, ..Batch::default() }).await?;
    Ok(())
}

/// The failures of the last minute, over all companies (security 20).
#[derive(Debug, Default)]
pub struct FailureWindow(Mutex<VecDeque<Timestamp>>);

impl FailureWindow {
    /// Counts a failure; whether it is the one that reaches `limit` within a minute.
    fn count(&self, now: Timestamp, limit: u32) -> bool {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while failures.front().is_some_and(|first| now.since(*first).as_secs() >= 60) {
            failures.pop_front();
        }
        failures.push_back(now);
        // Once: the window empties, and the next alarm needs as many again.
        let reached = failures.len() >= limit as usize;
        if reached {
            failures.clear();
        }
        reached
    }
}

async fn raise_alarm(app: &App, now: Timestamp) -> Result<(), Failure> {
    let limit = app.alarm_failures_per_minute;
    if app.failures.count(now, limit) {
        tracing::warn!(limit, "failed codes within a minute, over all companies");
        let draft = Draft::new(CompanyId::BANK, now, "alarm.failure_rate", Actor::System);
        let audit = vec![draft.with("failures_per_minute", limit)];
        app.store
            .commit(Batch {
                audit,
                topics: vec![Topic::Audit(CompanyId::BANK)],
                ..Batch::default()
            })
            .await?;
    }
    Ok(())
}
