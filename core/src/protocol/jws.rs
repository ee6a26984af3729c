//! Signed texts: compact JWS (RFC 7515 section 7.1) with ES256 (RFC 7518 section 3.4) and nothing
//! else. The reader brings the key, the algorithm and the kind of message; the header may only
//! agree with them (RFC 8725 sections 3.1 and 3.11). Any other header is refused, `crit` above all.

use ring::rand::SecureRandom;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

use super::MessageError;
use super::bytes::present;
use super::jwk::{KeyId, PublicKey, SigningKey};
use crate::base64url;

/// The longest text that is read, in bytes: 16 KiB. Looked at before anything else is.
pub const MAX_LENGTH: usize = 16 * 1024;

/// How a message names the key it is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeader {
    /// By `kid`: the reader knows the key. Every message but the two below.
    Name,
    /// By `jwk` as well: the reader sees the key for the first time (binding a phone) or has only
    /// its thumbprint (DPoP, RFC 9449 section 4.2).
    Key,
}

/// What can be read of a message before its signature is verified: enough to find the key, and to
/// be trusted for nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// The kind that the message claims to be.
    pub typ: String,
    /// The key that it claims to be signed with.
    pub kid: Option<KeyId>,
}

#[derive(Serialize)]
struct HeaderOut<'a> {
    typ: &'a str,
    alg: &'static str,
    kid: KeyId,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwk: Option<&'a PublicKey>,
}

/// Every header parameter that is known; those that are forbidden so that they get an answer of
/// their own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderIn {
    typ: String,
    alg: String,
    #[serde(default, deserialize_with = "present")]
    kid: Option<KeyId>,
    #[serde(default, deserialize_with = "embedded")]
    jwk: Option<PublicKey>,
    #[serde(default, deserialize_with = "there")]
    crit: bool,
    #[serde(default, deserialize_with = "there")]
    jku: bool,
    #[serde(default, deserialize_with = "there")]
    x5u: bool,
    #[serde(default, deserialize_with = "there")]
    x5c: bool,
    #[serde(default, deserialize_with = "there")]
    x5t: bool,
    #[serde(default, deserialize_with = "there", rename = "x5t#S256")]
    x5t_s256: bool,
    #[serde(default, deserialize_with = "there")]
    b64: bool,
}

/// A key in a header. Other people's libraries say there what it is for; a private part is refused
/// (RFC 9449 section 4.3, check 7).
fn embedded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PublicKey>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Embedded {
        kty: String,
        crv: String,
        x: String,
        y: String,
        alg: Option<String>,
        r#use: Option<String>,
        #[serde(default, rename = "kid", deserialize_with = "there")]
        _kid: bool,
        #[serde(default, rename = "key_ops", deserialize_with = "there")]
        _key_ops: bool,
        #[serde(default, rename = "ext", deserialize_with = "there")]
        _ext: bool,
    }
    let jwk = Embedded::deserialize(deserializer)?;
    let says =
        |member: &Option<String>, value: &str| member.as_deref().is_none_or(|it| it == value);
    if jwk.kty != "EC" || jwk.crv != "P-256" || !says(&jwk.alg, "ES256") || !says(&jwk.r#use, "sig")
    {
        return Err(serde::de::Error::custom("not a key for ES256"));
    }
    super::jwk::from_coordinates(&jwk.x, &jwk.y).map(Some).map_err(serde::de::Error::custom)
}

pub(super) fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Signs `claims` as a message of the kind `typ`.
///
/// # Panics
/// Where the generator fails, or where `claims` cannot be written as JSON: a programming error.
pub fn sign(
    key: &SigningKey,
    typ: &str,
    key_header: KeyHeader,
    claims: &impl Serialize,
    rng: &dyn SecureRandom,
) -> String {
    let header = HeaderOut {
        typ,
        alg: "ES256",
        kid: key.public().key_id(),
        jwk: (key_header == KeyHeader::Key).then_some(key.public()),
    };
    let header = serde_json::to_vec(&header).expect("always JSON");
    let claims = serde_json::to_vec(claims).expect("claims are JSON");
    let mut text = format!("{}.{}", base64url::encode(&header), base64url::encode(&claims));
    let signature = key.sign(text.as_bytes(), rng);
    text.push('.');
    text.push_str(&base64url::encode(&signature));
    text
}

