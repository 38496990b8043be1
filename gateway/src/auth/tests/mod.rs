//! Tokens against keys: what is accepted, what is refused, and that nothing of a token is ever shown.

mod attacks;
mod configuration;
pub(super) mod hygiene;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use axum::http::{HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::claims::{CLAIMS, FORM};
use super::offered::{Misplaced, Offered};
use super::signer::Signer;
use super::*;
use crate::config::TokenKey;
use crate::gate::{Token, Verb};

/// The time in all tests here, in seconds since 1970.
pub(super) const NOW: u64 = 1_800_000_000;
pub(super) const SECRET: &str = "canary-secret-canary-secret-canary-secret";
pub(super) const RSA_PRIVATE: &str = include_str!("rsa.private.pem");
pub(super) const RSA_PUBLIC: &str = include_str!("rsa.public.pem");

/// Files for one test, gone at its end.
pub(super) struct Files(PathBuf);

impl Files {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fanfare-auth-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("the temporary directory is writable");
        Self(directory)
    }

    /// Writes a file. Returns its path.
    pub(super) fn put(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).expect("the temporary directory is writable");
        path.display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A configuration from the lines of its section `auth`.
pub(super) fn config(lines: &str) -> Config {
    let config = Config::default();
    Config { auth: toml::from_str(lines).expect(lines), ..config }
}

pub(super) fn auth(lines: &str) -> Auth {
    Auth::new(&config(lines)).expect("usable keys")
}

/// With the secret, without a name.
fn with_secret() -> Auth {
    auth(&format!("keys = [{{ secret = \"{SECRET}\" }}]"))
}

/// The claims of a token that is valid for an hour, with some replaced; null removes one.
pub(super) fn claims(changed: &Value) -> Value {
    let mut claims = json!({ "sub": "ann", "exp": NOW + 3600 });
    for (name, value) in changed.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    claims
}

pub(super) fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

/// Signs with the secret.
pub(super) fn signed(claims: &Value) -> String {
    let keys: Vec<TokenKey> = config(&format!("keys = [{{ secret = \"{SECRET}\" }}]")).auth.keys;
    Signer::from_config(&keys, None).expect("a secret").sign(claims).expect("it signs")
}

/// The answer of a verification that takes no time.
pub(super) fn now(auth: &Auth, token: &str) -> Verified {
    match auth.verify(token, NOW) {
        Verification::Now(verified) => verified,
        Verification::Later(_) => panic!("it takes time"),
    }
}

#[test]
fn a_token_proves_an_identity() {
    let token = signed(&claims(&json!({
        "iat": NOW, "jti": "one", "unknown": {}, "fanfare": {
            "info": { "name": "Ann" },
            "channels": [{ "match": "chat:*", "can": ["subscribe", "publish"], "later": 1 }, { "match": "user:{sub}", "can": ["history"] }],
            "subscribe": ["chat:1", "user:ann"],
            "later": true,
        },
    })));
    let identity = now(&with_secret(), &token).expect("a good token");
    assert_eq!(
        (identity.user(), identity.extras.as_ref().and_then(|extras| extras.info.as_deref())),
        (Some("ann"), Some(r#"{"name":"Ann"}"#))
    );
    assert_eq!(identity.subscribe().iter().map(|name| &**name).collect::<Vec<_>>(), ["chat:1", "user:ann"]);
    let token = identity.token.expect("a token");
    assert_eq!(token, Token::new(NOW + 3600, Some(NOW), Some(token_id("one"))));
    for (verb, channel, allowed) in [
        (Verb::Publish, "chat:9", true),
        (Verb::History, "chat:9", false),
        (Verb::History, "user:ann", true),
        (Verb::Subscribe, "news", false),
    ] {
        let rights = identity.rights.as_ref().expect("a list of channels");
        assert_eq!(rights.grant(verb, channel, identity.user()).is_some(), allowed, "{verb:?} {channel}");
    }
}

#[test]
fn a_token_of_a_request_is_found_and_verified() {
    let auth = auth(&format!("keys = [{{ secret = \"{SECRET}\" }}]\ncookie = \"__Host-token\"\nanonymous = \"off\""));
    assert!(!auth.lets_anonymous_in());
    let token = signed(&claims(&json!({})));
    let subprotocols = format!("fanfare.v1, {BEARER}{}", URL_SAFE_NO_PAD.encode(&token));
    let (origin, cookie) = ("https://a.example".to_owned(), format!("__Host-token={token}"));
    for (place, lines) in [
        (Place::Authorization, vec![("authorization", format!("Bearer {token}"))]),
        (Place::Subprotocol, vec![("sec-websocket-protocol", subprotocols)]),
        (Place::Cookie, vec![("origin", origin), ("cookie", cookie)]),
    ] {
        let headers = lines.into_iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::try_from(value).expect("a header's value"))
        });
        let found: Result<Option<Offered>, Misplaced> = offered(&headers.collect(), None, auth.cookie());
        let found = found.expect("one token").expect("a token");
        assert_eq!(found.place, place);
        assert!(now(&auth, &found.token).is_ok());
    }
}

