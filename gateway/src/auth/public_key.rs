//! Public keys in PEM: what kind of key a file has, and its parts.
//!
//! Pure. Reads the DER of a `SubjectPublicKeyInfo` (RFC 5280 §4.1) for the four kinds of keys that check tokens.

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use tokio_rustls::rustls::pki_types::SubjectPublicKeyInfoDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// RFC 8017 Appendix C, RFC 5480 §2.1.1, RFC 8410 §3: the algorithm with its parameters.
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;

/// The shortest modulus of an RSA key, in bits (RFC 7518 §3.3).
const RSA_BITS: usize = 2048;
const RSA_SHORT: &str = "an RSA key has at least 2048 bits, and this one has fewer";

/// Reads the public key of a PEM file. Returns it with the algorithm that fits its kind.
pub(super) fn from_pem(content: &[u8]) -> Result<(DecodingKey, Algorithm), String> {
    let holds = |mark: &str| content.windows(mark.len()).any(|bytes| bytes == mark.as_bytes());
    if holds("PRIVATE KEY-----") {
        return Err(
            "the file has a private key, and a node needs the public one: `openssl pkey -in FILE -pubout -out \
                    NEW_FILE` writes it"
                .to_owned(),
        );
    }
    if holds("BEGIN CERTIFICATE") {
        return Err(
            "the file has a certificate, and a public key is expected: `openssl x509 -in FILE -pubkey -noout` \
                    prints it"
                .to_owned(),
        );
    }
    if holds("BEGIN RSA PUBLIC KEY") {
        return Err(
            "the file has a public key in PKCS #1: `openssl rsa -RSAPublicKey_in -in FILE -pubout -out NEW_FILE` \
                    rewrites it"
                .to_owned(),
        );
    }
    let info =
        SubjectPublicKeyInfoDer::from_pem_slice(content).map_err(|_| "the file has no public key in PEM".to_owned())?;
    from_der(&info)
}

fn from_der(info: &[u8]) -> Result<(DecodingKey, Algorithm), String> {
    let parts = || {
        let (info, []) = element(SEQUENCE, info)? else { return None };
        let (algorithm, rest) = element(SEQUENCE, info)?;
        // The first byte of a bit string is the number of unused bits.
        let ([0, key @ ..], []) = element(BIT_STRING, rest)? else { return None };
        Some((algorithm, key))
    };
    let (algorithm, key) = parts().ok_or("the public key is damaged")?;
    match algorithm {
        RSA => {
            let parts = || {
                let (key, []) = element(SEQUENCE, key)? else { return None };
                let (n, rest) = element(INTEGER, key)?;
                let (e, []) = element(INTEGER, rest)? else { return None };
                Some((n, e))
            };
            let (n, e) = parts().ok_or("the public key is damaged")?;
            Ok((rsa(n, e)?, Algorithm::RS256))
        }
        P256 => Ok((DecodingKey::from_ec_der(key), Algorithm::ES256)),
        P384 => Ok((DecodingKey::from_ec_der(key), Algorithm::ES384)),
        ED25519 => Ok((DecodingKey::from_ed_der(key), Algorithm::EdDSA)),
        _ => Err("the public key is of a kind that does not check tokens: use RSA, P-256, P-384 or Ed25519".to_owned()),
    }
}

/// An RSA key from its modulus and exponent, big-endian.
pub(super) fn rsa(n: &[u8], e: &[u8]) -> Result<DecodingKey, &'static str> {
    let without_zeros = |number: &[u8]| number.iter().skip_while(|byte| **byte == 0).copied().collect::<Vec<_>>();
    let (n, e) = (without_zeros(n), without_zeros(e));
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if bits < RSA_BITS { Err(RSA_SHORT) } else { Ok(DecodingKey::from_rsa_raw_components(&n, &e)) }
}

/// Whether a key whose natural algorithm is `natural` may check `algorithm`. An elliptic curve has exactly one.
pub(super) fn fits(natural: Algorithm, algorithm: Algorithm) -> bool {
    natural == algorithm
        || matches!(natural.family(), AlgorithmFamily::Rsa | AlgorithmFamily::Hmac)
            && natural.family() == algorithm.family()
}

/// The content of the first DER element, which must have this tag, and what follows it.
fn element(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = input.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_checks_only_the_algorithms_of_its_kind() {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS512, PS256, RS256, RS512};
        for (natural, algorithm, expected) in [
            (HS256, HS512, true),
            (HS256, RS256, false),
            (RS256, RS512, true),
            (RS256, PS256, true),
            (RS256, HS256, false),
            (ES256, ES256, true),
            (ES256, ES384, false),
            (ES256, EdDSA, false),
            (EdDSA, EdDSA, true),
        ] {
            assert_eq!(fits(natural, algorithm), expected, "{natural:?} {algorithm:?}");
        }
    }

    #[test]
    fn a_short_rsa_key_is_refused_also_behind_zeros() {
        for (n, good) in
            [(vec![0x80; 256], true), (vec![0x7f; 256], false), ([&[0; 8][..], &[0x80; 255]].concat(), false)]
        {
            assert_eq!(rsa(&n, &[1, 0, 1]).is_ok(), good);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_der(&bytes);
            let _ = from_der(&[&[0x30, 0x81, 0x80], &bytes[..]].concat());
            let _ = from_pem(&bytes);
        }
    }
}
