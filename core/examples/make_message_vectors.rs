//! Writes examples of every signed or sealed message, with the keys that made them, as JSON to the
//! standard output: the text of `core/tests/vectors/messages.json`. ECDSA draws a number for each
//! signature, so that every run writes others; the file is frozen, and made anew only when the
//! protocol changes.
//!
//! ```sh
//! cargo run -p semilla-core --example make_message_vectors > core/tests/vectors/messages.json
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use semilla_core::base64url;
use semilla_core::entropy::Entropy;
use semilla_core::id::{ClientId, CompanyId, DeviceId, EnrollmentId, OperationId, TokenId, UserId};
use semilla_core::language::Language;
use semilla_core::protocol::activation::{ActivationCode, EnrollUri};
use semilla_core::protocol::approval::{
    Action, ApprovalRequest, ApprovalResponse, Decision, DenialReason, Display, MatchNumber,
    Operation, TokenRef, UserVerification, VerificationMethod, request_hash,
};
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::consent::{BindingMessage, Consent, Details};
use semilla_core::protocol::dpop;
use semilla_core::protocol::jwk::{JwkSet, SigningKey};
use semilla_core::protocol::messages::{
    Bind, Enroll, KeyChange, KeyProof, Message, RotateRequest, SeedDelivery, Version, sign,
};
use semilla_core::protocol::seed_delivery::{self, SeedContext, SeedKem, SeedPackage};
use semilla_core::secret::SecretText;
use semilla_core::text::Name;
use semilla_core::time::Timestamp;

struct Random(SystemRandom);

impl Entropy for Random {
    fn fill(&self, out: &mut [u8]) {
        self.0.fill(out).expect("the generator works");
    }
}

