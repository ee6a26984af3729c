//! The two languages of everything that people read: Spanish first, English second.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A language people read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Language {
    /// Español.
    #[default]
    #[serde(rename = "es")]
    Spanish,
    /// English.
    #[serde(rename = "en")]
    English,
}

impl Language {
    /// Its tag (RFC 5646).
    pub fn tag(self) -> &'static str {
        match self {
            Self::Spanish => "es",
            Self::English => "en",
        }
    }
}

/// A text in both languages, Spanish first: there is no way to leave one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(pub &'static str, pub &'static str);

impl Label {
    /// The text in one of them.
    pub fn text(self, language: Language) -> &'static str {
        match language {
            Language::Spanish => self.0,
            Language::English => self.1,
        }
    }
}
