//! The form of the sealed file: one line of JSON that says how the key is made, then the state
//! under AES-256-GCM. The line is authenticated with the state and carries a digest of the rest,
//! so that damage is told apart from a wrong PIN before a try is counted.
//!
//! ```text
//! {"format":"semilla-approver","version":1,"kdf":"argon2id","memory_kib":47104,"passes":1,
//!  "salt":"…","nonce":"…","sha256":"…"}\n ciphertext | tag
//! ```

use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use semilla_core::base64url;
use semilla_core::entropy;
use semilla_core::protocol::bytes::Digest;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::entropy::SystemEntropy;
use crate::errors::{Error, StoreFault};
use crate::pin::Pin;

const FORMAT: &str = "semilla-approver";
const VERSION: u32 = 1;

/// The longest header, in bytes.
const HEADER_MAX: usize = 1024;

/// What the tag adds, in bytes.
pub(super) const TAG: usize = 16;

/// What one guess at the PIN costs: argon2id (RFC 9106) with one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Stretch {
    /// 46 MiB and one pass: the first choice of OWASP's "Password Storage Cheat Sheet".
    pub const STANDARD: Self = Self { memory_kib: 46 * 1024, passes: 1 };

    /// Next to nothing, for tests.
    pub const CHEAP: Self = Self { memory_kib: 8, passes: 1 };

    /// A changed header must not make this program take all memory or all day.
    fn is_reasonable(self) -> bool {
        (8..=1024 * 1024).contains(&self.memory_kib) && (1..=16).contains(&self.passes)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u32,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    salt: String,
    nonce: String,
    sha256: Digest,
}

/// A key made from a PIN, with what it takes to make it again. Overwritten when dropped.
pub(super) struct Key {
    stretch: Stretch,
    salt: [u8; 16],
    key: Zeroizing<[u8; 32]>,
}

impl Key {
    /// A key for a new or changed PIN, with a salt of its own.
    pub(super) fn new(pin: &Pin, stretch: Stretch) -> Result<Self, Error> {
        Self::derive(pin, stretch, entropy::bytes(&SystemEntropy))
    }

    fn derive(pin: &Pin, stretch: Stretch, salt: [u8; 16]) -> Result<Self, Error> {
        let fault = |error: argon2::Error| StoreFault::Io(error.to_string());
        let params = Params::new(stretch.memory_kib, stretch.passes, 1, Some(32)).map_err(fault)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(pin.expose(), &salt, key.as_mut_slice())
            .map_err(fault)?;
        Ok(Self { stretch, salt, key })
    }

    /// Seals `plain`, which should have [`TAG`] bytes to spare, under a nonce of its own. The
    /// nonce is always the system's: a simulation that repeats must not repeat this one.
    pub(super) fn seal(&self, mut plain: Zeroizing<Vec<u8>>) -> Vec<u8> {
        let nonce: [u8; 12] = entropy::bytes(&SystemEntropy);
        // The digest of the ciphertext is in the header, and the header is authenticated with
        // the ciphertext: the digest is left out there.
        let mut header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            kdf: "argon2id".to_owned(),
            memory_kib: self.stretch.memory_kib,
            passes: self.stretch.passes,
            salt: base64url::encode(&self.salt),
            nonce: base64url::encode(&nonce),
            sha256: Digest::from_bytes([0; 32]),
        };
        self.cipher()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(header.bytes()),
                &mut *plain,
            )
            .expect("a state is far from the limits of AES-GCM");
        header.sha256 = Digest::of(&plain);
        let mut file = header.bytes();
        file.push(b'\n');
        file.extend_from_slice(&plain);
        file
    }

    fn cipher(&self) -> LessSafeKey {
        // `ring` keeps a copy for as long as this lives, which is one call.
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, self.key.as_slice()).expect("32 bytes"))
    }
}

impl Header {
    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("always JSON")
    }
}

/// A sealed file that is whole.
pub(super) struct Sealed {
    header: Header,
    salt: [u8; 16],
    nonce: [u8; 12],
    body: Vec<u8>,
}

impl Sealed {
    /// Reads the form of a file: everything but what the PIN protects.
    pub(super) fn parse(file: &[u8]) -> Result<Self, StoreFault> {
        #[derive(Deserialize)]
        struct Versioned {
            format: String,
            version: u32,
        }
        let head = &file[..file.len().min(HEADER_MAX)];
        let end = head.iter().position(|byte| *byte == b'\n').ok_or(StoreFault::Damaged)?;
        let (line, body) = (&file[..end], &file[end + 1..]);
        let versioned: Versioned = serde_json::from_slice(line).map_err(|_| StoreFault::Damaged)?;
        if versioned.format != FORMAT {
            return Err(StoreFault::Damaged);
        }
        if versioned.version != VERSION {
            return Err(StoreFault::Version(versioned.version));
        }
        let header: Header = serde_json::from_slice(line).map_err(|_| StoreFault::Damaged)?;
        let stretch = Stretch { memory_kib: header.memory_kib, passes: header.passes };
        let salt = fixed(&header.salt)?;
        let nonce = fixed(&header.nonce)?;
        let known = header.kdf == "argon2id" && stretch.is_reasonable();
        if !known || Digest::of(body) != header.sha256 {
            return Err(StoreFault::Damaged);
        }
        Ok(Self { header, salt, nonce, body: body.to_vec() })
    }

    /// The key that `pin` makes for this file.
    pub(super) fn key(&self, pin: &Pin) -> Result<Key, Error> {
        Key::derive(pin, self.stretch(), self.salt)
    }

    /// The cost that the file was made with.
    pub(super) fn stretch(&self) -> Stretch {
        Stretch { memory_kib: self.header.memory_kib, passes: self.header.passes }
    }

    /// Whether `key` was made for this file, or the PIN has been changed since.
    pub(super) fn is_under(&self, key: &Key) -> bool {
        self.salt == key.salt && self.stretch() == key.stretch
    }

    /// The state; `None` where the key does not open it.
    pub(super) fn open(mut self, key: &Key) -> Option<Zeroizing<Vec<u8>>> {
        self.header.sha256 = Digest::from_bytes([0; 32]);
        let header = self.header.bytes();
        let mut plain = Zeroizing::new(self.body);
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let length = key.cipher().open_in_place(nonce, Aad::from(header), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

fn fixed<const N: usize>(text: &str) -> Result<[u8; N], StoreFault> {
    let bytes = base64url::decode(text).ok_or(StoreFault::Damaged)?;
    bytes.try_into().map_err(|_| StoreFault::Damaged)
}
