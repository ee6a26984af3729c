//! How a program proves who it is with a key of its own (`private_key_jwt`: RFC 7523, OpenID
//! Connect Core section 9): an assertion it signs for each request of a token. Written by other
//! people's libraries, so its form is theirs: what is known is checked, what is not is ignored;
//! the algorithm is ES256 and the keys are the registered ones all the same.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::MessageError;
use super::bytes::present;
use super::jwk::{InvalidKey, PublicKey};
use super::jws;
use crate::base64url;
use crate::time::Timestamp;

/// The longest assertion, in bytes: room in a body for the parameters beside it.
pub const MAX_LENGTH: usize = 8 * 1024;

/// How far ahead an assertion may expire: for so long its name is remembered.
pub const MAX_LIFE: Duration = Duration::from_secs(300);

/// How far the clock of a program may be ahead of ours.
pub(super) const SKEW: Duration = Duration::from_secs(30);

/// How many keys a program may have: the one in use, the next one, and some to spare.
const MAX_KEYS: usize = 8;

/// The longest `kid` and `jti`, in bytes.
pub(super) const MAX_NAME: usize = 128;

/// A public key of a program, under the name that the program gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientKey {
    /// Its name; none where the program gave it none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The key.
    pub key: PublicKey,
}

/// A key as a program hands it in (RFC 7517). A private part is refused, so that nobody hands in
/// more than they meant to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientJwk {
    /// `EC`.
    #[schemars(extend("const" = "EC"))]
    pub kty: String,
    /// `P-256`.
    #[schemars(extend("const" = "P-256"))]
    pub crv: String,
    /// The point's x, base64url.
    #[schemars(regex(pattern = "^[A-Za-z0-9_-]{43}$"))]
    pub x: String,
    /// The point's y, base64url.
    #[schemars(regex(pattern = "^[A-Za-z0-9_-]{43}$"))]
    pub y: String,
    /// The name by which assertions name the key.
    pub kid: Option<String>,
    /// `ES256`, where it is said.
    pub alg: Option<String>,
    /// `sig`, where it is said.
    #[serde(rename = "use")]
    pub purpose: Option<String>,
}

/// The keys of a program, as it hands them in (RFC 7517 section 5).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientJwks {
    /// One to eight keys, each for ES256.
    #[schemars(length(min = 1, max = 8))]
    pub keys: Vec<ClientJwk>,
}

impl ClientJwks {
    /// The keys, or where in the set something is wrong.
    pub fn keys(&self) -> Result<Vec<ClientKey>, (String, &'static str)> {
        if !(1..=MAX_KEYS).contains(&self.keys.len()) {
            return Err(("keys".to_owned(), "a program has 1 to 8 keys"));
        }
        let mut keys: Vec<ClientKey> = Vec::new();
        for (place, jwk) in self.keys.iter().enumerate() {
            let wrong = |what| (format!("keys/{place}"), what);
            let key = jwk.key().ok_or_else(|| wrong("is no public key for ES256"))?;
            let named = |name: &String| (1..=MAX_NAME).contains(&name.len());
            if !jwk.kid.as_ref().is_none_or(named) {
                return Err(wrong("a kid has 1 to 128 bytes"));
            }
            if keys.iter().any(|other| other.key == key) {
                return Err(wrong("is there twice"));
            }
            if jwk.kid.is_some() && keys.iter().any(|other| other.kid == jwk.kid) {
                return Err(wrong("has the name of another"));
            }
            keys.push(ClientKey { kid: jwk.kid.clone(), key });
        }
        Ok(keys)
    }
}

impl ClientJwk {
    fn key(&self) -> Option<PublicKey> {
        let says = |member: &Option<String>, value: &str| {
            member.as_deref().is_none_or(|member| member == value)
        };
        let fits = self.kty == "EC"
            && self.crv == "P-256"
            && says(&self.alg, "ES256")
            && says(&self.purpose, "sig");
        let key: Result<_, InvalidKey> = super::jwk::from_coordinates(&self.x, &self.y);
        key.ok().filter(|_| fits)
    }
}

/// The header of an assertion, as far as it decides anything.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "jws::there")]
    crit: bool,
    #[serde(default, deserialize_with = "jws::there")]
    b64: bool,
}

