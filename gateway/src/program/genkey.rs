//! `genkey`: makes a key for tokens, for the HTTP API or for webhooks, with the lines for the configuration.
//!
//! Never prints and never exits: [`program`](crate::program) does. Never overwrites a file.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::auth::generate::{self, Kind};
use crate::config::{KeyHash, WebhookSecret};

/// The flags of `genkey`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Options {
    /// What to make: a secret that your backend and the nodes share (hs256), or a key pair, whose private key only your backend
    /// has (es256, eddsa); or a key for the HTTP API (api), or a secret that signs webhooks (webhook).
    #[arg(value_enum, default_value = "hs256")]
    kind: Wanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wanted {
    Hs256,
    Es256,
    Eddsa,
    Api,
    Webhook,
}

/// Makes the key, and returns the lines to paste into a configuration. A key pair is written to two files in the current
/// directory.
///
/// # Errors
/// Fails if the files cannot be written, or if they exist.
pub fn make(options: &Options) -> anyhow::Result<String> {
    let kid = generate::kid()?;
    let kind = match options.kind {
        Wanted::Hs256 => {
            let secret = generate::secret()?;
            return Ok(format!(
                "# Signs and checks tokens. Who has the secret can make tokens for every user: keep it like a password.\n\
                 [[auth.keys]]\nkid = \"{kid}\"\nsecret = \"{secret}\""
            ));
        }
        Wanted::Api => {
            let secret = generate::secret()?;
            let hash = KeyHash::of(secret.as_bytes());
            return Ok(format!(
                "# For your backend, as a header of its requests: keep it like a password. It is not shown again.\n\
                 #   Authorization: Bearer {kid}.{secret}\n\
                 [[api.keys]]\nid = \"{kid}\"\nhash = \"{hash}\"\ncan = [\"publish\", \"read\"]\nchannels = [\"*\"]"
            ));
        }
        Wanted::Webhook => {
            let secret = WebhookSecret::text(&generate::random::<32>()?);
            return Ok(format!(
                "# Signs webhooks. Who has the secret can make events that your backend believes: keep it like a password.\n\
                 [webhooks]\nsecrets = [\"{secret}\"]"
            ));
        }
        Wanted::Es256 => Kind::Es256,
        Wanted::Eddsa => Kind::EdDsa,
    };
    let pair = generate::pair(kind)?;
    let (private, public) = (format!("fanfare-{kid}.private.pem"), format!("fanfare-{kid}.public.pem"));
    write(&private, &pair.private, 0o600)?;
    write(&public, &pair.public, 0o644)?;
    Ok(format!(
        "# Checks tokens. {private} signs them: only your backend needs it, and the nodes do not.\n\
         [[auth.keys]]\nkid = \"{kid}\"\nfile = \"{public}\""
    ))
}

fn write(file: &str, content: &str, mode: u32) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    opened.and_then(|mut opened| opened.write_all(content.as_bytes())).with_context(|| format!("cannot write {file}"))
}
