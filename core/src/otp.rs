//! One-time passwords: HOTP (RFC 4226), TOTP (RFC 6238), and the rule by which a code is accepted.
//! A code is parsed once, at the edge, into a fixed buffer; from then on nothing trims, pads or
//! reinterprets it, so that it has no second spelling that could be replayed (CVE-2025-6014).
//! The hashing is that of `totp-rs`; its own check is not used, because it stops at the first
//! matching step, and two steps of a window can have the same code.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize, de};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::secret::Seed;
use crate::time::Timestamp;

/// The hash under the HMAC (RFC 6238 section 1.2), named on the wire as in key URIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC-SHA-1: all that many authenticator apps know. Legacy (OWASP ASVS 5.0 appendix C).
    #[serde(rename = "SHA1")]
    Sha1,
    /// HMAC-SHA-256: what the AppMóvil uses.
    #[serde(rename = "SHA256")]
    Sha256,
    /// HMAC-SHA-512.
    #[serde(rename = "SHA512")]
    Sha512,
}

impl Algorithm {
    /// Bytes of a new seed: as many as the hash puts out (RFC 6238 section 5.1).
    pub const fn key_length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The name on the wire and in key URIs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        }
    }
}

impl From<Algorithm> for totp_rs::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha1 => Self::SHA1,
            Algorithm::Sha256 => Self::SHA256,
            Algorithm::Sha512 => Self::SHA512,
        }
    }
}

/// How many digits a code has: 6 to 8 (RFC 4226 section 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Digits(u8);

/// No code has that many digits.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a code has 6 to 8 digits")]
pub struct DigitsOutOfRange;

impl Digits {
    /// The fewest.
    pub const SIX: Self = Self(6);
    /// The most.
    pub const EIGHT: Self = Self(8);

    /// `number` digits, if a code can have as many.
    pub const fn new(number: u8) -> Result<Self, DigitsOutOfRange> {
        match number {
            6..=8 => Ok(Self(number)),
            _ => Err(DigitsOutOfRange),
        }
    }

    /// The number, 6 to 8.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Digits {
    type Error = DigitsOutOfRange;
    fn try_from(number: u8) -> Result<Self, DigitsOutOfRange> {
        Self::new(number)
    }
}

impl From<Digits> for u8 {
    fn from(digits: Digits) -> Self {
        digits.0
    }
}

/// How long a step lasts: 1 to 300 seconds (X in RFC 6238 section 4.1). Which of them a company
/// may choose is a matter of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Period(u16);

/// No step lasts that long.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a period has 1 to 300 seconds")]
pub struct PeriodOutOfRange;

impl Period {
    /// The default of RFC 6238 section 4.1.
    pub const THIRTY: Self = Self(30);

    /// A period of `seconds`, if a step can last so long.
    pub const fn new(seconds: u16) -> Result<Self, PeriodOutOfRange> {
        match seconds {
            1..=300 => Ok(Self(seconds)),
            _ => Err(PeriodOutOfRange),
        }
    }

    /// The seconds, 1 to 300.
    pub const fn seconds(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Period {
    type Error = PeriodOutOfRange;
    fn try_from(seconds: u16) -> Result<Self, PeriodOutOfRange> {
        Self::new(seconds)
    }
}

impl From<Period> for u16 {
    fn from(period: Period) -> Self {
        period.0
    }
}

/// The number of a step: periods since 1970 (T in RFC 6238 section 4.2). 64 bits, so that 2038 is
/// a year like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Step(pub u64);

/// What server and phone agree on besides the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The hash.
    pub algorithm: Algorithm,
    /// The length of a code.
    pub digits: Digits,
    /// The length of a step, in seconds.
    pub period: Period,
}

impl Parameters {
    /// The AppMóvil: SHA-256, 8 digits, 30 s. Our own program on both ends, so nothing holds it
    /// to SHA-1 and 6 digits.
    pub const APP_MOVIL: Self =
        Self { algorithm: Algorithm::Sha256, digits: Digits::EIGHT, period: Period::THIRTY };

