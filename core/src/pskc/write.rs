//! Writing, under a passphrase: PBKDF2 with HMAC-SHA-256, AES-256-CBC, and HMAC-SHA-256 over every
//! encrypted value. The order of elements is that of the schema, which not every reader forgives.

use std::fmt::Write;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{hmac, pbkdf2};
use zeroize::Zeroizing;

use super::{ROUNDS, cipher};
use crate::entropy::{self, Entropy};
use crate::otp::{Algorithm, Method};
use crate::secret::{SecretText, Seed};
use crate::token::Serial;

/// A token to write.
pub struct Exported {
    /// Its serial number.
    pub serial: Serial,
    /// Its seed.
    pub seed: Seed,
    /// How its codes are made.
    pub method: Method,
    /// The counter of its next code; 0 for one that goes by time.
    pub counter: u64,
    /// By how many steps its clock is ahead.
    pub drift: i32,
    /// Who made it.
    pub manufacturer: Option<String>,
    /// Which one it is.
    pub model: Option<String>,
}

const CBC: &str = "http://www.w3.org/2001/04/xmlenc#aes256-cbc";
const HMAC: &str = "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256";
const PBKDF2: &str = "http://www.rsasecurity.com/rsalabs/pkcs/schemas/pkcs-5v2-0";

/// Writes tokens as one file under `passphrase`.
pub fn write(tokens: &[Exported], passphrase: &SecretText, entropy: &dyn Entropy) -> String {
    let salt = entropy::bytes::<16>(entropy);
    let mut key = Zeroizing::new([0; 32]);
    let rounds = NonZeroU32::new(ROUNDS).unwrap_or(NonZeroU32::MIN);
    let (prf, secret) = (pbkdf2::PBKDF2_HMAC_SHA256, passphrase.expose().as_bytes());
    pbkdf2::derive(prf, rounds, &salt, secret, key.as_mut_slice());
    let mac_key = Zeroizing::new(entropy::bytes::<32>(entropy));
    let seal = |plain: &[u8]| cipher::to_cbc(&key, entropy::bytes(entropy), plain);
    let keyed = hmac::Key::new(hmac::HMAC_SHA256, mac_key.as_slice());
    let mut text = String::new();
    head(&mut text, &salt, &seal(mac_key.as_slice()));
    for token in tokens {
        let value = seal(token.seed.expose());
        package(&mut text, token, &value, hmac::sign(&keyed, &value).as_ref());
    }
    text.push_str("</KeyContainer>\n");
    text
}

fn encrypted(value: &[u8]) -> String {
    format!(
        "<xenc:EncryptionMethod Algorithm=\"{CBC}\"/>\
         <xenc:CipherData><xenc:CipherValue>{}</xenc:CipherValue></xenc:CipherData>",
        STANDARD.encode(value)
    )
}

// Writing to a string cannot fail.
fn head(text: &mut String, salt: &[u8], mac_key: &[u8]) {
    let _ = write!(
        text,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <KeyContainer Version=\"1.0\" xmlns=\"urn:ietf:params:xml:ns:keyprov:pskc\" \
         xmlns:xenc=\"http://www.w3.org/2001/04/xmlenc#\" xmlns:xenc11=\"http://www.w3.org/2009/xmlenc11#\" \
         xmlns:pkcs5=\"{PBKDF2}#\">\n\
         <EncryptionKey><xenc11:DerivedKey><xenc11:KeyDerivationMethod Algorithm=\"{PBKDF2}#pbkdf2\">\
         <pkcs5:PBKDF2-params><Salt><Specified>{}</Specified></Salt>\
         <IterationCount>{ROUNDS}</IterationCount><KeyLength>32</KeyLength><PRF Algorithm=\"{HMAC}\"/>\
         </pkcs5:PBKDF2-params></xenc11:KeyDerivationMethod></xenc11:DerivedKey></EncryptionKey>\n\
         <MACMethod Algorithm=\"{HMAC}\"><MACKey>{}</MACKey></MACMethod>\n",
        STANDARD.encode(salt),
        encrypted(mac_key)
    );
}

fn package(text: &mut String, token: &Exported, value: &[u8], mac: &[u8]) {
    let serial = &token.serial;
    let named = |name: &str, words: &Option<String>| {
        words
            .as_ref()
            .map_or_else(String::new, |words| format!("<{name}>{}</{name}>", escaped(words)))
    };
    let (kind, data) = match token.method {
        Method::Counter(_) => {
            ("hotp", format!("<Counter><PlainValue>{}</PlainValue></Counter>", token.counter))
        }
        Method::Time(parameters) => {
            let drift = match token.drift {
                0 => String::new(),
                drift => format!("<TimeDrift><PlainValue>{drift}</PlainValue></TimeDrift>"),
            };
            let interval = parameters.period.seconds();
            let data = format!(
                "<Time><PlainValue>0</PlainValue></Time>\
                 <TimeInterval><PlainValue>{interval}</PlainValue></TimeInterval>{drift}"
            );
            ("totp", data)
        }
    };
    let suite = match token.method.algorithm() {
        Algorithm::Sha1 => "",
        Algorithm::Sha256 => "<Suite>HMAC-SHA256</Suite>",
        Algorithm::Sha512 => "<Suite>HMAC-SHA512</Suite>",
    };
    let _ = writeln!(
        text,
        "<KeyPackage><DeviceInfo>{}<SerialNo>{serial}</SerialNo>{}</DeviceInfo>\
         <Key Id=\"{serial}\" Algorithm=\"urn:ietf:params:xml:ns:keyprov:pskc:{kind}\">\
         <AlgorithmParameters>{suite}<ResponseFormat Encoding=\"DECIMAL\" Length=\"{}\"/></AlgorithmParameters>\
         <Data><Secret><EncryptedValue>{}</EncryptedValue><ValueMAC>{}</ValueMAC></Secret>{data}</Data>\
         </Key></KeyPackage>",
        named("Manufacturer", &token.manufacturer),
        named("Model", &token.model),
        token.method.digits().get(),
        encrypted(value),
        STANDARD.encode(mac),
    );
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
