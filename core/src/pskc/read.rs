//! Reading. Elements are found by their local names, since makers differ in how they declare
//! namespaces and some do not; what an element says is read strictly.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::pbkdf2;
use roxmltree::{Document, Node, ParsingOptions};
use zeroize::Zeroizing;

use super::cipher::{Cipher, MacMethod};
use super::{FileFault, FileKey, KEYS_MAX, ROUNDS_MAX, ValueFault};

/// The nodes of one file, at most: a key has about fifty, spaces between them included.
const NODES_MAX: usize = KEYS_MAX * 80;

/// A key as the file gives it, in the file's own words.
pub struct Entry {
    /// The line its package begins at.
    pub line: u32,
    /// The serial number of the device.
    pub serial: Option<String>,
    /// The id of the key.
    pub id: Option<String>,
    /// Who made the device.
    pub manufacturer: Option<String>,
    /// Which one it is.
    pub model: Option<String>,
    /// The URI of what codes are made by.
    pub algorithm: Option<String>,
    /// Which variant of it.
    pub suite: Option<String>,
    /// How codes are written.
    pub encoding: Option<String>,
    /// How long codes are.
    pub length: Option<String>,
    /// Whether a check digit is appended to codes.
    pub check_digits: bool,
    /// The seed.
    pub secret: Result<Zeroizing<Vec<u8>>, ValueFault>,
    /// The counter of the next code.
    pub counter: Result<Option<u64>, ValueFault>,
    /// Seconds of a step.
    pub interval: Result<Option<u64>, ValueFault>,
    /// Steps by which the device's clock is off.
    pub drift: Result<Option<i64>, ValueFault>,
}

/// What opens the values of a file.
struct Keys {
    value: Option<Zeroizing<Vec<u8>>>,
    mac: Option<(MacMethod, Zeroizing<Vec<u8>>)>,
}

/// Reads a file. What is wrong with one of its keys is said with that key.
pub fn read(text: &str, key: &FileKey) -> Result<Vec<Entry>, FileFault> {
    let text = text.trim_start_matches('\u{feff}');
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: u32::try_from(NODES_MAX).unwrap_or(u32::MAX),
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options).map_err(|error| match error {
        roxmltree::Error::NodesLimitReached => FileFault::TooLarge,
        error => FileFault::NotXml(error.pos().row),
    })?;
    let root = document.root_element();
    if root.tag_name().name() != "KeyContainer" || root.attribute("Version") != Some("1.0") {
        return Err(FileFault::NotPskc);
    }
    let packages: Vec<_> = children(root, "KeyPackage").collect();
    if packages.is_empty() {
        return Err(FileFault::NotPskc);
    }
    let keys = keys(root, key)?;
    let mut entries = Vec::new();
    for package in packages {
        // A package without a key tells of a device; there is nothing in it to take over.
        for found in children(package, "Key") {
            if entries.len() == KEYS_MAX {
                return Err(FileFault::TooLarge);
            }
            let line = document.text_pos_at(package.range().start).row;
            entries.push(entry(line, package, found, &keys));
        }
    }
    Ok(entries)
}

fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.is_element() && child.tag_name().name() == name)
}

