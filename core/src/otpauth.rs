//! Seeds as authenticator apps take them: base32 (RFC 4648 section 6) and key URIs
//! (`otpauth://totp/...`), as the wiki of google-authenticator describes them under "Key Uri
//! Format". What is written is the strictest common reading; what is read is what apps really
//! write, but never a guess: of two answers to one question neither is taken.

use std::fmt::Write;

use zeroize::Zeroizing;

use crate::otp::{Algorithm, Digits, Period};
use crate::secret::Seed;
use crate::text::Name;

const BASE32: base32::Alphabet = base32::Alphabet::Rfc4648 { padding: false };

/// Why a text is no seed in base32. Never says what the text was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASeed {
    /// A character outside the alphabet, or a length that no number of bytes encodes to.
    #[error("not base32")]
    Encoding,
    /// Fewer than 16 or more than 64 bytes: see [`Seed`].
    #[error("a seed has 16 to 64 bytes")]
    Length,
}

/// `seed` in base32, upper case, without padding (RFC 4648 section 6): what key URIs contain.
pub fn encode(seed: &Seed) -> Zeroizing<String> {
    let bytes = seed.expose();
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(5) * 8));
    // Block by block: encoding all at once would outgrow its buffer, and leave a copy behind.
    for chunk in bytes.chunks(5) {
        let mut block = Zeroizing::new([0; 5]);
        block[..chunk.len()].copy_from_slice(chunk);
        let encoded = Zeroizing::new(base32::encode(BASE32, block.as_slice()));
        text.push_str(&encoded[..(chunk.len() * 8).div_ceil(5)]);
    }
    text
}

/// Reads a seed exactly as [`encode`] writes it, and in no other spelling: no lower case, no
/// padding, no stray bits at the end (RFC 4648 sections 3.5 and 12).
pub fn decode(text: &str) -> Result<Seed, NotASeed> {
    let seed = decode_bits(text)?;
    if *encode(&seed) != text { Err(NotASeed::Encoding) } else { Ok(seed) }
}

/// Reads a seed as people type it and as apps show it: in either case, in groups parted by spaces
/// or hyphens, with or without padding. Bits left over at the end are dropped, for some services
/// draw a seed as random letters.
pub fn decode_typed(text: &str) -> Result<Seed, NotASeed> {
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    let typed = text.chars().filter(|character| !matches!(character, ' ' | '-'));
    plain.extend(typed.map(|character| character.to_ascii_uppercase()));
    decode_bits(plain.trim_end_matches('='))
}

fn decode_bits(text: &str) -> Result<Seed, NotASeed> {
    // The library reads the impossible lengths 1, 3 and 6 as if they were shorter.
    if matches!(text.len() % 8, 1 | 3 | 6) {
        return Err(NotASeed::Encoding);
    }
    let bytes = base32::decode(BASE32, text).map(Zeroizing::new).ok_or(NotASeed::Encoding)?;
    Seed::from_bytes(bytes).map_err(|_| NotASeed::Length)
}

/// An issuer or an account, as an app will show it: a [`Name`] without a colon, which would be
/// read as the border between the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(Name);

/// The text is no [`Name`], or has a colon.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an issuer or account is a name without a colon")]
pub struct NotALabel;

