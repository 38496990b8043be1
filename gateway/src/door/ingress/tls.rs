//! TLS 1.2 and 1.3 on the node's own listener, with a certificate that can be replaced while the node runs.
//!
//! Owns the certificate for new handshakes. An invalid file never replaces a valid certificate. Open connections keep their
//! session keys.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use broker_adapters::read_file;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::pem;
use crate::config;

/// Why a certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of the files cannot be used.
    #[error("`tls.{key}` = {file:?}: {why}")]
    File {
        /// The key in the section `tls` that names the file.
        key: &'static str,
        /// The file's name.
        file: String,
        /// What is wrong with the file.
        why: String,
    },
    /// Both files are valid, but the key does not match the certificate, or its kind is not supported.
    #[error("`tls.certificate` = {certificate:?} with `tls.key` = {key:?}: {why}")]
    Pair {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// What is wrong with the pair.
        why: rustls::Error,
    },
}

/// The listener's side of TLS.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Current>,
    files: config::Tls,
}

/// The certificate for new handshakes.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// Reads the files; `None` if none are named.
    pub(crate) fn load(files: &config::Tls) -> Result<Option<Self>, TlsError> {
        if files.certificate.is_empty() {
            return Ok(None);
        }
        let provider = Arc::new(ring::default_provider());
        let certificate = Arc::new(Current(RwLock::new(Arc::new(certified(files, &provider)?))));
        let pair = |why| TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), why };
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
        let mut config = config.map_err(pair)?.with_no_client_auth().with_cert_resolver(Arc::clone(&certificate) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Clients that reconnect resume their session without a full handshake. Tickets need no storage in the node.
        config.ticketer = ring::Ticketer::new().map_err(pair)?;
        config.send_tls13_tickets = 1;
        Ok(Some(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate, files: files.clone() }))
    }

    /// Reads the files again, for new handshakes. If they are invalid, the current certificate stays.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let fresh = certified(&self.files, self.acceptor.config().crypto_provider())?;
        *self.certificate.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(())
    }

    /// Does the handshake as the server.
    pub(super) async fn accept(&self, tcp: TcpStream, within: Duration) -> io::Result<TlsStream<TcpStream>> {
        timeout(within, self.acceptor.accept(tcp)).await?
    }
}

fn certified(files: &config::Tls, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let wrong = |key, file: &str, why| TlsError::File { key, file: file.to_owned(), why };
    let chain = read_file(Path::new(&files.certificate)).map_err(|error| error.to_string());
    let chain = chain.and_then(|content| pem::certificates(&content));
    let chain = chain.map_err(|why| wrong("certificate", &files.certificate, why))?;
    let key = read_file(Path::new(&files.key)).map_err(|error| error.to_string());
    let key = key.and_then(|content| pem::private_key(&content));
    let key = key.map_err(|why| wrong("key", &files.key, why))?;
    let pair = |why| TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), why };
    CertifiedKey::from_der(chain, key, provider).map_err(pair)
}
