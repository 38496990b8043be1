//! `token`: makes a token for a user, for trying things out and for scripts.
//!
//! Never prints and never exits: [`program`](crate::program) does.

use std::path::PathBuf;
use std::time::Duration;

use broker_adapters::wall_clock;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::auth::signer::Signer;
use crate::config::{Config, parse_duration};
use crate::gate::{Pattern, Verb};

/// The flags of `token`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Options {
    /// The user, which is the token's `sub`.
    #[arg(long, value_name = "USER", value_parser = user)]
    user: String,
    /// A channel or a pattern, such as `chat:*`, that --can is for. May be repeated.
    #[arg(long = "channel", value_name = "PATTERN", value_parser = pattern)]
    channels: Vec<String>,
    /// What the user may do there: subscribe, publish, presence, history; separated by commas.
    #[arg(long, value_name = "VERBS", value_delimiter = ',', value_parser = verb, default_value = "subscribe", requires = "channels")]
    can: Vec<Verb>,
    /// How long the token is valid, such as 30s, 15m or 12h.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
    /// Configuration file (TOML) with the secret, the issuer and the audience; variables FANFARE__SECTION__KEY override it.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// File with the secret that signs the token, instead of a secret from the configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    secret_file: Option<PathBuf>,
    /// PEM file with the private key that signs the token, instead of a secret from the configuration.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Name of the key; in the configuration, it chooses the secret.
    #[arg(long, value_name = "KID")]
    kid: Option<String>,
    /// What others see of the user: any JSON, up to 4 KiB.
    #[arg(long, value_name = "JSON", value_parser = info)]
    info: Option<Value>,
    /// A channel to subscribe the client to at once. May be repeated.
    #[arg(long, value_name = "CHANNEL")]
    subscribe: Vec<String>,
}

/// Makes the token.
///
/// # Errors
/// Fails if there is no key that can sign.
pub fn make(options: &Options, config: &Config) -> anyhow::Result<String> {
    let kid = options.kid.as_deref();
    let signer = match (&options.secret_file, &options.key) {
        (Some(file), _) => Signer::from_secret_file(file, kid),
        (None, Some(file)) => Signer::from_private_key_file(file, kid),
        (None, None) => Signer::from_config(&config.auth.keys, kid)
            .map_err(|why| format!("{why}: name a file with --secret-file or --key, or a configuration with --config")),
    };
    let signer = signer.map_err(anyhow::Error::msg)?;
    signer.sign(&claims(options, config, wall_clock() / 1000)).map_err(anyhow::Error::msg)
}

/// The claims of a token that is issued now, in seconds since 1970.
fn claims(options: &Options, config: &Config, now: u64) -> Value {
    let mut own = Map::new();
    if let Some(info) = &options.info {
        own.insert("info".to_owned(), info.clone());
    }
    if !options.channels.is_empty() {
        let entries = options.channels.iter().map(|pattern| json!({ "match": pattern, "can": options.can }));
        own.insert("channels".to_owned(), entries.collect());
    }
    if !options.subscribe.is_empty() {
        own.insert("subscribe".to_owned(), json!(options.subscribe));
    }
    let mut claims = json!({ "sub": options.user, "iat": now, "exp": now.saturating_add(options.ttl.as_secs()) });
    for (name, value) in [("iss", config.auth.issuer.first()), ("aud", config.auth.audience.first())] {
        if let Some(value) = value {
            claims[name] = json!(value);
        }
    }
    if !own.is_empty() {
        claims["fanfare"] = Value::Object(own);
    }
    claims
}

fn user(text: &str) -> Result<String, String> {
    let fits = (1..=255).contains(&text.len()) && !text.contains(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("a user has 1 to 255 bytes without control characters".to_owned()) }
}

fn pattern(text: &str) -> Result<String, String> {
    text.parse::<Pattern>().map(|pattern| pattern.to_string()).map_err(|why| why.to_string())
}

