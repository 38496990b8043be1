//! A JSON Web Key Set (RFC 7517) → the keys in it that check tokens.
//!
//! Pure. Keys of other kinds or for other purposes are left out, so that a provider can add them. A set never has secrets.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::key::Key;
use super::public_key;

/// The most keys that a set may have.
const MOST: usize = 100;

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The keys of a set that check tokens; at least one.
pub(super) fn keys(body: &[u8]) -> Result<Vec<Key>, &'static str> {
    let set: Set = serde_json::from_slice(body).map_err(|_| "it is not a key set: {\"keys\": […]}")?;
    if set.keys.len() > MOST {
        return Err("it has more than 100 keys");
    }
    let keys: Vec<_> = set.keys.into_iter().filter_map(|key| read(&serde_json::from_value(key).ok()?)).collect();
    if keys.is_empty() {
        return Err(
            "it has no key that can check tokens: RSA of 2048 bits or more, P-256, P-384 or Ed25519, with \"use\": \"sig\"",
        );
    }
    Ok(keys)
}

fn read(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let for_tokens = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !for_tokens {
        return None;
    }
    let (decoding, natural) = public(&jwk.algorithm)?;
    // RFC 7517 §4.4: `alg` is optional; without it, an RSA key serves RS256 only.
    let algorithm = common.key_algorithm.map_or(Ok(natural), Algorithm::try_from).ok()?;
    public_key::fits(natural, algorithm).then(|| Key::new(common.key_id.as_deref(), algorithm, decoding))
}

/// A public key with the algorithm that fits its kind.
fn public(parameters: &AlgorithmParameters) -> Option<(DecodingKey, Algorithm)> {
    let (key, length, algorithm) = match parameters {
        AlgorithmParameters::RSA(key) => {
            let (n, e) = (URL_SAFE_NO_PAD.decode(&key.n).ok()?, URL_SAFE_NO_PAD.decode(&key.e).ok()?);
            return Some((public_key::rsa(&n, &e).ok()?, Algorithm::RS256));
        }
        // Uncompressed points: a byte, then two coordinates.
        AlgorithmParameters::EllipticCurve(key) => {
            let (length, algorithm) = match key.curve {
                EllipticCurve::P256 => (65, Algorithm::ES256),
                EllipticCurve::P384 => (97, Algorithm::ES384),
                _ => return None,
            };
            (DecodingKey::from_ec_components(&key.x, &key.y).ok()?, length, algorithm)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (DecodingKey::from_ed_components(&key.x).ok()?, 32, Algorithm::EdDSA)
        }
        _ => return None,
    };
    let whole = key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == length);
    whole.then_some((key, algorithm))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coordinate(length: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0x80; length])
    }

    #[test]
    fn a_key_serves_one_algorithm_and_keys_for_other_purposes_are_left_out() {
        let (n, c32, c48, short) = (coordinate(256), coordinate(32), coordinate(48), coordinate(128));
        let rsa = format!(r#""kty":"RSA","n":"{n}","e":"AQAB""#);
        let p256 = format!(r#""kty":"EC","crv":"P-256","x":"{c32}","y":"{c32}""#);
        for (fields, expected) in [
            (rsa.clone(), Some(Algorithm::RS256)),
            (format!(r#"{rsa},"alg":"PS384","use":"sig""#), Some(Algorithm::PS384)),
            (format!(r#"{rsa},"key_ops":["verify"]"#), Some(Algorithm::RS256)),
            (format!(r#"{rsa},"key_ops":["encrypt"]"#), None),
            (format!(r#"{rsa},"use":"enc""#), None),
            (format!(r#"{rsa},"alg":"HS256""#), None),
            (format!(r#"{rsa},"alg":"ES256""#), None),
            (format!(r#"{rsa},"alg":"RSA-OAEP""#), None),
            (format!(r#"{rsa},"alg":"none""#), None),
            (format!(r#""kty":"RSA","n":"{short}","e":"AQAB""#), None),
            (p256.clone(), Some(Algorithm::ES256)),
            (format!(r#"{p256},"alg":"ES384""#), None),
            (format!(r#""kty":"EC","crv":"P-256","x":"{c48}","y":"{c48}""#), None),
            (format!(r#""kty":"EC","crv":"P-384","x":"{c48}","y":"{c48}""#), Some(Algorithm::ES384)),
            (format!(r#""kty":"EC","crv":"P-521","x":"{c48}","y":"{c48}""#), None),
            (format!(r#""kty":"OKP","crv":"Ed25519","x":"{c32}""#), Some(Algorithm::EdDSA)),
            (format!(r#""kty":"OKP","crv":"X25519","x":"{c32}""#), None),
            (format!(r#""kty":"oct","k":"{c32}","alg":"HS256""#), None),
            (r#""kty":"future""#.to_owned(), None),
        ] {
            let set = format!(r#"{{"keys":[{{{fields},"kid":"a"}}]}}"#);
            let found = keys(set.as_bytes()).ok().map(|keys| keys[0].algorithm);
            assert_eq!(found, expected, "{fields}");
            // A key that is left out takes no other one with it.
            let set = format!(r#"{{"keys":[{{{fields}}},17,{{{rsa},"kid":"b"}}]}}"#);
            let found = keys(set.as_bytes()).expect("one is usable");
            assert!(found.iter().any(|key| key.kid.as_deref() == Some("b")), "{fields}");
        }
    }

    #[test]
    fn what_is_not_a_key_set_is_refused() {
        let many = format!(r#"{{"keys":[{}0]}}"#, "0,".repeat(MOST));
        for body in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, "<html>", &many] {
            assert!(keys(body.as_bytes()).is_err(), "{body}");
        }
    }
}
