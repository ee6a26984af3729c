//! The server process is killed with SIGKILL at every step of the flow, and started again: what it
//! acknowledged is there, nothing is done twice, and there is never more than one seed (security
//! 49, 60, 105, 106). Once it is killed right behind each answer, and then somewhere in the middle
//! of each request, at moments that a printed seed chooses; whoever lost an answer asks again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use semilla_approver::Phone;
use semilla_approver::entropy::SystemEntropy;
use semilla_core::otp::Step;
use semilla_core::time::Timestamp;
use semilla_server::clock::{Clock, SystemClock};
use semilla_tests::http::{Expect, Http, Program};
use semilla_tests::process::{Home, Process, sqlite};
use semilla_tests::seeded::Seeded;
use semilla_tests::world::COMPANY_SCOPES;
use serde_json::{Value, json};

const SERIAL: &str = "FEF4900032";

/// The steps of the flow.
const STEPS: [&str; 16] = [
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
struct Lost;

/// A bank on a folder, its company and its phones. What is learned from answers is kept here, as
/// programs keep it.
struct Bank {
    home: Home,
    server: Option<Process>,
    ahead: Arc<AtomicU64>,
    operator: Program,
    company: Program,
    company_id: String,
    people: [String; 2],
    phones: [Phone; 2],
    activations: BTreeMap<usize, String>,
    token: String,
    enrollment: String,
    operation: Value,
}

impl Bank {
    async fn begin() -> Self {
        let home = Home::make();
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
        let phone = || {
            let ahead = Arc::clone(&ahead);
            let clock =
                move || SystemClock.now().plus(Duration::from_secs(ahead.load(Ordering::Relaxed)));
            Phone::in_memory(Arc::new(clock), Arc::new(SystemEntropy))
        };
        let phones = [phone(), phone()];
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

    fn now(&self) -> Timestamp {
        SystemClock.now().plus(Duration::from_secs(self.ahead.load(Ordering::Relaxed)))
    }

    /// Kills the server, looks at what it left, and starts it again; in another step of codes
    /// where `fresh`.
    fn kill_and_start(&mut self, fresh: bool) {
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
        assert!(begun.elapsed() < Duration::from_secs(5), "security 106: back within 5 s");
    }

    /// What must hold whenever the server may have died.
    fn check_file(&self) {
        let (whole, said) = self.home.verify();
        assert!(whole, "{said}");
        let database = self.home.database();
        let none = |what: &str, sql: &str| {
            assert_eq!(sqlite(&database, sql), "", "{what}");
        };
        none(
            "the database is damaged",
            "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
        );
        none(
            "more than one generation of a token is live",
            "SELECT token FROM generations WHERE state = 'live' GROUP BY token HAVING count(*) > 1",
        );
        none(
            "codes are accepted of a token that is not active",
            "SELECT v.token FROM verifiers v JOIN tokens t ON t.id = v.token \
             WHERE v.open = 1 AND t.state <> 'active'",
        );
        none(
            "an active token whose codes nobody can check",
            "SELECT t.id FROM tokens t LEFT JOIN verifiers v ON v.token = t.id \
             WHERE t.state = 'active' AND coalesce(v.open = 1 AND v.sealed IS NOT NULL, 0) = 0",
        );
        none(
            "a seed of a token that nobody holds",
            "SELECT v.token FROM verifiers v JOIN tokens t ON t.id = v.token \
             WHERE v.sealed IS NOT NULL AND t.state IN ('stock', 'company', 'assigned', 'retired')",
        );
    }

    /// How often each kind of thing is on record, but for what asking twice may leave twice.
    fn recorded(&self) -> BTreeMap<String, u64> {
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
    async fn take(&mut self, step: usize) -> Result<(), Lost> {
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
                let step = Step(self.now().seconds() / 30);
                let code = self.phones[1].raw().code_at(SERIAL, step).expect("a code");
                let body = json!({"token": self.token, "code": code.code.expose()}).to_string();
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
    async fn seen(&self, step: usize) -> Value {
        if step < 2 {
            let path = format!("/api/v1/stock?q={SERIAL}");
            return self.operator.get(&path).await.expect(200)["total"].clone();
        }
        let token = self.company.get(&format!("/api/v1/tokens/{}", self.token)).await.expect(200);
        json!([token["state"], token["generation"], token["last_cause"], token["version"]])
    }
}

fn needs_a_fresh_step(step: usize) -> bool {
    matches!(STEPS[step], "verify") || (STEPS[step] == "enroll" && step > 10)
}

/// What each step leaves, and how long it takes, when nobody kills anything in the middle.
async fn undisturbed() -> Vec<(BTreeMap<String, u64>, Value, Duration)> {
    let mut bank = Bank::begin().await;
    let mut left = Vec::new();
    for (step, name) in STEPS.iter().enumerate() {
        if needs_a_fresh_step(step) {
            bank.kill_and_start(true);
        }
        let begun = Instant::now();
        assert!(bank.take(step).await.is_ok(), "{name}");
        let took = begun.elapsed();
        left.push((bank.recorded(), bank.seen(step).await, took));
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn security_49_105_and_106_killed_behind_every_answer_and_within_every_request() {
    let expected = undisturbed().await;
    assert_eq!(expected[15].0["accepted"], 3, "the control: each code was accepted");

    // Behind every answer.
    let mut bank = Bank::begin().await;
    for (step, (recorded, seen, _)) in expected.iter().enumerate() {
        if needs_a_fresh_step(step) {
            bank.kill_and_start(true);
        }
        assert!(bank.take(step).await.is_ok(), "{}", STEPS[step]);
        bank.kill_and_start(false);
        assert_eq!(bank.recorded(), *recorded, "after {}", STEPS[step]);
        assert_eq!(bank.seen(step).await, *seen, "after {}", STEPS[step]);
    }

    // Within every request.
    let mut seeded = Seeded::from_environment(106);
    let mut cut_off = 0;
    for _ in 0..4 {
        let mut bank = Bank::begin().await;
        for (step, (recorded, seen, took)) in expected.iter().enumerate() {
            if needs_a_fresh_step(step) {
                bank.kill_and_start(true);
            }
            let moment = Duration::from_micros(
                seeded.below(usize::try_from(took.as_micros()).expect("a time") + 200) as u64,
            );
            let mut server = bank.server.take().expect("it runs");
            let killed = async {
                tokio::time::sleep(moment).await;
                server.kill_now();
            };
            let (done, ()) = tokio::join!(bank.take(step), killed);
            bank.server = Some(server);
            cut_off += usize::from(done.is_err());
            bank.kill_and_start(false);
            if done.is_err() {
                assert!(bank.take(step).await.is_ok(), "{} is not answered", STEPS[step]);
            }
            assert_eq!(bank.recorded(), *recorded, "after {}", STEPS[step]);
            assert_eq!(bank.seen(step).await, *seen, "after {}", STEPS[step]);
        }
    }
    assert!(cut_off > 10, "only {cut_off} of 64 requests were cut off");
}
