//! Keys of ES256 and of the sealed seed: P-256, as JSON Web Keys (RFC 7517, RFC 7518 section 6.2).
//! A public key that exists in these types is a point of the curve; a key's name is its thumbprint
//! (RFC 7638), so that a name cannot belong to two keys.

use std::fmt;

use hpke::kem::{DhP256HkdfSha256, Kem};
use hpke::{Deserializable, Serializable};
use ring::rand::SecureRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::MessageError;
use super::bytes::Digest;
use crate::base64url;

/// The bytes are no key of P-256: wrong length, not on the curve, the point at infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a P-256 key")]
pub struct InvalidKey;

/// The name of a key (`kid`): its RFC 7638 thumbprint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(Digest);

impl std::str::FromStr for KeyId {
    type Err = MessageError;
    fn from_str(text: &str) -> Result<Self, MessageError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A public key on P-256. On the wire the JWK `{kty, crv, x, y}` and nothing else: a private `d`,
/// or a member that this program does not know, is refused.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey([u8; 65]);

impl PublicKey {
    /// Takes an uncompressed point (SEC 1 section 2.3.3: `04 | x | y`) and checks that it lies on
    /// the curve (SEC 1 section 3.2.2.1; security 52). The group has prime order, so that a point of the curve
    /// other than infinity, which has no such encoding, is a valid key.
    pub fn from_point(point: &[u8]) -> Result<Self, InvalidKey> {
        let bytes = point.try_into().map_err(|_| InvalidKey)?;
        <DhP256HkdfSha256 as Kem>::PublicKey::from_bytes(point).map_err(|_| InvalidKey)?;
        Ok(Self(bytes))
    }

    /// The uncompressed point.
    pub fn point(&self) -> &[u8; 65] {
        &self.0
    }

    /// The RFC 7638 thumbprint as base64url: SHA-256 over the required members in the order of
    /// their names, without blanks.
    pub fn thumbprint(&self) -> String {
        self.key_id().to_string()
    }

    /// The key's name, which is its thumbprint.
    pub fn key_id(&self) -> KeyId {
        let (x, y) = self.coordinates();
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        KeyId(Digest::of(members.as_bytes()))
    }

    /// Verifies an ECDSA signature with SHA-256 in the fixed form of RFC 7518 section 3.4.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), MessageError> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0)
            .verify(message, signature)
            .map_err(|_| MessageError::BadSignature)
    }

    /// The key as the key of an encapsulation (RFC 9180 section 7.1.1).
    pub(super) fn for_hpke(&self) -> <DhP256HkdfSha256 as Kem>::PublicKey {
        <DhP256HkdfSha256 as Kem>::PublicKey::from_bytes(&self.0).expect("checked when it was made")
    }

    /// The public key of an encapsulation.
    pub(super) fn from_hpke(key: &<DhP256HkdfSha256 as Kem>::PublicKey) -> Self {
        Self(key.to_bytes().into())
    }

    fn coordinates(&self) -> (String, String) {
        (base64url::encode(&self.0[1..33]), base64url::encode(&self.0[33..]))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.key_id())
    }
}

/// The JWK of a phone.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk {
    kty: Kty,
    crv: Crv,
    x: String,
    y: String,
}

/// The JWK of the server, as it stands in its set.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedJwk {
    kty: Kty,
    crv: Crv,
    x: String,
    y: String,
    kid: KeyId,
    alg: Alg,
    #[serde(rename = "use")]
    purpose: Purpose,
}

#[derive(Serialize, Deserialize)]
enum Kty {
    #[serde(rename = "EC")]
    Ec,
}

#[derive(Serialize, Deserialize)]
enum Crv {
    #[serde(rename = "P-256")]
    P256,
}

#[derive(Serialize, Deserialize)]
enum Alg {
    #[serde(rename = "ES256")]
    Es256,
}

#[derive(Serialize, Deserialize)]
enum Purpose {
    #[serde(rename = "sig")]
    Signature,
}

/// Puts coordinates together; each has exactly 32 bytes (RFC 7518 section 6.2.1.2).
pub(super) fn from_coordinates(x: &str, y: &str) -> Result<PublicKey, InvalidKey> {
    let mut point = [4; 65];
    for (text, place) in [(x, 1..33), (y, 33..65)] {
        let bytes = base64url::decode(text).filter(|bytes| bytes.len() == 32).ok_or(InvalidKey)?;
        point[place].copy_from_slice(&bytes);
    }
    PublicKey::from_point(&point)
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (x, y) = self.coordinates();
        Jwk { kty: Kty::Ec, crv: Crv::P256, x, y }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let jwk = Jwk::deserialize(deserializer)?;
        from_coordinates(&jwk.x, &jwk.y).map_err(serde::de::Error::custom)
    }
}

