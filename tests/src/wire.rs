//! The way between a phone and a server, with somebody on it: answers that get lost after the
//! server has acted, and answers that are other than the server gave them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use semilla_approver::http::{Answering, Failure, Http, Request, Response, Transport};
use serde_json::Value;

/// Looks at an answer to a request (its method and address) and hands on what it likes.
type Hand = dyn Fn(&str, Response) -> Result<Response, Failure> + Send + Sync;

/// A way to a server with somebody on it.
pub struct Wire {
    http: Http,
    hand: Box<Hand>,
}

impl Wire {
    /// Loses answers to posts at addresses that end in `place`. Returns the way, and how many are
    /// to be lost: none until a story says so.
    pub fn losing(place: &'static str) -> (Arc<dyn Transport>, Arc<AtomicUsize>) {
        let left = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&left);
        let hand = move |request: &str, answer| {
            let here = request.starts_with("POST") && request.ends_with(place);
            let lose = |left: usize| left.checked_sub(1).filter(|_| here);
            match counted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose) {
                Ok(_) => Err(Failure::Lost("on purpose".to_owned())),
                Err(_) => Ok(answer),
            }
        };
        (Arc::new(Self { http: Http::new(), hand: Box::new(hand) }), left)
    }

    /// Keeps everything that comes back, as it came. Returns the way, and what came.
    pub fn recording() -> (Arc<dyn Transport>, Arc<Mutex<Vec<u8>>>) {
        let came = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&came);
        let hand = move |_: &str, answer: Response| {
            kept.lock().expect("no panic").extend_from_slice(&answer.body);
            Ok(answer)
        };
        (Arc::new(Self { http: Http::new(), hand: Box::new(hand) }), came)
    }

    /// Changes the JSON of answers to requests whose method and address contain `place`.
    pub fn changing(
        place: &'static str,
        change: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> Arc<dyn Transport> {
        let hand = move |request: &str, mut answer: Response| {
            if request.contains(place) && answer.is_success() {
                let mut body = serde_json::from_slice(&answer.body).expect("JSON");
                change(&mut body);
                answer.body = body.to_string().into_bytes().into();
            }
            Ok(answer)
        };
        Arc::new(Self { http: Http::new(), hand: Box::new(hand) })
    }
}

impl Transport for Wire {
    fn send(&self, request: Request) -> Answering<'_> {
        let name = format!("{} {}", request.method, request.url);
        Box::pin(async move { (self.hand)(&name, self.http.send(request).await?) })
    }
}
