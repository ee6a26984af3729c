//! The description of the API and the page it is read on: that nothing is left out, and that what
//! is shown as an example is what the server reads.

use semilla_core::language::Language;
use serde_json::{Value, json};

use super::*;
use crate::http::describe::{Schemas, UNKNOWN};
use crate::http::openapi::{described, operation_id};

fn operation(route: &Route) -> &'static Value {
    let method = route.method.as_str().to_ascii_lowercase();
    &described()["paths"][route.path][&method]
}

fn examples(content: &Value) -> Vec<Value> {
    let contents = content.as_object().into_iter().flat_map(|content| content.values());
    let named = contents.flat_map(|content| {
        content["examples"].as_object().into_iter().flat_map(|examples| examples.values())
    });
    named.map(|example| example["value"].clone()).collect()
}

#[test]
fn every_route_is_described_in_both_languages_with_its_scopes_and_examples() {
    let mut ids = std::collections::BTreeSet::new();
    for route in routes() {
        let (operation, id) = (operation(&route), operation_id(&route));
        assert_eq!(operation["operationId"], id.as_str());
        for language in [Language::Spanish, Language::English] {
            assert!(!route.summary.text(language).is_empty(), "{id}");
        }
        let security = match route.rule {
            Rule::Scope(scopes) => {
                scopes.iter().map(|scope| json!({ "oauth": [scope.name()] })).collect()
            }
            Rule::KnownPhone | Rule::BoundPhone => json!([{ "device": [] }]),
            Rule::Public if ["/token", "/bc-authorize"].contains(&route.path) => {
                json!([{ "client": [] }, {}])
            }
            Rule::Public => json!([]),
        };
        assert_eq!(operation["security"], security, "{id}");
        let takes_body = ["POST", "PUT", "PATCH"].contains(&route.method.as_str());
        assert_eq!(operation.get("requestBody").is_some(), takes_body, "{id}");
        for name in route.path.split('/').filter(|segment| segment.starts_with('{')) {
            let name = name.trim_matches(['{', '}']);
            let parameters = operation["parameters"].as_array().expect("a list");
            assert!(parameters.iter().any(|it| it["in"] == "path" && it["name"] == name), "{id}");
        }
        let responses = operation["responses"].as_object().expect("responses");
        let good = responses.iter().filter(|(status, _)| status.starts_with('2'));
        assert_eq!(good.count(), 1, "{id}");
        assert!(ids.insert(id), "a name twice");
    }
    let described: usize = described()["paths"]
        .as_object()
        .expect("paths")
        .values()
        .map(|methods| methods.as_object().expect("methods").len())
        .sum();
    assert_eq!(ids.len(), described, "nothing is described that is not there");
}

#[test]
fn every_problem_type_and_every_scope_has_an_example() {
    let components = &described()["components"];
    for kind in ProblemType::ALL {
        let example = &components["examples"][kind.name()]["value"];
        let problem: Problem = serde_json::from_value(example.clone()).expect("a problem");
        assert_eq!((problem.kind, problem.status), (*kind, kind.status()));
        let place = json!({ "$ref": format!("#/components/examples/{}", kind.name()) });
        // Of a path that exists, the method that does not is answered for all routes alike.
        if *kind != ProblemType::MethodNotAllowed {
            assert!(described()["paths"].to_string().contains(&place.to_string()), "{kind:?}");
        }
    }
    let scopes = &components["securitySchemes"]["oauth"]["flows"]["clientCredentials"]["scopes"];
    let form = "application/x-www-form-urlencoded";
    let asked = &described()["paths"]["/token"]["post"]["requestBody"]["content"][form]["examples"];
    for scope in ApiScope::ALL {
        assert!(scopes[scope.name()].as_str().is_some_and(|says| says.len() > 5), "{scope}");
        assert_eq!(asked[scope.name()]["value"]["scope"], scope.name());
    }
}

#[test]
fn an_example_is_read_by_the_very_type_that_reads_requests_and_has_no_gaps() {
    let mut schemas = Schemas::default();
    let mut read = 0;
    for route in routes() {
        let (id, operation) = (operation_id(&route), operation(&route));
        let about = About::of(route.describe, &mut schemas);
        let examples = examples(&operation["requestBody"]["content"]);
        if let Some(reads) = about.reads {
            for example in &examples {
                reads(&example.to_string()).unwrap_or_else(|error| panic!("{id}: {error}"));
                read += 1;
            }
        }
        assert!(!operation.to_string().contains(UNKNOWN), "{id}: {operation}");
    }
    assert!(read > 30, "{read}");
    let (_, doubtful) = schemas.named();
    assert!(doubtful.is_empty(), "two forms under one name: {doubtful:?}");
}

#[tokio::test]
async fn what_is_served_is_the_description() {
    let bench = Bench::new().await;
    let response = bench.send(request("GET", "/openapi.json")).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/openapi+json");
    let served: Value = serde_json::from_str(&body_of(response).await).expect("JSON");
    assert_eq!(&served, described());
}

#[tokio::test]
async fn security_78_the_page_loads_and_reaches_nothing_but_this_server() {
    let bench = Bench::new().await;
    for (language, says) in [("es", "La API de Semilla"), ("en", "The API of Semilla")] {
        let response = bench.send(request("GET", &format!("/docs?lang={language}"))).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        for loose in ["unsafe", "*", "http", "data:"] {
            assert!(!policy.contains(loose), "{policy}");
        }
        let page = body_of(response).await;
        assert!(page.contains(says) && page.contains(&format!("<html lang=\"{language}\">")));
        for route in routes() {
            let id = format!("<details id=\"{}\">", operation_id(&route));
            assert!(page.contains(&id), "{} is not on the page", route.path);
        }
        // Nothing from elsewhere, and nothing that the policy would have to make an exception for.
        for outside in ["src=\"http", "src=\"//", "style=\"", "onclick", "<script>", "javascript:"]
        {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("<script ").count(), 1);
    }
    for (path, media_type) in [("/docs/style.css", "text/css"), ("/docs/try.js", "text/javascript")]
    {
        let response = bench.send(request("GET", path)).await;
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            format!("{media_type}; charset=utf-8")
        );
        let text = body_of(response).await;
        assert!(!text.contains("://") && !text.contains("innerHTML") && !text.contains("storage"));
    }
    let refused = problem_of(bench.send(request("GET", "/docs?lang=fr")).await).await;
    assert_eq!(refused.kind, ProblemType::Validation);
}
