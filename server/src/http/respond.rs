//! Answers on their way out.

use std::marker::PhantomData;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::ApiError;
use crate::workflow::{Answer, Failure, View};

/// What a handler returns: the answer that shows a `V`, or why there is none.
pub type Answered<V> = Result<Shown<V>, ApiError>;

/// The answer that shows a `V`.
pub struct Shown<V>(Answer, PhantomData<fn() -> V>);

impl<V: View> Shown<V> {
    /// An answer that was made from a `V`, now or the first time that its request came.
    pub fn of(answer: Answer) -> Self {
        Self(answer, PhantomData)
    }
}

impl<V> IntoResponse for Shown<V> {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

/// Shows what was read.
pub fn shown<V: View>(read: Result<V, Failure>) -> Answered<V> {
    Ok(Shown::of(Answer::of(&read?)))
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if self.body.is_empty() {
            return status.into_response();
        }
        let mut response = (status, self.body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(location) =
            self.location.as_deref().and_then(|text| HeaderValue::from_str(text).ok())
        {
            headers.insert(header::LOCATION, location);
        }
        if let Some(etag) =
            self.version.and_then(|version| HeaderValue::from_str(&etag(version)).ok())
        {
            headers.insert(header::ETAG, etag);
        }
        response
    }
}

/// A version as an entity tag (RFC 9110 section 8.8.3).
pub(super) fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::body_of;

    #[tokio::test]
    async fn an_answer_says_where_what_and_at_which_version() {
        let answer = Answer {
            status: 201,
            location: Some("/api/v1/users/1".to_owned()),
            version: Some(7),
            body: "{}".to_owned(),
        };
        let response = answer.into_response();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()[header::LOCATION], "/api/v1/users/1");
        assert_eq!(response.headers()[header::ETAG], "\"7\"");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(body_of(response).await, "{}");
    }

    #[tokio::test]
    async fn an_answer_without_content_has_none() {
        let answer = Answer { status: 204, location: None, version: None, body: String::new() };
        let response = answer.into_response();
        assert_eq!(response.status(), 204);
        assert!(!response.headers().contains_key(header::CONTENT_TYPE));
        assert_eq!(body_of(response).await, "");
    }
}
