//! The description of everything that can be asked (OpenAPI 3.1), made from the table of routes,
//! the signatures of their handlers and the types they read and write. Nothing of it is written
//! down twice, so that it cannot say anything else than the code does.

use std::sync::LazyLock;

use axum::http::header;
use semilla_core::language::Language;
use semilla_core::problem::{Problem, ProblemType};
use serde_json::{Map, Value, json};

use super::auth::Rule;
use super::describe::{About, Content, Kind, Schemas, Text, by_status, example, member};
use super::{Route, routes};
use crate::records::ApiScope;

/// An OpenAPI document.
pub(super) struct OpenApi;

impl Kind for OpenApi {
    const MEDIA_TYPE: &'static str = "application/openapi+json";
    fn schema() -> Value {
        json!({ "type": "object", "required": ["openapi", "info", "paths"] })
    }
    fn example() -> Value {
        json!({ "openapi": "3.1.0", "info": { "title": "Semilla", "version": "0.1.0" }, "paths": {} })
    }
}

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| whole(&routes()));
static TEXT: LazyLock<String> = LazyLock::new(|| DOCUMENT.to_string());

/// `GET /openapi.json`.
pub(super) async fn document() -> Text<OpenApi> {
    Text::of(([(header::CONTENT_TYPE, OpenApi::MEDIA_TYPE)], TEXT.as_str()))
}

/// The description of all routes.
pub fn described() -> &'static Value {
    &DOCUMENT
}

/// How an operation is called in the document: by its method and its address.
pub fn operation_id(route: &Route) -> String {
    let path = route.path.replace(['/', '.', '-'], "_").replace(['{', '}'], "");
    format!("{}{}", route.method.as_str().to_ascii_lowercase(), path)
}

/// Of what an operation is: the segment of its address that says so.
pub fn tag(path: &str) -> &str {
    let segment = |place| path.split('/').nth(place).unwrap_or_default();
    match segment(1) {
        "api" => segment(3),
        "device" => "device",
        "token" | "bc-authorize" | "jwks" | ".well-known" => "oauth",
        _ => "server",
    }
}

/// What `scope` is for, by its own documentation.
fn says_of_scopes(schemas: &mut Schemas) -> Map<String, Value> {
    schemas.written::<ApiScope>();
    let schema =
        <ApiScope as schemars::JsonSchema>::json_schema(&mut schemars::SchemaGenerator::default());
    let variants = schema.get("oneOf").and_then(Value::as_array).cloned().unwrap_or_default();
    let said = |variant: &Value| {
        (variant["const"].as_str().unwrap_or_default().to_owned(), variant["description"].clone())
    };
    variants.iter().map(said).collect()
}

/// A problem of this type, as it could be told.
fn problem_example(kind: ProblemType) -> Problem {
    let mut problem = match kind {
        ProblemType::Validation => Problem::field("#/cause", "is missing"),
        ProblemType::NotFound => Problem::not_found(),
        _ => Problem::new(kind, format!("{}.", kind.title())),
    };
    match kind {
        ProblemType::StateConflict => {
            problem.state = Some("stock".to_owned());
            problem.allowed = Some(vec!["allot".to_owned(), "retire".to_owned()]);
            problem.who_can_act = Some("operator".to_owned());
        }
        ProblemType::TokenLocked | ProblemType::RateLimited | ProblemType::Unavailable => {
            problem = problem.retry_after(25);
        }
        _ => {}
    }
    problem
}

fn whole(routes: &[Route]) -> Value {
    let mut schemas = Schemas::default();
    let problem = schemas.written::<Problem>();
    let scopes = says_of_scopes(&mut schemas);
    let abouts: Vec<About> =
        routes.iter().map(|route| About::of(route.describe, &mut schemas)).collect();
    let (named, doubtful) = schemas.named();
    debug_assert!(doubtful.is_empty(), "two forms under one name: {doubtful:?}");
    let mut paths: Map<String, Value> = Map::new();
    for (route, about) in routes.iter().zip(abouts) {
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method.as_str().to_ascii_lowercase()] =
            operation(route, about, &named, &problem);
    }
    let problems: Map<String, Value> = ProblemType::ALL
        .iter()
        .map(|kind| {
            let example = json!({ "summary": kind.title(), "value": problem_example(*kind) });
            (kind.name().to_owned(), example)
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Semilla",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Virtual tokens for companies that bank online.",
            "description": "Times are RFC 3339 in UTC, ids UUIDs, binary values base64url without padding. \
                Unknown and repeated fields are refused. Errors are problem documents (RFC 9457) of the types \
                listed here; what belongs to another company is `not-found`, byte for byte as what does not exist.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": named,
            "examples": problems,
            "securitySchemes": {
                "oauth": {
                    "type": "oauth2",
                    "description": "An access token for 300 seconds, as `Bearer`; as `DPoP` with a proof \
                        (RFC 9449) where it is bound to a key. Clients prove themselves by `client_secret_basic` \
                        or `private_key_jwt` (ES256).",
                    "flows": { "clientCredentials": { "tokenUrl": "/token", "scopes": scopes } },
                },
                "client": {
                    "type": "http", "scheme": "basic",
                    "description": "A program's `client_id` and `client_secret`.",
                },
                "device": {
                    "type": "http", "scheme": "DPoP",
                    "description": "The device token that a phone was given when it was bound, with a proof of \
                        the phone's key in the header `DPoP` (RFC 9449), made with the nonce of the last `DPoP-Nonce`.",
                },
            },
        },
    })
}

