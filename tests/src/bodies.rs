//! For every route that takes a body, one that it takes: the beginning of each story about wrong
//! ones. A route without a body here ends the story, so that no new route slips by.

use serde_json::{Value, json};

/// The ids that stand in good bodies.
pub struct Ids<'a> {
    /// A person of the company.
    pub user: &'a str,
    /// A token of the company.
    pub token: &'a str,
    /// The company.
    pub company: &'a str,
    /// A number that makes names unique.
    pub number: usize,
}

/// Whether a route takes a body.
pub fn has_body(method: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH")
}

/// A body that the route takes, as far as its form is concerned.
pub fn good(method: &str, path: &str, ids: &Ids<'_>) -> Value {
    let number = ids.number;
    let person = json!({"login": format!("persona.{number}"), "name": format!("Persona {number}")});
    let run = json!({"first": format!("ABC{:07}", 1_000_000 + number), "count": 1});
    let signed = json!({"message": "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"});
    match (method, path) {
        ("POST", "/api/v1/tokens/{id}/assign") => json!({"user": ids.user}),
        ("POST", "/api/v1/tokens/{id}/block") => json!({"cause": "technical_failure"}),
        ("POST", "/api/v1/tokens/{id}/release") => json!({"cause": "seed_release"}),
        ("POST", "/api/v1/tokens/{id}/rotate") => json!({"cause": "suspicion"}),
        ("POST", "/api/v1/enrollments/{id}/confirm") => json!({"code": "12345678"}),
        ("POST", "/api/v1/tokens/{id}/resync") => json!({"codes": ["12345678", "12345679"]}),
        ("POST", "/api/v1/otp/verify") => json!({"token": ids.token, "code": "12345678"}),
        ("POST", "/api/v1/users") => person,
        ("PATCH", "/api/v1/users/{id}") => json!({"name": format!("Persona {number}")}),
        ("PUT", "/api/v1/policies") => policy(),
        ("POST", "/api/v1/companies") => {
            json!({"name": format!("Empresa {number}"), "administrator": person})
        }
        ("PATCH", "/api/v1/companies/{id}") => json!({"active": true}),
        ("POST", "/api/v1/companies/{id}/administrators") => person,
        ("POST", "/api/v1/companies/{id}/clients") => {
            json!({"name": format!("Programa {number}"), "scopes": ["tokens:read"]})
        }
        ("POST", "/api/v1/stock/allot") => {
            let mut run = run;
            run["company"] = ids.company.into();
            run
        }
        ("POST", "/api/v1/stock/issue" | "/api/v1/stock/withdraw" | "/api/v1/stock/retire") => run,
        ("POST", "/api/v1/stock/import") => {
            let seed = "3132333435363738393031323334353637383930";
            json!({"format": "csv", "content": format!("HW-{number:07},{seed}\n")})
        }
        ("POST", "/api/v1/stock/export") => json!({"passphrase": "correct horse battery"}),
        (
            "POST",
            "/api/v1/tokens/{id}/unblock"
            | "/api/v1/tokens/{id}/enrollments"
            | "/api/v1/enrollments/{id}/activation"
            | "/api/v1/enrollments/{id}/otpauth"
            | "/api/v1/users/{id}/activation"
            | "/api/v1/users/{id}/recover"
            | "/api/v1/webhooks/{id}/rotate-secret"
            | "/api/v1/webhooks/{id}/test"
            | "/api/v1/webhooks/{id}/deliveries/{delivery}/replay"
            | "/api/v1/companies/{id}/users/{user}/recover",
        ) => json!({}),
        ("POST", "/api/v1/webhooks") => {
            json!({"url": "https://receiver.example/semilla", "kinds": ["token."]})
        }
        ("PATCH", "/api/v1/webhooks/{id}") => json!({"active": true}),
        ("POST", "/api/v1/webhooks/{id}/replay") => json!({"after": 0}),
        ("POST", "/device/v1/bindings/start") => json!({"activation": "7ZQ4"}),
        ("POST", "/device/v1/enrollments/{id}/confirm") => json!({"code": "12345678"}),
        (
            "POST",
            "/device/v1/bindings"
            | "/device/v1/enrollments"
            | "/device/v1/approvals/{id}/response"
            | "/device/v1/tokens/{id}/rotate"
            | "/device/v1/keys",
        ) => signed,
        _ => panic!("{method} {path} is new: say here what it takes"),
    }
}

/// The policy that a company begins with.
pub fn policy() -> Value {
    serde_json::to_value(semilla_core::policy::Policy::DEFAULT).expect("JSON")
}

/// The policy of a company whose seeds go to authenticator apps.
pub fn authenticator_app_policy() -> Value {
    let mut policy = policy();
    policy["profile"] = "authenticator_app".into();
    policy
}
