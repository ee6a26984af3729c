//! Tokens that come from elsewhere with their seeds: key containers ([`crate::pskc`]) and CSV, read
//! line by line into tokens that can be taken over, or into what is wrong with them. Nothing here
//! tells what a seed was.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::otp::{Algorithm, CounterParameters, Digits, Method, Parameters, Period, Step};
use crate::otpauth;
use crate::pskc::{self, Entry, FileFault, FileKey, KEYS_MAX, ValueFault};
use crate::secret::Seed;
use crate::text::Name;
use crate::token::Serial;

/// A token that can be taken over.
pub struct Imported {
    /// The serial number printed on it.
    pub serial: Serial,
    /// Its seed.
    pub seed: Seed,
    /// How its codes are made.
    pub method: Method,
    /// The last counter that is used up.
    pub after: Option<Step>,
    /// By how many steps its clock is said to be ahead.
    pub drift: i32,
    /// Who made it.
    pub manufacturer: Option<String>,
    /// Which one it is.
    pub model: Option<String>,
}

/// What a line of a file, or a key package, came to.
pub struct Line {
    /// Where it begins, from 1.
    pub line: u32,
    /// The serial number it names, where it can be shown.
    pub serial: Option<String>,
    /// The token, or why it is none.
    pub token: Result<Imported, LineFault>,
}

/// Why a whole file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportFault {
    /// The key container is none.
    #[error(transparent)]
    Pskc(#[from] FileFault),
    /// There is nothing in it.
    #[error("it holds no token")]
    Empty,
    /// There is more than is read at once.
    #[error("it holds more than {KEYS_MAX} tokens: divide it")]
    TooMany,
    /// The first line names a column that is not known.
    #[error(
        "its first line names a column other than serial, type, secret_hex, secret_base32, secret_base64, algorithm, \
         digits, period, counter, manufacturer and model, or one twice, or lacks serial or a secret"
    )]
    Columns,
}

/// Why a line is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// A value of a key container.
    #[error(transparent)]
    Value(#[from] ValueFault),
    /// No serial number, or one that cannot be ours.
    #[error("its serial number is missing, or not 4 to 32 of letters, digits, -, _ and .")]
    Serial,
    /// Named before in the same file.
    #[error("its serial number is the same as at line {0}")]
    Repeated(u32),
    /// Neither HOTP nor TOTP.
    #[error("is neither HOTP nor TOTP")]
    Kind,
    /// Another hash.
    #[error("its hash is none of SHA1, SHA256 and SHA512")]
    Hash,
    /// Codes that are not 6 to 8 decimal digits.
    #[error("its codes are not 6 to 8 decimal digits, without a check digit")]
    Digits,
    /// A step that nobody waits for.
    #[error("its steps are not 10 to 300 seconds")]
    Period,
    /// No such counter.
    #[error("its counter is no number, or too large")]
    Counter,
    /// A clock that is hours off.
    #[error("its clock is off by too much")]
    Drift,
    /// A seed that is too short or too long, or does not read.
    #[error("its seed does not read, or has not 16 to 64 bytes")]
    Seed,
    /// More or fewer fields than there are columns.
    #[error("has another number of fields than there are columns")]
    Fields,
}

/// By how many steps a clock may be said to be off.
const DRIFT_MAX: i64 = 100_000;

/// Reads a key container.
pub fn pskc(text: &str, key: &FileKey) -> Result<Vec<Line>, ImportFault> {
    let entries = pskc::read(text, key)?;
    finished(entries.into_iter().map(|entry| {
        let named = entry.serial.clone().or_else(|| entry.id.clone());
        (entry.line, named, of_entry(entry))
    }))
}

/// What a key container or a line says of a token, read as far as it is text.
#[derive(Default)]
struct Said {
    serial: Option<String>,
    kind: Option<&'static str>,
    algorithm: Option<Algorithm>,
    digits: Option<u8>,
    period: Option<u64>,
    counter: Option<u64>,
    drift: i64,
    manufacturer: Option<String>,
    model: Option<String>,
}

