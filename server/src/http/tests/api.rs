//! Every route against every wrong caller, and what every change has in common.

use axum::http::HeaderMap;
use futures_util::StreamExt;
use semilla_core::entropy;
use semilla_core::id::TokenId;
use serde_json::{Value, json};

use super::*;
use crate::http::testing::Company;

/// A body that a route accepts, as far as its form goes.
fn body_for(route: &Route) -> Value {
    let somebody = CompanyId::BANK.to_string();
    match (route.method.as_str(), route.path.rsplit('/').next().unwrap_or_default()) {
        ("GET" | "DELETE", _) => Value::Null,
        (_, "assign") => json!({ "user": somebody }),
        (_, "block") => json!({ "cause": "customer_request" }),
        (_, "release") => json!({ "cause": "seed_release" }),
        (_, "rotate") => json!({ "cause": "scheduled" }),
        (_, "resync") => json!({ "codes": ["12345678", "12345679"] }),
        (_, "confirm") => json!({ "code": "12345678" }),
        ("PATCH", _) if route.path.starts_with("/api/v1/users") => json!({ "name": "Otra" }),
        _ => json!({}),
    }
}

/// The path with `id` wherever an id stands.
fn at(route: &Route, id: &str) -> String {
    let segments = route.path.split('/').map(|part| if part.starts_with('{') { id } else { part });
    segments.collect::<Vec<_>>().join("/")
}

/// What an answer tells: everything but its own name and its moment.
async fn told(response: Response) -> (u16, HeaderMap, String) {
    let mut headers = response.headers().clone();
    headers.remove("x-request-id");
    headers.remove(header::DATE);
    (response.status().as_u16(), headers, body_of(response).await)
}

#[tokio::test]
async fn security_74_nobody_reaches_a_route_without_what_its_rule_names() {
    let bench = Bench::new().await;
    let company = bench.company("Andina").await;
    let bank = bench.access_token(bench.client, &bench.secret).await;
    for route in routes() {
        let (method, path) = (route.method.as_str(), at(&route, &CompanyId::BANK.to_string()));
        let ask = async |token: &str| {
            problem_of(bench.ask(token, method, &path, body_for(&route)).await).await.kind
        };
        let what = format!("{method} {path}");
        match route.rule {
            Rule::Public => continue,
            Rule::KnownPhone | Rule::BoundPhone => {
                let response = bench.ask(&company.token, method, &path, body_for(&route)).await;
                assert!(response.headers().contains_key("dpop-nonce"), "{what}");
                assert_eq!(problem_of(response).await.kind, ProblemType::Unauthenticated, "{what}");
            }
            Rule::Scope(scopes) => {
                assert_eq!(ask("unknown").await, ProblemType::Unauthenticated, "{what}");
                if scopes.iter().any(|scope| scope.is_of_bank()) {
                    assert_eq!(ask(&company.token).await, ProblemType::Forbidden, "{what}");
                }
                // All that the program may do, but this.
                let id = company.client.to_string();
                let others = ApiScope::ALL.into_iter();
                let others = others.filter(|scope| !scope.is_of_bank() && !scopes.contains(scope));
                let others: Vec<_> = others.map(ApiScope::name).collect();
                let form = format!("grant_type=client_credentials&scope={}", others.join("+"));
                let granted = bench.token_request(&id, &company.secret, &form).await;
                let granted: Value = serde_json::from_str(&body_of(granted).await).expect("JSON");
                let narrow = granted["access_token"].as_str().expect("a token");
                assert_eq!(ask(narrow).await, ProblemType::Forbidden, "{what}");
            }
        }
    }
    // What was tried changed nothing.
    let people = bench.done(&bank, "GET", "/api/v1/companies", Value::Null).await;
    assert_eq!(people["total"], 2);
}

