//! What phones and server write to each other in a script: real signed messages, honest ones and
//! ones that are wrong in exactly one way.

use std::time::Duration;

use semilla_core::approval::{Approvable, Operation};
use semilla_core::enrollment::Enrollment;
use semilla_core::id::{DeviceId, EnrollmentId, OperationId};
use semilla_core::otpauth;
use semilla_core::protocol::activation::ActivationCode;
use semilla_core::protocol::approval::{
    Action, ApprovalRequest, ApprovalResponse, Decision, DenialReason, Display, MatchNumber,
    Operation as SignedOperation, TokenRef, UserVerification, VerificationMethod, request_hash,
};
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::jwk::{PublicKey, SigningKey};
use semilla_core::protocol::messages::{
    self, Bind, Enroll, Message, RotateRequest, SeedDelivery, Version,
};
use semilla_core::protocol::seed_delivery::{self, SeedContext, SeedKem, SeedPackage};
use semilla_core::secret::{SecretText, Seed};
use semilla_core::text::Name;
use semilla_core::time::Timestamp;

use crate::codes::KeptSeed;
use crate::product::{ISSUER, Product, SERVER, new_key};
use crate::words::*;

const ELSEWHERE: &str = "https://elsewhere.example";

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

impl Product {
    /// The counter of a phone's next message, and its receiver.
    fn begin(&mut self, phone: usize, bend: Bend) -> (u64, String) {
        let phone = &mut self.phones[phone];
        phone.sent += 1;
        let counter = if bend == Bend::UsedCounter { phone.device.counter } else { phone.sent };
        let receiver = if bend == Bend::OtherServer { ELSEWHERE } else { ISSUER };
        (counter, receiver.to_owned())
    }

    /// Signs as a phone does, or with another key, or loses a bit on the way.
    fn sign<M: Message>(&self, message: &M, key: &SigningKey, bend: Bend) -> String {
        let other = (bend == Bend::OtherKey).then(|| new_key(&self.rng));
        let text = messages::sign(message, other.as_ref().unwrap_or(key), &self.rng);
        if bend != Bend::FlippedBit {
            return text;
        }
        let mut bytes = text.into_bytes();
        let place = self.random.below(bytes.len());
        bytes[place] ^= 1 << self.random.below(7);
        String::from_utf8(bytes).expect("seven bits are ASCII")
    }

    /// A person's answer on a phone.
    pub fn say(&mut self, id: usize, phone: usize, say: Say, bend: Bend) -> String {
        let (ctr, aud) = self.begin(phone, bend);
        let operation = &self.operations[id];
        let device = self.phones[phone].device.id;
        // A phone that was not asked answers what another was sent.
        let sent = operation.request_to(device).unwrap_or(&operation.requests[0]);
        let request: ApprovalRequest =
            messages::verify(&sent.text, SERVER.public(), ISSUER, &sent.device.to_string())
                .expect("the server's own message");
        let key = &self.phones[phone].key;
        if bend == Bend::OtherKind {
            return self.sign(&self.another_kind(device, ctr), key, bend);
        }
        let right = self.number(operation);
        let decision = match say {
            Say::Yes => Decision::Approved { match_number: right },
            Say::YesToWrongNumber => {
                let number: u32 = right.expose().parse().expect("digits");
                let wrong = format!("{:06}", (number + 1) % 1_000_000);
                Decision::Approved { match_number: MatchNumber::parse(&wrong).expect("digits") }
            }
            Say::No("user_cancelled") => Decision::Denied { reason: DenialReason::UserCancelled },
            Say::No("unknown_request") => Decision::Denied { reason: DenialReason::UnknownRequest },
            Say::No(_) => Decision::Denied { reason: DenialReason::SuspectedFraud },
        };
        let mut shown = request.display.clone();
        if bend == Bend::OtherDisplay {
            shown.lines.push("Nothing of importance".to_owned());
        }
        let response = ApprovalResponse {
            v: Version,
            iss: device.to_string(),
            aud,
            jti: self.nonce(),
            iat: self.phones_time(),
            ctr,
            nonce: if bend == Bend::OtherNonce { self.nonce() } else { request.nonce },
            txn: match bend {
                Bend::OtherOperation => OperationId::new(self.now, &self.random),
                _ => request.txn,
            },
            decision,
            request_hash: match bend {
                Bend::OtherRequest => request_hash("another request"),
                _ => request_hash(&sent.text),
            },
            display_hash: shown.digest(),
            uv: UserVerification { method: VerificationMethod::Pin },
        };
        self.sign(&response, key, bend)
    }

