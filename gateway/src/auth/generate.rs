//! Makes keys for tokens: a secret, or a key pair in PEM that OpenSSL and other JWT libraries read.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

/// RFC 5480 §2: what precedes the 65 bytes of a P-256 point.
const P256_PUBLIC: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
/// RFC 8410 §4, §7: what precedes the 32 bytes of an Ed25519 key.
const ED25519_PUBLIC: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const ED25519_PRIVATE: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// A kind of key pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Es256,
    EdDsa,
}

/// A key pair in PEM.
pub(crate) struct Pair {
    pub(crate) private: String,
    pub(crate) public: String,
}

/// The system has no randomness to give.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system gives no random numbers")]
pub(crate) struct NoRandomness;

impl From<Unspecified> for NoRandomness {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// 32 random bytes as base64url: 43 characters, which are the secret as they stand.
pub(crate) fn secret() -> Result<String, NoRandomness> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}

/// A name for a key: 8 hexadecimal digits.
pub(crate) fn kid() -> Result<String, NoRandomness> {
    Ok(format!("{:08x}", u32::from_be_bytes(random()?)))
}

/// A key pair.
pub(crate) fn pair(kind: Kind) -> Result<Pair, NoRandomness> {
    let (private, public) = match kind {
        Kind::Es256 => {
            let (curve, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
            let private = EcdsaKeyPair::generate_pkcs8(curve, &random)?;
            let pair = EcdsaKeyPair::from_pkcs8(curve, private.as_ref(), &random).map_err(|_| NoRandomness)?;
            (private.as_ref().to_vec(), [P256_PUBLIC, pair.public_key().as_ref()].concat())
        }
        // Ring's own PKCS #8 has the public key too (RFC 5958), which many libraries do not read.
        Kind::EdDsa => {
            let seed = random::<32>()?;
            let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| NoRandomness)?;
            ([ED25519_PRIVATE, &seed].concat(), [ED25519_PUBLIC, pair.public_key().as_ref()].concat())
        }
    };
    Ok(Pair { private: pem("PRIVATE KEY", &private), public: pem("PUBLIC KEY", &public) })
}

pub(crate) fn random<const BYTES: usize>() -> Result<[u8; BYTES], NoRandomness> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(bytes)
}

/// RFC 7468 §2: lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, left) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = left;
    }
    text + &format!("-----END {label}-----\n")
}
