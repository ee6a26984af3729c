//! Where PIN, activation code and number come from: a terminal, a file, or standard input, whose
//! lines are PIN first and code second. Never the arguments or the value of a variable (security
//! 128).

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use semilla_approver::Error;
use semilla_approver::errors::Input;
use semilla_approver::pin::Pin;
use semilla_approver::qr;
use semilla_core::language::{Label, Language};
use zeroize::Zeroizing;

use super::arguments::{Global, Invited};

/// The longest file that is read, in bytes: a picture of a QR code, or a line.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// Asks for what is missing.
pub(crate) struct Ask<'a> {
    global: &'a Global,
    language: Language,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(global: &'a Global, language: Language) -> Self {
        Self { global, language }
    }

    /// The PIN of the store.
    pub(crate) fn pin(&self) -> Result<Pin, Error> {
        match self.pin_without_terminal()? {
            Some(text) => Pin::entered(&text),
            None => Pin::entered(&self.hidden(Label("PIN: ", "PIN: "))?),
        }
    }

    /// The PIN of a new store, asked twice where a person types it.
    pub(crate) fn new_pin(&self) -> Result<Pin, Error> {
        match self.pin_without_terminal()? {
            Some(text) => Pin::chosen(&text),
            None => self.chosen_twice(),
        }
    }

    /// The PIN that takes the place of the present one.
    pub(crate) fn changed_pin(&self, file: Option<&Path>) -> Result<Pin, Error> {
        match file {
            Some(path) => Pin::chosen(&first_line(path)?),
            None if self.global.pin_stdin => Pin::chosen(&line_of_input()?),
            None => self.chosen_twice(),
        }
    }

    fn chosen_twice(&self) -> Result<Pin, Error> {
        let first = self.hidden(Label(
            "Elija un PIN de 6 cifras o más: ",
            "Choose a PIN of 6 digits or more: ",
        ))?;
        let pin = Pin::chosen(&first)?;
        let second = self.hidden(Label("Otra vez: ", "Once more: "))?;
        if *first == *second { Ok(pin) } else { Err(Input::PinRepetition.into()) }
    }

    fn pin_without_terminal(&self) -> Result<Option<Zeroizing<String>>, Error> {
        match &self.global.pin_file {
            Some(path) => first_line(path).map(Some),
            None if self.global.pin_stdin => line_of_input().map(Some),
            None => Ok(None),
        }
    }

    /// The activation code or address: from a picture, a file, or a person.
    pub(crate) fn invitation(&self, from: &Invited) -> Result<Zeroizing<String>, Error> {
        match (&from.qr, &from.code_file) {
            (Some(picture), _) => qr::read_png(&read(picture)?),
            (None, Some(path)) if path.as_os_str() == "-" => line_of_input(),
            (None, Some(path)) => first_line(path),
            (None, None) => self.visible(Label("Código de activación: ", "Activation code: ")),
        }
    }

    /// The six digits on the asker's screen.
    pub(crate) fn number(&self) -> Result<Zeroizing<String>, Error> {
        self.visible(Label(
            "Número en la pantalla de quien pide: ",
            "Number on the asker's screen: ",
        ))
    }

    /// A yes, which has to be typed out.
    pub(crate) fn yes(&self, question: Label) -> Result<bool, Error> {
        let answer = self.visible(question)?;
        Ok(matches!(answer.to_lowercase().as_str(), "si" | "sí" | "yes"))
    }

    fn hidden(&self, prompt: Label) -> Result<Zeroizing<String>, Error> {
        // On the terminal itself, whatever standard input is.
        rpassword::prompt_password(prompt.text(self.language))
            .map(Zeroizing::new)
            .map_err(|_| Input::PinSource.into())
    }

    fn visible(&self, prompt: Label) -> Result<Zeroizing<String>, Error> {
        if !std::io::stdin().is_terminal() {
            return Err(Input::PinSource.into());
        }
        let mut err = anstream::stderr();
        // A prompt that cannot be shown is no reason to give up.
        let _ = write!(err, "{}", prompt.text(self.language)).and_then(|()| err.flush());
        line_of_input()
    }
}

fn first_line(path: &Path) -> Result<Zeroizing<String>, Error> {
    let bytes = read(path)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Input::File)?;
    Ok(Zeroizing::new(line.trim().to_owned()))
}

fn line_of_input() -> Result<Zeroizing<String>, Error> {
    let mut line = Zeroizing::new(String::with_capacity(2048));
    std::io::stdin().lock().read_line(&mut line).map_err(|_| Input::PinSource)?;
    Ok(Zeroizing::new(line.trim().to_owned()))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let length = std::fs::metadata(path).map_err(|_| Input::File)?.len();
    if length > FILE_MAX {
        return Err(Input::File.into());
    }
    std::fs::read(path).map(Zeroizing::new).map_err(|_| Input::File.into())
}