    /// A message of the same phone that is true in itself and belongs elsewhere.
    fn another_kind(&self, device: DeviceId, ctr: u64) -> Enroll {
        Enroll {
            v: Version,
            iss: device.to_string(),
            aud: ISSUER.to_owned(),
            jti: self.nonce(),
            iat: self.phones_time(),
            ctr,
            enrollment: EnrollmentId::new(self.now, &self.random),
            seed_kem: SERVER.public().clone(),
        }
    }

    /// The holder begins a rotation on the phone.
    pub fn say_rotate(
        &mut self,
        phone: usize,
        place: usize,
        cause: &str,
        stale: bool,
        bend: Bend,
    ) -> String {
        let (ctr, aud) = self.begin(phone, bend);
        let (stored, phone) = (&self.tokens[place], &self.phones[phone]);
        let device = phone.device.id;
        if bend == Bend::OtherKind {
            return self.sign(&self.another_kind(device, ctr), &phone.key, bend);
        }
        let version = stored.version - i64::from(stale);
        let request = RotateRequest {
            v: Version,
            iss: device.to_string(),
            aud,
            jti: self.nonce(),
            iat: self.phones_time(),
            ctr,
            token: stored.token.id,
            generation: stored.token.live().map_or(0, |live| live.generation),
            cause: cause.to_owned(),
            state_version: u64::try_from(version).expect("versions begin with 1"),
        };
        self.sign(&request, &phone.key, bend)
    }

    /// A phone asks for the seed of an enrollment.
    pub fn say_enroll(&mut self, phone: usize, id: Option<usize>) -> (String, SeedKem) {
        let (ctr, aud) = self.begin(phone, Bend::Honest);
        let kem = SeedKem::generate(&self.random);
        let phone = &self.phones[phone];
        let enroll = Enroll {
            v: Version,
            iss: phone.device.id.to_string(),
            aud,
            jti: self.nonce(),
            iat: self.phones_time(),
            ctr,
            enrollment: id.map_or_else(
                || EnrollmentId::new(self.now, &self.random),
                |id| self.enrollments[id].id,
            ),
            seed_kem: kem.public().clone(),
        };
        (self.sign(&enroll, &phone.key, Bend::Honest), kem)
    }

    /// A new phone shows its key, and that it holds the code.
    pub fn say_bind(&self, place: usize, key: &SigningKey, typed: Typed, bend: Bend) -> String {
        let issued = &self.activations[place];
        let nonce = if bend == Bend::OtherNonce { self.nonce() } else { issued.nonce };
        let guess = ActivationCode::parse("0000-0000-0000-0000").expect("a code");
        let shared = if typed == Typed::Guessed { guess.key() } else { issued.code.key() };
        let vouched_for = match bend {
            Bend::OtherKey => new_key(&self.rng).public().key_id(),
            _ => key.public().key_id(),
        };
        let iss = key.public().thumbprint();
        let aud = if bend == Bend::OtherServer { ELSEWHERE } else { ISSUER }.to_owned();
        if bend == Bend::OtherKind {
            let device = DeviceId::new(self.now, &self.random);
            return self.sign(&self.another_kind(device, 1), key, bend);
        }
        let bind = Bind {
            v: Version,
            iss,
            aud,
            jti: self.nonce(),
            iat: self.phones_time(),
            ctr: 1,
            nonce,
            activation: issued.code.name(),
            platform: name("model"),
            name: name("phone"),
            jkt_mac: shared.phone_mac(&nonce, vouched_for),
        };
        // The other key is the one that the code vouches for, not the one that signs.
        self.sign(&bind, key, if bend == Bend::OtherKey { Bend::Honest } else { bend })
    }

