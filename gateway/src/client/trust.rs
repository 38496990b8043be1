//! The probe's TLS: rustls with the system's CAs, and explanations of what is wrong with a certificate.
//!
//! It keeps each certificate, also a refused one, so that the report can describe it. With `--insecure` a bad certificate
//! is reported and accepted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::certificate::{self, Certificate};
use super::trouble::{Good, Trouble, tame};

/// A certificate with fewer days left should have been renewed. Automatic renewal usually starts 30 days before the end.
const SOON: i64 = 15;

/// Adds TLS to a connection.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    seen: Arc<Mutex<Seen>>,
}

/// The certificate of the last connection.
#[derive(Debug, Default)]
struct Seen {
    certificate: Option<Certificate>,
    problem: Option<Error>,
}

impl Tls {
    pub(crate) fn new(name: &str, insecure: bool) -> Result<Self, Trouble> {
        let server = ServerName::try_from(name.to_owned()).map_err(|_| {
            Trouble::new(format!("{name} is not a valid name for TLS"), "A certificate cannot contain it.", "--host.")
        })?;
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().ok();
        if verifier.is_none() && !insecure {
            return Err(Trouble::new(
                "this machine has no CA certificates",
                "No server's certificate can be checked here.",
                "the package ca-certificates; SSL_CERT_FILE; or --insecure.",
            ));
        }
        let seen = Arc::default();
        let recorder = Recorder { verifier, insecure, provider: Arc::clone(&provider), seen: Arc::clone(&seen) };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Trouble::new(error.to_string(), "TLS cannot be set up.", "a bug in this program."))?;
        let mut config = config.dangerous().with_custom_certificate_verifier(Arc::new(recorder)).with_no_client_auth();
        // A WebSocket handshake is HTTP/1.1: offer only that, so that the balancer does not choose HTTP/2.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name: server, seen })
    }

    pub(crate) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Trouble> {
        self.connector.connect(self.name.clone(), stream).await.map_err(|error| {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                Some(error) => refused(error, &self.name.to_str(), seen.certificate.as_ref()),
                None => Trouble::new(
                    format!("the connection ended during the TLS handshake: {error}"),
                    "The listener does not speak TLS, or it expects a PROXY header before it.",
                    "ws:// instead of wss://; `accept-proxy` on the listener.",
                ),
            }
        })
    }

    /// Describes the session: version, cipher and certificate.
    pub(crate) fn agreed(&self, stream: &TlsStream<TcpStream>) -> Good {
        let session = stream.get_ref().1;
        let version =
            session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS").replace('_', ".");
        let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("?");
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let days = |certificate: &Certificate| certificate.last_day - today();
        let mut what = format!("{version}, {cipher}");
        if let Some(certificate) = &seen.certificate {
            let days = days(certificate);
            what += &format!("; {} until {} ({days} days", names(certificate), certificate.until);
            what += if (0..SOON).contains(&days) { ": renew it)" } else { ")" };
        }
        if let Some(problem) = &seen.problem {
            what +=
                &format!("; NOT TRUSTED: {}", refused(problem, &self.name.to_str(), seen.certificate.as_ref()).what);
        }
        let certificate = seen.certificate.as_ref();
        let facts = json!({
            "version": version, "cipher": cipher, "trusted": seen.problem.is_none(),
            "names": certificate.map(|one| &one.names), "until": certificate.map(|one| &one.until),
            "days_left": certificate.map(days),
        });
        Good::new(what, facts)
    }
}

fn today() -> i64 {
    const DAY: u64 = 24 * 3600;
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| (time.as_secs() / DAY).cast_signed())
}

fn names(certificate: &Certificate) -> String {
    let mut names: Vec<_> = certificate.names.iter().take(4).map(String::as_str).collect();
    if names.is_empty() {
        names.push("no name");
    }
    if certificate.names.len() > 4 {
        names.push("…");
    }
    tame(&names.join(", "))
}

