//! What a route takes and answers, read off the signature of its handler: each kind of argument
//! and each kind of answer says what it means for the caller, in terms of the types that are read
//! and written. A handler whose arguments or answer say nothing does not compile as a route.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use semilla_core::problem::ProblemType;
use serde_json::{Map, Value, json};

use super::Edge;
use super::body::Json;
use super::change::Change;
use super::params::{Id, Ids, Query};
use super::respond::Answered;
use crate::listener::Peer;
use crate::workflow::View;
use crate::workflow::caller::{Caller, Phone};

/// A handler that can be a route: one whose arguments and answer describe themselves.
pub trait Endpoint<T>: Handler<T, Arc<Edge>> {
    /// Tells `about` what the handler takes and answers.
    fn describe(about: &mut About);
}

/// An argument of a handler.
pub trait Part {
    /// What it asks of the caller; nothing, where it is the server's own affair.
    fn describe(_: &mut About) {}
}

/// What a handler returns.
pub trait Reply {
    /// The answer of success, and what else it may be.
    fn describe(about: &mut About);
}

macro_rules! endpoints {
    ($(($($part:ident),*);)*) => {$(
        impl<F, Fut, M, $($part),*> Endpoint<(M, $($part,)*)> for F
        where
            F: FnOnce($($part),*) -> Fut + Handler<(M, $($part,)*), Arc<Edge>>,
            Fut: Future<Output: Reply>,
            $($part: Part,)*
        {
            fn describe(about: &mut About) {
                $($part::describe(about);)*
                <Fut::Output as Reply>::describe(about);
            }
        }
    )*};
}

endpoints! {
    ();
    (A);
    (A, B);
    (A, B, C);
    (A, B, C, D);
    (A, B, C, D, E);
}

/// A body, as it is described.
#[derive(Clone, Debug)]
pub struct Content {
    /// Its media type.
    pub media_type: &'static str,
    /// Its form.
    pub schema: Value,
    /// Examples by name; where there is none, one is made from the form.
    pub examples: Map<String, Value>,
}

/// The answer of success.
#[derive(Clone, Debug)]
pub struct Success {
    /// Its status.
    pub status: u16,
    /// Its body; none where it has none.
    pub content: Option<Content>,
}

/// Whether a text is read as a body, or why not.
pub type Reads = fn(&str) -> Result<(), String>;

/// What is known of one route.
pub struct About {
    /// Parameters of the path, the query and the header, as OpenAPI has them.
    pub parameters: Vec<Value>,
    /// The body it takes, and whether it must have one.
    pub body: Option<(Content, bool)>,
    /// How a body is checked against the type it becomes; for the tests.
    pub reads: Option<Reads>,
    /// What it answers where all is well.
    pub success: Option<Success>,
    /// What else it may answer, but for what every route may.
    pub problems: Vec<ProblemType>,
    /// Whether it refuses as OAuth does (RFC 6749 section 5.2).
    pub refuses_as_oauth: bool,
    schemas: Schemas,
}

/// The forms of everything, as it is read and as it is written.
pub struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Default for Schemas {
    fn default() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        let read = settings().for_deserialize().into_generator();
        Self { read, written: settings().for_serialize().into_generator() }
    }
}

impl Schemas {
    /// The form in which `T` is written.
    pub fn written<T: JsonSchema>(&mut self) -> Value {
        self.written.subschema_for::<T>().to_value()
    }

    /// All that have a name, and the names that stand for two different forms.
    pub fn named(mut self) -> (Map<String, Value>, Vec<String>) {
        let mut named = self.read.take_definitions(true);
        let mut doubtful = Vec::new();
        for (name, schema) in self.written.take_definitions(true) {
            if named.get(&name).is_some_and(|other| *other != schema) {
                doubtful.push(name.clone());
            }
            named.insert(name, schema);
        }
        (named, doubtful)
    }
}

impl About {
    /// What `describe` tells, adding to `schemas`.
    pub fn of(describe: fn(&mut Self), schemas: &mut Schemas) -> Self {
        let mut about = Self {
            parameters: Vec::new(),
            body: None,
            reads: None,
            success: None,
            problems: Vec::new(),
            refuses_as_oauth: false,
            schemas: std::mem::take(schemas),
        };
        describe(&mut about);
        *schemas = std::mem::take(&mut about.schemas);
        about
    }

