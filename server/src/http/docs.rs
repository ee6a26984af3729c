//! The page on which the API is read and tried: the OpenAPI document as HTML, made on the server,
//! so that it is read without JavaScript; with it, each route has a form that sends what it says to
//! this server. Everything is in the program, and the page may load and reach nothing else.

use std::fmt::Write;
use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use schemars::JsonSchema;
use semilla_core::language::{Label, Language};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::describe::{Kind, Text};
use super::openapi::described;
use super::params::Query;
use super::problem::ApiError;

/// What the page may load, send and be shown in.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $media_type:literal, $example:literal;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl Kind for $name {
            const MEDIA_TYPE: &'static str = $media_type;
            fn example() -> Value {
                json!($example)
            }
        }
    )*};
}

kinds! {
    /// A page.
    Html = "text/html", "<!doctype html>";
    /// A style sheet.
    Css = "text/css", "body { margin: 0; }";
    /// A script.
    JavaScript = "text/javascript", "\"use strict\";";
}

fn text<K: Kind>(text: &'static str) -> Text<K> {
    let content_type = format!("{}; charset=utf-8", K::MEDIA_TYPE);
    Text::of(([(header::CONTENT_TYPE, content_type)], text))
}

/// In which language.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct In {
    /// `es` or `en`; Spanish if not said.
    lang: Option<Language>,
}

/// `GET /docs`.
pub(super) async fn page(Query(In { lang }): Query<In>) -> Result<Text<Html>, ApiError> {
    static SPANISH: LazyLock<String> = LazyLock::new(|| render(described(), Language::Spanish));
    static ENGLISH: LazyLock<String> = LazyLock::new(|| render(described(), Language::English));
    let page = match lang.unwrap_or_default() {
        Language::Spanish => &SPANISH,
        Language::English => &ENGLISH,
    };
    let policy = [(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))];
    Ok(Text::of((policy, text::<Html>(page))))
}

/// `GET /docs/style.css`.
pub(super) async fn style() -> Text<Css> {
    text(include_str!("../../assets/docs/style.css"))
}

/// `GET /docs/try.js`.
pub(super) async fn script() -> Text<JavaScript> {
    text(include_str!("../../assets/docs/try.js"))
}

const INTRODUCTION: Label = Label(
    "Un programa obtiene un token de acceso en <code>/token</code> con su secreto o con un documento firmado \
     (<code>private_key_jwt</code>), y lo envía con cada solicitud. Los errores son documentos de problema \
     (RFC 9457). La descripción completa para máquinas es <a href=\"/openapi.json\"><code>/openapi.json</code></a>.",
    "A program gets an access token from <code>/token</code> with its secret or with a signed assertion \
     (<code>private_key_jwt</code>), and sends it with every request. Errors are problem documents (RFC 9457). The \
     whole description for machines is <a href=\"/openapi.json\"><code>/openapi.json</code></a>.",
);
const TRY_FIRST: Label = Label(
    "Para probar: un token de acceso. Lo que se escribe aquí queda en esta página.",
    "To try: an access token. What is typed here stays in this page.",
);
const NEEDS: Label = Label("Requiere", "Needs");
const OR: Label = Label("o", "or");
const OF_DEVICE: Label =
    Label("el token del teléfono, con una prueba DPoP", "the phone's token, with a DPoP proof");
const ANYBODY: Label = Label("nada", "nothing");
const PARAMETERS: Label = Label("Parámetros", "Parameters");
const REQUEST: Label = Label("Solicitud", "Request");
const ANSWER: Label = Label("Respuesta", "Answer");
const PROBLEMS: Label = Label("Problemas", "Problems");
const FIELDS: Label = Label("Campos", "Fields");
const OPTIONAL: Label = Label("opcional", "optional");
const SEND: Label = Label("Enviar", "Send");
const GET_TOKEN: Label = Label("Obtener token", "Get a token");
const SCOPES: Label = Label("Permisos (scopes)", "Scopes");
const PROBLEM_TYPES: Label = Label("Tipos de problema", "Problem types");
const FORMS: Label = Label("Formas", "Forms");
const NAME: Label = Label("La API de Semilla", "The API of Semilla");

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

