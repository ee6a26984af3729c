//! The one verifier. Every path that checks a code of a token goes through [`attempt`]: the same
//! counters, the same waits, the same record.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use semilla_core::audit::{Actor, Draft, Subject};
use semilla_core::id::{ClientId, CompanyId, TokenId, UserId};
use semilla_core::operations::BlockCause;
use semilla_core::otp::{Code, Parameters, Step};
use semilla_core::person::{Company, Login, User};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::seal::{Purpose, Sealed};
use semilla_core::secret::SecretText;
use semilla_core::time::Timestamp;
use semilla_core::token::Serial;
use semilla_core::verifier::{Locked, Lockout, Verdict};
use serde::Deserialize;

use super::caller::Caller;
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
    Proved(Step),
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
        parameters: Parameters,
    },
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
    let code = Code::parse(request.code.expose()).ok();
    let by = By { company, token, client: Some(caller.client.id) };
    let tried = attempt(app, by, code, Against::Live).await?;
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
    let held = super::tokens::held_by(app, company, user).await?;
    Ok(held.map(|stored: StoredToken| stored.token.id))
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
/// too many of them. `code` is none where what came is no code: refused, and not counted, since it
/// can be right for no seed (security 2).
pub async fn attempt(
    app: &Arc<App>,
    by: By<'_>,
    code: Option<Code>,
    against: Against,
) -> Result<Tried, Failure> {
    require_steady_clock(app).await?;
    let lockout = by.company.policy.lockout;
    let now = app.now();
    let rule = Rule {
        app: Arc::clone(app),
        company: by.company.id,
        token: by.token,
        client: by.client,
        code,
        against,
        lockout,
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
    code: Option<Code>,
    against: Against,
    lockout: Lockout,
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
        let (generation, sealed, parameters) = match (&self.against, verifier) {
            (Against::Proving { generation, sealed, parameters }, _) => {
                (*generation, sealed, *parameters)
            }
            (
                Against::Live,
                Some(Verifier { open: true, sealed: Some(sealed), generation, parameters, .. }),
            ) => (*generation, sealed, *parameters),
            (Against::Live, Some(Verifier { sealed: Some(_), .. })) => return unseen("closed"),
            (Against::Live, _) => return unseen("no_seed"),
        };
        // Also a code of another length can be right for nothing.
        let fits = |code: &&Code| code.digits() == parameters.digits;
        let Some(code) = self.code.as_ref().filter(fits) else { return unseen("malformed") };
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
        let pending = claimed_counters(&counters, &self.lockout, self.now);
        match (claimed.check(&seed, &parameters, code, self.now), &self.against) {
            ((Verdict::Accepted(_), after), Against::Live) => {
                outcome("accepted".to_owned(), Some(after), before)
            }
            // Proven, but not yet live: the attempt stays claimed until the confirmation is durable.
            ((Verdict::Accepted(step), _), Against::Proving { .. }) => {
                outcome(format!("proved:{}", step.0), pending, before)
            }
            ((Verdict::Used, after), _) => outcome("used".to_owned(), Some(after), after.failures),
            ((Verdict::Wrong, after), _) => {
                outcome("wrong".to_owned(), Some(after), after.failures)
            }
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
        Some(("proved", step)) => {
            step.parse().map_or(Tried::Refused, |step| Tried::Proved(Step(step)))
        }
        _ => match outcome {
            "accepted" => Tried::Accepted,
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