    /// May be answered with one of these.
    pub fn may(&mut self, problems: &[ProblemType]) {
        self.problems.extend(problems);
    }

    fn takes<T: JsonSchema>(&mut self, required: bool) {
        let schema = self.schemas.read.subschema_for::<T>().to_value();
        let content = Content { media_type: "application/json", schema, examples: Map::new() };
        self.body = Some((content, required));
        use ProblemType::{Malformed, TooLarge, UnsupportedMediaType, Validation};
        self.may(&[Malformed, TooLarge, UnsupportedMediaType, Validation]);
    }

    /// The form in which `T` is read.
    pub fn reads_form<T: JsonSchema>(&mut self) -> Value {
        self.schemas.read.subschema_for::<T>().to_value()
    }

    /// A parameter. The form may be the reference to a named one.
    pub fn parameter(
        &mut self,
        place: &str,
        name: &str,
        required: bool,
        schema: Value,
        says: &str,
    ) {
        self.parameters.push(json!({
            "name": name, "in": place, "required": required, "description": says,
            "schema": schema,
        }));
    }

    fn in_path<T: JsonSchema>(&mut self, name: &str) {
        let schema = self.schemas.read.subschema_for::<T>().to_value();
        self.parameter("path", name, true, schema, "");
        self.may(&[ProblemType::NotFound]);
    }

    fn in_query<T: JsonSchema>(&mut self) {
        let schema = T::json_schema(&mut self.schemas.read).to_value();
        let required: Vec<Value> = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, schema) in schema["properties"].as_object().cloned().unwrap_or_default() {
            let says = schema["description"].as_str().unwrap_or_default().to_owned();
            let required = required.iter().any(|other| *other == name);
            self.parameter("query", &name, required, without_null(schema), &says);
        }
        self.may(&[ProblemType::Validation]);
    }

    /// Answers `content` with `status`.
    pub fn answers(&mut self, status: u16, content: Option<Content>) {
        self.success = Some(Success { status, content });
    }

    /// Answers JSON of the form of `T`.
    pub fn answers_json<T: JsonSchema>(&mut self, status: u16) {
        let schema = self.schemas.written::<T>();
        let content = Content { media_type: "application/json", schema, examples: Map::new() };
        self.answers(status, Some(content));
    }
}

/// A parameter that may be left out is not there, and never `null`.
fn without_null(mut schema: Value) -> Value {
    if let Some(of) = schema["anyOf"].as_array().cloned() {
        let mut rest = of.into_iter().filter(|one| one["type"] != "null");
        if let (Some(one), None) = (rest.next(), rest.next()) {
            return one;
        }
    }
    if let Some(types) = schema["type"].as_array().cloned() {
        let mut rest = types.into_iter().filter(|one| one != "null");
        if let (Some(one), None) = (rest.next(), rest.next()) {
            schema["type"] = one;
        }
    }
    if let Some(members) = schema.as_object_mut() {
        members.remove("description");
        members.remove("default");
    }
    schema
}

impl<S> Part for State<S> {}
impl Part for Extension<Peer> {}
impl Part for Caller {}
impl Part for Phone {}

impl<T: JsonSchema> Part for Id<T> {
    fn describe(about: &mut About) {
        about.in_path::<T>("id");
    }
}

impl<A: JsonSchema, B: JsonSchema> Part for Ids<A, B> {
    fn describe(about: &mut About) {
        about.in_path::<A>("id");
        // The route names it; see `openapi::operation`.
        about.in_path::<B>("");
    }
}

impl<T: JsonSchema> Part for Query<T> {
    fn describe(about: &mut About) {
        about.in_query::<T>();
    }
}

fn reads<T: serde::de::DeserializeOwned>(text: &str) -> Result<(), String> {
    serde_json::from_str::<T>(text).map(drop).map_err(|error| error.to_string())
}

impl<T: JsonSchema + serde::de::DeserializeOwned> Part for Json<T> {
    fn describe(about: &mut About) {
        about.takes::<T>(true);
        about.reads = Some(reads::<T>);
    }
}

