//! The listener by raw sockets: what a client sees that keeps to no library's rules.

use std::net::SocketAddr;

use axum::extract::Extension;
use axum::routing::{any, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;

struct Server {
    address: SocketAddr,
    stopping: CancellationToken,
    ended: tokio::task::JoinHandle<usize>,
    /// Says whenever a handler that waits was entered.
    entered: mpsc::UnboundedReceiver<()>,
}

/// Serves a path that tells who asked, one that reads bodies, and one that never answers.
async fn serve_with(limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stopping = CancellationToken::new();
    let (enter, entered) = mpsc::unbounded_channel();
    let router = Router::new()
        .route("/", any(|Extension(Peer(peer)): Extension<Peer>| async move { peer.to_string() }))
        .route("/body", post(|body: String| async move { body }))
        .route("/never", {
            let enter = enter.clone();
            any(move || async move {
                enter.send(()).expect("heard");
                std::future::pending::<String>().await
            })
        })
        .route("/stop", {
            let stopping = stopping.clone();
            any(move || async move {
                enter.send(()).expect("heard");
                stopping.cancelled().await;
                "stopped"
            })
        });
    let ended = tokio::spawn(serve(listener, None, router, stopping.clone(), limits));
    Server { address, stopping, ended, entered }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Everything that comes back until the server closes. A connection it resets ends there.
    async fn answer_to(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.expect("sent");
        read_to_end(&mut stream).await
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8(all).expect("UTF-8")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[tokio::test]
async fn a_request_is_answered_and_its_peer_known() {
    let server = serve_with(Limits::default()).await;
    let answer = server.answer_to("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), "200");
    assert!(answer.ends_with("127.0.0.1"), "{answer}");
}

#[tokio::test]
async fn security_77_a_header_names_the_client_only_where_a_proxy_is_configured() {
    let spoofed = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n\
                   X-Real-IP: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8, 7.7.7.7\r\nConnection: close\r\n\r\n";
    let open = serve_with(Limits::default()).await;
    assert!(open.answer_to(spoofed).await.ends_with("127.0.0.1"));
    let header = Some(HeaderName::from_static("x-forwarded-for"));
    let behind = serve_with(Limits { client_address_header: header, ..Limits::default() }).await;
    assert!(behind.answer_to(spoofed).await.ends_with("7.7.7.7"), "the right-most of the last");
}

#[tokio::test]
async fn security_100_a_head_that_does_not_end_in_time_ends_the_connection() {
    let limits = Limits { head_time: Duration::from_millis(50), ..Limits::default() };
    let server = serve_with(limits).await;
    assert_eq!(server.answer_to("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await, "");
    // A body of the same slowness is no head: whoever reads it has a limit of its own.
    let mut stream = server.connect().await;
    stream
        .write_all(b"POST /never HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n1")
        .await
        .expect("sent");
    let waited = tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await;
    assert!(waited.is_err(), "still open");
}

#[tokio::test]
async fn security_100_a_connection_without_a_request_is_closed() {
    let server =
        serve_with(Limits { idle_time: Duration::from_millis(50), ..Limits::default() }).await;
    assert_eq!(server.answer_to("").await, "");
    let answer = server.answer_to("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(status(&answer), "200", "answered, and closed after the same time: {answer}");
}

#[tokio::test]
async fn security_97_a_head_that_is_too_large_is_refused() {
    let server = serve_with(Limits::default()).await;
    let with = |bytes: usize| {
        let fill = "x".repeat(bytes);
        format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Fill: {fill}\r\n\r\n")
    };
    let rest = with(0).len();
    assert_eq!(status(&server.answer_to(&with(16 * 1024 - rest)).await), "200");
    assert_eq!(status(&server.answer_to(&with(16 * 1024 - rest + 1)).await), "431");
}

#[tokio::test]
async fn security_101_requests_that_smuggle_another_are_refused() {
    let server = serve_with(Limits::default()).await;
    for head in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /",
        "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        "Content-Length: 4\n\nabcd",
    ] {
        let answer = server.answer_to(&format!("POST /body HTTP/1.1\r\nHost: x\r\n{head}")).await;
        assert_eq!(status(&answer), "400", "{head:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "one answer, then the end: {answer}");
    }
}

#[tokio::test]
async fn a_chunked_body_is_read_and_is_the_last_of_its_connection() {
    let server = serve_with(Limits::default()).await;
    let answer = server
        .answer_to(
            "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
             GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        )
        .await;
    assert_eq!(status(&answer), "200");
    assert!(answer.ends_with("ab") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn two_requests_on_one_connection_get_two_answers() {
    let server = serve_with(Limits::default()).await;
    let first = "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab";
    let second = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = server.answer_to(&format!("{first}{second}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
}

#[tokio::test]
async fn security_100_one_address_and_all_together_hold_so_many_connections_and_no_more() {
    let limits = Limits { connections_per_address: 2, connections: 3, ..Limits::default() };
    let server = serve_with(limits).await;
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    for held in [&mut first, &mut second] {
        held.write_all(request.as_bytes()).await.expect("sent");
        held.read_u8().await.expect("an answer");
    }
    assert_eq!(server.answer_to(request).await, "", "the third is closed without a word");
    drop(first);
    // The place is free once the server has seen the end of the connection.
    while server
        .answer_to("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .is_empty()
    {}
}

#[tokio::test]
async fn security_118_a_stop_ends_what_waits_and_cuts_off_what_does_not_end() {
    let limits = Limits { drain_time: Duration::from_millis(100), ..Limits::default() };
    let mut server = serve_with(limits).await;
    let mut waits = server.connect().await;
    waits.write_all(b"GET /stop HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    let mut stuck = server.connect().await;
    stuck.write_all(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    for _ in 0..2 {
        server.entered.recv().await.expect("entered");
    }
    let mut idle = server.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    idle.read_u8().await.expect("an answer");
    server.stopping.cancel();
    let answer = read_to_end(&mut waits).await;
    assert!(answer.ends_with("stopped") && answer.contains("connection: close"), "{answer}");
    assert!(read_to_end(&mut idle).await.ends_with("127.0.0.1"));
    assert_eq!(read_to_end(&mut stuck).await, "");
    assert_eq!(server.ended.await.expect("ended"), 1);
}