impl Label {
    /// Parses and normalizes `text`.
    pub fn parse(text: &str) -> Result<Self, NotALabel> {
        Name::parse(text)
            .ok()
            .filter(|name| !name.as_str().contains(':'))
            .map(Self)
            .ok_or(NotALabel)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<&Name> for Label {
    /// Any name can be a label: a colon in it becomes a hyphen, so that what somebody is called
    /// never keeps them from enrolling.
    fn from(name: &Name) -> Self {
        Self(Name::parse(&name.as_str().replace(':', "-")).expect("a hyphen can be in a name"))
    }
}

/// What moves the code on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Time, in steps of `period` (RFC 6238).
    Totp {
        /// How long a step lasts.
        period: Period,
    },
    /// A counter (RFC 4226), which is read and written but which no token of ours uses.
    Hotp {
        /// The counter of the next code.
        counter: u64,
    },
}

/// A key URI: a seed together with all that an app must know to show its codes. Holds the seed,
/// so it can be neither printed nor copied.
///
/// ```compile_fail
/// fn shown<T: std::fmt::Debug>() {}
/// shown::<semilla_core::otpauth::KeyUri>(); // security 40
/// ```
pub struct KeyUri {
    /// Time or counter.
    pub kind: Kind,
    /// Whose service the codes are for.
    pub issuer: Option<Label>,
    /// Which account of the service.
    pub account: Label,
    /// The shared secret.
    pub seed: Seed,
    /// The hash.
    pub algorithm: Algorithm,
    /// The length of a code.
    pub digits: Digits,
}

/// Why a text is no key URI. Names the parameter at fault, never its value, for that may be the
/// secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAKeyUri {
    /// It does not begin with `otpauth://`, has no label or no parameters, or has a fragment.
    #[error("not an otpauth URI")]
    Form,
    /// Neither `totp` nor `hotp`.
    #[error("neither totp nor hotp")]
    Kind,
    /// A percent sign without two hexadecimal digits, or bytes that are no UTF-8.
    #[error("the percent-encoding is broken")]
    Percent,
    /// The label has no account, or issuer or account is no [`Label`].
    #[error("the issuer or the account cannot be shown")]
    Label,
    /// The same parameter twice: another app might take the other one.
    #[error("the parameter {0} occurs twice")]
    Duplicate(&'static str),
    /// The parameter has no default, and is not there.
    #[error("the parameter {0} is missing")]
    Missing(&'static str),
    /// The parameter has a value that it cannot have.
    #[error("the parameter {0} has no valid value")]
    Invalid(&'static str),
    /// The secret is no seed.
    #[error("the secret is no seed: {0}")]
    Secret(#[from] NotASeed),
}

impl KeyUri {
    /// The URI: `otpauth://totp/Issuer:account?secret=…&issuer=…&algorithm=…&digits=…&period=…`,
    /// every parameter explicit, since apps differ in their defaults. All but RFC 3986's
    /// unreserved characters are percent-encoded, a space as `%20`: apps do not read `+` as a
    /// space. The secret has no padding: some apps choke on `=`.
    pub fn to_uri(&self) -> Zeroizing<String> {
        let issuer = self.issuer.as_ref().map(Label::as_str);
        // Enough for all of it: a growing buffer would leave copies of the secret behind.
        let names = 6 * issuer.map_or(0, str::len) + 3 * self.account.as_str().len();
        let mut uri = Zeroizing::new(String::with_capacity(names + 256));
        let capacity = uri.capacity();

        uri.push_str("otpauth://");
        uri.push_str(match self.kind {
            Kind::Totp { .. } => "totp/",
            Kind::Hotp { .. } => "hotp/",
        });
        if let Some(issuer) = issuer {
            percent_encode(issuer, &mut uri);
            uri.push(':');
        }
        percent_encode(self.account.as_str(), &mut uri);
        uri.push_str("?secret=");
        uri.push_str(&encode(&self.seed));
        if let Some(issuer) = issuer {
            uri.push_str("&issuer=");
            percent_encode(issuer, &mut uri);
        }
        let (algorithm, digits) = (self.algorithm.name(), self.digits.get());
        append(&mut uri, format_args!("&algorithm={algorithm}&digits={digits}"));
        match self.kind {
            Kind::Totp { period } => append(&mut uri, format_args!("&period={}", period.seconds())),
            Kind::Hotp { counter } => append(&mut uri, format_args!("&counter={counter}")),
        }
        debug_assert_eq!(uri.capacity(), capacity, "the buffer did not grow");
        uri
    }

    /// Reads a key URI.
    ///
    /// Absent parameters have the defaults of the format: SHA1, 6 digits, 30 s. Scheme, kind,
    /// parameter names and algorithm are read in either case; the secret as by [`decode_typed`];
    /// `+` is a plus sign (RFC 3986); characters that should have been encoded may stand for
    /// themselves. The parameter `issuer` prevails over the label's. Unknown parameters are
    /// passed over.
    pub fn parse(text: &str) -> Result<Self, NotAKeyUri> {
        let rest = strip_scheme(text).filter(|rest| !rest.contains('#')).ok_or(NotAKeyUri::Form)?;
        let (kind, rest) = rest.split_once('/').ok_or(NotAKeyUri::Form)?;
        let (label, query) = rest.split_once('?').ok_or(NotAKeyUri::Form)?;

        let label = percent_decode(label)?;
        let (prefix, account) = match label.split_once(':') {
            Some((prefix, account)) => (Some(prefix), account),
            None => (None, label.as_str()),
        };
        let account = Label::parse(account).map_err(|_| NotAKeyUri::Label)?;

        let query = Query::parse(query)?;
        let issuer = [query.issuer.as_deref().map(String::as_str), prefix]
            .into_iter()
            .flatten()
            .find(|issuer| !issuer.is_empty())
            .map(|issuer| Label::parse(issuer).map_err(|_| NotAKeyUri::Label))
            .transpose()?;
        let algorithm = match query.algorithm {
            None => Algorithm::Sha1,
            Some(name) => [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512]
                .into_iter()
                .find(|algorithm| algorithm.name().eq_ignore_ascii_case(&name))
                .ok_or(NotAKeyUri::Invalid("algorithm"))?,
        };
        let digits = match number(query.digits, "digits")? {
            None => Digits::SIX,
            Some(digits) => Digits::new(digits).map_err(|_| NotAKeyUri::Invalid("digits"))?,
        };
        let period = match number(query.period, "period")? {
            None => Period::THIRTY,
            Some(seconds) => Period::new(seconds).map_err(|_| NotAKeyUri::Invalid("period"))?,
        };
        let counter = number(query.counter, "counter")?;
        let kind = if kind.eq_ignore_ascii_case("totp") {
            Kind::Totp { period }
        } else if kind.eq_ignore_ascii_case("hotp") {
            Kind::Hotp { counter: counter.ok_or(NotAKeyUri::Missing("counter"))? }
        } else {
            return Err(NotAKeyUri::Kind);
        };
        let seed = decode_typed(&query.secret.ok_or(NotAKeyUri::Missing("secret"))?)?;
        Ok(Self { kind, issuer, account, seed, algorithm, digits })
    }
}

/// The parameters of a key URI, decoded but not yet understood.
#[derive(Default)]
struct Query {
    secret: Option<Zeroizing<String>>,
    issuer: Option<Zeroizing<String>>,
    algorithm: Option<Zeroizing<String>>,
    digits: Option<Zeroizing<String>>,
    period: Option<Zeroizing<String>>,
    counter: Option<Zeroizing<String>>,
}

impl Query {
    fn parse(text: &str) -> Result<Self, NotAKeyUri> {
        let mut query = Self::default();
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, place) = match percent_decode(name)?.to_ascii_lowercase().as_str() {
                "secret" => ("secret", &mut query.secret),
                "issuer" => ("issuer", &mut query.issuer),
                "algorithm" => ("algorithm", &mut query.algorithm),
                "digits" => ("digits", &mut query.digits),
                "period" => ("period", &mut query.period),
                "counter" => ("counter", &mut query.counter),
                _ => continue,
            };
            if place.replace(percent_decode(value)?).is_some() {
                return Err(NotAKeyUri::Duplicate(name));
            }
        }
        Ok(query)
    }
}

fn strip_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_at_checked("otpauth://".len())?;
    scheme.eq_ignore_ascii_case("otpauth://").then_some(rest)
}

/// A number without sign, which `str::parse` alone would take.
fn number<N: std::str::FromStr>(
    value: Option<Zeroizing<String>>,
    name: &'static str,
) -> Result<Option<N>, NotAKeyUri> {
    let read = |value: Zeroizing<String>| {
        let plain = value.bytes().all(|byte| byte.is_ascii_digit());
        value.parse().ok().filter(|_| plain).ok_or(NotAKeyUri::Invalid(name))
    };
    value.map(read).transpose()
}

/// RFC 3986 section 2.1, of everything but the unreserved characters of section 2.3.
fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            append(out, format_args!("%{byte:02X}"));
        }
    }
}

