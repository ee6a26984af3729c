//! A bank whose server is the program in a process of its own, with a company and a person who
//! holds an active token: for stories of those who run it. Its clock is the machine's, on which a
//! story puts time by starting the server again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use semilla_approver::Phone;
use semilla_approver::entropy::SystemEntropy;
use semilla_core::time::Timestamp;
use semilla_server::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::http::{Expect, Program};
use crate::process::{Home, Process};
use crate::world::COMPANY_SCOPES;

/// The bank.
pub struct Branch {
    /// Its folder.
    pub home: Home,
    /// Its server; none while it does not run.
    pub server: Option<Process>,
    /// The operator's program.
    pub operator: Program,
    /// The company's program.
    pub company: Program,
    /// The administrator.
    pub andres: String,
    /// The holder.
    pub laura: String,
    /// Tokens in the company's pool: id and serial number.
    pub pool: Vec<(String, String)>,
    ahead: Arc<AtomicU64>,
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

impl Branch {
    /// Opens on a folder: a company with two people and `tokens` in its pool.
    pub async fn open(home: Home, tokens: u32) -> Self {
        let server = home.serve();
        let http = home.http();
        let operator = Program::of(http.clone(), &home.credentials);
        let body = json!({"name": "Comercial Andina S.A.S.", "administrator": {"login": "andres.gomez", "name": "Andrés Gómez"}});
        let made = operator.post("/api/v1/companies", body).await.expect(201);
        let (id, andres) = (text(&made["company"]["id"]), text(&made["administrator"]["id"]));
        let client = json!({"name": "Tesorería", "scopes": COMPANY_SCOPES, "askers": [andres]});
        let path = format!("/api/v1/companies/{id}/clients");
        let client = operator.post(&path, client).await.expect(201);
        let company = Program::of(http, &client);
        let laura = json!({"login": "laura.valencia", "name": "Laura Valencia"});
        let laura = text(&company.post("/api/v1/users", laura).await.expect(201)["id"]);
        let run = json!({"first": "FEF4900032", "count": tokens});
        operator.post("/api/v1/stock/issue", run).await.expect(200);
        let run = json!({"first": "FEF4900032", "count": tokens, "company": id});
        let allotted = operator.post("/api/v1/stock/allot", run).await.expect(200);
        let pool = allotted["tokens"].as_array().expect("tokens").iter();
        let pool = pool.map(|token| (text(&token["id"]), text(&token["serial"]))).collect();
        let ahead = Arc::new(AtomicU64::new(0));
        Self { home, server: Some(server), operator, company, andres, laura, pool, ahead }
    }

    /// A phone out of the box, whose clock is the bank's.
    pub fn phone(&self) -> Phone {
        let ahead = Arc::clone(&self.ahead);
        let clock =
            move || SystemClock.now().plus(Duration::from_secs(ahead.load(Ordering::Relaxed)));
        let phone = Phone::in_memory(Arc::new(clock), Arc::new(SystemEntropy));
        match &self.home.authority {
            Some(authority) => phone.trusting(authority).expect("an authority"),
            None => phone,
        }
    }

    /// Now, for the bank and its phones.
    pub fn now(&self) -> Timestamp {
        SystemClock.now().plus(Duration::from_secs(self.ahead.load(Ordering::Relaxed)))
    }

    /// A phone bound to a person.
    pub async fn bound_phone(&self, user: &str) -> Phone {
        let path = format!("/api/v1/users/{user}/activation");
        let activation = self.company.post(&path, json!({})).await.expect(201);
        let phone = self.phone();
        phone.bind(activation["uri"].as_str().expect("a uri")).await.expect("bound");
        phone
    }

    /// Gives the first token of the pool to Laura, whose new phone enrolls it.
    pub async fn enrolled_phone(&self) -> Phone {
        let (token, _) = &self.pool[0];
        let path = format!("/api/v1/tokens/{token}/assign");
        let opened = self.company.post(&path, json!({"user": self.laura})).await.expect(201);
        let path = format!("/api/v1/enrollments/{}/activation", text(&opened["enrollment"]["id"]));
        let activation = self.company.post(&path, json!({})).await.expect(201);
        let phone = self.phone();
        phone.bind(activation["uri"].as_str().expect("a uri")).await.expect("bound");
        phone.enroll_next().await.expect("enrolled");
        phone
    }

    /// The code of this moment of the first token.
    pub fn code(&self, phone: &Phone) -> String {
        phone.code(&self.pool[0].1).expect("a code").code.expose().to_owned()
    }

    /// Whether a code of the first token is accepted.
    pub async fn verify(&self, code: &str) -> bool {
        self.company.verify(&self.pool[0].0, code).await
    }

    /// Ends the server, as a service manager does.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            assert!(server.stop().success());
        }
    }

    /// Starts the server on its folder, with the clock so many seconds on.
    pub fn start_after(&mut self, seconds: u64) {
        self.stop();
        self.home.ahead = self.ahead.fetch_add(seconds, Ordering::Relaxed) + seconds;
        self.server = Some(self.home.serve());
    }

    /// What is in the bank's own trail, oldest first, of one kind.
    pub async fn bank_trail(&self, kind: &str) -> Vec<Value> {
        let path = format!("/api/v1/audit?limit=100&kind={kind}");
        let page = self.operator.get(&path).await.expect(200);
        let items = page["items"].as_array().expect("items").iter();
        items.map(|item| item["record"].clone()).collect()
    }
}
