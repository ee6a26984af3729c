//! People beyond those that every world has: a second administrator, the operator's own phone, and
//! programs that act for whom a story wants; and the policy that they choose.

use semilla_approver::Phone;
use serde_json::{Value, json};

use crate::asking::request_on;
use crate::http::{Expect, Program};
use crate::world::{COMPANY_SCOPES, Company, World};

impl World {
    /// Another administrator of `company`, without a phone. Returns their id.
    pub async fn another_administrator(&self, company: &Company, login: &str) -> String {
        let path = format!("/api/v1/companies/{}/administrators", company.id);
        let body = json!({"login": login, "name": "Rosa Mejía"});
        let made = self.operator.post(&path, body).await.expect(201);
        made["id"].as_str().expect("an id").to_owned()
    }

    /// A program of `company` with every scope, acting for these administrators.
    pub async fn program_for(&self, company: &Company, askers: &[&str]) -> Program {
        let path = format!("/api/v1/companies/{}/clients", company.id);
        let body = json!({"name": "Otra", "scopes": COMPANY_SCOPES, "askers": askers});
        Program::of(self.http(), &self.operator.post(&path, body).await.expect(201))
    }

    /// The id of the bank's operator.
    pub async fn operator_id(&self) -> String {
        let people = self.operator.get("/api/v1/users").await.expect(200);
        people["items"][0]["id"].as_str().expect("an id").to_owned()
    }

    /// A phone bound to the bank's operator.
    pub async fn operators_phone(&self) -> Phone {
        let path = format!("/api/v1/users/{}/activation", self.operator_id().await);
        let activation = self.operator.post(&path, json!({})).await.expect(201);
        let phone = self.phone();
        phone.bind(activation["uri"].as_str().expect("a uri")).await.expect("bound");
        phone
    }

    /// A phone that a person bound as another one, and that waits for a phone bound before; with
    /// the number that it shows.
    pub async fn waiting_phone(&self, company: &Company, user: &str) -> (Phone, String) {
        let (_, uri) = company.activation_for(user).await;
        let phone = self.phone();
        let number = phone.bind(&uri).await.expect("bound").match_number.expect("a number");
        (phone, number)
    }

    /// Another phone of a person, which `first` agreed to.
    pub async fn another_phone(&self, company: &Company, user: &str, first: &Phone) -> Phone {
        let (phone, number) = self.waiting_phone(company, user).await;
        let request = request_on(first).await;
        first.approve(request.id(), &number).await.expect("approved");
        phone
    }

    /// Revokes a phone in the administrator's name.
    pub async fn revoke(&self, company: &Company, phone: &Phone) {
        let device = phone.raw().device().expect("bound");
        let path = format!("/api/v1/devices/{device}");
        company.program.send("DELETE", &path, &[], None).await.expect(204);
    }
}

impl Company {
    /// Changes something of the company's policy.
    pub async fn choose(&self, change: impl FnOnce(&mut Value)) {
        let mut policy = self.program.get("/api/v1/policies").await.expect(200);
        change(&mut policy);
        self.program.send("PUT", "/api/v1/policies", &[], Some(policy)).await.expect(200);
    }

    /// The state of a phone as the company sees it.
    pub async fn state_of_phone(&self, phone: &Phone) -> String {
        let device = json!(phone.raw().device().expect("bound"));
        let devices = self.program.get("/api/v1/devices").await.expect(200);
        let mut listed = devices["items"].as_array().expect("items").iter();
        let found = listed.find(|listed| listed["id"] == device).expect("it is listed");
        found["state"].as_str().expect("a state").to_owned()
    }

    /// Lets a person take part, or no more.
    pub async fn set_active(&self, user: &str, active: bool) {
        let path = format!("/api/v1/users/{user}");
        let body = Some(json!({"active": active}));
        self.program.send("PATCH", &path, &[], body).await.expect(200);
    }

    /// The activation of a person's phone: what is typed, and what is scanned.
    pub async fn activation_for(&self, user: &str) -> (String, String) {
        let path = format!("/api/v1/users/{user}/activation");
        activation(&self.program.post(&path, json!({})).await.expect(201))
    }

    /// The activation of an enrollment: what is typed, and what is scanned.
    pub async fn activation_of(&self, enrollment: &str) -> (String, String) {
        let path = format!("/api/v1/enrollments/{enrollment}/activation");
        activation(&self.program.post(&path, json!({})).await.expect(201))
    }
}

fn activation(answer: &Value) -> (String, String) {
    let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
    (text("code"), text("uri"))
}
