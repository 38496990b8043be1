//! TLS in the node. What speaks TLS to it is HAProxy, which checks the certificate, and openssl.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tests::certificate::Certificate;
use tests::tunnel::Tunnel;
use tests::wire::{Frame, Head, Wire};
use tests::{PATIENCE, Program, agent, binary};
use tokio::process::Command;
use tokio::time::timeout;

/// A ready node that speaks TLS with this certificate.
async fn serve(certificate: &Certificate, more: &[(&str, &str)]) -> Result<Program> {
    let own = certificate.environment();
    let mut environment: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    environment.push(("FANFARE__AGENT__LISTEN", "127.0.0.1:0"));
    environment.extend(more);
    let node = Program::start("fanfare", &[], &environment).await?;
    agent::until(agent::of(&node).await?, "up").await?;
    Ok(node)
}

/// What reaches the node over TLS, if it shows this certificate.
async fn trusting(certificate: &Certificate, node: &Program, more: &str) -> Result<Tunnel> {
    let file = certificate.file();
    Tunnel::start(node.address, &format!("ssl verify required ca-file {} {more}", file.display())).await
}

/// What openssl says of a handshake.
async fn handshake(node: &Program, options: &[&str]) -> Result<String> {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &node.address.to_string()]).args(options);
    openssl.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, openssl.output()).await.context("openssl does not end")??;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A socket and its conversation: what it says comes back.
async fn converse(wire: &mut Wire, text: &str) -> Result<()> {
    wire.send(Frame::text(text).bytes()).await?;
    let answer = wire.message().await?;
    ensure!(answer == text, "{} bytes came back", answer.len());
    Ok(())
}

#[tokio::test]
async fn a_conversation_over_tls_names_the_client_that_the_proxy_header_before_it_named() -> Result<()> {
    let certificate = Certificate::make("a").await?;
    let proxied = [("FANFARE__HTTP__PROXY_PROTOCOL", "true"), ("FANFARE__HTTP__TRUSTED_PROXIES", "127.0.0.1")];
    let node = serve(&certificate, &proxied).await?;
    ensure!(node.line("listens on ").await?.contains(" listens on https://"));
    ensure!(node.output().contains("  wss://"), "{}", node.output());
    let tunnel = trusting(&certificate, &node, "send-proxy-v2 alpn http/1.1").await?;
    let mut wire = Wire::from("127.0.0.3", tunnel.address()).await?.upgraded("/raw/news").await?;
    let own = wire.local();
    converse(&mut wire, "short").await?;
    converse(&mut wire, &"long ".repeat(12_000)).await?;
    wire.send(Frame::close(1000, "").bytes()).await?;
    let end = wire.end().await?;
    ensure!(end.code == Some(1000) && !end.reset, "{end:?}");
    let line = node.line("connection closed").await?;
    ensure!(line.contains(&format!("peer={own} ")) && line.contains("peer_closed"), "{line}");
    Ok(())
}