fn of_entry(entry: Entry) -> Result<Imported, LineFault> {
    let kind = match entry.algorithm.as_deref().and_then(|uri| uri.rsplit(['#', ':']).next()) {
        Some(name) if name.eq_ignore_ascii_case("hotp") => "hotp",
        Some(name) if name.eq_ignore_ascii_case("totp") => "totp",
        _ => return Err(LineFault::Kind),
    };
    if entry.encoding.as_deref().is_some_and(|encoding| encoding != "DECIMAL") || entry.check_digits
    {
        return Err(LineFault::Digits);
    }
    let digits = entry.length.as_deref().map(|text| text.parse().map_err(|_| LineFault::Digits));
    let said = Said {
        serial: entry.serial.or(entry.id),
        kind: Some(kind),
        algorithm: entry.suite.as_deref().map(hash).transpose()?,
        digits: Some(digits.transpose()?.ok_or(LineFault::Digits)?),
        period: entry.interval?,
        counter: entry.counter?,
        drift: entry.drift?.unwrap_or(0),
        manufacturer: entry.manufacturer,
        model: entry.model,
    };
    token(said, entry.secret?)
}

/// The hash that a text names: `SHA256`, `HMAC-SHA256`, `HmacSHA256`.
fn hash(text: &str) -> Result<Algorithm, LineFault> {
    let name: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    let name = name.to_ascii_uppercase();
    match name.strip_prefix("HMAC").unwrap_or(&name) {
        "SHA1" => Ok(Algorithm::Sha1),
        "SHA256" => Ok(Algorithm::Sha256),
        "SHA512" => Ok(Algorithm::Sha512),
        _ => Err(LineFault::Hash),
    }
}

fn token(said: Said, secret: Zeroizing<Vec<u8>>) -> Result<Imported, LineFault> {
    let serial = said.serial.map(|text| text.to_ascii_uppercase());
    let serial = serial.and_then(|text| text.parse().ok()).ok_or(LineFault::Serial)?;
    let algorithm = said.algorithm.unwrap_or(Algorithm::Sha1);
    let digits = Digits::new(said.digits.unwrap_or(6)).map_err(|_| LineFault::Digits)?;
    let (method, after, drift) = if said.kind == Some("totp") {
        let seconds = said.period.unwrap_or(30);
        let period = u16::try_from(seconds).ok().filter(|seconds| *seconds >= 10);
        let period =
            period.and_then(|seconds| Period::new(seconds).ok()).ok_or(LineFault::Period)?;
        if said.drift.abs() > DRIFT_MAX {
            return Err(LineFault::Drift);
        }
        let method = Method::Time(Parameters { algorithm, digits, period });
        (method, None, i32::try_from(said.drift).map_err(|_| LineFault::Drift)?)
    } else {
        let next = said.counter.unwrap_or(0);
        // So that there are codes ahead of it, and that it is stored as a signed number.
        if next > u64::from(u32::MAX) {
            return Err(LineFault::Counter);
        }
        (Method::Counter(CounterParameters { algorithm, digits }), next.checked_sub(1).map(Step), 0)
    };
    let named = |text: Option<String>| {
        text.and_then(|text| Name::parse(&text).ok()).map(|name| name.to_string())
    };
    Ok(Imported {
        serial,
        seed: Seed::from_bytes(secret).map_err(|_| LineFault::Seed)?,
        method,
        after,
        drift,
        manufacturer: named(said.manufacturer),
        model: named(said.model),
    })
}

fn finished(
    read: impl Iterator<Item = (u32, Option<String>, Result<Imported, LineFault>)>,
) -> Result<Vec<Line>, ImportFault> {
    let (mut lines, mut seen) = (Vec::new(), HashMap::new());
    for (line, serial, mut token) in read {
        if lines.len() == KEYS_MAX {
            return Err(ImportFault::TooMany);
        }
        if let Ok(imported) = &token
            && let Some(earlier) = seen.insert(imported.serial.clone(), line)
        {
            token = Err(LineFault::Repeated(earlier));
        }
        let shown =
            |text: &String| text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic());
        lines.push(Line { line, serial: serial.filter(shown), token });
    }
    if lines.is_empty() { Err(ImportFault::Empty) } else { Ok(lines) }
}

/// The columns of a CSV file without a first line that names them: that of LinOTP and privacyIDEA,
/// in which the last field is the seconds of a step or the counter.
const OATH: [Column; 5] =
    [Column::Serial, Column::Hexadecimal, Column::Kind, Column::Digits, Column::PeriodOrCounter];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Serial,
    Kind,
    Hexadecimal,
    Base32,
    Base64,
    Algorithm,
    Digits,
    Period,
    Counter,
    PeriodOrCounter,
    Manufacturer,
    Model,
}

