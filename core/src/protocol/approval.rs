//! Approvals: what the server asks a phone, and what the phone answers. The request holds the
//! operation twice, as facts for the program and as lines for the person, and never the number,
//! which the person reads on the asker's screen and types (number matching). The answer names the
//! exact request and the exact lines by their digests (security 53 to 55).

use schemars::JsonSchema;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::MessageError;
use super::bytes::{Digest, Nonce, present};
use super::consent::Consent;
use super::messages::{Envelope, Message, Version, numeric_date};
use crate::entropy::{self, Entropy};
use crate::id::{CompanyId, OperationId, TokenId, UserId};
use crate::time::Timestamp;

/// What a person is asked to approve: `approval-request+jwt`, signed by the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRequest {
    /// The version.
    pub v: Version,
    /// The server's address.
    pub iss: String,
    /// The phone's id.
    pub aud: String,
    /// The message's name, used once.
    pub jti: Nonce,
    /// When it was made.
    #[serde(with = "numeric_date")]
    pub iat: Timestamp,
    /// When an answer comes too late (security 57).
    #[serde(with = "numeric_date")]
    pub exp: Timestamp,
    /// What the answer must repeat.
    pub nonce: Nonce,
    /// The operation's id, which the answer must repeat.
    pub txn: OperationId,
    /// The facts.
    pub operation: Operation,
    /// The lines to be shown.
    pub display: Display,
}

impl Message for ApprovalRequest {
    const TYP: &'static str = "approval-request+jwt";
    fn envelope(&self) -> Envelope<'_> {
        Envelope { iss: &self.iss, aud: &self.aud, jti: self.jti, iat: self.iat, ctr: None }
    }
}

/// The operation that waits for approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OperationWire", into = "OperationWire")]
pub struct Operation {
    /// What is to be done, with what only that needs.
    pub action: Action,
    /// The person whose token or phone it is.
    pub holder: UserId,
    /// The company of that person.
    pub company: CompanyId,
    /// The person in whose name it was asked.
    pub asker: UserId,
    /// The version of the state of the token, or of the person where no token is concerned: if it
    /// is another when the approval arrives, the operation fails (security 56).
    pub state_version: u64,
}

/// What is to be done. On the wire `action` with `token`, `serial`, `generation`, `cause` and
/// `consent` where they belong to it, and absent where they do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take the token from its holder; its seed dies.
    Release {
        /// Which token.
        token: TokenRef,
        /// Why, in code.
        cause: String,
    },
    /// Let a blocked token work again.
    Unblock {
        /// Which token.
        token: TokenRef,
    },
    /// Give the token a new seed.
    Rotate {
        /// Which token.
        token: TokenRef,
        /// Why, in code.
        cause: String,
    },
    /// Bind another phone of the holder (security 50).
    BindPhone,
    /// Let the holder, who lost every phone, bind a new one (security 50).
    Recover,
    /// Agree to something of a relying party. It changes no token and no phone: the signature is
    /// all that comes of it.
    Consent(Consent),
}

