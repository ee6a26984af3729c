//! What a relying party asks a person to agree to: something of its own, which this product knows
//! nothing about and changes nothing by. It is bounded so that all of it fits on a phone: what
//! cannot be shown is not asked, and what is signed is what was shown (OpenID CIBA Core, RFC 9396).

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::id::ClientId;
use crate::language::{Label, Language};
use crate::text::{Name, is_invisible};

/// The longest message, in characters: what a person compares at a glance.
pub const MESSAGE_MAX: usize = 64;

/// How many lines the details may take on a phone.
const LINES_MAX: usize = 9;

/// The longest line, in characters.
const LINE_MAX: usize = 160;

/// How deep the details may be nested.
const DEPTH_MAX: usize = 4;

/// The largest whole number that every reader of JSON reads as the same one (RFC 8259 section 6).
const WHOLE_MAX: u64 = (1 << 53) - 1;

/// The relying party's own words, which it shows on its screen as well: 1 to 64 characters, each
/// of which is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct BindingMessage(String);

/// The text is no message that a person could compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a binding_message has 1 to 64 characters, each of which is seen")]
pub struct NotAMessage;

impl BindingMessage {
    /// Reads `text`.
    pub fn parse(text: &str) -> Result<Self, NotAMessage> {
        let fits = text.chars().nth(MESSAGE_MAX).is_none()
            && text.chars().any(|character| !character.is_whitespace())
            && !text.chars().any(is_invisible);
        if fits { Ok(Self(text.to_owned())) } else { Err(NotAMessage) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for BindingMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// JSON in which no object has a name twice: two readers would see two things in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Strict(pub Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Level(0).deserialize(deserializer).map(Self)
    }
}

/// How deep a value lies.
#[derive(Clone, Copy)]
struct Level(usize);

impl Level {
    fn below<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.0 < 16 { Ok(Self(self.0 + 1)) } else { Err(E::custom("nested too deeply")) }
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without a name twice in an object")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let (mut list, below) = (Vec::new(), self.below()?);
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(list.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let (mut map, below) = (Map::new(), self.below()?);
        while let Some(name) = members.next_key::<String>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(format!("{name} is there twice")));
            }
            map.insert(name, members.next_value_seed(below)?);
        }
        Ok(map.into())
    }
}

/// What exactly is asked, as `authorization_details` (RFC 9396 section 2): objects, each of a
/// `type`, whose every member can be shown on a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Details(Vec<Value>);

/// Why details cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotDetails(String);

impl Details {
    /// Reads the JSON text of a list.
    pub fn parse(text: &str) -> Result<Self, NotDetails> {
        let read: Strict =
            serde_json::from_str(text).map_err(|error| NotDetails(error.to_string()))?;
        Self::of(read.0)
    }

    /// Takes a list, if a phone can show all of it.
    pub fn of(value: Value) -> Result<Self, NotDetails> {
        let wrong = |what: &str| Err(NotDetails(what.to_owned()));
        let Value::Array(list) = value else { return wrong("not a list") };
        if list.is_empty() {
            return wrong("an empty list asks nothing");
        }
        for one in &list {
            if one["type"].as_str().is_none_or(str::is_empty) {
                return wrong("each is an object with a type");
            }
        }
        let details = Self(list);
        let lines = details.read_lines()?;
        if lines.len() > LINES_MAX {
            return wrong("more than fits on a phone");
        }
        Ok(details)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The types, in order.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|one| one["type"].as_str())
    }

    /// Everything in them, a line for each value: the type first, then names in their order.
    pub fn lines(&self) -> Vec<String> {
        // Whatever is in here has been read before.
        self.read_lines().unwrap_or_default()
    }

    fn read_lines(&self) -> Result<Vec<String>, NotDetails> {
        let mut lines = Vec::new();
        for one in &self.0 {
            let Value::Object(members) = one else { return Err(NotDetails("no object".into())) };
            show("type", &members["type"], 1, &mut lines)?;
            for (name, value) in members.iter().filter(|(name, _)| *name != "type") {
                show(&plain_name(name)?, value, 1, &mut lines)?;
            }
        }
        Ok(lines)
    }
}

fn plain_name(name: &str) -> Result<String, NotDetails> {
    let fits = (1..=40).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if fits { Ok(name.to_owned()) } else { Err(NotDetails(format!("the name {name:?}"))) }
}