fn main() -> std::io::Result<()> {
    let rng = SystemRandom::new();
    let entropy = Random(rng.clone());
    let now = Timestamp::from_seconds(1_764_000_000);
    let nonce = || Nonce::generate(&entropy);
    let kept = [(); 3].map(|()| SigningKey::generate(&rng));
    let key = |index: usize| SigningKey::from_pkcs8(&kept[index], &rng).expect("a key");
    let (server, phone, new_phone) = (key(0), key(1), key(2));

    let issuer = "https://semilla.example".to_owned();
    let device_id = DeviceId::new(now, &entropy);
    let device = device_id.to_string();
    let jwks = JwkSet::new(vec![server.public().clone()]);
    let mut messages = BTreeMap::new();

    let code = ActivationCode::generate(&entropy);
    let activation_key = code.key();
    let activation_nonce = nonce();
    let phone_mac = activation_key.phone_mac(&activation_nonce, phone.public().key_id());
    let bind = Bind {
        v: Version,
        iss: phone.public().thumbprint(),
        aud: issuer.clone(),
        jti: nonce(),
        iat: now,
        ctr: 1,
        nonce: activation_nonce,
        activation: code.name(),
        platform: Name::parse("Android 16").expect("a name"),
        name: Name::parse("Teléfono de Laura").expect("a name"),
        jkt_mac: phone_mac,
    };
    messages.insert(Bind::TYP, sign(&bind, &phone, &rng));

    let kem = SeedKem::generate(&entropy);
    let enroll = Enroll {
        v: Version,
        iss: device.clone(),
        aud: issuer.clone(),
        jti: nonce(),
        iat: now,
        ctr: 2,
        enrollment: EnrollmentId::new(now, &entropy),
        seed_kem: kem.public().clone(),
    };
    let enroll_text = sign(&enroll, &phone, &rng);
    let token = TokenId::new(now, &entropy);
    let package = SeedPackage {
        secret_b32: SecretText::new("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZA".into()),
        algorithm: "SHA256".into(),
        digits: 8,
        period: 30,
        issuer: "Banco".into(),
        account: "FEF4900032".into(),
    };
    let context = SeedContext {
        issuer: &issuer,
        device: device_id,
        token,
        generation: 1,
        enroll_text: &enroll_text,
    };
    let delivery = SeedDelivery {
        v: Version,
        iss: issuer.clone(),
        aud: device.clone(),
        jti: nonce(),
        iat: now,
        sub: token,
        txn: enroll.enrollment,
        generation: 1,
        exp: now.plus(Duration::from_secs(600)),
        hpke: seed_delivery::seal(&package, kem.public(), &context, &entropy),
    };
    messages.insert(SeedDelivery::TYP, sign(&delivery, &server, &rng));
    messages.insert(Enroll::TYP, enroll_text);

    let request = ApprovalRequest {
        v: Version,
        iss: issuer.clone(),
        aud: device.clone(),
        jti: nonce(),
        iat: now,
        exp: now.plus(Duration::from_secs(120)),
        nonce: nonce(),
        txn: OperationId::new(now, &entropy),
        operation: Operation {
            action: Action::Release {
                token: TokenRef { token, serial: "FEF4900032".into(), generation: 1 },
                cause: "assignment_error".into(),
            },
            holder: UserId::new(now, &entropy),
            company: CompanyId::new(now, &entropy),
            asker: UserId::new(now, &entropy),
            state_version: 3,
        },
        display: Display {
            locale: "es-PE".into(),
            title: "Liberar token".into(),
            lines: vec!["Token FEF4900032".into(), "Motivo: error de asignación".into()],
        },
    };
    let request_text = sign(&request, &server, &rng);
    let response = |ctr: u64, decision: Decision| ApprovalResponse {
        v: Version,
        iss: device.clone(),
        aud: issuer.clone(),
        jti: nonce(),
        iat: now,
        ctr,
        nonce: request.nonce,
        txn: request.txn,
        decision,
        request_hash: request_hash(&request_text),
        display_hash: request.display.digest(),
        uv: UserVerification { method: VerificationMethod::Pin },
    };
    let match_number = MatchNumber::parse("042137").expect("six digits");
    let approved = response(3, Decision::Approved { match_number });
    messages.insert(ApprovalResponse::TYP, sign(&approved, &phone, &rng));
    let denied = response(3, Decision::Denied { reason: DenialReason::SuspectedFraud });
    messages.insert("approval-response+jwt denied", sign(&denied, &phone, &rng));

    let consent = consent(&request, ClientId::new(now, &entropy));
    let consent_text = sign(&consent, &server, &rng);
    let agreed = ApprovalResponse {
        nonce: consent.nonce,
        txn: consent.txn,
        request_hash: request_hash(&consent_text),
        display_hash: consent.display.digest(),
        ..response(3, Decision::Agreed)
    };
    messages.insert("approval-request+jwt consent", consent_text);
    messages.insert("approval-response+jwt agreed", sign(&agreed, &phone, &rng));

    let rotate = RotateRequest {
        v: Version,
        iss: device.clone(),
        aud: issuer.clone(),
        jti: nonce(),
        iat: now,
        ctr: 4,
        token,
        generation: 1,
        cause: "suspicion".into(),
        state_version: 3,
    };
    messages.insert(RotateRequest::TYP, sign(&rotate, &phone, &rng));

    let proof = KeyProof {
        v: Version,
        iss: device.clone(),
        aud: issuer.clone(),
        jti: nonce(),
        iat: now,
        old: phone.public().key_id(),
    };
    let proof = sign(&proof, &new_phone, &rng);
    let change = KeyChange {
        v: Version,
        iss: device.clone(),
        aud: issuer.clone(),
        jti: nonce(),
        iat: now,
        ctr: 5,
        new_key: new_phone.public().clone(),
        proof: proof.clone(),
    };
    messages.insert(KeyChange::TYP, sign(&change, &phone, &rng));
    messages.insert(KeyProof::TYP, proof);

    let asked = dpop::Request {
        method: "GET",
        uri: "https://semilla.example/device/v1/approvals?wait=25",
        access_token: Some("an-access-token"),
    };
    let dpop_nonce = "a-nonce-of-the-server";
    let proof = dpop::create(&phone, &asked, nonce(), now, Some(dpop_nonce), &rng);
    messages.insert(dpop::TYP, proof);

    let digests = serde_json::json!({
        "request_hash": approved.request_hash,
        "display_hash": approved.display_hash,
    });
    messages.insert(ApprovalRequest::TYP, request_text.clone());
    let uri = EnrollUri { server: issuer.clone(), code };
    let json = serde_json::json!({
        "about": "One example of every signed or sealed message, with the keys that made them. \
                  Signatures are to be verified, not made again: ECDSA draws a number for each. \
                  Binary values are base64url without padding; seed_kem is the private scalar.",
        "issuer": issuer,
        "device": device,
        "keys": {
            "server_pkcs8": base64url::encode(&kept[0]),
            "phone_pkcs8": base64url::encode(&kept[1]),
            "new_phone_pkcs8": base64url::encode(&kept[2]),
            "seed_kem": base64url::encode(&*kem.expose()),
        },
        "jwks": jwks.text(),
        "activation": {
            "code": uri.code.expose().as_str(),
            "key": base64url::encode(activation_key.expose()),
            "nonce": activation_nonce,
            "server_mac": activation_key.server_mac(&activation_nonce, &issuer, jwks.text()),
            "phone_mac": phone_mac,
            "uri": uri.expose().as_str(),
        },
        "messages": messages,
        "digests": digests,
        "seed": {
            "token": token,
            "generation": 1,
            "plain": String::from_utf8_lossy(&package.to_json()),
        },
        "dpop": {
            "method": asked.method,
            "uri": asked.uri,
            "access_token": asked.access_token,
            "nonce": dpop_nonce,
        },
    });
    let text = serde_json::to_string_pretty(&json).expect("always JSON");
    writeln!(std::io::stdout(), "{text}")
}

/// The request of a relying party that shows no number.
fn consent(like: &ApprovalRequest, client: ClientId) -> ApprovalRequest {
    let details = r#"[{"type": "payment_initiation", "creditorName": "Ferretería Ñandú",
        "instructedAmount": {"currency": "EUR", "amount": "123.50"}}]"#;
    let consent = Consent {
        client,
        client_name: Name::parse("Portal de pagos").expect("a name"),
        binding_message: Some(BindingMessage::parse("Pago 4711").expect("a message")),
        authorization_details: Details::parse(details).expect("details"),
        number: false,
    };
    let facts = consent.facts(Language::Spanish);
    let lines = facts.into_iter().map(|(name, fact)| format!("{name}: {fact}")).collect();
    let mut request = like.clone();
    request.display = Display { lines, title: "Autorizar a un servicio".into(), ..request.display };
    request.operation.action = Action::Consent(consent);
    request.operation.asker = request.operation.holder;
    request.operation.state_version = 0;
    request
}
