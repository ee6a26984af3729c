//! A bank on a folder whose server is a real process that can die at any moment, its company, and
//! two real phones that keep everything in files: the whole flow as steps that can each be taken
//! again. What is learned from answers is kept here, as programs keep it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use semilla_approver::Phone;
use semilla_approver::entropy::SystemEntropy;
use semilla_approver::pin::Pin;
use semilla_approver::store::{FileStore, Stretch};
use semilla_core::otp::Step;
use semilla_core::time::Timestamp;
use semilla_server::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::http::{Expect, Http, Program};
use crate::invariants;
use crate::process::{Home, Process, sqlite};
use crate::world::COMPANY_SCOPES;

/// The serial number of the flow's token.
pub const SERIAL: &str = "FEF4900032";

/// The steps of the flow.
pub const STEPS: [&str; 16] = [
    "issue",
    "allot",
    "bind",
    "assign",
    "bind laura",
    "enroll",
    "verify",
    "block",
    "ask unblock",
    "approve",
    "verify",
    "ask release",
    "approve",
    "assign",
    "enroll",
    "verify",
];

/// The answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// The PIN of both phones.
const PIN: &str = "482915";

/// The bank, its company and its phones.
pub struct Bank {
    /// Where the bank's server keeps everything.
    pub home: Home,
    /// The server; none while it does not run.
    pub server: Option<Process>,
    ahead: Arc<AtomicU64>,
    /// The operator's program.
    pub operator: Program,
    /// The company's program.
    pub company: Program,
    company_id: String,
    people: [String; 2],
    /// The administrator's and the holder's.
    phones: [Phone; 2],
    activations: BTreeMap<usize, String>,
    /// The token's id, once there is one.
    pub token: String,
    enrollment: String,
    operation: Value,
}

/// Where a phone keeps everything.
fn pocket(home: &Home, whose: usize) -> PathBuf {
    home.folder.path().join(format!("phone-{whose}"))
}

/// The phone with that store, whose clock runs ahead of the machine's.
fn phone(store: FileStore, ahead: &Arc<AtomicU64>) -> Phone {
    let ahead = Arc::clone(ahead);
    let clock = move || SystemClock.now().plus(Duration::from_secs(ahead.load(Ordering::Relaxed)));
    Phone::new(Arc::new(store.into()), Arc::new(clock), Arc::new(SystemEntropy))
}

impl Bank {
    /// A bank with a company, before anything of the flow was done.
    pub async fn begin() -> Self {
        Self::at(Home::make()).await
    }

    /// The same in a folder that was made already.
    pub async fn at(home: Home) -> Self {
        let server = home.serve();
        let http = Http::new(&home.base());
        let operator = Program::of(http.clone(), &home.credentials);
        let body = json!({"name": "Comercial Andina S.A.S.", "administrator": {"login": "andres.gomez", "name": "Andrés Gómez"}});
        let made = operator.post("/api/v1/companies", body).await.expect(201);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let (company_id, andres) =
            (text(&made["company"]["id"]), text(&made["administrator"]["id"]));
        let client = json!({"name": "Tesorería", "scopes": COMPANY_SCOPES, "askers": [andres]});
        let client = operator
            .post(&format!("/api/v1/companies/{company_id}/clients"), client)
            .await
            .expect(201);
        let company = Program::of(http, &client);
        let laura = json!({"login": "laura.valencia", "name": "Laura Valencia"});
        let laura = text(&company.post("/api/v1/users", laura).await.expect(201)["id"]);
        let ahead = Arc::new(AtomicU64::new(0));
        let pin = Pin::chosen(PIN).expect("a PIN");
        let phones = [0, 1].map(|whose| {
            let store = FileStore::create(&pocket(&home, whose), &pin, Stretch::CHEAP);
            phone(store.expect("a store"), &ahead)
        });
        Self {
            home,
            server: Some(server),
            ahead,
            operator,
            company,
            company_id,
            people: [andres, laura],
            phones,
            activations: BTreeMap::new(),
            token: String::new(),
            enrollment: String::new(),
            operation: Value::Null,
        }
    }

    /// Puts both phones down and takes them up again: what was only in their memory is gone, and
    /// the PIN is entered.
    pub fn take_up_phones(&mut self) {
        let pin = Pin::entered(PIN).expect("a PIN");
        for whose in [0, 1] {
            let store = FileStore::open(&pocket(&self.home, whose), &pin).expect("it opens");
            self.phones[whose] = phone(store, &self.ahead);
        }
    }

    /// The code that the holder's phone shows now.
    pub fn code(&self) -> String {
        let step = Step(self.now().seconds() / 30);
        let shown = self.phones[1].raw().code_at(SERIAL, step).expect("a code");
        shown.code.expose().to_owned()
    }

    fn now(&self) -> Timestamp {
        SystemClock.now().plus(Duration::from_secs(self.ahead.load(Ordering::Relaxed)))
    }