#[test]
fn equal_rights_are_shared_between_users() {
    let auth = with_secret();
    let rights = json!({ "channels": [{ "match": "chat:*", "can": ["subscribe"] }] });
    let [ann, bob, eve] = [("ann", &rights), ("bob", &rights), ("eve", &json!({}))].map(|(user, fanfare)| {
        now(&auth, &signed(&claims(&json!({ "sub": user, "fanfare": fanfare })))).expect("a token")
    });
    let (ann, bob) = (ann.rights.as_ref().expect("a list"), bob.rights.as_ref().expect("a list"));
    assert!(Arc::ptr_eq(ann, bob) && eve.rights.is_none());
}

#[test]
fn times_have_a_leeway_of_30_s_and_must_be_numbers() {
    let malformed = |name| Err(Refused::Malformed(name));
    let auth = with_secret();
    for (changed, expected) in [
        (json!({ "exp": NOW - LEEWAY + 1 }), Ok(())),
        (json!({ "exp": NOW - LEEWAY }), Err(Refused::Expired)),
        (json!({ "exp": NOW as f64 - 28.5 }), Ok(())),
        (json!({ "exp": 0 }), Err(Refused::Expired)),
        (json!({ "exp": u64::MAX }), Ok(())),
        (json!({ "exp": null }), malformed("it has no `exp`: every token must expire")),
        (json!({ "exp": (NOW + 60).to_string() }), malformed("its `exp` is not a number of seconds since 1970")),
        (json!({ "exp": -1 }), malformed("its `exp` is not a number of seconds since 1970")),
        (json!({ "exp": 1e30 }), malformed("its `exp` is not a number of seconds since 1970")),
        (json!({ "exp": [NOW + 60] }), malformed(CLAIMS)),
        (json!({ "nbf": NOW + 30 }), Ok(())),
        (json!({ "nbf": NOW + 31 }), Err(Refused::NotYet)),
        (json!({ "nbf": "soon" }), malformed("its `nbf` is not a number of seconds since 1970")),
        (json!({ "iat": NOW + 30 }), Ok(())),
        (json!({ "iat": NOW + 31 }), Err(Refused::NotYet)),
        (json!({ "iat": NOW + 31, "nbf": 0 }), Err(Refused::NotYet)),
        (json!({ "iat": true }), malformed("its `iat` is not a number of seconds since 1970")),
    ] {
        assert_eq!(now(&auth, &signed(&claims(&changed))).map(drop), expected, "{changed}");
    }
}

#[test]
fn a_token_that_lives_too_long_is_refused() {
    let auth = auth(&format!("keys = [{{ secret = \"{SECRET}\" }}]\nmax_life = \"1h\""));
    for (changed, expected) in [
        (json!({ "exp": NOW + 3600 }), Ok(())),
        (json!({ "exp": NOW + 3601, "iat": NOW }), Err(Refused::Lifetime)),
        (json!({ "exp": NOW + 60, "iat": NOW - 3541 }), Err(Refused::Lifetime)),
        (json!({ "exp": u64::MAX }), Err(Refused::Lifetime)),
    ] {
        assert_eq!(now(&auth, &signed(&claims(&changed))).map(drop), expected, "{changed}");
    }
}

#[test]
fn issuer_and_audience_are_checked_if_they_are_configured() {
    let keys = format!("keys = [{{ secret = \"{SECRET}\" }}]");
    let strict = auth(&format!("{keys}\nissuer = [\"https://a/\", \"https://b/\"]\naudience = [\"fanfare\"]"));
    let both = json!({ "iss": "https://b/", "aud": "fanfare" });
    for (changed, expected) in [
        (json!({}), Ok(())),
        (json!({ "aud": ["other", "fanfare"] }), Ok(())),
        (json!({ "iss": null }), Err(Refused::Issuer)),
        (json!({ "iss": "https://b" }), Err(Refused::Issuer)),
        (json!({ "iss": ["https://b/"] }), Err(Refused::Issuer)),
        (json!({ "aud": null }), Err(Refused::Audience)),
        (json!({ "aud": "Fanfare" }), Err(Refused::Audience)),
        (json!({ "aud": [] }), Err(Refused::Audience)),
        (json!({ "aud": { "fanfare": 1 } }), Err(Refused::Audience)),
        (json!({ "aud": [["fanfare"]] }), Err(Refused::Audience)),
    ] {
        let mut all = both.clone();
        all.as_object_mut().expect("an object").extend(changed.as_object().expect("an object").clone());
        assert_eq!(now(&strict, &signed(&claims(&all))).map(drop), expected, "{changed}");
    }
    assert!(now(&auth(&keys), &signed(&claims(&json!({ "iss": "any", "aud": "other" })))).is_ok());
}

