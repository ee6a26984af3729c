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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::Seeded;
    use crate::time::Timestamp;

    fn package() -> SeedPackage {
        SeedPackage {
            secret_b32: SecretText::new("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ".into()),
            algorithm: "SHA256".into(),
            digits: 8,
            period: 30,
            issuer: "Banco \"Ñ\"".into(),
            account: "FEF4900032".into(),
        }
    }

    #[test]
    fn a_key_pair_is_derived_as_rfc_9180_says() {
        // Appendix A.3.1: DHKEM(P-256, HKDF-SHA256), ikmE, skEm and pkEm.
        struct Given;
        impl Entropy for Given {
            fn fill(&self, out: &mut [u8]) {
                out.copy_from_slice(&from_hex(
                    "4270e54ffd08d79d5928020af4686d8f6b7d35dbe470265f1f5aa22816ce860e",
                ));
            }
        }
        let kem = SeedKem::generate(&Given);
        assert_eq!(
            kem.expose().as_slice(),
            from_hex("4995788ef4b9d6132b249ce59a77281493eb39af373d236a1fe415cb0c2d7beb")
        );
        assert_eq!(
            kem.public().point().as_slice(),
            from_hex(
                "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac9\
                 8536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4"
            )
        );
    }

    fn from_hex(text: &str) -> Vec<u8> {
        let digit = |byte: u8| char::from(byte).to_digit(16).expect("a digit") as u8;
        text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    #[test]
    fn a_seed_opens_for_its_phone_token_generation_and_request_and_for_no_other() {
        let entropy = Seeded::new(11);
        let now = Timestamp::from_seconds(1_764_000_000);
        let kem = SeedKem::generate(&entropy);
        let context = SeedContext {
            issuer: "https://semilla.example",
            device: DeviceId::new(now, &entropy),
            token: TokenId::new(now, &entropy),
            generation: 1,
            enroll_text: "the exact text",
        };
        let sealed = seal(&package(), kem.public(), &context, &entropy);
        // The phone may have been restarted in between.
        let kem = SeedKem::from_bytes(&*kem.expose()).expect("a key");
        let opened = kem.open(&sealed, &context).expect("the seed opens");
        assert_eq!(*opened.to_json(), *package().to_json());
        assert_eq!(opened.issuer, package().issuer);

        let not_opened = Some(MessageError::NotOpened);
        for other in [
            SeedContext { issuer: "https://test.semilla.example", ..context },
            SeedContext { device: DeviceId::new(now, &entropy), ..context },
            SeedContext { token: TokenId::new(now, &entropy), ..context },
            SeedContext { generation: 2, ..context },
            SeedContext { enroll_text: "another text", ..context },
        ] {
            assert_eq!(kem.open(&sealed, &other).err(), not_opened);
        }
        assert_eq!(SeedKem::generate(&entropy).open(&sealed, &context).err(), not_opened);
        let other_seal = seal(&package(), kem.public(), &context, &entropy);
        assert_ne!(sealed, other_seal, "a fresh key each time");
        let mixed = Hpke { enc: other_seal.enc, ct: sealed.ct.clone() };
        assert_eq!(kem.open(&mixed, &context).err(), not_opened);
        let mut longer = sealed.clone();
        longer.ct.0.push(0);
        assert_eq!(kem.open(&longer, &context).err(), not_opened);
    }

    #[test]
    fn security_52_54_a_sealed_seed_with_any_bit_changed_does_not_open() {
        let entropy = Seeded::new(12);
        let now = Timestamp::from_seconds(1_764_000_000);
        let kem = SeedKem::generate(&entropy);
        let context = SeedContext {
            issuer: "https://semilla.example",
            device: DeviceId::new(now, &entropy),
            token: TokenId::new(now, &entropy),
            generation: 1,
            enroll_text: "the exact text",
        };
        let sealed = seal(&package(), kem.public(), &context, &entropy);
        for place in 0..sealed.ct.0.len() {
            let mut changed = sealed.clone();
            changed.ct.0[place] ^= 1 << (place % 8);
            assert_eq!(kem.open(&changed, &context).err(), Some(MessageError::NotOpened));
        }
        for place in 0..sealed.enc.0.len() {
            let mut changed = sealed.clone();
            changed.enc.0[place] ^= 1 << (place % 8);
            assert_eq!(kem.open(&changed, &context).err(), Some(MessageError::NotOpened));
        }
        for enc in [vec![], vec![0], vec![0; 65], sealed.enc.0[1..].to_vec()] {
            let changed = Hpke { enc: Binary(enc), ct: sealed.ct.clone() };
            assert_eq!(kem.open(&changed, &context).err(), Some(MessageError::NotOpened));
        }
    }

    #[test]
    fn a_package_has_exactly_its_fields() {
        let json = package().to_json();
        let text = std::str::from_utf8(&json).expect("UTF-8");
        assert!(SeedPackage::from_json(&json).is_ok());
        for bad in [
            text.replace(r#""digits":8"#, r#""digits":8,"digits":8"#),
            text.replace(r#""digits":8"#, r#""digits":"8""#),
            text.replace(r#""digits":8"#, r#""digits":8,"counter":0"#),
            text.replace(r#""digits":8,"#, ""),
        ] {
            assert_eq!(
                SeedPackage::from_json(bad.as_bytes()).err(),
                Some(MessageError::Malformed),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_private_key_out_of_range_is_refused() {
        assert!(SeedKem::from_bytes(&[0; 32]).is_err());
        assert!(SeedKem::from_bytes(&[0xff; 32]).is_err());
        assert!(SeedKem::from_bytes(&[1; 31]).is_err());
    }
}
