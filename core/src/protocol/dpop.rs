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

/// What a proof claims (RFC 9449 section 4.2). Others are allowed there and decide nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ring::rand::SystemRandom;

    use super::*;

    /// RFC 9449, figures 1 and 2.
    const EXAMPLE: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik\
        VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR\
        nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE\
        QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIj\
        oiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwia\
        WF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg\
        4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";

    const REQUEST: Request<'_> =
        Request { method: "POST", uri: "https://server.example.com/token", access_token: None };

    #[test]
    fn the_example_of_rfc_9449_verifies() {
        let proof = verify(EXAMPLE, &REQUEST).expect("a proof");
        assert_eq!(proof.claims.jti, "-BwC3ESc6acc2lTc");
        assert_eq!(proof.claims.iat, Timestamp::from_seconds(1_562_262_616));
        assert_eq!(proof.key.thumbprint(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        // Section 7.1, figure 12: the `ath` of an access token.
        assert_eq!(
            token_digest("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU").to_string(),
            "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
        );
    }

    #[test]
    fn proofs_of_other_libraries_are_read_and_private_keys_in_them_refused() {
        let rng = SystemRandom::new();
        let key = SigningKey::from_pkcs8(&SigningKey::generate(&rng), &rng).expect("a key");
        let mut jwk = serde_json::to_value(key.public()).expect("JSON");
        let read = |jwk: &serde_json::Value| {
            let encode =
                |value: serde_json::Value| crate::base64url::encode(value.to_string().as_bytes());
            let header = serde_json::json!({"typ": TYP, "alg": "ES256", "jwk": jwk});
            let claims = serde_json::json!({
                "jti": "a", "htm": "POST", "htu": REQUEST.uri, "iat": 1, "other": [1],
            });
            let text = format!("{}.{}", encode(header), encode(claims));
            let signature = crate::base64url::encode(&key.sign(text.as_bytes(), &rng));
            verify(&format!("{text}.{signature}"), &REQUEST).map(|proof| proof.key)
        };
        for (name, value) in [("alg", "ES256"), ("use", "sig"), ("kid", "a"), ("ext", "true")] {
            jwk[name] = value.into();
            assert_eq!(read(&jwk).as_ref(), Ok(key.public()), "{name}");
        }
        for (name, value) in [("d", "AAAA"), ("alg", "ES384"), ("use", "enc"), ("other", "a")] {
            let mut wrong = jwk.clone();
            wrong[name] = value.into();
            assert_eq!(read(&wrong), Err(MessageError::Malformed), "{name}");
        }
    }

    #[test]
    fn security_62_a_proof_fits_one_request_and_one_access_token() {
        let rng = SystemRandom::new();
        let key = SigningKey::from_pkcs8(&SigningKey::generate(&rng), &rng).expect("a key");
        let request = Request {
            method: "GET",
            uri: "https://semilla.example/device/v1/approvals?wait=25",
            access_token: Some("a-token"),
        };
        let (jti, iat) = (Nonce::from_bytes([7; 16]), Timestamp::from_seconds(1_764_000_000));
        let text = create(&key, &request, jti, iat, Some("server-nonce"), &rng);
        let proof = verify(&text, &request).expect("a proof");
        assert_eq!(&proof.key, key.public());
        assert_eq!(proof.claims.htu, "https://semilla.example/device/v1/approvals");
        assert_eq!(proof.claims.nonce.as_deref(), Some("server-nonce"));
        let other_query =
            Request { uri: "https://semilla.example/device/v1/approvals#x", ..request };
        assert!(verify(&text, &other_query).is_ok());
        for other in [
            Request { method: "POST", ..request },
            Request { method: "get", ..request },
            Request { uri: "https://semilla.example/device/v1/tokens", ..request },
            Request { uri: "https://evil.example/device/v1/approvals", ..request },
            Request { uri: "http://semilla.example/device/v1/approvals", ..request },
            Request { uri: "", ..request },
            Request { access_token: Some("another"), ..request },
            Request { access_token: None, ..request },
        ] {
            assert_eq!(verify(&text, &other).err(), Some(MessageError::WrongRequest));
        }
        let without_token =
            create(&key, &Request { access_token: None, ..request }, jti, iat, None, &rng);
        assert_eq!(verify(&without_token, &request).err(), Some(MessageError::WrongRequest));
    }

    #[test]
    fn an_address_is_compared_after_normalization() {
        for (one, other) in [
            ("https://semilla.example", "https://semilla.example/"),
            ("HTTPS://Semilla.Example:443/a", "https://semilla.example/a?b=c"),
            ("http://127.0.0.1:80/a", "http://127.0.0.1/a#b"),
        ] {
            assert!(same_address(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("https://semilla.example/a", "https://semilla.example/A"),
            ("https://semilla.example/a", "https://semilla.example/a/"),
            ("https://semilla.example:8443/a", "https://semilla.example/a"),
            ("https://u@semilla.example/a", "https://u@semilla.example/a"),
            ("ftp://semilla.example/a", "ftp://semilla.example/a"),
            ("https:///a", "https:///a"),
            ("/a", "/a"),
            ("", ""),
        ] {
            assert!(!same_address(one, other), "{one} {other}");
        }
    }

    #[test]
    fn names_of_a_proof_are_there_and_short() {
        let rng = SystemRandom::new();
        let key = SigningKey::from_pkcs8(&SigningKey::generate(&rng), &rng).expect("a key");
        let read = |jti: &str, nonce: Option<&str>| {
            let claims = Claims {
                jti: jti.to_owned(),
                htm: "POST".into(),
                htu: REQUEST.uri.into(),
                iat: Timestamp::from_seconds(1),
                ath: None,
                nonce: nonce.map(str::to_owned),
            };
            verify(&jws::sign(&key, TYP, KeyHeader::Key, &claims, &rng), &REQUEST).err()
        };
        let long = "x".repeat(129);
        assert_eq!(read(&long[1..], None), None);
        for (jti, nonce) in
            [("", None), (long.as_str(), None), ("a", Some("")), ("a", Some(&*long))]
        {
            assert_eq!(read(jti, nonce), Some(MessageError::Malformed));
        }
    }

    #[test]
    fn without_a_nonce_the_age_decides() {
        let claims = verify(EXAMPLE, &REQUEST).expect("a proof").claims;
        let window = Duration::from_secs(60);
        let at = |seconds: i64| claims.check_age(Timestamp::from_seconds(seconds), window);
        assert_eq!(at(1_562_262_616 + 60), Ok(()));
        assert_eq!(at(1_562_262_616 - 60), Ok(()));
        assert_eq!(at(1_562_262_616 + 61), Err(MessageError::Expired));
        assert_eq!(at(1_562_262_616 - 61), Err(MessageError::Expired));
    }
}
