//! The cryptography of tokens: `ring`, which TLS uses too, as the provider of `jsonwebtoken`.
//!
//! Pure. A key of one family never serves an algorithm of another one.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::error::Unspecified;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, Ed25519KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey,
};

static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

/// Makes `jsonwebtoken` use `ring` in this process. If an app has already chosen a provider, that one stays; it does the same.
pub(super) fn install() {
    let _chosen = PROVIDER.install_default();
}

/// How an algorithm checks and signs.
enum Method {
    Hmac(hmac::Algorithm),
    Rsa(&'static RsaParameters, &'static dyn RsaEncoding),
    Ecdsa(&'static EcdsaVerificationAlgorithm, &'static EcdsaSigningAlgorithm),
    Ed25519,
}

fn method(algorithm: Algorithm) -> Result<Method, Error> {
    Ok(match algorithm {
        Algorithm::HS256 => Method::Hmac(hmac::HMAC_SHA256),
        Algorithm::HS384 => Method::Hmac(hmac::HMAC_SHA384),
        Algorithm::HS512 => Method::Hmac(hmac::HMAC_SHA512),
        Algorithm::RS256 => Method::Rsa(&RSA_PKCS1_2048_8192_SHA256, &RSA_PKCS1_SHA256),
        Algorithm::RS384 => Method::Rsa(&RSA_PKCS1_2048_8192_SHA384, &RSA_PKCS1_SHA384),
        Algorithm::RS512 => Method::Rsa(&RSA_PKCS1_2048_8192_SHA512, &RSA_PKCS1_SHA512),
        Algorithm::PS256 => Method::Rsa(&RSA_PSS_2048_8192_SHA256, &RSA_PSS_SHA256),
        Algorithm::PS384 => Method::Rsa(&RSA_PSS_2048_8192_SHA384, &RSA_PSS_SHA384),
        Algorithm::PS512 => Method::Rsa(&RSA_PSS_2048_8192_SHA512, &RSA_PSS_SHA512),
        Algorithm::ES256 => Method::Ecdsa(&ECDSA_P256_SHA256_FIXED, &ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => Method::Ecdsa(&ECDSA_P384_SHA384_FIXED, &ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::EdDSA => Method::Ed25519,
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    })
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Checking { algorithm: *algorithm, method: method(*algorithm)?, key: key.clone() }))
}

struct Checking {
    algorithm: Algorithm,
    method: Method,
    key: DecodingKey,
}

impl JwtVerifier for Checking {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Checking {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let checked = match (&self.method, self.key.kind()) {
            (Method::Hmac(hash), DecodingKeyKind::SecretOrDer(secret)) => {
                hmac::verify(&hmac::Key::new(*hash, secret), message, signature)
            }
            (Method::Rsa(parameters, _), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (Method::Ecdsa(curve, _), DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(*curve, point).verify(message, signature)
            }
            (Method::Ed25519, DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
            }
            _ => Err(Unspecified),
        };
        checked.map_err(|Unspecified| signature::Error::new())
    }
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Signing { algorithm: *algorithm, method: method(*algorithm)?, key: key.clone() }))
}

struct Signing {
    algorithm: Algorithm,
    method: Method,
    /// A secret, or a private key in PKCS #8 (RSA: or PKCS #1).
    key: EncodingKey,
}

impl JwtSigner for Signing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Signer<Vec<u8>> for Signing {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let (key, random) = (self.key.as_bytes(), SystemRandom::new());
        // Ring's reasons carry no part of the key, and neither may ours.
        let unusable = |_| signature::Error::new();
        match &self.method {
            Method::Hmac(hash) => Ok(hmac::sign(&hmac::Key::new(*hash, key), message).as_ref().to_vec()),
            Method::Rsa(_, encoding) => {
                let pair = RsaKeyPair::from_pkcs8(key).or_else(|_| RsaKeyPair::from_der(key)).map_err(unusable)?;
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, message, &mut signed).map_err(|Unspecified| signature::Error::new())?;
                Ok(signed)
            }
            Method::Ecdsa(_, curve) => {
                let pair = EcdsaKeyPair::from_pkcs8(curve, key, &random).map_err(unusable)?;
                let signed = pair.sign(&random, message).map_err(|Unspecified| signature::Error::new())?;
                Ok(signed.as_ref().to_vec())
            }
            Method::Ed25519 => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).map_err(unusable)?;
                Ok(pair.sign(message).as_ref().to_vec())
            }
        }
    }
}
