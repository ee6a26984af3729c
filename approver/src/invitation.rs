//! What a person brings to bind a phone: an activation code, typed, or the address in a QR code,
//! which also says where the server is.

use semilla_core::protocol::activation::{ActivationCode, EnrollUri};

use crate::errors::{Error, Input};

/// A code and the server that gave it. Whoever has it binds a phone: it cannot be printed.
pub struct Invitation {
    /// The server's address, without a slash at its end.
    pub server: String,
    /// The code.
    pub code: ActivationCode,
}

impl Invitation {
    /// Reads `text`: a `semilla://enroll?…` address, or a code for the server `default`.
    pub fn read(text: &str, default: Option<&str>) -> Result<Self, Error> {
        let text = text.trim();
        if text.starts_with("semilla:") {
            let EnrollUri { server, code } =
                EnrollUri::parse(text).map_err(|_| Input::Activation)?;
            return Ok(Self { server: server_address(&server)?, code });
        }
        let code = ActivationCode::parse(text).map_err(|_| Input::Activation)?;
        let server = default.ok_or(Input::ServerMissing)?;
        Ok(Self { server: server_address(server)?, code })
    }
}

/// A server's address as it is stored and compared: scheme, host and perhaps port and path, without
/// a slash at its end, a query or a user.
pub fn server_address(text: &str) -> Result<String, Error> {
    let text = text.trim().trim_end_matches('/');
    let uri: hyper::Uri = text.parse().map_err(|_| Input::ServerAddress)?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = uri.query().is_none() && !text.contains(['#', '|']);
    let host = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if known && plain && host { Ok(text.to_owned()) } else { Err(Input::ServerAddress.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_needs_a_server_and_an_address_brings_its_own() {
        let code = "7k2m 9qrs-tOvw-xyz1";
        let typed = Invitation::read(code, Some("http://127.0.0.1:8080/")).expect("a code");
        assert_eq!(typed.server, "http://127.0.0.1:8080");
        assert_eq!(*typed.code.expose(), "7K2M-9QRS-T0VW-XYZ1");
        let uri = EnrollUri { server: "http://bank.example/semilla".to_owned(), code: typed.code };
        let read = Invitation::read(&uri.expose(), Some("http://other.example")).expect("a URI");
        assert_eq!(read.server, "http://bank.example/semilla");

        let error = |text: &str, server| match Invitation::read(text, server) {
            Err(Error::Input(input)) => input,
            _ => panic!("{text} was read"),
        };
        assert_eq!(error(code, None), Input::ServerMissing);
        assert_eq!(error("7K2M-9QRS-T0VW", Some("http://a")), Input::Activation);
        assert_eq!(error("semilla://enroll?code=7K2M9QRST0VWXYZ1", None), Input::Activation);
        for address in
            ["", "bank", "ftp://bank", "http://", "http://me@bank", "http://a?b", "http://a|b"]
        {
            assert_eq!(error(code, Some(address)), Input::ServerAddress, "{address}");
        }
    }
}
