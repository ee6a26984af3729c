//! Bytes on a socket: for requests that no well-behaved client would send, and for answers that
//! do not end, of which the head is enough.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything may take here before the story gives up: real time, since sockets have no
/// other.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status; 0 where the connection ended without an answer.
    pub status: u16,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// What came of the body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(given, _)| given == name).map_or("", |(_, value)| value)
    }

    /// The name of the problem; empty where it is none.
    pub fn problem(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["type"].as_str().unwrap_or_default().to_owned()
    }

    fn of(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) = end.map_or((bytes, &b""[..]), |end| (&bytes[..end], &bytes[end + 4..]));
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split("\r\n");
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        Self { status, headers: headers.collect(), body: body.to_vec() }
    }
}

/// A connection to the server at `base` (`http://127.0.0.1:8080`).
pub async fn connect(base: &str) -> TcpStream {
    let address = base.trim_start_matches("http://");
    TcpStream::connect(address).await.expect("a connection")
}

/// Sends `request` and reads until the server ends the connection.
pub async fn exchange(base: &str, request: &[u8]) -> Answer {
    let mut stream = connect(base).await;
    // The server may refuse before it has read everything.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    assert!(read.is_ok(), "the server ends the connection: {}", String::from_utf8_lossy(&bytes));
    Answer::of(&bytes)
}

/// Sends `request` and reads the head of the answer, and of its body what came along.
pub async fn head(base: &str, request: &[u8]) -> Answer {
    let mut stream = connect(base).await;
    stream.write_all(request).await.expect("sent");
    Answer::of(&read_until(&mut stream, b"\r\n\r\n").await)
}

/// Reads until `wanted` has come, and gives everything that came.
pub async fn read_until(stream: &mut TcpStream, wanted: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, async {
        while !bytes.windows(wanted.len()).any(|window| window == wanted) {
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await {
                Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
                _ => return,
            }
        }
    });
    let read = read.await;
    assert!(read.is_ok(), "no {} came", String::from_utf8_lossy(wanted));
    bytes
}

/// A request as text, with `Host`, and with `Content-Length` where there is a body.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: semilla.example\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    let mut bytes = format!("{head}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