/// The token that an operation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRef {
    /// Its id.
    pub token: TokenId,
    /// Its serial number, as people know it.
    pub serial: String,
    /// The generation of its seed.
    pub generation: u32,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActionName {
    Release,
    Unblock,
    Rotate,
    BindPhone,
    Recover,
    Consent,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationWire {
    action: ActionName,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    token: Option<TokenId>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    generation: Option<u32>,
    holder: UserId,
    company: CompanyId,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    consent: Option<Consent>,
    asker: UserId,
    state_version: u64,
}

impl TryFrom<OperationWire> for Operation {
    type Error = MessageError;
    fn try_from(wire: OperationWire) -> Result<Self, MessageError> {
        let token = match (wire.token, wire.serial, wire.generation) {
            (Some(token), Some(serial), Some(generation)) => {
                Some(TokenRef { token, serial, generation })
            }
            (None, None, None) => None,
            _ => return Err(MessageError::Malformed),
        };
        let action = match (wire.action, token, wire.cause, wire.consent) {
            (ActionName::Release, Some(token), Some(cause), None) => {
                Action::Release { token, cause }
            }
            (ActionName::Unblock, Some(token), None, None) => Action::Unblock { token },
            (ActionName::Rotate, Some(token), Some(cause), None) => Action::Rotate { token, cause },
            (ActionName::BindPhone, None, None, None) => Action::BindPhone,
            (ActionName::Recover, None, None, None) => Action::Recover,
            (ActionName::Consent, None, None, Some(consent)) => Action::Consent(consent),
            _ => return Err(MessageError::Malformed),
        };
        let OperationWire { holder, company, asker, state_version, .. } = wire;
        Ok(Self { action, holder, company, asker, state_version })
    }
}

impl From<Operation> for OperationWire {
    fn from(operation: Operation) -> Self {
        let mut consent = None;
        let (action, token, cause) = match operation.action {
            Action::Release { token, cause } => (ActionName::Release, Some(token), Some(cause)),
            Action::Unblock { token } => (ActionName::Unblock, Some(token), None),
            Action::Rotate { token, cause } => (ActionName::Rotate, Some(token), Some(cause)),
            Action::BindPhone => (ActionName::BindPhone, None, None),
            Action::Recover => (ActionName::Recover, None, None),
            Action::Consent(asked) => {
                consent = Some(asked);
                (ActionName::Consent, None, None)
            }
        };
        let (token, serial, generation) = match token {
            Some(token) => (Some(token.token), Some(token.serial), Some(token.generation)),
            None => (None, None, None),
        };
        let Operation { holder, company, asker, state_version, .. } = operation;
        Self {
            action,
            token,
            serial,
            generation,
            holder,
            company,
            cause,
            consent,
            asker,
            state_version,
        }
    }
}

/// What the phone shows, line by line, written by the server (security 64, 129). Reading one
/// refuses control characters, and more than 16 lines or 200 characters in one, so that it cannot
/// break the screen it is shown on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DisplayWire")]
pub struct Display {
    /// The language, as in BCP 47: `es-PE`.
    pub locale: String,
    /// What is asked, in one line.
    pub title: String,
    /// The particulars.
    pub lines: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DisplayWire {
    locale: String,
    title: String,
    lines: Vec<String>,
}

impl TryFrom<DisplayWire> for Display {
    type Error = MessageError;
    fn try_from(wire: DisplayWire) -> Result<Self, MessageError> {
        let plain = |line: &String| {
            line.chars().count() <= 200 && !line.chars().any(crate::text::is_invisible)
        };
        let DisplayWire { locale, title, lines } = wire;
        if lines.len() > 16 || !plain(&locale) || !plain(&title) || !lines.iter().all(plain) {
            return Err(MessageError::Malformed);
        }
        Ok(Self { locale, title, lines })
    }
}

impl Display {
    /// The digest that names exactly these lines: SHA-256 over `semilla/display/v1`, the locale,
    /// the title, the number of lines and the lines, where each text is preceded by its length in
    /// bytes and every number has four bytes, the highest first. No other display has the same
    /// bytes (security 54).
    pub fn digest(&self) -> Digest {
        fn number(out: &mut Vec<u8>, number: usize) {
            let number = u32::try_from(number).expect("a display is short");
            out.extend(number.to_be_bytes());
        }
        fn text(out: &mut Vec<u8>, text: &str) {
            number(out, text.len());
            out.extend(text.as_bytes());
        }
        let mut bytes = Vec::new();
        text(&mut bytes, "semilla/display/v1");
        text(&mut bytes, &self.locale);
        text(&mut bytes, &self.title);
        number(&mut bytes, self.lines.len());
        for line in &self.lines {
            text(&mut bytes, line);
        }
        Digest::of(&bytes)
    }
}

/// The digest that names exactly this request: SHA-256 over the signed text as it was sent.
pub fn request_hash(request_text: &str) -> Digest {
    Digest::of(request_text.as_bytes())
}

/// A person's answer: `approval-response+jwt`, signed by the phone. On the wire the decision lies
/// open: `decision`, with `match_number` if approved (but for a consent that asks for none) and
/// `reason` if denied, and never the other.
/// It has no `Debug`, because it may hold the number.
pub struct ApprovalResponse {
    /// The version.
    pub v: Version,
    /// The phone's id.
    pub iss: String,
    /// The server's address.
    pub aud: String,
    /// The message's name, used once.
    pub jti: Nonce,
    /// When it was made, by the phone's clock.
    pub iat: Timestamp,
    /// Rises with every message of this phone (security 130).
    pub ctr: u64,
    /// The request's nonce.
    pub nonce: Nonce,
    /// The request's operation.
    pub txn: OperationId,
    /// Yes or no: different signed values, and no is final (security 55).
    pub decision: Decision,
    /// [`request_hash`] of the text that the phone received.
    pub request_hash: Digest,
    /// [`Display::digest`] of what the phone showed.
    pub display_hash: Digest,
    /// How the phone made sure who holds it.
    pub uv: UserVerification,
}

impl Message for ApprovalResponse {
    const TYP: &'static str = "approval-response+jwt";
    fn envelope(&self) -> Envelope<'_> {
        Envelope {
            iss: &self.iss,
            aud: &self.aud,
            jti: self.jti,
            iat: self.iat,
            ctr: Some(self.ctr),
        }
    }
}

impl ApprovalResponse {
    /// Whether this answers the request that was sent as `text`, with its nonce, operation and
    /// display as the sender stored them: never as the answer tells them (security 53).
    pub fn answers(&self, text: &str, request: &ApprovalRequest) -> bool {
        self.nonce == request.nonce
            && self.txn == request.txn
            && self.request_hash == request_hash(text)
            && self.display_hash == request.display.digest()
    }
}

/// Yes, with the number from the asker's screen, or no, with the reason.
pub enum Decision {
    /// Do it.
    Approved {
        /// The number that the person typed.
        match_number: MatchNumber,
    },
    /// Do it, without a number: counts only for a [`Consent`] that asks for none.
    Agreed,
    /// Do not.
    Denied {
        /// Why not.
        reason: DenialReason,
    },
}

/// Why a person says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DenialReason {
    /// The person knows of it and does not want it.
    UserCancelled,
    /// The person knows nothing of it.
    UnknownRequest,
    /// The person believes that it is an attack: the token is blocked as well.
    SuspectedFraud,
}

