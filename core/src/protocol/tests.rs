//! What concerns all messages at once: each kind is only itself, every bit counts, and the frozen
//! examples in `tests/vectors/messages.json` still verify and open.

use ring::rand::SystemRandom;
use serde::Deserialize;
use serde_json::{Value, json};

use super::MessageError::{
    self, BadSignature, ForbiddenHeader, Malformed, TooLarge, UnsupportedAlgorithm, WrongAudience,
    WrongIssuer, WrongKey, WrongType, WrongVersion,
};
use super::activation::ActivationCode;
use super::approval::*;
use super::bytes::{Digest, Nonce};
use super::consent::Consent;
use super::jwk::{JwkSet, PublicKey, SigningKey};
use super::jws::{self, KeyHeader};
use super::messages::*;
use super::seed_delivery::{SeedContext, SeedKem, SeedPackage};
use super::{dpop, seed_delivery};
use crate::base64url;
use crate::entropy::testing::Seeded;
use crate::id::{ClientId, CompanyId, DeviceId, EnrollmentId, OperationId, TokenId, UserId};
use crate::secret::SecretText;
use crate::text::Name;
use crate::time::Timestamp;

const SERVER: &str = "https://semilla.example";

/// A server, a phone, and one message of each kind between them.
struct World {
    server: SigningKey,
    phone: SigningKey,
    other: SigningKey,
    device: DeviceId,
    entropy: Seeded,
    rng: SystemRandom,
}

impl World {
    fn new() -> Self {
        let rng = SystemRandom::new();
        let key = || SigningKey::from_pkcs8(&SigningKey::generate(&rng), &rng).expect("a key");
        let entropy = Seeded::new(1);
        let device = DeviceId::new(Timestamp::from_seconds(1_764_000_000), &entropy);
        Self { server: key(), phone: key(), other: key(), device, entropy, rng }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(1_764_000_000)
    }

    fn nonce(&self) -> Nonce {
        Nonce::generate(&self.entropy)
    }

    fn request(&self, action: Action) -> ApprovalRequest {
        ApprovalRequest {
            v: Version,
            iss: SERVER.into(),
            aud: self.device.to_string(),
            jti: self.nonce(),
            iat: self.now(),
            exp: self.now().plus(std::time::Duration::from_secs(120)),
            nonce: self.nonce(),
            txn: OperationId::new(self.now(), &self.entropy),
            operation: Operation {
                action,
                holder: UserId::new(self.now(), &self.entropy),
                company: CompanyId::BANK,
                asker: UserId::new(self.now(), &self.entropy),
                state_version: 3,
            },
            display: Display {
                locale: "es-PE".into(),
                title: "Liberar token".into(),
                lines: vec!["Token FEF4900032".into(), "Motivo: error de asignación".into()],
            },
        }
    }

    fn release(&self) -> Action {
        Action::Release {
            token: TokenRef {
                token: TokenId::new(self.now(), &self.entropy),
                serial: "FEF4900032".into(),
                generation: 1,
            },
            cause: "assignment_error".into(),
        }
    }

    fn response(&self, request: &ApprovalRequest, text: &str) -> ApprovalResponse {
        ApprovalResponse {
            v: Version,
            iss: self.device.to_string(),
            aud: SERVER.into(),
            jti: self.nonce(),
            iat: self.now(),
            ctr: 9,
            nonce: request.nonce,
            txn: request.txn,
            decision: Decision::Approved {
                match_number: MatchNumber::parse("042137").expect("six digits"),
            },
            request_hash: request_hash(text),
            display_hash: request.display.digest(),
            uv: UserVerification { method: VerificationMethod::Pin },
        }
    }

    fn enroll(&self, seed_kem: &PublicKey) -> Enroll {
        Enroll {
            v: Version,
            iss: self.device.to_string(),
            aud: SERVER.into(),
            jti: self.nonce(),
            iat: self.now(),
            ctr: 2,
            enrollment: EnrollmentId::new(self.now(), &self.entropy),
            seed_kem: seed_kem.clone(),
        }
    }

