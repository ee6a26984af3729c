//! What server and phone say to each other: keys, signed messages, the activation code, the sealed
//! seed and the bodies of the device API. Both sides compile these types, so that a message means
//! the same where it is written and where it is read; a text that is not exactly such a message
//! does not become one of them.
//!
//! A message is signed as the bytes that were written, and verified as the bytes that came:
//! nothing is parsed and written again in between (security 53). Each carries its kind (`typ`), so
//! that none can stand for another (security 59, 61). What identifies a message is its `jti`,
//! never its signature, which has a second spelling (ECDSA accepts `n - s` for `s`).

pub mod activation;
pub mod approval;
pub mod assertion;
pub mod bytes;
pub mod consent;
pub mod dpop;
pub mod jwk;
pub mod jws;
pub mod messages;
pub mod request_object;
pub mod seed_delivery;
pub mod wire;

#[cfg(test)]
mod tests;

/// Why a message is refused. No variant holds anything that was in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MessageError {
    /// Not of the form it must have: base64url, JSON, a missing, doubled or unknown field, a value
    /// outside its range.
    #[error("the message is malformed")]
    Malformed,
    /// Longer than [`jws::MAX_LENGTH`].
    #[error("the message is too large")]
    TooLarge,
    /// Signed with another algorithm than ES256, or with none.
    #[error("the message is signed with an algorithm other than ES256")]
    UnsupportedAlgorithm,
    /// Another kind of message than the one that belongs here.
    #[error("this is another kind of message")]
    WrongType,
    /// A header that would let the message choose its own key or rules.
    #[error("the message has a header that is not allowed")]
    ForbiddenHeader,
    /// It names another key than the one it must be signed with.
    #[error("the message is signed with another key")]
    WrongKey,
    /// Signed with another key, or changed on its way.
    #[error("the signature does not fit the message")]
    BadSignature,
    /// A later version of the protocol: the program that reads it is too old.
    #[error("the message has a version this program does not know")]
    WrongVersion,
    /// From somebody else.
    #[error("the message is from another sender")]
    WrongIssuer,
    /// For somebody else.
    #[error("the message is for another receiver")]
    WrongAudience,
    /// Its time has passed.
    #[error("the message has expired")]
    Expired,
    /// The code does not vouch for this server, or for this phone.
    #[error("the activation code does not vouch for this")]
    WrongMac,
    /// The sealed seed does not open: for another phone, token, generation or request.
    #[error("the seed does not open")]
    NotOpened,
    /// A proof made for another request: method, address or access token differ.
    #[error("the proof belongs to another request")]
    WrongRequest,
}
