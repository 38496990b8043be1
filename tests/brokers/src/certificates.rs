//! A CA, a certificate of it for 127.0.0.1, and a CA that no client should trust: made once, for all brokers.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::process::Process;
use crate::scratch::Scratch;

/// The files; `server.both.pem` is key and certificate in one.
const FILES: [&str; 5] = ["ca.pem", "other-ca.pem", "server.pem", "server.key", "server.both.pem"];
const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// Puts them into a broker's directory.
pub(crate) async fn put(process: &Process) -> Result<()> {
    static MADE: OnceCell<Vec<Vec<u8>>> = OnceCell::const_new();
    for (name, content) in FILES.iter().zip(MADE.get_or_try_init(make).await?) {
        std::fs::write(process.file(name), content)?;
    }
    Ok(())
}

async fn make() -> Result<Vec<Vec<u8>>> {
    let scratch = Scratch::new("certificates")?;
    let directory = scratch.path();
    for name in ["ca", "other-ca"] {
        let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
        let words = ["req", "-x509", "-days", "2", "-subj", &subject, "-keyout", &key, "-out", &certificate];
        openssl(directory, &[&words[..], &KEY].concat()).await?;
    }
    let request = ["req", "-subj", "/CN=broker", "-keyout", "server.key", "-out", "server.csr"];
    openssl(directory, &[&request[..], &KEY].concat()).await?;
    std::fs::write(directory.join("server.ext"), "subjectAltName=IP:127.0.0.1")?;
    let sign = ["x509", "-req", "-days", "2", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key"];
    let out = ["-CAcreateserial", "-extfile", "server.ext", "-out", "server.pem"];
    openssl(directory, &[&sign[..], &out].concat()).await?;
    let read = |name: &str| std::fs::read(directory.join(name));
    std::fs::write(directory.join("server.both.pem"), [read("server.key")?, read("server.pem")?].concat())?;
    FILES.iter().map(|name| Ok(read(name)?)).collect()
}

/// Runs openssl in a directory; its words are shown when it fails.
pub async fn openssl(directory: &Path, words: &[&str]) -> Result<()> {
    let run = Command::new("openssl").current_dir(directory).args(words).stdin(Stdio::null()).output().await;
    let output = run.context("openssl cannot be run: apt-get install openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