    fn key_change(&self, new: &SigningKey, device: DeviceId, old: &SigningKey) -> String {
        let proof = KeyProof {
            v: Version,
            iss: device.to_string(),
            aud: SERVER.into(),
            jti: self.nonce(),
            iat: self.now(),
            old: old.public().key_id(),
        };
        let change = KeyChange {
            v: Version,
            iss: self.device.to_string(),
            aud: SERVER.into(),
            jti: self.nonce(),
            iat: self.now(),
            ctr: 11,
            new_key: new.public().clone(),
            proof: sign(&proof, new, &self.rng),
        };
        sign(&change, &self.phone, &self.rng)
    }

    /// One message of each kind, all signed by the same key, so that nothing but the kind tells
    /// them apart.
    fn all(&self) -> Vec<(&'static str, String)> {
        let (key, rng) = (&self.phone, &self.rng);
        let code = ActivationCode::generate(&self.entropy);
        let nonce = self.nonce();
        let bind = Bind {
            v: Version,
            iss: key.public().thumbprint(),
            aud: SERVER.into(),
            jti: self.nonce(),
            iat: self.now(),
            ctr: 1,
            nonce,
            activation: code.name(),
            platform: Name::parse("Android 16").expect("a name"),
            name: Name::parse("Teléfono de Laura").expect("a name"),
            jkt_mac: code.key().phone_mac(&nonce, key.public().key_id()),
        };
        let kem = SeedKem::generate(&self.entropy);
        let enroll = self.enroll(kem.public());
        let enroll_text = sign(&enroll, key, rng);
        let token = TokenId::new(self.now(), &self.entropy);
        let delivery = SeedDelivery {
            v: Version,
            iss: SERVER.into(),
            aud: self.device.to_string(),
            jti: self.nonce(),
            iat: self.now(),
            sub: token,
            txn: enroll.enrollment,
            generation: 1,
            exp: self.now(),
            hpke: seed_delivery::seal(
                &package(),
                kem.public(),
                &SeedContext {
                    issuer: SERVER,
                    device: self.device,
                    token,
                    generation: 1,
                    enroll_text: &enroll_text,
                },
                &self.entropy,
            ),
        };
        let request = self.request(self.release());
        let request_text = sign(&request, key, rng);
        let response = self.response(&request, &request_text);
        let rotate = RotateRequest {
            v: Version,
            iss: self.device.to_string(),
            aud: SERVER.into(),
            jti: self.nonce(),
            iat: self.now(),
            ctr: 10,
            token,
            generation: 1,
            cause: "new_phone".into(),
            state_version: 4,
        };
        let proof = KeyProof {
            v: Version,
            iss: self.device.to_string(),
            aud: SERVER.into(),
            jti: self.nonce(),
            iat: self.now(),
            old: self.other.public().key_id(),
        };
        let asked = dpop::Request { method: "GET", uri: SERVER, access_token: None };
        vec![
            (Bind::TYP, sign(&bind, key, rng)),
            (Enroll::TYP, enroll_text),
            (SeedDelivery::TYP, sign(&delivery, key, rng)),
            (ApprovalRequest::TYP, request_text),
            (ApprovalResponse::TYP, sign(&response, key, rng)),
            (RotateRequest::TYP, sign(&rotate, key, rng)),
            (KeyChange::TYP, self.key_change(&self.other, self.device, key)),
            (KeyProof::TYP, sign(&proof, key, rng)),
            (dpop::TYP, dpop::create(key, &asked, self.nonce(), self.now(), None, rng)),
        ]
    }

