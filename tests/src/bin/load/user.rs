//! Tokens (JWT, HS256) for load: each connection is a user of its own.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::json;

use crate::protocol::CHANNEL;

/// Later than any measurement: 1 January 2100.
const EXPIRES: u64 = 4_102_444_800;

/// The token of the user with this number, who may subscribe to the channel of all measurements.
pub(crate) fn token(secret: &str, number: usize) -> String {
    let claims = json!({
        "sub": format!("user-{number}"),
        "exp": EXPIRES,
        "fanfare": { "channels": [{ "match": CHANNEL, "can": ["subscribe"] }] },
    });
    let signed = [json!({ "alg": "HS256" }), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}