/// What an assertion claims. Others are allowed (RFC 7523 section 3) and decide nothing.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    #[serde(deserialize_with = "one_or_list")]
    aud: Vec<String>,
    jti: String,
    exp: f64,
    #[serde(default, deserialize_with = "present")]
    iat: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<f64>,
}

pub(super) fn one_or_list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        List(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::List(list) => list,
    })
}

/// Why an assertion does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// It is no assertion, or its signature is by none of the program's keys.
    #[error("does not verify")]
    Message(#[from] MessageError),
    /// `iss` and `sub` are not the client's id.
    #[error("iss and sub have to be the client_id")]
    Subject,
    /// It is meant for somebody else.
    #[error("aud has to be the issuer or the token endpoint, and nothing beside it")]
    Audience,
    /// It is over.
    #[error("it has expired")]
    Expired,
    /// It would hold for longer than 5 minutes.
    #[error("exp is more than 5 minutes ahead")]
    TooLong,
    /// It was made in the future, or long ago.
    #[error("iat or nbf is off: is the clock right?")]
    Clock,
    /// It has no name, or one that is too long.
    #[error("jti has to have 1 to 128 bytes")]
    Name,
}

/// An assertion taken apart and not yet verified: enough to find the program that it claims to
/// come from, and to be trusted for nothing else.
pub struct Unverified<'a> {
    claims: Claims,
    parts: Parts<'a>,
}

/// A text that a program signed, taken apart and not yet verified.
pub(super) struct Parts<'a> {
    header: Header,
    pub(super) payload: Vec<u8>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// Takes `text` apart, if it is of one of these kinds, or of none.
    pub(super) fn read(text: &'a str, kinds: &[&str]) -> Result<Self, MessageError> {
        if text.len() > MAX_LENGTH {
            return Err(MessageError::TooLarge);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(MessageError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(MessageError::Malformed)?;
        let decode = |part| base64url::decode(part).ok_or(MessageError::Malformed);
        let header: Header = jws::claims(&decode(header)?)?;
        if header.alg != "ES256" {
            return Err(MessageError::UnsupportedAlgorithm);
        }
        if header.crit || header.b64 {
            return Err(MessageError::ForbiddenHeader);
        }
        // No other signed message may pass for this one: every one of ours has a kind.
        let typ = header.typ.as_deref().unwrap_or("JWT");
        if !typ.eq_ignore_ascii_case("JWT") && !kinds.contains(&typ) {
            return Err(MessageError::WrongType);
        }
        Ok(Self { header, payload: decode(payload)?, signed, signature: decode(signature)? })
    }

    /// Whether one of `keys` signed it: the one it names, or any where it names none.
    pub(super) fn verify(&self, keys: &[ClientKey]) -> Result<(), MessageError> {
        let named = |key: &&ClientKey| match (&self.header.kid, &key.kid) {
            (None, _) => true,
            (Some(kid), Some(name)) => kid == name,
            // A key without a name has its thumbprint for one (RFC 7638).
            (Some(kid), None) => *kid == key.key.thumbprint(),
        };
        let mut verdict = Err(MessageError::WrongKey);
        for key in keys.iter().filter(named) {
            verdict = key.key.verify(self.signed.as_bytes(), &self.signature);
            if verdict.is_ok() {
                break;
            }
        }
        verdict
    }
}

/// An assertion that holds: what makes it count once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Its name, which its program may use once.
    pub jti: String,
    /// Until when it would hold.
    pub expires: Timestamp,
}

impl<'a> Unverified<'a> {
    /// Reads `text`.
    pub fn read(text: &'a str) -> Result<Self, MessageError> {
        let parts = Parts::read(text, &["client-authentication+jwt"])?;
        Ok(Self { claims: jws::claims(&parts.payload)?, parts })
    }

    /// The program that it claims to come from.
    pub fn subject(&self) -> &str {
        &self.claims.sub
    }

    /// Whether one of `keys` signed it: the one it names, or any where it names none.
    pub fn verify(&self, keys: &[ClientKey]) -> Result<(), MessageError> {
        self.parts.verify(keys)
    }

