//! TLS to a broker, for the adapters that make their own sockets: one set of CAs, read once for all connections.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::connect::ConnectError;
use crate::file::read_file;

/// How to make a connection private.
pub(crate) struct Tls {
    pub(crate) connector: TlsConnector,
    /// The name that the certificate must hold.
    pub(crate) name: ServerName<'static>,
}

impl Tls {
    /// Trusts the CAs of a file in PEM, or the system's where none is named.
    pub(crate) fn new(host: &str, ca: Option<&Path>) -> Result<Self, ConnectError> {
        let wrong = |why: String| ConnectError::Url(why);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| wrong(format!("`{host}` cannot be the name in a certificate")))?;
        let mut roots = RootCertStore::empty();
        let from = match ca {
            Some(file) => {
                let unreadable =
                    |error: &dyn Display| wrong(format!("the CA file {} cannot be used: {error}", file.display()));
                let content = read_file(file).map_err(|error| unreadable(&error))?;
                for certificate in CertificateDer::pem_slice_iter(&content) {
                    let added = roots.add(certificate.map_err(|error| unreadable(&error))?);
                    added.map_err(|error| wrong(format!("the CA file {}: {error}", file.display())))?;
                }
                file.display().to_string()
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                "this system (is `ca-certificates` installed?); or name a file with `?ca=FILE`".to_owned()
            }
        };
        if roots.is_empty() {
            return Err(wrong(format!("no CA certificates in {from}")));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}