    /// The profile "authenticator app": SHA-1, 6 digits, 30 s, which every such app understands.
    pub const AUTHENTICATOR_APP: Self =
        Self { algorithm: Algorithm::Sha1, digits: Digits::SIX, period: Period::THIRTY };

    /// The step that `now` falls in (RFC 6238 section 4.2, T0 = 0).
    pub fn step_at(&self, now: Timestamp) -> Step {
        Step(now.seconds() / u64::from(self.period.0))
    }

    /// The moment `step` is over and the next begins, held within what a [`Timestamp`] can be.
    pub fn ends_at(&self, step: Step) -> Timestamp {
        let seconds = step.0.saturating_add(1).saturating_mul(u64::from(self.period.0));
        Timestamp::from_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))
    }

    /// The code of `step` (RFC 6238 section 4.2).
    pub fn code(&self, seed: &Seed, step: Step) -> Code {
        hotp(self.algorithm, self.digits, seed, step.0)
    }
}

/// What the codes of a token whose counter moves on with each code are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterParameters {
    /// The hash.
    pub algorithm: Algorithm,
    /// The length of a code.
    pub digits: Digits,
}

/// How codes are made, and what makes the next one: time, or that one was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Method {
    /// TOTP: steps of time. All that virtual tokens do.
    Time(Parameters),
    /// HOTP: each code is one step.
    Counter(CounterParameters),
}

impl Method {
    /// The hash.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Time(parameters) => parameters.algorithm,
            Self::Counter(parameters) => parameters.algorithm,
        }
    }

    /// The length of a code.
    pub fn digits(&self) -> Digits {
        match self {
            Self::Time(parameters) => parameters.digits,
            Self::Counter(parameters) => parameters.digits,
        }
    }

    /// The code of `step`.
    pub fn code(&self, seed: &Seed, step: Step) -> Code {
        hotp(self.algorithm(), self.digits(), seed, step.0)
    }
}

impl From<Parameters> for Method {
    fn from(parameters: Parameters) -> Self {
        Self::Time(parameters)
    }
}

/// The code of `counter` (RFC 4226 section 5.3, with the hashes of RFC 6238 section 1.2).
pub fn hotp(algorithm: Algorithm, digits: Digits, seed: &Seed, counter: u64) -> Code {
    Code::of(truncated(&generator(algorithm, digits, seed), digits, counter), digits)
}

/// `totp-rs` with steps of one second, so that its time is our counter. It holds a copy of the
/// seed: made where it is used and dropped at once.
fn generator(algorithm: Algorithm, digits: Digits, seed: &Seed) -> totp_rs::Totp {
    totp_rs::Builder::new()
        .with_algorithm(algorithm.into())
        .with_digits(digits.0)
        .with_step_duration(1)
        .with_secret(seed.expose())
        .build_noncompliant()
}

/// The HMAC of `counter`, truncated to a number of so many digits (RFC 4226 section 5.3).
/// `totp-rs` hands out its own only as text, which costs time and leaves copies.
fn truncated(generator: &totp_rs::Totp, digits: Digits, counter: u64) -> u32 {
    let tag = generator.sign(counter);
    let tag = tag.as_ref();
    let offset = usize::from(tag[tag.len() - 1] & 0xf);
    let bytes = [tag[offset], tag[offset + 1], tag[offset + 2], tag[offset + 3]];
    (u32::from_be_bytes(bytes) & 0x7fff_ffff) % 10_u32.pow(digits.0.into())
}

/// A code: 6 to 8 ASCII digits, leading zeros included. Like everything secret it cannot be
/// printed, copied or serialized, and is overwritten when dropped.
///
/// ```compile_fail
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<semilla_core::otp::Code>(); // security 12: a code cannot be logged
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Code {
    /// The digits, then zero bytes.
    bytes: [u8; 8],
    #[zeroize(skip)]
    digits: Digits,
}

/// The text is no code. What it was instead is not repeated: it may be nearly one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a code is a string of 6 to 8 digits")]
pub struct NotACode;

