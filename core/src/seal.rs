//! Sealing at rest: AES-256-GCM by `ring`, each text bound to what it belongs to, so that a
//! sealed text moved to another row, generation or key does not open (security 30-33). A list of
//! keys opens; its first one seals.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::base64url;
use crate::entropy::{self, Entropy};
use crate::id::{CompanyId, TokenId};
use crate::secret::Seed;

/// A master key: 32 bytes and the name that stands in everything sealed under it.
#[derive(ZeroizeOnDrop)]
pub struct MasterKey {
    #[zeroize(skip)]
    id: String,
    bytes: [u8; 32],
}

/// Why something sealed does not open, or a key does not read. Says nothing about the contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The text is not of the sealed form.
    #[error("not a sealed text")]
    Malformed,
    /// It was sealed under a key that is not in the list.
    #[error("sealed under a key that is not here")]
    UnknownKey,
    /// It was altered, belongs elsewhere, or the key is another of the same name.
    #[error("does not open: altered, moved or of another key")]
    Refused,
}

impl MasterKey {
    /// A new key, named by 8 random characters.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self {
            id: base64url::encode(&entropy::bytes::<6>(entropy)),
            bytes: entropy::bytes(entropy),
        }
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Reads the one line of a key file, `id.key`.
    pub fn parse(line: &str) -> Result<Self, SealError> {
        let (id, key) = line.trim_end().split_once('.').ok_or(SealError::Malformed)?;
        let is_id = (1..=32).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let mut decoded = Zeroizing::new(base64url::decode(key).ok_or(SealError::Malformed)?);
        let bytes = decoded.as_slice().try_into().map_err(|_| SealError::Malformed)?;
        decoded.zeroize();
        if !is_id {
            return Err(SealError::Malformed);
        }
        Ok(Self { id: id.to_owned(), bytes })
    }

    /// The line of a key file.
    pub fn to_line(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}.{}\n", self.id, *Zeroizing::new(base64url::encode(&self.bytes))))
    }
}

/// What a sealed text belongs to: it opens for nothing else.
pub enum Purpose<'a> {
    /// The seed of a generation.
    Seed {
        /// Of which company.
        company: CompanyId,
        /// Of which token.
        token: TokenId,
        /// Which generation.
        generation: u32,
    },
    /// Anything else, by the name of its kind and of the one thing it belongs to.
    Other {
        /// The kind: `match-number`, `signing-key`.
        kind: &'a str,
        /// Of which company.
        company: CompanyId,
        /// The thing.
        id: &'a str,
    },
}

impl Purpose<'_> {
    /// `schema | kind | company | id | generation | key`, none of which can hold a `|`.
    fn aad(&self, key: &str) -> String {
        match self {
            Self::Seed { company, token, generation } => {
                format!("semilla/seal/v1|seed|{company}|{token}|{generation}|{key}")
            }
            Self::Other { kind, company, id } => {
                format!("semilla/seal/v1|{kind}|{company}|{id}|0|{key}")
            }
        }
    }
}

/// A sealed text: key id, nonce and ciphertext. Safe to store and to print.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(String);

impl Sealed {
    /// Takes a stored text; whether it is one shows when it is opened.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The text to store.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the key it was sealed under.
    pub fn key_id(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed(under {})", self.key_id())
    }
}

impl serde::Serialize for Sealed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Sealed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// The master keys of a server: the first seals, all open.
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<(String, LessSafeKey)>,
}

impl Keyring {
    /// A ring that seals under `first` and still opens what `others` sealed. The bytes are
    /// overwritten here; `ring` keeps its own expanded copy for as long as the ring lives.
    pub fn new(first: MasterKey, others: impl IntoIterator<Item = MasterKey>) -> Self {
        let keys = std::iter::once(first)
            .chain(others)
            .filter_map(|key| {
                // 32 bytes are a key of AES-256: this cannot fail.
                let unbound = UnboundKey::new(&AES_256_GCM, &key.bytes).ok()?;
                Some((key.id.clone(), LessSafeKey::new(unbound)))
            })
            .collect();
        Self { keys }
    }

    /// The name of the key that seals.
    pub fn sealing(&self) -> &str {
        &self.keys[0].0
    }