/// A private key for ES256, ready to sign. It has neither `Debug` nor `Serialize`; `ring` does not
/// overwrite it, so make it where it is used and drop it.
///
/// ```compile_fail
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<semilla_core::protocol::jwk::SigningKey>(); // security 40
/// ```
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// A new private key as PKCS#8 (RFC 5958), to be kept sealed.
    ///
    /// # Panics
    /// Where the generator fails, as [`crate::entropy::Entropy`] demands.
    pub fn generate(rng: &dyn SecureRandom) -> Zeroizing<Vec<u8>> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, rng)
            .expect("the generator works");
        Zeroizing::new(document.as_ref().to_vec())
    }

    /// Reads what [`SigningKey::generate`] wrote. `ring` checks that the public part fits.
    pub fn from_pkcs8(pkcs8: &[u8], rng: &dyn SecureRandom) -> Result<Self, InvalidKey> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, rng)
            .map_err(|_| InvalidKey)?;
        let public = PublicKey::from_point(pair.public_key().as_ref())?;
        Ok(Self { pair, public })
    }

    /// The public part.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs in the fixed form of RFC 7518 section 3.4: `r | s`, 64 bytes.
    pub(super) fn sign(&self, message: &[u8], rng: &dyn SecureRandom) -> Vec<u8> {
        self.pair.sign(rng, message).expect("the generator works").as_ref().to_vec()
    }
}

/// The server's public keys (RFC 7517 section 5) with the text they were read from: the phone pins
/// that text, because the activation code vouches for its digest. Inside a JSON body it travels as
/// a string, so that nobody writes it anew on the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JwkSet {
    text: String,
    keys: Vec<PublicKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<NamedJwk>,
}

impl JwkSet {
    /// The most keys a set may hold: the one in use, the next and some that still verify.
    pub const MAX_KEYS: usize = 8;

    /// Writes the set of `keys`, the one that signs first.
    ///
    /// # Panics
    /// Without keys, or with more than [`JwkSet::MAX_KEYS`].
    pub fn new(keys: Vec<PublicKey>) -> Self {
        assert!((1..=Self::MAX_KEYS).contains(&keys.len()), "a set has 1 to 8 keys");
        let named = keys.iter().map(|key| {
            let (x, y) = key.coordinates();
            NamedJwk {
                kty: Kty::Ec,
                crv: Crv::P256,
                x,
                y,
                kid: key.key_id(),
                alg: Alg::Es256,
                purpose: Purpose::Signature,
            }
        });
        let text = serde_json::to_string(&Keys { keys: named.collect() }).expect("always JSON");
        Self { text, keys }
    }

    /// Reads a set and keeps its text. Each key must carry its thumbprint as `kid`, `alg` ES256
    /// and `use` `sig`, and no other member.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        if text.len() > 4096 {
            return Err(MessageError::TooLarge);
        }
        let set: Keys = serde_json::from_str(text).map_err(|_| MessageError::Malformed)?;
        let mut keys: Vec<PublicKey> = Vec::new();
        for jwk in &set.keys {
            let key =
                from_coordinates(&jwk.x, &jwk.y).map_err(|InvalidKey| MessageError::Malformed)?;
            if key.key_id() != jwk.kid || keys.contains(&key) {
                return Err(MessageError::Malformed);
            }
            keys.push(key);
        }
        if !(1..=Self::MAX_KEYS).contains(&keys.len()) {
            return Err(MessageError::Malformed);
        }
        Ok(Self { text: text.to_owned(), keys })
    }

    /// The exact text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// The key of that name; [`MessageError::WrongKey`] where there is none.
    pub fn find(&self, name: KeyId) -> Result<&PublicKey, MessageError> {
        self.keys.iter().find(|key| key.key_id() == name).ok_or(MessageError::WrongKey)
    }
}