impl<T: JsonSchema + serde::de::DeserializeOwned, const BYTES_MAX: usize> Part
    for Change<T, BYTES_MAX>
{
    fn describe(about: &mut About) {
        // No body at all is `{}`.
        about.takes::<T>(serde_json::from_str::<T>("{}").is_err());
        about.reads = Some(reads::<T>);
        let key = json!({
            "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$",
            "examples": ["0190b6a0-0000-7000-8000-000000000000"],
        });
        let says = "Under one key a change is made once: the same request gets the same answer for 24 hours.";
        about.parameter("header", "Idempotency-Key", false, key, says);
        let tag = json!({ "type": "string", "pattern": "^(\\*|\"[1-9][0-9]{0,17}\")$", "examples": ["\"7\""] });
        let says = "The version the change is based on: the `ETag` as it was given.";
        about.parameter("header", "If-Match", false, tag, says);
        use ProblemType::{IdempotencyConflict, IdempotencyMismatch, PreconditionFailed};
        about.may(&[IdempotencyConflict, IdempotencyMismatch, PreconditionFailed]);
    }
}

impl<V: View> Reply for Answered<V> {
    fn describe(about: &mut About) {
        match V::STATUS {
            204 => about.answers(204, None),
            status => about.answers_json::<V>(status),
        }
    }
}

/// A kind of text that is no JSON of a type of ours.
pub trait Kind: Send + 'static {
    /// Its media type.
    const MEDIA_TYPE: &'static str;
    /// Its form.
    fn schema() -> Value {
        json!({ "type": "string" })
    }
    /// One of them.
    fn example() -> Value;
}

/// An answer that is a text of the kind `K`.
pub struct Text<K>(Response, PhantomData<fn() -> K>);

impl<K> Text<K> {
    /// The answer.
    pub fn of(response: impl IntoResponse) -> Self {
        Self(response.into_response(), PhantomData)
    }
}

impl<K> IntoResponse for Text<K> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<K: Kind> Reply for Text<K> {
    fn describe(about: &mut About) {
        let examples = Map::from_iter([("example".to_owned(), K::example())]);
        let content = Content { media_type: K::MEDIA_TYPE, schema: K::schema(), examples };
        about.answers(200, Some(content));
    }
}

impl<K: Kind, E> Reply for Result<Text<K>, E>
where
    E: IntoResponse,
{
    fn describe(about: &mut About) {
        Text::<K>::describe(about);
    }
}

impl<T: JsonSchema> Reply for axum::Json<T> {
    fn describe(about: &mut About) {
        about.answers_json::<T>(200);
    }
}

