//! The backend that gets the events: its URL, the secrets, and one signed request.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use super::signature::{ID, SIGNATURE, TIMESTAMP, sign};
use crate::config::{WebhookSecret, WebhookUrl, Webhooks as Settings};
use crate::fetch::{Client, FetchError, NoRoots, Reach};

/// The time that the backend has for an answer.
pub(crate) const TIME: Duration = Duration::from_secs(10);

/// The most requests that one node has under way.
pub(super) const TOGETHER: usize = 16;

/// Why webhooks cannot be delivered with this configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhooksError {
    /// There is no secret.
    #[error(
        "`webhooks.secrets` is empty, so your backend could not know who sends: `fanfare genkey webhook` makes one"
    )]
    NoSecret,
    /// There are more than two.
    #[error("`webhooks.secrets` has {0} secrets: two at most, the old and the new one")]
    ManySecrets(usize),
    /// The host is in a private network.
    #[error("`webhooks.endpoint` leads to a private network: set `webhooks.allow_private` if that is meant")]
    Private,
    /// The host is not on this machine, and others could read on the way.
    #[error(
        "`webhooks.endpoint` has http, and others could read and change the events on the way: use https, which only hosts on this machine \
             do not need"
    )]
    Plain,
    /// There are no CAs to check the backend with.
    #[error("`webhooks`: no CA certificates in this system (is `ca-certificates` installed?); or set SSL_CERT_FILE")]
    NoRoots,
}

/// The backend.
#[derive(Debug)]
pub(crate) struct Endpoint {
    client: Client,
    pub(super) url: WebhookUrl,
    secrets: Vec<WebhookSecret>,
}

impl Endpoint {
    /// `None` without a URL. Uses no network.
    pub(crate) fn new(set: &Settings) -> Result<Option<Self>, WebhooksError> {
        let Some(url) = &set.endpoint else { return Ok(None) };
        match set.secrets.len() {
            0 => return Err(WebhooksError::NoSecret),
            1 | 2 => {}
            many => return Err(WebhooksError::ManySecrets(many)),
        }
        let reach = Reach { private: set.allow_private, public: url.is_private() };
        if let Some(ip) = url.ip().filter(|ip| !reach.allows(*ip)) {
            let private = Reach { private: true, public: false }.allows(ip);
            return Err(if private { WebhooksError::Private } else { WebhooksError::Plain });
        }
        // Where other names lead is known when they are resolved.
        if !url.is_private() && url.ip().is_none() && url.host() != "localhost" && !set.allow_private {
            return Err(WebhooksError::Plain);
        }
        let client = Client::within(reach, url.is_private(), TOGETHER).map_err(|NoRoots| WebhooksError::NoRoots)?;
        Ok(Some(Self { client, url: url.clone(), secrets: set.secrets.clone() }))
    }

    /// Sends a request. `now` is in seconds since 1970.
    pub(crate) async fn send(&self, id: &str, body: Bytes, now: u64) -> Result<(), FetchError> {
        let headers = headers(&self.secrets, id, &body, now);
        self.client.notify(self.url.expose(), &headers, body, TIME).await
    }
}

/// The headers that say what a request is, and that it is genuine.
pub(crate) fn headers(secrets: &[WebhookSecret], id: &str, body: &[u8], now: u64) -> HeaderMap {
    let values = [(ID, id.to_owned()), (TIMESTAMP, now.to_string()), (SIGNATURE, sign(secrets, id, now, body))];
    let valid = |(name, value): (&'static str, String)| {
        Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
    };
    values.into_iter().filter_map(valid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_within_reach_get_events_and_only_with_secrets() {
        const SECRET: &str = "secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n";
        for (url, more, expected) in [
            ("http://127.0.0.1:1/", SECRET, None),
            ("http://[::1]:1/", SECRET, None),
            ("http://localhost:1/", SECRET, None),
            ("http://192.0.2.1/", SECRET, Some(WebhooksError::Plain)),
            ("http://api.example.com/", SECRET, Some(WebhooksError::Plain)),
            ("http://10.0.0.1/", SECRET, Some(WebhooksError::Private)),
            ("https://169.254.169.254/", SECRET, Some(WebhooksError::Private)),
            ("http://127.0.0.1:1/", "", Some(WebhooksError::NoSecret)),
        ] {
            let allowed = format!("{more}allow_private = true\n");
            for (lines, expected) in [
                (more, expected.clone()),
                (&allowed, expected.filter(|error| *error != WebhooksError::Private && !url.contains("example"))),
            ] {
                let set: Settings = toml::from_str(&format!("endpoint = \"{url}\"\n{lines}")).expect("settings");
                let made = Endpoint::new(&set).map(drop).err().filter(|error| *error != WebhooksError::NoRoots);
                assert_eq!(made, expected, "{url} {lines}");
            }
        }
    }
}
