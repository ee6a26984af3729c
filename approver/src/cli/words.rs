//! Which language people are spoken to in: Spanish, or English by `--lang en` or by the
//! environment. It is found before the arguments are parsed, since help is written in it too.

use std::sync::OnceLock;

use semilla_core::language::{Label, Language};

/// The language of this run.
pub(crate) fn language() -> Language {
    static LANGUAGE: OnceLock<Language> = OnceLock::new();
    *LANGUAGE.get_or_init(|| {
        let variables = ["LC_ALL", "LC_MESSAGES", "LANG"].map(|name| std::env::var(name).ok());
        chosen(std::env::args().skip(1), variables)
    })
}

/// A text of the help, in the language of this run.
pub(crate) fn say(spanish: &'static str, english: &'static str) -> &'static str {
    Label(spanish, english).text(language())
}

/// `--lang` decides; else the first variable that is set (POSIX, "Environment Variables", 8.2).
fn chosen(arguments: impl Iterator<Item = String>, variables: [Option<String>; 3]) -> Language {
    let mut wanted = None;
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--lang" {
            wanted = arguments.peek().cloned();
        } else if let Some(value) = argument.strip_prefix("--lang=") {
            wanted = Some(value.to_owned());
        }
    }
    let set = variables.into_iter().flatten().find(|value| !value.is_empty());
    let name = wanted.or(set).unwrap_or_default();
    if name.starts_with("en") { Language::English } else { Language::Spanish }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spanish_comes_first_and_english_on_demand() {
        let pick = |arguments: &str, variables: [&str; 3]| {
            let variables =
                variables.map(|value| Some(value.to_owned()).filter(|value| !value.is_empty()));
            chosen(arguments.split(' ').map(str::to_owned), variables)
        };
        assert_eq!(pick("code", ["", "", ""]), Language::Spanish);
        assert_eq!(pick("code", ["", "", "C.UTF-8"]), Language::Spanish);
        assert_eq!(pick("code", ["", "", "en_US.UTF-8"]), Language::English);
        assert_eq!(pick("code", ["es_PE.UTF-8", "", "en_US.UTF-8"]), Language::Spanish);
        assert_eq!(pick("code --lang en", ["es_PE.UTF-8", "", ""]), Language::English);
        assert_eq!(pick("--lang=es code", ["en_US", "", ""]), Language::Spanish);
    }
}
