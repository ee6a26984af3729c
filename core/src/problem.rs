//! What can go wrong, as clients are told: one closed list of problem types (RFC 9457), shared by
//! the server that writes them and the programs that read them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! problem_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal, $title:literal;)*) => {
        /// The type of a problem.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum ProblemType {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl ProblemType {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name: the `type` member of a problem document.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status it comes with.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// A few words that stay the same from one occurrence to the next.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

problem_types! {
    /// Not HTTP, not JSON, not UTF-8.
    Malformed = "malformed", 400, "The request cannot be read";
    /// Well-formed, with wrong, unknown, missing or extra content.
    Validation = "validation", 422, "The request has wrong content";
    /// No credentials, or ones that no longer hold.
    Unauthenticated = "unauthenticated", 401, "Credentials are missing or not valid";
    /// A signed message does not verify.
    SignatureInvalid = "signature-invalid", 401, "The signature does not verify";
    /// Not for this caller.
    Forbidden = "forbidden", 403, "Not allowed for these credentials";
    /// The one who asks may not be the one who approves.
    SelfApproval = "self-approval", 403, "Somebody else has to approve this";
    /// The phone is trusted no more.
    DeviceRevoked = "device-revoked", 403, "This phone is no longer bound";
    /// There is none, or none of the caller's company.
    NotFound = "not-found", 404, "There is no such thing";
    /// The path exists, the method does not.
    MethodNotAllowed = "method-not-allowed", 405, "Not with this method";
    /// Not in the state that the thing is in.
    StateConflict = "state-conflict", 409, "Not in this state";
    /// Somebody was first.
    ApprovalAlreadyDecided = "approval-already-decided", 409, "This was already decided";
    /// The phone signed something else than what it was asked.
    RequestHashMismatch = "request-hash-mismatch", 409, "The answer is to another request";
    /// The same request is still being worked on.
    IdempotencyConflict = "idempotency-conflict", 409, "The first request with this key is still running";
    /// The key was used for another request.
    IdempotencyMismatch = "idempotency-mismatch", 422, "This idempotency key belongs to another request";
    /// The number typed on the phone is not the one shown.
    NumberMismatch = "number-mismatch", 422, "The number is not the one shown";
    /// The activation code is wrong, used or dead.
    ActivationInvalid = "activation-invalid", 422, "The activation code is not valid";
    /// The code that should prove an enrollment is wrong.
    CodeInvalid = "code-invalid", 422, "The code is not right";
    /// The time to answer is over.
    ApprovalExpired = "approval-expired", 410, "The time to answer is over";
    /// The seed can be fetched no more.
    DeliveryExpired = "delivery-expired", 410, "This can be fetched no more";
    /// The thing was changed since it was read.
    PreconditionFailed = "precondition-failed", 412, "It was changed meanwhile";
    /// More than the limits allow.
    TooLarge = "too-large", 413, "The request is too large";
    /// Not JSON.
    UnsupportedMediaType = "unsupported-media-type", 415, "The body has to be JSON";
    /// Too many wrong codes.
    TokenLocked = "token-locked", 429, "Too many wrong codes: wait";
    /// Too many requests.
    RateLimited = "rate-limited", 429, "Too many requests: wait";
    /// Our fault.
    Internal = "internal", 500, "Something went wrong here";
    /// Not now.
    Unavailable = "unavailable", 503, "Not available now: try again";
}

/// A problem document (RFC 9457 section 3), `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Which problem.
    #[serde(rename = "type")]
    pub kind: ProblemType,
    /// The same words every time.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and what to do next.
    pub detail: String,
    /// Where the request is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The state that is in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What may be asked in that state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<String>>,
    /// Whose move it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who_can_act: Option<String>,
    /// Seconds to wait; also the `Retry-After` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// One place where a request is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body, `#/…`, or the name of a query parameter or header.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

impl Problem {
    /// A problem and what to tell about it.
    pub fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            errors: Vec::new(),
            state: None,
            allowed: None,
            who_can_act: None,
            retry_after: None,
        }
    }

    /// A request with one wrong field.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let error = FieldError { pointer: pointer.into(), detail: detail.into() };
        let mut problem =
            Self::new(ProblemType::Validation, format!("{}: {}", error.pointer, error.detail));
        problem.errors.push(error);
        problem
    }

    /// There is none. The same bytes whether it never existed or is another company's.
    pub fn not_found() -> Self {
        Self::new(ProblemType::NotFound, "Nothing of this name belongs to the caller.")
    }

    /// Says after how many seconds to come back.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds.max(1));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_type_has_its_own_name_and_reads_back() {
        let mut names = std::collections::HashSet::new();
        for kind in ProblemType::ALL {
            assert!(names.insert(kind.name()));
            assert!((400..600).contains(&kind.status()));
            let problem = Problem::new(*kind, "detail");
            let text = serde_json::to_string(&problem).expect("JSON");
            assert!(text.starts_with(&format!("{{\"type\":\"{}\"", kind.name())), "{text}");
            assert_eq!(serde_json::from_str::<Problem>(&text).expect("a problem"), problem);
        }
    }
}
