//! An authority and a certificate for this machine, for the demonstration and for tests. The
//! authority's key is forgotten at once: nothing else is ever signed with it.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use semilla_core::time::Timestamp;

use super::DevError;
use super::demo::private_file;
use crate::listener::tls::Files;

/// What was made.
pub struct Made {
    /// The authority, for whoever is to believe it.
    pub authority: PathBuf,
    /// The same as text.
    pub authority_pem: String,
    /// What the server needs.
    pub files: Files,
}

/// Makes both in `folder`, from the year of `now` on, for `names`: host names and addresses.
pub fn make(folder: &Path, names: &[&str], now: Timestamp) -> Result<Made, DevError> {
    let broken = |error: rcgen::Error| DevError::Broken(error.to_string());
    let year: i32 = now.to_string()[..4].parse().unwrap_or(2026);
    let lasting = |mut parameters: CertificateParams, name: &str| {
        parameters.not_before = date_time_ymd(year, 1, 1);
        parameters.not_after = date_time_ymd(year + 2, 1, 1);
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters
    };
    let mut authority =
        lasting(CertificateParams::new([]).map_err(broken)?, "Semilla: demonstration");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().map_err(broken)?;
    let authority_pem = authority.self_signed(&key).map_err(broken)?.pem();
    let issuer = Issuer::new(authority, key);

    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let common = names.first().cloned().unwrap_or_default();
    let mut server = lasting(CertificateParams::new(names).map_err(broken)?, &common);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().map_err(broken)?;
    let certificate = server.signed_by(&key, &issuer).map_err(broken)?.pem();

    let path = |name: &str| folder.join(name);
    let files = Files { certificate: path("server.pem"), key: path("server.key") };
    // Each whole or not there: a server that runs may look at any moment.
    for (file, text) in [
        (&path("ca.pem"), &authority_pem),
        (&files.certificate, &certificate),
        (&files.key, &key.serialize_pem()),
    ] {
        let unfinished = file.with_extension("unfinished");
        private_file(&unfinished, text)?;
        std::fs::rename(&unfinished, file)?;
    }
    Ok(Made { authority: path("ca.pem"), authority_pem, files })
}