impl Code {
    /// Reads a code that has exactly 6 to 8 ASCII digits and nothing else (security 2).
    pub fn parse(text: &str) -> Result<Self, NotACode> {
        let digits = u8::try_from(text.len()).map_err(|_| NotACode)?;
        let digits = Digits::new(digits).map_err(|_| NotACode)?;
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotACode);
        }
        let mut code = Self { bytes: [0; 8], digits };
        code.bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(code)
    }

    /// The last so many digits of `number`, with zeros in front.
    fn of(mut number: u32, digits: Digits) -> Self {
        let mut code = Self { bytes: [0; 8], digits };
        for place in code.bytes[..digits.0.into()].iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
        code
    }

    /// The number that the digits make. Codes of different length can make the same one.
    fn number(&self) -> u32 {
        let digits = &self.bytes[..self.digits.0.into()];
        digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
    }

    /// How many digits it has.
    pub fn digits(&self) -> Digits {
        self.digits
    }

    /// The digits, for the one message or screen that needs them.
    pub fn expose(&self) -> &str {
        str::from_utf8(&self.bytes[..self.digits.0.into()]).expect("digits are ASCII")
    }
}

impl<'de> Deserialize<'de> for Code {
    /// From a string only: a number has lost its leading zeros. Errors never repeat the input,
    /// as those of a derived implementation would.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Code;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a string of 6 to 8 digits")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Code, E> {
                Code::parse(text).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Code, E> {
                Err(E::custom(NotACode))
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Code, E> {
                Err(E::custom(NotACode))
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Code, E> {
                Err(E::custom(NotACode))
            }
        }

        // `deserialize_str` would have serde_json quote a number in its error.
        deserializer.deserialize_any(Visitor)
    }
}

/// What a code is to a token at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The code of this step, which is in the window and not yet consumed.
    Fresh(Step),
    /// The code of a step that is in the window and consumed, or before one that is. Told apart
    /// for the audit alone; the answer is that to a wrong code (security 10).
    Used,
    /// The code of no step in the window.
    None,
}

/// Looks for `code` in the window: the step of `now`, the one before and the one after (RFC 6238
/// section 5.2). Of the matching steps the smallest after `after`, the last one consumed, is
/// the answer: two steps can have the same code, and this way each can be used once.
///
/// All steps are computed and compared, without a branch on the outcome, and a code with another
/// number of digits takes the same path (security 9). The caller consumes the step with a
/// conditional write before it accepts (security 25).
pub fn matching_step(
    seed: &Seed,
    parameters: &Parameters,
    code: &Code,
    now: Timestamp,
    after: Option<Step>,
) -> Match {
    let Step(current) = parameters.step_at(now);
    let window = current.saturating_sub(1)..=current.saturating_add(1);
    matching_within(seed, &Method::Time(*parameters), code, window, after)
}

/// As [`matching_step`], in any window.
pub fn matching_within(
    seed: &Seed,
    method: &Method,
    code: &Code,
    window: RangeInclusive<u64>,
    after: Option<Step>,
) -> Match {
    let digits = method.digits();
    let generator = generator(method.algorithm(), digits, seed);
    let length = code.digits.0.ct_eq(&digits.0);
    search(code.number(), length, window, after, |step| truncated(&generator, digits, step))
}

/// The window, whose codes `expected` computes: each of them, exactly once.
fn search(
    submitted: u32,
    length: Choice,
    window: RangeInclusive<u64>,
    after: Option<Step>,
    mut expected: impl FnMut(u64) -> u32,
) -> Match {
    let (mut fresh, mut step_of_fresh, mut used) = (Choice::from(0), 0, Choice::from(0));
    for step in window.rev() {
        let matches = expected(step).ct_eq(&submitted) & length;
        let alive = Choice::from(u8::from(after.is_none_or(|after| Step(step) > after)));
        step_of_fresh.conditional_assign(&step, matches & alive);
        fresh |= matches & alive;
        used |= matches & !alive;
    }
    if fresh.into() {
        Match::Fresh(Step(step_of_fresh))
    } else if used.into() {
        Match::Used
    } else {
        Match::None
    }
}

