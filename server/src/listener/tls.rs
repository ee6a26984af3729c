//! TLS for the listener: 1.2 and 1.3 by `rustls` on `ring`, nothing older, HTTP/1.1 only
//! (security 36, 102). The certificate is read again whenever its files change, so that a renewed
//! one is served without a restart; what does not read leaves the one before in its place.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use semilla_core::time::Timestamp;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use super::certificate;

/// From the connection to the end of the handshake (security 100).
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// The largest file that is read: a chain of certificates has a few thousand bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file holds something else.
    #[error("{} {what}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
}

/// The two files, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What tells that a file was replaced or written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp([i64; 5]);

impl Stamp {
    /// That of a file as it is now; none where there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        // Inodes and lengths are compared, not counted with: a wrapped one differs as well.
        let (inode, length) = (file.ino() as i64, file.len() as i64);
        Some(Self([inode, length, file.mtime(), file.mtime_nsec(), file.ctime_nsec()]))
    }
}

impl Files {
    fn stamp(&self) -> [Option<Stamp>; 2] {
        [&self.certificate, &self.key].map(|path| Stamp::of(path))
    }

    /// Reads both and checks that they belong together.
    fn read(&self) -> Result<Current, TlsError> {
        let unusable = |path: &Path, what: &str| TlsError::Unusable {
            path: path.to_owned(),
            what: what.to_owned(),
        };
        let text = read(&self.certificate)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|_| unusable(&self.certificate, "is not PEM"))?;
        let Some(first) = chain.first() else {
            return Err(unusable(&self.certificate, "holds no certificate"));
        };
        let expires = certificate::expires(first)
            .ok_or_else(|| unusable(&self.certificate, "begins with no certificate of X.509"))?;
        let mode = fs::metadata(&self.key)
            .map_err(|error| TlsError::File { path: self.key.clone(), error })?
            .permissions()
            .mode();
        if mode & 0o007 != 0 {
            return Err(unusable(&self.key, "may be used by everybody: chmod 640 it, or 600"));
        }
        let text = read(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|_| unusable(&self.key, "holds no private key in PEM"))?;
        let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| {
            unusable(&self.key, &format!("is not the key of that certificate: {error}"))
        })?;
        Ok(Current { key: Arc::new(key), expires })
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|error| TlsError::File { path: path.to_owned(), error })?;
    Ok(bytes)
}

/// What is served now.
#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    expires: Timestamp,
}

/// What every handshake asks.
#[derive(Debug)]
struct Served(RwLock<Current>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

/// TLS with a certificate that may change.
pub struct Tls {
    files: Files,
    served: Arc<Served>,
    acceptor: TlsAcceptor,
    /// The files as they were last looked at.
    seen: Mutex<[Option<Stamp>; 2]>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Where they do not read, do not belong together, or everybody can read the key.
    pub fn open(files: Files) -> Result<Self, TlsError> {
        let seen = files.stamp();
        let served = Arc::new(Served(RwLock::new(files.read()?)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has suites for the default versions")
            .with_no_client_auth()
            .with_cert_resolver(served.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            files,
            served,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            seen: Mutex::new(seen),
        })
    }

    /// When the certificate that is served ends.
    pub fn expires(&self) -> Timestamp {
        self.served.0.read().unwrap_or_else(PoisonError::into_inner).expires
    }

    /// Reads the files again where they changed, or in any case where that was asked for
    /// (`always`), and says in the log what came of it. New handshakes get the new certificate.
    pub fn reload(&self, always: bool) {
        // Before the files are read: what changes meanwhile is read next time.
        let now = self.files.stamp();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now && !always {
                return;
            }
            *seen = now;
        }
        match self.files.read() {
            Ok(current) => {
                tracing::info!(expires = %current.expires, "the certificate was read again");
                *self.served.0.write().unwrap_or_else(PoisonError::into_inner) = current;
            }
            // One of the two files may be there before the other.
            Err(error) => {
                tracing::warn!(%error, "the certificate was not taken: the one before is served");
            }
        }
    }

    /// Does the server's part of a handshake, within its time.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        match tokio::time::timeout(HANDSHAKE_TIME, self.acceptor.accept(stream)).await {
            Ok(accepted) => accepted,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
