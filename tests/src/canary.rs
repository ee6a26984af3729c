//! A search for secrets in whatever a server leaves behind, in every form a careless program could
//! have written them (security 40).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};

/// Something that must not be found.
#[derive(Clone, Debug)]
pub struct Canary {
    /// What it is, for the message.
    pub name: String,
    needles: Vec<Vec<u8>>,
}

impl Canary {
    /// A secret of bytes, such as a seed: raw, hexadecimal in both cases, percent-encoded, base32,
    /// base64, base64url.
    pub fn bytes(name: &str, secret: &[u8]) -> Self {
        assert!(secret.len() >= 4, "{name} would be found by chance");
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let base32 = base32(secret);
        let percent: String = secret.iter().map(|byte| format!("%{byte:02X}")).collect();
        let mut needles = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
        needles.extend([percent_encoded(secret), percent.to_lowercase(), percent].map(Into::into));
        needles.push(base32.to_lowercase().into_bytes());
        needles.push(base32.into_bytes());
        // Without what depends on the bytes that follow, so that a secret within a longer text
        // shows as well.
        for text in
            [STANDARD.encode(secret), URL_SAFE.encode(secret), STANDARD_NO_PAD.encode(secret)]
        {
            let whole = text.len() - text.len().min(4);
            needles.push(text.as_bytes()[..whole].to_vec());
        }
        needles.retain(|needle| needle.len() >= 4);
        Self { name: name.to_owned(), needles }
    }

    /// A secret that is text: itself, and as bytes.
    pub fn text(name: &str, secret: &str) -> Self {
        Self::bytes(name, secret.as_bytes())
    }

    /// A short secret, such as a code: only where it stands by itself, so that digits within other
    /// numbers do not count.
    pub fn standing_alone(name: &str, secret: &str) -> Self {
        Self { name: format!("{name} (alone)"), needles: vec![secret.as_bytes().to_vec()] }
    }

    /// One of the forms in which it would be found.
    pub fn example(&self) -> &[u8] {
        self.needles.last().map_or(b"", Vec::as_slice)
    }

    /// Whether it is in `hay`.
    pub fn is_in(&self, hay: &[u8]) -> bool {
        let alone = self.name.ends_with("(alone)");
        self.needles.iter().any(|needle| {
            let mut from = 0;
            while let Some(found) = find(&hay[from..], needle) {
                let (begin, end) = (from + found, from + found + needle.len());
                let near = |place: Option<&u8>| place.is_some_and(u8::is_ascii_alphanumeric);
                let before = begin.checked_sub(1).and_then(|place| hay.get(place));
                if !alone || !(near(before) || near(hay.get(end))) {
                    return true;
                }
                from = begin + 1;
            }
            false
        })
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    loop {
        from += hay.get(from..)?.iter().position(|byte| *byte == first)?;
        if hay[from..].starts_with(needle) {
            return Some(from);
        }
        from += 1;
    }
}

/// As in an address: letters, digits and four marks stay what they are (RFC 3986 section 2.3).
fn percent_encoded(bytes: &[u8]) -> String {
    let stays = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: &u8| {
        if stays(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }
    };
    bytes.iter().map(encode).collect()
}

fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut text, mut held, mut bits) = (String::new(), 0_u32, 0);
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits) as usize & 31]));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(held << (5 - bits)) as usize & 31]));
    }
    text
}

/// The canaries that are in `hay`, by name.
pub fn found<'c>(canaries: &'c [Canary], hay: &[u8]) -> Vec<&'c str> {
    canaries.iter().filter(|canary| canary.is_in(hay)).map(|canary| canary.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_canary_is_found_in_every_form() {
        let secret = b"\x00\x01seed of thirty-two bytes!\xfe\xff\x10\x20";
        let canary = Canary::bytes("seed", secret);
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let forms = [
            secret.to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
            base32(secret).into_bytes(),
            STANDARD.encode(secret).into_bytes(),
            URL_SAFE.encode(secret).into_bytes(),
            percent_encoded(secret).into_bytes(),
            secret.iter().map(|byte| format!("%{byte:02x}")).collect::<String>().into_bytes(),
        ];
        for form in forms {
            let hay = [b"{\"x\":\"", form.as_slice(), b"\"}"].concat();
            assert!(canary.is_in(&hay), "{}", String::from_utf8_lossy(&hay));
        }
        assert!(!canary.is_in(b"nothing of the kind"));
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
    }

    #[test]
    fn a_code_counts_only_where_it_stands_by_itself() {
        let code = Canary::standing_alone("code", "12345678");
        assert!(code.is_in(b"code: \"12345678\"") && code.is_in(b"12345678"));
        assert!(!code.is_in(b"at 9912345678.1") && !code.is_in(b"x12345678"));
    }
}
