//! Text that people chose and other people will read on a phone: names of persons, companies and
//! phones. Parsed once at the edge; what is refused here can mislead nobody later (security 64, 99).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// A name: 1 to 100 characters in NFC, without control, format, surrogate, private-use or
/// unassigned characters, without line breaks, blank at neither end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

/// Why a text is no name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAName {
    /// Nothing but blanks.
    #[error("a name cannot be empty")]
    Empty,
    /// More than 100 characters.
    #[error("a name has at most 100 characters")]
    TooLong,
    /// A character that is not shown, or that turns others around.
    #[error("U+{0:04X} is a control, format or unassigned character")]
    Invisible(u32),
}

impl Name {
    /// Parses and normalizes `text`.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        // Normalizing can lengthen a text many times over: look at its length first.
        if text.len() > 1600 {
            return Err(NotAName::TooLong);
        }
        let name: String = text.nfc().collect();
        let name = name.trim_matches(' ');
        if let Some(character) = name.chars().find(|character| is_invisible(*character)) {
            return Err(NotAName::Invisible(character.into()));
        }
        match name.chars().count() {
            0 => Err(NotAName::Empty),
            1..=100 => Ok(Self(name.to_owned())),
            _ => Err(NotAName::TooLong),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For searching: lower case, without accents.
    pub fn folded(&self) -> String {
        fold(&self.0)
    }
}

/// `text` in lower case without accents, so that `LAURÁ` finds `laura`.
pub fn fold(text: &str) -> String {
    text.nfd()
        .filter(|character| character.general_category() != GeneralCategory::NonspacingMark)
        .flat_map(char::to_lowercase)
        .collect()
}

/// Whether a character is not shown, turns others around, or breaks the line.
pub(crate) fn is_invisible(character: char) -> bool {
    matches!(
        character.general_category(),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::Surrogate
            | GeneralCategory::PrivateUse
            | GeneralCategory::Unassigned
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    )
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_64_and_99_a_name_hides_nothing_and_has_one_spelling() {
        let composed = Name::parse("Andr\u{e9}s").expect("a name");
        let decomposed = Name::parse("Andre\u{301}s").expect("a name");
        assert_eq!(composed, decomposed);
        assert_eq!(composed.folded(), "andres");
        for hidden in [
            "a\u{202e}b",
            "a\u{200b}b",
            "\u{feff}a",
            "a\u{2060}b",
            "a\nb",
            "a\u{0}b",
            "a\u{1b}[31mb",
            "a\u{2028}b",
        ] {
            assert!(matches!(Name::parse(hidden), Err(NotAName::Invisible(_))), "{hidden:?}");
        }
        assert_eq!(Name::parse("   "), Err(NotAName::Empty));
        assert_eq!(Name::parse(&"x".repeat(101)), Err(NotAName::TooLong));
        assert!(Name::parse(&"ñ".repeat(100)).is_ok());
    }
}