/// Looks in the window for the code of a step after `after`, followed by the code of the next one.
/// Returns the second of the two steps, of the first place in the window where they are.
pub fn matching_pair(
    seed: &Seed,
    method: &Method,
    codes: [&Code; 2],
    window: RangeInclusive<u64>,
    after: Option<Step>,
) -> Option<Step> {
    let digits = method.digits();
    let generator = generator(method.algorithm(), digits, seed);
    let length = codes[0].digits.0.ct_eq(&digits.0) & codes[1].digits.0.ct_eq(&digits.0);
    let submitted = codes.map(Code::number);
    let (mut found, mut second) = (Choice::from(0), 0);
    let mut following = truncated(&generator, digits, window.end().saturating_add(1));
    for step in window.rev() {
        let expected = truncated(&generator, digits, step);
        let matches = expected.ct_eq(&submitted[0]) & following.ct_eq(&submitted[1]) & length;
        let alive = Choice::from(u8::from(after.is_none_or(|after| Step(step) > after)));
        second.conditional_assign(&step.saturating_add(1), matches & alive);
        found |= matches & alive;
        following = expected;
    }
    bool::from(found).then_some(Step(second))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::hmac;
    use zeroize::Zeroizing;

    use super::*;
    use crate::entropy::testing::Seeded;
    use crate::entropy::{self, Entropy};

    #[derive(Deserialize)]
    struct Vectors {
        #[serde(rename = "rfc4226_appendix_D")]
        hotp: Rfc4226,
        #[serde(rename = "rfc6238_appendix_B")]
        totp: Vec<Rfc6238>,
    }

    #[derive(Deserialize)]
    struct Rfc4226 {
        secret_ascii: String,
        values: Vec<String>,
    }

    #[derive(Deserialize)]
    struct Rfc6238 {
        time: i64,
        #[serde(rename = "T_hex")]
        step: String,
        alg: Algorithm,
        secret_ascii: String,
        totp8: String,
    }

    fn vectors() -> Vectors {
        serde_json::from_str(include_str!("../tests/vectors/otp.json")).expect("vectors")
    }

    fn seed(bytes: &[u8]) -> Seed {
        Seed::from_bytes(Zeroizing::new(bytes.to_vec())).expect("a seed")
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(i64::try_from(seconds).expect("a time"))
    }

    /// RFC 4226 section 5.3 once more, over another library's HMAC.
    fn independent(algorithm: Algorithm, digits: Digits, seed: &[u8], counter: u64) -> String {
        let algorithm = match algorithm {
            Algorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha256 => hmac::HMAC_SHA256,
            Algorithm::Sha512 => hmac::HMAC_SHA512,
        };
        let tag = hmac::sign(&hmac::Key::new(algorithm, seed), &counter.to_be_bytes());
        let tag = tag.as_ref();
        let offset = usize::from(tag[tag.len() - 1] & 0xf);
        let number =
            tag[offset..offset + 4].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let width = usize::from(digits.get());
        format!("{:0width$}", (number & 0x7fff_ffff) % 10_u32.pow(digits.get().into()))
    }

    #[test]
    fn security_1_codes_equal_rfc_4226_appendix_d() {
        let vectors = vectors().hotp;
        assert_eq!(vectors.values.len(), 10);
        for (counter, expected) in (0..).zip(&vectors.values) {
            let seed = seed(vectors.secret_ascii.as_bytes());
            assert_eq!(hotp(Algorithm::Sha1, Digits::SIX, &seed, counter).expose(), expected);
        }
    }

    #[test]
    fn security_1_codes_equal_rfc_6238_appendix_b() {
        let vectors = vectors().totp;
        assert_eq!(vectors.len(), 18);
        for vector in vectors {
            let parameters = Parameters { algorithm: vector.alg, ..Parameters::APP_MOVIL };
            let step = parameters.step_at(Timestamp::from_seconds(vector.time));
            assert_eq!(format!("{:016X}", step.0), vector.step);
            let seed = seed(vector.secret_ascii.as_bytes());
            for digits in 6..=8 {
                // Fewer digits are the last ones of eight.
                let digits = Digits::new(digits).expect("digits");
                let expected = &vector.totp8[8 - usize::from(digits.get())..];
                assert_eq!(
                    Parameters { digits, ..parameters }.code(&seed, step).expose(),
                    expected
                );
            }
        }
    }

    #[test]
    fn security_1_codes_equal_those_of_a_second_implementation() {
        let entropy = Seeded::new(1);
        for _ in 0..if cfg!(debug_assertions) { 20_000 } else { 1_000_000 } {
            let [algorithm, digits, length] = entropy::bytes(&entropy);
            let algorithm =
                [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512][usize::from(algorithm) % 3];
            let digits = Digits::new(6 + digits % 3).expect("digits");
            let mut bytes = vec![0; 16 + usize::from(length) % 49];
            entropy.fill(&mut bytes);
            let counter = u64::from_be_bytes(entropy::bytes(&entropy));
            assert_eq!(
                hotp(algorithm, digits, &seed(&bytes), counter).expose(),
                independent(algorithm, digits, &bytes, counter),
            );
        }
    }

    #[test]
    fn security_2_a_code_is_ascii_digits_and_nothing_else() {
        let read = |code: &str| Code::parse(code).map(|code| code.expose().to_owned());
        for code in ["123456", "1234567", "12345678", "000000"] {
            assert_eq!(read(code).as_deref(), Ok(code));
            assert_eq!(Code::parse(code).expect("a code").digits().get() as usize, code.len());
        }
        let variants: Vec<String> =
            serde_json::from_str(include_str!("../tests/vectors/not_a_code.json")).expect("texts");
        assert!(variants.len() >= 40);
        for variant in variants {
            assert_eq!(read(&variant), Err(NotACode), "{variant:?}");
        }
    }

    #[test]
    fn security_2_a_code_in_json_is_a_string_and_errors_do_not_repeat_it() {
        let read = |json: &str| {
            serde_json::from_str::<Code>(json)
                .map(|code| code.expose().to_owned())
                .map_err(|error| error.to_string())
        };
        assert_eq!(read(r#""012345""#).as_deref(), Ok("012345"));
        assert_eq!(read(r#""\u0030\u0031\u0032345""#).as_deref(), Ok("012345"));
        let numbers = ["123456", "-123456", "123456.0", "1234.56e2", "123456123456123456123456"];
        let strings = [r#""123456 ""#, r#""\u0000123456""#, r#""1234567890""#];
        let others = ["true", "null", "[1,2,3]", r#"["123456"]"#, r#"{"code":"123456"}"#];
        for json in numbers.into_iter().chain(strings).chain(others) {
            let error = read(json).expect_err(json);
            assert!(!error.contains("123"), "{error}");
        }
    }

    #[test]
    fn security_3_leading_zeros_are_kept() {
        let seed = seed(b"12345678901234567890");
        let leading = (0..3_000)
            .map(|counter| hotp(Algorithm::Sha1, Digits::SIX, &seed, counter))
            .filter(|code| code.expose().starts_with('0'))
            .inspect(|code| assert_eq!(code.expose().len(), 6))
            .count();
        assert!((200..400).contains(&leading), "{leading}");
    }

    #[test]
    fn security_4_the_window_is_one_step_either_way_and_no_more() {
        let (seed, parameters) = (Seed::generate(32, &Seeded::new(4)), Parameters::APP_MOVIL);
        let step = Step(60_000_000);
        let code = parameters.code(&seed, step);
        let first = step.0 * 30;
        for (now, expected) in [
            (first - 60, Match::None),
            (first - 31, Match::None),
            (first - 30, Match::Fresh(step)),
            (first, Match::Fresh(step)),
            (first + 29, Match::Fresh(step)),
            (first + 59, Match::Fresh(step)),
            (first + 60, Match::None),
            (first + 89, Match::None),
        ] {
            assert_eq!(matching_step(&seed, &parameters, &code, at(now), None), expected, "{now}");
        }
    }

    #[test]
    fn a_code_of_another_length_or_of_another_seed_is_wrong() {
        let (seed, parameters) = (Seed::generate(32, &Seeded::new(5)), Parameters::APP_MOVIL);
        let starts_with = |zeros: &'static str| {
            let mut codes =
                (60_000_000..).map(|step| (Step(step), parameters.code(&seed, Step(step))));
            codes.find(|(_, code)| code.expose().starts_with(zeros)).expect("a code")
        };
        // The same number with fewer zeros in front, and the code of fewer digits.
        for (zeros, digits) in [("00", 6), ("0", 7)] {
            let (step, code) = starts_with(zeros);
            let now = at(step.0 * 30);
            assert_eq!(matching_step(&seed, &parameters, &code, now, None), Match::Fresh(step));
            let short = Code::parse(&code.expose()[zeros.len()..]).expect("a code");
            assert_eq!(matching_step(&seed, &parameters, &short, now, None), Match::None);
            let digits = Digits::new(digits).expect("digits");
            let short = Parameters { digits, ..parameters }.code(&seed, step);
            assert_eq!(matching_step(&seed, &parameters, &short, now, None), Match::None);
        }
        let (now, step) = (at(1_800_000_000), Step(60_000_000));
        let other = parameters.code(&Seed::generate(32, &Seeded::new(6)), step);
        assert_eq!(matching_step(&seed, &parameters, &other, now, None), Match::None);
    }

    #[test]
    fn steps_that_share_a_code_are_consumed_one_after_the_other() {
        let (seed, parameters) = (seed(b"12345678901234567890"), Parameters::AUTHENTICATOR_APP);
        for (first, second, digits) in [(910_737, 910_738, "911617"), (153_567, 153_569, "468457")]
        {
            let code = Code::parse(digits).expect("a code");
            let now = at((first + 1) * 30);
            let submit = |after| matching_step(&seed, &parameters, &code, now, after);
            assert_eq!(submit(None), Match::Fresh(Step(first)));
            assert_eq!(submit(Some(Step(first))), Match::Fresh(Step(second)));
            assert_eq!(submit(Some(Step(second))), Match::Used);
        }
    }

    #[test]
    fn security_8_steps_are_right_from_the_epoch_to_the_end_of_time() {
        let (seed, parameters) =
            (Seed::generate(20, &Seeded::new(8)), Parameters::AUTHENTICATOR_APP);
        let end = Timestamp::from_milliseconds(i64::MAX).seconds();
        let (i, u) = (1_u64 << 31, 1_u64 << 32);
        for now in [0, 1, 29, 30, 59, 60, 89, 90, i - 1, i, i + 1, u - 1, u, u + 1, end] {
            let step = parameters.step_at(at(now));
            assert_eq!(step, Step(now / 30));
            let code = parameters.code(&seed, step);
            assert_eq!(
                code.expose(),
                independent(Algorithm::Sha1, Digits::SIX, seed.expose(), step.0)
            );
            let found = matching_step(&seed, &parameters, &code, at(now), None);
            assert_eq!(found, Match::Fresh(step), "{now}");
            assert!(parameters.ends_at(step) > at(now) || now == end);
        }
        // 2^40 s lie beyond what RFC 3339 can write; the number itself does not mind.
        let far = 1_u64 << 40;
        let code = parameters.code(&seed, Step(far / 30));
        assert_eq!(
            code.expose(),
            independent(Algorithm::Sha1, Digits::SIX, seed.expose(), far / 30)
        );
        parameters.code(&seed, Step(u64::MAX));
        assert_eq!(parameters.ends_at(Step(u64::MAX)), at(end));
        assert_eq!(parameters.ends_at(Step(0)), at(30));
    }

    #[test]
    fn security_9_every_step_of_the_window_is_computed_whatever_the_code_is() {
        let code = |step: u64| u32::try_from(step * 111).expect("a number");
        let right_length = Choice::from(1);
        for (submitted, length, after, found) in [
            (code(99), right_length, None, Match::Fresh(Step(99))),
            (code(100), right_length, None, Match::Fresh(Step(100))),
            (code(101), right_length, None, Match::Fresh(Step(101))),
            (code(100), right_length, Some(Step(100)), Match::Used),
            (code(100), right_length, Some(Step(200)), Match::Used),
            (code(98), right_length, None, Match::None),
            (code(100), Choice::from(0), None, Match::None),
        ] {
            let mut computed = Vec::new();
            let matched = search(submitted, length, 99..=101, after, |step| {
                computed.push(step);
                code(step)
            });
            assert_eq!(matched, found);
            assert_eq!(computed, [101, 100, 99], "{found:?}");
        }
    }

    #[test]
    fn a_method_by_time_is_written_as_its_parameters_always_were() {
        let json = serde_json::to_string(&Parameters::APP_MOVIL).expect("JSON");
        let by_time = Method::from(Parameters::APP_MOVIL);
        assert_eq!(serde_json::to_string(&by_time).expect("JSON"), json);
        assert_eq!(serde_json::from_str::<Method>(&json).ok(), Some(by_time));
        let json = r#"{"algorithm":"SHA1","digits":6}"#;
        let counter = CounterParameters { algorithm: Algorithm::Sha1, digits: Digits::SIX };
        let by_counter = Method::Counter(counter);
        assert_eq!(serde_json::to_string(&by_counter).expect("JSON"), json);
        assert_eq!(serde_json::from_str::<Method>(json).ok(), Some(by_counter));
        for other in [
            r#"{"algorithm":"SHA1"}"#,
            r#"{"algorithm":"SHA1","digits":6,"period":0}"#,
            r#"{"algorithm":"SHA1","digits":6,"look_ahead":9}"#,
        ] {
            assert!(serde_json::from_str::<Method>(other).is_err(), "{other}");
        }
    }

    #[test]
    fn parameters_are_read_strictly() {
        let json = r#"{"algorithm":"SHA256","digits":8,"period":30}"#;
        assert_eq!(serde_json::to_string(&Parameters::APP_MOVIL).expect("JSON"), json);
        let read = |json: &str| serde_json::from_str::<Parameters>(json).ok();
        assert_eq!(read(json), Some(Parameters::APP_MOVIL));
        for other in [
            r#"{"algorithm":"sha256","digits":8,"period":30}"#,
            r#"{"algorithm":"SHA256","digits":5,"period":30}"#,
            r#"{"algorithm":"SHA256","digits":9,"period":30}"#,
            r#"{"algorithm":"SHA256","digits":8,"period":0}"#,
            r#"{"algorithm":"SHA256","digits":8,"period":301}"#,
            r#"{"algorithm":"SHA256","digits":8,"period":"30"}"#,
            r#"{"algorithm":"SHA256","digits":8}"#,
            r#"{"algorithm":"SHA256","digits":8,"period":30,"t0":0}"#,
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn security_6_accepted_steps_strictly_increase_whatever_is_submitted(
            submits in prop::collection::vec((0_u64..40, 0_u64..12, any::<bool>()), 1..40),
        ) {
            // Codes of steps near the clock, while the clock jumps to and fro.
            let (seed, parameters) = (Seed::generate(32, &Seeded::new(6)), Parameters::APP_MOVIL);
            let (mut last, mut accepted) = (None, Vec::new());
            for (clock, step, near) in submits {
                let step = Step(if near { (clock + step % 3).saturating_sub(1) } else { step });
                let code = parameters.code(&seed, step);
                let found = matching_step(&seed, &parameters, &code, at(clock * 30 + 7), last);
                let expected = if step.0.abs_diff(clock) > 1 {
                    Match::None
                } else if last.is_none_or(|last| step > last) {
                    Match::Fresh(step)
                } else {
                    Match::Used
                };
                prop_assert_eq!(found, expected);
                if let Match::Fresh(step) = found {
                    last = Some(step);
                    accepted.push(step);
                }
            }
            prop_assert!(accepted.is_sorted_by(|earlier, later| earlier < later));
        }
    }
}
