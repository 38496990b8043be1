//! Finds out why a port did not answer as expected: one more connection, with TLS where the first had none, or without.

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

/// Connects to the port once more and says what is wrong, if that can be seen. Sends no secret.
pub(super) async fn diagnose(socket: SocketAddr, tls: bool) -> Option<LinkError> {
    let said = timeout(ASK, plain(socket)).await.ok().flatten();
    match said {
        Some(_) if tls => Some(LinkError::set_up(
            "this port speaks Redis without TLS: write redis:// in the broker's URL, or the port for TLS",
        )),
        // A server asks each new connection to log in: no fault.
        Some(line) => Refusal::of_line(&line).filter(|refusal| !refusal.asks_for_login()).map(LinkError::from),
        None if tls => None,
        None => {
            let speaks = timeout(ASK, speaks_tls(socket)).await.unwrap_or(false);
            let why = "this port speaks TLS: write rediss:// in the broker's URL, or the port without TLS";
            speaks.then(|| LinkError::set_up(why))
        }
    }
}

/// What a Redis without TLS says, whether as an answer or before it closes.
async fn plain(socket: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(socket).await.ok()?;
    // An error shows in the answer: a server that closes at once may still have said why.
    let _ = stream.write_all(b"PING\r\n").await;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer).await.ok()?;
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    answer.starts_with(['+', '-']).then_some(answer)
}

/// Trusts no CA: any certificate shows that the server speaks TLS.
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

/// Whether a TLS handshake failed because of a certificate, which shows that the server speaks TLS.
pub(super) fn is_about_certificate(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(error, Some(Error::InvalidCertificate(_) | Error::AlertReceived(_) | Error::NoCertificatesPresented))
}
