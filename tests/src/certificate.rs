//! A certificate for this machine and for example.com that signs itself, made by openssl.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use real_brokers::Scratch;
use tokio::process::Command;

/// What stands in it. Not that of a CA: clients that trust it take it for the server's own.
const REQUEST: &str = "[req]\ndistinguished_name = dn\nx509_extensions = ext\n[dn]\n[ext]\n\
    basicConstraints = critical, CA:FALSE\nsubjectAltName = IP:127.0.0.1, DNS:localhost, DNS:example.com, \
    DNS:*.example.com, DNS:*.ws.example.com\n";

/// A certificate and its key, in files that go with it.
#[derive(Debug)]
pub struct Certificate {
    directory: Scratch,
}

impl Certificate {
    /// Makes one; `name` tells it from others.
    pub async fn make(name: &str) -> Result<Self> {
        let certificate = Self { directory: Scratch::new("certificate")? };
        std::fs::write(certificate.directory.path().join("request"), REQUEST)?;
        let mut openssl = Command::new("openssl");
        openssl.current_dir(certificate.directory.path()).stdin(Stdio::null());
        openssl.args(["req", "-x509", "-config", "request", "-days", "2", "-nodes", "-newkey", "ec"]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", "key.pem", "-out", "certificate.pem"]);
        let made = openssl.args(["-subj", &format!("/CN={name}")]).output().await.context("openssl cannot be run")?;
        ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
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