/// The one descendant along a path; none where a step of it is missing.
fn at<'a, 'input>(node: Node<'a, 'input>, path: &[&'static str]) -> Option<Node<'a, 'input>> {
    path.iter().try_fold(node, |node, name| children(node, name).next())
}

fn words(node: Node<'_, '_>, path: &[&'static str]) -> Option<String> {
    let text = at(node, path)?.text()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn binary(node: Node<'_, '_>) -> Result<Zeroizing<Vec<u8>>, ValueFault> {
    let text = node.text().unwrap_or_default();
    let dense = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    let dense = Zeroizing::new(dense.collect::<Vec<u8>>());
    STANDARD.decode(dense.as_slice()).map(Zeroizing::new).map_err(|_| ValueFault::Unreadable)
}

fn keys(root: Node<'_, '_>, given: &FileKey) -> Result<Keys, FileFault> {
    let encrypted = at(root, &["EncryptionKey"]);
    let derived = encrypted.and_then(|node| at(node, &["DerivedKey", "KeyDerivationMethod"]));
    let value = match (encrypted, derived, given) {
        (None, ..) => None,
        (Some(_), _, FileKey::None) => return Err(FileFault::KeyMissing),
        (Some(_), Some(_), FileKey::Preshared(_)) => return Err(FileFault::PassphraseExpected),
        (Some(_), None, FileKey::Passphrase(_)) => return Err(FileFault::PresharedExpected),
        (Some(_), None, FileKey::Preshared(key)) => Some(key.clone()),
        (Some(_), Some(method), FileKey::Passphrase(passphrase)) => {
            Some(derive(method, passphrase.expose().as_bytes()).ok_or(FileFault::Derivation)?)
        }
    };
    let mac = match (at(root, &["MACMethod"]), &value) {
        (Some(method), Some(value)) => Some(mac(method, value)?),
        _ => None,
    };
    Ok(Keys { value, mac })
}

fn derive(method: Node<'_, '_>, passphrase: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let is_pbkdf2 = method.attribute("Algorithm").is_some_and(|uri| uri.ends_with("#pbkdf2"));
    let parameters = at(method, &["PBKDF2-params"]).filter(|_| is_pbkdf2)?;
    let salt = binary(at(parameters, &["Salt", "Specified"])?).ok()?;
    let rounds = words(parameters, &["IterationCount"])?.parse::<NonZeroU32>().ok()?;
    let length = words(parameters, &["KeyLength"])?.parse::<usize>().ok()?;
    // An attribute says which; python-pskc writes it as text.
    let prf = at(parameters, &["PRF"]);
    let prf = prf.and_then(|prf| prf.attribute("Algorithm").or_else(|| prf.text()));
    let prf = match prf
        .map(str::trim)
        .filter(|uri| !uri.is_empty())
        .map(|uri| uri.rsplit_once('#').map_or(uri, |(_, name)| name))
    {
        None | Some("hmac-sha1") => pbkdf2::PBKDF2_HMAC_SHA1,
        Some("hmac-sha256") => pbkdf2::PBKDF2_HMAC_SHA256,
        Some("hmac-sha512") => pbkdf2::PBKDF2_HMAC_SHA512,
        Some(_) => return None,
    };
    if rounds.get() > ROUNDS_MAX || ![16, 24, 32].contains(&length) {
        return None;
    }
    let mut key = Zeroizing::new(vec![0; length]);
    pbkdf2::derive(prf, rounds, &salt, passphrase, &mut key);
    Some(key)
}

fn mac(method: Node<'_, '_>, key: &[u8]) -> Result<(MacMethod, Zeroizing<Vec<u8>>), FileFault> {
    let refused = FileFault::MacMethod;
    let known = method.attribute("Algorithm").and_then(MacMethod::named).ok_or(refused)?;
    let encrypted = at(method, &["MACKey"]).ok_or(refused)?;
    let (cipher, value) = cipher_value(encrypted).map_err(|_| refused)?;
    // Encrypted without a MAC of its own (RFC 6030 section 6.2): a forged key makes no MAC right.
    let opened = cipher.decrypt(key, &value).map_err(|_| FileFault::WrongKey)?;
    Ok((known, opened))
}

fn cipher_value(encrypted: Node<'_, '_>) -> Result<(Cipher, Zeroizing<Vec<u8>>), ValueFault> {
    let method = at(encrypted, &["EncryptionMethod"]).and_then(|node| node.attribute("Algorithm"));
    let cipher = method.and_then(Cipher::named).ok_or(ValueFault::Algorithm)?;
    let value = at(encrypted, &["CipherData", "CipherValue"]).ok_or(ValueFault::Unreadable)?;
    Ok((cipher, binary(value)?))
}

impl Keys {
    /// What an encrypted value is.
    fn open(&self, holder: Node<'_, '_>) -> Result<Zeroizing<Vec<u8>>, ValueFault> {
        let encrypted = at(holder, &["EncryptedValue"]).ok_or(ValueFault::Missing)?;
        let (cipher, value) = cipher_value(encrypted)?;
        let key = self.value.as_ref().ok_or(ValueFault::KeyMissing)?;
        if cipher.needs_mac() {
            let given = at(holder, &["ValueMAC"]).ok_or(ValueFault::MacMissing)?;
            let (method, mac_key) = self.mac.as_ref().ok_or(ValueFault::MacMissing)?;
            if !method.holds(mac_key, &value, &binary(given)?) {
                return Err(ValueFault::Mac);
            }
        }
        cipher.decrypt(key, &value)
    }

    /// A secret: in base64 where it is in clear.
    fn secret(&self, data: Option<Node<'_, '_>>) -> Result<Zeroizing<Vec<u8>>, ValueFault> {
        let holder = data.and_then(|data| at(data, &["Secret"])).ok_or(ValueFault::Missing)?;
        match at(holder, &["PlainValue"]) {
            Some(plain) => binary(plain),
            None => self.open(holder),
        }
    }

    /// A number: in decimal; some makers write its bytes, the highest first.
    fn number(
        &self,
        data: Option<Node<'_, '_>>,
        name: &'static str,
    ) -> Result<Option<i128>, ValueFault> {
        let Some(holder) = data.and_then(|data| at(data, &[name])) else { return Ok(None) };
        let bytes = match at(holder, &["PlainValue"]) {
            Some(plain) => {
                if let Ok(number) = plain.text().unwrap_or_default().trim().parse::<i64>() {
                    return Ok(Some(number.into()));
                }
                binary(plain)?
            }
            None => self.open(holder)?,
        };
        let decimal = str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse::<i64>().ok());
        if let Some(number) = decimal {
            return Ok(Some(number.into()));
        }
        if !(1..=8).contains(&bytes.len()) {
            return Err(ValueFault::Unreadable);
        }
        Ok(Some(bytes.iter().fold(0, |number, byte| number << 8 | i128::from(*byte))))
    }

    fn count(
        &self,
        data: Option<Node<'_, '_>>,
        name: &'static str,
    ) -> Result<Option<u64>, ValueFault> {
        let number = self.number(data, name)?;
        number.map(|number| number.try_into().map_err(|_| ValueFault::Unreadable)).transpose()
    }
}

fn entry(line: u32, package: Node<'_, '_>, key: Node<'_, '_>, keys: &Keys) -> Entry {
    let data = at(key, &["Data"]);
    let format = at(key, &["AlgorithmParameters", "ResponseFormat"]);
    let said = |name| format.and_then(|format| format.attribute(name)).map(str::to_owned);
    let drift = keys.number(data, "TimeDrift").and_then(|number| {
        number.map(|number| number.try_into().map_err(|_| ValueFault::Unreadable)).transpose()
    });
    Entry {
        line,
        serial: words(package, &["DeviceInfo", "SerialNo"]),
        id: key.attribute("Id").map(str::to_owned),
        manufacturer: words(package, &["DeviceInfo", "Manufacturer"]),
        model: words(package, &["DeviceInfo", "Model"]),
        algorithm: key.attribute("Algorithm").map(str::to_owned),
        suite: words(key, &["AlgorithmParameters", "Suite"]),
        encoding: said("Encoding"),
        length: said("Length"),
        check_digits: matches!(said("CheckDigits").as_deref(), Some("true" | "1")),
        secret: keys.secret(data),
        counter: keys.count(data, "Counter"),
        interval: keys.count(data, "TimeInterval"),
        drift,
    }
}