/// Reads the header alone, to find the key. Refuses what [`verify`] would refuse of a header.
pub fn peek(text: &str) -> Result<Peeked, MessageError> {
    let parts = Parts::read(text)?;
    Ok(Peeked { typ: parts.header.typ, kid: parts.header.kid })
}

/// Verifies a message of the kind `typ` signed with `key`, whose name it must carry, and reads its
/// claims from the very bytes that were signed.
pub fn verify<Claims: DeserializeOwned>(
    text: &str,
    typ: &str,
    key: &PublicKey,
) -> Result<Claims, MessageError> {
    claims(&verified(text, typ, key)?)
}

/// As [`verify`], with the key that the header carries. It proves that the sender holds that key
/// and nothing more: what the key may do, the caller decides by something else.
pub fn verify_with_embedded_jwk<Claims: DeserializeOwned>(
    text: &str,
    typ: &str,
) -> Result<(Claims, PublicKey), MessageError> {
    let (payload, key) = verified_with_embedded_jwk(text, typ)?;
    Ok((claims(&payload)?, key))
}

/// The signed bytes, before they are read.
pub(super) fn verified(text: &str, typ: &str, key: &PublicKey) -> Result<Vec<u8>, MessageError> {
    let parts = Parts::read(text)?;
    parts.is_a(typ)?;
    if parts.header.jwk.is_some() {
        return Err(MessageError::ForbiddenHeader);
    }
    match parts.header.kid {
        None => return Err(MessageError::Malformed),
        Some(kid) if kid != key.key_id() => return Err(MessageError::WrongKey),
        Some(_) => {}
    }
    key.verify(parts.signed.as_bytes(), &parts.signature)?;
    Ok(parts.payload)
}

/// The signed bytes and the key in the header that fits them.
pub(super) fn verified_with_embedded_jwk(
    text: &str,
    typ: &str,
) -> Result<(Vec<u8>, PublicKey), MessageError> {
    let parts = Parts::read(text)?;
    parts.is_a(typ)?;
    let key = parts.header.jwk.ok_or(MessageError::Malformed)?;
    if parts.header.kid.is_some_and(|kid| kid != key.key_id()) {
        return Err(MessageError::WrongKey);
    }
    key.verify(parts.signed.as_bytes(), &parts.signature)?;
    Ok((parts.payload, key))
}

/// Reads JSON that must be an object. (`serde` would take the values of a struct from an array as
/// well, and a message has one form.)
pub(super) fn claims<T: DeserializeOwned>(json: &[u8]) -> Result<T, MessageError> {
    if json.first() != Some(&b'{') {
        return Err(MessageError::Malformed);
    }
    serde_json::from_slice(json).map_err(|_| MessageError::Malformed)
}

/// A text taken apart, its header checked, its signature not.
struct Parts<'a> {
    header: HeaderIn,
    signed: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn read(text: &'a str) -> Result<Self, MessageError> {
        if text.len() > MAX_LENGTH {
            return Err(MessageError::TooLarge);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(MessageError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(MessageError::Malformed)?;
        // A fourth part would leave a dot in the payload, which is not base64url.
        let decode = |part| base64url::decode(part).ok_or(MessageError::Malformed);
        let header: HeaderIn = claims(&decode(header)?)?;
        let (payload, signature) = (decode(payload)?, decode(signature)?);
        if header.alg != "ES256" {
            return Err(MessageError::UnsupportedAlgorithm);
        }
        let HeaderIn { crit, jku, x5u, x5c, x5t, x5t_s256, b64, .. } = header;
        if crit || jku || x5u || x5c || x5t || x5t_s256 || b64 {
            return Err(MessageError::ForbiddenHeader);
        }
        Ok(Self { header, signed, payload, signature })
    }

    /// The kinds are compared as they are: no `application/`, no other case (RFC 7515 section
    /// 4.1.9 would allow it), so that a kind has one spelling.
    fn is_a(&self, typ: &str) -> Result<(), MessageError> {
        if self.header.typ == typ { Ok(()) } else { Err(MessageError::WrongType) }
    }
}
