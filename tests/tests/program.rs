//! The program `fanfare` at the command line: what operators type, and what it answers.

use std::process::Stdio;

use anyhow::{Context, Result};
use real_brokers::{Redis, Scratch, Server};
use tests::tokens::OPEN;
use tests::{Client, PATIENCE, Program, binary, http};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

/// What a finished program leaves.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    code: Option<i32>,
    out: String,
    error: String,
}

#[tokio::test]
async fn a_misspelt_key_is_a_failure_that_names_the_nearest_key() -> Result<()> {
    let file = file("misspelt", "[http]\nlisten = \"127.0.0.1:8080\"\n\n[limits]\nmesage = \"1KiB\"\n")?;
    let left = run(&["check", "--config", &file], &[]).await?;
    let error = format!("unknown key `limits.mesage` in {file} (line 5): did you mean `limits.message`?\n");
    assert_eq!(left, Left { code: Some(1), out: String::new(), error: error.clone() });
    assert_eq!(run(&["--config", &file], &[]).await?, Left { code: Some(1), out: String::new(), error });
    Ok(())
}

#[tokio::test]
async fn a_valid_file_is_reported_as_valid() -> Result<()> {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/fanfare.toml");
    let valid = Left { code: Some(0), out: "Configuration file is valid\n".into(), error: String::new() };
    assert_eq!(run(&["check", "--config", example], &[]).await?, valid);
    assert_eq!(run(&["check"], &[]).await?, valid, "no file is needed");
    Ok(())
}

