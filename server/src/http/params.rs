//! What stands in the address of a request: ids in its path, and parameters behind its `?`.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use semilla_core::problem::Problem;
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor, value};
use serde::forward_to_deserialize_any;

use super::form::{self, FormError};
use super::problem::ApiError;

/// The id in the path. A text that is no id names nothing, as an id that nobody has: both are
/// `not-found`, in the same bytes (security 72).
#[derive(Clone, Copy, Debug)]
pub struct Id<T>(pub T);

impl<T, S> FromRequestParts<S> for Id<T>
where
    T: FromStr,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::not_found())?;
        Ok(Self(text.parse().map_err(|_| Problem::not_found())?))
    }
}

/// Two ids in the path, as [`Id`].
#[derive(Clone, Copy, Debug)]
pub struct Ids<A, B>(pub A, pub B);

impl<A, B, S> FromRequestParts<S> for Ids<A, B>
where
    A: FromStr,
    B: FromStr,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let texts = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((first, second)) = texts.map_err(|_| Problem::not_found())?;
        match (first.parse(), second.parse()) {
            (Ok(first), Ok(second)) => Ok(Self(first, second)),
            _ => Err(Problem::not_found().into()),
        }
    }
}

/// The parameters of the query. Unknown and repeated ones are refused, and the problem names the
/// parameter. `T` has to deny unknown fields.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self(read(parts.uri.query().unwrap_or_default())?))
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let pairs = form::parse(query).map_err(|error| match &error {
        FormError::Repeated(name) => Problem::field(name.clone(), "is given more than once"),
        FormError::Escape => Problem::field("query", error.to_string()),
    })?;
    let pairs = pairs.into_iter().map(|(name, value)| (name, Parameter(value)));
    serde_path_to_error::deserialize(MapDeserializer::new(pairs)).map_err(|error| {
        let path = error.path().to_string();
        let detail = error.into_inner().to_string();
        match super::body::named_field(&detail) {
            Some((name, fault)) => Problem::field(name, fault.text()),
            None => Problem::field(path, super::body::shortened(&detail)),
        }
        .into()
    })
}

/// The value of a parameter, which becomes whatever type is wanted.
struct Parameter(String);

impl<'de> IntoDeserializer<'de, value::Error> for Parameter {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

/// Numbers and switches are parsed; everything else is text.
macro_rules! parsed {
    ($($method:ident => $visit:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
            match self.0.parse() {
                Ok(value) => visitor.$visit(value),
                Err(_) => visitor.visit_string(self.0),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Parameter {
    type Error = value::Error;

    parsed! {
        deserialize_bool => visit_bool,
        deserialize_u8 => visit_u8,
        deserialize_u16 => visit_u16,
        deserialize_u32 => visit_u32,
        deserialize_u64 => visit_u64,
        deserialize_i64 => visit_i64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use semilla_core::operations::State;
    use semilla_core::problem::ProblemType;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Listing {
        state: Option<State>,
        q: Option<String>,
        limit: Option<u32>,
        after: Option<u64>,
    }

    #[test]
    fn parameters_become_what_is_wanted() {
        let listing: Listing = read("state=blocked&q=12&limit=20").expect("a listing");
        let expected = Listing {
            state: Some(State::Blocked),
            q: Some("12".to_owned()),
            limit: Some(20),
            after: None,
        };
        assert_eq!(listing, expected);
        assert_eq!(read::<Listing>("").expect("nothing"), Listing::default());
    }

    #[test]
    fn security_98_the_problem_names_the_parameter() {
        for (query, name) in [
            ("limit=x", "limit"),
            ("limit=-1", "limit"),
            ("limit=4294967296", "limit"),
            ("limit=", "limit"),
            ("limit=1&limit=1", "limit"),
            ("state=gone", "state"),
            ("other=1", "other"),
            ("q=%ff", "query"),
        ] {
            let error = read::<Listing>(query).expect_err(query);
            let problem = error.problem();
            assert_eq!(problem.kind, ProblemType::Validation);
            assert_eq!(problem.errors[0].pointer, name, "{query}: {problem:?}");
        }
    }
}