/// How the phone made sure who holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserVerification {
    /// The method.
    pub method: VerificationMethod,
}

/// A method of user verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerificationMethod {
    /// The PIN that opens the phone's keys.
    Pin,
    /// A fingerprint or face, checked by the phone.
    Biometric,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DecisionName {
    Approved,
    Denied,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseWire {
    v: Version,
    iss: String,
    aud: String,
    jti: Nonce,
    #[serde(with = "numeric_date")]
    iat: Timestamp,
    ctr: u64,
    nonce: Nonce,
    txn: OperationId,
    decision: DecisionName,
    #[serde(default, deserialize_with = "present")]
    reason: Option<DenialReason>,
    request_hash: Digest,
    display_hash: Digest,
    #[serde(default, deserialize_with = "present")]
    match_number: Option<MatchNumber>,
    uv: UserVerification,
}

impl<'de> Deserialize<'de> for ApprovalResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = ResponseWire::deserialize(deserializer)?;
        let decision = match (wire.decision, wire.match_number, wire.reason) {
            (DecisionName::Approved, Some(match_number), None) => {
                Decision::Approved { match_number }
            }
            (DecisionName::Approved, None, None) => Decision::Agreed,
            (DecisionName::Denied, None, Some(reason)) => Decision::Denied { reason },
            _ => {
                return Err(serde::de::Error::custom(
                    "an answer is approved, or denied with a reason",
                ));
            }
        };
        let ResponseWire { v, iss, aud, jti, iat, ctr, nonce, txn, .. } = wire;
        let ResponseWire { request_hash, display_hash, uv, .. } = wire;
        Ok(Self {
            v,
            iss,
            aud,
            jti,
            iat,
            ctr,
            nonce,
            txn,
            decision,
            request_hash,
            display_hash,
            uv,
        })
    }
}