#[test]
fn a_claim_of_the_wrong_form_refuses_the_token() {
    const SUB: &str = "its `sub` is not a string of 1 to 255 bytes without control characters";
    const MATCH: &str = "a `match` in its claim `fanfare` is not a pattern, such as \"chat:*\" or \"user:{sub}\"";
    let (longest, long) = ("u".repeat(255), "u".repeat(256));
    let (much, too_much) = ("i".repeat(4094), "i".repeat(4095));
    let auth = with_secret();
    for (changed, expected) in [
        (json!({ "sub": longest }), None),
        (json!({ "sub": "größe 日本" }), None),
        (json!({ "sub": long }), Some(SUB)),
        (json!({ "sub": "" }), Some(SUB)),
        (json!({ "sub": "a\nb" }), Some(SUB)),
        (json!({ "sub": "a\u{85}b" }), Some(SUB)),
        (json!({ "sub": 7 }), Some(SUB)),
        (json!({ "sub": null }), Some("it has no `sub`: that is the user")),
        (json!({ "jti": 7 }), Some("its `jti` is not a string")),
        (json!({ "fanfare": {} }), None),
        (json!({ "fanfare": { "info": much } }), None),
        (json!({ "fanfare": { "info": too_much } }), Some("its `fanfare.info` is longer than 4 KiB")),
        (json!({ "fanfare": [] }), Some(FORM)),
        (json!({ "fanfare": "all" }), Some(FORM)),
        (json!({ "fanfare": { "channels": "chat:*" } }), Some(FORM)),
        (json!({ "fanfare": { "channels": ["chat:*"] } }), Some(FORM)),
        (json!({ "fanfare": { "channels": [["chat:*", ["publish"]]] } }), Some(FORM)),
        (json!({ "fanfare": { "channels": [{ "match": "chat:*" }] } }), Some(FORM)),
        (json!({ "fanfare": { "channels": [{ "can": ["publish"] }] } }), Some(FORM)),
        (json!({ "fanfare": { "channels": [{ "match": "chat:*", "can": "publish" }] } }), Some(FORM)),
        (json!({ "fanfare": { "channels": [{ "match": "chat:*", "can": ["Publish"] }] } }), Some(FORM)),
        (json!({ "fanfare": { "channels": [{ "match": "chat*", "can": ["publish"] }] } }), Some(MATCH)),
        (json!({ "fanfare": { "channels": [{ "match": "", "can": [] }] } }), Some(MATCH)),
        (json!({ "fanfare": { "subscribe": "chat:1" } }), Some(FORM)),
        (json!({ "fanfare": { "subscribe": [1] } }), Some(FORM)),
    ] {
        let found = now(&auth, &signed(&claims(&changed))).map(drop);
        assert_eq!(found, expected.map_or(Ok(()), |why| Err(Refused::Malformed(why))), "{changed}");
    }
}

/// RFC 7515 A.1 and RFC 8037 A.4: tokens of other implementations, with a right signature but without a user and without
/// JSON.
#[test]
fn the_signatures_of_the_standards_examples_are_right() {
    let files = Files::new();
    let ed25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    let file = files.put("ed25519.pem", ed25519);
    let auth = auth(&format!(
        "keys = [{{ secret = \"base64:AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\" }}, \
         {{ file = {file:?} }}]"
    ));
    let hmac = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let eddsa = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
                 hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(now(&auth, hmac).map(drop), Err(Refused::Expired));
    let no_claims = Refused::Malformed(CLAIMS);
    assert_eq!(now(&auth, eddsa).map(drop), Err(no_claims));
    for token in [hmac, eddsa] {
        let (message, _) = token.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.encode([7; 64]);
        assert_eq!(now(&auth, &format!("{message}.{signature}")).map(drop), Err(Refused::Signature));
    }
}

proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(text in ".{0,200}", parts in proptest::collection::vec("[A-Za-z0-9_=-]{0,40}", 0..5)) {
        let auth = with_secret();
        prop_assert!(now(&auth, &text).is_err());
        prop_assert!(now(&auth, &parts.join(".")).is_err());
    }

    #[test]
    fn any_claims_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), name in "(exp|sub|fanfare|aud|x)") {
        let auth = with_secret();
        let header = part(&json!({ "alg": "HS256" }));
        let _ = now(&auth, &format!("{header}.{}.AAAA", URL_SAFE_NO_PAD.encode(&bytes)));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let nested: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let _ = now(&auth, &signed(&claims(&json!({ name: nested }))));
    }

    #[test]
    fn a_token_with_one_changed_byte_is_refused(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.-]") {
        let token = signed(&claims(&json!({ "iat": NOW })));
        let mut changed = token.clone();
        let at = at.index(token.len() - 1); // the last character has bits that mean nothing
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != token);
        prop_assert!(now(&with_secret(), &changed).is_err());
    }
}