    /// What it claims, held against what it has to claim at `now` (RFC 7523 section 3).
    pub fn check(
        &self,
        client_id: &str,
        audiences: &[&str],
        now: Timestamp,
    ) -> Result<Proven, AssertionError> {
        let Claims { iss, sub, aud, jti, exp, iat, nbf } = &self.claims;
        if iss != client_id || sub != client_id {
            return Err(AssertionError::Subject);
        }
        // One audience alone: whoever else it was meant for could bring it here.
        match aud.as_slice() {
            [one] if audiences.contains(&one.as_str()) => {}
            _ => return Err(AssertionError::Audience),
        }
        if !(1..=MAX_NAME).contains(&jti.len()) {
            return Err(AssertionError::Name);
        }
        let expires = moment(*exp);
        if expires <= now {
            return Err(AssertionError::Expired);
        }
        if expires.since(now) > MAX_LIFE {
            return Err(AssertionError::TooLong);
        }
        let too_early = |at: &f64| moment(*at).since(now) > SKEW;
        let too_old = |at: &f64| now.since(moment(*at)) > MAX_LIFE + SKEW;
        if iat.iter().chain(nbf).any(too_early) || iat.iter().any(too_old) {
            return Err(AssertionError::Clock);
        }
        Ok(Proven { jti: jti.clone(), expires })
    }
}

