//! What stands between a socket and the HTTP library: it watches the bytes go by and knows where
//! a request's head begins and ends. That is enough to hold heads to a time of their own, apart
//! from the time a connection may be idle, and to refuse what two programs in a row could read in
//! two ways (request smuggling, security 101). `hyper` itself would mend such heads silently: it
//! takes a bare LF for a line end, a second `Content-Length` for the first, and drops
//! `Content-Length` beside `Transfer-Encoding`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream whose requests are watched.
pub(super) struct Gate<S> {
    stream: S,
    framing: Framing,
    head_time: Duration,
    write_time: Duration,
    /// Runs while a head has begun and not ended.
    head: Option<Pin<Box<Sleep>>>,
    /// Runs while the other side takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Gate<S> {
    /// Watches `stream`. A head has `head_time` from its first byte to its last; the other side
    /// must take something at least every `write_time`.
    pub(super) fn new(stream: S, head_time: Duration, write_time: Duration) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            head_time,
            write_time,
            head: None,
            stalled: None,
        }
    }

    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.write_time)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(timer) = &mut this.head
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.framing.inspect(&mut buf.filled_mut()[before..]);
        if !this.framing.is_in_head() {
            this.head = None;
        } else if this.head.is_none() {
            // It is polled first thing at the next read, which follows: the head is not complete.
            this.head = Some(Box::pin(sleep(this.head_time)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.written(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.written(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.written(cx, shut)
    }
}

/// Where in the stream of requests the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In a head, or before one.
    #[default]
    Head,
    /// In a body that has this many bytes to come.
    Body(u64),
    /// In a chunked body, and after it. [`super`] answers such a request with `Connection: close`,
    /// so that no other one follows and chunks need not be counted here.
    Chunked,
    /// Behind what was refused.
    Refused,
}

/// Follows the framing of HTTP/1.1 (RFC 9112), in its strict reading.
#[derive(Default)]
struct Framing {
    place: Place,
    /// The line of the head so far. Bounded: `hyper` stops reading a head that is too long.
    line: Vec<u8>,
    /// Whether the request line was read.
    begun: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    /// Whether a head has begun and not ended.
    fn is_in_head(&self) -> bool {
        self.place == Place::Head && (self.begun || !self.line.is_empty())
    }

    /// Reads on. A byte that makes a head ambiguous is replaced by NUL, which no head may hold:
    /// `hyper` answers 400 and closes.
    fn inspect(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.place {
                Place::Chunked | Place::Refused => return,
                Place::Body(left) => {
                    let here = left.min((bytes.len() - at) as u64);
                    // At most the length of `bytes`.
                    at += here as usize;
                    self.place = if here == left { Place::Head } else { Place::Body(left - here) };
                }
                Place::Head => {
                    if !self.take(bytes[at]) {
                        bytes[at] = 0;
                        self.place = Place::Refused;
                    }
                    at += 1;
                }
            }
        }
    }

    /// Takes a byte of a head; false where it does not belong there.
    fn take(&mut self, byte: u8) -> bool {
        match (self.line.last() == Some(&b'\r'), byte) {
            (true, b'\n') => {
                let mut line = std::mem::take(&mut self.line);
                line.pop();
                self.end_line(&line)
            }
            (true, _) | (false, b'\n') => false,
            (false, _) => {
                self.line.push(byte);
                true
            }
        }
    }

    fn end_line(&mut self, line: &[u8]) -> bool {
        if line.is_empty() {
            if self.begun {
                self.end_head();
            }
            // Before a request line empty lines are allowed (RFC 9112 section 2.2).
            return true;
        }
        if !self.begun {
            self.begun = true;
            return true;
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { return false };
        let value = value.trim_ascii();
        if name.first().is_some_and(u8::is_ascii_whitespace) {
            // A line folded onto the one before (RFC 9112 section 5.2).
            return false;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let number = Some(value)
                .filter(|value| value.iter().all(u8::is_ascii_digit))
                .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
            if self.length.is_some() || number.is_none() {
                return false;
            }
            self.length = number;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return false;
            }
            self.chunked = true;
        }
        !(self.chunked && self.length.is_some())
    }

    fn end_head(&mut self) {
        self.place = match (self.chunked, self.length) {
            (true, _) => Place::Chunked,
            (false, Some(length)) if length > 0 => Place::Body(length),
            (false, _) => Place::Head,
        };
        (self.begun, self.chunked, self.length) = (false, false, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `hyper` gets to see of `text`, which comes in pieces of `size` bytes.
    fn seen(text: &str, size: usize) -> (Vec<u8>, Place) {
        let mut framing = Framing::default();
        let mut bytes = text.as_bytes().to_vec();
        for piece in bytes.chunks_mut(size) {
            framing.inspect(piece);
        }
        (bytes, framing.place)
    }

    #[test]
    fn plain_requests_pass_unchanged_however_they_are_cut() {
        let two = "\r\nPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n\nTE\r\n\r\n: \nGET / HTTP/1.1\r\n\
                   Host: x\r\n\r\n";
        for size in 1..two.len() {
            assert_eq!(seen(two, size), (two.as_bytes().to_vec(), Place::Head), "{size}");
        }
        let chunked =
            "POST /a HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\nanything\n";
        assert_eq!(seen(chunked, 7), (chunked.as_bytes().to_vec(), Place::Chunked));
    }

    #[test]
    fn security_101_a_head_that_can_be_read_in_two_ways_is_spoilt() {
        for (what, head) in [
            ("length and chunks", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ("chunks and length", "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n"),
            ("two lengths", "Content-Length: 3\r\nContent-Length: 4\r\n\r\n"),
            ("the same length twice", "Content-Length: 3\r\nContent-Length: 3\r\n\r\n"),
            ("a list of lengths", "Content-Length: 3, 3\r\n\r\n"),
            ("a signed length", "Content-Length: +3\r\n\r\n"),
            ("no length", "Content-Length:\r\n\r\n"),
            ("a length beyond all bounds", "Content-Length: 99999999999999999999\r\n\r\n"),
            ("two codings", "Transfer-Encoding: gzip, chunked\r\n\r\n"),
            ("an unknown coding", "Transfer-Encoding: xchunked\r\n\r\n"),
            (
                "the coding twice",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            ("a bare line feed", "Host: x\n\r\n"),
            ("a bare carriage return", "Host: x\ry\r\n\r\n"),
            ("a folded line", "Host: x\r\n y: z\r\n\r\n"),
            ("a line without a colon", "Host\r\n\r\n"),
        ] {
            let text = format!("POST / HTTP/1.1\r\n{head}");
            for size in [1, 5, text.len()] {
                let (bytes, place) = seen(&text, size);
                assert_eq!(place, Place::Refused, "{what}");
                assert!(bytes.contains(&0), "{what}");
            }
        }
        assert_eq!(seen("GET / HTTP/1.1\n", 1).1, Place::Refused);
    }

    #[test]
    fn a_request_behind_a_body_is_watched_as_well() {
        let text = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\nHost: x\n\n";
        for size in 1..text.len() {
            assert_eq!(seen(text, size).1, Place::Refused, "{size}");
        }
    }

    #[test]
    fn a_head_is_open_from_its_first_byte_to_its_last() {
        let mut framing = Framing::default();
        for (piece, open) in [
            ("\r\n", false),
            ("G", true),
            ("ET / HTTP/1.1\r\n", true),
            ("Content-Length: 1\r\n\r", true),
            ("\n", false),
            ("x", false),
            ("P", true),
        ] {
            framing.inspect(&mut piece.as_bytes().to_vec());
            assert_eq!(framing.is_in_head(), open, "{piece:?}");
        }
    }
}
