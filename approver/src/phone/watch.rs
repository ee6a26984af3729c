//! Watching: what is new in the inbox, one piece after another, for as long as it is asked.

use std::collections::VecDeque;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use semilla_core::id::{EnrollmentId, OperationId};
use semilla_core::protocol::wire::OpenEnrollment;

use super::{Inbox, Phone, Refused};
use crate::errors::Error;
use crate::review::Request;

/// How long to pause where the server answers at once because of what is known already.
const PAUSE: Duration = Duration::from_secs(2);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum News {
    /// Something is asked.
    Asked(Arc<Request>),
    /// A request is gone: answered, cancelled or over its time.
    Gone(Arc<Request>),
    /// A message was refused.
    Refused(Refused),
    /// A token waits to be enrolled.
    ToEnroll(OpenEnrollment),
}

/// What was told already.
pub struct Watch<'p> {
    phone: &'p Phone,
    requests: BTreeMap<OperationId, Arc<Request>>,
    refused: BTreeSet<OperationId>,
    enrollments: BTreeSet<EnrollmentId>,
    waiting: VecDeque<News>,
}

impl Phone {
    /// Begins to watch: everything that waits now is news.
    pub fn watch(&self) -> Watch<'_> {
        Watch {
            phone: self,
            requests: BTreeMap::new(),
            refused: BTreeSet::new(),
            enrollments: BTreeSet::new(),
            waiting: VecDeque::new(),
        }
    }
}

impl Watch<'_> {
    /// The next piece of news. An error (no network, say) ends nothing: ask again after a while.
    pub async fn next(&mut self) -> Result<News, Error> {
        loop {
            if let Some(news) = self.waiting.pop_front() {
                return Ok(news);
            }
            let known = !self.requests.is_empty() || !self.refused.is_empty();
            let wait = if known { Duration::ZERO } else { Duration::from_secs(25) };
            let mut inbox = self.phone.wait_for_requests(wait).await?;
            inbox.enrollments = self.phone.enrollments().await?;
            self.compare(inbox);
            if self.waiting.is_empty() && known {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn compare(&mut self, inbox: Inbox) {
        let Inbox { requests, refused, enrollments } = inbox;
        let now: BTreeMap<_, _> =
            requests.into_iter().map(|request| (request.id(), request)).collect();
        let gone = self.requests.iter().filter(|(id, _)| !now.contains_key(id));
        self.waiting.extend(gone.map(|(_, request)| News::Gone(Arc::clone(request))));
        let new = now.iter().filter(|(id, _)| !self.requests.contains_key(id));
        self.waiting.extend(new.map(|(_, request)| News::Asked(Arc::clone(request))));
        self.requests = now;

        let known = std::mem::take(&mut self.refused);
        self.refused = refused.iter().map(|refused| refused.id).collect();
        let new = refused.into_iter().filter(|refused| !known.contains(&refused.id));
        self.waiting.extend(new.map(News::Refused));

        let known = std::mem::take(&mut self.enrollments);
        self.enrollments = enrollments.iter().map(|open| open.enrollment).collect();
        let new = enrollments.into_iter().filter(|open| !known.contains(&open.enrollment));
        self.waiting.extend(new.map(News::ToEnroll));
    }
}
