//! What protects the values of a key container: AES-CBC under a MAC, or AES key wrap (RFC 3394),
//! which is its own. The MAC is over the whole cipher value, so it is checked before anything is
//! decrypted, and what padding says is of no use to a forger.

use aes::cipher::block_padding::NoPadding;
use aes::cipher::{
    Array, BlockCipherDecrypt, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit,
};
use aes::{Aes128, Aes192, Aes256};
use hmac::{Hmac, Mac};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::ValueFault;

const BLOCK: usize = 16;

/// An algorithm that encrypts, by the end of its URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    Cbc(usize),
    Wrap(usize),
}

impl Cipher {
    pub(super) fn named(uri: &str) -> Option<Self> {
        Some(match uri.rsplit_once('#')? {
            ("http://www.w3.org/2001/04/xmlenc", "aes128-cbc") => Self::Cbc(16),
            ("http://www.w3.org/2001/04/xmlenc", "aes192-cbc") => Self::Cbc(24),
            ("http://www.w3.org/2001/04/xmlenc", "aes256-cbc") => Self::Cbc(32),
            ("http://www.w3.org/2001/04/xmlenc", "kw-aes128") => Self::Wrap(16),
            ("http://www.w3.org/2001/04/xmlenc", "kw-aes192") => Self::Wrap(24),
            ("http://www.w3.org/2001/04/xmlenc", "kw-aes256") => Self::Wrap(32),
            _ => return None,
        })
    }

    pub(super) fn needs_mac(self) -> bool {
        matches!(self, Self::Cbc(_))
    }

    pub(super) fn decrypt(
        self,
        key: &[u8],
        value: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, ValueFault> {
        let (Self::Cbc(length) | Self::Wrap(length)) = self;
        if key.len() != length {
            return Err(ValueFault::KeyLength);
        }
        match (self, length) {
            (Self::Cbc(_), 16) => from_cbc::<Aes128>(key, value),
            (Self::Cbc(_), 24) => from_cbc::<Aes192>(key, value),
            (Self::Cbc(_), _) => from_cbc::<Aes256>(key, value),
            (Self::Wrap(_), 16) => unwrap_by::<Aes128>(key, value),
            (Self::Wrap(_), 24) => unwrap_by::<Aes192>(key, value),
            (Self::Wrap(_), _) => unwrap_by::<Aes256>(key, value),
        }
    }
}

fn from_cbc<C>(key: &[u8], value: &[u8]) -> Result<Zeroizing<Vec<u8>>, ValueFault>
where
    C: BlockCipherDecrypt + KeyInit,
    cbc::Decryptor<C>: KeyIvInit + BlockModeDecrypt,
{
    let unreadable = ValueFault::Unreadable;
    if value.len() < 2 * BLOCK || !value.len().is_multiple_of(BLOCK) {
        return Err(unreadable);
    }
    let (iv, text) = value.split_at(BLOCK);
    let mut text = Zeroizing::new(text.to_vec());
    let decryptor = cbc::Decryptor::<C>::new_from_slices(key, iv).map_err(|_| unreadable)?;
    decryptor.decrypt_padded::<NoPadding>(&mut text).map_err(|_| unreadable)?;
    // XML encryption pads with anything; only the last byte counts, as in PKCS #7.
    let padding = usize::from(*text.last().ok_or(unreadable)?);
    if !(1..=BLOCK).contains(&padding) {
        return Err(unreadable);
    }
    let length = text.len() - padding;
    text[length..].zeroize();
    text.truncate(length);
    Ok(text)
}

/// AES-256-CBC, the initialization vector before the text.
pub(super) fn to_cbc(key: &[u8; 32], iv: [u8; BLOCK], plain: &[u8]) -> Vec<u8> {
    let padding = BLOCK - plain.len() % BLOCK;
    let mut text = plain.to_vec();
    text.resize(plain.len() + padding, padding as u8);
    let length = text.len();
    let encryptor = cbc::Encryptor::<Aes256>::new(key.into(), &iv.into());
    encryptor
        .encrypt_padded::<NoPadding>(&mut text, length)
        .expect("whole blocks can be encrypted");
    [iv.as_slice(), &text].concat()
}

/// RFC 3394 section 2.2.2.
fn unwrap_by<C>(key: &[u8], value: &[u8]) -> Result<Zeroizing<Vec<u8>>, ValueFault>
where
    C: BlockCipherDecrypt<BlockSize = aes::cipher::consts::U16> + KeyInit,
{
    if value.len() < 24 || !value.len().is_multiple_of(8) || value.len() > 1024 {
        return Err(ValueFault::Unreadable);
    }
    let cipher = C::new_from_slice(key).map_err(|_| ValueFault::KeyLength)?;
    let mut text = Zeroizing::new(value.to_vec());
    let count = value.len() / 8 - 1;
    let mut block = Zeroizing::new([0_u8; BLOCK]);
    for round in (0..6).rev() {
        for place in (1..=count).rev() {
            let step = (count * round + place) as u64;
            block[..8].copy_from_slice(&text[..8]);
            for (byte, mask) in block[..8].iter_mut().zip(step.to_be_bytes()) {
                *byte ^= mask;
            }
            block[8..].copy_from_slice(&text[place * 8..place * 8 + 8]);
            let mut whole = Array::from(*block);
            cipher.decrypt_block(&mut whole);
            block.copy_from_slice(&whole);
            whole.zeroize();
            text[..8].copy_from_slice(&block[..8]);
            text[place * 8..place * 8 + 8].copy_from_slice(&block[8..]);
        }
    }
    if !bool::from(text[..8].ct_eq(&[0xA6; 8])) {
        return Err(ValueFault::Mac);
    }
    Ok(Zeroizing::new(text[8..].to_vec()))
}

/// An HMAC, by the end of its URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MacMethod {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl MacMethod {
    pub(super) fn named(uri: &str) -> Option<Self> {
        Some(match uri.rsplit_once('#')?.1 {
            "hmac-sha1" => Self::Sha1,
            "hmac-sha224" => Self::Sha224,
            "hmac-sha256" => Self::Sha256,
            "hmac-sha384" => Self::Sha384,
            "hmac-sha512" => Self::Sha512,
            _ => return None,
        })
    }

    pub(super) fn holds(self, key: &[u8], value: &[u8], mac: &[u8]) -> bool {
        fn holds<M: Mac + KeyInit>(key: &[u8], value: &[u8], mac: &[u8]) -> bool {
            <M as KeyInit>::new_from_slice(key)
                .is_ok_and(|keyed| keyed.chain_update(value).verify_slice(mac).is_ok())
        }
        match self {
            Self::Sha1 => holds::<Hmac<sha1::Sha1>>(key, value, mac),
            Self::Sha224 => holds::<Hmac<sha2::Sha224>>(key, value, mac),
            Self::Sha256 => holds::<Hmac<sha2::Sha256>>(key, value, mac),
            Self::Sha384 => holds::<Hmac<sha2::Sha384>>(key, value, mac),
            Self::Sha512 => holds::<Hmac<sha2::Sha512>>(key, value, mac),
        }
    }
}
