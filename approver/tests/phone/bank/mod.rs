//! A bank in the phone's own process: it keeps the protocol to the letter, has one person with
//! tokens and operations, and can be told to lose what passes or to send what no bank would.

mod api;
mod listen;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper::header::HeaderMap;
use ring::rand::SystemRandom;
use semilla_approver::Phone;
use semilla_approver::clock::{Clock, SystemClock};
use semilla_approver::entropy::SystemEntropy;
use semilla_approver::http::{Answering, Failure, Request, Response, Transport};
use semilla_core::id::{CompanyId, DeviceId, EnrollmentId, OperationId, TokenId, UserId};
use semilla_core::otp::{self, Match, Parameters, Step};
use semilla_core::protocol::activation::{ActivationCode, EnrollUri};
use semilla_core::protocol::approval::{Action, ApprovalRequest, Display, Operation, TokenRef};
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::jwk::{PublicKey, SigningKey};
use semilla_core::protocol::messages::{self, Version};
use semilla_core::protocol::wire;
use semilla_core::secret::Seed;
use semilla_core::text::Name;
use semilla_core::time::Timestamp;
use zeroize::Zeroizing;

pub(crate) const SERIAL: &str = "FEF4900032";
pub(crate) const START: i64 = 1_764_000_000; // a multiple of 30

/// What befalls one exchange.
pub(crate) enum Fault {
    /// Nothing: lets one exchange pass.
    None,
    /// Does what was asked, and the answer is lost.
    LoseAnswer,
    /// The request is lost on its way.
    LoseRequest,
    /// Nobody listens.
    Unreachable,
    /// Answers this instead.
    Answer(u16, String),
}

pub(crate) struct Bank {
    /// Where it is, as it stands in messages.
    pub(crate) issuer: String,
    /// Milliseconds since 1970; `None` where time is the system's.
    clock: Option<AtomicI64>,
    key: SigningKey,
    random: SystemRandom,
    pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) faults: VecDeque<Fault>,
    /// Method and path of every request that arrived.
    pub(crate) seen: Vec<String>,
    /// Signed texts, in the order in which they arrived.
    pub(crate) signed: Vec<String>,
    pub(crate) activation: Option<ActivationCode>,
    pub(crate) binding_nonce: Option<Nonce>,
    pub(crate) device: Option<Device>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) enrollments: BTreeMap<String, Enrollment>,
    pub(crate) approvals: Vec<wire::Approval>,
    pub(crate) numbers: BTreeMap<String, String>,
    pub(crate) decided: BTreeMap<String, (String, wire::OperationState)>,
    /// Whether the device API refuses everything but the list of phones.
    pub(crate) shut: bool,
}

pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) key: PublicKey,
    pub(crate) token: String,
    pub(crate) counter: u64,
    pub(crate) state: wire::DeviceState,
}

pub(crate) struct Token {
    pub(crate) held: wire::HeldToken,
    pub(crate) seed: Option<Seed>,
    pub(crate) last: Option<Step>,
}

pub(crate) struct Enrollment {
    pub(crate) open: wire::OpenEnrollment,
    pub(crate) request: String,
    pub(crate) delivery: String,
    pub(crate) seed: Option<Seed>,
    pub(crate) confirmed: bool,
}

impl Bank {
    /// A bank in a time of its own, without a network.
    pub(crate) fn new() -> Arc<Self> {
        Self::at("http://bank.test".to_owned(), Some(AtomicI64::new(START * 1000)))
    }