impl Serialize for ApprovalResponse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("ApprovalResponse", 13)?;
        out.serialize_field("v", &self.v)?;
        out.serialize_field("iss", &self.iss)?;
        out.serialize_field("aud", &self.aud)?;
        out.serialize_field("jti", &self.jti)?;
        out.serialize_field("iat", &self.iat.seconds())?;
        out.serialize_field("ctr", &self.ctr)?;
        out.serialize_field("nonce", &self.nonce)?;
        out.serialize_field("txn", &self.txn)?;
        match &self.decision {
            Decision::Approved { match_number } => {
                out.serialize_field("decision", &DecisionName::Approved)?;
                out.serialize_field("match_number", match_number.expose())?;
            }
            Decision::Agreed => out.serialize_field("decision", &DecisionName::Approved)?,
            Decision::Denied { reason } => {
                out.serialize_field("decision", &DecisionName::Denied)?;
                out.serialize_field("reason", reason)?;
            }
        }
        out.serialize_field("request_hash", &self.request_hash)?;
        out.serialize_field("display_hash", &self.display_hash)?;
        out.serialize_field("uv", &self.uv)?;
        out.end()
    }
}

/// Six digits that the asker's screen shows and the approver types, so that nobody approves what
/// is not in front of them. Neither `Debug` nor `Display`, compared in constant time.
///
/// ```compile_fail
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<semilla_core::protocol::approval::MatchNumber>(); // security 40
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MatchNumber([u8; 6]);

impl MatchNumber {
    /// A new one, every number as likely as any other.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut rest = entropy::below(entropy, 1_000_000);
        let mut digits = [b'0'; 6];
        for digit in digits.iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        Self(digits)
    }

    /// Reads exactly six ASCII digits.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        let digits: [u8; 6] = text.as_bytes().try_into().map_err(|_| MessageError::Malformed)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(MessageError::Malformed);
        }
        Ok(Self(digits))
    }

    /// Whether both are the same number, in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// The digits, for the asker's screen.
    pub fn expose(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits")
    }
}

impl<'de> Deserialize<'de> for MatchNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = zeroize::Zeroizing::new(String::deserialize(deserializer)?);
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::Seeded;

    fn display(lines: &[&str]) -> Display {
        Display {
            locale: "es-PE".into(),
            title: "Liberar token".into(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[test]
    fn a_display_has_the_digest_that_another_program_computed() {
        let shown = display(&["Token FEF4900032", "Motivo: error de asignación"]);
        assert_eq!(shown.digest().to_string(), "UukZSUNdp4svMieBUvMSRKU-6NBla7DGBHSnBkK53Qg");
    }

    proptest::proptest! {
        #[test]
        fn security_54_no_other_display_has_the_same_bytes(
            text in "[a-zñ ]{1,12}", one in 0..13usize, other in 0..13usize
        ) {
            let split = |at: usize| {
                let at = text.char_indices().map(|(place, _)| place).nth(at).unwrap_or(text.len());
                let (start, end) = text.split_at(at);
                display(&[start, end])
            };
            let (one, other) = (split(one), split(other));
            proptest::prop_assert_eq!(one == other, one.digest() == other.digest());
            proptest::prop_assert_ne!(display(&[&text]).digest(), one.digest());
        }
    }

    #[test]
    fn security_64_a_display_cannot_break_the_screen() {
        let read = |lines: &[String]| {
            let json = serde_json::json!({"locale": "es", "title": "x", "lines": lines});
            serde_json::from_value::<Display>(json).is_ok()
        };
        assert!(read(&["ñ".repeat(200)]));
        assert!(!read(&["ñ".repeat(201)]));
        assert!(!read(&vec![String::new(); 17]));
        for bad in ["a\nb", "a\u{1b}[2Jb", "a\u{7f}", "a\u{85}b"] {
            assert!(!read(&[bad.to_owned()]), "{bad:?}");
        }
    }

    #[test]
    fn a_match_number_is_six_digits_with_its_zeros() {
        let entropy = Seeded::new(3);
        let mut below_100_000 = 0;
        for _ in 0..2000 {
            let number = MatchNumber::generate(&entropy);
            let again = MatchNumber::parse(number.expose()).expect("six digits");
            assert!(number.matches(&again));
            below_100_000 += u32::from(number.expose().starts_with('0'));
        }
        assert!((140..260).contains(&below_100_000), "{below_100_000} of 2000");
        let number = MatchNumber::parse("042137").expect("six digits");
        assert!(!number.matches(&MatchNumber::parse("042138").expect("six digits")));
        for bad in ["", "42137", "0421370", "04213 ", "+42137", "0x2137", "٠٤٢"] {
            assert!(MatchNumber::parse(bad).is_err(), "{bad}");
        }
    }
}
