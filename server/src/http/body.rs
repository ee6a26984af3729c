//! Bodies. A body is read whole, within limits of size and time, looked at before it is parsed,
//! and parsed into a type that knows all its fields. What is not JSON is `malformed`; JSON that
//! says something wrong is `validation`, with a pointer to the place (security 97, 98).

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use semilla_core::problem::{Problem, ProblemType};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use super::headers::single;
use super::problem::ApiError;

/// The largest body, in bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

/// The largest body that brings a file of tokens.
pub const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The deepest nesting: the library would go to 128.
const DEPTH_MAX: usize = 8;

/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The longest detail that quotes something of the request, in characters.
const DETAIL_MAX: usize = 200;

/// A JSON body. `T` has to deny unknown fields; `serde` refuses fields that come twice.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        require_media_type(request.headers(), "application/json")?;
        let bytes = read(request.into_body(), BODY_BYTES_MAX).await?;
        Ok(Self(parse(&bytes)?))
    }
}

/// Requires that a body is of this media type, in UTF-8, not compressed (security 71).
pub(super) fn require_media_type(headers: &HeaderMap, wanted: &str) -> Result<(), ApiError> {
    let refused = || {
        let detail = format!("Send the body as {wanted}, in UTF-8, not compressed.");
        ApiError::from(Problem::new(ProblemType::UnsupportedMediaType, detail))
    };
    let plain = single(headers, &header::CONTENT_ENCODING)?;
    let given = single(headers, &header::CONTENT_TYPE)?.ok_or_else(refused)?;
    let (media_type, parameters) = given.split_once(';').unwrap_or((given, ""));
    let parameters = parameters.trim();
    let is_utf8 = parameters.is_empty()
        || parameters.split_once('=').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("charset")
                && value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        });
    if media_type.trim().eq_ignore_ascii_case(wanted)
        && is_utf8
        && plain.is_none_or(|coding| coding.eq_ignore_ascii_case("identity"))
    {
        Ok(())
    } else {
        Err(refused())
    }
}

/// Reads a body whole.
pub(super) async fn read(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        let detail = format!("A body has at most {bytes_max} bytes here.");
        ApiError::from(Problem::new(ProblemType::TooLarge, detail))
    };
    // What says at once that it is too large is not read at all.
    if axum::body::HttpBody::size_hint(&body).lower() > bytes_max as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::malformed("The body ended before it was complete.")),
        Err(_) => Err(ApiError::malformed("The body did not come in time.")),
    }
}

/// Parses a JSON object.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let malformed = |detail: &str| Problem::new(ProblemType::Malformed, detail);
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("The body is not UTF-8."))?;
    if !is_shallow(text) {
        return Err(malformed("The body is nested too deeply.").into());
    }
    // First whether it is JSON, to its end and in every string: a wrong field before a broken one
    // decides nothing.
    serde_json::from_str::<serde_json::Value>(text).map_err(|error| unreadable(&error))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    let value = parsed.map_err(|error| problem_of(error.path(), error.inner()))?;
    // `serde` would take the fields of a struct from an array as well; a request has one form.
    if !text.trim_start().starts_with('{') {
        return Err(Problem::field("#", "must be an object").into());
    }
    Ok(value)
}

/// A text that is no JSON.
fn unreadable(error: &serde_json::Error) -> Problem {
    if error.is_eof() {
        return Problem::new(ProblemType::Malformed, "The body ends in the middle of its JSON.");
    }
    let text = error.to_string();
    let (what, place) = text.rsplit_once(" at line ").unwrap_or((&text, "?"));
    let detail = format!("The body is not JSON: {} at line {place}.", shortened(what));
    Problem::new(ProblemType::Malformed, detail)
}

/// JSON that says something else than what is wanted.
fn problem_of(path: &Path, error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    match named_field(what) {
        // The path leads to a field that is not known, and to the struct of other ones.
        Some((_, Fault::Unknown)) => Problem::field(pointer(path, None), Fault::Unknown.text()),
        Some((name, fault)) => Problem::field(pointer(path, Some(&name)), fault.text()),
        // An object in the place of a word, for which `serde_json` has no better words.
        None if error.is_syntax() => {
            Problem::field(pointer(path, None), "has another form than it must have")
        }
        None => Problem::field(pointer(path, None), shortened(what)),
    }
}