#[tokio::test]
async fn security_72_what_is_anothers_is_what_is_nobodys_byte_for_byte() {
    let bench = Bench::new().await;
    let (one, other) = (bench.company("Andina").await, bench.company("Bolívar").await);
    let token = bench.token_for(&one, "VTA0000001").await;
    let user = json!({ "login": "laura", "name": "Laura" });
    let user = bench.done(&one.token, "POST", "/api/v1/users", user).await["id"].clone();
    let path = format!("/api/v1/tokens/{token}/assign");
    let assigned = bench.done(&one.token, "POST", &path, json!({ "user": user })).await;
    let enrollment = &assigned["enrollment"]["id"];
    let nobody = TokenId::new(bench.app.now(), bench.app.entropy.as_ref()).to_string();
    let mut compared = 0;
    for route in routes() {
        let owned = match route.path.split('/').nth(3) {
            _ if !route.path.contains('{') => continue,
            Some("tokens") => token.as_str(),
            Some("users") => user.as_str().expect("an id"),
            Some("enrollments") => enrollment.as_str().expect("an id"),
            _ => continue,
        };
        if !matches!(route.rule, Rule::Scope(_)) {
            continue;
        }
        let method = route.method.as_str();
        let ask = async |id: &str| {
            told(bench.ask(&other.token, method, &at(&route, id), body_for(&route)).await).await
        };
        let (foreign, absent, no_id) = (ask(owned).await, ask(&nobody).await, ask("x").await);
        let what = format!("{method} {}", route.path);
        assert_eq!((foreign.0, &foreign), (404, &absent), "{what}");
        assert_eq!(foreign, no_id, "{what}");
        compared += 1;
    }
    assert!(compared > 10, "{compared} routes");
    let shown =
        bench.done(&one.token, "GET", &format!("/api/v1/tokens/{token}"), Value::Null).await;
    assert_eq!(shown["state"], "assigned");
}

async fn new_user(bench: &Bench, company: &Company, login: &str, key: &str) -> Response {
    let body = json!({ "login": login, "name": "Laura" });
    let headers = [("idempotency-key", key)];
    bench.ask_with(&company.token, "POST", "/api/v1/users", body, &headers).await
}

#[tokio::test]
async fn security_104_a_key_is_answered_once_for_each_client_and_request() {
    let bench = Bench::new().await;
    let (one, other) = (bench.company("Andina").await, bench.company("Bolívar").await);
    let first = told(new_user(&bench, &one, "laura", "k-1").await).await;
    assert_eq!(first.0, 201);
    assert_eq!(told(new_user(&bench, &one, "laura", "k-1").await).await, first);
    let mismatch = problem_of(new_user(&bench, &one, "maria", "k-1").await).await;
    assert_eq!(mismatch.kind, ProblemType::IdempotencyMismatch);
    assert_eq!(
        new_user(&bench, &other, "laura", "k-1").await.status(),
        201,
        "another client's key"
    );
    let taken = problem_of(new_user(&bench, &one, "laura", "k-2").await).await;
    assert_eq!(taken.kind, ProblemType::Validation, "another key is another request");
    let people = bench.done(&one.token, "GET", "/api/v1/users", Value::Null).await;
    assert_eq!(people["total"], 2, "the administrator and one more");
    bench.clock.advance(Duration::from_secs(24 * 3600 - 1));
    let token = bench.access_token(one.client, &one.secret).await;
    let one = Company { token, ..one };
    assert_eq!(told(new_user(&bench, &one, "laura", "k-1").await).await, first, "for 24 hours");
}

#[tokio::test]
async fn security_104_requests_with_one_key_at_the_same_time_are_one_request() {
    let bench = Bench::new().await;
    let company = bench.company("Andina").await;
    let asked = (0..20).map(|_| new_user(&bench, &company, "laura", "k"));
    let mut statuses: Vec<_> = futures_util::future::join_all(asked).await;
    statuses.retain(|response| response.status() != 409);
    let mut bodies = Vec::new();
    for response in statuses {
        assert_eq!(response.status(), 201);
        bodies.push(body_of(response).await);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1);
    let people = bench.done(&company.token, "GET", "/api/v1/users", Value::Null).await;
    assert_eq!(people["total"], 2);
}

