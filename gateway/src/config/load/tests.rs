//! The values of each source, their precedence, and the text of every error.

use std::{env, fs, time::Duration};

use super::*;
use crate::config::ByteSize;

fn from_file(text: &str) -> Result<Config, ConfigErrors> {
    let mut layers = Layers::new();
    layers.file("FILE", text);
    layers.finish()
}

fn from_environment(variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    load(None, owned(variables), Overrides::default())
}

fn owned(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn error(result: Result<Config, ConfigErrors>) -> String {
    result.expect_err("no such configuration is accepted").to_string()
}

/// A file for one test, gone when it ends.
struct File(std::path::PathBuf);

impl File {
    fn holding(name: &str, text: &str) -> Self {
        let path = env::temp_dir().join(format!("fanfare-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).expect("the temporary directory is writable");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

#[test]
fn without_any_source_the_defaults_apply() {
    assert_eq!(from_environment(&[]).expect("nothing to reject"), Config::default());
    assert_eq!(from_file("").expect("nothing to reject"), Config::default());
    assert_eq!(from_file("[http]\n").expect("nothing to reject"), Config::default());
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = File::holding(
        "order",
        "[node]\nname = \"file\"\nworkers = 3\n[http]\nlisten = \"1.1.1.1:1\"\norigins = [\"*\"]\n[auth]\nanonymous = \"on\"\n",
    );
    let variables =
        owned(&[("FANFARE__NODE__NAME", "variable"), ("FANFARE__HTTP__LISTEN", "2.2.2.2:2"), ("PATH", "/bin")]);
    let flags = Overrides { name: Some("flag".into()), ..Overrides::default() };
    let config = load(Some(&file.0), variables, flags).expect("all are valid");
    assert_eq!(config.node.name, "flag");
    assert_eq!(config.http.listen.to_string(), "2.2.2.2:2");
    assert_eq!(config.http.origins, ["*"]);
    assert_eq!(config.node.workers, 3);
    assert_eq!(config.limits, Config::default().limits);
}

#[test]
fn every_kind_of_value_is_read_from_the_environment() {
    let config = from_environment(&[
        ("FANFARE__NODE__NAME", "12"),
        ("FANFARE__HTTP__ORIGINS", "https://a.example, https://b.example"),
        ("FANFARE__HTTP__MAX_CONNECTIONS", "1_000"),
        ("FANFARE__LIMITS__MESSAGE", "1024"),
        ("FANFARE__LIMITS__OUTBOX", "2MiB"),
        ("FANFARE__TIMING__IDLE", "5m"),
        ("FANFARE__BROKER__URL", "redis://user:pw@host"),
    ]);
    let config = config.expect("all are valid");
    assert_eq!(config.node.name, "12");
    assert_eq!(config.http.origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.http.max_connections, 1_000);
    assert_eq!(config.limits.message, ByteSize::kib(1));
    assert_eq!(config.limits.outbox, ByteSize::mib(2));
    assert_eq!(config.timing.idle, Some(Duration::from_secs(300)));
    assert_eq!(config.broker.url.expose(), "redis://user:pw@host");
}

#[test]
fn a_later_source_can_correct_an_earlier_one() {
    let file = File::holding("mended", "[timing]\nping = \"8s\"\n");
    assert!(load(Some(&file.0), [], Overrides::default()).is_err());
    let config = load(Some(&file.0), owned(&[("FANFARE__TIMING__PONG", "4s")]), Overrides::default());
    assert_eq!(config.expect("4s is shorter than 8s").timing.pong, Duration::from_secs(4));
}

#[test]
fn variables_of_other_programs_are_ignored() {
    let kubernetes =
        [("FANFARE_SERVICE_HOST", "10.0.0.1"), ("FANFARE_PORT", "tcp://10.0.0.1:80"), ("FANFARE_PORT_80_TCP", "x")];
    assert_eq!(from_environment(&kubernetes).expect("not ours"), Config::default());
}

#[test]
fn an_unknown_name_in_the_file_is_reported_with_its_line_and_the_nearest_name() {
    for (text, message) in [
        ("[http]\n\nlisen = 3", "unknown key `http.lisen` in FILE (line 3): did you mean `http.listen`?"),
        ("http.lisen = 3", "unknown key `http.lisen` in FILE (line 1): did you mean `http.listen`?"),
        (
            "[timing]\nmax_connections = 3",
            "unknown key `timing.max_connections` in FILE (line 2): did you mean `http.max_connections`?",
        ),
        ("listen = \"127.0.0.1:80\"", "unknown key `listen` in FILE (line 1): did you mean `http.listen`?"),
        ("[log]\ncolour = true", "unknown key `log.colour` in FILE (line 2): there are log.level"),
        ("[htpp]\nlisten = 3", "unknown section `[htpp]` in FILE (line 1): did you mean `[http]`?"),
        (
            "[redis]\nurl = 3",
            "unknown section `[redis]` in FILE (line 1): the sections are [agent], [api], [auth], [broker], [cluster], [hooks], [http], [limits], [log], [node], [presence], [timing], [tls], [webhooks], [window], [[channels]]",
        ),
        (
            "zzzzzz = 3",
            "unknown key `zzzzzz` in FILE (line 1): the sections are [agent], [api], [auth], [broker], [cluster], [hooks], [http], [limits], [log], [node], [presence], [timing], [tls], [webhooks], [window], [[channels]]",
        ),
        (
            "http = 3",
            "unknown key `http` in FILE (line 1): it is a section: write `[http]` on a line of its own, then its keys",
        ),
        (
            "[[http]]",
            "unknown key `http` in FILE (line 1): it is a section: write `[http]` on a line of its own, then its keys",
        ),
    ] {
        assert_eq!(error(from_file(text)), message);
    }
}

#[test]
fn each_rule_for_channels_is_read_with_its_place_and_in_order() {
    let file = "[[channels]]\nmatch = \"news\"\nsubscribe = \"anyone\"\n\n[[channels]]\nmatch = \"chat:{room}\"\nmessage = 100\n";
    let config = from_file(file).expect("valid");
    let read: Vec<_> = config.channels.iter().map(|rule| (rule.r#match.to_string(), rule.place.clone())).collect();
    let line = |line| Some(Place::File { file: "FILE".to_owned(), line });
    assert_eq!(read, [("news".to_owned(), line(1)), ("chat:{room}".to_owned(), line(5))]);
    assert_eq!(toml::from_str::<Config>(&config.to_string()).expect("printed").channels.len(), 2);
    let variables = [("FANFARE__CHANNELS", "[{ match = \"a\" }, { match = \"b\", last = 0 }]")];
    let config = from_environment(&variables).expect("valid");
    assert_eq!(config.channels[1].last, Some(0));
    assert_eq!(config.channels[1].place, Some(Place::Variable("FANFARE__CHANNELS".to_owned())));
}

#[test]
fn a_wrong_rule_for_channels_is_reported_with_its_key_and_line() {
    const FIRST: &str = "[[channels]]\nmatch = \"a\"\n[[channels]]\n";
    for (text, message) in [
        (
            "match = \"b\"\npublish = \"everyone\"",
            "`channels.publish` = \"everyone\" in FILE (line 5): unknown variant `everyone`, expected one of `anyone`, `user`, `token`, `hook`, `nobody`",
        ),
        (
            "match = \"b\"\nsubscrib = \"user\"",
            "unknown key `channels.subscrib` in FILE (line 5): did you mean `channels.subscribe`?",
        ),
        (
            "match = \"b*\"",
            "`channels.match` = \"b*\" in FILE (line 4): `*` must be the last segment, alone: write \"chat:*\" for all channels whose names begin with \"chat:\"",
        ),
        (
            "match = 3",
            "`channels.match` = 3 in FILE (line 4): expected a pattern such as \"chat:{room}\" or \"chat:*\"",
        ),
        (
            "match = \"b\"\nlast = 1001",
            "`channels.last` = 1001 in FILE (line 5): expected a whole number from 0 to 1000",
        ),
        ("match = \"b\"\nrate = 0", "`channels.rate` = 0 in FILE (line 5): expected a whole number from 1 to 10000"),
        ("slow = \"latest\"", "`channels` = { slow = \"latest\" } in FILE (line 3): missing field `match`"),
        (
            "match = \"b\"\nmessage = \"65KiB\"",
            "`channels.message` = 65KiB in FILE (line 3) must be at most `limits.message` = 64KiB by default: a larger message is refused before its channel is known",
        ),
    ] {
        assert_eq!(error(from_file(&format!("{FIRST}{text}"))), message);
    }
    for text in ["[channels]\nmatch = \"a\"", "channels = \"a\"", "channels = [\"a\"]"] {
        let message = error(from_file(text));
        assert!(
            message.ends_with("expected a list of tables: write `[[channels]]` above the keys of each"),
            "{message}"
        );
    }
}

#[test]
fn an_unknown_variable_is_reported_with_the_nearest_name() {
    for (name, message) in [
        (
            "FANFARE__HTTP__LISEN",
            "unknown environment variable `FANFARE__HTTP__LISEN`: did you mean `FANFARE__HTTP__LISTEN`?",
        ),
        (
            "FANFARE__HTPP__LISTEN",
            "unknown environment variable `FANFARE__HTPP__LISTEN`: did you mean `FANFARE__HTTP__LISTEN`?",
        ),
        (
            "FANFARE_HTTP_LISTEN",
            "unknown environment variable `FANFARE_HTTP_LISTEN`: did you mean `FANFARE__HTTP__LISTEN`?",
        ),
        (
            "FANFARE__HTTP_LISTEN",
            "unknown environment variable `FANFARE__HTTP_LISTEN`: did you mean `FANFARE__HTTP__LISTEN`?",
        ),
        (
            "FANFARE_BROKER__IN_FLIGHT",
            "unknown environment variable `FANFARE_BROKER__IN_FLIGHT`: did you mean `FANFARE__BROKER__IN_FLIGHT`?",
        ),
        ("FANFARE__LOG__X", "unknown environment variable `FANFARE__LOG__X`: there are FANFARE__LOG__LEVEL"),
        ("FANFARE__LOG", "unknown environment variable `FANFARE__LOG`: there are FANFARE__LOG__LEVEL"),
        (
            "FANFARE__",
            "unknown environment variable `FANFARE__`: the sections are [agent], [api], [auth], [broker], [cluster], [hooks], [http], [limits], [log], [node], [presence], [timing], [tls], [webhooks], [window], [[channels]]",
        ),
    ] {
        assert_eq!(error(from_environment(&[(name, "hunter2")])), message);
    }
}

#[test]
fn a_wrong_value_is_reported_with_what_was_expected() {
    const DURATION: &str = "a duration such as \"500ms\", \"25s\", \"5m\" or \"1h\"";
    const SIZE: &str = "a size such as \"512B\", \"64KiB\" or \"1MiB\"";
    const ADDRESS: &str = "an IP address and a port, such as \"127.0.0.1:8080\"";
    const URL: &str =
        "\"memory:\" or a URL such as \"redis://localhost\", \"kafka://localhost\" or \"amqp://localhost\"";
    for (key, value, expected) in [
        ("node.name", "3", "a name of up to 128 ASCII characters without spaces"),
        ("node.name", "\"a b\"", "a name of up to 128 ASCII characters without spaces"),
        ("node.workers", "-1", "a whole number from 0 to 1024"),
        ("http.listen", "8080", ADDRESS),
        ("http.listen", "\"127.0.0.1\"", ADDRESS),
        ("http.listen", "\"example.com:80\"", ADDRESS),
        ("http.listen", "\"127.0.0.1:99999\"", ADDRESS),
        (
            "http.listen",
            "\":8080\"",
            "an IP address before the port: \"0.0.0.0:8080\" for all, \"127.0.0.1:8080\" for this machine only",
        ),
        ("http.listen", "\"localhost:8080\"", "an IP address, not a name: \"127.0.0.1:8080\""),
        ("http.origins", "\"*\"", "a list of strings, such as [\"one\", \"two\"]"),
        ("http.origins", "[1]", "a string"),
        ("http.max_connections", "0", "a whole number from 1 to 10000000"),
        ("limits.fragments", "\"many\"", "a whole number from 1 to 1000000"),
        ("limits.fragments", "1.5", "a whole number from 1 to 1000000"),
        ("limits.fragments", "99999999999999999999", "a number that fits 64 bits"),
        ("limits.message", "\"64KB\"", "a whole number and one of the units B, KiB, MiB, GiB"),
        ("limits.message", "\"2GiB\"", "at most \"1GiB\""),
        ("limits.message", "1.5", SIZE),
        ("limits.outbox", "0", "at least \"1B\", and no more than the machine can address"),
        ("limits.outbox", "-1", "at least \"1B\", and no more than the machine can address"),
        ("limits.channel_name", "65536", "at most \"65535B\""),
        ("timing.ping", "30", "a unit (ms, s, m or h), such as \"30s\" for 30 seconds"),
        ("timing.ping", "\"30\"", "a unit (ms, s, m or h), such as \"30s\" for 30 seconds"),
        ("timing.ping", "-30", DURATION),
        ("timing.ping", "2.5", DURATION),
        ("timing.ping", "\"soon\"", DURATION),
        ("timing.ping", "\"0s\"", "a duration from \"1ms\" to \"720h\""),
        ("timing.ping", "\"off\"", DURATION),
        ("timing.idle", "\"0s\"", "a duration from \"1ms\" to \"720h\", or \"off\""),
        ("timing.idle", "0", "\"off\", or a duration with its unit, such as \"5m\""),
        ("timing.idle", "30", "a unit (ms, s, m or h), such as \"30s\" for 30 seconds"),
        ("broker.url", "\"localhost:6379\"", URL),
        ("broker.url", "3", URL),
        ("broker.partitions", "1025", "a whole number from 1 to 1024"),
        ("log.level", "[]", "a string"),
    ] {
        let message = format!("`{key}` = {value} in FILE (line 1): expected {expected}");
        assert_eq!(error(from_file(&format!("{key} = {value}"))), message);
    }
}

#[test]
fn a_wrong_value_is_reported_with_its_variable_or_flag() {
    assert_eq!(
        error(from_environment(&[("FANFARE__TIMING__PING", "30")])),
        "`timing.ping` = \"30\" in the environment variable FANFARE__TIMING__PING: \
         expected a unit (ms, s, m or h), such as \"30s\" for 30 seconds"
    );
    let flags = Overrides { listen: Some(":80".into()), broker: Some("redis".into()), name: None };
    assert_eq!(
        error(load(None, [], flags)),
        "`http.listen` = \":80\" in --listen: expected an IP address before the port: \
         \"0.0.0.0:80\" for all, \"127.0.0.1:80\" for this machine only\n\
         `broker.url` = \"redis\" in --broker: expected \"memory:\" or a URL such as \"redis://localhost\", \"kafka://localhost\" or \"amqp://localhost\""
    );
}

#[test]
fn values_that_contradict_each_other_are_reported_with_their_places() {
    let file = "[limits]\nmessage = \"40MiB\"\noutbox = \"64MiB\"\noutbox_total = 65536\n[timing]\npong = \"60s\"\n";
    assert_eq!(
        error(from_file(file)),
        "`limits.message` = 40MiB in FILE (line 2) must be at most half of `limits.outbox` = 64MiB in FILE (line 3): \
         a message must fit into an outbox together with what surrounds it\n\
         `limits.outbox` = 64MiB in FILE (line 3) must be at most `limits.outbox_total` = 65536 in FILE (line 4): \
         the outbox of one client is part of the total\n\
         `limits.message` = 40MiB in FILE (line 2) must be at most half of `broker.in_flight_bytes` = 64MiB by default: \
         a message must fit among the publishes in flight together with what surrounds it\n\
         `timing.pong` = 60s in FILE (line 6) must be shorter than `timing.ping` = 25s by default: \
         a ping must be answered before the next is sent"
    );
    assert_eq!(
        error(from_file("limits.channels_per_connection = 2000")),
        "`limits.channels_per_connection` = 2000 in FILE (line 1) must be at most `limits.channels_per_user` = 1000 by default: \
         the subscriptions of a connection are part of those of its user"
    );
}

#[test]
fn invalid_toml_is_reported_with_line_and_column_but_without_the_text() {
    const QUOTES: &str = "; text, durations and sizes stand in quotes";
    for (text, place, message) in [
        ("\n[http", "line 2, column 6", "unclosed table, expected `]`".to_owned()),
        (
            "[timing]\nping = 25s",
            "line 2, column 8",
            format!("string values must be quoted, expected literal string{QUOTES}"),
        ),
        ("[http]\nlisten = 127.0.0.1:80", "line 2, column 15", format!("invalid float, expected nothing{QUOTES}")),
        ("[log]\nlevel = info", "line 2, column 9", format!("invalid float, expected `inf`{QUOTES}")),
        ("[node]\nname = \"a\"\nname = \"b\"", "line 3, column 1", "duplicate key".to_owned()),
        (
            "[broker]\nurl = \"redis://u:hunter2@h",
            "line 2, column 27",
            "invalid basic string, expected `\"`".to_owned(),
        ),
        (
            "[broker]\nurl = redis://u:hunter2@h",
            "line 2, column 7",
            format!("string values must be quoted, expected literal string{QUOTES}"),
        ),
    ] {
        assert_eq!(error(from_file(text)), format!("FILE ({place}) is not valid TOML: {message}"));
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let file = File::holding("all", "[http]\nlisen = 1\n[timing]\nping = 30\n[nod]\n");
    let variables = owned(&[("FANFARE__LOG__LEVLE", "info"), ("FANFARE__BROKER__PARTITIONS", "0")]);
    let flags = Overrides { listen: Some("here".into()), ..Overrides::default() };
    let errors = load(Some(&file.0), variables, flags).expect_err("six things are wrong");
    let text = errors.to_string();
    assert_eq!(errors.iter().count(), 6, "{text}");
    for word in ["http.lisen", "timing.ping", "[nod]", "LEVLE", "broker.partitions", "--listen"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_reported_with_the_reason() {
    let result = load(Some(Path::new("/nowhere/fanfare.toml")), [], Overrides::default());
    assert_eq!(error(result), "cannot read /nowhere/fanfare.toml: No such file or directory (os error 2)");
}

#[test]
fn a_file_that_has_no_end_or_is_no_text_is_an_error_at_once() {
    for (path, why) in [
        ("/dev/zero", "it is a device, not a regular file"),
        ("/dev/null", "it is a device, not a regular file"),
        ("/tmp", "it is a directory, not a regular file"),
    ] {
        let result = load(Some(Path::new(path)), [], Overrides::default());
        assert_eq!(error(result), format!("cannot read {path}: {why}"));
    }
    let file = File::holding("latin", "");
    fs::write(&file.0, b"[node]\nname = \"\xe9\"").expect("the temporary directory is writable");
    let text = error(load(Some(&file.0), [], Overrides::default()));
    assert!(text.ends_with("it is not a text in UTF-8"), "{text}");
}

#[test]
fn a_node_that_no_client_could_use_is_refused_and_each_of_the_three_ways_helps() {
    const WAYS: &str = "otherwise no client could connect. There are three ways: keys for tokens (`auth.keys`, which `fanfare \
                        genkey` makes, or `auth.jwks`), a backend that is asked about each client (`hooks.connect`), or \
                        `auth.anonymous = \"on\"` (FANFARE__AUTH__ANONYMOUS=on), which lets in every client that reaches the node";
    let public = "[http]\nlisten = \"0.0.0.0:80\"\n";
    assert_eq!(
        error(from_file(public)),
        format!(
            "`auth.anonymous` = auto by default must be \"on\", unless there are keys for tokens or `hooks.connect`, with \
             `http.listen` = 0.0.0.0:80 in FILE (line 2): {WAYS}"
        )
    );
    assert!(error(from_file("[auth]\nanonymous = \"off\"\n")).ends_with(WAYS));
    for way in [
        "keys = [{ secret = \"0123456789abcdef0123456789abcdef\" }]",
        "[[auth.keys]]\nkid = \"a\"\nfile = \"public.pem\"",
        "jwks = [\"https://login.example.com/keys\"]",
        "anonymous = \"on\"",
        "[hooks]\nconnect = \"http://backend/hooks\"",
    ] {
        assert!(from_file(&format!("{public}[auth]\n{way}\n")).is_ok(), "{way}");
    }
    let variables = [("FANFARE__HTTP__LISTEN", "[::]:80"), ("FANFARE__AUTH__ANONYMOUS", "on")];
    assert!(from_environment(&variables).is_ok());
    let secret = ("FANFARE__AUTH__KEYS", "[{ secret = \"0123456789abcdef0123456789abcdef\" }]");
    assert!(from_environment(&[variables[0], secret]).is_ok());
}

#[test]
fn a_cookie_that_any_host_could_set_is_refused() {
    let text = error(from_file("[http]\nlisten = \"0.0.0.0:80\"\n[auth]\nanonymous = \"on\"\ncookie = \"session\"\n"));
    assert_eq!(
        text,
        "`auth.cookie` = session in FILE (line 5) must be a name that begins with `__Host-` or `__Secure-` with \
         `http.listen` = 0.0.0.0:80 in FILE (line 2): any other cookie could be set without TLS or by another host"
    );
}

#[test]
fn a_rule_that_asks_a_hook_needs_its_url_and_not_everything_can_be_asked() {
    const RULE: &str = "[[channels]]\nmatch = \"a\"\n";
    assert_eq!(
        error(from_file(&format!("{RULE}publish = \"hook\""))),
        "`channels.publish` = hook in FILE (line 1) must be accompanied by `hooks.publish` =  by default: otherwise there is no \
         backend to ask: set its URL"
    );
    for url in ["http://127.0.0.1:3000/hooks", "https://api.example.com/?key=1"] {
        let text = format!("[hooks]\npublish = \"{url}\"\n{RULE}publish = \"hook\"");
        assert!(from_file(&text).is_ok(), "{url}");
    }
    for (text, words) in [
        (&*format!("{RULE}history = \"hook\""), "no backend is asked about this; say \"token\""),
        ("[hooks]\ntimeout = \"11s\"", "at most \"10s\""),
        ("[hooks]\nfail_open = [\"history\"]", "expected \"connect\", \"subscribe\" or \"publish\""),
        ("[hooks]\nconnect = \"127.0.0.1:3000\"", "expected a URL with https or http"),
    ] {
        let error = error(from_file(text));
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn no_error_shows_a_secret_of_a_key() {
    for (text, words) in [
        ("[auth]\nkeys = [{ secret = \"hunter2\" }]", "at least 32 bytes, this one has 7"),
        ("[auth]\nkeys = [{ secret = \"base64:hunter2!\" }]", "base64"),
        ("[auth]\nkeys = [{ algorithm = \"hunter2\" }]", "expected an algorithm"),
        ("[auth]\nkeys = [{ scret = \"hunter2\" }]", "did you mean `auth.keys.secret`?"),
        ("[auth]\nkeys = [\"hunter2\"]", "expected a list of tables"),
        ("[auth]\nkeys = \"hunter2\"", "expected a list"),
        ("[auth]\nkeys = [{ secret = 7777777777777777777777777777777 }]", "64 bits"),
        ("[auth]\nkey = [{ secret = \"hunter2\" }]", "unknown key `auth.key`"),
        ("[auth]\nsecret = \"hunter2\"", "unknown key `auth.secret`"),
        ("[api]\nkeys = [{ id = \"a\", can = [], secret = \"hunter2\" }]", "at least 32 bytes, this one has 7"),
        ("[api]\nkeys = [{ id = \"a\", can = [], hash = \"hunter2\" }]", "fanfare genkey api"),
        ("[api]\nkeys = [{ id = \"a\", can = [], scret = \"hunter2\" }]", "did you mean `api.keys.secret`?"),
        ("[api]\nkeys = [{ can = [], secret = \"hunter2-hunter2-hunter2-hunter2-hunter2\" }]", "missing field `id`"),
        ("[api]\nkeys = \"hunter2\"", "expected a list"),
        ("[auth]\nkeys = [{ secret = \"hunter2 }]", "not valid TOML"),
        ("[auth]\njwks = [\"https://user:hunter2@h/\"]", "without user and password"),
        ("[auth]\njwks = [\"http://h/?key=hunter2\"]", "only for localhost"),
        ("[hooks]\nsecret = \"hunter2\"", "at least 32 bytes, this one has 7"),
        ("[hooks]\nconnect = \"http://user:hunter2@h/\"", "without user and password"),
    ] {
        let errors = from_file(text).expect_err("each is wrong");
        assert!(
            !format!("{errors} {errors:?}").contains("hunter2") && !errors.to_string().contains("7777"),
            "{errors:?}"
        );
        assert!(errors.to_string().contains(words), "{errors}");
    }
    let text = error(from_environment(&[("FANFARE__AUTH__KEYS", "hunter2, hunter2")]));
    assert!(!text.contains("hunter2") && text.contains("expected a list of tables"), "{text}");
}

#[test]
fn no_error_shows_a_password() {
    for text in [
        "[broker]\nurl = [\"redis://u:hunter2@h\"]",
        "[broker]\nulr = \"redis://u:hunter2@h\"",
        "[broker]\nurl = \"://u:hunter2@h?token=hunter2\"",
        "[broker]\nurl = \"redis://u:hunter2@h",
        "[node]\nworkers = \"redis://u:hunter2@h?password=hunter2\"",
        "[broker]\nurl = \"redis://u:hunter2@h\"\nurl = \"redis://u:hunter2@h\"",
    ] {
        let errors = from_file(text).expect_err("each is wrong");
        assert!(!format!("{errors} {errors:?}").contains("hunter2"), "{errors:?}");
    }
}
