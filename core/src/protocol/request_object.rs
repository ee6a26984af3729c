//! What a program asks in a text that it signed (RFC 9101, OpenID CIBA Core section 7.1.1, FAPI
//! CIBA section 5.2.2): who it is, for whom it is meant and how long it counts, whatever the
//! request in it says. What it asks, the caller reads from the claims that are left.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::MessageError;
use super::assertion::{ClientKey, MAX_NAME, Parts, Proven, SKEW, moment, one_or_list};
use super::bytes::present;
use super::consent::Strict;
use super::jws;
use crate::time::Timestamp;

/// How long a request may count, and how old it may be: FAPI allows an hour; a request of a phone
/// is asked now.
const MAX_LIFE: std::time::Duration = std::time::Duration::from_secs(3600);

/// The claims that say how it counts.
const ENVELOPE: [&str; 6] = ["iss", "aud", "jti", "exp", "iat", "nbf"];

/// Why a signed request does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is no signed request, or its signature is by none of the program's keys.
    #[error("it does not verify")]
    Message(#[from] MessageError),
    /// `iss` is not the client's id, or it has a `sub` and could pass for an assertion.
    #[error("iss has to be the client_id, and there has to be no sub")]
    Issuer,
    /// It is meant for somebody else.
    #[error("aud has to be the issuer, and nothing beside it")]
    Audience,
    /// It is over.
    #[error("it has expired")]
    Expired,
    /// It would hold for longer than an hour.
    #[error("exp is more than an hour behind nbf, or nbf more than an hour ago")]
    TooLong,
    /// It was made in the future.
    #[error("iat or nbf is off: is the clock right?")]
    Clock,
    /// It has no name, or one that is too long.
    #[error("jti has to have 1 to 128 bytes")]
    Name,
}

#[derive(Deserialize)]
struct Envelope {
    iss: String,
    #[serde(deserialize_with = "one_or_list")]
    aud: Vec<String>,
    jti: String,
    exp: f64,
    iat: f64,
    nbf: f64,
    #[serde(default, deserialize_with = "present")]
    sub: Option<Value>,
}

/// Reads a request that one of `keys` signed. Returns what makes it count once, and what it asks.
pub fn read(
    text: &str,
    keys: &[ClientKey],
    client_id: &str,
    issuer: &str,
    now: Timestamp,
) -> Result<(Proven, Map<String, Value>), RequestError> {
    let parts = Parts::read(text, &["oauth-authz-req+jwt"])?;
    parts.verify(keys)?;
    let envelope: Envelope = jws::claims(&parts.payload)?;
    let Strict(claims) = jws::claims(&parts.payload)?;
    let Value::Object(mut asks) = claims else { return Err(MessageError::Malformed.into()) };
    let Envelope { iss, aud, jti, exp, iat, nbf, sub } = envelope;
    if iss != client_id || sub.is_some() {
        return Err(RequestError::Issuer);
    }
    if aud != [issuer] {
        return Err(RequestError::Audience);
    }
    if !(1..=MAX_NAME).contains(&jti.len()) {
        return Err(RequestError::Name);
    }
    let (expires, from, made) = (moment(exp), moment(nbf), moment(iat));
    if expires <= now {
        return Err(RequestError::Expired);
    }
    if from.since(now) > SKEW || made.since(now) > SKEW {
        return Err(RequestError::Clock);
    }
    if expires.since(from) > MAX_LIFE || now.since(from) > MAX_LIFE {
        return Err(RequestError::TooLong);
    }
    asks.retain(|name, _| !ENVELOPE.contains(&name.as_str()));
    Ok((Proven { jti, expires }, asks))
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use serde_json::json;

    use super::*;
    use crate::base64url;
    use crate::protocol::jwk::SigningKey;

    const ISSUER: &str = "https://semilla.example";

    fn key() -> SigningKey {
        let rng = SystemRandom::new();
        SigningKey::from_pkcs8(&SigningKey::generate(&rng), &rng).expect("a key")
    }

    fn ask(header: &str, claims: &str) -> Result<Map<String, Value>, RequestError> {
        let key = key();
        let text = [header, claims].map(|part| base64url::encode(part.as_bytes())).join(".");
        let signature = base64url::encode(&key.sign(text.as_bytes(), &SystemRandom::new()));
        let keys = [ClientKey { kid: None, key: key.public().clone() }];
        let now = Timestamp::from_seconds(10_000);
        read(&format!("{text}.{signature}"), &keys, "me", ISSUER, now).map(|(_, asks)| asks)
    }

    const HEADER: &str = r#"{"alg":"ES256"}"#;

    fn good() -> Value {
        json!({"iss": "me", "aud": ISSUER, "jti": "1", "exp": 10_060, "iat": 10_000, "nbf": 10_000,
               "scope": "openid"})
    }

    #[test]
    fn a_signed_request_says_who_for_whom_and_how_long() {
        let asks = ask(HEADER, &good().to_string()).expect("a request");
        assert_eq!(Value::Object(asks), json!({"scope": "openid"}));
        for (name, value, error) in [
            ("iss", json!("you"), RequestError::Issuer),
            ("sub", json!("me"), RequestError::Issuer),
            ("aud", json!("https://other.example"), RequestError::Audience),
            ("aud", json!([ISSUER, "https://other.example"]), RequestError::Audience),
            ("jti", json!(""), RequestError::Name),
            ("exp", json!(10_000), RequestError::Expired),
            ("exp", json!(13_601), RequestError::TooLong),
            ("nbf", json!(6_399), RequestError::TooLong),
            ("nbf", json!(10_031), RequestError::Clock),
            ("iat", json!(10_031), RequestError::Clock),
        ] {
            let mut claims = good();
            claims[name] = value;
            assert_eq!(ask(HEADER, &claims.to_string()).err(), Some(error), "{claims}");
        }
        for name in ENVELOPE {
            let mut claims = good();
            claims.as_object_mut().expect("an object").remove(name);
            let missing = Some(RequestError::Message(MessageError::Malformed));
            assert_eq!(ask(HEADER, &claims.to_string()).err(), missing, "{name}");
        }
    }

    #[test]
    fn a_signed_request_is_of_its_kind_and_reads_in_one_way() {
        assert!(ask(r#"{"alg":"ES256","typ":"oauth-authz-req+jwt"}"#, &good().to_string()).is_ok());
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"ES256","typ":"client-authentication+jwt"}"#,
            r#"{"alg":"ES256","crit":["x"]}"#,
        ] {
            assert!(ask(header, &good().to_string()).is_err(), "{header}");
        }
        let twice = good().to_string().replace("\"jti\"", "\"scope\":\"x\",\"jti\"");
        assert!(ask(HEADER, &twice).is_err(), "{twice}");
    }
}