fn text_of(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

/// JSON laid out; a text as it is.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text),
        other => escaped(&serde_json::to_string_pretty(other).unwrap_or_default()),
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE).iter()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A page under construction. Writing to a `String` cannot fail.
struct Page {
    html: String,
    language: Language,
}

impl Page {
    fn put(&mut self, html: std::fmt::Arguments<'_>) {
        let _ = self.html.write_fmt(html);
    }

    fn say(&self, label: Label) -> &'static str {
        label.text(self.language)
    }

    fn heading(&mut self, label: Label) {
        let label = self.say(label);
        self.put(format_args!("<h3>{label}</h3>"));
    }
}

fn render(document: &Value, language: Language) -> String {
    let mut page = Page { html: String::new(), language };
    let (tag, name) = (language.tag(), page.say(NAME));
    let other = if language == Language::Spanish { ("en", "English") } else { ("es", "Español") };
    page.put(format_args!(
        "<!doctype html><html lang=\"{tag}\"><meta charset=\"utf-8\"><title>{name}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <link rel=\"stylesheet\" href=\"/docs/style.css\">\
         <script src=\"/docs/try.js\" defer></script>\
         <body><nav><strong>Semilla</strong><p><a href=\"?lang={}\" lang=\"{}\">{}</a></p>",
        other.0, other.0, other.1
    ));
    let groups = grouped(document);
    for (group, _) in &groups {
        page.put(format_args!("<a href=\"#{group}\">{group}</a>"));
    }
    for (id, label) in [("scopes", SCOPES), ("problems", PROBLEM_TYPES), ("forms", FORMS)] {
        let label = page.say(label);
        page.put(format_args!("<a href=\"#{id}\">{label}</a>"));
    }
    let (introduction, first, send) =
        (page.say(INTRODUCTION), page.say(TRY_FIRST), page.say(GET_TOKEN));
    let version = text_of(&document["info"]["version"]);
    page.put(format_args!(
        "</nav><main><h1>{name} <small class=\"soft\">{version}</small></h1><p>{introduction}</p>\
         <form id=\"credentials\" hidden><span>{first}</span>\
         <label>client_id<input name=\"client_id\" autocomplete=\"off\"></label>\
         <label>client_secret<input name=\"client_secret\" type=\"password\" autocomplete=\"off\"></label>\
         <button>{send}</button><label>access_token<input name=\"token\" autocomplete=\"off\"></label>\
         <output></output></form>"
    ));
    for (group, operations) in &groups {
        page.put(format_args!("<section><h2 id=\"{group}\">{group}</h2>"));
        for (method, path, operation) in operations {
            show_operation(&mut page, document, method, path, operation);
        }
        page.put(format_args!("</section>"));
    }
    let oauth = &document["components"]["securitySchemes"]["oauth"];
    show_table(
        &mut page,
        "scopes",
        SCOPES,
        entries(&oauth["flows"]["clientCredentials"]["scopes"]),
    );
    let scheme = page.say(PROBLEM_TYPES);
    page.put(format_args!("<section><h2 id=\"problems\">{scheme}</h2>"));
    for (name, example) in entries(&document["components"]["examples"]) {
        let (status, title) = (&example["value"]["status"], text_of(&example["summary"]));
        let value = shown(&example["value"]);
        page.put(format_args!(
            "<details id=\"problem-{name}\"><summary><span class=\"method\">{status}</span><code>{name}</code>\
             <span class=\"soft\">{title}</span></summary><div><pre>{value}</pre></div></details>"
        ));
    }
    let forms = page.say(FORMS);
    page.put(format_args!("</section><section><h2 id=\"forms\">{forms}</h2>"));
    for (name, schema) in entries(&document["components"]["schemas"]) {
        let says = text_of(&schema["description"]);
        page.put(format_args!(
            "<details id=\"form-{name}\"><summary><code>{name}</code><span class=\"soft\">{says}</span></summary><div>"
        ));
        show_fields(&mut page, schema);
        let value = shown(schema);
        page.put(format_args!("<pre>{value}</pre></div></details>"));
    }
    page.put(format_args!("</section></main></body></html>"));
    page.html
}

type Operation<'a> = (&'a str, &'a str, &'a Value);

