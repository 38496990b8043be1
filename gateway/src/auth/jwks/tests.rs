//! Keys from a server on loopback that is down, slow, wrong, or has other keys.

use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::auth::generate::{self, Kind, Pair};
use crate::auth::signer::Signer;
use crate::auth::tests::{Files, NOW, SECRET, auth, claims, hygiene::Lines, part, signed};
use crate::auth::{Auth, Refused, Verification, Verified};

/// What the server answers.
#[derive(Clone)]
enum Answer {
    /// A head without the status line's end, and a body.
    Page(&'static str, String),
    /// Nothing: the connection stays open.
    Silence,
}

/// A key pair, and its public half as a key set has it.
struct Owner {
    signer: Signer,
    jwk: Value,
}

impl Owner {
    fn new(kid: &str) -> Self {
        let Pair { private, public } = generate::pair(Kind::EdDsa).expect("random numbers");
        let files = Files::new();
        let signer = Signer::from_private_key_file(files.put("key", &private).as_ref(), Some(kid)).expect("a key");
        let der = public.lines().filter(|line| !line.starts_with('-')).collect::<String>();
        // The last 32 of 44 bytes, which are whole groups of base64.
        let x = der[16..].trim_end_matches('=').replace('+', "-").replace('/', "_");
        Self { signer, jwk: json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig" }) }
    }

    fn token(&self) -> String {
        self.signer.sign(&claims(&json!({}))).expect("it signs")
    }
}

fn set(owners: &[&Owner]) -> Answer {
    let keys: Vec<_> = owners.iter().map(|owner| &owner.jwk).collect();
    Answer::Page("200 OK", json!({ "keys": keys }).to_string())
}

/// A server and a node's keys that come from it.
struct Stage {
    auth: Auth,
    answer: Arc<Mutex<Answer>>,
    requests: watch::Receiver<usize>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Stage {
    async fn new(first: Answer, more: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let answer = Arc::new(Mutex::new(first));
        let (count, requests) = watch::channel(0);
        let answers = Arc::clone(&answer);
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answers, count) = (Arc::clone(&answers), count.clone());
                tokio::spawn(async move {
                    if stream.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0) {
                        count.send_modify(|count| *count += 1);
                        let answer = answers.lock().expect("no test panics here").clone();
                        let Answer::Page(status, body) = answer else { return std::future::pending().await };
                        let length = body.len();
                        let head =
                            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                        let _ = stream.write_all((head + &body).as_bytes()).await;
                    }
                });
            }
        });
        let auth = auth(&format!("jwks = [\"http://{address}/keys?api_key=canary\"]\n{more}"));
        let node = tokio::spawn(auth.clone().run());
        Self { auth, answer, requests, tasks: [server, node] }
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock().expect("no test panics here") = answer;
    }

    fn source(&self) -> &Source {
        &self.auth.0.sources[0]
    }

    /// Waits until this many attempts have ended.
    async fn attempts(&self, number: u64) {
        let mut states = self.source().state.subscribe();
        states.wait_for(|state| state.ended >= number).await.expect("the source lives");
    }

    fn requests(&self) -> usize {
        *self.requests.borrow()
    }

    async fn verify(&self, token: &str) -> Verified {
        match self.auth.verify(token, NOW) {
            Verification::Now(verified) => verified,
            Verification::Later(verified) => verified.await,
        }
    }

    async fn outcome(&self, token: &str) -> Result<(), Refused> {
        self.verify(token).await.map(drop)
    }
}

/// Lets time pass, without waiting. The clock runs on afterwards, so that sockets have the time that they need.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_token_that_comes_before_the_first_keys_waits_for_them() {
    let owner = Owner::new("a");
    let stage = Stage::new(set(&[&owner]), "").await;
    // The server has not even been asked.
    assert!(matches!(stage.auth.verify(&owner.token(), NOW), Verification::Later(_)));
    assert_eq!(stage.outcome(&owner.token()).await, Ok(()));
    assert!(matches!(stage.auth.verify(&owner.token(), NOW), Verification::Now(Ok(_))));
    assert_eq!(stage.requests(), 1);
}

#[tokio::test]
async fn a_thousand_unknown_keys_cause_one_fetch() {
    let (owner, stranger) = (Owner::new("a"), Owner::new("b"));
    let stage = Stage::new(set(&[&owner]), "").await;
    stage.attempts(1).await;
    pass(EARLY).await;
    let verifications: Vec<_> = (0..1000)
        .map(|number| {
            let kid = format!("unknown-{number}");
            let header = part(&json!({ "alg": "EdDSA", "kid": kid }));
            let token = format!("{header}.{}.AAAA", part(&claims(&json!({}))));
            match stage.auth.verify(&token, NOW) {
                Verification::Later(verified) => verified,
                Verification::Now(verified) => panic!("it waits: {:?}", verified.map(drop)),
            }
        })
        .collect();
    for verified in futures_util::future::join_all(verifications).await {
        assert_eq!(verified.map(drop), Err(Refused::UnknownKey));
    }
    assert_eq!(stage.requests(), 2);
    // Until 30 s have passed, another one is refused at once.
    assert!(matches!(stage.auth.verify(&stranger.token(), NOW), Verification::Now(Err(Refused::UnknownKey))));
    assert_eq!(stage.outcome(&owner.token()).await, Ok(()));
    assert_eq!(stage.requests(), 2);
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let (old, new) = (Owner::new("old"), Owner::new("new"));
    let stage = Stage::new(set(&[&old]), "").await;
    stage.attempts(1).await;
    stage.answer(set(&[&old, &new]));
    assert_eq!(stage.outcome(&new.token()).await, Err(Refused::UnknownKey));
    pass(EARLY).await;
    assert_eq!(stage.outcome(&new.token()).await, Ok(()));
    assert_eq!(stage.outcome(&old.token()).await, Ok(()));
    stage.answer(set(&[&new]));
    pass(FRESH).await;
    stage.attempts(3).await;
    assert_eq!(stage.outcome(&old.token()).await, Err(Refused::UnknownKey), "a key that is gone is no longer used");
}

