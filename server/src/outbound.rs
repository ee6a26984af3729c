//! Requests of the server's own, to addresses that somebody else chose: receivers of webhooks and
//! relying parties. Where a name leads is looked up first, every address it has is checked, and the
//! connection goes to one that was checked, so that nobody makes the server ask its neighbours
//! (server-side request forgery). Redirects are never followed, and answers are read to a limit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::http::uri::Scheme;
use axum::http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long everything together may take.
const TIME: Duration = Duration::from_secs(15);

/// How much of an answer is read, in bytes. What comes behind is not waited for.
const ANSWER_MAX: usize = 4096;

/// How long an address may be, in bytes.
const ADDRESS_MAX: usize = 2048;

/// Which addresses may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those of the public network alone.
    Public,
    /// Those and this machine: for demonstrations and tests.
    PublicAndLoopback,
    /// Any: where receivers are in the bank's own network.
    Any,
}

/// Why nothing was asked, or nothing answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The text is no address that may be asked.
    #[error("{0}")]
    Address(&'static str),
    /// The name leads nowhere.
    #[error("the name is not known")]
    UnknownName,
    /// The name leads to an address that may not be asked.
    #[error("the name leads to an address that is not public")]
    NotPublic,
    /// Nobody answered, or not to the end.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// It took too long.
    #[error("no answer within {} s", TIME.as_secs())]
    Late,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

/// A client for such requests.
#[derive(Clone)]
pub struct Outbound {
    tls: TlsConnector,
    reach: Reach,
}

impl Outbound {
    /// A client that believes the public certificate authorities.
    pub fn new(reach: Reach) -> Self {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring knows the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { tls: TlsConnector::from(Arc::new(config)), reach }
    }

    /// Reads an address that may be asked: `https`, a host, and no user. What a name leads to is
    /// looked at again each time it is asked; here only what is written as numbers can be told.
    pub fn address(&self, text: &str) -> Result<Uri, OutboundError> {
        let wrong = OutboundError::Address;
        if text.len() > ADDRESS_MAX || text.contains('#') {
            return Err(wrong("must have at most 2048 bytes and no fragment"));
        }
        let uri: Uri = text.parse().map_err(|_| wrong("is no address"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(wrong("must begin with https:// and name a host"));
        };
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong("must name a host and no user"));
        }
        let literal = literal(authority.host());
        let is_here = literal.is_some_and(|address| canonical(address).is_loopback())
            || authority.host() == "localhost";
        let plain_is_fine = *scheme == Scheme::HTTP && is_here && self.reach != Reach::Public;
        if *scheme != Scheme::HTTPS && !plain_is_fine {
            return Err(wrong("must begin with https://"));
        }
        if let Some(address) = literal
            && !self.may_ask(address)
        {
            return Err(wrong("must be an address of the public network"));
        }
        Ok(uri)
    }

    fn may_ask(&self, address: IpAddr) -> bool {
        match self.reach {
            Reach::Any => true,
            Reach::PublicAndLoopback => canonical(address).is_loopback() || is_public(address),
            Reach::Public => is_public(address),
        }
    }

    /// Posts `body` to an address that [`Outbound::address`] read, and gives whatever is answered.
    pub async fn post(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, OutboundError> {
        let sent = self.exchange(uri, headers, body);
        tokio::time::timeout(TIME, sent).await.unwrap_or(Err(OutboundError::Late))
    }

    async fn exchange(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, OutboundError> {
        let host = uri.host().ok_or(OutboundError::Address("has no host"))?;
        let is_tls = uri.scheme() != Some(&Scheme::HTTP);
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = self.connect(host, port).await?;
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path)
            .header("host", authority)
            .body(Full::new(body))
            .map_err(|_| OutboundError::Address("is no address"))?;
        request.headers_mut().extend(headers);
        if is_tls {
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                .map_err(|_| OutboundError::Address("is no name of a server"))?;
            let stream = self.tls.connect(name, stream).await.map_err(no_answer)?;
            answer_to(stream, request).await
        } else {
            answer_to(stream, request).await
        }
    }

    /// Connects to an address of `host` that may be asked. If any of them may not, none is.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, OutboundError> {
        let addresses: Vec<SocketAddr> = match literal(host) {
            Some(address) => vec![(address, port).into()],
            None => tokio::net::lookup_host((host, port))
                .await
                .map_err(|_| OutboundError::UnknownName)?
                .collect(),
        };
        if addresses.is_empty() {
            return Err(OutboundError::UnknownName);
        }
        if !addresses.iter().all(|address| self.may_ask(address.ip())) {
            return Err(OutboundError::NotPublic);
        }
        TcpStream::connect(addresses.as_slice()).await.map_err(no_answer)
    }
}

