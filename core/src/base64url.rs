//! Base64url without padding (RFC 4648 section 5): how every binary value is written.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Writes bytes.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads bytes; `None` unless `text` is the one way to write them: padding, line breaks, other
/// alphabets and stray last bits are refused.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_have_one_spelling() {
        assert_eq!(super::encode(&[0xfb, 0xff]), "-_8");
        assert_eq!(super::decode("-_8"), Some(vec![0xfb, 0xff]));
        for other in ["-_8=", "+/8", "-_9", "-_8\n", " -_8"] {
            assert_eq!(super::decode(other), None, "{other}");
        }
    }
}
