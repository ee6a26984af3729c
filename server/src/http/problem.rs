//! How whatever went wrong is told: every error of every path becomes a problem document here
//! (RFC 9457), with the status its type has. What happened inside stays inside: it is logged, under
//! the request's id, and not sent.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use semilla_core::problem::{Problem, ProblemType};

use crate::store::StoreError;
use crate::workflow::Failure;

/// A problem on its way to the caller.
#[derive(Debug)]
pub struct ApiError {
    problem: Box<Problem>,
    /// `WWW-Authenticate`.
    challenge: Option<HeaderValue>,
    /// What to log and not to send.
    inside: Option<String>,
}

impl ApiError {
    /// Something that should not have happened. `inside` is for the log.
    pub fn internal(inside: impl Into<String>) -> Self {
        let problem =
            Problem::new(ProblemType::Internal, "Something went wrong here. It has been logged.");
        Self { inside: Some(inside.into()), ..problem.into() }
    }

    /// Not now. `inside` is for the log.
    pub fn unavailable(inside: impl Into<String>) -> Self {
        let problem =
            Problem::new(ProblemType::Unavailable, "Not available at the moment: try again.");
        Self { inside: Some(inside.into()), ..problem.retry_after(1).into() }
    }

    /// A request that cannot be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Problem::new(ProblemType::Malformed, detail).into()
    }

    /// Says how to authenticate (RFC 9110 section 11.6.1).
    #[must_use]
    pub fn challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Logs what happened inside, where that is not for the caller.
    pub fn log(&self) {
        if let Some(inside) = &self.inside {
            tracing::error!(problem = self.problem.kind.name(), %inside, "failed inside");
        }
    }

    /// The problem that is told.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), challenge: None, inside: None }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            // Whoever lost a race and was not planned anew may ask again.
            StoreError::Conflict | StoreError::Unavailable(_) => {
                Self::unavailable(error.to_string())
            }
            StoreError::Inconsistent { .. } => Self::internal(error.to_string()),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(problem) => (*problem).into(),
            Failure::Store(error) => error.into(),
            // `workflow::act` makes the record durable and hands on the problem alone.
            Failure::Recorded(..) => Self::internal("a refusal came by without its record"),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let Self { problem, challenge, .. } = self;
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Problems are structs of strings and numbers: writing them cannot fail.
        let body = serde_json::to_vec(&*problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = problem.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            // Every 401 says how to authenticate. One without words of its own comes from a
            // message of a phone that does not verify.
            let challenge = challenge.unwrap_or(HeaderValue::from_static("DPoP algs=\"ES256\""));
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        } else if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::body_of;

    #[tokio::test]
    async fn every_problem_type_has_its_status_and_its_document() {
        for kind in ProblemType::ALL {
            let response = ApiError::from(Problem::new(*kind, "what happened")).into_response();
            assert_eq!(response.status().as_u16(), kind.status());
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(
                response.headers().contains_key(header::WWW_AUTHENTICATE),
                kind.status() == 401,
                "{}",
                kind.name()
            );
            let problem: Problem =
                serde_json::from_str(&body_of(response).await).expect("a problem");
            assert_eq!(problem, Problem::new(*kind, "what happened"));
        }
    }

    #[tokio::test]
    async fn security_40_what_happened_inside_is_not_sent() {
        for (error, status) in [
            (StoreError::Unavailable("disk /dev/secret is full".to_owned()), 503),
            (StoreError::Inconsistent { table: "tokens", what: "secret row".to_owned() }, 500),
            (StoreError::Conflict, 503),
        ] {
            let response = ApiError::from(error).into_response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 503);
            let body = body_of(response).await;
            assert!(!body.contains("secret") && !body.contains("tokens"), "{body}");
        }
    }

    #[test]
    fn whoever_has_to_wait_is_told_how_long() {
        let problem = Problem::new(ProblemType::TokenLocked, "wait").retry_after(25);
        let response = ApiError::from(problem).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "25");
    }
}