#[tokio::test]
async fn a_change_can_be_held_to_the_version_that_was_read() {
    let bench = Bench::new().await;
    let company = bench.company("Andina").await;
    let path = format!("/api/v1/users/{}", company.admin);
    let read = bench.ask(&company.token, "GET", &path, Value::Null).await;
    let etag = read.headers()[header::ETAG].to_str().expect("text").to_owned();
    let change = async |name: &str, tag: &str| {
        let body = json!({ "name": name });
        bench.ask_with(&company.token, "PATCH", &path, body, &[("if-match", tag)]).await
    };
    let changed = change("Andrea", &etag).await;
    assert_eq!(changed.status(), 200);
    assert_ne!(changed.headers()[header::ETAG], *etag);
    let late = problem_of(change("Andreas", &etag).await).await;
    assert_eq!(late.kind, ProblemType::PreconditionFailed);
    assert_eq!(change("Andrés", "*").await.status(), 200);
    let shown = bench.done(&company.token, "GET", &path, Value::Null).await;
    assert_eq!(shown["name"], "Andrés");
}

#[tokio::test]
async fn security_73_fields_that_are_not_the_callers_to_set_are_refused() {
    let bench = Bench::new().await;
    let company = bench.company("Andina").await;
    let base = json!({ "login": "laura", "name": "Laura" });
    for (field, value) in [
        ("id", json!(company.admin)),
        ("company", json!(company.id)),
        ("active", json!(true)),
        ("binding", json!("first")),
        ("created", json!("2026-01-01T00:00:00Z")),
    ] {
        let mut body = base.clone();
        body[field] = value;
        let response = bench.ask(&company.token, "POST", "/api/v1/users", body).await;
        let problem = problem_of(response).await;
        assert_eq!(problem.errors[0].pointer, format!("#/{field}"));
    }
    for role in ["administrator", "operator"] {
        let mut body = base.clone();
        body["role"] = json!(role);
        let response = bench.ask(&company.token, "POST", "/api/v1/users", body).await;
        assert_eq!(problem_of(response).await.kind, ProblemType::Validation);
    }
}

#[tokio::test]
async fn a_company_hears_of_what_happens_and_goes_on_where_it_was() {
    let bench = Bench::new().await;
    let company = bench.company("Andina").await;
    let listen = async |headers: &[(&str, &str)]| {
        let path = "/api/v1/events";
        let response = bench.ask_with(&company.token, "GET", path, Value::Null, headers).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        assert_hardened(&response);
        let frames = response.into_body().into_data_stream();
        frames.map(|frame| String::from_utf8(frame.expect("sent").to_vec()).expect("UTF-8"))
    };
    let mut stream = Box::pin(listen(&[]).await);
    assert!(stream.next().await.expect("open").contains("retry: 2000"));
    assert_eq!(new_user(&bench, &company, "laura", "k-1").await.status(), 201);
    let event = stream.next().await.expect("an event");
    assert!(event.contains("user.created") && event.contains("id: "), "{event}");
    let id = event.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id").to_owned();
    drop(stream);
    assert_eq!(new_user(&bench, &company, "maria", "k-2").await.status(), 201);
    let mut stream = Box::pin(listen(&[("last-event-id", &id)]).await);
    stream.next().await.expect("open");
    let event = stream.next().await.expect("an event");
    let next = id.parse::<u64>().expect("a number") + 1;
    assert!(event.contains("user.created") && event.contains(&format!("id: {next}")), "{event}");
    bench.app.stopping.cancel();
    assert_eq!(stream.next().await, None, "security 118: a stop ends streams");
}

#[tokio::test]
async fn security_98_random_bodies_never_break_anything() {
    let bench = Bench::new().await;
    let company = bench.company("Andina").await;
    let entropy = bench.app.entropy.as_ref();
    let seeds = [
        r#"{"login":"laura","name":"Laura","role":"secondary"}"#,
        r#"{"token":"x","code":"12345678"}"#,
    ];
    for round in 0..300 {
        let mut body = seeds[round % 2].as_bytes().to_vec();
        for _ in 0..=entropy::below(entropy, 3) {
            let place = entropy::below(entropy, u32::try_from(body.len()).expect("short")) as usize;
            body[place] = entropy::bytes::<1>(entropy)[0];
        }
        let path = ["/api/v1/users", "/api/v1/otp/verify"][round % 2];
        let request = Request::post(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", company.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.clone()))
            .expect("a request");
        let status = bench.send(request).await.status().as_u16();
        assert!([200, 201, 400, 422].contains(&status), "{status}: {}", body.escape_ascii());
    }
}