#[tokio::test]
async fn more_than_the_kernel_takes_at_once_arrives_whole_and_in_order_over_tls() -> Result<()> {
    const MESSAGES: usize = 400;
    let certificate = Certificate::make("a").await?;
    let node = serve(&certificate, &[("FANFARE__LIMITS__OUTBOX", "64MiB")]).await?;
    let tunnel = trusting(&certificate, &node, "").await?;
    let mut slow = Wire::narrow(tunnel.address()).await?.upgraded("/raw/news").await?;
    let mut publisher = Wire::open(tunnel.address(), "/ws").await?;
    for number in 0..MESSAGES {
        let text = format!("{number} {}", "x".repeat(50_000));
        let command = format!(r#"{{"id":{number},"publish":{{"channel":"news","data":"{text}"}}}}"#);
        publisher.send(Frame::text(command).bytes()).await?;
        ensure!(publisher.message().await?.contains("\"ok\""));
    }
    // 20 MB, more than all buffers on the way: by now the node has had to wait.
    for number in 0..MESSAGES {
        let message = slow.message().await?;
        ensure!(message.len() > 50_000 && message.starts_with(&format!("{number} ")), "{number}: {}", message.len());
    }
    Ok(())
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_socket_lost_and_a_bad_one_is_not() -> Result<()> {
    let (certificate, next) = (Certificate::make("first").await?, Certificate::make("second").await?);
    let first = Certificate::make("copy").await?;
    first.become_a(&certificate)?;
    let node = serve(&certificate, &[]).await?;
    let before = trusting(&first, &node, "").await?;
    let after = trusting(&next, &node, "").await?;
    let mut old = Wire::open(before.address(), "/raw/news").await?;
    ensure!(Wire::open(after.address(), "/raw/news").await.is_err(), "it is not yet the node's");

    certificate.become_a(&next)?;
    node.signal("HUP").await?;
    node.line("the certificate has been read again").await?;
    converse(&mut old, "still here").await?;
    ensure!(Wire::open(before.address(), "/raw/news").await.is_err(), "no client gets the old one");
    let mut new = Wire::open(after.address(), "/raw/other").await?;
    converse(&mut new, "here too").await?;

    std::fs::copy(first.key(), certificate.key())?;
    node.signal("HUP").await?;
    let line = node.line("the certificate stays as it was").await?;
    ensure!(line.contains("ERROR") && line.contains("tls.key"), "{line}");
    converse(&mut Wire::open(after.address(), "/raw/third").await?, "and here").await?;
    converse(&mut old, "still").await
}

#[tokio::test]
async fn tls_is_1_2_or_1_3_and_speaks_http_1_1_only() -> Result<()> {
    let certificate = Certificate::make("a").await?;
    let node = serve(&certificate, &[]).await?;
    for (options, expected) in [
        (&["-tls1_2"][..], Some("TLSv1.2")),
        (&["-tls1_3"], Some("TLSv1.3")),
        (&["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], None),
        (&["-alpn", "h2,http/1.1"], Some("ALPN protocol: http/1.1")),
        (&["-alpn", "h2"], None),
    ] {
        let said = handshake(&node, options).await?;
        match expected {
            Some(expected) => {
                ensure!(said.contains(expected) && said.contains("BEGIN CERTIFICATE"), "{options:?}: {said}")
            }
            None => ensure!(!said.contains("BEGIN CERTIFICATE"), "{options:?}: {said}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_handshake_that_is_never_finished_or_is_none_ends_the_connection() -> Result<()> {
    let certificate = Certificate::make("a").await?;
    let node = serve(&certificate, &[("FANFARE__HTTP__HEAD_TIME", "300ms")]).await?;
    // The beginning of a ClientHello.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut wire = Wire::connect(node.address).await?;
        wire.send(bytes).await?;
        ensure!(wire.next_response().await?.is_none());
    }
    let mut plain = Wire::connect(node.address).await?;
    plain.send(Head::upgrade("/ws").bytes()).await?;
    // TLS answers with an alert, which is no HTTP.
    ensure!(plain.next_response().await.ok().flatten().is_none());
    Ok(())
}

#[tokio::test]
async fn an_idle_socket_over_tls_costs_little_memory() -> Result<()> {
    const SOCKETS: u64 = 400;
    let certificate = Certificate::make("a").await?;
    let node = serve(&certificate, &[]).await?;
    let tunnel = trusting(&certificate, &node, "").await?;
    let resident = || -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    let mut open = Vec::new();
    for number in 0..SOCKETS + 100 {
        // What the first take stays with the node.
        if number == 100 {
            open.push((resident()?, Wire::open(tunnel.address(), "/raw/news").await?));
        } else {
            open.push((0, Wire::open(tunnel.address(), "/raw/news").await?));
        }
    }
    let grown = resident()? - open[100].0;
    println!("{} bytes for each of {SOCKETS} idle sockets over TLS", grown * 1024 / SOCKETS);
    ensure!(grown / SOCKETS < 24, "{grown} KiB for {SOCKETS} sockets");
    Ok(())
}

#[tokio::test]
async fn check_finds_files_that_cannot_be_read_or_do_not_belong_together() -> Result<()> {
    let (one, other) = (Certificate::make("one").await?, Certificate::make("other").await?);
    let text = |path: std::path::PathBuf| path.display().to_string();
    let (certificate, key) = (text(one.file()), text(one.key()));
    for (certificate, key, reason) in [
        (&*certificate, &*key, None),
        (&certificate, &text(other.key()), Some("tls.key")),
        ("/nowhere/a.pem", &key, Some("/nowhere/a.pem\": No such file")),
        (&certificate, "/nowhere/a.key", Some("/nowhere/a.key\": No such file")),
        (&key, &key, Some("tls.certificate` = ")),
        (&certificate, &certificate, Some("there is none in the file")),
        (&certificate, "", Some("must be accompanied by `tls.key`")),
        ("", &key, Some("must be accompanied by `tls.key`")),
    ] {
        let mut check = Command::new(binary("fanfare")?);
        check.arg("check").env_clear().stdin(Stdio::null()).kill_on_drop(true);
        check.env("FANFARE__TLS__CERTIFICATE", certificate).env("FANFARE__TLS__KEY", key);
        let output = timeout(PATIENCE, check.output()).await.context("it does not end")??;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(i32::from(reason.is_some())), "{certificate} {key}: {error}");
        ensure!(error.contains(reason.unwrap_or_default()), "{error}");
        ensure!(!error.contains("PRIVATE"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn ready_asks_the_agent_where_the_listener_cannot_be_asked() -> Result<()> {
    let certificate = Certificate::make("a").await?;
    let node = serve(&certificate, &[]).await?;
    let agent = agent::of(&node).await?.to_string();
    let run = async |environment: &[(&str, &str)]| -> Result<(Option<i32>, String)> {
        let mut ready = Command::new(binary("fanfare")?);
        ready.arg("ready").env_clear().stdin(Stdio::null()).kill_on_drop(true);
        for (name, value) in &certificate.environment() {
            ready.env(name, value);
        }
        ready.envs(environment.iter().copied());
        let output = timeout(PATIENCE, ready.output()).await.context("it does not end")??;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    assert_eq!(run(&[("FANFARE__AGENT__LISTEN", &agent)]).await?, (Some(0), String::new()));
    let (code, error) = run(&[]).await?;
    ensure!(code == Some(1) && error.contains("set `agent.listen`"), "{error}");
    Ok(())
}

#[tokio::test]
async fn check_says_that_a_key_is_encrypted_and_how_to_decrypt_it() -> Result<()> {
    let certificate = Certificate::make("a").await?;
    let encrypted = certificate.file().with_file_name("encrypted.pem").display().to_string();
    let mut openssl = Command::new("openssl");
    openssl.arg("pkey").arg("-in").arg(certificate.key());
    openssl.args(["-aes256", "-passout", "pass:hunter2", "-out", &encrypted]).stdin(Stdio::null());
    ensure!(timeout(PATIENCE, openssl.status()).await??.success(), "openssl encrypts no key");
    let mut check = Command::new(binary("fanfare")?);
    check.arg("check").env_clear().stdin(Stdio::null()).kill_on_drop(true);
    check.env("FANFARE__TLS__CERTIFICATE", certificate.file()).env("FANFARE__TLS__KEY", &encrypted);
    let output = timeout(PATIENCE, check.output()).await.context("it does not end")??;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && error.contains(&encrypted), "{error}");
    ensure!(error.contains("is encrypted") && error.contains("openssl pkey -in"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_drained_client_over_tls_gets_its_close_like_any_other() -> Result<()> {
    let certificate = Certificate::make("a").await?;
    let mut node = serve(&certificate, &[("FANFARE__TIMING__DRAIN_WAIT", "off")]).await?;
    let tunnel = trusting(&certificate, &node, "").await?;
    let mut wire = Wire::open(tunnel.address(), "/raw/news").await?;
    node.signal("TERM").await?;
    let end = wire.end().await?;
    ensure!(end.code == Some(1012) && !end.reset, "{end:?}");
    drop(wire);
    ensure!(node.ended().await?.code() == Some(0));
    Ok(())
}