/// A value that is no list and no object, as a person reads it.
fn scalar(value: &Value) -> Option<Result<String, NotDetails>> {
    let wrong = |what: &str| Some(Err(NotDetails(what.to_owned())));
    match value {
        Value::String(text) if text.chars().any(is_invisible) => {
            wrong("a character that is not seen")
        }
        Value::String(text) if text.trim().is_empty() => wrong("a text without anything in it"),
        Value::String(text) => Some(Ok(text.clone())),
        Value::Bool(value) => Some(Ok(value.to_string())),
        Value::Number(number) => match number.as_i64() {
            Some(whole) if whole.unsigned_abs() <= WHOLE_MAX => Some(Ok(whole.to_string())),
            // 0.1 is another number for one reader than for the next.
            _ => wrong("numbers are whole and below 2^53: write amounts as texts"),
        },
        Value::Null => wrong("null says nothing"),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn show(
    path: &str,
    value: &Value,
    depth: usize,
    lines: &mut Vec<String>,
) -> Result<(), NotDetails> {
    if depth > DEPTH_MAX {
        return Err(NotDetails("nested too deeply".to_owned()));
    }
    let shown = match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                show(&format!("{path}.{}", plain_name(name)?), value, depth + 1, lines)?;
            }
            return Ok(());
        }
        Value::Array(items) if !items.is_empty() => {
            let texts: Option<Result<Vec<_>, _>> = items
                .iter()
                .map(scalar)
                .collect::<Option<_>>()
                .map(|texts: Vec<_>| texts.into_iter().collect());
            match texts {
                Some(texts) => texts?.join(" | "),
                None => {
                    for (place, item) in items.iter().enumerate() {
                        show(&format!("{path}[{}]", place + 1), item, depth + 1, lines)?;
                    }
                    return Ok(());
                }
            }
        }
        value => match scalar(value) {
            Some(text) => text?,
            None => return Err(NotDetails("an empty list or object says nothing".to_owned())),
        },
    };
    let line = format!("{path}: {shown}");
    if line.chars().count() > LINE_MAX {
        return Err(NotDetails(format!("{path} is longer than a line of a phone")));
    }
    lines.push(line);
    Ok(())
}

impl<'de> Deserialize<'de> for Details {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(Strict::deserialize(deserializer)?.0).map_err(D::Error::custom)
    }
}

/// What a relying party asks, whole: as facts in the signed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// Who asks.
    pub client: ClientId,
    /// What people call it, as the bank registered it: never what it calls itself.
    pub client_name: Name,
    /// Its own words.
    #[serde(
        default,
        deserialize_with = "super::bytes::present",
        skip_serializing_if = "Option::is_none"
    )]
    pub binding_message: Option<BindingMessage>,
    /// What exactly.
    #[serde(default, skip_serializing_if = "Details::is_empty")]
    pub authorization_details: Details,
    /// Whether the number on the relying party's screen has to be typed (security 66). The bank
    /// decides it for each program: without a number, whoever can make the program ask can hope
    /// that a tired person agrees.
    pub number: bool,
}

impl Consent {
    /// What a person has to see of it: what each thing is called, and what it is.
    pub fn facts(&self, language: Language) -> Vec<(&'static str, String)> {
        let label = |spanish, english| Label(spanish, english).text(language);
        let mut facts = vec![(label("Servicio", "Service"), self.client_name.to_string())];
        if let Some(message) = &self.binding_message {
            facts.push((label("Mensaje", "Message"), message.as_str().to_owned()));
        }
        let detail = label("Detalle", "Detail");
        facts.extend(self.authorization_details.lines().into_iter().map(|line| (detail, line)));
        facts
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn security_64_a_binding_message_is_short_and_every_character_of_it_is_seen() {
        for good in ["W4SCT", "Pago 4711, 120.50 €", "ñ", &"x".repeat(64)] {
            assert_eq!(BindingMessage::parse(good).expect("a message").as_str(), good);
        }
        for bad in ["", "  ", &"x".repeat(65), "a\nb", "a\u{202e}b", "a\u{200b}b", "\u{1b}[2J"] {
            assert_eq!(BindingMessage::parse(bad), Err(NotAMessage), "{bad:?}");
        }
    }

    #[test]
    fn details_are_shown_to_their_last_value() {
        let details = Details::parse(
            r#"[{"type": "payment_initiation", "actions": ["initiate", "cancel"],
                 "instructedAmount": {"currency": "EUR", "amount": "123.50"},
                 "creditors": [{"name": "Ñandú S.A."}], "urgent": true, "count": 2}]"#,
        );
        assert_eq!(
            details.expect("details").lines(),
            [
                "type: payment_initiation",
                "actions: initiate | cancel",
                "count: 2",
                "creditors[1].name: Ñandú S.A.",
                "instructedAmount.amount: 123.50",
                "instructedAmount.currency: EUR",
                "urgent: true",
            ]
        );
    }

    #[test]
    fn security_129_what_a_phone_could_not_show_whole_is_not_asked() {
        for bad in [
            json!({}),
            json!([]),
            json!(["payment"]),
            json!([{"amount": "1"}]),
            json!([{"type": ""}]),
            json!([{"type": "a", "b": null}]),
            json!([{"type": "a", "b": {}}]),
            json!([{"type": "a", "b": []}]),
            json!([{"type": "a", "b": 1.5}]),
            json!([{"type": "a", "b": 9_007_199_254_740_992_u64}]),
            json!([{"type": "a", "b": "x\u{202e}y"}]),
            json!([{"type": "a", "b": " "}]),
            json!([{"type": "a", "b\u{200b}": "x"}]),
            json!([{"type": "a", "b.c": "x"}]),
            json!([{"type": "a", "b": "x".repeat(160)}]),
            json!([{"type": "a", "b": {"c": {"d": {"e": {"f": 1}}}}}]),
            json!((0..10).map(|_| json!({"type": "a"})).collect::<Vec<_>>()),
        ] {
            assert!(Details::of(bad.clone()).is_err(), "{bad}");
        }
        assert!(Details::parse(r#"[{"type": "a", "b": "1", "b": "2"}]"#).is_err());
        assert!(Details::parse(r#"[{"type": "a", "b": "1"}]"#).is_ok());
    }
}
