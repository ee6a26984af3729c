//! Proof of possession for a request (DPoP, RFC 9449): a signed text for each request shows that
//! whoever sends the access token holds the key it was given to. Its kind is its own, so that such
//! a proof is never an approval (security 61).

use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use super::MessageError;
use super::bytes::{Digest, Nonce, present};
use super::jwk::{PublicKey, SigningKey};
use super::jws::{self, KeyHeader};
use super::messages::numeric_date;
use crate::time::Timestamp;

/// The kind (RFC 9449 section 4.2).
pub const TYP: &str = "dpop+jwt";

/// The longest `jti` and `nonce` that are accepted, in bytes.
const MAX_NAME: usize = 128;

/// What a proof claims (RFC 9449 section 4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The proof's name, used once. Other programs make it in their own way: 1 to 128 bytes.
    pub jti: String,
    /// The method of the request.
    pub htm: String,
    /// The address of the request, without query and fragment.
    pub htu: String,
    /// When it was made.
    #[serde(with = "numeric_date")]
    pub iat: Timestamp,
    /// The digest of the access token, where one goes with the request.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub ath: Option<Digest>,
    /// What the server last gave in `DPoP-Nonce`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

/// The request that a proof is for.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Its method, in capitals.
    pub method: &'a str,
    /// Its full address, as the client sees it; query and fragment do not count.
    pub uri: &'a str,
    /// The access token that goes with it.
    pub access_token: Option<&'a str>,
}

/// A proof that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What it claims.
    pub claims: Claims,
    /// The key: its thumbprint (`jkt`) must be the one that the access token is bound to (RFC 9449
    /// section 6.1).
    pub key: PublicKey,
}

/// Makes the proof for `request`, with the server's last nonce.
pub fn create(
    key: &SigningKey,
    request: &Request<'_>,
    jti: Nonce,
    iat: Timestamp,
    nonce: Option<&str>,
    rng: &dyn SecureRandom,
) -> String {
    let claims = Claims {
        jti: jti.to_string(),
        htm: request.method.to_owned(),
        htu: without_query(request.uri).to_owned(),
        iat,
        ath: request.access_token.map(token_digest),
        nonce: nonce.map(str::to_owned),
    };
    jws::sign(key, TYP, KeyHeader::Key, &claims, rng)
}

/// Verifies that `text` is a proof for `request` (RFC 9449 section 4.3, checks 2 to 9 and the first
/// half of 12). Left to the caller: that the `nonce` is one it gave and still holds, or else
/// [`Claims::check_age`] (10, 11); that `jti` is new; that the key is the access token's (12).
pub fn verify(text: &str, request: &Request<'_>) -> Result<Proof, MessageError> {
    let (claims, key): (Claims, _) = jws::verify_with_embedded_jwk(text, TYP)?;
    let short = |name: &str| (1..=MAX_NAME).contains(&name.len());
    if !short(&claims.jti) || !claims.nonce.as_deref().is_none_or(short) {
        return Err(MessageError::Malformed);
    }
    if claims.htm != request.method
        || !same_address(&claims.htu, request.uri)
        || claims.ath != request.access_token.map(token_digest)
    {
        return Err(MessageError::WrongRequest);
    }
    Ok(Proof { claims, key })
}

impl Claims {
    /// Whether the proof was made within `window` of `now`, on either side: for a server that gives
    /// no nonce (RFC 9449 section 11.1).
    pub fn check_age(
        &self,
        now: Timestamp,
        window: std::time::Duration,
    ) -> Result<(), MessageError> {
        if now.since(self.iat) <= window && self.iat.since(now) <= window {
            Ok(())
        } else {
            Err(MessageError::Expired)
        }
    }
}

fn token_digest(token: &str) -> Digest {
    Digest::of(token.as_bytes())
}

fn without_query(uri: &str) -> &str {
    uri.split(['?', '#']).next().unwrap_or_default()
}

/// Compares addresses without query and fragment, after the normalization that RFC 9449 section
/// 4.3 asks for: scheme and host in lower case, the scheme's own port left out, no path as `/`
/// (RFC 3986 sections 6.2.2.1 and 6.2.3). Percent-encodings must agree.
fn same_address(one: &str, other: &str) -> bool {
    match (normalized(one), normalized(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

fn normalized(uri: &str) -> Option<(String, String, &str)> {
    let (scheme, rest) = without_query(uri).split_once("://")?;
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
    let own_port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let host = authority.strip_suffix(own_port).unwrap_or(&authority).to_owned();
    if host.is_empty() || host.contains('@') { None } else { Some((scheme, host, path)) }
}
