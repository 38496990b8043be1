//! Why a port did not answer as it should: one more connection, which asks in the other way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Error, RootCertStore, crypto};

use super::words::Refusal;
use crate::broker::LinkError;

/// How long each question may take.
const ASK: Duration = Duration::from_millis(400);

/// Looks at the port once more, and says what is wrong with it, if that shows. Sends no secret.
pub(super) async fn diagnose(socket: SocketAddr, tls: bool) -> Option<LinkError> {
    let said = timeout(ASK, plain(socket)).await.ok().flatten();
    match said {
        Some(_) if tls => Some(LinkError::set_up(
            "this port speaks Redis without TLS: write redis:// in the broker's URL, or the port for TLS",
        )),
        // Whoever has not logged in is asked to: no fault.
        Some(line) => Refusal::of_line(&line).filter(|refusal| !refusal.asks_for_login()).map(LinkError::from),
        None if tls => None,
        None => {
            let speaks = timeout(ASK, speaks_tls(socket)).await.unwrap_or(false);
            let why = "this port speaks TLS: write rediss:// in the broker's URL, or the port without TLS";
            speaks.then(|| LinkError::set_up(why))
        }
    }
}

/// What a Redis without TLS says, be it asked or not.
async fn plain(socket: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(socket).await.ok()?;
    // An error shows in the answer: a server that closes at once may still have said why.
    let _ = stream.write_all(b"PING\r\n").await;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer).await.ok()?;
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    answer.starts_with(['+', '-']).then_some(answer)
}

/// Trusts nobody: a server that shows a certificate speaks TLS, whichever it is.
async fn speaks_tls(socket: SocketAddr) -> bool {
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let Ok(config) = config.with_safe_default_protocol_versions() else { return false };
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let Ok(stream) = TcpStream::connect(socket).await else { return false };
    let connector = TlsConnector::from(Arc::new(config));
    match connector.connect(ServerName::IpAddress(socket.ip().into()), stream).await {
        Ok(_) => true,
        Err(error) => is_about_certificate(&error),
    }
}

/// Whether a TLS handshake failed over who the server is, which shows that it speaks TLS.
pub(super) fn is_about_certificate(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(error, Some(Error::InvalidCertificate(_) | Error::AlertReceived(_) | Error::NoCertificatesPresented))
}
