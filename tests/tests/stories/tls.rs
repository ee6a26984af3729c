//! The server speaks TLS itself: with whom, with whom not, and with which certificate. The other
//! side is OpenSSL, as Python and `curl` have it, beside our own phones.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use semilla_approver::errors::Error;
use semilla_tests::branch::Branch;
use semilla_tests::http::{Expect, Http};
use semilla_tests::process::{Home, semilla};

/// Shakes hands over one version of TLS as OpenSSL does, asks for `/healthz`, and tells what was
/// agreed on and answered.
const PYTHON: &str = r#"
import socket, ssl, sys
port, ca, version = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(ca)
# What OpenSSL itself would not do by default any more is not what is tried here.
context.set_ciphers("ALL:@SECLEVEL=0")
context.set_alpn_protocols(["h2", "http/1.1"])
context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
try:
    tls = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="localhost")
    tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = b"".join(iter(lambda: tls.recv(4096), b"")).decode()
    print(tls.version(), tls.selected_alpn_protocol(), answer.split("\r\n")[0], "strict-transport-security" in answer)
except ssl.SSLError as error:
    print("refused", error.reason)
"#;

fn python(home: &Home, version: &str) -> String {
    let ca = home.path().join("tls/ca.pem");
    let ran = Command::new("python3")
        .args(["-W", "ignore", "-c", PYTHON, &home.port().to_string()])
        .arg(ca)
        .arg(version)
        .output()
        .expect("python3 runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).trim().to_owned()
}

/// Everything that comes back until the server closes.
fn raw(home: &Home, sent: &[u8]) -> (Vec<u8>, Duration) {
    let mut stream = TcpStream::connect(("127.0.0.1", home.port())).expect("a connection");
    let begun = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream.write_all(sent).expect("sent");
    let mut answer = Vec::new();
    // A connection that is reset ends there.
    let ended = stream.read_to_end(&mut answer);
    assert!(!ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    (answer, begun.elapsed())
}

#[test]
fn security_36_and_102_tls_1_2_and_1_3_are_spoken_with_http_1_1_and_nothing_older() {
    let home = Home::make_with_tls();
    let _server = home.serve();
    for version in ["TLSv1_2", "TLSv1_3"] {
        let agreed = format!("{} http/1.1 HTTP/1.1 200 OK True", version.replace('_', "."));
        assert_eq!(python(&home, version), agreed);
    }
    for version in ["TLSv1", "TLSv1_1"] {
        let told = python(&home, version);
        // By an alert of the server's, not by OpenSSL itself.
        assert!(told.starts_with("refused") && told.contains("_ALERT_"), "{version}: {told}");
    }
}

#[test]
fn security_36_and_100_clear_text_and_silence_get_nothing_on_the_port_of_tls() {
    let home = Home::make_with_tls();
    let _server = home.serve();
    let (answer, _) = raw(&home, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    for word in ["http", "html", "location", "semilla", "{"] {
        assert!(!answer.contains(word), "{answer:?}");
    }
    // A handshake that is begun and not gone on with.
    let (answer, lasted) = raw(&home, &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
    assert_eq!(answer, Vec::<u8>::new());
    assert!((4..9).contains(&lasted.as_secs()), "{lasted:?}");
    assert!(python(&home, "TLSv1_3").contains("200 OK"), "the others are served");
}

#[test]
fn security_36_a_server_that_would_answer_in_clear_or_whose_key_is_everybodys_does_not_start() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::make_with_tls();
    let key = home.path().join("tls/server.key");
    let refused = |what: &str| {
        let mut child = home.start();
        let mut said = String::new();
        child.stderr.take().expect("its log").read_to_string(&mut said).expect("read");
        assert!(!child.wait().expect("its status").success());
        assert!(said.contains(what), "{said}");
    };
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("set");
    refused("may be used by everybody");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).expect("set");
    let own = std::fs::read(&key).expect("read");
    std::fs::write(&key, b"nothing").expect("written");
    refused("holds no private key");
    let other = Home::make_with_tls();
    std::fs::copy(other.path().join("tls/server.key"), &key).expect("copied");
    refused("is not the key of that certificate");
    std::fs::write(&key, own).expect("written");
    let _server = home.serve();
    assert!(python(&home, "TLSv1_3").contains("200 OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_39_a_phone_believes_the_authority_it_was_bound_with_and_no_other() {
    let mut branch = Branch::open(Home::make_with_tls(), 1).await;
    let phone = branch.enrolled_phone().await;
    assert_eq!(phone.sync().await.expect("in touch").len(), 1);
    let activation = || async {
        let path = format!("/api/v1/users/{}/activation", branch.andres);
        let made = branch.company.post(&path, serde_json::json!({})).await.expect(201);
        made["uri"].as_str().expect("a uri").to_owned()
    };
    // Nobody public vouches for this server.
    let clock = semilla_approver::clock::SystemClock;
    let entropy = semilla_approver::entropy::SystemEntropy;
    let public = semilla_approver::Phone::in_memory(
        std::sync::Arc::new(clock),
        std::sync::Arc::new(entropy),
    );
    let refused = public.bind(&activation().await).await.expect_err("refused");
    assert!(
        matches!(&refused, Error::Unreachable(_, why) if why.contains("UnknownIssuer")),
        "{refused:?}"
    );
    branch.bound_phone(&branch.andres).await;

    // Somebody takes the server's place, with the right name and another authority.
    branch.stop();
    let authority = branch.home.certify();
    branch.start_after(0);
    let refused = phone.sync().await.expect_err("refused");
    assert!(
        matches!(&refused, Error::Unreachable(_, why) if why.contains("certificate")),
        "{refused:?}"
    );
    // Its own program is told of the new authority; the phone cannot be, but by being bound again.
    let http = Http::trusting(&branch.home.base(), Some(&authority)).expect("an authority");
    http.send("GET", "/healthz", &[], b"").await.expect("answered").expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_served_without_a_restart_and_a_broken_one_is_not() {
    let mut home = Home::make_with_tls();
    let server = home.serve();
    let healthy = |authority: &str| {
        let http = Http::trusting(&home.base(), Some(authority)).expect("an authority");
        async move { http.send("GET", "/healthz", &[], b"").await.is_ok() }
    };
    let heard = |words: &str| server.hear(words);
    let first = home.authority.clone().expect("an authority");
    assert!(healthy(&first).await);
    let second = home.certify();
    // Once for each file that changed, or for both.
    heard("the certificate was read again");
    let mut tries = 0;
    while !healthy(&second).await {
        tries += 1;
        assert!(tries < 3, "the key came second");
        heard("the certificate was read again");
    }
    assert!(!healthy(&first).await);

    std::fs::write(home.path().join("tls/server.pem"), "nothing").expect("written");
    heard("the certificate was not taken");
    assert!(healthy(&second).await, "the one before is served");
    server.signal("HUP");
    heard("the certificate was not taken");
    let third = home.certify();
    server.signal("HUP");
    heard("the certificate was read again");
    assert!(healthy(&third).await || healthy(&third).await);
    home.authority = Some(third);
    assert!(server.stop().success());
}

#[test]
fn the_demonstration_over_tls_works_as_it_is_pasted() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = free.local_addr().expect("an address").to_string();
    drop(free);
    let mut demonstration = Command::new(semilla())
        .args(["dev", "--tls", "--lang", "en", "--listen", &listen])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("semilla runs");
    let printed = BufReader::new(demonstration.stdout.take().expect("its output"));
    let mut pasted = String::new();
    for line in printed.lines() {
        let line = line.expect("a line");
        if line.contains("Running.") {
            break;
        }
        if line.starts_with(['S', 'A', 'C', 'a', 'l']) && !line.starts_with("Sem") {
            pasted.push_str(&line);
            pasted.push('\n');
        }
    }
    let approver = semilla().with_file_name("approver");
    // The number is typed by a person; the rest is as printed.
    let pasted = pasted
        .replace("cargo run -q -p semilla-approver --", &approver.display().to_string())
        .replace("andres approve\n", "andres inbox\n");
    let ran = Command::new("bash").args(["-ec", &pasted]).output().expect("bash runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    let (accepted, refused) = (r#"{"accepted":true}"#, r#"{"accepted":false}"#);
    assert!(
        said.contains(&format!("{accepted}\n{refused}")),
        "{pasted}\n{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    assert!(said.contains("match_number") && said.contains("FEF4900032"), "{said}");
    demonstration.kill().expect("killed");
    demonstration.wait().expect("its status");
}