/// A NumericDate (RFC 7519 section 2), which may have a fraction.
pub(super) fn moment(seconds: f64) -> Timestamp {
    // Saturates, and what is not a number becomes 0: both ends are refused by the checks above.
    Timestamp::from_milliseconds((seconds * 1000.0) as i64)
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::jwk::SigningKey;

    const ISSUER: &str = "https://semilla.example";

    fn key() -> SigningKey {
        let rng = SystemRandom::new();
        SigningKey::from_pkcs8(&SigningKey::generate(&rng), &rng).expect("a key")
    }

    fn signed(key: &SigningKey, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| base64url::encode(value.to_string().as_bytes());
        let text = format!("{}.{}", encode(header), encode(claims));
        let signature = key.sign(text.as_bytes(), &SystemRandom::new());
        format!("{text}.{}", base64url::encode(&signature))
    }

    fn claims() -> Value {
        json!({"iss": "me", "sub": "me", "aud": ISSUER, "jti": "1", "exp": 1060, "iat": 1000})
    }

    fn check(claims: &Value) -> Result<Proven, AssertionError> {
        let text = signed(&key(), &json!({"alg": "ES256"}), claims);
        let read = Unverified::read(&text)?;
        read.check("me", &[ISSUER, "https://semilla.example/token"], Timestamp::from_seconds(1000))
    }

    #[test]
    fn what_other_libraries_write_is_read() {
        let proven = check(&claims()).expect("an assertion");
        assert_eq!(proven, Proven { jti: "1".to_owned(), expires: Timestamp::from_seconds(1060) });
        for (name, value) in [
            ("aud", json!([ISSUER])),
            ("aud", json!("https://semilla.example/token")),
            ("exp", json!(1300)),
            ("exp", json!(1000.5)),
            ("iat", json!(1030)),
            ("iat", json!(670)),
            ("nbf", json!(1000)),
            ("anything", json!({"else": true})),
        ] {
            let mut claims = claims();
            claims[name] = value;
            assert!(check(&claims).is_ok(), "{claims}");
        }
    }

    #[test]
    fn an_assertion_that_claims_something_else_is_refused_by_name() {
        for (name, value, error) in [
            ("iss", json!("you"), AssertionError::Subject),
            ("sub", json!("you"), AssertionError::Subject),
            ("aud", json!("https://other.example"), AssertionError::Audience),
            ("aud", json!([ISSUER, "https://other.example"]), AssertionError::Audience),
            ("aud", json!([]), AssertionError::Audience),
            ("jti", json!(""), AssertionError::Name),
            ("jti", json!("x".repeat(129)), AssertionError::Name),
            ("exp", json!(1000), AssertionError::Expired),
            ("exp", json!(-1e300), AssertionError::Expired),
            ("exp", json!(1300.5), AssertionError::TooLong),
            ("exp", json!(1e300), AssertionError::TooLong),
            ("iat", json!(1031), AssertionError::Clock),
            ("iat", json!(669), AssertionError::Clock),
            ("nbf", json!(1031), AssertionError::Clock),
            ("exp", json!("1060"), AssertionError::Message(MessageError::Malformed)),
            ("jti", json!(7), AssertionError::Message(MessageError::Malformed)),
        ] {
            let mut claims = claims();
            claims[name] = value;
            assert_eq!(check(&claims), Err(error), "{claims}");
            claims.as_object_mut().expect("an object").remove(name);
            assert_eq!(check(&claims).is_ok(), ["iat", "nbf"].contains(&name), "without {name}");
        }
    }

    #[test]
    fn a_header_that_would_change_what_is_verified_is_refused() {
        for (header, error) in [
            (json!({"alg": "none"}), MessageError::UnsupportedAlgorithm),
            (json!({"alg": "HS256"}), MessageError::UnsupportedAlgorithm),
            (json!({"alg": "ES256", "crit": ["x"], "x": 1}), MessageError::ForbiddenHeader),
            (json!({"alg": "ES256", "b64": false}), MessageError::ForbiddenHeader),
            (json!({"alg": "ES256", "typ": "dpop+jwt"}), MessageError::WrongType),
            (json!({"alg": "ES256", "typ": "approval-response+jwt"}), MessageError::WrongType),
            (json!({}), MessageError::Malformed),
        ] {
            let text = signed(&key(), &header, &claims());
            assert_eq!(Unverified::read(&text).err(), Some(error), "{header}");
        }
    }

    #[test]
    fn the_key_is_the_one_that_is_named_and_registered() {
        let (one, other) = (key(), key());
        let keys = |kid: Option<&str>, key: &SigningKey| {
            vec![ClientKey { kid: kid.map(str::to_owned), key: key.public().clone() }]
        };
        let says = |header: Value, keys: &[ClientKey]| {
            let text = signed(&one, &header, &claims());
            Unverified::read(&text).expect("an assertion").verify(keys)
        };
        let plain = json!({"alg": "ES256", "typ": "JWT"});
        let named = |kid: &str| json!({"alg": "ES256", "kid": kid});
        assert_eq!(says(plain.clone(), &keys(None, &one)), Ok(()));
        assert_eq!(says(plain.clone(), &[keys(None, &other), keys(None, &one)].concat()), Ok(()));
        assert_eq!(says(named("a"), &keys(Some("a"), &one)), Ok(()));
        assert_eq!(says(named(&one.public().thumbprint()), &keys(None, &one)), Ok(()));
        assert_eq!(says(plain.clone(), &keys(None, &other)), Err(MessageError::BadSignature));
        assert_eq!(says(named("b"), &keys(Some("a"), &one)), Err(MessageError::WrongKey));
        assert_eq!(says(plain, &[]), Err(MessageError::WrongKey));
        // A key in the header is nobody's.
        let mut own = named("a");
        own["jwk"] = serde_json::to_value(one.public()).expect("JSON");
        assert_eq!(says(own, &keys(Some("a"), &other)), Err(MessageError::BadSignature));
    }

    #[test]
    fn a_set_of_keys_holds_public_keys_for_es256_each_once() {
        let jwk = serde_json::to_value(key().public()).expect("JSON");
        let read = |keys: Value| {
            serde_json::from_value::<ClientJwks>(json!({ "keys": keys }))
                .map_err(|error| error.to_string())
                .and_then(|set| set.keys().map_err(|(place, what)| format!("{place} {what}")))
        };
        let with = |name: &str, value: &str| {
            let mut jwk = jwk.clone();
            jwk[name] = value.into();
            jwk
        };
        assert_eq!(read(json!([jwk])).expect("keys").len(), 1);
        let full = with("kid", "a");
        assert_eq!(read(json!([full])).expect("keys")[0].kid.as_deref(), Some("a"));
        for wrong in [
            json!([]),
            json!([jwk, jwk]),
            json!([with("d", "AAAA")]),
            json!([with("alg", "ES384")]),
            json!([with("use", "enc")]),
            json!([with("kty", "RSA")]),
            json!([with("crv", "P-384")]),
            json!([with("x", "AAAA")]),
            json!([with("kid", "")]),
            json!(vec![jwk.clone(); 9]),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
