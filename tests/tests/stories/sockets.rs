//! What only a raw socket can send: requests that two programs in a row would read in two ways, and
//! the headers of every answer (security 78, 97, 101).

use semilla_tests::http::Expect;
use semilla_tests::socket::{self, exchange, request};
use semilla_tests::world::World;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn security_101_a_request_that_could_be_read_in_two_ways_is_refused() {
    let world = World::begin().await;
    let base = world.http().base().to_owned();
    let bearer =
        format!("Bearer {}", world.company.program.0.access_token().await.expect("a token"));
    let body = json!({"login": "contrabando", "name": "Contrabando"}).to_string();
    let before = world.trail(&world.company).await.len();
    let head = format!(
        "POST /api/v1/users HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\n"
    );
    let (length, chunk) = (body.len(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    let smuggled =
        format!("POST /api/v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
    for (what, bytes) in [
        (
            "two lengths",
            format!("{head}Content-Length: {length}\r\nContent-Length: 0\r\n\r\n{body}"),
        ),
        ("two lengths in one", format!("{head}Content-Length: {length}, 0\r\n\r\n{body}")),
        ("a signed length", format!("{head}Content-Length: +{length}\r\n\r\n{body}")),
        ("a negative length", format!("{head}Content-Length: -1\r\n\r\n{body}")),
        ("a length that is none", format!("{head}Content-Length: 0x10\r\n\r\n{body}")),
        ("a huge length", format!("{head}Content-Length: 99999999999999999999\r\n\r\n{body}")),
        (
            "both",
            format!(
                "{head}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{smuggled}"
            ),
        ),
        (
            "both, the other way",
            format!(
                "{head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{chunk}{smuggled}"
            ),
        ),
        ("an unknown coding", format!("{head}Transfer-Encoding: xchunked\r\n\r\n{chunk}")),
        ("chunked not last", format!("{head}Transfer-Encoding: chunked, identity\r\n\r\n{chunk}")),
        ("a blank before the colon", format!("{head}Content-Length : {length}\r\n\r\n{body}")),
        ("a folded header", format!("{head}X: a\r\n b\r\nContent-Length: {length}\r\n\r\n{body}")),
        (
            "a header without colon",
            format!("{head}Nonsense\r\nContent-Length: {length}\r\n\r\n{body}"),
        ),
        (
            "two hosts",
            format!("{head}Host: y\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"),
        ),
        (
            "a chunk that is none",
            format!("{head}Transfer-Encoding: chunked\r\n\r\nxyz\r\n{body}\r\n0\r\n\r\n"),
        ),
        ("a NUL in a header", format!("{head}X: a\0b\r\nContent-Length: {length}\r\n\r\n{body}")),
        (
            "bare line feeds",
            head.replace("\r\n", "\n") + &format!("Content-Length: {length}\n\n{body}"),
        ),
        ("HTTP/2 in clear", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("HTTP/0.9", "GET /healthz\r\n".to_owned()),
    ] {
        let answer = exchange(&base, bytes.as_bytes()).await;
        assert!(answer.status == 0 || (400..500).contains(&answer.status), "{what}: {answer:?}");
    }
    // The control: one length, one body, and a chunked body by itself.
    let fine = format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    assert_eq!(exchange(&base, fine.as_bytes()).await.status, 201);
    let other = body.replace("contrabando", "por.trozos");
    let fine = format!(
        "{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{other}\r\n0\r\n\r\n",
        other.len()
    );
    assert_eq!(exchange(&base, fine.as_bytes()).await.status, 201);
    let kinds = world.kinds_since(&world.company, before).await;
    assert_eq!(kinds, ["user.created", "user.created"], "nothing else was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_101_only_listed_methods_are_answered() {
    let world = World::begin().await;
    let base = world.http().base().to_owned();
    for method in ["TRACE", "CONNECT", "TRACK", "PROPFIND", "OPTIONS", "PATCHX", "get"] {
        for path in ["/", "/api/v1/tokens", "/nowhere"] {
            let path = if method == "CONNECT" { "semilla.example:443" } else { path };
            let bytes =
                request(method, path, &[("Connection", "close"), ("X-Secret", "echo")], b"");
            let answer = exchange(&base, &bytes).await;
            assert!([400, 404, 405].contains(&answer.status), "{method} {path}: {answer:?}");
            assert!(!String::from_utf8_lossy(&answer.body).contains("echo"), "{method} {path}");
        }
    }
    // A method that the path does not have: 405, and which ones it has.
    let bytes = request("DELETE", "/api/v1/tokens", &[("Connection", "close")], b"");
    let answer = exchange(&base, &bytes).await;
    assert_eq!((answer.status, answer.problem().as_str()), (405, "method-not-allowed"));
    assert!(answer.header("allow").contains("GET"), "{answer:?}");
    let bytes = request("GET", "/healthz", &[("Connection", "close")], b"");
    assert_eq!(exchange(&base, &bytes).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_97_a_head_and_an_address_have_so_many_bytes_and_no_more() {
    let world = World::begin().await;
    let base = world.http().base().to_owned();
    let ask = async |path: String, header: usize| {
        let padding = "x".repeat(header);
        let headers = [("Connection", "close"), ("X-Padding", padding.as_str())];
        exchange(&base, &request("GET", &path, &headers, b"")).await
    };
    let longest = format!("/healthz?{}", "x".repeat(2048 - "/healthz?".len()));
    assert_eq!(ask(longest.clone(), 1).await.status, 200);
    let answer = ask(format!("{longest}x"), 1).await;
    assert_eq!((answer.status, answer.problem().as_str()), (414, "too-large"));
    assert_eq!(ask("/healthz".to_owned(), 15 * 1024).await.status, 200);
    let answer = ask("/healthz".to_owned(), 17 * 1024).await;
    assert!([0, 431].contains(&answer.status), "{answer:?}");
    let many: String = (0..500).map(|number| format!("X-{number}: y\r\n")).collect();
    let answer =
        exchange(&base, format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).await;
    assert!([0, 400, 431].contains(&answer.status), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_78_every_answer_tells_a_browser_to_do_nothing_clever() {
    let world = World::begin().await;
    let base = world.http().base().to_owned();
    let bearer =
        format!("Bearer {}", world.company.program.0.access_token().await.expect("a token"));
    let own = [("Authorization", bearer.as_str()), ("Origin", "https://evil.example")];
    let nobody = [("Origin", "https://evil.example")];
    let mut asked = vec![
        request("GET", "/api/v1/tokens", &own, b""),
        request("GET", "/api/v1/tokens/x", &own, b""),
        request("GET", "/api/v1/tokens?limit=x", &own, b""),
        request("POST", "/api/v1/users", &own, b"{"),
        request("OPTIONS", "/api/v1/users", &[("Access-Control-Request-Method", "POST")], b""),
        request("GET", &format!("/{}", "x".repeat(3000)), &own, b""),
        request("TRACE", "/", &own, b""),
        request("GET", "/nowhere", &nobody, b""),
    ];
    for route in semilla_server::http::routes() {
        let path = semilla_tests::places::Places::nowhere().at(route.path);
        asked.push(request(route.method.as_str(), &path, &nobody, b""));
    }
    for bytes in asked {
        let what = String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned();
        let answer = socket::head(&base, &bytes).await;
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{what}: {answer:?}");
        }
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("frame-ancestors 'none'"), "{what}: {policy}");
        assert!(!answer.header("x-request-id").is_empty(), "{what}");
        for (name, _) in &answer.headers {
            assert!(!name.starts_with("access-control"), "{what}: {name}");
            assert!(
                !["server", "x-powered-by", "set-cookie"].contains(&name.as_str()),
                "{what}: {name}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_77_no_header_of_a_client_says_where_it_comes_from() {
    let world = World::begin().await;
    let before = world.trail_length_of_bank().await;
    let mut statuses = Vec::new();
    for number in 0..40 {
        let address = format!("198.51.100.{number}");
        let (forwarded, pair) = (format!("for={address}"), format!("{address}, {address}"));
        let id = format!("019ac6a5-1c00-7000-8000-{number:012}");
        let basic = basic(&id, "wrong");
        let headers = [
            ("authorization", basic.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-forwarded-for", &pair),
            ("x-forwarded-for", &address),
            ("forwarded", &forwarded),
            ("x-real-ip", &address),
            ("x-client-ip", &address),
            ("cf-connecting-ip", &address),
            ("true-client-ip", &address),
        ];
        let sent =
            world.http().send("POST", "/token", &headers, b"grant_type=client_credentials").await;
        let reply = sent.expect("an answer");
        statuses.push(reply.status.as_u16());
        if reply.status == 429 {
            assert!(!reply.header("retry-after").is_empty());
            reply.refused("rate-limited");
            break;
        }
    }
    // Forty addresses by their own account are one.
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    let refused = world.bank_records_since(before, "client.refused").await;
    assert!(refused.len() >= 15, "{}", refused.len());
    assert!(refused.iter().all(|record| record["detail"]["peer"] == "127.0.0.1"), "{refused:?}");
}

fn basic(id: &str, secret: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}")))
}
