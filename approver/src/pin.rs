//! The PIN: the one secret that a person keeps in their head. The store is decrypted with it, not
//! compared with it (security 124), and a few numbers that everybody tries first cannot be chosen
//! (security 125, SP 800-63B section 5.2.11).

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::errors::{Error, Input};

/// A PIN: 6 to 32 ASCII digits. Overwritten when dropped; it can be neither printed nor compared.
///
/// ```compile_fail
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<semilla_approver::pin::Pin>(); // security 40, 128
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Pin(Box<[u8]>);

/// PINs that head every list of leaked ones and follow no rule of [`is_common`].
const COMMON: &[&str] = &[
    "159753",
    "147258",
    "147852",
    "258369",
    "789456",
    "456789",
    "102030",
    "112233",
    "332211",
    "123321",
    "101010",
    "246810",
    "135790",
    "142536",
    "159357",
    "147258369",
    "14725836",
    "987456321",
    "520131",
    "314159",
    "271828",
    "142857",
    "696969",
    "11223344",
    "19283746",
];

impl Pin {
    /// The fewest digits.
    pub const SHORTEST: usize = 6;
    /// The most digits.
    pub const LONGEST: usize = 32;

    /// Reads a PIN that a person entered. Whether it may be chosen is not asked here: a store that
    /// was made with it must open.
    pub fn entered(text: &str) -> Result<Self, Error> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || !(Self::SHORTEST..=Self::LONGEST).contains(&text.len()) {
            return Err(Input::PinForm.into());
        }
        Ok(Self(text.as_bytes().into()))
    }

    /// Reads a PIN that a person chooses for a new or changed store, and refuses common ones.
    pub fn chosen(text: &str) -> Result<Self, Error> {
        let pin = Self::entered(text)?;
        pin.require_uncommon()?;
        Ok(pin)
    }

    pub(crate) fn require_uncommon(&self) -> Result<(), Error> {
        if is_common(&self.0) { Err(Input::PinCommon.into()) } else { Ok(()) }
    }

    /// The digits, for the one function that derives a key from them.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Whether `pin` is a digit or a group of digits repeated, a run up or down, or in the list.
fn is_common(pin: &[u8]) -> bool {
    let repeats = |length: usize| pin.iter().zip(&pin[length..]).all(|(a, b)| a == b);
    let run = |by: u8| pin.windows(2).all(|pair| (pair[0] - b'0' + by) % 10 == pair[1] - b'0');
    (1..=pin.len() / 2).any(repeats)
        || run(1)
        || run(9)
        || COMMON.iter().any(|common| common.as_bytes() == pin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_125_a_pin_has_six_digits_or_more_and_is_not_a_common_one() {
        for short in ["", "1", "48291", "4829a3", "48 291", "４８２９１３", "-48291"] {
            assert!(Pin::entered(short).is_err(), "{short}");
        }
        for common in [
            "000000", "111111", "999999", "123456", "1234567", "12345678", "654321", "987654",
            "123123", "121212", "456456", "789012", "098765", "112233", "159753", "696969",
        ] {
            assert!(Pin::entered(common).is_ok(), "{common} is a PIN");
            assert!(matches!(Pin::chosen(common), Err(Error::Input(Input::PinCommon))), "{common}");
        }
        for good in ["482913", "907142", "000417", "73190846"] {
            assert!(Pin::chosen(good).is_ok(), "{good}");
        }
        assert!(Pin::entered(&"7".repeat(33)).is_err());
    }
}
