//! The codes that a phone shows. They are made from the seed and the phone's clock alone, without a
//! network; the only thing that is remembered is which code was handed out as unused.

use std::time::Duration;

use semilla_core::otp::{Code, Parameters, Step};
use semilla_core::protocol::wire::HeldState;
use semilla_core::secret::SecretText;
use semilla_core::time::Timestamp;

use super::{Phone, seconds};
use crate::contents::{Account, Token};
use crate::errors::{Error, Input};

/// Which code is wanted. The default is the code of this moment of the only token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeRequest {
    /// The token's serial number; needed where the phone has several.
    pub serial: Option<String>,
    /// The one after the present one, which the server takes already.
    pub next: bool,
    /// One that was never given out as unused before.
    pub unused: bool,
    /// One that is shown for at least so long.
    pub min_ttl: Duration,
    /// Even if the phone's clock is known to be too far off.
    pub offline: bool,
}

/// A code, ready to be typed. It holds the code, so it cannot be printed.
pub struct ShownCode {
    /// The digits.
    pub code: Code,
    /// The token's serial number.
    pub serial: String,
    /// Whose token it is, as the bank wants it shown.
    pub issuer: String,
    /// The generation of its seed.
    pub generation: u32,
    /// What the server last said of the token; codes of a blocked one are refused there.
    pub state: HeldState,
    /// The step whose code it is.
    pub step: Step,
    /// How long a step lasts, in seconds.
    pub period: u16,
    /// When the next code takes its place, by this phone's clock.
    pub ends_at: Timestamp,
    /// How long that is from now.
    pub time_left: Duration,
    /// Seconds that this phone's clock is behind the server's, or, negative, ahead, as last
    /// learned.
    pub skew_seconds: Option<i64>,
}

impl Phone {
    /// The present code of a token.
    pub fn code(&self, serial: &str) -> Result<ShownCode, Error> {
        self.make_code(&CodeRequest { serial: Some(serial.to_owned()), ..CodeRequest::default() })
    }

    /// A code as it is wanted. An unused one is noted as given out before it is returned, so that
    /// no two callers get the same, also in two processes. [`Error::NoUnusedCode`] says when the
    /// next one comes; [`Error::ClockSkew`] where the server would refuse every code.
    pub fn make_code(&self, request: &CodeRequest) -> Result<ShownCode, Error> {
        let now = self.now();
        if !request.unused {
            return self.read(|account| {
                let token = token(account, request.serial.as_deref())?;
                let seed = &token.seed;
                let step = choose(seed.parameters, None, request, now)?;
                shown(account, token, step, request, now)
            });
        }
        self.update(|account| {
            let token = token(account, request.serial.as_deref())?;
            let (id, seed) = (token.token, &token.seed);
            let step = choose(seed.parameters, seed.used, request, now)?;
            let shown = shown(account, token, step, request, now)?;
            for token in account.tokens.iter_mut().filter(|token| token.token == id) {
                token.seed.used = Some(step);
            }
            Ok(shown)
        })
    }
}

/// The code of any step: for tests of what the server refuses.
pub(super) fn at_step(
    account: &Account,
    serial: &str,
    step: Step,
    now: Timestamp,
) -> Result<ShownCode, Error> {
    let request = CodeRequest { offline: true, ..CodeRequest::default() };
    shown(account, token(account, Some(serial))?, step, &request, now)
}

/// The seed of a token, in base 32.
pub(super) fn seed(account: &Account, serial: &str) -> Result<SecretText, Error> {
    let token = token(account, Some(serial))?;
    Ok(SecretText::new(semilla_core::otpauth::encode(&token.seed.secret).to_string()))
}

/// The token of that serial number, or the only one.
fn token<'a>(account: &'a Account, serial: Option<&str>) -> Result<&'a Token, Error> {
    account.bound()?;
    match (serial, account.tokens.as_slice()) {
        (None, []) => Err(Error::NoToken),
        (None, [token]) => Ok(token),
        (None, many) => {
            Err(Error::WhichToken(many.iter().map(|token| token.serial.clone()).collect()))
        }
        (Some(serial), tokens) => tokens
            .iter()
            .find(|token| token.serial.eq_ignore_ascii_case(serial))
            .ok_or_else(|| Error::UnknownToken(printable(serial))),
    }
}

/// A serial number that was typed, without what could act on a terminal.
fn printable(serial: &str) -> String {
    serial.chars().filter(|character| character.is_ascii_graphic()).take(20).collect()
}

