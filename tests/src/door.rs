//! A way into a balancer: where it is, what the client calls it, and whether TLS is spoken there.
//!
//! Trusts nothing but the certificate that it was given.

use std::fmt::{self, Debug};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::PATIENCE;
use crate::certificate::Certificate;
use crate::http::{self, Answer};
use crate::wire::KEY;

/// What a connection is made of, with TLS or without.
pub trait Line: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Line for T {}

/// A way in.
#[derive(Clone)]
pub struct Door {
    address: SocketAddr,
    host: String,
    source: Option<IpAddr>,
    /// The bytes that are sent first.
    preamble: String,
    tls: Option<TlsConnector>,
}

impl Door {
    /// Over TCP alone.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, host: address.to_string(), source: None, preamble: String::new(), tls: None }
    }

    /// Over TCP alone; `host` is `HOST:PORT`.
    pub(crate) async fn resolved(host: &str) -> Result<Self> {
        let address = tokio::net::lookup_host(host).await?.next().with_context(|| format!("{host} is nowhere"))?;
        Ok(Self { host: host.to_owned(), ..Self::plain(address) })
    }

    /// Over TLS, if this certificate is shown.
    pub fn secure(address: SocketAddr, certificate: &Certificate) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate.file())?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Some(TlsConnector::from(Arc::new(config))), ..Self::plain(address) })
    }

    /// Called by this name, with or without a port.
    #[must_use]
    pub fn called(&self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self.clone() }
    }

    /// From another of this machine's addresses, such as 127.0.0.2.
    pub fn from(&self, source: &str) -> Result<Self> {
        Ok(Self { source: Some(source.parse()?), ..self.clone() })
    }

    /// With words before everything, TLS too: a PROXY header.
    #[must_use]
    pub fn after(&self, preamble: &str) -> Self {
        Self { preamble: preamble.to_owned(), ..self.clone() }
    }

    /// What the client calls it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A new connection.
    pub async fn open(&self) -> Result<Box<dyn Line>> {
        timeout(PATIENCE, self.connected()).await.with_context(|| format!("{self:?} does not open"))?
    }

    async fn connected(&self) -> Result<Box<dyn Line>> {
        let mut stream = match self.source {
            None => TcpStream::connect(self.address).await?,
            Some(source) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::new(source, 0))?;
                socket.connect(self.address).await?
            }
        };
        stream.set_nodelay(true)?;
        stream.write_all(self.preamble.as_bytes()).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = self.host.split(':').next().context("no host")?.to_owned();
        let stream = tls.connect(ServerName::try_from(name)?, stream).await?;
        Ok(Box::new(stream))
    }

    /// A request with these lines besides the first and `Host`.
    pub async fn ask(&self, path: &str, lines: &[&str]) -> Result<Answer> {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{lines}\r\n", self.host);
        http::ask(&mut self.open().await?, &request).await.with_context(|| format!("{self:?}{path}"))
    }

    /// An ordinary page.
    pub async fn page(&self, path: &str) -> Result<Answer> {
        self.ask(path, &["Connection: close"]).await
    }

    /// The answer to a lawful handshake with the key of RFC 6455.
    pub async fn upgrade(&self, path: &str) -> Result<Answer> {
        let key = format!("Sec-WebSocket-Key: {KEY}");
        self.ask(path, &["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", &key]).await
    }
}

impl Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{} at {}", self.host, self.address)
    }
}