    /// Kills the server, looks at what it left, and starts it again; in another step of codes
    /// where `fresh`.
    pub fn kill_and_start(&mut self, fresh: bool) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
        self.check_file();
        if fresh {
            self.ahead.fetch_add(60, Ordering::Relaxed);
            self.home.ahead = self.ahead.load(Ordering::Relaxed);
        }
        let begun = Instant::now();
        self.server = Some(self.home.serve());
        self.take_up_phones();
        assert!(begun.elapsed() < Duration::from_secs(5), "security 106: back within 5 s");
    }

    /// What must hold whenever the server may have died.
    pub fn check_file(&self) {
        let (whole, said) = self.home.verify();
        assert!(whole, "{said}");
        invariants::hold_in(&self.home.database());
    }

    /// How often each kind of thing is on record, but for what asking twice may leave twice.
    pub fn recorded(&self) -> BTreeMap<String, u64> {
        let counted = sqlite(
            &self.home.database(),
            "SELECT kind || ' ' || count(*) FROM audit \
             WHERE kind <> 'otp.checked' AND kind NOT LIKE 'client.%' AND kind NOT LIKE 'otp.w%' GROUP BY kind \
             UNION ALL SELECT 'accepted ' || count(*) FROM attempts WHERE outcome = 'accepted'",
        );
        let pair = |line: &str| {
            let (kind, count) = line.rsplit_once(' ').expect("a kind and a count");
            (kind.to_owned(), count.parse().expect("a count"))
        };
        counted.lines().map(pair).collect()
    }

    /// Posts with a key of this step, so that asking again is asking once.
    async fn post(
        &self,
        program: &Program,
        step: usize,
        path: &str,
        body: Value,
    ) -> Result<Value, Lost> {
        let key = format!("step-{step}");
        let headers = [("idempotency-key", key.as_str())];
        let body = body.to_string();
        let reply = program.0.send("POST", path, &headers, body.as_bytes()).await;
        let reply = reply.map_err(|_| Lost)?;
        // The first time is still under way where its client was cut off and the server was not.
        if matches!(reply.status.as_u16(), 409 | 503) && reply.problem() != "state-conflict" {
            return Err(Lost);
        }
        assert!(reply.status.is_success(), "{}: {}", STEPS[step], reply.json());
        Ok(reply.json())
    }

    fn lost<T>(done: Result<T, semilla_approver::Error>) -> Result<T, Lost> {
        match done {
            Ok(done) => Ok(done),
            Err(semilla_approver::Error::Unreachable(..)) => Err(Lost),
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes a step, or learns that its answer was lost.
    pub async fn take(&mut self, step: usize) -> Result<(), Lost> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let token = format!("/api/v1/tokens/{}", self.token);
        match STEPS[step] {
            "issue" => {
                let body = json!({"first": SERIAL, "count": 1});
                let made = self.post(&self.operator, step, "/api/v1/stock/issue", body).await?;
                self.token = text(&made["tokens"][0]["id"]);
            }
            "allot" => {
                let body = json!({"first": SERIAL, "count": 1, "company": self.company_id});
                self.post(&self.operator, step, "/api/v1/stock/allot", body).await?;
            }
            "bind" | "bind laura" => {
                let whose = usize::from(STEPS[step] == "bind laura");
                if !self.activations.contains_key(&step) {
                    let path = match whose {
                        0 => format!("/api/v1/users/{}/activation", self.people[0]),
                        _ => format!("/api/v1/enrollments/{}/activation", self.enrollment),
                    };
                    let made = self.post(&self.company, step, &path, json!({})).await?;
                    self.activations.insert(step, text(&made["uri"]));
                }
                Self::lost(self.phones[whose].bind(&self.activations[&step]).await)?;
            }
            "assign" => {
                let body = json!({"user": self.people[1]});
                let opened =
                    self.post(&self.company, step, &format!("{token}/assign"), body).await?;
                self.enrollment = text(&opened["enrollment"]["id"]);
            }
            "enroll" => {
                // Proven already, where the phone has heard of it.
                let known = self.phones[1].tokens().expect("tokens");
                let generation = if step < 10 { 1 } else { 2 };
                if !known.iter().any(|known| known.generation == generation) {
                    Self::lost(self.phones[1].enroll_next().await)?;
                }
            }
            "verify" => {
                let body = json!({"token": self.token, "code": self.code()}).to_string();
                let reply =
                    self.company.0.send("POST", "/api/v1/otp/verify", &[], body.as_bytes()).await;
                let reply = reply.map_err(|_| Lost)?;
                assert_eq!(reply.status.as_u16(), 200, "{}", reply.json());
            }
            "block" => {
                let body = json!({"cause": "user_inactive"});
                self.post(&self.company, step, &format!("{token}/block"), body).await?;
            }
            "ask unblock" => {
                self.operation =
                    self.post(&self.company, step, &format!("{token}/unblock"), json!({})).await?;
            }
            "ask release" => {
                let body = json!({"cause": "seed_release"});
                self.operation =
                    self.post(&self.company, step, &format!("{token}/release"), body).await?;
            }
            "approve" => {
                let id = text(&self.operation["id"]).parse().expect("an id");
                let number = text(&self.operation["match_number"]);
                self.take_up_phones();
                let inbox = Self::lost(self.phones[0].inbox().await)?;
                if inbox.requests.iter().any(|request| request.id() == id) {
                    Self::lost(self.phones[0].approve(id, &number).await)?;
                }
                let path = format!("/api/v1/operations/{id}");
                let reply = self.company.0.send("GET", &path, &[], b"").await.map_err(|_| Lost)?;
                assert_eq!(reply.json()["state"], "executed", "{}", reply.json());
            }
            other => panic!("no step is called {other}"),
        }
        Ok(())
    }

    /// What everybody sees once a step was taken.
    pub async fn seen(&self, step: usize) -> Value {
        if step < 2 {
            let path = format!("/api/v1/stock?q={SERIAL}");
            return self.operator.get(&path).await.expect(200)["total"].clone();
        }
        let token = self.company.get(&format!("/api/v1/tokens/{}", self.token)).await.expect(200);
        json!([token["state"], token["generation"], token["last_cause"], token["version"]])
    }
}

/// Whether a step wants a code of another moment than the steps before it.
pub fn needs_a_fresh_step(step: usize) -> bool {
    matches!(STEPS[step], "verify") || (STEPS[step] == "enroll" && step > 10)
}
