//! Keys that cannot be used, each with words that say what to do.

use super::*;

fn error(lines: &str) -> String {
    Auth::new(&config(lines)).err().expect("unusable").to_string()
}

#[test]
fn a_key_that_cannot_be_used_is_explained_without_its_content() {
    let files = Files::new();
    let put = |name: &str, content: &str| files.put(name, content);
    let (private, public) = (put("private", RSA_PRIVATE), put("public", RSA_PUBLIC));
    let short = put("short", include_str!("rsa-1024.public.pem"));
    let certificate = put("certificate", "-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n");
    let damaged = put("damaged", "-----BEGIN PUBLIC KEY-----\ncanary=\n-----END PUBLIC KEY-----\n");
    let weak = put("weak", "canary\n");
    let missing = files.0.join("missing").display().to_string();
    let x25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VuAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    let x25519 = put("x25519", x25519);
    for (key, message) in [
        ("kid = \"a\"".to_owned(), "neither `secret` nor `file`"),
        (format!("secret = \"{SECRET}\", file = \"b\""), "both `secret` and `file`"),
        (
            format!("secret = \"{SECRET}\", algorithm = \"RS256\""),
            "cannot check RS256: remove `algorithm`, or write HS256",
        ),
        (format!("secret = \"{SECRET}\", algorithm = \"HS512\""), "for HS512 has at least 64 bytes"),
        (format!("file = {public:?}, algorithm = \"HS256\""), "cannot check HS256"),
        (format!("file = {public:?}, algorithm = \"ES256\""), "cannot check ES256"),
        (format!("file = {private:?}"), "openssl pkey -in FILE -pubout"),
        (format!("file = {certificate:?}"), "openssl x509 -in FILE -pubkey -noout"),
        (format!("file = {damaged:?}"), "no public key in PEM"),
        (format!("file = {short:?}"), "at least 2048 bits"),
        (format!("file = {x25519:?}"), "use RSA, P-256, P-384 or Ed25519"),
        (format!("file = {weak:?}"), "at least 32 bytes, this one has 6"),
        (format!("file = {missing:?}"), "No such file"),
    ] {
        let text = error(&format!("keys = [{{ secret = \"{SECRET}\" }}, {{ {key} }}]"));
        assert!(text.starts_with("`auth.keys`, key 2") && text.contains(message), "{key}: {text}");
        assert!(!text.contains("canary"), "{text}");
    }
    let twice =
        error(&format!("keys = [{{ kid = \"a\", secret = \"{SECRET}\" }}, {{ kid = \"a\", file = {public:?} }}]"));
    assert_eq!(twice, "`auth.keys`, key 2 (\"a\"): another key has the same `kid`: give each its own");
    assert!(error("cookie = \"a b\"").contains("a cookie's name"), "{}", error("cookie = \"a b\""));
}

#[test]
fn every_kind_of_key_is_read_from_a_file() {
    let files = Files::new();
    let secret = files.put("secret", &format!("{SECRET}\n"));
    let rsa = files.put("rsa", RSA_PUBLIC);
    for (lines, algorithm) in [
        (format!("file = {secret:?}"), Algorithm::HS256),
        (format!("file = {rsa:?}"), Algorithm::RS256),
        (format!("file = {rsa:?}, algorithm = \"PS512\""), Algorithm::PS512),
    ] {
        assert_eq!(auth(&format!("keys = [{{ {lines} }}]")).0.keys[0].algorithm, algorithm, "{lines}");
    }
    for (kind, algorithm) in [(generate::Kind::Es256, Algorithm::ES256), (generate::Kind::EdDsa, Algorithm::EdDSA)] {
        let pair = generate::pair(kind).expect("random numbers");
        let (public, private) = (files.put("public", &pair.public), files.put("private", &pair.private));
        let auth = auth(&format!("keys = [{{ file = {public:?} }}]"));
        assert_eq!(auth.0.keys[0].algorithm, algorithm);
        let signer = Signer::from_private_key_file(private.as_ref(), None).expect("a private key");
        assert!(now(&auth, &signer.sign(&claims(&json!({}))).expect("it signs")).is_ok(), "{kind:?}");
    }
}

#[test]
fn all_algorithms_of_a_key_check_what_they_sign() {
    crypto::install();
    let pem = RSA_PRIVATE.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let der = base64::engine::general_purpose::STANDARD.decode(pem).expect("base64");
    let files = Files::new();
    let rsa = files.put("rsa", RSA_PUBLIC);
    let long = SECRET.repeat(2);
    for name in ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let algorithm: Algorithm = name.parse().expect(name);
        let (key, lines) = match name.starts_with('H') {
            true => (jsonwebtoken::EncodingKey::from_secret(long.as_bytes()), format!("secret = \"{long}\"")),
            false => (jsonwebtoken::EncodingKey::from_rsa_der(&der), format!("file = {rsa:?}")),
        };
        let token = jsonwebtoken::encode(&Header::new(algorithm), &claims(&json!({})), &key).expect("it signs");
        assert!(now(&auth(&format!("keys = [{{ {lines}, algorithm = \"{name}\" }}]")), &token).is_ok(), "{name}");
        let other = if name.ends_with("256") { "512" } else { "256" };
        let other = auth(&format!("keys = [{{ {lines}, algorithm = \"{}{other}\" }}]", &name[..2]));
        assert_eq!(now(&other, &token).map(drop), Err(Refused::Algorithm), "{name}");
    }
}
