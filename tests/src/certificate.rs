//! A certificate that signs itself, for this machine and example.com or for another name, made by openssl.

use std::path::PathBuf;

use anyhow::Result;
use real_brokers::{Scratch, openssl};

/// What stands in it. Not that of a CA: clients that trust it take it for the server's own.
const REQUEST: &str = "[req]\ndistinguished_name = dn\nx509_extensions = ext\n[dn]\n[ext]\n\
    basicConstraints = critical, CA:FALSE\nsubjectAltName = ";

/// Whom one is for unless a test says otherwise.
const NAMES: &str = "IP:127.0.0.1, DNS:localhost, DNS:example.com, DNS:*.example.com, DNS:*.ws.example.com";

/// A certificate and its key, in files that go with it.
#[derive(Debug)]
pub struct Certificate {
    directory: Scratch,
}

impl Certificate {
    /// Makes one for this machine and example.com; `name` tells it from others.
    pub async fn make(name: &str) -> Result<Self> {
        Self::signed(name, NAMES, 2).await
    }

    /// Makes one for a host name, good for so many days: with 0 it ends as it begins.
    pub async fn of(host: &str, days: u32) -> Result<Self> {
        Self::signed(host, &format!("DNS:{host}"), days).await
    }

    async fn signed(name: &str, names: &str, days: u32) -> Result<Self> {
        let certificate = Self { directory: Scratch::new("certificate")? };
        std::fs::write(certificate.directory.path().join("request"), format!("{REQUEST}{names}\n"))?;
        let subject = format!("/CN={name}");
        let ask =
            ["req", "-new", "-config", "request", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let directory = certificate.directory.path();
        openssl(directory, &[&ask[..], &["-subj", &subject, "-keyout", "key.pem", "-out", "ask.pem"]].concat()).await?;
        let sign =
            ["x509", "-req", "-in", "ask.pem", "-signkey", "key.pem", "-extfile", "request", "-extensions", "ext"];
        let days = days.to_string();
        openssl(directory, &[&sign[..], &["-days", &days, "-out", "certificate.pem"]].concat()).await?;
        Ok(certificate)
    }

    /// The certificate's file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// The key's file.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// A file with both, as HAProxy wants it.
    pub fn both(&self) -> Result<PathBuf> {
        let both = self.directory.path().join("both.pem");
        std::fs::write(&both, [std::fs::read(self.file())?, std::fs::read(self.key())?].concat())?;
        Ok(both)
    }

    /// Puts another certificate into this one's files.
    pub fn become_a(&self, other: &Self) -> Result<()> {
        std::fs::copy(other.file(), self.file())?;
        std::fs::copy(other.key(), self.key())?;
        Ok(())
    }

    /// What makes a node use it.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let text = |path: PathBuf| path.display().to_string();
        [("FANFARE__TLS__CERTIFICATE", text(self.file())), ("FANFARE__TLS__KEY", text(self.key()))]
    }
}
