//! Key containers of RFC 6030 (PSKC), as makers of tokens deliver them and other servers give them
//! up: in clear, under a pre-shared key, or under a passphrase. A file is hostile until its MACs
//! hold: no DTD, no entities, a bounded number of nodes, of keys and of derivation rounds, and
//! nothing is decrypted before its MAC is checked. Errors tell where, never what.

mod cipher;
mod read;
mod write;

#[cfg(test)]
mod tests;

use zeroize::Zeroizing;

use crate::secret::SecretText;

pub use read::{Entry, read};
pub use write::{Exported, write};

/// The keys of one file, at most.
pub const KEYS_MAX: usize = 10_000;

/// The rounds of PBKDF2 that are done for a file, at most.
const ROUNDS_MAX: u32 = 2_000_000;

/// The rounds of PBKDF2 in the files we write.
pub const ROUNDS: u32 = 600_000;

/// What opens a file.
pub enum FileKey {
    /// Nothing: it is in clear.
    None,
    /// A key that both sides have.
    Preshared(Zeroizing<Vec<u8>>),
    /// A passphrase, which a key is derived from as the file says.
    Passphrase(SecretText),
}

/// Why nothing of a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// It is no XML, or has a DTD.
    #[error("no well-formed XML without a DTD, at line {0}")]
    NotXml(u32),
    /// It is no key container of RFC 6030.
    #[error(
        "no KeyContainer of version 1.0 with KeyPackages (RFC 6030; drafts of it are not read)"
    )]
    NotPskc,
    /// It holds more than is read.
    #[error("more than {KEYS_MAX} keys, or far more elements than so many need")]
    TooLarge,
    /// It is encrypted, and nothing that opens it was given.
    #[error("encrypted: give its key or passphrase")]
    KeyMissing,
    /// It is encrypted in the other way than what was given opens.
    #[error("encrypted under a passphrase: give that, not a key")]
    PassphraseExpected,
    /// It is encrypted in the other way than what was given opens.
    #[error("encrypted under a pre-shared key: give that, not a passphrase")]
    PresharedExpected,
    /// The rule that makes a key of the passphrase is not one that is followed here.
    #[error(
        "the derivation of its key is not PBKDF2 with HMAC of SHA-1, SHA-256 or SHA-512, 1 to {ROUNDS_MAX} rounds \
         and a key of 16, 24 or 32 bytes"
    )]
    Derivation,
    /// Its MAC method is not one that is known here, or has no key.
    #[error(
        "its MACMethod is not HMAC of SHA-1, SHA-224, SHA-256, SHA-384 or SHA-512 with an encrypted MACKey"
    )]
    MacMethod,
    /// The key of its MACs does not open.
    #[error("the key or passphrase does not open it, or it was altered")]
    WrongKey,
}

/// Why one value is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueFault {
    /// There is none.
    #[error("has no secret")]
    Missing,
    /// It is not written in the way it says.
    #[error("has a value that does not read")]
    Unreadable,
    /// It is encrypted by something else than AES.
    #[error("is encrypted by something else than AES-CBC or AES key wrap")]
    Algorithm,
    /// It is encrypted, and the file gives no key that would open it.
    #[error("is encrypted under a key that was not given")]
    KeyMissing,
    /// The key has another length than the algorithm needs.
    #[error("is encrypted under a key of another length")]
    KeyLength,
    /// It is encrypted by AES-CBC and has no MAC.
    #[error("is encrypted and has no MAC")]
    MacMissing,
    /// Its MAC does not hold.
    #[error("its MAC does not match: another key or passphrase, or an altered value")]
    Mac,
}