/// The operations in the order of the document, by what they are of.
fn grouped(document: &Value) -> Vec<(&str, Vec<Operation<'_>>)> {
    let mut groups: Vec<(&str, Vec<Operation<'_>>)> = Vec::new();
    for (path, methods) in entries(&document["paths"]) {
        for (method, operation) in entries(methods) {
            let tag = operation["tags"][0].as_str().unwrap_or_default();
            let place = groups.iter().position(|(group, _)| *group == tag).unwrap_or_else(|| {
                groups.push((tag, Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push((method, path, operation));
        }
    }
    groups
}

fn show_operation(page: &mut Page, document: &Value, method: &str, path: &str, operation: &Value) {
    let id = text_of(&operation["operationId"]);
    let summary = match page.language {
        Language::Spanish => text_of(&operation["x-summary-es"]),
        Language::English => text_of(&operation["summary"]),
    };
    let upper = method.to_ascii_uppercase();
    page.put(format_args!(
        "<details id=\"{id}\"><summary><span class=\"method {method}\">{upper}</span><code>{path}</code>\
         <span>{summary}</span></summary><div>"
    ));
    let (needs, who) = (page.say(NEEDS), who_may(page, operation));
    page.put(format_args!("<p class=\"soft\">{needs}: {who}</p>"));
    let parameters = items(&operation["parameters"]);
    if !parameters.is_empty() {
        page.heading(PARAMETERS);
        page.put(format_args!("<table>"));
        for parameter in parameters {
            let (name, place) = (text_of(&parameter["name"]), text_of(&parameter["in"]));
            let says = text_of(&parameter["description"]);
            let form = form_of(&parameter["schema"]);
            let optional = if parameter["required"] == true { "" } else { page.say(OPTIONAL) };
            page.put(format_args!(
                "<tr><td><code>{name}</code><td>{place} {optional}<td>{form}<td>{says}</tr>"
            ));
        }
        page.put(format_args!("</table>"));
    }
    let body = entries(&operation["requestBody"]["content"]).next();
    if let Some((media_type, content)) = body {
        page.heading(REQUEST);
        let form = form_of(&content["schema"]);
        page.put(format_args!("<p class=\"soft\"><code>{media_type}</code> {form}</p>"));
        for (name, example) in entries(&content["examples"]) {
            let value = shown(&example["value"]);
            page.put(format_args!("<pre title=\"{name}\">{value}</pre>"));
        }
    }
    show_answers(page, document, operation);
    show_form(page, method, path, operation, body);
    page.put(format_args!("</div></details>"));
}

fn show_answers(page: &mut Page, document: &Value, operation: &Value) {
    page.heading(ANSWER);
    let (good, bad): (Vec<_>, Vec<_>) =
        entries(&operation["responses"]).partition(|(status, _)| status.starts_with('2'));
    for (status, response) in good {
        page.put(format_args!("<p class=\"soft\">{status}"));
        let content = entries(&response["content"]).next();
        if let Some((media_type, content)) = content {
            let form = form_of(&content["schema"]);
            page.put(format_args!(" <code>{media_type}</code> {form}"));
        }
        page.put(format_args!("</p>"));
        for (_, example) in content.iter().flat_map(|(_, content)| entries(&content["examples"])) {
            let value = shown(&example["value"]);
            page.put(format_args!("<pre>{value}</pre>"));
        }
    }
    page.heading(PROBLEMS);
    page.put(format_args!("<ul>"));
    for (status, response) in bad {
        page.put(format_args!("<li>{status}"));
        for (media_type, content) in entries(&response["content"]) {
            for (name, _) in entries(&content["examples"]) {
                let known = &document["components"]["examples"][name];
                if media_type == "application/problem+json" && !known.is_null() {
                    page.put(format_args!(" <a href=\"#problem-{name}\"><code>{name}</code></a>"));
                } else {
                    page.put(format_args!(" <code>{name}</code>"));
                }
            }
        }
        page.put(format_args!("</li>"));
    }
    page.put(format_args!("</ul>"));
}

/// The form that tries an operation; hidden until the script is there to send it.
fn show_form(
    page: &mut Page,
    method: &str,
    path: &str,
    operation: &Value,
    body: Option<(&String, &Value)>,
) {
    // A proof of a phone's key is nothing that a page could make; a token has its own form.
    let by_device = operation["security"][0].get("device").is_some();
    if by_device || ["/token", "/bc-authorize"].contains(&path) {
        return;
    }
    let token = if operation["security"][0].get("oauth").is_some() { " data-token" } else { "" };
    let media_type = body.map_or("", |(media_type, _)| media_type);
    let upper = method.to_ascii_uppercase();
    page.put(format_args!(
        "<form class=\"try\" hidden data-method=\"{upper}\" data-path=\"{path}\" data-type=\"{media_type}\"{token}>"
    ));
    for parameter in items(&operation["parameters"]) {
        let (name, place) = (text_of(&parameter["name"]), text_of(&parameter["in"]));
        let example = shown(&parameter["example"]);
        let required = if parameter["required"] == true { " required" } else { "" };
        page.put(format_args!(
            "<label>{name}<input name=\"{name}\" data-in=\"{place}\" placeholder=\"{example}\" autocomplete=\"off\"{required}></label>"
        ));
    }
    if let Some((media_type, content)) = body {
        let example = entries(&content["examples"]).next().map(|(_, example)| &example["value"]);
        let value = example.map(shown).unwrap_or_default();
        page.put(format_args!(
            "<label>{media_type}<textarea rows=\"5\" spellcheck=\"false\">{value}</textarea></label>"
        ));
    }
    let send = page.say(SEND);
    page.put(format_args!("<button>{send} {upper}</button><output></output></form>"));
}

fn who_may(page: &Page, operation: &Value) -> String {
    let mut ways = Vec::new();
    for way in items(&operation["security"]) {
        for (scheme, scopes) in entries(way) {
            match scheme.as_str() {
                "oauth" => ways.push(format!("<code>{}</code>", text_of(&scopes[0]))),
                "device" => ways.push(page.say(OF_DEVICE).to_owned()),
                _ => ways.push("<code>client_secret_basic</code>".to_owned()),
            }
        }
        if way.as_object().is_some_and(Map::is_empty) {
            ways.push("<code>private_key_jwt</code>".to_owned());
        }
    }
    if ways.is_empty() {
        return page.say(ANYBODY).to_owned();
    }
    ways.join(&format!(" {} ", page.say(OR)))
}

/// What a schema is called: the name of a form, or its type.
fn form_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|place| place.rsplit('/').next()) {
        return format!("<a href=\"#form-{name}\"><code>{name}</code></a>");
    }
    if schema["type"] == "array" {
        return format!("[{}]", form_of(&schema["items"]));
    }
    for choice in ["anyOf", "oneOf"] {
        if !items(&schema[choice]).is_empty() {
            let forms: Vec<_> = items(&schema[choice]).iter().map(form_of).collect();
            return forms.join(" | ");
        }
    }
    match &schema["type"] {
        Value::Array(types) => types.iter().map(text_of).collect::<Vec<_>>().join(" | "),
        kind => text_of(kind),
    }
}

fn show_fields(page: &mut Page, schema: &Value) {
    if entries(&schema["properties"]).next().is_none() {
        return;
    }
    page.heading(FIELDS);
    page.put(format_args!("<table>"));
    for (name, field) in entries(&schema["properties"]) {
        let required = items(&schema["required"]).iter().any(|other| other == name.as_str());
        let optional = if required { "" } else { page.say(OPTIONAL) };
        let (form, says) = (form_of(field), text_of(&field["description"]));
        page.put(format_args!(
            "<tr><td><code>{name}</code><td>{form}<td>{optional}<td>{says}</tr>"
        ));
    }
    page.put(format_args!("</table>"));
}

fn show_table<'a>(
    page: &mut Page,
    id: &str,
    label: Label,
    rows: impl Iterator<Item = (&'a String, &'a Value)>,
) {
    let label = page.say(label);
    page.put(format_args!("<section><h2 id=\"{id}\">{label}</h2><table>"));
    for (name, says) in rows {
        let says = text_of(says);
        page.put(format_args!("<tr><td><code>{name}</code><td>{says}</tr>"));
    }
    page.put(format_args!("</table></section>"));
}
