//! A key that makes tokens: for `fanfare token` and tests. A running node never has one, except for shared secrets.
//!
//! Never prints any part of the key.

use std::path::Path;

use broker_adapters::read_file;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair,
};
use serde::Serialize;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::crypto;
use super::key::{self, Key};
use crate::config::TokenKey;

/// A key, its algorithm, and the name that its tokens give.
pub(crate) struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    kid: Option<String>,
}

impl Signer {
    /// The secret of this name in `auth.keys`, or the first secret.
    pub(crate) fn from_config(keys: &[TokenKey], kid: Option<&str>) -> Result<Self, String> {
        let named = keys.iter().filter(|key| kid.is_none() || key.kid.as_deref() == kid);
        for key in named {
            let algorithm = Key::load(key)?.algorithm;
            let secret = match (&key.secret, &key.file) {
                (Some(secret), _) => secret.clone(),
                (None, Some(file)) if is_secret(algorithm) => key::secret(&read(Path::new(file))?)?,
                _ => continue,
            };
            return Ok(Self { algorithm, key: EncodingKey::from_secret(secret.expose()), kid: key.kid.clone() });
        }
        Err(match kid {
            Some(kid) => format!("`auth.keys` has no secret with the kid {kid:?}"),
            None => "`auth.keys` has no secret, and a public key cannot sign".to_owned(),
        })
    }

    /// The secret in a file.
    pub(crate) fn from_secret_file(file: &Path, kid: Option<&str>) -> Result<Self, String> {
        let secret = key::secret(&read(file)?)?;
        Ok(Self {
            algorithm: Algorithm::HS256,
            key: EncodingKey::from_secret(secret.expose()),
            kid: kid.map(str::to_owned),
        })
    }

    /// The private key in a PEM file: RSA, P-256, P-384 or Ed25519.
    pub(crate) fn from_private_key_file(file: &Path, kid: Option<&str>) -> Result<Self, String> {
        const REWRITE: &str = "`openssl pkcs8 -topk8 -nocrypt -in FILE -out NEW_FILE` rewrites it";
        let content = read(file)?;
        let (algorithm, key) = match PrivateKeyDer::from_pem_slice(&content) {
            Ok(PrivateKeyDer::Pkcs8(key)) => from_pkcs8(key.secret_pkcs8_der()).ok_or(
                "the private key is damaged or of a kind that does not sign tokens: use RSA, P-256, P-384 or Ed25519",
            )?,
            Ok(PrivateKeyDer::Pkcs1(key)) => (Algorithm::RS256, EncodingKey::from_rsa_der(key.secret_pkcs1_der())),
            Ok(_) => return Err(format!("the private key is not in PKCS #8: {REWRITE}")),
            Err(_) => return Err(format!("the file has no private key in PEM without a password: {REWRITE}")),
        };
        Ok(Self { algorithm, key, kid: kid.map(str::to_owned) })
    }

    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<String, String> {
        crypto::install();
        let header = Header { kid: self.kid.clone(), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).map_err(|_| "the key cannot sign: is it damaged?".to_owned())
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    read_file(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

fn is_secret(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

/// Finds out the kind of a private key by trying each.
fn from_pkcs8(der: &[u8]) -> Option<(Algorithm, EncodingKey)> {
    let random = SystemRandom::new();
    if Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).is_ok() {
        Some((Algorithm::EdDSA, EncodingKey::from_ed_der(der)))
    } else if EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random).is_ok() {
        Some((Algorithm::ES256, EncodingKey::from_ec_der(der)))
    } else if EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der, &random).is_ok() {
        Some((Algorithm::ES384, EncodingKey::from_ec_der(der)))
    } else {
        RsaKeyPair::from_pkcs8(der).ok().map(|_| (Algorithm::RS256, EncodingKey::from_rsa_der(der)))
    }
}