    /// What one phone is asked.
    pub fn request(&self, operation: &Operation, device: DeviceId) -> ApprovalRequest {
        let token = operation.token.map(|at| {
            let token = &self.tokens[self.place_of(at.id)].token;
            let generation = token.live().map_or(0, |live| live.generation);
            TokenRef { token: token.id, serial: token.serial.to_string(), generation }
        });
        let cause = operation.action.cause().map(|cause| cause.name().to_owned());
        let action = match (operation.action, token, cause) {
            (Approvable::Release(_), Some(token), Some(cause)) => Action::Release { token, cause },
            (Approvable::Rotate(_), Some(token), Some(cause)) => Action::Rotate { token, cause },
            (Approvable::Unblock, Some(token), _) => Action::Unblock { token },
            (Approvable::Recover, ..) => Action::Recover,
            _ => Action::BindPhone,
        };
        let version = operation.token.map_or(0, |at| at.version);
        ApprovalRequest {
            v: Version,
            iss: ISSUER.to_owned(),
            aud: device.to_string(),
            jti: self.nonce(),
            iat: self.now,
            exp: self.now.plus(Duration::from_secs(300)),
            nonce: self.nonce(),
            txn: operation.id,
            operation: SignedOperation {
                action,
                holder: operation.holder,
                company: operation.company,
                asker: operation.asker,
                state_version: u64::try_from(version).expect("versions begin with 1"),
            },
            display: Display {
                locale: "es-PE".to_owned(),
                title: operation.action.name().to_owned(),
                lines: vec![operation.id.to_string()],
            },
        }
    }

    /// The sealed seed, as the server sends it.
    pub fn delivery(
        &self,
        enrollment: &Enrollment,
        seed: &Seed,
        seed_kem: &PublicKey,
        device: DeviceId,
        enroll_text: &str,
    ) -> String {
        let parameters = enrollment.parameters();
        let package = SeedPackage {
            secret_b32: SecretText::new(otpauth::encode(seed).to_string()),
            algorithm: parameters.algorithm.name().to_owned(),
            digits: parameters.digits.get(),
            period: parameters.period.seconds().into(),
            issuer: "Semilla".to_owned(),
            account: "FEF4900032".to_owned(),
        };
        let (token, generation) = (enrollment.token, enrollment.generation);
        let context = SeedContext { issuer: ISSUER, device, token, generation, enroll_text };
        let delivery = SeedDelivery {
            v: Version,
            iss: ISSUER.to_owned(),
            aud: device.to_string(),
            jti: self.nonce(),
            iat: self.now,
            sub: token,
            txn: enrollment.id,
            generation,
            exp: enrollment.expires,
            hpke: seed_delivery::seal(&package, seed_kem, &context, &self.random),
        };
        messages::sign(&delivery, &SERVER, &self.rng)
    }

    /// The seed, as the phone takes it out.
    pub fn open_delivery(
        text: &str,
        kem: &SeedKem,
        device: DeviceId,
        enroll_text: &str,
    ) -> KeptSeed {
        let delivery: SeedDelivery =
            messages::verify(text, SERVER.public(), ISSUER, &device.to_string())
                .expect("the server's own message");
        let (token, generation) = (delivery.sub, delivery.generation);
        let context = SeedContext { issuer: ISSUER, device, token, generation, enroll_text };
        let package = kem.open(&delivery.hpke, &context).expect("sealed to this key");
        let seed = otpauth::decode(package.secret_b32.expose()).expect("a seed");
        KeptSeed { bytes: seed.expose().to_vec(), authenticator_app: package.digits == 6 }
    }

    /// What a phone thinks that the time is: a day off either way, which decides nothing.
    fn phones_time(&self) -> Timestamp {
        let off = i64::try_from(self.random.number() % 172_800_000).expect("two days");
        Timestamp::from_milliseconds(self.now.milliseconds() + off - 86_400_000)
    }

    fn nonce(&self) -> Nonce {
        Nonce::generate(&self.random)
    }
}
