//! `fanfare webhook-test`: shows a signed request, checks one, or sends one to the backend.
//!
//! Never prints: [`program`](crate::program) does.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::{fmt::Write as _, io};

use anyhow::{Context, bail, ensure};
use broker_adapters::{read_file, wall_clock};
use bytes::Bytes;
use clap::Args;

use crate::auth::generate::random;
use crate::config::{Config, WebhookSecret};
use crate::webhooks::{Endpoint, ID, SIGNATURE, TIMESTAMP, headers, verify};

/// The largest request that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Options {
    /// Send the request to webhooks.endpoint, and say how it was answered.
    #[arg(long, conflicts_with = "verify")]
    send: bool,
    /// Check a request: a file with its headers, an empty line and its body, or - for stdin.
    #[arg(long, value_name = "FILE")]
    verify: Option<String>,
    /// Secret to use instead of webhooks.secrets; twice for two.
    #[arg(long, value_name = "WHSEC", conflicts_with = "send")]
    secret: Vec<WebhookSecret>,
    /// Configuration file (TOML); variables FANFARE__SECTION__KEY override it.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// Shows, checks or sends a request. Returns what to print.
pub(super) async fn run(options: &Options, config: &Config) -> anyhow::Result<String> {
    let given = !options.secret.is_empty();
    let secrets = if given { &options.secret } else { &config.webhooks.secrets };
    ensure!(
        !secrets.is_empty(),
        "`webhooks.secrets` is empty: `fanfare genkey webhook` makes one; or give one with --secret"
    );
    let now = wall_clock();
    if let Some(source) = &options.verify {
        return checked(secrets, &read(source, io::stdin())?, now / 1000);
    }
    let id = format!("test-{:016x}", u64::from_be_bytes(random()?));
    let body = format!(r#"{{"events":[{{"id":"{id}-0","type":"test","channel":"test","time":{now}}}]}}"#);
    let mut text = shown(secrets, &id, &body, now / 1000);
    if options.send {
        let endpoint =
            Endpoint::new(&config.webhooks)?.context("`webhooks.endpoint` is empty: where should it be sent?")?;
        let sent = endpoint.send(&id, Bytes::from(body), now / 1000).await;
        sent.with_context(|| format!("{text}\n\nis not accepted by `webhooks.endpoint`"))?;
        text.push_str("\n\nAccepted.");
    }
    Ok(text)
}

/// A request as text: its headers, an empty line, its body.
fn shown(secrets: &[WebhookSecret], id: &str, body: &str, now: u64) -> String {
    let mut text = "content-type: application/json\n".to_owned();
    for (name, value) in &headers(secrets, id, body.as_bytes(), now) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    text + "\n" + body
}

fn read(source: &str, stdin: impl io::Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    match source {
        "-" => drop(stdin.take(LARGEST).read_to_end(&mut bytes).context("cannot read the request from stdin")?),
        file => bytes = read_file(Path::new(file)).with_context(|| format!("cannot read the request from {file}"))?,
    }
    String::from_utf8(bytes).context("the request is not a text in UTF-8")
}

/// Checks a request. An end of line after the body, which editors and shells add, does not count.
fn checked(secrets: &[WebhookSecret], request: &str, now: u64) -> anyhow::Result<String> {
    let blank = ["\r\n\r\n", "\n\n"].into_iter().filter_map(|blank| request.split_once(blank));
    let (head, body) =
        blank.min_by_key(|(head, _)| head.len()).context("there is no empty line between the headers and the body")?;
    let header = |wanted: &str| {
        let mut pairs = head.lines().filter_map(|line| line.split_once(':'));
        let found = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim());
        found.with_context(|| format!("there is no header `{wanted}`"))
    };
    let headers = (header(ID)?, header(TIMESTAMP)?, header(SIGNATURE)?);
    let ended = body.strip_suffix('\n').map_or(body, |body| body.strip_suffix('\r').unwrap_or(body));
    if verify(secrets, headers, ended.as_bytes(), now).is_err()
        && let Err(error) = verify(secrets, headers, body.as_bytes(), now)
    {
        bail!("not genuine: {error}");
    }
    Ok("genuine: signed with this secret, less than 5 minutes ago".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> WebhookSecret {
        text.parse().expect("a secret")
    }

    #[test]
    fn what_is_shown_is_genuine_and_nothing_else_is() {
        let secrets = [secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
        let text = shown(&secrets, "test-1", r#"{"events":[]}"#, 1_000);
        let check = |text: &str, now| checked(&secrets, text, now).map_err(|error| error.to_string());
        for genuine in
            [text.clone(), format!("{text}\n"), text.replace('\n', "\r\n"), text.replace("webhook-id", "Webhook-Id")]
        {
            assert!(check(&genuine, 1_010).is_ok(), "{genuine}");
        }
        for (text, words) in [
            (text.replace("events", "event"), "no signature fits"),
            (text.replace("test-1", "test-2"), "no signature fits"),
            (text.replace("webhook-id", "id"), "no header `webhook-id`"),
            (text.replace("\n\n", "\n"), "no empty line"),
        ] {
            assert!(check(&text, 1_010).expect_err("changed").contains(words), "{text}");
        }
        assert!(check(&text, 2_000).expect_err("old").contains("1000 s away"));
    }
}