/// What stands in members that are texts and have no form of their own, by their names.
const WORDS: [(&str, &str); 66] = [
    ("access_token", "q3ZtC5kdtPzVY9vWqkPyJ0OBeS1GhNNOZ5mb7x1Qv9Y"),
    ("acr_values_supported", "urn:semilla:acr:number"),
    ("action", "release"),
    ("allowed", "allot"),
    (
        "auth_req_id",
        "019ac6a5-1c00-7000-8000-000000000009.q3ZtC5kdtPzVY9vWqkPyJ0OBeS1GhNNOZ5mb7x1Qv9Y",
    ),
    ("authorization_server", "/.well-known/oauth-authorization-server"),
    ("backchannel_authentication_endpoint", "https://tokens.example/bc-authorize"),
    ("backchannel_authentication_request_signing_alg_values_supported", "ES256"),
    ("body", "{\"kind\":\"token.released\"}"),
    ("cause", "seed_release"),
    ("checkpoint", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"),
    ("claims_supported", "sub"),
    ("client_assertion", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"),
    ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
    ("client_id", "019ac6a5-1c00-7000-8000-000000000007"),
    ("client_secret", "q3ZtC5kdtPzVY9vWqkPyJ0OBeS1GhNNOZ5mb7x1Qv9Y"),
    ("code", "7ZQ4-9M2K-XW5H-0TBC"),
    ("company_api", "/api/v1"),
    ("cursor", "WyJpZCIsIjAxOWFjNmE1Il0"),
    ("description", "/openapi.json"),
    ("detail", "What happened, and what to do next."),
    ("details_types", "payment_initiation"),
    ("device_api", "/device/v1"),
    ("docs", "/docs"),
    ("dpop_signing_alg_values_supported", "ES256"),
    ("grant_types_supported", "client_credentials"),
    ("hash", "T8_6IL9jLQEklNJOHBx6HD7ovGN7xxtS_ohbkIyqBn8"),
    ("id_token", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"),
    ("id_token_hint", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"),
    ("id_token_signing_alg_values_supported", "ES256"),
    ("issuer", "https://tokens.example"),
    ("jwks_uri", "https://tokens.example/jwks"),
    ("kind", "token."),
    ("last_cause", "seed_release"),
    ("match_number", "493027"),
    ("kinds", "token.released"),
    ("message", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"),
    ("next_cursor", "42"),
    ("notification_endpoint", "https://payments.example/ping"),
    ("pointer", "#/cause"),
    ("problem", "state-conflict"),
    ("product", "Semilla"),
    ("q", "laura"),
    ("qr_svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"/>"),
    ("request", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"),
    ("request_object_signing_alg_values_supported", "ES256"),
    ("response", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"),
    ("scope", "tokens:read otp:verify"),
    ("scopes_supported", "openid"),
    ("serial", "FEF4900032"),
    ("service_documentation", "https://tokens.example/docs"),
    ("sort", "-updated"),
    ("state", "pending"),
    ("status", "up"),
    ("subject_types_supported", "public"),
    ("title", "Not in this state"),
    ("token_endpoint", "https://tokens.example/token"),
    ("token_endpoint_auth_signing_alg_values_supported", "ES256"),
    ("token_type", "Bearer"),
    ("url", "https://receiver.example/semilla"),
    ("uri", "semilla://enroll?server=https%3A%2F%2Ftokens.example&code=7ZQ49M2KXW5H0TBC"),
    ("content", "serial,secret"),
    ("fault", "the check digit is wrong"),
    ("method", "totp"),
    ("secret", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
    ("error", "no answer within 15 s"),
];

/// What stands for a text of which nothing is known: no example has it, and a test says so.
pub const UNKNOWN: &str = "…";

/// An example of the member `name`, as [`example`].
pub fn member(name: &str, schema: &Value, named: &Map<String, Value>, full: bool) -> Value {
    let example = example(schema, named, full);
    let word = || WORDS.iter().find(|(other, _)| *other == name).map(|(_, word)| *word);
    match word() {
        Some(word) if example == UNKNOWN => word.into(),
        Some(word) if example[0] == UNKNOWN => json!([word]),
        _ => example,
    }
}

/// An example of what `schema` describes, put together from the examples of its parts. `full` asks
/// for what may be left out as well.
pub fn example(schema: &Value, named: &Map<String, Value>, full: bool) -> Value {
    if let Some(example) = schema["examples"].get(0).or_else(|| schema.get("const")) {
        return example.clone();
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return named.get(name).map_or(Value::Null, |schema| example(schema, named, full));
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(first) = schema[choice].get(0) {
            return example(first, named, full);
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds[0].as_str().unwrap_or_default(),
        kind => kind.as_str().unwrap_or_default(),
    };
    match kind {
        "object" => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let wanted = |name: &String| full || required.iter().any(|other| other == name);
            let members = schema["properties"].as_object().cloned().unwrap_or_default();
            let members = members.iter().filter(|(name, _)| wanted(name));
            members
                .map(|(name, schema)| (name.clone(), member(name, schema, named, full)))
                .collect()
        }
        "array" => {
            let least = schema["minItems"].as_u64().unwrap_or(1).max(1);
            (0..least).map(|_| example(&schema["items"], named, full)).collect()
        }
        "integer" | "number" => {
            schema.get("minimum").filter(|n| **n != 0).cloned().unwrap_or(json!(1))
        }
        "boolean" => json!(true),
        "string" => json!(UNKNOWN),
        _ => Value::Null,
    }
}

/// Parameters and problems in an order that does not depend on how they were told.
pub fn by_status(problems: &[ProblemType]) -> BTreeMap<u16, Vec<ProblemType>> {
    let mut sorted: BTreeMap<u16, Vec<ProblemType>> = BTreeMap::new();
    for kind in ProblemType::ALL.iter().filter(|kind| problems.contains(kind)) {
        sorted.entry(kind.status()).or_default().push(*kind);
    }
    sorted
}
