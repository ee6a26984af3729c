//! What the bank answers: the device API, to the letter.

use std::sync::MutexGuard;

use hyper::header::{HeaderMap, HeaderValue};
use semilla_approver::entropy::SystemEntropy;
use semilla_approver::http::{Request, Response};
use semilla_core::id::{DeviceId, OperationId};
use semilla_core::otp::{self, Match, Parameters};
use semilla_core::otpauth;
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::approval::{ApprovalRequest, ApprovalResponse, Decision, MatchNumber};
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::jwk::JwkSet;
use semilla_core::protocol::messages::{self, Enroll, RotateRequest, SeedDelivery, Version};
use semilla_core::protocol::seed_delivery::{self, SeedContext, SeedPackage};
use semilla_core::protocol::{dpop, wire};
use semilla_core::secret::{SecretText, Seed};
use semilla_core::text::Name;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{Bank, Device, SERIAL, State, http_date};

type Answer = Result<(u16, String), Box<Problem>>;

fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Box<Problem>> {
    let bytes = request.body.as_ref().map(|body| body.as_slice()).unwrap_or_default();
    serde_json::from_slice(bytes)
        .map_err(|error| problem(ProblemType::Validation, error.to_string()))
}

fn ok(status: u16, value: &impl Serialize) -> Answer {
    Ok((status, serde_json::to_string(value).expect("JSON")))
}

fn problem(kind: ProblemType, detail: impl Into<String>) -> Box<Problem> {
    Box::new(Problem::new(kind, detail))
}

fn refuse(kind: ProblemType) -> Answer {
    Err(problem(kind, "no"))
}

impl Bank {
    pub(super) fn answer(&self, request: &Request) -> Response {
        let path = request.url.strip_prefix(&*self.issuer).expect("this bank").to_owned();
        self.state().seen.push(format!("{} {path}", request.method));
        let mut headers = HeaderMap::new();
        headers.insert("date", HeaderValue::from_str(&http_date(self.now())).expect("text"));
        let path = path.split('?').next().expect("a path").to_owned();
        let answer = if path.starts_with("/device/v1/bindings") {
            self.unbound(request, &path)
        } else {
            headers.insert("dpop-nonce", HeaderValue::from_static("n-1"));
            match self.authenticated(request) {
                Ok(()) => self.device_api(request, &path),
                Err(challenge) => {
                    headers.insert("www-authenticate", HeaderValue::from_static(challenge));
                    refuse(ProblemType::Unauthenticated)
                }
            }
        };
        let (status, body) = answer.unwrap_or_else(|problem| {
            (problem.status, serde_json::to_string(&problem).expect("JSON"))
        });
        Response { status, headers, body: Zeroizing::new(body.into_bytes()) }
    }