    /// Reads `text` as a message of the kind `typ`, whoever sent it.
    fn read(&self, typ: &str, text: &str) -> Result<(), MessageError> {
        let key = self.phone.public();
        let device = self.device.to_string();
        fn done<T>(read: Result<T, MessageError>) -> Result<(), MessageError> {
            read.map(|_| ())
        }
        match typ {
            Bind::TYP => done(verify_bind(text, SERVER)),
            Enroll::TYP => done(verify::<Enroll>(text, key, &device, SERVER)),
            SeedDelivery::TYP => done(verify::<SeedDelivery>(text, key, SERVER, &device)),
            ApprovalRequest::TYP => done(verify::<ApprovalRequest>(text, key, SERVER, &device)),
            ApprovalResponse::TYP => done(verify::<ApprovalResponse>(text, key, &device, SERVER)),
            RotateRequest::TYP => done(verify::<RotateRequest>(text, key, &device, SERVER)),
            KeyChange::TYP => done(verify_key_change(text, key, self.device, SERVER)),
            KeyProof::TYP => done(verify::<KeyProof>(text, key, &device, SERVER)),
            _ => done(dpop::verify(
                text,
                &dpop::Request { method: "GET", uri: SERVER, access_token: None },
            )),
        }
    }

    /// Signs whatever is handed in.
    fn forge(&self, header: &str, claims: &str) -> String {
        let (header, claims) = (header.as_bytes(), claims.as_bytes());
        let signed = format!("{}.{}", base64url::encode(header), base64url::encode(claims));
        let signature = self.phone.sign(signed.as_bytes(), &self.rng);
        format!("{signed}.{}", base64url::encode(&signature))
    }

    /// A text of the kind of [`RotateRequest`] with these claims in place of its own.
    fn rotate_with(&self, change: impl Fn(&mut Value)) -> String {
        let mut claims = json!({
            "v": 1, "iss": self.device, "aud": SERVER, "jti": self.nonce(),
            "iat": 1_764_000_000, "ctr": 10, "token": TokenId::new(self.now(), &self.entropy),
            "generation": 1, "cause": "suspicion", "state_version": 4,
        });
        change(&mut claims);
        jws::sign(&self.phone, RotateRequest::TYP, KeyHeader::Name, &claims, &self.rng)
    }
}

fn package() -> SeedPackage {
    SeedPackage {
        secret_b32: SecretText::new("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZA".into()),
        algorithm: "SHA256".into(),
        digits: 8,
        period: 30,
        issuer: "Banco".into(),
        account: "FEF4900032".into(),
    }
}

#[test]
fn security_59_61_every_kind_of_message_is_refused_where_another_is_expected() {
    let world = World::new();
    let all = world.all();
    for (kind, text) in &all {
        for (expected, _) in &all {
            let result = if kind == expected { Ok(()) } else { Err(WrongType) };
            assert_eq!(world.read(expected, text), result, "{kind} read as {expected}");
        }
    }
}

#[test]
fn security_54_flipping_any_bit_of_a_signed_message_is_refused() {
    let world = World::new();
    for (kind, text) in world.all() {
        for place in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                assert!(world.read(kind, &changed).is_err(), "{kind}, byte {place}, bit {bit}");
            }
        }
    }
}