fn refused(error: &Error, name: &str, certificate: Option<&Certificate>) -> Trouble {
    let until = || certificate.map_or(String::new(), |one| format!(" on {}", one.until));
    let (what, means, look) = match error {
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => (
            format!("the certificate is for {}, not for {name}", certificate.map_or("other names".to_owned(), names)),
            "Browsers refuse it: the certificate does not contain the name in the URL.",
            "the URL's host; --host NAME; which certificate the balancer chooses (`crt` of the bind line, SNI).",
        ),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => (
            format!("the certificate expired{}", until()),
            "Browsers refuse it.",
            "its renewal; whether the balancer was reloaded after it; this machine's clock.",
        ),
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => (
            "the certificate is not valid yet".to_owned(),
            "Browsers refuse it.",
            "the clocks of this machine and the CA.",
        ),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => (
            "the certificate is not signed by a known CA".to_owned(),
            "It is self-signed, comes from a private CA, or the server does not send the intermediate certificates.",
            "the chain in the balancer's file (certificate, then intermediates); the CA in this machine's store or \
             SSL_CERT_FILE; --insecure to go on.",
        ),
        Error::InvalidCertificate(CertificateError::BadSignature) => (
            "this machine has a CA with the issuer's name, but that CA did not sign the certificate".to_owned(),
            "The CA was created again with a new key, or another CA has the same name.",
            "the CA in this machine's store or SSL_CERT_FILE; the chain in the balancer's file; --insecure to go on.",
        ),
        Error::InvalidCertificate(CertificateError::Other(why)) if format!("{why:?}").contains("CaUsedAsEndEntity") => {
            (
                "the certificate is a CA's, used as a server's".to_owned(),
                "Browsers refuse it. `openssl req -x509` makes such certificates.",
                "a certificate with CA:FALSE (-addext basicConstraints=critical,CA:FALSE); --insecure to go on.",
            )
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => (
            "the server refuses HTTP/1.1 (ALPN)".to_owned(),
            "This listener speaks HTTP/2 only. A WebSocket handshake is HTTP/1.1.",
            "`alpn h2,http/1.1` on HAProxy's bind line.",
        ),
        Error::AlertReceived(AlertDescription::ProtocolVersion) => (
            "no common version of TLS".to_owned(),
            "The server supports neither TLS 1.2 nor TLS 1.3.",
            "`ssl-min-ver`, `ssl-max-ver`.",
        ),
        Error::AlertReceived(AlertDescription::HandshakeFailure) => (
            "no common cipher".to_owned(),
            "The server accepts no modern cipher, or asks for a client's certificate.",
            "`ciphers`, `ciphersuites` and `verify` on the bind line.",
        ),
        Error::AlertReceived(AlertDescription::UnrecognisedName) => (
            format!("the server does not know {name}"),
            "It has no certificate with this name.",
            "the URL's host; --host; `strict-sni` on the bind line.",
        ),
        Error::InvalidMessage(_) => (
            "the answer is not TLS".to_owned(),
            "This port speaks something else, most likely plain HTTP.",
            "ws:// instead of wss://; `ssl` on the bind line.",
        ),
        other => (other.to_string(), "The TLS handshake failed.", "the balancer's log at this moment."),
    };
    Trouble::new(what, means, look)
}

/// Lets rustls verify a certificate and records the certificate and the result. With `--insecure` it accepts all.
#[derive(Debug)]
struct Recorder {
    verifier: Option<Arc<WebPkiServerVerifier>>,
    insecure: bool,
    provider: Arc<CryptoProvider>,
    seen: Arc<Mutex<Seen>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = match &self.verifier {
            Some(verifier) => verifier.verify_server_cert(certificate, chain, name, ocsp, now),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Seen { certificate: certificate::read(certificate), problem: verdict.as_ref().err().cloned() };
        if self.insecure { Ok(ServerCertVerified::assertion()) } else { verdict }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
