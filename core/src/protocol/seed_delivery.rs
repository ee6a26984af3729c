//! A seed on its way to a phone: HPKE (RFC 9180) in base mode with DHKEM(P-256, HKDF-SHA256),
//! HKDF-SHA256 and AES-256-GCM, sealed to a key that the phone made for this one request. The
//! context binds it to server, phone, token, generation and the exact request, so that it opens
//! nowhere else. Who sent it, HPKE does not say in this mode: the signature of
//! [`super::messages::SeedDelivery`] around it does.

use std::convert::Infallible;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{DhP256HkdfSha256, Kem};
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::MessageError;
use super::bytes::{Binary, Digest};
use super::jwk::{InvalidKey, PublicKey};
use super::messages::Hpke;
use crate::entropy::{self, Entropy};
use crate::id::{DeviceId, TokenId};
use crate::secret::SecretText;

const INFO: &[u8] = b"semilla/seed/v1";

/// The longest plain text, in bytes: a package is much shorter.
const MAX_LENGTH: usize = 2048;

/// What a sealed seed belongs to. Both sides put it together from what they know, never from the
/// delivery.
#[derive(Clone, Copy, Debug)]
pub struct SeedContext<'a> {
    /// The server's address.
    pub issuer: &'a str,
    /// The phone.
    pub device: DeviceId,
    /// The token.
    pub token: TokenId,
    /// The generation that the seed begins.
    pub generation: u32,
    /// The exact text of the `enroll+jwt` that asked for it.
    pub enroll_text: &'a str,
}

impl SeedContext<'_> {
    /// `iss|device|token|generation|` and the base64url SHA-256 of the request. Everything after
    /// the issuer has a form that cannot hold a `|`.
    fn aad(&self) -> String {
        let Self { issuer, device, token, generation, enroll_text } = self;
        format!("{issuer}|{device}|{token}|{generation}|{}", Digest::of(enroll_text.as_bytes()))
    }
}

/// What a phone needs in order to make codes. The fields travel as they are here; what they mean,
/// [`crate::otp`] says.
pub struct SeedPackage {
    /// The seed in base 32 (RFC 4648 section 6) without padding.
    pub secret_b32: SecretText,
    /// `SHA1`, `SHA256` or `SHA512`.
    pub algorithm: String,
    /// How many digits a code has.
    pub digits: u8,
    /// How many seconds a code lives.
    pub period: u32,
    /// Whose token it is: the bank or the company, as the phone shows it.
    pub issuer: String,
    /// Which token it is: its serial number, as the phone shows it.
    pub account: String,
}

#[derive(Serialize)]
struct PackageOut<'a> {
    secret_b32: &'a str,
    algorithm: &'a str,
    digits: u8,
    period: u32,
    issuer: &'a str,
    account: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PackageIn {
    secret_b32: SecretText,
    algorithm: String,
    digits: u8,
    period: u32,
    issuer: String,
    account: String,
}

impl SeedPackage {
    /// The package as JSON.
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let Self { secret_b32, algorithm, digits, period, issuer, account } = self;
        let secret_b32 = secret_b32.expose();
        // Room for everything, so that no half-written copy of the seed is left behind.
        let mut json = Zeroizing::new(Vec::with_capacity(MAX_LENGTH));
        let package =
            PackageOut { secret_b32, algorithm, digits: *digits, period: *period, issuer, account };
        serde_json::to_writer(&mut *json, &package).expect("always JSON");
        json
    }

    /// Reads a package.
    pub fn from_json(json: &[u8]) -> Result<Self, MessageError> {
        let PackageIn { secret_b32, algorithm, digits, period, issuer, account } =
            super::jws::claims(json)?;
        Ok(Self { secret_b32, algorithm, digits, period, issuer, account })
    }
}

/// Seals `package` to the key `seed_kem` of the request in `context`.
///
/// # Panics
/// Never for a [`PublicKey`], which is a point of the curve.
pub fn seal(
    package: &SeedPackage,
    seed_kem: &PublicKey,
    context: &SeedContext<'_>,
    entropy: &dyn Entropy,
) -> Hpke {
    let (enc, ct) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, DhP256HkdfSha256>(
        &OpModeS::Base,
        &seed_kem.for_hpke(),
        INFO,
        &package.to_json(),
        context.aad().as_bytes(),
        &mut Rng(entropy),
    )
    .expect("a point of the curve, a short text");
    Hpke { enc: Binary(enc.to_bytes().to_vec()), ct: Binary(ct) }
}

/// The phone's key pair for one seed: made for one request, kept until its answer is confirmed.
///
/// ```compile_fail
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<semilla_core::protocol::seed_delivery::SeedKem>(); // security 40
/// ```
pub struct SeedKem {
    // Overwritten when dropped, by the crate that it comes from.
    private: <DhP256HkdfSha256 as Kem>::PrivateKey,
    public: PublicKey,
}

impl SeedKem {
    /// A new pair (RFC 9180 section 7.1.3, from 32 random bytes).
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let input = Zeroizing::new(entropy::bytes::<32>(entropy));
        let (private, public) = DhP256HkdfSha256::derive_keypair(&*input);
        Self { private, public: PublicKey::from_hpke(&public) }
    }

    /// Takes over a pair that was kept sealed: the 32 bytes of [`SeedKem::expose`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidKey> {
        let private = <DhP256HkdfSha256 as Kem>::PrivateKey::from_bytes(bytes);
        let private = private.map_err(|_| InvalidKey)?;
        let public = PublicKey::from_hpke(&DhP256HkdfSha256::sk_to_pk(&private));
        Ok(Self { private, public })
    }

    /// The private key, to be sealed and kept.
    pub fn expose(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.private.write_exact(&mut *bytes);
        bytes
    }

    /// The public key, for `seed_kem` of the request.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Opens a seed. [`MessageError::NotOpened`] says nothing about why.
    pub fn open(
        &self,
        sealed: &Hpke,
        context: &SeedContext<'_>,
    ) -> Result<SeedPackage, MessageError> {
        if sealed.ct.0.len() > MAX_LENGTH {
            return Err(MessageError::TooLarge);
        }
        let enc = <DhP256HkdfSha256 as Kem>::EncappedKey::from_bytes(&sealed.enc.0)
            .map_err(|_| MessageError::NotOpened)?;
        let json = hpke::single_shot_open::<AesGcm256, HkdfSha256, DhP256HkdfSha256>(
            &OpModeR::Base,
            &self.private,
            &enc,
            INFO,
            &sealed.ct.0,
            context.aad().as_bytes(),
        )
        .map(Zeroizing::new)
        .map_err(|_| MessageError::NotOpened)?;
        SeedPackage::from_json(&json)
    }
}

/// [`Entropy`] as the generator that `hpke` asks for.
struct Rng<'a>(&'a dyn Entropy);

impl TryRng for Rng<'_> {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_be_bytes(entropy::bytes(self.0)))
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_be_bytes(entropy::bytes(self.0)))
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for Rng<'_> {}