#[tokio::test]
async fn a_key_of_the_same_name_is_replaced_and_a_wrong_signature_causes_no_fetch() {
    let (old, new) = (Owner::new("a"), Owner::new("a"));
    let stage = Stage::new(set(&[&old]), "").await;
    stage.attempts(1).await;
    pass(EARLY).await;
    assert!(matches!(stage.auth.verify(&new.token(), NOW), Verification::Now(Err(Refused::Signature))));
    assert_eq!(stage.requests(), 1);
}

#[tokio::test]
async fn keys_stay_in_use_while_the_url_is_down_for_the_time_that_is_set() {
    let owner = Owner::new("a");
    let stage = Stage::new(set(&[&owner]), "jwks_keep = \"1h\"").await;
    stage.attempts(1).await;
    for answer in [
        Answer::Page("503 Service Unavailable", String::new()),
        Answer::Page("302 Found\r\nlocation: /other", String::new()),
        Answer::Page("200 OK", "<html>".to_owned()),
        Answer::Page("200 OK", r#"{"keys":[]}"#.to_owned()),
        Answer::Page("200 OK", " ".repeat(300 * 1024)),
    ] {
        let ended = stage.source().state.borrow().ended;
        stage.answer(answer);
        pass(FRESH).await;
        stage.attempts(ended + 1).await;
        assert_eq!(stage.outcome(&owner.token()).await, Ok(()), "attempt {ended}");
    }
    pass(Duration::from_secs(3600)).await;
    assert_eq!(stage.outcome(&owner.token()).await, Err(Refused::Unavailable), "more than an hour");
    stage.answer(set(&[&owner]));
    let mut states = stage.source().state.subscribe();
    // At most two: one attempt may be under way and get the old answer.
    while stage.source().keys().is_none() {
        let ended = states.borrow_and_update().ended;
        pass(PAUSE).await;
        states.wait_for(|state| state.ended > ended).await.expect("the source lives");
    }
    assert_eq!(stage.outcome(&owner.token()).await, Ok(()), "it is up again");
}

#[tokio::test]
async fn a_url_that_has_never_answered_makes_tokens_temporarily_unavailable() {
    let owner = Owner::new("a");
    let stage = Stage::new(Answer::Page("500 Oops", String::new()), "").await;
    stage.attempts(1).await;
    let refused = stage.outcome(&owner.token()).await.expect_err("no keys");
    assert!(refused == Refused::Unavailable && refused.is_temporary());
}

#[tokio::test]
async fn a_silent_server_delays_a_token_for_seconds_and_others_not_at_all() {
    let owner = Owner::new("a");
    let stage = Stage::new(
        Answer::Silence,
        &format!("keys = [{{ kid = \"own\", secret = \"{SECRET}\" }}, {{ secret = \"{SECRET}\" }}]"),
    )
    .await;
    stage.requests.clone().wait_for(|requests| *requests == 1).await.expect("the server lives");
    let Verification::Later(waiting) = stage.auth.verify(&owner.token(), NOW) else { panic!("it waits for the fetch") };
    assert!(
        matches!(stage.auth.verify(&signed(&claims(&json!({}))), NOW), Verification::Now(Ok(_))),
        "another key is at hand"
    );
    let waiting = tokio::spawn(waiting);
    pass(Duration::from_secs(5)).await;
    stage.attempts(1).await;
    let refused = waiting.await.expect("no panic").map(drop);
    assert!(matches!(refused, Err(Refused::Unavailable | Refused::Algorithm)), "{refused:?}");
}

#[tokio::test]
async fn redirects_are_not_followed_and_the_log_has_only_the_host() {
    let lines = Lines::default();
    let guard = lines.collect();
    let owner = Owner::new("a");
    let target = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let head = format!("307 Temporary Redirect\r\nlocation: http://{}/", target.local_addr().expect("it is bound"));
    let stage = Stage::new(Answer::Page(head.leak(), String::new()), "").await;
    stage.attempts(1).await;
    assert_eq!(stage.outcome(&owner.token()).await, Err(Refused::Unavailable));
    let followed = tokio::time::timeout(Duration::ZERO, target.accept()).await;
    assert!(followed.is_err(), "the other server was asked");
    stage.answer(set(&[&owner]));
    stage.attempts(2).await;
    assert_eq!(stage.outcome(&owner.token()).await, Ok(()));
    drop(guard);
    let log = lines.text();
    assert!(log.contains("it redirects (status 307)") && log.contains("127.0.0.1"), "{log}");
    assert!(!log.contains("canary") && !log.contains(&owner.token()), "{log}");
}