    fn at(issuer: String, clock: Option<AtomicI64>) -> Arc<Self> {
        let random = SystemRandom::new();
        let key = SigningKey::from_pkcs8(&SigningKey::generate(&random), &random).expect("a key");
        Arc::new(Self { issuer, clock, key, random, state: Mutex::default() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    pub(crate) fn now(&self) -> Timestamp {
        match &self.clock {
            Some(clock) => Timestamp::from_milliseconds(clock.load(Ordering::SeqCst)),
            None => SystemClock.now(),
        }
    }

    pub(crate) fn advance(&self, by: Duration) {
        let clock = self.clock.as_ref().expect("a time of its own");
        clock.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }

    /// A clock that is so many seconds ahead of the bank's, or behind.
    pub(crate) fn clock_off_by(self: &Arc<Self>, seconds: i64) -> Arc<dyn Clock> {
        let bank = Arc::clone(self);
        Arc::new(move || Timestamp::from_milliseconds(bank.now().milliseconds() + seconds * 1000))
    }

    /// A phone that speaks to this bank.
    pub(crate) fn phone(self: &Arc<Self>) -> Phone {
        self.phone_off_by(0)
    }

    pub(crate) fn phone_off_by(self: &Arc<Self>, seconds: i64) -> Phone {
        let clock = self.clock_off_by(seconds);
        let transport: Arc<dyn Transport> = Arc::new(Line(Arc::clone(self)));
        Phone::in_memory(clock, Arc::new(SystemEntropy)).over(transport)
    }

    pub(crate) fn line(self: &Arc<Self>) -> Arc<dyn Transport> {
        Arc::new(Line(Arc::clone(self)))
    }

    /// An activation, as its QR code says it.
    pub(crate) fn invite(&self) -> String {
        let code = ActivationCode::generate(&SystemEntropy);
        let again = ActivationCode::parse(&code.expose()).expect("its own");
        self.state().activation = Some(again);
        EnrollUri { server: self.issuer.clone(), code }.expose().to_string()
    }

    /// A phone that is bound.
    pub(crate) async fn bound_phone(self: &Arc<Self>) -> Phone {
        let phone = self.phone();
        phone.bind(&self.invite()).await.expect("bound");
        phone
    }

    /// A phone with a live token.
    pub(crate) async fn enrolled_phone(self: &Arc<Self>) -> Phone {
        let phone = self.bound_phone().await;
        self.assign(SERIAL);
        phone.enroll_next().await.expect("enrolled");
        phone
    }

    pub(crate) fn assign(&self, serial: &str) -> EnrollmentId {
        let token = TokenId::new(self.now(), &SystemEntropy);
        let held = wire::HeldToken {
            token,
            serial: serial.to_owned(),
            company: company(),
            state: wire::HeldState::Assigned,
            generation: 0,
            state_version: 1,
            device: None,
        };
        self.state().tokens.push(Token { held, seed: None, last: None });
        self.open(serial, 1)
    }

    /// Opens an enrollment for a generation of a token.
    pub(crate) fn open(&self, serial: &str, generation: u32) -> EnrollmentId {
        let enrollment = EnrollmentId::new(self.now(), &SystemEntropy);
        let mut state = self.state();
        let token = state.tokens.iter().find(|token| token.held.serial == serial).expect("one");
        let open = wire::OpenEnrollment {
            enrollment,
            token: token.held.token,
            serial: serial.to_owned(),
            company: company(),
            generation,
            expires_at: self.now().plus(Duration::from_secs(3600)),
        };
        let new = Enrollment {
            open,
            request: String::new(),
            delivery: String::new(),
            seed: None,
            confirmed: false,
        };
        state.enrollments.insert(enrollment.to_string(), new);
        enrollment
    }

    /// Whether the bank takes this code now.
    pub(crate) fn takes(&self, serial: &str, code: &str) -> bool {
        let code = otp::Code::parse(code).expect("a code");
        let mut state = self.state();
        let Some(token) = state.tokens.iter_mut().find(|token| token.held.serial == serial) else {
            return false;
        };
        let Some(seed) = &token.seed else { return false };
        match otp::matching_step(seed, &Parameters::APP_MOVIL, &code, self.now(), token.last) {
            Match::Fresh(step) => {
                token.last = Some(step);
                true
            }
            _ => false,
        }
    }

    /// What is asked about this phone's token, and the number on the asker's screen.
    pub(crate) fn request(&self, generation: u32) -> ApprovalRequest {
        let state = self.state();
        let token = state.tokens.first().map(|token| token.held.token);
        let token = token.unwrap_or_else(|| TokenId::new(self.now(), &SystemEntropy));
        let person = UserId::new(self.now(), &SystemEntropy);
        ApprovalRequest {
            v: Version,
            iss: self.issuer.clone(),
            aud: state.device.as_ref().expect("bound").id.to_string(),
            jti: Nonce::generate(&SystemEntropy),
            iat: self.now(),
            exp: self.now().plus(Duration::from_secs(300)),
            nonce: Nonce::generate(&SystemEntropy),
            txn: OperationId::new(self.now(), &SystemEntropy),
            operation: Operation {
                action: Action::Release {
                    token: TokenRef { token, serial: SERIAL.to_owned(), generation },
                    cause: "customer_request".to_owned(),
                },
                holder: person,
                company: CompanyId::new(self.now(), &SystemEntropy),
                asker: person,
                state_version: 7,
            },
            display: Display {
                locale: "es".to_owned(),
                title: "Liberar token virtual".to_owned(),
                lines: vec![
                    "Empresa: Comercial Andina SAC".to_owned(),
                    "Solicita: Ana Quispe".to_owned(),
                ],
            },
        }
    }

    /// Puts a request into the inbox, signed by the bank.
    pub(crate) fn ask(&self, request: &ApprovalRequest) -> OperationId {
        let text = messages::sign(request, &self.key, &self.random);
        self.ask_with(request.txn, text)
    }

    /// Puts any text into the inbox.
    pub(crate) fn ask_with(&self, id: OperationId, request: String) -> OperationId {
        let mut state = self.state();
        state.approvals.push(wire::Approval { id, request });
        state.numbers.insert(id.to_string(), "493027".to_owned());
        id
    }

    pub(crate) fn sign<M: messages::Message>(&self, message: &M) -> String {
        messages::sign(message, &self.key, &self.random)
    }

    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// The claims of a signed text that arrived, unverified.
    pub(crate) fn claims(text: &str) -> serde_json::Value {
        let payload = text.split('.').nth(1).expect("a compact JWS");
        let bytes = semilla_core::base64url::decode(payload).expect("base64url");
        serde_json::from_slice(&bytes).expect("JSON")
    }
}

fn company() -> Name {
    Name::parse("Comercial Andina SAC").expect("a name")
}

/// The way to this bank, with its faults.
struct Line(Arc<Bank>);

impl Transport for Line {
    fn send(&self, request: Request) -> Answering<'_> {
        let fault = self.0.state().faults.pop_front().unwrap_or(Fault::None);
        let answer = match fault {
            Fault::None => Ok(self.0.answer(&request)),
            Fault::LoseAnswer => {
                drop(self.0.answer(&request));
                Err(Failure::Lost("reset".to_owned()))
            }
            Fault::LoseRequest => Err(Failure::Lost("reset".to_owned())),
            Fault::Unreachable => Err(Failure::NotSent("refused".to_owned())),
            Fault::Answer(status, body) => {
                let headers = HeaderMap::new();
                Ok(Response { status, headers, body: Zeroizing::new(body.into_bytes()) })
            }
        };
        Box::pin(async move { answer })
    }
}

/// `Mon, 24 Nov 2025 16:00:00 GMT`; the day of the week is not looked at.
fn http_date(moment: Timestamp) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = moment.to_string();
    let month: usize = text[5..7].parse().expect("a month");
    format!("Mon, {} {} {} {} GMT", &text[8..10], MONTHS[month - 1], &text[..4], &text[11..19])
}
