//! Reads certificates and private keys in PEM, and explains what a file contains instead.
//!
//! Pure. Its texts never contain any part of a key.

use tokio_rustls::rustls::pki_types::pem::{Error, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// All certificates of a file, in order; at least one.
pub(super) fn certificates(content: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    match CertificateDer::pem_slice_iter(content).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(Error::NoItemsFound) => Err(instead(content, "certificate")),
        Err(_) => Err(damaged(content)),
    }
}

/// The first private key of a file.
pub(super) fn private_key(content: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // RFC 1421 §4.6.1: OpenSSL's mark of an encrypted key before PKCS #8.
    if holds(content, "BEGIN ENCRYPTED PRIVATE KEY") || holds(content, "Proc-Type: 4,ENCRYPTED") {
        return Err("the private key in it is encrypted, and a node cannot ask for the password: `openssl pkey -in \
                    FILE -out NEW_FILE` asks for it and writes the key without encryption"
            .to_owned());
    }
    PrivateKeyDer::from_pem_slice(content).map_err(|error| match error {
        Error::NoItemsFound => instead(content, "private key"),
        _ => damaged(content),
    })
}

/// Says what the file contains instead of a `wanted` item.
fn instead(content: &[u8], wanted: &str) -> String {
    let found = [
        ("BEGIN CERTIFICATE-----", "a certificate"),
        ("BEGIN OPENSSH PRIVATE KEY", "a private key of OpenSSH (`ssh-keygen -p -m PEM -f FILE` rewrites it as PEM)"),
        ("PRIVATE KEY-----", "a private key"),
        ("BEGIN PUBLIC KEY", "a public key"),
        ("BEGIN CERTIFICATE REQUEST", "a request for a certificate"),
    ];
    let found = found.into_iter().find(|(mark, _)| holds(content, mark)).map(|(_, what)| what);
    match (found, content) {
        (Some(found), _) => format!("there is none in the file, but {found}"),
        (None, []) => "it is empty".to_owned(),
        // DER and PKCS #12 both begin with a SEQUENCE in the long form.
        (None, [0x30, 0x80..=0xff, ..]) => format!(
            "it is binary (DER or PKCS #12), and PEM is expected: `openssl {} -in FILE -out NEW_FILE` rewrites DER, \
             `openssl pkcs12 -in FILE -nodes` rewrites PKCS #12",
            if wanted == "certificate" { "x509" } else { "pkey" }
        ),
        (None, _) => "there is none in the file (PEM is expected)".to_owned(),
    }
}

fn damaged(content: &[u8]) -> String {
    match holds(content, "-----BEGIN ") {
        true => "it is damaged: a part of it is not PEM".to_owned(),
        false => "it is not a PEM file".to_owned(),
    }
}

fn holds(content: &[u8], mark: &str) -> bool {
    content.windows(mark.len()).any(|bytes| bytes == mark.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

    #[test]
    fn a_file_may_hold_both_in_any_order() {
        for content in [format!("{CERTIFICATE}{KEY}"), format!("text\n{KEY}\n{CERTIFICATE}{CERTIFICATE}")] {
            assert!(!certificates(content.as_bytes()).expect("a certificate").is_empty());
            assert!(private_key(content.as_bytes()).is_ok());
        }
    }

    #[test]
    fn a_file_without_a_key_is_explained() {
        for (content, message) in [
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "openssl pkey"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
                 -----END RSA PRIVATE KEY-----\n",
                "is encrypted",
            ),
            (CERTIFICATE, "none in the file, but a certificate"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "ssh-keygen -p -m PEM"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "a public key"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n", "damaged"),
            ("", "it is empty"),
            ("key = 1", "PEM is expected"),
        ] {
            let error = private_key(content.as_bytes()).expect_err(content);
            assert!(error.contains(message), "{content}: {error}");
            assert!(!error.contains("AAAA"), "{error}");
        }
        assert!(private_key(&[0x30, 0x82, 0x01]).expect_err("DER").contains("openssl pkey"));
        assert!(certificates(&[0x30, 0x82, 0x01]).expect_err("DER").contains("openssl x509"));
        assert!(certificates(KEY.as_bytes()).expect_err("a key").contains("none in the file, but a private key"));
    }
}