    fn authenticated(&self, request: &Request) -> Result<(), &'static str> {
        let header = |name| {
            let found = request.headers.iter().find(|(header, _)| *header == name);
            found.map(|(_, value)| value.as_str()).ok_or("DPoP error=\"invalid_token\"")
        };
        let token = header("authorization")?.strip_prefix("DPoP ").ok_or("Bearer")?;
        let expected =
            dpop::Request { method: request.method, uri: &request.url, access_token: Some(token) };
        let proof = dpop::verify(header("dpop")?, &expected).map_err(|_| "DPoP error=\"x\"")?;
        if proof.claims.nonce.as_deref() != Some("n-1") {
            return Err("DPoP error=\"use_dpop_nonce\"");
        }
        let state = self.state();
        let device = state.device.as_ref().ok_or("DPoP error=\"invalid_token\"")?;
        if device.token == token && device.key == proof.key { Ok(()) } else { Err("DPoP") }
    }

    fn unbound(&self, request: &Request, path: &str) -> Answer {
        if path.ends_with("/start") {
            let wire::BindingStart { activation } = body(request)?;
            let mut state = self.state();
            let Some(code) = state.activation.as_ref().filter(|code| code.name() == activation)
            else {
                return refuse(ProblemType::ActivationInvalid);
            };
            let nonce = Nonce::generate(&SystemEntropy);
            let jwks = JwkSet::new(vec![self.key.public().clone()]);
            let mac = code.key().server_mac(&nonce, &self.issuer, jwks.text());
            state.binding_nonce = Some(nonce);
            let issuer = self.issuer.clone();
            return ok(200, &wire::BindingStarted { nonce, issuer, jwks, mac });
        }
        let wire::Signed { message } = body(request)?;
        let (bind, key) = messages::verify_bind(&message, &self.issuer)
            .map_err(|_| problem(ProblemType::SignatureInvalid, "no"))?;
        let mut state = self.state();
        // The same text again: the same phone again.
        if !state.signed.contains(&message) {
            let code = state.activation.take();
            let vouched = code.is_some_and(|code| {
                code.key().verify_phone(&bind.nonce, key.key_id(), &bind.jkt_mac).is_ok()
            });
            if !vouched || state.binding_nonce != Some(bind.nonce) {
                return refuse(ProblemType::ActivationInvalid);
            }
            state.signed.push(message);
            state.device = Some(Device {
                id: DeviceId::new(self.now(), &SystemEntropy),
                key,
                token: "the-device-token".to_owned(),
                counter: bind.ctr,
                state: wire::DeviceState::Bound,
            });
        }
        let device = state.device.as_ref().expect("bound");
        let device_token = SecretText::new(device.token.clone());
        ok(201, &wire::Bound { device: device.id, device_token, match_number: None })
    }

    fn device_api(&self, request: &Request, path: &str) -> Answer {
        let parts: Vec<&str> = path.trim_start_matches("/device/v1/").split('/').collect();
        let state = self.state();
        if state.shut && parts != ["devices"] {
            return refuse(ProblemType::DeviceRevoked);
        }
        match (request.method, parts.as_slice()) {
            ("GET", ["tokens"]) => {
                let tokens = state.tokens.iter().map(|token| token.held.clone()).collect();
                ok(200, &wire::HeldTokens { tokens })
            }
            ("GET", ["devices"]) => {
                let device = state.device.as_ref().expect("bound");
                let name = Name::parse("AppMóvil").expect("a name");
                let devices = vec![wire::Device {
                    device: device.id,
                    name: name.clone(),
                    platform: name,
                    state: device.state,
                    bound_at: self.now(),
                }];
                ok(200, &wire::Devices { devices })
            }
            ("GET", ["enrollments"]) => {
                let waiting = state.enrollments.values().filter(|one| !one.confirmed);
                let enrollments = waiting.map(|one| one.open.clone()).collect();
                ok(200, &wire::OpenEnrollments { enrollments })
            }
            ("GET", ["enrollments", id]) => match state.enrollments.get(*id) {
                Some(one) if !one.delivery.is_empty() && !one.confirmed => {
                    ok(200, &wire::Signed { message: one.delivery.clone() })
                }
                Some(one) if one.confirmed => refuse(ProblemType::DeliveryExpired),
                _ => refuse(ProblemType::NotFound),
            },
            ("GET", ["approvals"]) => {
                ok(200, &wire::Approvals { approvals: state.approvals.clone() })
            }
            ("POST", ["enrollments"]) => self.deliver(state, &body::<wire::Signed>(request)?),
            ("POST", ["enrollments", id, "confirm"]) => {
                self.confirm(state, id, &body::<wire::Confirm>(request)?)
            }
            ("POST", ["approvals", id, "response"]) => {
                self.respond(state, id, body::<wire::Signed>(request)?)
            }
            ("POST", ["tokens", _, "rotate"]) => {
                let wire::Signed { message } = body(request)?;
                let key = state.device.as_ref().expect("bound").key.clone();
                let id = state.device.as_ref().expect("bound").id.to_string();
                let rotate: RotateRequest = messages::verify(&message, &key, &id, &self.issuer)
                    .map_err(|_| problem(ProblemType::SignatureInvalid, "no"))?;
                drop(state);
                self.count(&message, rotate.ctr)?;
                let generation = rotate.generation + 1;
                let enrollment = self.open(SERIAL, generation);
                ok(201, &wire::Rotating { enrollment, generation })
            }
            ("POST", ["keys"]) => self.change_key(state, body::<wire::Signed>(request)?),
            ("DELETE", ["me"]) => {
                let mut state = state;
                state.device = None;
                Ok((204, String::new()))
            }
            _ => refuse(ProblemType::NotFound),
        }
    }

    /// The counter rises, or there are two of this phone.
    fn count(&self, message: &str, counter: u64) -> Result<(), Box<Problem>> {
        let mut state = self.state();
        let device = state.device.as_mut().expect("bound");
        if counter <= device.counter {
            device.state = wire::DeviceState::Suspended;
            state.shut = true;
            return Err(problem(ProblemType::DeviceRevoked, "two of this phone"));
        }
        device.counter = counter;
        state.signed.push(message.to_owned());
        Ok(())
    }

    fn deliver(&self, state: MutexGuard<'_, State>, signed: &wire::Signed) -> Answer {
        let text = &signed.message;
        let device = state.device.as_ref().expect("bound");
        let (id, key) = (device.id, device.key.clone());
        drop(state);
        let enroll: Enroll = messages::verify(text, &key, &id.to_string(), &self.issuer)
            .map_err(|_| problem(ProblemType::SignatureInvalid, "no"))?;
        let name = enroll.enrollment.to_string();
        if let Some(one) = self.state().enrollments.get(&name)
            && one.request == *text
        {
            return ok(200, &wire::Signed { message: one.delivery.clone() });
        }
        self.count(text, enroll.ctr)?;
        let mut state = self.state();
        let Some(one) = state.enrollments.get_mut(&name) else {
            return refuse(ProblemType::NotFound);
        };
        let seed = Seed::generate(32, &SystemEntropy);
        one.delivery = self.delivery(&one.open, &seed, &enroll, id, text);
        one.request.clone_from(text);
        one.seed = Some(seed);
        ok(200, &wire::Signed { message: one.delivery.clone() })
    }

    /// The seed of an enrollment, sealed and signed.
    pub(crate) fn delivery(
        &self,
        open: &wire::OpenEnrollment,
        seed: &Seed,
        enroll: &Enroll,
        device: DeviceId,
        text: &str,
    ) -> String {
        let package = SeedPackage {
            secret_b32: SecretText::new(otpauth::encode(seed).to_string()),
            algorithm: "SHA256".to_owned(),
            digits: 8,
            period: 30,
            issuer: "Banco".to_owned(),
            account: open.serial.clone(),
        };
        let context = SeedContext {
            issuer: &self.issuer,
            device,
            token: open.token,
            generation: open.generation,
            enroll_text: text,
        };
        let delivery = SeedDelivery {
            v: Version,
            iss: self.issuer.clone(),
            aud: device.to_string(),
            jti: Nonce::generate(&SystemEntropy),
            iat: self.now(),
            sub: open.token,
            txn: open.enrollment,
            generation: open.generation,
            exp: open.expires_at,
            hpke: seed_delivery::seal(&package, &enroll.seed_kem, &context, &SystemEntropy),
        };
        self.sign(&delivery)
    }

    fn confirm(
        &self,
        mut state: MutexGuard<'_, State>,
        id: &str,
        confirm: &wire::Confirm,
    ) -> Answer {
        let now = self.now();
        let device = state.device.as_ref().expect("bound").id;
        let State { enrollments, tokens, .. } = &mut *state;
        let Some(one) = enrollments.get_mut(id) else { return refuse(ProblemType::NotFound) };
        let (token, generation) = (one.open.token, one.open.generation);
        if !one.confirmed {
            let Some(seed) = one.seed.take() else { return refuse(ProblemType::NotFound) };
            let parameters = Parameters::APP_MOVIL;
            let Match::Fresh(step) =
                otp::matching_step(&seed, &parameters, &confirm.code, now, None)
            else {
                one.seed = Some(seed);
                return refuse(ProblemType::CodeInvalid);
            };
            one.confirmed = true;
            let live = tokens.iter_mut().find(|own| own.held.token == token).expect("held");
            live.seed = Some(seed);
            live.last = Some(step);
            live.held.generation = generation;
            live.held.state = wire::HeldState::Active;
            live.held.device = Some(device);
        }
        ok(200, &wire::Confirmed { token, generation })
    }

    fn respond(&self, state: MutexGuard<'_, State>, id: &str, signed: wire::Signed) -> Answer {
        let text = signed.message;
        let device = state.device.as_ref().expect("bound");
        let response: ApprovalResponse =
            messages::verify(&text, &device.key, &device.id.to_string(), &self.issuer)
                .map_err(|_| problem(ProblemType::SignatureInvalid, "no"))?;
        let operation: OperationId = id.parse().expect("an id");
        if let Some((before, decided)) = state.decided.get(id) {
            if *before == text {
                return ok(200, &wire::Answered { operation, state: *decided });
            }
            let mut problem = problem(ProblemType::ApprovalAlreadyDecided, "decided");
            problem.state =
                serde_json::to_value(decided).expect("JSON").as_str().map(str::to_owned);
            return Err(problem);
        }
        let Some(asked) = state.approvals.iter().find(|asked| asked.id == operation) else {
            return refuse(ProblemType::NotFound);
        };
        let key = self.key.public();
        let request: ApprovalRequest =
            messages::verify(&asked.request, key, &self.issuer, &device.id.to_string())
                .map_err(|_| problem(ProblemType::Internal, "own request"))?;
        if !response.answers(&asked.request, &request) {
            return refuse(ProblemType::RequestHashMismatch);
        }
        let number = MatchNumber::parse(&state.numbers[id]).expect("six digits");
        drop(state);
        self.count(&text, response.ctr)?;
        let mut state = self.state();
        state.approvals.retain(|asked| asked.id != operation);
        let decided = match response.decision {
            Decision::Approved { match_number } if match_number.matches(&number) => {
                wire::OperationState::Executed
            }
            Decision::Approved { .. } | Decision::Agreed => wire::OperationState::Failed,
            Decision::Denied { .. } => wire::OperationState::Denied,
        };
        state.decided.insert(id.to_owned(), (text, decided));
        match decided {
            wire::OperationState::Failed => refuse(ProblemType::NumberMismatch),
            state => ok(200, &wire::Answered { operation, state }),
        }
    }

    fn change_key(&self, state: MutexGuard<'_, State>, signed: wire::Signed) -> Answer {
        let device = state.device.as_ref().expect("bound");
        let (old, id) = (device.key.clone(), device.id);
        drop(state);
        let change = messages::verify_key_change(&signed.message, &old, id, &self.issuer)
            .map_err(|_| problem(ProblemType::SignatureInvalid, "no"))?;
        self.count(&signed.message, change.ctr)?;
        let mut state = self.state();
        let device = state.device.as_mut().expect("bound");
        device.key = change.new_key;
        device.token = "another-device-token".to_owned();
        let device_token = SecretText::new(device.token.clone());
        ok(200, &wire::Bound { device: id, device_token, match_number: None })
    }
}
