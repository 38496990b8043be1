//! Tokens that try to be checked with the wrong key or algorithm.

use ring::hmac;

use super::*;

const KEYS: [(&str, &str); 3] = [("es", "es256"), ("ed", "eddsa"), ("rs", "rsa")];

/// One key of each kind by name, and the private ones.
struct Keys {
    files: Files,
    auth: Auth,
}

fn keys() -> Keys {
    let files = Files::new();
    let mut lines = format!("keys = [{{ kid = \"hs\", secret = \"{SECRET}\" }}");
    for (kid, kind) in KEYS {
        let pair = match kind {
            "es256" => generate::pair(generate::Kind::Es256).expect("random numbers"),
            "eddsa" => generate::pair(generate::Kind::EdDsa).expect("random numbers"),
            _ => generate::Pair { private: RSA_PRIVATE.to_owned(), public: RSA_PUBLIC.to_owned() },
        };
        files.put(kid, &pair.private);
        let public = files.put(&format!("{kid}.public"), &pair.public);
        lines += &format!(", {{ kid = \"{kid}\", file = {public:?} }}");
    }
    Keys { auth: auth(&format!("{lines}]")), files }
}

impl Keys {
    /// A good token of the private key `by`, whose header names the key `kid`.
    fn token(&self, by: &str, kid: Option<&str>) -> String {
        let file = self.files.0.join(by);
        let signer = Signer::from_private_key_file(&file, kid).expect("a private key");
        signer.sign(&claims(&json!({}))).expect("it signs")
    }
}

