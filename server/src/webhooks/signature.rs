//! Signatures as Standard Webhooks has them: HMAC-SHA-256 over `id.timestamp.body`, one for each
//! secret that is still good, in one header.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use semilla_core::time::Timestamp;
use zeroize::Zeroizing;

/// How many bytes a secret has.
pub const SECRET_LENGTH: usize = 32;

/// A secret as its receiver keeps it.
pub fn shown(secret: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(format!("whsec_{}", STANDARD.encode(secret)))
}

/// The header `webhook-signature`.
pub fn sign(secrets: &[Zeroizing<Vec<u8>>], id: &str, at: Timestamp, body: &str) -> String {
    let message = format!("{id}.{}.{body}", at.seconds());
    let signature = |secret: &Zeroizing<Vec<u8>>| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("v1,{}", STANDARD.encode(tag.as_ref()))
    };
    secrets.iter().map(signature).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_of_the_specifications_example() {
        // Standard Webhooks, "Example Webhook signature verification".
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let body = r#"{"test": 2432232314}"#;
        let at = Timestamp::from_seconds(1_614_265_330);
        let signed = sign(&[Zeroizing::new(secret)], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