/// The smallest step that will do. The server takes the present one and the one after it (RFC 6238
/// section 5.2), so these two are looked at and no other.
fn choose(
    parameters: Parameters,
    used: Option<Step>,
    request: &CodeRequest,
    now: Timestamp,
) -> Result<Step, Error> {
    let Step(current) = parameters.step_at(now);
    let first = if request.next { current + 1 } else { current };
    let lives = |step: &Step| parameters.ends_at(*step).since(now) >= request.min_ttl;
    let long_enough: Vec<Step> = (first..=current + 1).map(Step).filter(lives).collect();
    if long_enough.is_empty() && request.min_ttl >= 2 * period(parameters) {
        return Err(Input::MinTtl.into());
    }
    let unused = long_enough.iter().copied().find(|step| used.is_none_or(|used| *step > used));
    // The next step comes within the window when the step before it begins.
    let after = used.map_or(current + 1, |Step(used)| used.max(current + 1));
    unused.ok_or_else(|| Error::NoUnusedCode(parameters.ends_at(Step(after - 1))))
}

fn shown(
    account: &Account,
    token: &Token,
    step: Step,
    request: &CodeRequest,
    now: Timestamp,
) -> Result<ShownCode, Error> {
    let seed = &token.seed;
    if !request.offline {
        require_clock(account.skew_milliseconds.unwrap_or(0), seed.parameters)?;
    }
    let ends_at = seed.parameters.ends_at(step);
    Ok(ShownCode {
        code: seed.parameters.code(&seed.secret, step),
        serial: token.serial.clone(),
        issuer: seed.issuer.to_string(),
        generation: token.generation,
        state: token.state,
        step,
        period: seed.parameters.period.seconds(),
        ends_at,
        time_left: ends_at.since(now),
        skew_seconds: account.skew_milliseconds.map(seconds),
    })
}

/// Whether the server would take codes of this phone: its clock is off by one step at most.
pub(super) fn require_clock(skew_milliseconds: i64, parameters: Parameters) -> Result<(), Error> {
    let off = Duration::from_millis(skew_milliseconds.unsigned_abs());
    // One second for `Date`, which has no fractions.
    if off > period(parameters) + Duration::from_secs(1) {
        return Err(Error::ClockSkew(seconds(skew_milliseconds)));
    }
    Ok(())
}

fn period(parameters: Parameters) -> Duration {
    Duration::from_secs(parameters.period.seconds().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_764_000_000; // a multiple of 30

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(i64::try_from(START + seconds).expect("a time"))
    }

    fn chosen(used: Option<u64>, request: &CodeRequest, seconds: u64) -> Result<u64, Error> {
        let used = used.map(|steps| Step(START / 30 + steps));
        choose(Parameters::APP_MOVIL, used, request, at(seconds)).map(|Step(n)| n - START / 30)
    }

    #[test]
    fn an_unused_code_is_never_given_twice_and_the_wait_for_the_next_is_told() {
        let unused = CodeRequest { unused: true, ..CodeRequest::default() };
        assert_eq!(chosen(None, &unused, 10).ok(), Some(0));
        assert_eq!(chosen(Some(0), &unused, 10).ok(), Some(1));
        let waits = |used, seconds, until| match chosen(Some(used), &unused, seconds) {
            Err(Error::NoUnusedCode(moment)) => assert_eq!(moment, at(until)),
            other => panic!("{other:?}"),
        };
        waits(1, 10, 30);
        waits(1, 29, 30);
        assert_eq!(chosen(Some(1), &unused, 30).ok(), Some(2));
        // A clock that was set back does not bring used codes back.
        waits(5, 10, 150);
    }

    #[test]
    fn min_ttl_takes_the_next_code_where_the_present_one_is_too_short() {
        let wanted = |seconds| CodeRequest {
            min_ttl: Duration::from_secs(seconds),
            ..CodeRequest::default()
        };
        assert_eq!(chosen(None, &wanted(5), 25).ok(), Some(0));
        assert_eq!(chosen(None, &wanted(6), 25).ok(), Some(1));
        assert_eq!(chosen(None, &wanted(35), 25).ok(), Some(1));
        assert!(matches!(chosen(None, &wanted(36), 25), Err(Error::NoUnusedCode(_))));
        assert!(matches!(chosen(None, &wanted(60), 0), Ok(1)));
        assert!(matches!(chosen(None, &wanted(61), 0), Err(Error::Input(Input::MinTtl))));
        let next = CodeRequest { next: true, ..CodeRequest::default() };
        assert_eq!(chosen(None, &next, 10).ok(), Some(1));
        let both = CodeRequest { unused: true, ..wanted(10) };
        assert_eq!(chosen(Some(0), &both, 25).ok(), Some(1));
        assert_eq!(chosen(None, &both, 25).ok(), Some(1));
    }

    #[test]
    fn a_clock_may_be_off_by_one_step_and_no_more() {
        let clock = |milliseconds| require_clock(milliseconds, Parameters::APP_MOVIL);
        for fine in [0, 29_000, -29_000, 31_000, -31_000] {
            assert!(clock(fine).is_ok(), "{fine}");
        }
        assert!(matches!(clock(45_400), Err(Error::ClockSkew(45))));
        assert!(matches!(clock(-45_600), Err(Error::ClockSkew(-46))));
    }
}
