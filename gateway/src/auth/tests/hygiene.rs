//! No part of a token, a secret or a key is ever shown.

use std::io;
use std::sync::{LazyLock, Mutex};

use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// With one subscriber, `tracing` asks only the thread that first reaches a log line whether it is wanted, and remembers the
/// answer for all threads; other tests reach the same lines. With two, it asks both subscribers.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));

/// Collects the lines of a log.
#[derive(Clone, Default)]
pub(in crate::auth) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Collects everything that this thread logs, at every level, until the guard is dropped.
    pub(in crate::auth) fn collect(&self) -> tracing::subscriber::DefaultGuard {
        LazyLock::force(&SECOND);
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(self.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    pub(in crate::auth) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no test panics here")).into_owned()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics here").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[test]
fn nothing_of_a_token_or_a_key_is_logged_or_printed() {
    let lines = Lines::default();
    let guard = lines.collect();
    let canary = "canary";
    let keys = format!("keys = [{{ kid = \"k\\u001b[31m\", secret = \"{SECRET}\" }}, {{ secret = \"{SECRET}\" }}]");
    let strict = auth(&format!("{keys}\nissuer = [\"me\"]\naudience = [\"me\"]"));
    let mut texts = vec![format!("{:?} {}", config(&keys), config(&keys))];
    let mut tokens: Vec<String> = [
        json!({ "sub": canary, "exp": canary }),
        json!({ "sub": canary, "exp": 1 }),
        json!({ "sub": canary, "nbf": NOW + 99 }),
        json!({ "sub": canary, "iss": canary }),
        json!({ "sub": canary, "iss": "me", "aud": canary }),
        json!({ "sub": "canary\n", "iss": "me", "aud": "me" }),
        json!({ "iss": "me", "aud": "me", "fanfare": canary }),
        json!({ "iss": "me", "aud": "me", "fanfare": { "channels": [{ "match": "canary*", "can": [] }] } }),
    ]
    .iter()
    .map(|changed| signed(&claims(changed)))
    .collect();
    tokens.extend([canary.to_owned(), format!("{canary}.{canary}.{canary}"), canary.repeat(2000)]);
    for (at, token) in tokens.iter().enumerate() {
        let refused = now(&strict, token).expect_err("each is wrong");
        texts.push(format!("{refused} {refused:?}"));
        let shown = texts.join("\n") + &lines.text();
        let hidden = [canary, token, SECRET].iter().all(|secret| !shown.contains(secret));
        assert!(hidden, "token {at}: {shown}");
    }
    drop(guard);
    let log = lines.text();
    assert!(log.contains("expired") && log.contains("audience"), "{log}");
    assert_eq!(log.lines().count(), log.matches("a token is refused").count(), "one line each: {log}");
}