fn percent_decode(text: &str) -> Result<Zeroizing<String>, NotAKeyUri> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    let hex = |digit: Option<u8>| digit.and_then(|digit| char::from(digit).to_digit(16));
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => match (hex(rest.next()), hex(rest.next())) {
                (Some(high), Some(low)) => (high << 4 | low) as u8,
                _ => return Err(NotAKeyUri::Percent),
            },
            _ => byte,
        });
    }
    let text = str::from_utf8(&bytes).map_err(|_| NotAKeyUri::Percent)?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    fn seed(bytes: &[u8]) -> Seed {
        Seed::from_bytes(Zeroizing::new(bytes.to_vec())).expect("a seed")
    }

    fn label(text: &str) -> Label {
        Label::parse(text).expect("a label")
    }

    fn parse(text: &str) -> KeyUri {
        KeyUri::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn error(text: &str) -> NotAKeyUri {
        KeyUri::parse(text).err().unwrap_or_else(|| panic!("{text} was read"))
    }

    #[test]
    fn base32_is_that_of_rfc_4648_without_padding() {
        assert_eq!(*encode(&seed(b"12345678901234567890")), SECRET);
        let foobar = b"foobarfoobarfoobar";
        assert_eq!(*encode(&seed(foobar)), "MZXW6YTBOJTG633CMFZGM33PMJQXE");
    }

    #[test]
    fn strict_base32_has_one_spelling() {
        assert_eq!(decode(SECRET).expect("a seed").expose(), b"12345678901234567890");
        let (zeros, lower) = ("A".repeat(26), SECRET.to_lowercase());
        assert_eq!(decode(&zeros).expect("a seed").expose(), [0; 16]);
        let (stray, padded) = (format!("{}B", "A".repeat(25)), format!("{zeros}======"));
        for text in [&stray, &padded, &lower, "GEZD GNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "1"] {
            assert_eq!(decode(text).err(), Some(NotASeed::Encoding), "{text}");
        }
        for length in 26..=32 {
            let expected = matches!(length, 27 | 30).then_some(NotASeed::Encoding);
            assert_eq!(decode(&"A".repeat(length)).err(), expected, "{length}");
        }
        for length in [0, 8, 24, 104, 800] {
            assert_eq!(decode(&"A".repeat(length)).err(), Some(NotASeed::Length), "{length}");
        }
    }

    #[test]
    fn typed_base32_may_be_grouped_padded_and_in_lower_case() {
        for typed in [
            "gezd gnbv gy3t qojq gezd gnbv gy3t qojq",
            "GEZD-GNBV-GY3T-QOJQ-GEZD-GNBV-GY3T-QOJQ",
            " GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ ",
            "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ======",
        ] {
            let seed = decode_typed(typed).expect("a seed");
            assert_eq!(seed.expose(), b"12345678901234567890", "{typed}");
        }
        let stray = decode_typed(&format!("{}B", "A".repeat(25))).expect("a seed");
        assert_eq!(stray.expose(), [0; 16]);
        let digits = SECRET.replace('O', "0");
        for typed in [&digits, "A=A", "ñ", "１", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n"] {
            assert_eq!(decode_typed(typed).err(), Some(NotASeed::Encoding), "{typed}");
        }
    }

    #[test]
    fn a_uri_is_written_out_in_full() {
        let uri = KeyUri {
            kind: Kind::Totp { period: Period::THIRTY },
            issuer: Some(label("Banco Ejemplo & Cía")),
            account: label("laura+1@example.com"),
            seed: seed(b"12345678901234567890"),
            algorithm: Algorithm::Sha1,
            digits: Digits::SIX,
        };
        assert_eq!(
            *uri.to_uri(),
            "otpauth://totp/Banco%20Ejemplo%20%26%20C%C3%ADa:laura%2B1%40example.com\
             ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=Banco%20Ejemplo%20%26%20C%C3%ADa&algorithm=SHA1&digits=6&period=30"
        );
        let uri = KeyUri { kind: Kind::Hotp { counter: 7 }, issuer: None, ..uri };
        assert_eq!(
            *uri.to_uri(),
            "otpauth://hotp/laura%2B1%40example.com\
             ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&algorithm=SHA1&digits=6&counter=7"
        );
    }

    #[test]
    fn what_real_apps_write_is_read() {
        let uri = parse(&format!("otpauth://totp/laura?secret={SECRET}"));
        assert_eq!((uri.issuer, uri.account), (None, label("laura")));
        assert_eq!(uri.kind, Kind::Totp { period: Period::THIRTY });
        assert_eq!((uri.algorithm, uri.digits), (Algorithm::Sha1, Digits::SIX));

        for text in [
            "otpauth://totp/ACME%20Co:john.doe@email.com?secret={}&issuer=ACME%20Co&algorithm=SHA256&digits=8&period=60",
            "OTPAuth://TOTP/ACME Co%3Ajohn.doe%40email.com?Period=60&secret={}&digits=8&algorithm=sha256",
            "otpauth://totp/ACME%20Co%3a%20john.doe%40email.com?secret={}%3D%3D&algorithm=Sha256&digits=8&period=60&image=https%3A%2F%2Fexample.com",
            "otpauth://totp/Other:john.doe@email.com?issuer=ACME%20Co&secret={}===&algorithm=SHA256&digits=8&period=60&lock=true&",
            "otpauth://totp/:john.doe@email.com?issuer=ACME%20Co&secret={}&algorithm=SHA256&digits=8&period=60&counter=0",
            "otpauth://totp/ACME%20Co:john.doe@email.com?issuer=&%73ecret={}&algorithm=SHA256&digits=8&period=60",
        ] {
            for secret in [SECRET, &SECRET.to_lowercase(), "GEZDGNBVGY3TQOJQ%20GEZDGNBVGY3TQOJQ"] {
                let uri = parse(&text.replace("{}", secret));
                assert_eq!(uri.issuer, Some(label("ACME Co")), "{text}");
                assert_eq!(uri.account, label("john.doe@email.com"), "{text}");
                assert_eq!(uri.seed.expose(), b"12345678901234567890", "{text}");
                assert_eq!(uri.kind, Kind::Totp { period: Period::new(60).expect("a period") });
                assert_eq!((uri.algorithm, uri.digits), (Algorithm::Sha256, Digits::EIGHT));
            }
        }

        let plus =
            parse(&format!("otpauth://hotp/a+b:c+d?secret={SECRET}&counter=18446744073709551615"));
        assert_eq!((plus.issuer, plus.account), (Some(label("a+b")), label("c+d")));
        assert_eq!(plus.kind, Kind::Hotp { counter: u64::MAX });
    }

    #[test]
    fn nonsense_is_refused_and_never_repeated() {
        use NotAKeyUri::{Duplicate, Form, Invalid, Kind, Label, Missing, Percent, Secret};
        for (text, expected) in [
            ("", Form),
            ("otpauth:/totp/a?secret={}", Form),
            ("https://totp/a?secret={}", Form),
            ("otpauth://totp", Form),
            ("otpauth://totp?secret={}", Form),
            ("otpauth://totp/a", Form),
            ("otpauth://totp/a?secret={}#b", Form),
            ("otpautñ://totp/a?secret={}", Form),
            ("otpauth://steam/a?secret={}", Kind),
            ("otpauth:///a?secret={}", Kind),
            ("otpauth://totp/?secret={}", Label),
            ("otpauth://totp/a:?secret={}", Label),
            ("otpauth://totp/a:b:c?secret={}", Label),
            ("otpauth://totp/a%0Ab?secret={}", Label),
            ("otpauth://totp/a%E2%80%AEb?secret={}", Label),
            ("otpauth://totp/a?secret={}&issuer=a%3Ab", Label),
            ("otpauth://totp/a%2?secret={}", Percent),
            ("otpauth://totp/a%+1?secret={}", Percent),
            ("otpauth://totp/a%FF?secret={}", Percent),
            ("otpauth://totp/a?secret={}%", Percent),
            ("otpauth://totp/a?secret={}&secret={}", Duplicate("secret")),
            ("otpauth://totp/a?secret={}&SECRET={}", Duplicate("secret")),
            ("otpauth://totp/a?secret={}&digits=6&digits=6", Duplicate("digits")),
            ("otpauth://totp/a?secret={}&issuer=&issuer=b", Duplicate("issuer")),
            ("otpauth://totp/a?secret={}&period=30&%70eriod=60", Duplicate("period")),
            ("otpauth://totp/a?secret={}&algorithm=SHA1&Algorithm=MD5", Duplicate("algorithm")),
            ("otpauth://hotp/a?secret={}&counter=1&counter=1", Duplicate("counter")),
            ("otpauth://totp/a?", Missing("secret")),
            ("otpauth://totp/a?issuer=b", Missing("secret")),
            ("otpauth://hotp/a?secret={}", Missing("counter")),
            ("otpauth://totp/a?secret={}&algorithm=MD5", Invalid("algorithm")),
            ("otpauth://totp/a?secret={}&algorithm", Invalid("algorithm")),
            ("otpauth://totp/a?secret={}&digits=5", Invalid("digits")),
            ("otpauth://totp/a?secret={}&digits=+6", Invalid("digits")),
            ("otpauth://totp/a?secret={}&digits=262", Invalid("digits")),
            ("otpauth://totp/a?secret={}&period=0", Invalid("period")),
            ("otpauth://totp/a?secret={}&period=30s", Invalid("period")),
            ("otpauth://totp/a?secret={}&period=", Invalid("period")),
            ("otpauth://hotp/a?secret={}&counter=-1", Invalid("counter")),
            ("otpauth://hotp/a?secret={}&counter=18446744073709551616", Invalid("counter")),
            ("otpauth://totp/a?secret={}1", Secret(NotASeed::Encoding)),
            ("otpauth://totp/a?secret=GEZDGNBVGY3TQOJQ", Secret(NotASeed::Length)),
            ("otpauth://totp/a?secret=", Secret(NotASeed::Length)),
        ] {
            let error = error(&text.replace("{}", SECRET));
            assert_eq!(error, expected, "{text}");
            assert!(!format!("{error} {error:?}").contains("GEZD"), "{text}");
        }
    }

    #[test]
    fn every_name_can_be_a_label() {
        let name = |text: &str| Name::parse(text).expect("a name");
        assert_eq!(Label::from(&name("Andrés")).as_str(), "Andrés");
        assert_eq!(Label::from(&name(":a:")).as_str(), "-a-");
        assert_eq!(Label::parse("a:b"), Err(NotALabel));
        assert_eq!(Label::parse(" "), Err(NotALabel));
    }

    fn labels() -> impl Strategy<Value = Label> {
        ".{1,100}".prop_filter_map("a label", |text| Label::parse(&text).ok())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            hotp in any::<bool>(),
            number in any::<u64>(),
            issuer in prop::option::of(labels()),
            account in labels(),
            bytes in prop::collection::vec(any::<u8>(), 16..=64),
            algorithm in prop::sample::select(
                vec![Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512]),
            digits in 6_u8..=8,
        ) {
            let seconds = u16::try_from(number % 300 + 1).expect("a period");
            let kind = if hotp {
                Kind::Hotp { counter: number }
            } else {
                Kind::Totp { period: Period::new(seconds).expect("a period") }
            };
            let digits = Digits::new(digits).expect("digits");
            let uri = KeyUri { kind, issuer, account, seed: seed(&bytes), algorithm, digits };
            let text = uri.to_uri();
            prop_assert!(text.is_ascii() && !text.contains(['+', ' ']));
            let back = parse(&text);
            prop_assert_eq!(back.kind, uri.kind);
            prop_assert_eq!(back.issuer, uri.issuer);
            prop_assert_eq!(back.account, uri.account);
            prop_assert_eq!(back.seed.expose(), bytes.as_slice());
            prop_assert_eq!((back.algorithm, back.digits), (algorithm, digits));
            let strict = decode(&encode(&uri.seed)).expect("a seed");
            prop_assert_eq!(strict.expose(), bytes.as_slice());
        }

        #[test]
        fn no_text_makes_reading_panic(text in "(otpauth://(totp|hotp)/)?[a%:?&=#2-7é ]{0,40}") {
            let _ = KeyUri::parse(&text);
            let _ = decode_typed(&text);
        }
    }
}
