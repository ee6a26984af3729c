//! The accept loop. It is our own, because `axum::serve` sets no timer, so that a client could hold
//! a connection for ever by sending its headers slowly (security F4, 100), and because its graceful
//! stop waits for ever for whoever keeps a connection open (F5).
//!
//! HTTP/1.1 only, over TLS as in clear, on purpose: nothing else is needed, and the floods that
//! HTTP/2 knows do not exist (security 102).

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::metrics;

pub mod certificate;
mod gate;
pub mod tls;

use tls::Tls;

/// Who is at the other end, as far as limits and logs are concerned: an extension of each request.
/// It proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// What a client may take of the server. The defaults are those of security 97 and 100.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// Connections at the same time from one address.
    pub connections_per_address: usize,
    /// Bytes of a request line and its headers.
    pub head_bytes: usize,
    /// From the first byte of a head to its last.
    pub head_time: Duration,
    /// How long a connection may wait for a request.
    pub idle_time: Duration,
    /// How long the other side may take nothing of what is sent to it.
    pub write_time: Duration,
    /// How long a stop waits for requests that are being worked on.
    pub drain_time: Duration,
    /// The header in which a proxy before this server names its client (security 77). Only its
    /// last entry counts, which the proxy itself has written. `None` where there is no proxy: then
    /// no header is believed.
    pub client_address_header: Option<HeaderName>,
    /// Counts the connections that are open.
    pub open: Gauge,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 256,
            head_bytes: 16 * 1024,
            head_time: Duration::from_secs(5),
            idle_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
            drain_time: Duration::from_secs(10),
            client_address_header: None,
            open: Gauge::default(),
        }
    }
}

/// How long to wait where the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener`, over TLS where there is any, until `stopping`, then finishes what was begun, for as long as
/// [`Limits::drain_time`]. Returns how many connections were cut off at the end of it; a unit of
/// work that one of them began goes on in its own task.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    stopping: CancellationToken,
    limits: Limits,
) -> usize {
    let limits = Arc::new(limits);
    let places = Arc::new(Semaphore::new(limits.connections));
    let addresses = Addresses::default();
    let mut connections = JoinSet::new();
    loop {
        // A place first: whoever comes when all are taken waits in the system's queue.
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, address, place)) = accepted else { continue };
        let Some(held) = addresses.enter(address, limits.connections_per_address) else {
            tracing::warn!(peer = %address, "too many connections from one address");
            continue;
        };
        let (tls, router) = (tls.clone(), router.clone());
        let (stopping, limits) = (stopping.clone(), limits.clone());
        connections.spawn(async move {
            let _held = (place, held, metrics::held(&limits.open));
            let Some(tls) = tls else {
                return connection(stream, address, router, stopping, limits).await;
            };
            // Nothing was asked yet: a stop need not wait for it.
            let accepted = tokio::select! {
                () = stopping.cancelled() => return,
                accepted = tls.accept(stream) => accepted,
            };
            match accepted {
                Ok(stream) => connection(stream, address, router, stopping, limits).await,
                Err(error) => {
                    tracing::debug!(peer = %address, %error, "a handshake failed");
                }
            }
        });
    }
    drop(listener);
    let drained = tokio::time::timeout(limits.drain_time, async {
        while connections.join_next().await.is_some() {}
    });
    if drained.await.is_ok() {
        return 0;
    }
    let cut = connections.len();
    tracing::warn!(connections = cut, "connections cut off: they did not end in time");
    connections.shutdown().await;
    cut
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => {
            // Small answers: send them at once. Where that cannot be set they come a little later.
            let _ = stream.set_nodelay(true);
            Some((stream, address.ip().to_canonical(), place))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    address: IpAddr,
    router: Router,
    stopping: CancellationToken,
    limits: Arc<Limits>,
) {
    let stream = TokioIo::new(gate::Gate::new(stream, limits.head_time, limits.write_time));
    let header = limits.client_address_header.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let peer = header.as_ref().and_then(|header| named_by_proxy(&request, header));
        request.extensions_mut().insert(Peer(peer.unwrap_or(address)));
        let last = request.headers().contains_key(header::TRANSFER_ENCODING);
        let answer = router.clone().oneshot(request);
        async move {
            let mut answer = answer.await?;
            if last {
                // What follows a chunked body was not watched: see `gate`.
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Counts from the end of the request before; the gate holds the head itself to less.
        .header_read_timeout(limits.idle_time)
        .max_header_size(limits.head_bytes)
        .serve_connection(stream, service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        // First, so that answers given because of the stop say that they are the last.
        biased;
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = &mut connection => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %address, %error, "a connection ended early");
    }
}

/// The last entry of the proxy's header: those before it are whatever the client wrote.
fn named_by_proxy(request: &Request<Incoming>, header: &HeaderName) -> Option<IpAddr> {
    let last = request.headers().get_all(header).iter().next_back()?.to_str().ok()?;
    let address: IpAddr = last.rsplit(',').next()?.trim().parse().ok()?;
    Some(address.to_canonical())
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Addresses {
    /// One more from `address`, unless it has `max`.
    fn enter(&self, address: IpAddr, max: usize) -> Option<Entered> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Entered { addresses: self.clone(), address })
    }
}

/// One connection of an address, counted until dropped.
struct Entered {
    addresses: Addresses,
    address: IpAddr,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests;