impl Column {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "serial" => Self::Serial,
            "type" => Self::Kind,
            "secret_hex" => Self::Hexadecimal,
            "secret_base32" => Self::Base32,
            "secret_base64" => Self::Base64,
            "algorithm" => Self::Algorithm,
            "digits" => Self::Digits,
            "period" => Self::Period,
            "counter" => Self::Counter,
            "manufacturer" => Self::Manufacturer,
            "model" => Self::Model,
            _ => return None,
        })
    }

    fn is_secret(self) -> bool {
        matches!(self, Self::Hexadecimal | Self::Base32 | Self::Base64)
    }
}

/// Reads CSV: with a first line that names the columns, or as LinOTP and privacyIDEA have it
/// (`serial, hexadecimal seed, HOTP or TOTP, digits, seconds or counter`). Empty lines, and those
/// that begin with `#`, say nothing.
pub fn csv(text: &str) -> Result<Vec<Line>, ImportFault> {
    let text = text.trim_start_matches('\u{feff}');
    let lines = (1..).zip(text.lines());
    let mut lines =
        lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')).peekable();
    let first = lines.peek().map(|(_, line)| fields(line)).unwrap_or_default();
    let has_head = first.first().is_some_and(|name| name.eq_ignore_ascii_case("serial"));
    let columns = if has_head {
        lines.next();
        head(&first)?
    } else {
        OATH.to_vec()
    };
    finished(lines.map(|(number, line)| {
        let fields = fields(line);
        let serial = columns.iter().position(|column| *column == Column::Serial);
        let serial = serial.and_then(|place| fields.get(place)).map(|text| text.to_string());
        (number, serial, of_fields(&columns, &fields, has_head))
    }))
}

fn head(names: &[Zeroizing<String>]) -> Result<Vec<Column>, ImportFault> {
    let columns: Option<Vec<Column>> =
        names.iter().map(|name| Column::named(&name.to_ascii_lowercase())).collect();
    let columns = columns.ok_or(ImportFault::Columns)?;
    let twice = columns.iter().enumerate().any(|(place, column)| columns[..place].contains(column));
    let secrets = columns.iter().filter(|column| column.is_secret()).count();
    if twice || secrets != 1 { Err(ImportFault::Columns) } else { Ok(columns) }
}

/// The fields of a line: divided by commas, in double quotes or not.
fn fields(line: &str) -> Vec<Zeroizing<String>> {
    line.split(',')
        .map(|field| {
            let field = field.trim();
            let bare = field.strip_prefix('"').and_then(|field| field.strip_suffix('"'));
            Zeroizing::new(bare.unwrap_or(field).trim().to_owned())
        })
        .collect()
}

fn of_fields(
    columns: &[Column],
    fields: &[Zeroizing<String>],
    all: bool,
) -> Result<Imported, LineFault> {
    // Without a head the fields behind the seed may be left out.
    if fields.len() > columns.len() || fields.len() < if all { columns.len() } else { 2 } {
        return Err(LineFault::Fields);
    }
    let (mut said, mut secret) = (Said { kind: Some("hotp"), ..Said::default() }, None);
    for (column, field) in columns.iter().zip(fields).filter(|(_, field)| !field.is_empty()) {
        let text = field.as_str();
        match column {
            Column::Serial => said.serial = Some(text.to_owned()),
            Column::Kind => {
                said.kind = Some(match text.to_ascii_lowercase().as_str() {
                    "hotp" | "hmac" => "hotp",
                    "totp" => "totp",
                    _ => return Err(LineFault::Kind),
                });
            }
            Column::Hexadecimal => secret = Some(hexadecimal(text).ok_or(LineFault::Seed)?),
            Column::Base32 => {
                let seed = otpauth::decode_typed(text).map_err(|_| LineFault::Seed)?;
                secret = Some(Zeroizing::new(seed.expose().to_vec()));
            }
            Column::Base64 => {
                let decoded = STANDARD.decode(text).map_err(|_| LineFault::Seed)?;
                secret = Some(Zeroizing::new(decoded));
            }
            Column::Algorithm => said.algorithm = Some(hash(text)?),
            Column::Digits => said.digits = Some(text.parse().map_err(|_| LineFault::Digits)?),
            Column::Period => said.period = Some(text.parse().map_err(|_| LineFault::Period)?),
            Column::Counter => said.counter = Some(text.parse().map_err(|_| LineFault::Counter)?),
            Column::PeriodOrCounter if said.kind == Some("totp") => {
                said.period = Some(text.parse().map_err(|_| LineFault::Period)?);
            }
            Column::PeriodOrCounter => {
                said.counter = Some(text.parse().map_err(|_| LineFault::Counter)?);
            }
            Column::Manufacturer => said.manufacturer = Some(text.to_owned()),
            Column::Model => said.model = Some(text.to_owned()),
        }
    }
    token(said, secret.ok_or(LineFault::Seed)?)
}