/// A token with this header, signed with a secret by HMAC with SHA-256.
fn forged(header: &Value, secret: &[u8]) -> String {
    let message = format!("{}.{}", part(header), part(&claims(&json!({}))));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_token_is_checked_only_with_the_key_that_it_names() {
    let keys = keys();
    for (by, _) in KEYS {
        assert!(now(&keys.auth, &keys.token(by, Some(by))).is_ok(), "{by}");
        assert_eq!(now(&keys.auth, &keys.token(by, None)).map(drop), Err(Refused::UnknownKey), "{by}");
        assert_eq!(now(&keys.auth, &keys.token(by, Some("other"))).map(drop), Err(Refused::UnknownKey), "{by}");
        for (other, _) in KEYS.into_iter().filter(|(other, _)| *other != by) {
            assert_eq!(
                now(&keys.auth, &keys.token(by, Some(other))).map(drop),
                Err(Refused::Algorithm),
                "{by} as {other}"
            );
        }
        assert_eq!(now(&keys.auth, &keys.token(by, Some("hs"))).map(drop), Err(Refused::Algorithm), "{by} as hs");
    }
}

#[test]
fn a_key_of_the_same_kind_but_another_name_does_not_help() {
    let other = "other-secret-other-secret-other-secret";
    let auth =
        auth(&format!("keys = [{{ kid = \"a\", secret = \"{SECRET}\" }}, {{ kid = \"b\", secret = \"{other}\" }}]"));
    for (kid, secret, good) in [("a", SECRET, true), ("b", other, true), ("a", other, false), ("b", SECRET, false)] {
        let verified = now(&auth, &forged(&json!({ "alg": "HS256", "kid": kid }), secret.as_bytes()));
        assert_eq!(verified.map(drop), if good { Ok(()) } else { Err(Refused::Signature) }, "{kid} {secret}");
    }
}

#[test]
fn keys_without_a_name_are_tried_in_turn() {
    let old = "old-secret-old-secret-old-secret-old";
    let auth = auth(&format!("keys = [{{ secret = \"{SECRET}\" }}, {{ secret = \"{old}\" }}]"));
    for header in [json!({ "alg": "HS256" }), json!({ "alg": "HS256", "kid": "any" })] {
        for secret in [SECRET, old] {
            assert!(now(&auth, &forged(&header, secret.as_bytes())).is_ok(), "{header}");
        }
        assert_eq!(now(&auth, &forged(&header, b"neither")).map(drop), Err(Refused::Signature));
    }
}

#[test]
fn a_public_key_is_never_a_secret() {
    let keys = keys();
    let der = RSA_PUBLIC.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    for secret in [RSA_PUBLIC, RSA_PUBLIC.trim_end(), &der, ""] {
        for alg in ["HS256", "RS256", "PS256"] {
            let token = forged(&json!({ "alg": alg, "kid": "rs" }), secret.as_bytes());
            assert!(matches!(now(&keys.auth, &token), Err(Refused::Algorithm | Refused::Signature)), "{alg}");
        }
    }
}

#[test]
fn an_unsigned_token_is_refused_however_it_is_written() {
    let auth = with_secret();
    let payload = part(&claims(&json!({})));
    for alg in ["none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", "HS1", "RS256\u{0}"] {
        for signature in ["", "AAAA", "bm9uZQ"] {
            let token = format!("{}.{payload}.{signature}", part(&json!({ "alg": alg })));
            assert!(matches!(now(&auth, &token), Err(Refused::Malformed(_))), "{alg:?}");
        }
    }
    for header in
        [json!({}), json!({ "alg": null }), json!({ "alg": 1 }), json!({ "alg": ["HS256"] }), json!([]), json!("HS256")]
    {
        assert!(matches!(now(&auth, &forged(&header, SECRET.as_bytes())), Err(Refused::Malformed(_))), "{header}");
    }
    for signature in ["", "AAAA"] {
        let token = format!("{}.{payload}.{signature}", part(&json!({ "alg": "HS256" })));
        assert_eq!(now(&auth, &token).map(drop), Err(Refused::Signature));
    }
}

#[test]
fn the_sender_cannot_choose_the_key() {
    let auth = with_secret();
    let jwk = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode("mine"), "kid": "mine", "alg": "HS256" });
    for (name, value) in [
        ("jku", json!("http://127.0.0.1:1/keys")),
        ("x5u", json!("http://127.0.0.1:1/certificate")),
        ("x5c", json!(["AAAA"])),
        ("jwk", jwk),
    ] {
        let header = json!({ "alg": "HS256", name: value });
        assert_eq!(now(&auth, &forged(&header, b"mine")).map(drop), Err(Refused::Signature), "{name}");
        assert!(now(&auth, &forged(&header, SECRET.as_bytes())).is_ok(), "{name} is ignored");
    }
    for crit in [json!([]), json!(["exp"]), json!(["b64"])] {
        let token = forged(&json!({ "alg": "HS256", "crit": crit }), SECRET.as_bytes());
        assert!(matches!(now(&auth, &token), Err(Refused::Malformed(why)) if why.contains("crit")));
    }
}

#[test]
fn a_claim_that_stands_twice_refuses_the_token() {
    let auth = with_secret();
    for claims in [
        format!(r#"{{"sub":"ann","exp":1,"exp":{}}}"#, NOW + 60),
        format!(r#"{{"sub":"ann","sub":"bob","exp":{}}}"#, NOW + 60),
        format!(r#"{{"sub":"ann","exp":{},"fanfare":{{"channels":[],"channels":[]}}}}"#, NOW + 60),
    ] {
        let message = format!("{}.{}", part(&json!({ "alg": "HS256" })), URL_SAFE_NO_PAD.encode(&claims));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        assert!(matches!(now(&auth, &token), Err(Refused::Malformed(_))), "{claims}");
    }
}

#[test]
fn a_long_token_is_refused_before_it_is_read() {
    let auth = with_secret();
    assert_eq!(now(&auth, &"x".repeat(TOKEN_BYTES + 1)).map(drop), Err(Refused::TooLong));
    assert!(matches!(now(&auth, &"x".repeat(TOKEN_BYTES)), Err(Refused::Malformed(_))));
    let rest = signed(&claims(&json!({ "pad": "" }))).len();
    let longest = signed(&claims(&json!({ "pad": "p".repeat((TOKEN_BYTES - rest) * 3 / 4 - 2) })));
    assert!(longest.len() > TOKEN_BYTES - 8 && now(&auth, &longest).is_ok(), "{}", longest.len());
}