fn verb(text: &str) -> Result<Verb, String> {
    let names = Verb::ALL.map(Verb::name).join(", ");
    Verb::ALL.into_iter().find(|verb| verb.name() == text).ok_or(format!("there are {names}"))
}

fn info(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(info) if text.len() <= 4096 => Ok(info),
        Ok(_) => Err("it is longer than 4 KiB".to_owned()),
        Err(_) => Err("it is not JSON: a text has quotes, as in '\"Ann\"'".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::auth::{Auth, Verification};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(arguments: &[&str]) -> Result<Options, String> {
        let line = Line::try_parse_from([&["token"], arguments].concat());
        line.map(|line| line.options).map_err(|error| error.to_string())
    }

    fn configured(lines: &str) -> Config {
        Config { auth: toml::from_str(lines).expect(lines), ..Config::default() }
    }

    const KEYS: &str = "keys = [{ kid = \"old\", secret = \"0123456789abcdef0123456789abcdef\" }, \
                        { kid = \"new\", secret = \"abcdef0123456789abcdef0123456789\" }]\n\
                        issuer = [\"me\"]\naudience = [\"here\"]";

    #[test]
    fn a_token_that_it_makes_is_accepted_by_a_node_with_the_same_configuration() {
        let config = configured(KEYS);
        let options = parsed(&[
            "--user",
            "ann",
            "--channel",
            "chat:*",
            "--channel",
            "user:{sub}",
            "--can",
            "subscribe,publish",
            "--ttl",
            "15m",
            "--info",
            "{\"name\":\"Ann\"}",
            "--subscribe",
            "chat:1",
            "--kid",
            "new",
        ])
        .expect("good flags");
        let token = make(&options, &config).expect("a secret");
        let now = wall_clock() / 1000;
        let auth = Auth::new(&config).expect("good keys");
        let Verification::Now(Ok(identity)) = auth.verify(&token, now) else { panic!("the token is good") };
        assert_eq!(
            (identity.user(), identity.extras.as_ref().and_then(|extras| extras.info.as_deref())),
            (Some("ann"), Some("{\"name\":\"Ann\"}"))
        );
        let rights = identity.rights.as_ref().expect("a list of channels");
        assert_eq!(rights.0.len(), 2);
        assert!(rights.grant(Verb::Publish, "user:ann", Some("ann")).is_some());
        assert_eq!(identity.subscribe()[0].as_ref(), "chat:1");
        assert!((now + 899..=now + 900).contains(&identity.token.expect("a token").expires()));
    }

    #[test]
    fn without_a_key_that_can_sign_it_says_where_to_find_one() {
        let options = parsed(&["--user", "ann"]).expect("good flags");
        let error = make(&options, &Config::default()).expect_err("no key").to_string();
        assert!(error.contains("--secret-file") && error.contains("--key") && error.contains("--config"), "{error}");
        let options = parsed(&["--user", "ann", "--kid", "other"]).expect("good flags");
        let error = make(&options, &configured(KEYS)).expect_err("no such key").to_string();
        assert!(error.contains("no secret with the kid \"other\"") && !error.contains("0123"), "{error}");
    }

    #[test]
    fn a_wrong_flag_is_refused_with_what_was_expected() {
        for (arguments, message) in [
            (&["--user", ""][..], "1 to 255 bytes"),
            (&["--user", "a", "--channel", "chat*"], "`*` must be the last segment"),
            (&["--user", "a", "--channel", "c", "--can", "write"], "there are subscribe, publish, presence, history"),
            (&["--user", "a", "--can", "publish"], "--channel <PATTERN>"),
            (&["--user", "a", "--info", "Ann"], "a text has quotes"),
            (&["--user", "a", "--ttl", "soon"], "--ttl <TIME>"),
            (&["--user", "a", "--key", "k", "--secret-file", "s"], "cannot be used with"),
            (&[], "--user <USER>"),
        ] {
            let error = parsed(arguments).expect_err("wrong");
            assert!(error.contains(message), "{arguments:?}: {error}");
        }
    }
}