fn no_answer(error: impl std::fmt::Display) -> OutboundError {
    OutboundError::NoAnswer(error.to_string().chars().take(200).collect())
}

async fn answer_to<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, OutboundError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(16 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(no_answer)?;
    // Ends with the answer, or with this function: whichever comes first.
    let connection = tokio::spawn(connection);
    let answer = read(&mut sender, request).await;
    connection.abort();
    answer
}

async fn read(
    sender: &mut hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, OutboundError> {
    let response = sender.send_request(request).await.map_err(no_answer)?;
    let status = response.status().as_u16();
    let mut stream = response.into_body();
    let mut body = Vec::new();
    while body.len() < ANSWER_MAX {
        match stream.frame().await {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let room = ANSWER_MAX - body.len();
                    body.extend_from_slice(&data[..data.len().min(room)]);
                }
            }
            // The status came: what is wrong with the body changes nothing.
            Some(Err(_)) | None => break,
        }
    }
    Ok(Answer { status, body })
}

/// The address that stands for a host, where it is written as one.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

/// An address of version 4 that is written as one of version 6 is the former.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether an address is one of the public network (IANA's special-purpose registries, RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match canonical(address) {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocols = a == 192 && b == 0 && c == 0;
    let relay = a == 192 && b == 88 && c == 99;
    let benchmarks = a == 198 && (b == 18 || b == 19);
    !(a == 0
        || a >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || shared
        || protocols
        || relay
        || benchmarks)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Translated addresses (RFC 6052) are as public as what they stand for.
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., high, low] = segments;
        return is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    }
    let is_global_unicast = segments[0] & 0xe000 == 0x2000;
    let protocols = segments[0] == 0x2001 && segments[1] < 0x200;
    let documentation = segments[0] == 0x2001 && segments[1] == 0xdb8 || segments[0] == 0x3fff;
    let six_to_four = segments[0] == 0x2002;
    is_global_unicast && !protocols && !documentation && !six_to_four
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_told_however_they_are_written() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:a00:1::",
            "3fff::1",
        ] {
            assert!(!is_public(private.parse().expect("an address")), "{private}");
        }
        for public in
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"]
        {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
    }

    #[test]
    fn an_address_is_https_and_public_unless_this_machine_is_allowed() {
        let public = Outbound::new(Reach::Public);
        let here = Outbound::new(Reach::PublicAndLoopback);
        assert!(public.address("https://example.com/hook?x=1").is_ok());
        assert!(public.address("https://8.8.8.8:8443/").is_ok());
        for wrong in [
            "",
            "example.com",
            "http://example.com/",
            "ftp://example.com/",
            "https://",
            "https://user@example.com/",
            "https://example.com/#x",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "http://localhost:80/",
            "https://169.254.169.254/latest/meta-data",
            "https://10.0.0.1/",
        ] {
            assert!(public.address(wrong).is_err(), "{wrong}");
        }
        for fine in ["http://127.0.0.1:1/", "http://localhost/", "http://[::1]:2/x"] {
            assert!(here.address(fine).is_ok(), "{fine}");
        }
        for wrong in ["http://10.0.0.1/", "http://example.com/", "https://10.0.0.1/"] {
            assert!(here.address(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_asked() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let public = Outbound::new(Reach::Public);
        let uri: Uri = format!("http://localhost:{port}/").parse().expect("an address");
        let refused = public.post(&uri, HeaderMap::new(), Bytes::new()).await;
        assert_eq!(refused.err(), Some(OutboundError::NotPublic));
    }
}