#[tokio::test]
async fn all_mistakes_are_reported_at_once_wherever_they_were_made() -> Result<()> {
    let file = file("wrong", "[node]\nname = \"a b\"\n")?;
    let left =
        run(&["check", "--config", &file], &[("FANFARE__HTTP__LISEN", "x"), ("FANFARE__TIMING__PING", "5")]).await?;
    assert_eq!(left.code, Some(1));
    for mistake in ["`node.name`", "(line 2)", "did you mean `FANFARE__HTTP__LISTEN`?", "FANFARE__TIMING__PING"] {
        assert!(left.error.contains(mistake), "{mistake} is not in:\n{}", left.error);
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_kind_of_broker_is_refused_with_the_known_kinds() -> Result<()> {
    for arguments in [&["--broker", "reddis://user:hunter2@host"][..], &["check"]] {
        let left = run(arguments, &[("FANFARE__BROKER__URL", "reddis://user:hunter2@host")]).await?;
        assert_eq!((left.code, left.out.as_str()), (Some(1), ""));
        assert!(left.error.contains("`reddis:`") && left.error.contains("redis://"), "{}", left.error);
        assert!(!left.error.contains("hunter2"), "{}", left.error);
    }
    Ok(())
}

#[tokio::test]
async fn check_finds_what_is_wrong_with_the_url_of_any_broker_and_shows_no_password() -> Result<()> {
    for (rest, reason) in [
        ("redis://user:hunter2@host/x", "database"),
        ("redis://user:hunter2@host?colour=red", "`colour`"),
        ("rediss://:hunter2@host?ca=/nowhere.pem", "/nowhere.pem"),
        ("kafka://user:hunter2@host:99999", "a port"),
        ("kafka://user:hunter2@host/topic?retention=soon", "`retention`"),
        ("kafka+ssl://user:hunter2@host?ca=/nowhere.pem", "/nowhere.pem"),
        ("amqp://user:hunter2@host/a/b", "%2f"),
        ("amqps://user:hunter2@host?max-bytes=1", "`max-bytes`"),
        ("rabbitmq://user:hunter2@host?ca=/nowhere.pem", "amqps://"),
    ] {
        let left = run(&["check"], &[("FANFARE__BROKER__URL", rest)]).await?;
        assert_eq!((left.code, left.out.as_str()), (Some(1), ""), "{rest}");
        assert!(left.error.contains(reason) && !left.error.contains("hunter2"), "{rest}: {}", left.error);
    }
    Ok(())
}

#[tokio::test]
async fn check_ends_at_once_with_a_reason_whatever_file_is_named() -> Result<()> {
    let scratch = Scratch::new("files")?;
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let made = Command::new("mkfifo").arg(path("pipe")).status().await?;
    anyhow::ensure!(made.success(), "mkfifo: {made}");
    let (pipe, directory) = (path("pipe"), scratch.path().display().to_string());
    for (file, why) in [("/dev/zero", "a device"), (&pipe, "a pipe"), (&directory, "a directory")] {
        let ca = |scheme: &str| format!("{scheme}://user:hunter2@host?ca={file}");
        let broker = |url| vec![("FANFARE__BROKER__URL", url)];
        let certificate = |certificate: &str, key: &str| {
            vec![("FANFARE__TLS__CERTIFICATE", certificate.to_owned()), ("FANFARE__TLS__KEY", key.to_owned())]
        };
        for environment in [broker(ca("rediss")), broker(ca("kafka+ssl")), broker(ca("amqps")), certificate(file, file)]
        {
            let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let left = run(&["check"], &environment).await?;
            assert_eq!((left.code, left.out.as_str()), (Some(1), ""), "{environment:?}");
            assert!(left.error.contains(why) && left.error.contains(file), "{environment:?}: {}", left.error);
            assert!(!left.error.contains("hunter2"), "{}", left.error);
        }
        let left = run(&["check", "--config", file], &[]).await?;
        assert_eq!(left.error, format!("cannot read {file}: it is {why}, not a regular file\n"));
    }
    Ok(())
}

#[tokio::test]
async fn a_scheme_is_the_same_in_any_case() -> Result<()> {
    for url in ["MEMORY:", "Redis://host", "KAFKA://host", "AMQP://host"] {
        let left = run(&["check"], &[("FANFARE__BROKER__URL", url)]).await?;
        assert_eq!((left.code, left.error.as_str()), (Some(0), ""), "{url}");
    }
    Ok(())
}

#[tokio::test]
async fn check_contacts_no_broker() -> Result<()> {
    let broker = std::net::TcpListener::bind("127.0.0.1:0")?;
    broker.set_nonblocking(true)?;
    for scheme in ["redis", "rediss", "kafka", "kafka+ssl", "amqp", "amqps", "rabbitmq"] {
        let url = format!("{scheme}://user:password@{}", broker.local_addr()?);
        let left = run(&["check"], &[("FANFARE__BROKER__URL", &url)]).await?;
        assert_eq!((left.code, left.error.as_str()), (Some(0), ""), "{url}");
        let called = broker.accept().map(|(_, caller)| caller);
        assert!(called.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "{url} was called");
    }
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_a_failure_that_names_it() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0").await?;
    let address = taken.local_addr()?.to_string();
    let left = run(&["--listen", &address], &[]).await?;
    let error = format!("cannot listen on {address}: Address already in use (os error 98)\n");
    assert_eq!(left, Left { code: Some(1), out: String::new(), error });
    Ok(())
}

#[tokio::test]
async fn ready_says_by_its_exit_status_whether_the_node_is() -> Result<()> {
    let node = Program::start("fanfare", &[], &[]).await?;
    http::until(node.address, "/ready", |answer| answer.status == 200).await?;
    let address = node.address.to_string();
    let ready = Left { code: Some(0), out: "ready\n".into(), error: String::new() };
    assert_eq!(run(&["ready", "--listen", &address], &[]).await?, ready);
    let everywhere = format!("0.0.0.0:{}", node.address.port());
    assert_eq!(run(&["ready"], &[("FANFARE__HTTP__LISTEN", &everywhere), OPEN]).await?, ready, "asked on the loopback");

    let redis = Redis::new(0)?;
    let waiting = Program::start("fanfare", &["--broker", &redis.inside_url()], &[]).await?;
    let left = run(&["ready", "--listen", &waiting.address.to_string()], &[]).await?;
    assert_eq!((left.code, left.out.as_str()), (Some(1), ""));
    assert!(left.error.contains("503 Service Unavailable: not ready: the broker"), "{}", left.error);

    drop(node);
    let closed = redis.port().address;
    let left = run(&["ready", "--listen", &closed.to_string()], &[]).await?;
    let error = format!("cannot ask http://{closed}/ready: Connection refused (os error 111)\n");
    assert_eq!(left, Left { code: Some(1), out: String::new(), error });
    Ok(())
}

#[tokio::test]
async fn the_banner_names_node_and_broker_and_every_address_and_no_secret() -> Result<()> {
    let redis = Redis::new(0)?;
    let host = redis.port().address;
    let url = format!("redis://user:hunter2@{host}/3?prefix=a");
    let node = Program::start("fanfare", &["--name", "blue", "--broker", &url], &[]).await?;
    node.line("broker link down").await?;
    let address = node.address;
    let output = node.output();
    let banner = format!("blue listens on http://{address}, broker redis://user:***@{host}/3?prefix=a");
    for line in [banner, format!("  http://{address}/"), format!("  ws://{address}/ws")] {
        assert!(output.lines().any(|found| found == line), "{line:?} is not in:\n{output}");
    }
    assert!(!output.contains("hunter2"), "{output}");
    Ok(())
}

#[tokio::test]
async fn flags_win_over_the_environment_and_that_wins_over_the_file() -> Result<()> {
    let file = file("layers", "[node]\nname = \"by-file\"\n\n[limits]\nchannel_name = \"8B\"\n")?;
    let name = ("FANFARE__NODE__NAME", "by-environment");
    for (flags, environment, expected) in [
        (&["--config", &file][..], &[][..], "by-file"),
        (&["--config", &file], &[name], "by-environment"),
        (&["--config", &file, "--name", "by-flag"], &[name], "by-flag"),
    ] {
        let node = Program::start("fanfare", flags, environment).await?;
        assert!(node.output().contains(&format!("{expected} listens on")), "{}", node.output());
    }
    let node = Program::start("fanfare", &["--config", &file], &[]).await?;
    http::until(node.address, "/ready", |answer| answer.status == 200).await?;
    let url = format!("http://{}", node.address);
    assert!(Client::raw(&url, "123456789").await.is_err(), "the file's limit holds");
    Client::raw(&url, "12345678").await?;
    Ok(())
}

/// Runs `fanfare` to its end.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Left> {
    let mut command = Command::new(binary("fanfare")?);
    command.args(arguments).env_clear().envs(environment.iter().copied());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.with_context(|| format!("{arguments:?} does not end"))??;
    let text = |bytes| String::from_utf8(bytes);
    Ok(Left { code: output.status.code(), out: text(output.stdout)?, error: text(output.stderr)? })
}

/// A configuration file with this content.
fn file(name: &str, content: &str) -> Result<String> {
    let path = format!("{}/{name}.toml", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, content)?;
    Ok(path)
}

#[tokio::test]
async fn a_node_that_others_can_reach_starts_only_with_keys_or_the_switch() -> Result<()> {
    let public = ("FANFARE__HTTP__LISTEN", "0.0.0.0:0");
    for command in ["serve", "check"] {
        let left = run(&[command], &[public]).await?;
        assert_eq!(left.code, Some(1), "{command}: {left:?}");
        for words in ["There are three ways", "`auth.keys`", "`auth.jwks`", "FANFARE__AUTH__ANONYMOUS=on"] {
            assert!(left.error.contains(words), "{command}: {left:?}");
        }
    }
    let (keys, secret) = tests::tokens::Issuer::keys();
    for way in [OPEN, (keys, &*secret), ("FANFARE__AUTH__JWKS", "[\"http://127.0.0.1:1/jwks\"]")] {
        let node = Program::start("fanfare", &[], &[public, way]).await?;
        http::until(node.address, "/ready", |answer| answer.status == 200).await?;
    }
    Ok(())
}
