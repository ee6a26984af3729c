//! Binding and enrolling by hand: the messages of a phone that may be wrong in one place, and the
//! seed that a right one gets, which a story may look at.

use semilla_approver::Phone;
use semilla_approver::http::Response;
use semilla_core::id::EnrollmentId;
use semilla_core::otp::Parameters;
use semilla_core::otpauth;
use semilla_core::protocol::activation::ActivationCode;
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::jwk::SigningKey;
use semilla_core::protocol::messages::{self, Bind, SeedDelivery, Version};
use semilla_core::protocol::seed_delivery::{SeedContext, SeedKem};
use semilla_core::secret::Seed;
use semilla_core::text::Name;
use semilla_core::time::Timestamp;
use semilla_server::app::SystemEntropy;
use serde_json::{Value, json};

use crate::asking::{accepted, new_key, sign_with};
use crate::http::{Expect, Http, Reply};
use crate::world::World;

/// Somebody with an activation code and a key.
pub struct Binder {
    http: Http,
    issuer: String,
    now: Timestamp,
    /// The code.
    pub code: ActivationCode,
    /// The key that is to be bound.
    pub key: SigningKey,
}

impl Binder {
    /// With this code, as it is typed, and a new key.
    pub fn new(world: &World, code: &str) -> Self {
        let code = ActivationCode::parse(code).expect("a code");
        let issuer = world.server().issuer().to_owned();
        Self { http: world.http(), issuer, now: world.now(), code, key: new_key() }
    }

    /// The same with another key.
    #[must_use]
    pub fn with_key(self, key: SigningKey) -> Self {
        Self { key, ..self }
    }

    /// Asks for the nonce.
    pub async fn start(&self) -> Reply {
        start(&self.http, self.code.name().as_str()).await
    }

    /// The nonce that it is given.
    pub async fn nonce(&self) -> Nonce {
        let started = self.start().await.expect(200);
        started["nonce"].as_str().and_then(|nonce| nonce.parse().ok()).expect("a nonce")
    }

    /// The claims of a good message, to be changed before it is signed.
    pub fn claims(&self, nonce: Nonce) -> Value {
        let bind = Bind {
            v: Version,
            iss: self.key.public().thumbprint(),
            aud: self.issuer.clone(),
            jti: Nonce::generate(&SystemEntropy::default()),
            iat: self.now,
            ctr: 1,
            nonce,
            activation: self.code.name(),
            platform: Name::parse("Linux").expect("a name"),
            name: Name::parse("Teléfono").expect("a name"),
            jkt_mac: self.code.key().phone_mac(&nonce, self.key.public().key_id()),
        };
        serde_json::to_value(bind).expect("JSON")
    }

    /// Signs claims and sends them.
    pub async fn send(&self, claims: Value) -> Reply {
        self.post(sign_with::<Bind>(&self.key, claims)).await
    }

    /// Sends a text as it is.
    pub async fn post(&self, message: String) -> Reply {
        post(&self.http, "/device/v1/bindings", json!({"message": message})).await
    }
}

/// Begins a binding with the name of a code.
pub async fn start(http: &Http, name: &str) -> Reply {
    post(http, "/device/v1/bindings/start", json!({"activation": name})).await
}

async fn post(http: &Http, path: &str, body: Value) -> Reply {
    let headers = [("content-type", "application/json")];
    http.send("POST", path, &headers, body.to_string().as_bytes()).await.expect("an answer")
}

/// A seed that was asked for by hand.
pub struct ByHand {
    kem: SeedKem,
    /// The request as it was sent.
    pub request: String,
}

impl ByHand {
    /// A request of `phone` for the seed of `enrollment`.
    pub fn ask(phone: &Phone, enrollment: &str) -> Self {
        let kem = SeedKem::generate(&SystemEntropy::default());
        let draft = phone.raw().draft().expect("a draft");
        let enroll = draft.enroll(id(enrollment), kem.public().clone());
        let request = phone.raw().sign(&enroll).expect("signed");
        Self { kem, request }
    }

    /// Sends it.
    pub async fn send(&self, phone: &Phone) -> Response {
        let path = "/device/v1/enrollments";
        phone.raw().send_signed(path, self.request.clone()).await.expect("an answer")
    }

    /// Opens what came, with the keys of `phone`, and whatever its request says it is for.
    pub fn open(&self, phone: &Phone, answer: &Response) -> Option<Seed> {
        let message = accepted(answer)["message"].as_str().expect("a message").to_owned();
        let (keys, device) = (phone.raw().server_keys().ok()?, phone.raw().device().ok()?);
        let issuer = phone.account().ok()?.issuer;
        let delivery: SeedDelivery =
            messages::verify(&message, &keys.keys()[0], &issuer, &device.to_string()).ok()?;
        let context = SeedContext {
            issuer: &issuer,
            device,
            token: delivery.sub,
            generation: delivery.generation,
            enroll_text: &self.request,
        };
        let package = self.kem.open(&delivery.hpke, &context).ok()?;
        otpauth::decode(package.secret_b32.expose()).ok()
    }
}

/// The code of a seed of the AppMóvil at a moment.
pub fn code(seed: &Seed, now: Timestamp) -> String {
    let parameters = Parameters::APP_MOVIL;
    parameters.code(seed, parameters.step_at(now)).expose().to_owned()
}

/// Confirms an enrollment with a code.
pub async fn confirm(phone: &Phone, enrollment: &str, code: &str) -> Response {
    let path = format!("/device/v1/enrollments/{enrollment}/confirm");
    let body = json!({"code": code}).to_string();
    phone.raw().send("POST", &path, Some(&body)).await.expect("an answer")
}

fn id(text: &str) -> EnrollmentId {
    text.parse().expect("an id")
}
