//! Tokens for tests, made by `fanfare token` with a secret of this test.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use real_brokers::Scratch;

use crate::program::binary;

/// The secret of all issuers. A test looks for it in what programs print.
pub const SECRET: &str = "canary-secret-0123456789-0123456789";

/// The variable that lets in every client of a node that other machines can reach.
pub const OPEN: (&str, &str) = ("FANFARE__AUTH__ANONYMOUS", "on");

/// An issuer of tokens, and the configuration of nodes that accept them.
#[derive(Debug)]
pub struct Issuer {
    folder: Scratch,
}

impl Issuer {
    /// An issuer with [`SECRET`].
    pub fn new() -> Result<Self> {
        let folder = Scratch::new("tokens")?;
        fs::write(folder.path().join("secret"), SECRET)?;
        Ok(Self { folder })
    }

    /// The variable that gives a node the secret, and its value.
    #[must_use]
    pub fn keys() -> (&'static str, String) {
        ("FANFARE__AUTH__KEYS", format!("[{{ secret = \"{SECRET}\" }}]"))
    }

    /// A token for a user, with more flags of `fanfare token`.
    pub fn token(&self, user: &str, flags: &[&str]) -> Result<String> {
        let secret = self.folder.path().join("secret");
        let mut command = Command::new(binary("fanfare")?);
        command.args(["token", "--user", user, "--secret-file"]).arg(secret).args(flags);
        let output = command.output().context("cannot run fanfare token")?;
        ensure!(output.status.success(), "no token: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}
