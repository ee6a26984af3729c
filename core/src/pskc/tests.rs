//! The figures of RFC 6030, written as python-pskc's own tests have them, and files that mean harm.

use super::*;
use crate::entropy::testing::Seeded;
use crate::import::{self, LineFault, hexadecimal};
use crate::otp::{Algorithm, CounterParameters, Digits, Method, Parameters, Step};
use crate::secret::Seed;

const SECRET: &[u8] = b"12345678901234567890";

fn figure(number: u32) -> &'static str {
    match number {
        2 => include_str!("../../tests/vectors/pskc/figure2.pskcxml"),
        5 => include_str!("../../tests/vectors/pskc/figure5.pskcxml"),
        6 => include_str!("../../tests/vectors/pskc/figure6.pskcxml"),
        7 => include_str!("../../tests/vectors/pskc/figure7.pskcxml"),
        10 => include_str!("../../tests/vectors/pskc/figure10.pskcxml"),
        _ => panic!("not here"),
    }
}

fn preshared() -> FileKey {
    FileKey::Preshared(hexadecimal("12345678901234567890123456789012").expect("a key"))
}

fn passphrase(text: &str) -> FileKey {
    FileKey::Passphrase(SecretText::new(text.to_owned()))
}

fn fault(text: &str, key: &FileKey) -> FileFault {
    read(text, key).map(drop).expect_err("refused")
}

#[test]
fn the_figures_of_rfc_6030_read() {
    for (number, key) in
        [(2, FileKey::None), (5, FileKey::None), (6, preshared()), (7, passphrase("qwerty"))]
    {
        let entries =
            read(figure(number), &key).unwrap_or_else(|fault| panic!("{number}: {fault}"));
        let secret = entries[0].secret.as_ref().unwrap_or_else(|fault| panic!("{number}: {fault}"));
        let expected = match number {
            2 => b"1234".to_vec(),
            // As the figure has it: the digits in hexadecimal.
            7 => hexadecimal("3132333435363738393031323334353637383930").expect("bytes").to_vec(),
            _ => SECRET.to_vec(),
        };
        assert!(**secret == expected, "{number}");
    }
    // The PIN of figure 5 is no token, and is said not to be one.
    let lines = import::pskc(figure(5), &FileKey::None).expect("lines");
    assert!(lines[0].token.is_ok());
    assert_eq!(lines[1].token.as_ref().err(), Some(&LineFault::Kind));
    // The devices of figure 10, of which two keys are on one.
    let lines = import::pskc(figure(10), &FileKey::None).expect("lines");
    let serials: Vec<_> = lines.iter().map(|line| line.serial.as_deref().unwrap_or("")).collect();
    assert_eq!(serials, ["654321", "123456", "9999999", "9999999"]);
    assert!(matches!(lines[3].token, Err(LineFault::Repeated(_))));
}

#[test]
fn a_wrong_key_a_wrong_mac_and_no_mac_open_nothing() {
    let six = figure(6);
    assert_eq!(fault(six, &FileKey::None), FileFault::KeyMissing);
    assert_eq!(fault(six, &passphrase("qwerty")), FileFault::PresharedExpected);
    assert_eq!(fault(figure(7), &preshared()), FileFault::PassphraseExpected);
    assert_eq!(fault(figure(7), &passphrase("qwertz")), FileFault::WrongKey);
    let short = FileKey::Preshared(Zeroizing::new(vec![1; 15]));
    assert_eq!(fault(six, &short), FileFault::WrongKey);

    let secret =
        |text: &str| read(text, &preshared()).expect("entries")[0].secret.as_ref().err().copied();
    assert_eq!(secret(six), None);
    let altered = six.replacen("AAECAwQF", "AAECAwQG", 1);
    assert_eq!(secret(&altered), Some(ValueFault::Mac), "its first block would read otherwise");
    assert_eq!(secret(&six.replacen("Su+Nvt", "Au+Nvt", 1)), Some(ValueFault::Mac));
    let (begin, end) = (six.find("<ValueMAC>").expect("it"), six.find("</ValueMAC>").expect("it"));
    let without = format!("{}{}", &six[..begin], &six[end + "</ValueMAC>".len()..]);
    assert_eq!(secret(&without), Some(ValueFault::MacMissing));
    let other = six.replace("xmldsig#hmac-sha1", "xmldsig#hmac-md5");
    assert_eq!(fault(&other, &preshared()), FileFault::MacMethod);
}

#[test]
fn hostile_files_are_refused_before_they_cost_anything() {
    let two = figure(2);
    let bomb = two.replacen(
        "<KeyContainer",
        "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]><KeyContainer",
        1,
    );
    assert!(matches!(fault(&bomb, &FileKey::None), FileFault::NotXml(_)));
    let outside = two.replacen("<Data>", "<Data>&x;", 1);
    assert!(matches!(fault(&outside, &FileKey::None), FileFault::NotXml(_)));
    let deep = format!("<KeyContainer Version=\"1.0\">{}", "<a>".repeat(200_000));
    assert!(read(&deep, &FileKey::None).is_err());
    let closed = format!("{deep}{}</KeyContainer>", "</a>".repeat(200_000));
    assert!(read(&closed, &FileKey::None).is_err());
    let wide = format!("<KeyContainer Version=\"1.0\">{}</KeyContainer>", "<a/>".repeat(NODES));
    assert_eq!(fault(&wide, &FileKey::None), FileFault::TooLarge);
    let slow = figure(7).replacen(">1000<", ">4000000000<", 1);
    assert_eq!(fault(&slow, &passphrase("qwerty")), FileFault::Derivation);
    for other in
        ["", "no xml", "<KeyContainer/>", "<a Version=\"1.0\"/>", "<KeyContainer Version=\"1.0\"/>"]
    {
        assert!(read(other, &FileKey::None).is_err(), "{other}");
    }
}

const NODES: usize = KEYS_MAX * 80 + 1;

#[test]
fn what_is_written_under_a_passphrase_reads_with_it_and_with_no_other() {
    let entropy = Seeded::new(11);
    let token = |serial: &str, method, counter, drift| Exported {
        serial: serial.parse().expect("a serial"),
        seed: Seed::from_bytes(Zeroizing::new(SECRET.to_vec())).expect("a seed"),
        method,
        counter,
        drift,
        manufacturer: Some("Ñandú & <Hijos>".to_owned()),
        model: None,
    };
    let counter = CounterParameters { algorithm: Algorithm::Sha512, digits: Digits::SIX };
    let tokens = [
        token("HW-1000", Method::Counter(counter), 42, 0),
        token("HW-1001", Method::Time(Parameters::APP_MOVIL), 0, -3),
    ];
    let text = write(&tokens, &SecretText::new("correct horse".to_owned()), &entropy);
    assert!(!text.contains("MTIzNDU2Nzg5") && !text.contains("correct horse"));
    assert!(import::pskc(&text, &passphrase("correct house")).is_err());
    let lines = import::pskc(&text, &passphrase("correct horse")).expect("lines");
    for (line, written) in lines.iter().zip(&tokens) {
        let token = line.token.as_ref().unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(token.serial, written.serial);
        assert_eq!(token.method, written.method);
        assert_eq!(token.drift, written.drift);
        assert_eq!(token.manufacturer, written.manufacturer);
        assert!(token.seed.expose() == SECRET);
    }
    assert_eq!(lines[0].token.as_ref().map(|token| token.after).ok(), Some(Some(Step(41))));
}
