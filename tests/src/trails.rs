//! Audit trails as stories look at them: what was recorded since, also in the bank's own chain.

use semilla_server::store::AuditQuery;
use serde_json::Value;

use crate::http::{Expect, Program};
use crate::world::{Company, World};

impl World {
    /// How long the bank's trail is.
    pub async fn trail_length_of_bank(&self) -> u64 {
        let page = self.operator.get("/api/v1/audit?limit=1").await.expect(200);
        page["total"].as_u64().expect("a total")
    }

    /// The bank's records of this kind behind the first `from`.
    pub async fn bank_records_since(&self, from: u64, kind: &str) -> Vec<Value> {
        records(&self.operator, from, kind).await
    }

    /// What came of every attempt with a code of `company`, the oldest first: what no caller is
    /// told.
    pub async fn outcomes(&self, company: &Company) -> Vec<String> {
        let store = &self.server().app.store;
        let company = company.id.parse().expect("an id");
        let kind = Some("otp.checked".to_owned());
        let query = AuditQuery { company, after: 0, token: None, kind, limit: 10_000 };
        let mut outcomes = Vec::new();
        for record in store.audit(&query).await.expect("the trail") {
            let attempts = store.attempts(company, record.sequence).await.expect("its attempts");
            outcomes.extend(attempts.into_iter().map(|attempt| attempt.outcome));
        }
        outcomes
    }

    /// The records of `company` of this kind behind the first `from`; of all kinds where it is
    /// empty.
    pub async fn records_since(&self, company: &Company, from: usize, kind: &str) -> Vec<Value> {
        records(&company.program, from as u64, kind).await
    }
}

async fn records(program: &Program, from: u64, kind: &str) -> Vec<Value> {
    let (mut found, mut after) = (Vec::new(), from.to_string());
    let kind = if kind.is_empty() { String::new() } else { format!("&kind={kind}") };
    loop {
        let page =
            program.get(&format!("/api/v1/audit?limit=100&after={after}{kind}")).await.expect(200);
        let items = page["items"].as_array().expect("items");
        if items.is_empty() {
            return found;
        }
        found.extend(items.iter().map(|item| item["record"].clone()));
        page["next_cursor"].as_str().expect("a cursor").clone_into(&mut after);
    }
}
