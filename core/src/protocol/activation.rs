//! The activation code: sixteen characters that a person carries from a screen to a phone. Its
//! first four name the activation, the other twelve are a secret of 60 bits, from which both sides
//! derive the key that vouches for the server's keys to the phone and for the phone's key to the
//! server (security 44 to 46). The server stops after five wrong tries or ten minutes.

use std::fmt;
use std::str::FromStr;

use ring::{hkdf, hmac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::MessageError;
use super::bytes::{Digest, Mac, Nonce};
use super::jwk::KeyId;
use crate::entropy::{self, Entropy};

/// Crockford's base 32: no I, L, O, which are read as digits, and no U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The first four characters of a code: which activation it is. No secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActivationName([u8; 4]);

impl ActivationName {
    /// The four characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("ASCII")
    }
}

impl FromStr for ActivationName {
    type Err = MessageError;
    fn from_str(text: &str) -> Result<Self, MessageError> {
        let name: [u8; 4] = text.as_bytes().try_into().map_err(|_| MessageError::Malformed)?;
        if !name.iter().all(|character| ALPHABET.contains(character)) {
            return Err(MessageError::Malformed);
        }
        Ok(Self(name))
    }
}

impl fmt::Display for ActivationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ActivationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ActivationName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ActivationName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A whole code. Whoever has it binds a phone: neither `Debug` nor `Display` nor `Serialize`.
///
/// ```compile_fail
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<semilla_core::protocol::activation::ActivationCode>(); // security 40
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ActivationCode([u8; 16]);

impl ActivationCode {
    /// A new code. That no open activation has the same name, the caller makes sure.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut code: [u8; 16] = entropy::bytes(entropy);
        for character in &mut code {
            // 256 is a multiple of 32: every character is as likely as any other.
            *character = ALPHABET[usize::from(*character % 32)];
        }
        Self(code)
    }

    /// Reads a code as people type it: in either case, with blanks and hyphens anywhere, `O` for
    /// `0`, `I` and `L` for `1`.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        let mut code = Self([0; 16]);
        let mut length = 0;
        for character in text.bytes().filter(|byte| !matches!(byte, b' ' | b'-')) {
            let character = match character.to_ascii_uppercase() {
                b'O' => b'0',
                b'I' | b'L' => b'1',
                other => other,
            };
            if length == 16 || !ALPHABET.contains(&character) {
                return Err(MessageError::Malformed);
            }
            code.0[length] = character;
            length += 1;
        }
        if length == 16 { Ok(code) } else { Err(MessageError::Malformed) }
    }

    /// Which activation it is.
    pub fn name(&self) -> ActivationName {
        ActivationName([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// The code in fours, `ABCD-EFGH-JKMN-PQRS`, for the one screen that shows it.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(19));
        for (place, character) in self.0.iter().enumerate() {
            if place > 0 && place % 4 == 0 {
                text.push('-');
            }
            text.push(char::from(*character));
        }
        text
    }

    /// The key that code and server have in common: HKDF-SHA-256 (RFC 5869), the last twelve
    /// characters in upper case as input, no salt, info `semilla/activation/v1`, 32 bytes.
    pub fn key(&self) -> ActivationKey {
        let mut key = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(&self.0[4..])
            .expand(&[b"semilla/activation/v1"], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .expect("32 bytes are one block");
        ActivationKey(key)
    }
}

/// The key derived from a code: all that the server keeps of it.
///
/// ```compile_fail
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<semilla_core::protocol::activation::ActivationKey>(); // security 40
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ActivationKey([u8; 32]);

impl ActivationKey {
    /// Takes over a key that was kept sealed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        bytes.try_into().map(Self).map_err(|_| MessageError::Malformed)
    }

    /// The bytes, to be sealed.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The server's proof that it knows the code, over the address and the keys that the phone is
    /// to trust: HMAC-SHA-256 over `server|` nonce `|` issuer `|` digest, where nonce and digest
    /// (SHA-256 of the exact text of the JWK set) are base64url without padding.
    pub fn server_mac(&self, nonce: &Nonce, issuer: &str, jwks_text: &str) -> Mac {
        self.mac(&server_message(nonce, issuer, jwks_text))
    }

    /// Verifies [`ActivationKey::server_mac`] in constant time.
    pub fn verify_server(
        &self,
        nonce: &Nonce,
        issuer: &str,
        jwks_text: &str,
        mac: &Mac,
    ) -> Result<(), MessageError> {
        self.verify(&server_message(nonce, issuer, jwks_text), mac)
    }

    /// The phone's proof that it knows the code, over its key: HMAC-SHA-256 over `phone|` nonce
    /// `|` thumbprint (RFC 7638), both as base64url without padding.
    pub fn phone_mac(&self, nonce: &Nonce, thumbprint: KeyId) -> Mac {
        self.mac(&phone_message(nonce, thumbprint))
    }

    /// Verifies [`ActivationKey::phone_mac`] in constant time.
    pub fn verify_phone(
        &self,
        nonce: &Nonce,
        thumbprint: KeyId,
        mac: &Mac,
    ) -> Result<(), MessageError> {
        self.verify(&phone_message(nonce, thumbprint), mac)
    }

    fn mac(&self, message: &str) -> Mac {
        let tag = hmac::sign(&self.hmac_key(), message.as_bytes());
        Mac::from_bytes(tag.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    fn verify(&self, message: &str, mac: &Mac) -> Result<(), MessageError> {
        hmac::verify(&self.hmac_key(), message.as_bytes(), mac.as_bytes())
            .map_err(|_| MessageError::WrongMac)
    }

    fn hmac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

// Only the issuer could hold a `|`, and what stands around it has a fixed length.
fn server_message(nonce: &Nonce, issuer: &str, jwks_text: &str) -> String {
    format!("server|{nonce}|{issuer}|{}", Digest::of(jwks_text.as_bytes()))
}

fn phone_message(nonce: &Nonce, thumbprint: KeyId) -> String {
    format!("phone|{nonce}|{thumbprint}")
}

/// What the QR code of an activation holds: `semilla://enroll?server=…&code=…`, its values
/// percent-encoded (RFC 3986 section 2.1).
pub struct EnrollUri {
    /// The server's address.
    pub server: String,
    /// The code.
    pub code: ActivationCode,
}

impl EnrollUri {
    const START: &'static str = "semilla://enroll?";

    /// The address as a text; secret, because it holds the code.
    pub fn expose(&self) -> Zeroizing<String> {
        let code = self.code.expose();
        // Room for everything, so that no half-written copy is left behind.
        let mut text = Zeroizing::new(String::with_capacity(64 + 3 * self.server.len()));
        text.push_str(Self::START);
        text.push_str("server=");
        for byte in self.server.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    text.push(char::from(byte));
                }
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
        text.push_str("&code=");
        text.push_str(&code);
        text
    }

    /// Reads such an address: both values, each once, and nothing else. Whether the server is one
    /// to talk to, the caller decides.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        if text.len() > 1024 {
            return Err(MessageError::TooLarge);
        }
        let (mut server, mut code) = (None, None);
        let query = text.strip_prefix(Self::START).ok_or(MessageError::Malformed)?;
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("server", value)) if server.is_none() => {
                    server = Some(percent_decoded(value)?);
                }
                Some(("code", value)) if code.is_none() => {
                    code = Some(ActivationCode::parse(&percent_decoded(value)?)?);
                }
                _ => return Err(MessageError::Malformed),
            }
        }
        let (Some(server), Some(code)) = (server, code) else {
            return Err(MessageError::Malformed);
        };
        if server.is_empty() || server.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(MessageError::Malformed);
        }
        Ok(Self { server: server.to_string(), code })
    }
}

