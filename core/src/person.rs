//! Companies and their people.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{CompanyId, OperationId, UserId};
use crate::language::{Label, Language};
use crate::policy::Policy;
use crate::text::Name;
use crate::time::Timestamp;

/// A business customer, or the bank itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Company {
    /// Its id.
    pub id: CompanyId,
    /// Its name, as its phones show it.
    pub name: Name,
    /// Whether it takes part: an inactive company's sessions, codes and operations are dead.
    pub active: bool,
    /// What it chose.
    pub policy: Policy,
    /// Since when.
    pub created: Timestamp,
}

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// *Operador del banco.* Of the bank only.
    Operator,
    /// *Usuario administrador.* The only one who may assign, block, unblock or release.
    Administrator,
    /// *Usuario secundario.* Holds a token.
    Secondary,
    /// *Auditor.* Reads everything of a company, changes nothing.
    Auditor,
}

impl Role {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Administrator => "administrator",
            Self::Secondary => "secondary",
            Self::Auditor => "auditor",
        }
    }

    /// Its name on screen.
    pub fn label(self, language: Language) -> &'static str {
        match self {
            Self::Operator => Label("Operador del banco", "Bank operator"),
            Self::Administrator => Label("Usuario administrador", "Administrator"),
            Self::Secondary => Label("Usuario secundario", "Secondary user"),
            Self::Auditor => Label("Auditor", "Auditor"),
        }
        .text(language)
    }
}

/// A person's name within the company for programs and for logging in: 3 to 64 of `a-z 0-9 . _ - @`,
/// beginning with a letter or digit. Never changes, has one spelling.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Login(String);

/// The text is no login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a login has 3 to 64 of a-z 0-9 . _ - @ and begins with a letter or digit")]
pub struct NotALogin;

impl Login {
    /// Parses `text`.
    pub fn parse(text: &str) -> Result<Self, NotALogin> {
        let fits = (3..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-@".contains(&byte)
            });
        if fits { Ok(Self(text.to_owned())) } else { Err(NotALogin) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Login {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// How a person's next phone may be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// By an activation code alone: they never had a phone, or somebody helped them to recover.
    First,
    /// They had one: a phone that is still bound agrees, or somebody else helps to recover.
    Another,
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Whose they are.
    pub company: CompanyId,
    /// For programs and for logging in.
    pub login: Login,
    /// As phones and lists show it.
    pub name: Name,
    /// What they may do.
    pub role: Role,
    /// Whether they take part: an inactive person's phones, codes and operations are dead.
    pub active: bool,
    /// How their next phone may be bound.
    pub binding: Binding,
    /// The operation about their phones (another phone, a recovery) that waits for an approval.
    pub pending: Option<OperationId>,
    /// Since when.
    pub created: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_99_a_login_has_one_spelling_and_a_small_alphabet() {
        assert!(Login::parse("laura.valencia").is_ok());
        for other in [
            "",
            "ab",
            "Laura",
            "lauraá",
            ".laura",
            "laura valencia",
            "laura\u{200b}",
            &"x".repeat(65),
        ] {
            assert_eq!(Login::parse(other), Err(NotALogin), "{other:?}");
        }
    }
}
