//! The one thing that has to be known of a certificate that `rustls` does not tell: when it ends.
//! Read from its DER (RFC 5280 section 4.1), as far as that needs.

use semilla_core::time::Timestamp;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;

/// One element: its tag, its contents, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match usize::from(first) {
        short @ 0..=0x7F => (short, rest),
        long => {
            let (count, mut length) = (long & 0x7F, 0);
            let (digits, rest) =
                rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
            for digit in digits {
                length = length << 8 | usize::from(*digit);
            }
            (length, rest)
        }
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

fn tagged(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(tag, ..)| *tag == wanted).map(|(_, contents, rest)| (contents, rest))
}

/// When a certificate ends; none where this is no certificate.
pub fn expires(der: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = tagged(der, SEQUENCE)?;
    let (mut signed, _) = tagged(certificate, SEQUENCE)?;
    if let Some((_, rest)) = tagged(signed, VERSION) {
        signed = rest;
    }
    let (_serial, rest) = tagged(signed, INTEGER)?;
    let (_algorithm, rest) = tagged(rest, SEQUENCE)?;
    let (_issuer, rest) = tagged(rest, SEQUENCE)?;
    let (validity, _) = tagged(rest, SEQUENCE)?;
    let (_, _not_before, rest) = element(validity)?;
    let (tag, not_after, _) = element(rest)?;
    moment(tag, std::str::from_utf8(not_after).ok()?)
}

/// `260101000000Z`, of which 50 is 1950 and 49 is 2049, or `20260101000000Z`.
fn moment(tag: u8, text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix('Z').filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    let full = match (tag, text.len()) {
        (UTC_TIME, 12) => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        (GENERALIZED_TIME, 14) => text.to_owned(),
        _ => return None,
    };
    // Long past, or without an end (RFC 5280 section 4.1.2.5): beyond what a moment here can be.
    if full.as_str() < "1970" {
        return Some(Timestamp::from_milliseconds(0));
    }
    let full = if full.starts_with("9999") { "99991201000000".to_owned() } else { full };
    let part = |from: usize, to: usize| &full[from..to];
    let (date, time) = (
        format!("{}-{}-{}", part(0, 4), part(4, 6), part(6, 8)),
        format!("{}:{}:{}", part(8, 10), part(10, 12), part(12, 14)),
    );
    Timestamp::parse(&format!("{date}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_of_its_forms() {
        for (year, text) in [(2049, "2049-12-31"), (2050, "2050-01-01"), (9999, "9999-12-01")] {
            let mut parameters =
                rcgen::CertificateParams::new(vec!["bank.example".to_owned()]).expect("a name");
            let (month, day) = if year == 2050 { (1, 1) } else { (12, 31) };
            parameters.not_after = rcgen::date_time_ymd(year, month, day);
            let key = rcgen::KeyPair::generate().expect("a key");
            let made = parameters.self_signed(&key).expect("a certificate");
            let expires = expires(made.der()).expect("an end");
            assert_eq!(expires.to_string(), format!("{text}T00:00:00.000Z"));
            for cut in 0..made.der().len().min(120) {
                assert_eq!(super::expires(&made.der()[..cut]), None);
            }
        }
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for (tag, text) in [
            (UTC_TIME, "260101000000"),
            (UTC_TIME, "2601010000Z"),
            (UTC_TIME, "20260101000000Z"),
            (GENERALIZED_TIME, "260101000000Z"),
            (GENERALIZED_TIME, "20261301000000Z"),
            (GENERALIZED_TIME, "2026010100000\u{e9}Z"),
            (SEQUENCE, "260101000000Z"),
        ] {
            assert_eq!(moment(tag, text), None, "{text}");
        }
        let told = |text| moment(UTC_TIME, text).expect("a moment").to_string();
        assert_eq!(told("500101000000Z"), "1970-01-01T00:00:00.000Z");
        assert_eq!(told("491231235959Z"), "2049-12-31T23:59:59.000Z");
    }
}