impl Serialize for JwkSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for JwkSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    /// The key of RFC 9449, figure 2.
    const EXAMPLE: &str = r#"{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}"#;

    fn example() -> PublicKey {
        serde_json::from_str(EXAMPLE).expect("a key")
    }

    #[test]
    fn a_thumbprint_is_the_one_of_rfc_9449() {
        // Section 6.1: `cnf.jkt` of an access token bound to that key, by RFC 7638.
        assert_eq!(example().thumbprint(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    }

    #[test]
    fn security_52_what_is_no_point_of_the_curve_is_refused() {
        let point = *example().point();
        assert_eq!(PublicKey::from_point(&point), Ok(example()));
        let mut off_curve = point;
        off_curve[64] ^= 1;
        let mut coordinate_of_the_field_size = [0; 65]; // x = p, which is 0 to a careless reader
        coordinate_of_the_field_size[0] = 4;
        coordinate_of_the_field_size[1..33].copy_from_slice(&[
            0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ]);
        let mut zero = [0; 65];
        zero[0] = 4;
        let mut hybrid = point;
        hybrid[0] = 6;
        let mut compressed = [0; 33];
        compressed[0] = 2;
        compressed[1..].copy_from_slice(&point[1..33]);
        let bad: [&[u8]; 10] = [
            &off_curve,
            &coordinate_of_the_field_size,
            &zero,
            &hybrid,
            &compressed,
            &[0],        // infinity
            &[0; 65],    // infinity, padded
            &[4; 65],    // nothing
            &point[1..], // without its first byte
            &[],
        ];
        for bytes in bad {
            assert_eq!(PublicKey::from_point(bytes), Err(InvalidKey), "{bytes:?}");
        }
    }

    #[test]
    fn security_52_a_jwk_that_is_more_less_or_otherwise_spelled_is_refused() {
        for (from, to) in [
            (r#""kty":"EC""#, r#""kty":"OKP""#),
            (r#""crv":"P-256""#, r#""crv":"P-384""#),
            (r#""crv":"P-256""#, r#""crv":"secp256k1""#),
            (r#","crv":"P-256""#, ""),
            ("}", r#","kid":"a"}"#),
            ("}", r#","d":"AAAA"}"#),
            ("}", r#","crv":"P-256"}"#),
            ("fWVAWBFs", "fWVAWBFt"), // the same bytes, two stray bits
            ("fWVAWBFs", "fWVAWBFs="),
            ("fWVAWBFs", "fWVAWB"),
            ("l8tF", "AAl8tF"),
        ] {
            let changed = EXAMPLE.replacen(from, to, 1);
            assert_ne!(changed, EXAMPLE);
            assert!(serde_json::from_str::<PublicKey>(&changed).is_err(), "{changed}");
        }
        // One byte moved from one coordinate to the other: the lengths still add up.
        let point = example();
        let moved = format!(
            r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}"#,
            base64url::encode(&point.point()[1..32]),
            base64url::encode(&point.point()[32..]),
        );
        assert!(serde_json::from_str::<PublicKey>(&moved).is_err());
    }

    #[test]
    fn a_private_key_is_kept_and_taken_up_again() {
        let rng = SystemRandom::new();
        let kept = SigningKey::generate(&rng);
        let key = SigningKey::from_pkcs8(&kept, &rng).expect("a key");
        let again = SigningKey::from_pkcs8(&kept, &rng).expect("a key");
        assert_eq!(key.public(), again.public());
        let signature = key.sign(b"message", &rng);
        assert_eq!(again.public().verify(b"message", &signature), Ok(()));
        assert_eq!(again.public().verify(b"massage", &signature), Err(MessageError::BadSignature));
        let mut broken = kept.to_vec();
        broken[40] ^= 1; // the private part no longer fits the public one
        assert!(SigningKey::from_pkcs8(&broken, &rng).is_err());
    }

    #[test]
    fn a_set_of_keys_keeps_its_text_and_refuses_what_it_does_not_know() {
        let set = JwkSet::new(vec![example()]);
        assert_eq!(JwkSet::parse(set.text()), Ok(set.clone()));
        assert_eq!(set.find(example().key_id()), Ok(&example()));
        let spaced = set.text().replace(',', ", ");
        let again = JwkSet::parse(&spaced).expect("the same keys");
        assert_eq!((again.text(), again.keys()), (spaced.as_str(), set.keys()));
        assert_eq!(
            serde_json::to_value(&again).expect("JSON"),
            serde_json::Value::String(spaced.clone())
        );
        let other_name = example().thumbprint().replace("0Z", "1Z");
        let one = set.text().trim_start_matches(r#"{"keys":["#).trim_end_matches("]}");
        for bad in [
            r#"{"keys":[]}"#.to_owned(),
            format!(r#"{{"keys":[{one},{one}]}}"#),
            set.text().replace(&example().thumbprint(), &other_name),
            set.text().replace("ES256", "ES384"),
            set.text().replace(r#""sig""#, r#""enc""#),
            set.text().replace(r#","use":"sig""#, ""),
            set.text().replace(r#"]}"#, r#"],"next":1}"#),
        ] {
            assert_eq!(JwkSet::parse(&bad), Err(MessageError::Malformed), "{bad}");
        }
        assert_eq!(JwkSet::parse(&" ".repeat(5000)), Err(MessageError::TooLarge));
    }
}