#[test]
fn security_59_a_message_of_another_key_server_or_phone_is_refused() {
    let world = World::new();
    let text = world.rotate_with(|_| {});
    let device = world.device.to_string();
    let read = |key: &SigningKey, iss: &str, aud: &str| {
        verify::<RotateRequest>(&text, key.public(), iss, aud).map(|message| message.ctr)
    };
    assert_eq!(read(&world.phone, &device, SERVER), Ok(10));
    assert_eq!(read(&world.other, &device, SERVER), Err(WrongKey));
    let other = DeviceId::new(world.now(), &world.entropy).to_string();
    assert_eq!(read(&world.phone, &other, SERVER), Err(WrongIssuer));
    assert_eq!(read(&world.phone, &device, "https://test.semilla.example"), Err(WrongAudience));
    // The right name over another key's signature.
    let header =
        format!(r#"{{"typ":"x","alg":"ES256","kid":"{}"}}"#, world.other.public().thumbprint());
    let forged = world.forge(&header, "{}");
    assert_eq!(jws::verify::<Value>(&forged, "x", world.other.public()).err(), Some(BadSignature));
}

#[test]
fn a_later_version_is_told_apart_from_a_bad_message() {
    let world = World::new();
    let read = |text: &str| world.read(RotateRequest::TYP, text);
    let later = world.rotate_with(|claims| {
        claims["v"] = json!(2);
        claims["new"] = json!("what this program cannot know");
    });
    assert_eq!(read(&later), Err(WrongVersion));
    assert_eq!(read(&world.rotate_with(|claims| claims["v"] = json!("1"))), Err(Malformed));
    assert_eq!(read(&world.rotate_with(|claims| claims["v"] = Value::Null)), Err(Malformed));
}

#[test]
fn claims_that_are_unknown_missing_doubled_or_out_of_range_are_refused() {
    let world = World::new();
    let read = |text: &str| world.read(RotateRequest::TYP, text);
    assert_eq!(read(&world.rotate_with(|claims| claims["exp"] = json!(1))), Err(Malformed));
    for (claim, value) in [
        ("ctr", json!(-1)),
        ("ctr", json!(1.5)),
        ("ctr", Value::Null),
        ("iat", json!(1.5)),
        ("iat", json!(u64::MAX)),
        ("generation", json!(1u64 << 32)),
        ("jti", json!("short")),
        ("token", json!("not an id")),
        ("cause", json!(7)),
    ] {
        let text = world.rotate_with(|claims| claims[claim] = value.clone());
        assert_eq!(read(&text), Err(Malformed), "{claim} {value}");
    }
    let kid = world.phone.public().thumbprint();
    let header = format!(r#"{{"typ":"rotate-request+jwt","alg":"ES256","kid":"{kid}"}}"#);
    let good = format!(
        r#"{{"v":1,"iss":"{}","aud":"{SERVER}","jti":"{}","iat":1,"ctr":1,"token":"{}","generation":1,"cause":"scheduled","state_version":1}}"#,
        world.device,
        world.nonce(),
        TokenId::new(world.now(), &world.entropy),
    );
    assert_eq!(read(&world.forge(&header, &good)), Ok(()));
    let bad = [
        good.replace(r#""ctr":1"#, r#""ctr":1,"ctr":2"#),
        good.replace(r#""v":1"#, r#""v":1,"v":1"#),
        good.replace(r#","state_version":1"#, ""),
        format!(" {good}"),
        format!("{good} {{}}"),
        "[1,2,3]".to_owned(),
        "null".to_owned(),
        String::new(),
    ];
    for claims in bad {
        assert_eq!(read(&world.forge(&header, &claims)), Err(Malformed), "{claims}");
    }
}

#[test]
fn security_55_an_approval_and_a_denial_cannot_be_mixed() {
    let world = World::new();
    let request = world.request(world.release());
    let text = sign(&request, &world.server, &world.rng);
    let approved = serde_json::to_value(world.response(&request, &text)).expect("claims are JSON");
    assert_eq!(approved["decision"], "approved");
    assert_eq!(approved["match_number"], "042137");
    let read = |claims: &Value| {
        let (typ, name) = (ApprovalResponse::TYP, KeyHeader::Name);
        let text = jws::sign(&world.phone, typ, name, claims, &world.rng);
        let device = world.device.to_string();
        verify::<ApprovalResponse>(&text, world.phone.public(), &device, SERVER)
    };
    assert!(matches!(read(&approved).map(|it| it.decision), Ok(Decision::Approved { .. })));
    let mut denied = approved.clone();
    denied["decision"] = json!("denied");
    // The number of an approval does not make a denial, nor a denial an approval.
    assert_eq!(read(&denied).err(), Some(Malformed));
    denied["reason"] = json!("suspected_fraud");
    assert_eq!(read(&denied).err(), Some(Malformed));
    denied.as_object_mut().expect("an object").remove("match_number");
    assert!(matches!(
        read(&denied).map(|it| it.decision),
        Ok(Decision::Denied { reason: DenialReason::SuspectedFraud })
    ));
    for (field, value) in [
        ("decision", json!("approved")),
        ("decision", json!("Denied")),
        ("reason", json!("other")),
        ("reason", Value::Null),
        ("match_number", Value::Null),
        ("match_number", json!("042137")),
        ("uv", json!({"method": "none"})),
        ("uv", json!({"method": "pin", "tries": 1})),
    ] {
        let mut claims = denied.clone();
        claims[field] = value.clone();
        assert_eq!(read(&claims).err(), Some(Malformed), "{field} {value}");
    }
    for number in [json!(42137), json!("42137"), json!("0421377"), json!("04213a"), json!("٠٤٢١٣٧")]
    {
        let mut claims = approved.clone();
        claims["match_number"] = number.clone();
        assert_eq!(read(&claims).err(), Some(Malformed), "{number}");
    }
}

#[test]
fn security_53_an_answer_belongs_to_one_text_and_one_display() {
    let world = World::new();
    let request = world.request(world.release());
    let text = sign(&request, &world.server, &world.rng);
    assert!(world.response(&request, &text).answers(&text, &request));
    // The same claims signed again are another request.
    let again = sign(&request, &world.server, &world.rng);
    assert!(!world.response(&request, &text).answers(&again, &request));
    let changes: [fn(&mut ApprovalRequest, &World); 3] = [
        |request, world| request.nonce = world.nonce(),
        |request, world| request.txn = OperationId::new(world.now(), &world.entropy),
        |request, _| request.display.lines[0] = "Token FEF4900033".into(),
    ];
    for change in changes {
        let mut other = request.clone();
        change(&mut other, &world);
        assert!(!world.response(&request, &text).answers(&text, &other));
    }
}

#[test]
fn every_action_is_written_and_read_and_no_other_combination_is() {
    let world = World::new();
    let Action::Release { token, cause } = world.release() else { unreachable!() };
    let consent: Consent = serde_json::from_value(json!({
        "client": ClientId::new(world.now(), &world.entropy), "client_name": "Portal de pagos",
        "binding_message": "Pago 4711", "authorization_details": [{"type": "payment"}],
        "number": true,
    }))
    .expect("a consent");
    let asked = serde_json::to_value(world.request(Action::Consent(consent.clone())).operation);
    let asked = asked.expect("JSON");
    for (field, value) in [
        ("binding_message", json!("x\u{202e}y")),
        ("authorization_details", json!([{"type": "payment", "amount": 0.1}])),
        ("authorization_details", Value::Null),
        ("client_name", json!("")),
        ("number", Value::Null),
        ("more", json!("than is shown")),
    ] {
        let mut other = asked.clone();
        other["consent"][field] = value.clone();
        assert!(serde_json::from_value::<Operation>(other).is_err(), "{field} {value}");
    }
    for action in ["recover", "release"] {
        let mut other = asked.clone();
        other["action"] = json!(action);
        assert!(serde_json::from_value::<Operation>(other).is_err(), "{action}");
    }
    for action in [
        world.release(),
        Action::Unblock { token: token.clone() },
        Action::Rotate { token: token.clone(), cause },
        Action::BindPhone,
        Action::Recover,
        Action::Consent(consent.clone()),
    ] {
        let operation = world.request(action).operation;
        let json = serde_json::to_string(&operation).expect("JSON");
        assert_eq!(serde_json::from_str::<Operation>(&json).expect("an operation"), operation);
    }
    let release = serde_json::to_value(world.request(world.release()).operation).expect("JSON");
    for (field, value) in [
        ("action", json!("block")),
        ("action", json!("unblock")),
        ("action", json!("recover")),
        ("token", Value::Null),
        ("cause", Value::Null),
        ("match_number", json!("042137")),
    ] {
        let mut other = release.clone();
        other[field] = value.clone();
        assert!(serde_json::from_value::<Operation>(other).is_err(), "{field} {value}");
    }
    for field in ["token", "serial", "generation", "cause", "holder", "company", "asker"] {
        let mut other = release.clone();
        other.as_object_mut().expect("an object").remove(field);
        assert!(serde_json::from_value::<Operation>(other).is_err(), "without {field}");
    }
}

#[test]
fn a_key_changes_only_by_both_keys_for_the_same_phone() {
    let world = World::new();
    let read = |text: &str| {
        verify_key_change(text, world.phone.public(), world.device, SERVER)
            .map(|change| change.new_key)
    };
    let good = world.key_change(&world.other, world.device, &world.phone);
    assert_eq!(read(&good).as_ref(), Ok(world.other.public()));
    let stranger = DeviceId::new(world.now(), &world.entropy);
    let other_device = world.key_change(&world.other, stranger, &world.phone);
    assert_eq!(read(&other_device), Err(WrongIssuer));
    let other_old = world.key_change(&world.other, world.device, &world.server);
    assert_eq!(read(&other_old), Err(WrongKey));
    let same = world.key_change(&world.phone, world.device, &world.phone);
    assert_eq!(read(&same), Err(WrongKey));
    // A proof by another key than the one that is announced.
    let mut change: KeyChange =
        jws::verify(&good, KeyChange::TYP, world.phone.public()).expect("a key change");
    change.new_key = world.server.public().clone();
    assert_eq!(read(&sign(&change, &world.phone, &world.rng)), Err(WrongKey));
}

#[test]
fn a_header_cannot_choose_key_algorithm_or_rules() {
    let world = World::new();
    let kid = world.phone.public().thumbprint();
    let jwk = serde_json::to_string(world.phone.public()).expect("JSON");
    let good = format!(r#"{{"typ":"x","alg":"ES256","kid":"{kid}"}}"#);
    let read = |header: &str| {
        let text = world.forge(header, r#"{"a":1}"#);
        jws::verify::<Value>(&text, "x", world.phone.public()).map(|_| ())
    };
    assert_eq!(read(&good), Ok(()));
    let also = |member: &str| good.replace('}', &format!(",{member}}}"));
    for member in [
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""jku":"https://evil.example/jwks""#,
        r#""x5u":"https://evil.example""#,
        r#""x5c":["AA"]"#,
        r#""x5t":"AA""#,
        r#""x5t#S256":"AA""#,
        r#""b64":false"#,
        &format!(r#""jwk":{jwk}"#),
    ] {
        assert_eq!(read(&also(member)), Err(ForbiddenHeader), "{member}");
    }
    for member in [r#""zip":"DEF""#, r#""alg":"ES256""#, r#""kid":null"#, r#""typ":"x""#] {
        assert_eq!(read(&also(member)), Err(Malformed), "{member}");
    }
    for algorithm in ["none", "None", "HS256", "ES384", "RS256", "EdDSA", "es256", ""] {
        let header = good.replace("ES256", algorithm);
        assert_eq!(read(&header), Err(UnsupportedAlgorithm), "{algorithm}");
    }
    for typ in ["X", "application/x", "JWT", "", "x "] {
        let header = good.replace(r#""x""#, &format!(r#""{typ}""#));
        assert_eq!(read(&header), Err(WrongType), "{typ}");
    }
    for header in [
        r#"{"typ":"x","alg":"ES256"}"#,
        r#"{"alg":"ES256"}"#,
        r#"["x","ES256"]"#,
        "{}",
        "",
        "\u{feff}{}",
        &good.replace(r#""kid":"#, r#""kid":null,"kid":"#),
    ] {
        assert_eq!(read(header), Err(Malformed), "{header}");
    }
}

#[test]
fn an_embedded_key_is_read_only_where_it_belongs_and_must_fit() {
    let world = World::new();
    let jwk = serde_json::to_string(world.phone.public()).expect("JSON");
    let read = |header: &str| {
        let text = world.forge(header, "{}");
        jws::verify_with_embedded_jwk::<Value>(&text, "x").map(|(_, key)| key)
    };
    let header = format!(r#"{{"typ":"x","alg":"ES256","jwk":{jwk}}}"#);
    assert_eq!(read(&header).as_ref(), Ok(world.phone.public()));
    let other = world.other.public().thumbprint();
    let named = header.replace(r#""jwk":"#, &format!(r#""kid":"{other}","jwk":"#));
    assert_eq!(read(&named), Err(WrongKey));
    let jwk = serde_json::to_string(world.other.public()).expect("JSON");
    let stolen = format!(r#"{{"typ":"x","alg":"ES256","jwk":{jwk}}}"#);
    assert_eq!(read(&stolen), Err(BadSignature));
    assert_eq!(read(r#"{"typ":"x","alg":"ES256","jwk":null}"#), Err(Malformed));
    assert_eq!(read(r#"{"typ":"x","alg":"ES256"}"#), Err(Malformed));
}

#[test]
fn a_text_has_three_parts_one_spelling_and_an_end() {
    let world = World::new();
    let text = world.rotate_with(|_| {});
    let read = |text: &str| world.read(RotateRequest::TYP, text);
    let parts: Vec<&str> = text.split('.').collect();
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        parts[0].into(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{text}."),
        format!("{text}.{}", parts[2]),
        format!(".{text}"),
        format!("{text}="),
        format!("{text}\n"),
        format!(" {text}"),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}=.{}", parts[0], parts[1], parts[2]),
    ] {
        assert_eq!(read(&bad), Err(Malformed), "{bad:?}");
    }
    for signature in ["", &parts[2][..84], &format!("{}AA", parts[2])[..88]] {
        let bad = format!("{}.{}.{signature}", parts[0], parts[1]);
        assert!(matches!(read(&bad), Err(BadSignature | Malformed)), "{signature}");
    }
    let long = world.rotate_with(|claims| claims["cause"] = json!("x".repeat(jws::MAX_LENGTH)));
    assert_eq!(read(&long), Err(TooLarge));
}

#[test]
fn what_is_peeked_at_is_enough_to_find_the_key() {
    let world = World::new();
    for (kind, text) in world.all() {
        let peeked = jws::peek(&text).expect("a message");
        assert_eq!(peeked.typ, kind);
        assert_eq!(peeked.kid, Some(world.phone.public().key_id()));
    }
}

#[test]
fn security_57_a_deadline_passes_at_its_very_second() {
    let exp = Timestamp::from_seconds(120);
    assert_eq!(check_not_expired(exp, Timestamp::from_milliseconds(119_999)), Ok(()));
    assert_eq!(check_not_expired(exp, exp), Err(MessageError::Expired));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_a_reader_panic(text in "[-_A-Za-z0-9.={}\": ]{0,200}") {
        let world = World::new();
        proptest::prop_assert!(world.read(Enroll::TYP, &text).is_err());
        proptest::prop_assert!(world.read(dpop::TYP, &text).is_err());
    }
}

/// `tests/vectors/messages.json`: made once by `examples/make_message_vectors.rs`, frozen since.
/// Another program that verifies and opens what is in there speaks this protocol.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    #[serde(rename = "about")]
    _about: String,
    issuer: String,
    device: DeviceId,
    keys: VectorKeys,
    jwks: String,
    activation: VectorActivation,
    messages: std::collections::BTreeMap<String, String>,
    digests: VectorDigests,
    seed: VectorSeed,
    dpop: VectorDpop,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorKeys {
    server_pkcs8: String,
    phone_pkcs8: String,
    new_phone_pkcs8: String,
    seed_kem: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorActivation {
    code: String,
    key: String,
    nonce: Nonce,
    server_mac: String,
    phone_mac: String,
    uri: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorDigests {
    request_hash: Digest,
    display_hash: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorSeed {
    token: TokenId,
    generation: u32,
    plain: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorDpop {
    method: String,
    uri: String,
    access_token: String,
    nonce: String,
}

#[test]
fn the_frozen_examples_verify_and_open() {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../../tests/vectors/messages.json")).expect("vectors");
    let rng = SystemRandom::new();
    let key = |text: &str| {
        let bytes = base64url::decode(text).expect("base64url");
        SigningKey::from_pkcs8(&bytes, &rng).expect("a key").public().clone()
    };
    let server = key(&vectors.keys.server_pkcs8);
    let phone = key(&vectors.keys.phone_pkcs8);
    let new_phone = key(&vectors.keys.new_phone_pkcs8);
    let device = vectors.device.to_string();
    let (issuer, device_id) = (vectors.issuer.as_str(), vectors.device);
    let text = |typ: &str| vectors.messages[typ].as_str();

    let jwks = JwkSet::parse(&vectors.jwks).expect("keys");
    let named = jws::peek(text(SeedDelivery::TYP)).expect("a message").kid.expect("a name");
    assert_eq!(jwks.find(named), Ok(&server));

    let given = &vectors.activation;
    let code = ActivationCode::parse(&given.code).expect("a code");
    let activation_key = code.key();
    assert_eq!(base64url::encode(activation_key.expose()), given.key);
    let mac = activation_key.server_mac(&given.nonce, issuer, jwks.text());
    assert_eq!(mac.to_string(), given.server_mac);
    let mac = activation_key.phone_mac(&given.nonce, phone.key_id());
    assert_eq!(mac.to_string(), given.phone_mac);
    let uri = super::activation::EnrollUri::parse(&given.uri).expect("an address");
    assert_eq!((uri.server.as_str(), uri.code.expose()), (issuer, code.expose()));

    let (bind, bound) = verify_bind(text(Bind::TYP), issuer).expect("a binding");
    assert_eq!((&bound, bind.activation, bind.nonce), (&phone, code.name(), given.nonce));
    assert_eq!(activation_key.verify_phone(&bind.nonce, bound.key_id(), &bind.jkt_mac), Ok(()));

    let kem = SeedKem::from_bytes(&base64url::decode(&vectors.keys.seed_kem).expect("base64url"))
        .expect("a key");
    let enroll: Enroll = verify(text(Enroll::TYP), &phone, &device, issuer).expect("a request");
    assert_eq!(&enroll.seed_kem, kem.public());
    let delivery: SeedDelivery =
        verify(text(SeedDelivery::TYP), &server, issuer, &device).expect("a delivery");
    assert_eq!(delivery.txn, enroll.enrollment);
    assert_eq!((delivery.sub, delivery.generation), (vectors.seed.token, vectors.seed.generation));
    let context = SeedContext {
        issuer,
        device: device_id,
        token: delivery.sub,
        generation: delivery.generation,
        enroll_text: text(Enroll::TYP),
    };
    let package = kem.open(&delivery.hpke, &context).expect("the seed opens");
    assert_eq!(*package.to_json(), vectors.seed.plain.as_bytes());

    let request: ApprovalRequest =
        verify(text(ApprovalRequest::TYP), &server, issuer, &device).expect("a request");
    let response: ApprovalResponse =
        verify(text(ApprovalResponse::TYP), &phone, &device, issuer).expect("an answer");
    assert!(response.answers(text(ApprovalRequest::TYP), &request));
    assert_eq!(response.request_hash, vectors.digests.request_hash);
    assert_eq!(response.display_hash, vectors.digests.display_hash);
    let denial: ApprovalResponse =
        verify(text("approval-response+jwt denied"), &phone, &device, issuer).expect("an answer");
    assert!(matches!(denial.decision, Decision::Denied { .. }));

    verify::<RotateRequest>(text(RotateRequest::TYP), &phone, &device, issuer).expect("a request");
    let change =
        verify_key_change(text(KeyChange::TYP), &phone, device_id, issuer).expect("a change");
    assert_eq!(change.new_key, new_phone);

    let asked = dpop::Request {
        method: &vectors.dpop.method,
        uri: &vectors.dpop.uri,
        access_token: Some(&vectors.dpop.access_token),
    };
    let proof = dpop::verify(text(dpop::TYP), &asked).expect("a proof");
    assert_eq!((proof.key, proof.claims.nonce), (phone, Some(vectors.dpop.nonce)));
}
