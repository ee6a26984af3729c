//! `application/x-www-form-urlencoded`, read strictly: query strings and the body of `POST /token`.
//! Where the URL standard repairs what it finds, this refuses: half an escape, bytes that are not
//! UTF-8, the same name twice.

/// Why a text is no form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError {
    /// An escape without two hexadecimal digits, or bytes that are not UTF-8.
    #[error("an escape is incomplete, or does not make UTF-8")]
    Escape,
    /// This name comes twice (RFC 6749 section 3.2 forbids it; we do everywhere).
    #[error("{0} is given more than once")]
    Repeated(String),
}

/// Reads names and values in their order.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, FormError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for piece in text.split('&').filter(|piece| !piece.is_empty()) {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        if pairs.iter().any(|(earlier, _)| *earlier == name) {
            return Err(FormError::Repeated(name));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// Reads one name or value: `+` is a blank, `%xx` a byte.
pub(super) fn decode(text: &str) -> Result<String, FormError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    let digit = char::from(rest.next().ok_or(FormError::Escape)?);
                    digit.to_digit(16).ok_or(FormError::Escape)
                };
                // Two digits make at most 255.
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| FormError::Escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_it_was_meant() {
        let pairs = parse("a=1&b=x+y%20z&&c&d=%C3%B1%26").expect("a form");
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("a", "1"), ("b", "x y z"), ("c", ""), ("d", "ñ&")]);
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn security_98_what_could_be_read_in_two_ways_is_refused() {
        for broken in ["a=%", "a=%4", "a=%zz", "a=%ff", "%c3=1", "a=%+1"] {
            assert_eq!(parse(broken), Err(FormError::Escape), "{broken}");
        }
        for twice in ["a=1&a=1", "a=1&%61=2"] {
            assert_eq!(parse(twice), Err(FormError::Repeated("a".to_owned())));
        }
    }
}