    /// The names of all keys; the first one seals.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(id, _)| id.as_str())
    }

    /// Seals `plain` for `purpose` under a nonce of 96 random bits (SP 800-38D section 8.2.2: at
    /// most 2^32 times for one key).
    pub fn seal(&self, plain: &[u8], purpose: &Purpose<'_>, entropy: &dyn Entropy) -> Sealed {
        let (id, key) = &self.keys[0];
        let nonce = entropy::bytes::<NONCE_LEN>(entropy);
        let mut buffer = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
        buffer.extend_from_slice(plain);
        let aad = Aad::from(purpose.aad(id));
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut buffer)
            .expect("a message below 64 GiB can be sealed");
        Sealed(format!("{id}.{}.{}", base64url::encode(&nonce), base64url::encode(&buffer)))
    }

    /// Opens what was sealed for `purpose`.
    pub fn open(
        &self,
        sealed: &Sealed,
        purpose: &Purpose<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let mut parts = sealed.0.split('.');
        let (Some(id), Some(nonce), Some(text), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SealError::Malformed);
        };
        let (_, key) =
            self.keys.iter().find(|(name, _)| name == id).ok_or(SealError::UnknownKey)?;
        let nonce = base64url::decode(nonce).ok_or(SealError::Malformed)?;
        let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| SealError::Malformed)?;
        let mut buffer = Zeroizing::new(base64url::decode(text).ok_or(SealError::Malformed)?);
        let length = key
            .open_in_place(nonce, Aad::from(purpose.aad(id)), &mut buffer)
            .map_err(|_| SealError::Refused)?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Seals a seed.
    pub fn seal_seed(&self, seed: &Seed, purpose: &Purpose<'_>, entropy: &dyn Entropy) -> Sealed {
        self.seal(seed.expose(), purpose, entropy)
    }

    /// Opens a seed.
    pub fn open_seed(&self, sealed: &Sealed, purpose: &Purpose<'_>) -> Result<Seed, SealError> {
        Seed::from_bytes(self.open(sealed, purpose)?).map_err(|_| SealError::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::Seeded;
    use crate::time::Timestamp;

    fn token(n: i64) -> TokenId {
        TokenId::new(Timestamp::from_seconds(n), &Seeded::new(1))
    }

    #[test]
    fn security_31_a_sealed_seed_opens_only_where_it_belongs() {
        let entropy = Seeded::new(3);
        let ring = Keyring::new(MasterKey::generate(&entropy), []);
        let seed = Seed::generate(32, &entropy);
        let place =
            |token, generation| Purpose::Seed { company: CompanyId::BANK, token, generation };
        let sealed = ring.seal_seed(&seed, &place(token(1), 1), &entropy);

        let opened = ring.open_seed(&sealed, &place(token(1), 1)).expect("opens in its place");
        assert!(opened.expose() == seed.expose());
        for elsewhere in [
            place(token(2), 1),
            place(token(1), 2),
            Purpose::Other { kind: "seed", company: CompanyId::BANK, id: &token(1).to_string() },
        ] {
            assert_eq!(ring.open(&sealed, &elsewhere).err(), Some(SealError::Refused));
        }
        let stranger = Keyring::new(MasterKey::generate(&entropy), []);
        assert_eq!(stranger.open(&sealed, &place(token(1), 1)).err(), Some(SealError::UnknownKey));
        for cut in ["", ".", "a.b", "a.b.c.d"] {
            assert!(ring.open(&Sealed(cut.into()), &place(token(1), 1)).is_err());
        }
    }

    #[test]
    fn an_older_key_still_opens_and_the_first_one_seals() {
        let entropy = Seeded::new(4);
        let (old, new) = (MasterKey::generate(&entropy), MasterKey::generate(&entropy));
        let (old_line, new_id) = (old.to_line(), new.id().to_owned());
        let purpose = Purpose::Other { kind: "test", company: CompanyId::BANK, id: "1" };
        let sealed = Keyring::new(old, []).seal(b"plain", &purpose, &entropy);
        let ring = Keyring::new(new, [MasterKey::parse(&old_line).expect("a key")]);
        assert_eq!(ring.open(&sealed, &purpose).expect("opens").as_slice(), b"plain");
        assert_eq!(ring.seal(b"plain", &purpose, &entropy).key_id(), new_id);
        assert_eq!((ring.sealing(), ring.ids().count()), (new_id.as_str(), 2));
    }

    #[test]
    fn security_32_no_nonce_repeats() {
        let entropy = Seeded::new(5);
        let ring = Keyring::new(MasterKey::generate(&entropy), []);
        let purpose = Purpose::Other { kind: "test", company: CompanyId::BANK, id: "1" };
        let times = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
        let mut nonces: Vec<[u8; NONCE_LEN]> = (0..times)
            .map(|_| {
                let sealed = ring.seal(b"", &purpose, &entropy);
                let nonce = sealed.0.split('.').nth(1).and_then(base64url::decode);
                nonce.expect("a nonce").try_into().expect("96 bits")
            })
            .collect();
        nonces.sort_unstable();
        nonces.dedup();
        assert_eq!(nonces.len(), times);
    }
}