fn security(rule: Rule, path: &str) -> Value {
    match rule {
        // Or by an assertion in the body.
        Rule::Public if ["/token", "/bc-authorize"].contains(&path) => {
            json!([{ "client": [] }, {}])
        }
        Rule::Public => json!([]),
        Rule::Scope(scopes) => {
            scopes.iter().map(|scope| json!({ "oauth": [scope.name()] })).collect()
        }
        Rule::KnownPhone | Rule::BoundPhone => json!([{ "device": [] }]),
    }
}

/// What every caller under this rule may be answered.
fn problems_of(rule: Rule) -> &'static [ProblemType] {
    use ProblemType::{DeviceRevoked, Forbidden, RateLimited, Unauthenticated};
    match rule {
        Rule::Public => &[],
        Rule::Scope(_) => &[Unauthenticated, Forbidden, RateLimited],
        Rule::KnownPhone | Rule::BoundPhone => &[Unauthenticated, DeviceRevoked],
    }
}

fn operation(
    route: &Route,
    mut about: About,
    named: &Map<String, Value>,
    problem: &Value,
) -> Value {
    about.may(problems_of(route.rule));
    about.may(route.problems);
    // A request may be unreadable as such, or have a header twice; the server may fail.
    use ProblemType::{Internal, Malformed, Unavailable, Validation};
    about.may(&[Internal, Malformed, Unavailable, Validation]);
    let mut names = route
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')));
    for parameter in &mut about.parameters {
        if parameter["in"] == "path" {
            parameter["name"] = names.next().unwrap_or_default().into();
        }
        let name = parameter["name"].as_str().unwrap_or_default();
        parameter["example"] = member(name, &parameter["schema"], named, false);
    }
    let mut responses = Map::new();
    for (status, kinds) in by_status(&about.problems) {
        let titles: Vec<_> = kinds.iter().map(|kind| format!("`{}`", kind.name())).collect();
        let examples: Map<String, Value> = kinds
            .iter()
            .map(|kind| {
                let place = format!("#/components/examples/{}", kind.name());
                (kind.name().to_owned(), json!({ "$ref": place }))
            })
            .collect();
        let mut content = Map::new();
        content.insert(
            "application/problem+json".to_owned(),
            json!({ "schema": problem, "examples": examples }),
        );
        if about.refuses_as_oauth && [400, 401, 403].contains(&status) {
            content.insert("application/json".to_owned(), super::oauth::refusal_content(status));
        }
        let mut response = json!({ "description": titles.join(", "), "content": content });
        if status == 401 {
            response["headers"] = json!({
                "WWW-Authenticate": { "schema": { "type": "string" }, "description": "How to authenticate." },
            });
        }
        responses.insert(status.to_string(), response);
    }
    // An address that is too long is answered before anybody looks where it leads.
    responses.insert(
        "414".to_owned(),
        json!({
            "description": "`too-large`",
            "content": { "application/problem+json": {
                "schema": problem,
                "examples": { "too-large": { "value": Problem {
                    status: 414,
                    ..Problem::new(ProblemType::TooLarge, "An address has at most 2048 bytes.")
                } } },
            } },
        }),
    );
    if let Some(success) = about.success {
        let description = route.summary.text(Language::English);
        let mut response = json!({ "description": description });
        if let Some(content) = success.content {
            response["content"] = media(content, named, true);
        }
        if [201, 202].contains(&success.status) {
            response["headers"] = json!({
                "Location": { "schema": { "type": "string" }, "description": "Where it can be looked at." },
            });
        }
        responses.insert(success.status.to_string(), response);
    }
    let mut operation = json!({
        "operationId": operation_id(route),
        "tags": [tag(route.path)],
        "summary": route.summary.text(Language::English),
        "x-summary-es": route.summary.text(Language::Spanish),
        "security": security(route.rule, route.path),
        "parameters": about.parameters,
        "responses": responses,
    });
    if let Some((content, required)) = about.body {
        operation["requestBody"] =
            json!({ "required": required, "content": media(content, named, false) });
    }
    operation
}

fn media(content: Content, named: &Map<String, Value>, full: bool) -> Value {
    let mut examples: Map<String, Value> = content
        .examples
        .into_iter()
        .map(|(name, value)| (name, json!({ "value": value })))
        .collect();
    // Those of the form itself come before one that is put together.
    let form = content.schema["$ref"].as_str().and_then(|place| place.rsplit('/').next());
    let form = form.and_then(|name| named.get(name)).unwrap_or(&content.schema);
    for (place, value) in form["examples"].as_array().into_iter().flatten().enumerate() {
        examples.insert(format!("example {}", place + 1), json!({ "value": value }));
    }
    if examples.is_empty() {
        let example = example(&content.schema, named, full);
        examples.insert("example".to_owned(), json!({ "value": example }));
    }
    json!({ content.media_type: { "schema": content.schema, "examples": examples } })
}
