//! Signatures of Standard Webhooks: what they sign, and how one is checked.
//!
//! Pure.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::config::WebhookSecret;

/// The names of the headers.
pub(crate) const ID: &str = "webhook-id";
pub(crate) const TIMESTAMP: &str = "webhook-timestamp";
pub(crate) const SIGNATURE: &str = "webhook-signature";

/// How far the time of a request may be away, in seconds.
pub(crate) const TOLERANCE: u64 = 5 * 60;

/// Why a request is not from a node with one of the secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("`{TIMESTAMP}` is no number of seconds since 1970")]
    Time,
    #[error(
        "`{TIMESTAMP}` is {0} s away from this machine's clock, which is more than {TOLERANCE} s: an old request, or a wrong clock"
    )]
    Old(u64),
    #[error("no signature fits: another secret, or the body or a header was changed on the way")]
    Signature,
}

/// The header of signatures, one for each secret, of a request that is sent at `time`, in seconds since 1970.
pub(crate) fn sign(secrets: &[WebhookSecret], id: &str, time: u64, body: &[u8]) -> String {
    let mut header = String::new();
    for secret in secrets {
        let space = if header.is_empty() { "" } else { " " };
        let signature = STANDARD.encode(hmac::sign(&key(secret), &signed(id, &time.to_string(), body)));
        // Writing to a string cannot fail.
        let _ = write!(header, "{space}v1,{signature}");
    }
    header
}

/// Checks a request that came at `now`, in seconds since 1970. In constant time for each signature.
pub(crate) fn verify(
    secrets: &[WebhookSecret],
    (id, timestamp, signatures): (&str, &str, &str),
    body: &[u8],
    now: u64,
) -> Result<(), Invalid> {
    let time: u64 = timestamp.parse().map_err(|_| Invalid::Time)?;
    let away = now.abs_diff(time);
    if away > TOLERANCE {
        return Err(Invalid::Old(away));
    }
    let signed = signed(id, timestamp, body);
    let given = signatures.split(' ').filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok());
    let fits = |given: &[u8]| secrets.iter().any(|secret| hmac::verify(&key(secret), &signed, given).is_ok());
    if given.into_iter().any(|given| fits(&given)) { Ok(()) } else { Err(Invalid::Signature) }
}

fn key(secret: &WebhookSecret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose())
}

fn signed(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> WebhookSecret {
        text.parse().expect("a secret")
    }

    /// The example of the specification.
    #[test]
    fn a_signature_is_that_of_standard_webhooks() {
        let secret = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let header = sign(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(header, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn either_of_two_secrets_checks_a_request_and_nothing_changed_passes() {
        let both_secrets =
            [secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), secret("whsec_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")];
        let (old, new) = both_secrets.split_at(1);
        let (id, body) = ("msg", b"{}");
        let both = sign(&both_secrets, id, 1_000, body);
        assert_eq!(both.split(' ').count(), 2);
        let check = |secrets: &[WebhookSecret], headers, body: &[u8], now| verify(secrets, headers, body, now);
        for secrets in [old, new, &both_secrets] {
            assert_eq!(check(secrets, (id, "1000", &both), body, 1_300), Ok(()));
        }
        let one = sign(old, id, 1_000, body);
        let beside = format!("v1a,x {one}");
        for (headers, body, now, expected) in [
            ((id, "1000", one.as_str()), &b"{ }"[..], 1_000, Err(Invalid::Signature)),
            (("other", "1000", &one), body, 1_000, Err(Invalid::Signature)),
            ((id, "1001", &one), body, 1_000, Err(Invalid::Signature)),
            ((id, "1000", ""), body, 1_000, Err(Invalid::Signature)),
            ((id, "1000", "v1,???"), body, 1_000, Err(Invalid::Signature)),
            ((id, "1000", &one[3..]), body, 1_000, Err(Invalid::Signature)),
            ((id, "1000", &one), body, 1_301, Err(Invalid::Old(301))),
            ((id, "1000", &one), body, 699, Err(Invalid::Old(301))),
            ((id, "soon", &one), body, 1_000, Err(Invalid::Time)),
            ((id, "1000", &beside), body, 1_000, Ok(())),
        ] {
            assert_eq!(check(old, headers, body, now), expected, "{headers:?}");
        }
        assert_eq!(check(new, (id, "1000", &one), body, 1_000), Err(Invalid::Signature));
    }
}