fn percent_decoded(text: &str) -> Result<Zeroizing<String>, MessageError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (hex, after) = rest.split_at_checked(2).ok_or(MessageError::Malformed)?;
        if !hex.iter().all(u8::is_ascii_hexdigit) {
            return Err(MessageError::Malformed);
        }
        let hex = std::str::from_utf8(hex).map_err(|_| MessageError::Malformed)?;
        bytes.push(u8::from_str_radix(hex, 16).map_err(|_| MessageError::Malformed)?);
        rest = after;
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| MessageError::Malformed)?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::Seeded;

    fn code() -> ActivationCode {
        ActivationCode::parse("7ZQ4-K2M9-XH0T-B6WJ").expect("a code")
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        for typed in [
            "7ZQ4-K2M9-XH0T-B6WJ",
            "7zq4k2m9xh0tb6wj",
            " 7ZQ4 K2M9 XHOT B6WJ ",
            "7-z-q-4-k2m9xhot-b6wj",
        ] {
            let read = ActivationCode::parse(typed).expect("a code");
            assert_eq!(*read.expose(), "7ZQ4-K2M9-XH0T-B6WJ", "{typed}");
        }
        let ones = ActivationCode::parse("iIlL1111 0oO0 0000").expect("a code");
        assert_eq!(*ones.expose(), "1111-1111-0000-0000");
        assert_eq!(code().name().as_str(), "7ZQ4");
        for bad in [
            "",
            "7ZQ4-K2M9-XH0T-B6W",
            "7ZQ4-K2M9-XH0T-B6WJ7",
            "7ZQ4-K2M9-XH0T-B6WU",
            "7ZQ4_K2M9_XH0T_B6WJ",
            "7ZQ4-K2M9-XH0T-B6Wñ",
        ] {
            assert!(ActivationCode::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn security_44_a_code_has_sixteen_characters_each_of_them_drawn() {
        let entropy = Seeded::new(5);
        let mut seen = [false; 32];
        for _ in 0..100 {
            let code = ActivationCode::generate(&entropy);
            let again = ActivationCode::parse(&code.expose()).expect("a code");
            assert_eq!(again.0, code.0);
            for character in code.0 {
                let place = ALPHABET.iter().position(|one| *one == character).expect("one of 32");
                seen[place] = true;
            }
        }
        assert_eq!(seen, [true; 32]);
    }

    #[test]
    fn the_name_of_an_activation_has_one_spelling() {
        assert_eq!("7ZQ4".parse::<ActivationName>(), Ok(code().name()));
        for bad in ["", "7ZQ", "7zq4", "OZQ4", "7ZQ45", "7Z-4"] {
            assert!(bad.parse::<ActivationName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn security_46_both_proofs_are_those_that_another_program_computed() {
        let key = code().key();
        assert_eq!(
            crate::base64url::encode(key.expose()),
            "KYMFqlC-pLVoo8g3mnbCUParQ6PwA4CPpmi651BNyow"
        );
        let nonce: Nonce = "AAECAwQFBgcICQoLDA0ODw".parse().expect("a nonce");
        let (issuer, jwks) = ("https://semilla.example", r#"{"keys":[]}"#);
        let server = key.server_mac(&nonce, issuer, jwks);
        assert_eq!(server.to_string(), "T8_6IL9jLQEklNJOHBx6HD7ovGN7xxtS_ohbkIyqBn8");
        assert_eq!(key.verify_server(&nonce, issuer, jwks, &server), Ok(()));
        let jkt: KeyId =
            "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".parse().expect("a thumbprint");
        let phone = key.phone_mac(&nonce, jkt);
        assert_eq!(phone.to_string(), "MMeYyhZ4IDOt9uOYR4r_-cURxpooXv4m4RxwSCSLWck");
        assert_eq!(key.verify_phone(&nonce, jkt, &phone), Ok(()));

        let wrong = Err(MessageError::WrongMac);
        let other: Nonce = "AAECAwQFBgcICQoLDA0OEA".parse().expect("a nonce");
        assert_eq!(key.verify_server(&other, issuer, jwks, &server), wrong);
        assert_eq!(key.verify_server(&nonce, "https://evil.example", jwks, &server), wrong);
        assert_eq!(key.verify_server(&nonce, issuer, r#"{"keys": []}"#, &server), wrong);
        assert_eq!(key.verify_server(&nonce, issuer, jwks, &phone), wrong);
        assert_eq!(key.verify_phone(&other, jkt, &phone), wrong);
        assert_eq!(key.verify_phone(&nonce, jkt, &server), wrong);
        // The first four characters are no part of the secret, the others are.
        let renamed = ActivationCode::parse("0000-K2M9-XH0T-B6WJ").expect("a code");
        assert_eq!(renamed.key().verify_phone(&nonce, jkt, &phone), Ok(()));
        let guessed = ActivationCode::parse("7ZQ4-K2M9-XH0T-B6WK").expect("a code");
        assert_eq!(guessed.key().verify_phone(&nonce, jkt, &phone), wrong);
    }

    #[test]
    fn what_the_qr_code_holds_is_read_back_and_nothing_else_is() {
        let uri = EnrollUri { server: "https://semilla.example:8443/ñ?a&b".into(), code: code() };
        let text = uri.expose();
        assert_eq!(
            *text,
            "semilla://enroll?server=https%3A%2F%2Fsemilla.example%3A8443%2F%C3%B1%3Fa%26b\
             &code=7ZQ4-K2M9-XH0T-B6WJ"
        );
        let read = EnrollUri::parse(&text).expect("an address");
        assert_eq!((read.server, read.code.0), (uri.server, uri.code.0));
        let turned = "semilla://enroll?code=7zq4k2m9xh0tb6wj&server=https://semilla.example";
        assert_eq!(EnrollUri::parse(turned).expect("an address").server, "https://semilla.example");
        for bad in [
            "",
            "https://enroll?server=a&code=7ZQ4-K2M9-XH0T-B6WJ",
            "semilla://enroll?server=a",
            "semilla://enroll?code=7ZQ4-K2M9-XH0T-B6WJ",
            "semilla://enroll?server=&code=7ZQ4-K2M9-XH0T-B6WJ",
            "semilla://enroll?server=a&server=b&code=7ZQ4-K2M9-XH0T-B6WJ",
            "semilla://enroll?server=a&code=7ZQ4-K2M9-XH0T-B6WJ&x=1",
            "semilla://enroll?server=a%&code=7ZQ4-K2M9-XH0T-B6WJ",
            "semilla://enroll?server=a%+1&code=7ZQ4-K2M9-XH0T-B6WJ",
            "semilla://enroll?server=%FF&code=7ZQ4-K2M9-XH0T-B6WJ",
            "semilla://enroll?server=a%0Ab&code=7ZQ4-K2M9-XH0T-B6WJ",
            "semilla://enroll?server=a&code=7ZQ4",
        ] {
            assert!(EnrollUri::parse(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_address_of_a_server_survives_the_qr_code(server in "[!-~¡-ÿ]{1,80}") {
            let uri = EnrollUri { server: server.clone(), code: code() };
            let read = EnrollUri::parse(&uri.expose()).map(|read| read.server);
            proptest::prop_assert_eq!(read, Ok(server));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "(semilla://enroll[?])?.{0,80}") {
            let _ = EnrollUri::parse(&text);
            let _ = ActivationCode::parse(&text);
        }
    }
}