/// What is wrong with a field of a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Unknown,
    Repeated,
    Missing,
}

impl Fault {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Unknown => "is not known here",
            Self::Repeated => "is given more than once",
            Self::Missing => "is missing",
        }
    }
}

/// The field that an error of `serde` is about, where it is one about a field of its struct.
/// `serde` gives such errors no other form than this text.
pub(super) fn named_field(error: &str) -> Option<(String, Fault)> {
    [
        ("unknown field `", Fault::Unknown),
        ("duplicate field `", Fault::Repeated),
        ("missing field `", Fault::Missing),
    ]
    .into_iter()
    .find_map(|(begin, fault)| {
        let (name, _) = error.strip_prefix(begin)?.split_once('`')?;
        Some((shortened(name), fault))
    })
}

/// The path, and the field in it where one is named, as a JSON pointer in a URI fragment (RFC 6901
/// section 6).
fn pointer(path: &Path, field: Option<&str>) -> String {
    let mut pointer = "#".to_owned();
    let mut segments = path.iter().peekable();
    while let Some(segment) = segments.next() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escaped(&shortened(key)))),
            // A variant is a place of its own where something is in it; else it may be a word.
            Segment::Enum { variant } if field.is_some() || segments.peek().is_some() => {
                pointer.push_str(&format!("/{}", escaped(&shortened(variant))));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    if let Some(field) = field {
        pointer.push_str(&format!("/{}", escaped(field)));
    }
    pointer
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A text that may quote the request, held to a length.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(DETAIL_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether arrays and objects are nested at most [`DEPTH_MAX`] deep. Counts brackets outside of
/// strings; whether the text is JSON at all is for the parser to say.
fn is_shallow(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return false;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        numbers: Vec<u32>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        cause: String,
        inner: Option<Inner>,
        choice: Option<Choice>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        Word,
        Within { number: u32 },
    }

    fn refused(body: &[u8]) -> Problem {
        parse::<Outer>(body).expect_err("refused").problem().clone()
    }

    #[test]
    fn security_98_what_is_not_json_is_malformed() {
        for body in [
            &b""[..],
            b" ",
            b"null x",
            b"{\"cause\":\"a\"",
            b"{\"cause\":7,",
            b"{\"cause\":\"a\"}}",
            b"{\"cause\":NaN}",
            b"{\"cause\":Infinity}",
            b"{\"cause\":1e999}",
            b"{'cause':'a'}",
            b"{\"cause\":\"a\",}",
            b"\xef\xbb\xbf{\"cause\":\"a\"}",
            b"{\"cause\":\"\xff\"}",
            b"{\"cause\":\"\\ud800\"}",
            b"{\"cause\":\"\\udc00x\"}",
            b"{\"other\":\"\\ud800\"}",
            b"{\"cause\":\"a\0b\"}",
            b"\0",
            b"{\"cause\":\"a\nb\"}",
            b"cause=a",
            b"{\"cause\":\"a\"} {\"cause\":\"a\"}",
        ] {
            let problem = refused(body);
            assert_eq!(
                problem.kind,
                ProblemType::Malformed,
                "{}: {problem:?}",
                body.escape_ascii()
            );
        }
    }

    #[test]
    fn security_98_json_with_wrong_content_is_invalid_and_the_problem_points_at_it() {
        for (body, pointer) in [
            (r#"{}"#, "#/cause"),
            (r#"{"cause":7}"#, "#/cause"),
            (r#"{"cause":null}"#, "#/cause"),
            (r#"{"cause":"a","cause":"a"}"#, "#/cause"),
            (r#"{"cause":"a","c\u0061use":"a"}"#, "#/cause"),
            (r#"{"cause":"a","other":1}"#, "#/other"),
            (r#"{"cause":"a","a/b~c":1}"#, "#/a~1b~0c"),
            (r#"{"cause":"a","inner":{"numbers":[],"numbers":[]}}"#, "#/inner/numbers"),
            (r#"{"cause":"a","inner":{}}"#, "#/inner/numbers"),
            (r#"{"cause":"a","inner":{"numbers":[1,-1]}}"#, "#/inner/numbers/1"),
            (r#"{"cause":"a","inner":{"numbers":[4294967296]}}"#, "#/inner/numbers/0"),
            (
                r#"{"cause":"a","inner":{"numbers":[123456789012345678901234567890]}}"#,
                "#/inner/numbers/0",
            ),
            (r#"{"cause":"a","inner":{"numbers":[],"more":1}}"#, "#/inner/more"),
            (r#"{"cause":"a","choice":"none"}"#, "#/choice"),
            (r#"{"cause":"a","choice":"within"}"#, "#/choice"),
            (r#"{"cause":"a","choice":{"within":{"number":-1}}}"#, "#/choice/within/number"),
            (r#"{"cause":"a","choice":{"within":{}}}"#, "#/choice/within/number"),
            (r#"["a",null]"#, "#"),
            (r#""a""#, "#"),
            ("null", "#"),
            ("7", "#"),
        ] {
            let problem = refused(body.as_bytes());
            assert_eq!(problem.kind, ProblemType::Validation, "{body}: {problem:?}");
            assert_eq!(problem.errors[0].pointer, pointer, "{body}: {problem:?}");
        }
    }

    #[test]
    fn security_97_json_is_nested_so_deep_and_no_deeper() {
        for (depth, shallow) in [(DEPTH_MAX, true), (DEPTH_MAX + 1, false), (10_000, false)] {
            assert_eq!(is_shallow(&format!("{}{}", "[".repeat(depth), "]".repeat(depth))), shallow);
            assert_eq!(is_shallow(&r#"{"a":"#.repeat(depth)), shallow);
        }
        assert!(is_shallow(r#"{"a":"[[[[[[[[[[[[","b":"\"[[[[[[[[[[","c":"\\"}"#));
        assert!(!is_shallow(r#"{"a":"\\",[[[[[[[[[["#), "the string has ended");
        assert!(is_shallow(&"[]".repeat(1000)));
        let deep = format!(r#"{{"cause":{}"#, "[".repeat(5000));
        assert_eq!(refused(deep.as_bytes()).kind, ProblemType::Malformed);
    }

    #[test]
    fn a_detail_quotes_only_a_little_of_the_request() {
        let problem = refused(format!(r#"{{"cause":"a","{}":1}}"#, "x".repeat(10_000)).as_bytes());
        assert!(problem.detail.len() < 300, "{}", problem.detail.len());
    }

    #[test]
    fn security_71_a_body_has_to_say_that_it_is_json() {
        let check = |content_type: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            require_media_type(&headers, "application/json")
        };
        for fine in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
        ] {
            assert!(check(fine).is_ok(), "{fine}");
        }
        for wrong in [
            "text/plain",
            "application/jsonx",
            "application/json; charset=latin1",
            "",
            "application/json; x",
        ] {
            let error = check(wrong).expect_err(wrong);
            assert_eq!(error.problem().kind, ProblemType::UnsupportedMediaType);
        }
        let mut headers = HeaderMap::new();
        assert!(require_media_type(&headers, "application/json").is_err());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(require_media_type(&headers, "application/json").is_err());
    }

    #[tokio::test]
    async fn security_97_a_body_has_so_many_bytes_and_no_more() {
        assert_eq!(
            read(Body::from(vec![b'x'; BODY_BYTES_MAX]), BODY_BYTES_MAX).await.expect("read").len(),
            BODY_BYTES_MAX
        );
        let known = Body::from(vec![b'x'; BODY_BYTES_MAX + 1]);
        let pieces =
            futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 1000]));
        for body in [known, Body::from_stream(pieces)] {
            let error = read(body, BODY_BYTES_MAX).await.expect_err("too large");
            assert_eq!(error.problem().kind, ProblemType::TooLarge);
        }
    }
}