/// Bytes in hexadecimal, in either case.
pub fn hexadecimal(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    for pair in text.as_bytes().chunks(2) {
        let (high, low) = (digit(pair[0])?, digit(pair[1])?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "3132333435363738393031323334353637383930";

    #[test]
    fn a_file_of_linotp_or_privacyidea_reads() {
        let text = format!(
            "# token export\nCC000000,{HEX},HOTP,6,7\n\nTO-1234,{HEX},TOTP,8,60\nplain-9,{HEX}\n"
        );
        let lines = csv(&text).expect("lines");
        let read = |place: usize| {
            let line: &Line = &lines[place];
            let token = line.token.as_ref().unwrap_or_else(|fault| panic!("{fault}"));
            (line.line, token.serial.to_string(), token.method, token.after)
        };
        let sha1 = Algorithm::Sha1;
        let counter = |digits| Method::Counter(CounterParameters { algorithm: sha1, digits });
        assert_eq!(read(0), (2, "CC000000".to_owned(), counter(Digits::SIX), Some(Step(6))));
        let (line, serial, method, after) = read(1);
        assert_eq!((line, serial.as_str(), after), (4, "TO-1234", None));
        let period = Period::new(60).expect("a period");
        assert_eq!(
            method,
            Method::Time(Parameters { algorithm: sha1, digits: Digits::EIGHT, period })
        );
        assert_eq!(read(2), (5, "PLAIN-9".to_owned(), counter(Digits::SIX), None));
    }

    #[test]
    fn a_first_line_names_the_columns_in_any_order() {
        let text = "serial,secret_base32,type,algorithm,period,model\n\
                    \"A-1000\",GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ,totp,HMAC-SHA256,30,Card\n";
        let lines = csv(text).expect("lines");
        let token = lines[0].token.as_ref().unwrap_or_else(|fault| panic!("{fault}"));
        assert!(token.seed.expose() == b"12345678901234567890");
        assert_eq!(token.method.algorithm(), Algorithm::Sha256);
        assert_eq!(token.model.as_deref(), Some("Card"));
        for wrong in ["serial,type\n", "serial,secret_hex,secret_hex\n", "serial,secret\nA-1,00\n"]
        {
            assert_eq!(csv(wrong).err(), Some(ImportFault::Columns), "{wrong}");
        }
        assert_eq!(csv("# nothing\n").err(), Some(ImportFault::Empty));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_and_the_seed_is_not() {
        for (line, fault) in [
            (format!("AB,{HEX}"), LineFault::Serial),
            ("ABCD,31323334".to_owned(), LineFault::Seed),
            ("ABCD,3132333g".to_owned(), LineFault::Seed),
            (format!("ABCD,{HEX},OCRA"), LineFault::Kind),
            (format!("ABCD,{HEX},TOTP,9"), LineFault::Digits),
            (format!("ABCD,{HEX},TOTP,6,5"), LineFault::Period),
            (format!("ABCD,{HEX},TOTP,6,86400"), LineFault::Period),
            (format!("ABCD,{HEX},HOTP,6,-1"), LineFault::Counter),
            (format!("ABCD,{HEX},HOTP,6,99999999999"), LineFault::Counter),
            (format!("ABCD,{HEX},HOTP,6,0,0"), LineFault::Fields),
            ("ABCD".to_owned(), LineFault::Fields),
        ] {
            let found = csv(&line).expect("lines")[0].token.as_ref().err().copied();
            assert_eq!(found, Some(fault), "{line}");
            assert!(!format!("{fault} {fault:?}").contains("3132"));
        }
        let twice = csv(&format!("ABCD,{HEX}\nabcd,{HEX}\n")).expect("lines");
        assert_eq!(twice[1].token.as_ref().err(), Some(&LineFault::Repeated(1)));
    }
}
