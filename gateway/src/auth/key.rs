//! A key that checks tokens: its name, its one algorithm, and the key itself.
//!
//! Never prints any part of the key.

use std::path::Path;

use broker_adapters::read_file;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::value::RawValue;

use super::claims::{CLAIMS, Claims};
use super::public_key;
use super::refused::Refused;
use crate::config::{Secret, TokenKey};

/// A key and the only algorithm that it serves.
pub(super) struct Key {
    pub(super) kid: Option<Box<str>>,
    pub(super) algorithm: Algorithm,
    decoding: DecodingKey,
    /// Only the signature: the claims are checked by [`Claims`], whose time comes from the caller.
    validation: Validation,
}

impl Key {
    pub(super) fn new(kid: Option<&str>, algorithm: Algorithm, decoding: DecodingKey) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        Self { kid: kid.map(Box::from), algorithm, decoding, validation }
    }

    /// Reads a key of the configuration. An error says what to change.
    pub(super) fn load(key: &TokenKey) -> Result<Self, String> {
        let (decoding, natural) = match (&key.secret, &key.file) {
            (Some(secret), None) => (shared(secret), Algorithm::HS256),
            (None, Some(file)) => {
                from_file(Path::new(file)).map_err(|why| format!("its file {file:?} cannot be used: {why}"))?
            }
            (None, None) => return Err("it has neither `secret` nor `file`: give one of them".to_owned()),
            (Some(_), Some(_)) => return Err("it has both `secret` and `file`: give one of them".to_owned()),
        };
        let algorithm = key.algorithm.unwrap_or(natural);
        if !public_key::fits(natural, algorithm) {
            return Err(format!(
                "a key of this kind cannot check {algorithm:?}: remove `algorithm`, or write {natural:?}"
            ));
        }
        let (least, length) = (least(algorithm), decoding.try_get_as_bytes().map_or(0, <[u8]>::len));
        if length < least {
            return Err(format!("a secret for {algorithm:?} has at least {least} bytes, and this one has {length}"));
        }
        Ok(Self::new(key.kid.as_deref(), algorithm, decoding))
    }

    /// Checks the algorithm and the signature of a token, and reads its claims, which are not checked yet.
    pub(super) fn check(&self, token: &str, algorithm: Algorithm) -> Result<Claims, Refused> {
        if algorithm != self.algorithm {
            return Err(Refused::Algorithm);
        }
        match decode::<Box<RawValue>>(token, &self.decoding, &self.validation) {
            Ok(token) => Claims::read(&token.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature => Refused::Signature,
                ErrorKind::InvalidAlgorithm => Refused::Algorithm,
                _ => Refused::Malformed(CLAIMS),
            }),
        }
    }
}

/// The key for a shared secret.
fn shared(secret: &Secret) -> DecodingKey {
    DecodingKey::from_secret(secret.expose())
}

/// The fewest bytes of a secret: those of its hash (RFC 7518 §3.2). 0 for public keys.
fn least(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS256 => Secret::LEAST,
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 0,
    }
}

fn from_file(file: &Path) -> Result<(DecodingKey, Algorithm), String> {
    let content = read_file(file).map_err(|error| error.to_string())?;
    if content.windows(11).any(|bytes| bytes == b"-----BEGIN ") {
        return public_key::from_pem(&content);
    }
    Ok((shared(&secret(&content)?), Algorithm::HS256))
}

/// A secret from a file's content. Editors end a file with a line feed, which is not part of it.
pub(super) fn secret(content: &[u8]) -> Result<Secret, String> {
    let text = std::str::from_utf8(content)
        .map_err(|_| "it has neither PEM nor text: for bytes write `base64:` and base64")?;
    text.trim_end_matches(['\r', '\n']).parse().map_err(|why: crate::config::InvalidSecret| why.to_string())
}
