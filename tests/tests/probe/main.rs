//! `fanfare probe`, as operators type it, before real nodes behind a real HAProxy.

mod servers;

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use serde_json::Value;
use servers::{Fake, Full, Server};
use tests::certificate::Certificate;
use tests::{Cluster, PATIENCE, Program, binary, http, wire};
use tokio::process::Command;
use tokio::time::timeout;

/// Time-outs that no test reaches.
const PATIENT: [&str; 3] = ["timeout client 1h", "timeout server 1h", "timeout tunnel 1h"];

/// What a probe left.
#[derive(Debug)]
struct Seen {
    code: Option<i32>,
    report: Value,
    error: String,
}

impl Seen {
    fn step(&self, name: &str) -> &Value {
        let mut steps = self.report["steps"].as_array().into_iter().flatten();
        steps.find(|step| step["name"] == name).unwrap_or(&Value::Null)
    }

    /// What went wrong: the name of the only step, and all its words.
    fn wrong(&self) -> (&str, String) {
        assert_eq!((self.code, &self.report["ok"]), (Some(1), &false.into()), "{self:?}");
        let steps = self.report["steps"].as_array().into_iter().flatten();
        let wrong: Vec<_> = steps.filter(|step| step["outcome"] == "wrong").collect();
        assert_eq!(wrong.len(), 1, "{self:?}");
        let word = |name: &str| wrong[0][name].as_str().unwrap_or_default();
        assert!(!word("means").is_empty() && !word("look").is_empty(), "{self:?}");
        (word("name"), [word("what"), word("means"), word("look")].join(" | "))
    }
}

async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(binary("fanfare")?);
    command.arg("probe").args(arguments).env_clear().envs(environment.iter().copied());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output =
        timeout(2 * PATIENCE, command.output()).await.with_context(|| format!("{arguments:?} does not end"))??;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

async fn probe_in(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Seen> {
    let (code, out, error) = run(&[arguments, &["--json"]].concat(), environment).await?;
    let report = serde_json::from_str(&out).with_context(|| format!("{out:?} {error:?}"))?;
    Ok(Seen { code, report, error })
}

async fn probe(arguments: &[&str]) -> Result<Seen> {
    probe_in(arguments, &[]).await
}

/// A probe that must find one thing wrong: in this step, with these words.
async fn finds(arguments: &[&str], environment: &[(&str, &str)], step: &str, words: &[&str]) -> Result<()> {
    let seen = probe_in(arguments, environment).await?;
    let (name, text) = seen.wrong();
    assert_eq!(name, step, "{seen:?}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?} of {arguments:?}");
    }
    assert_eq!(seen.error, format!("wrong: {step}\n"));
    Ok(())
}

#[tokio::test]
async fn a_healthy_cluster_passes_every_step() -> Result<()> {
    let cluster = Cluster::of(2).echo(1).redis().haproxy().start().await?;
    let url = format!("{}/ws", cluster.gateway_url());
    let (code, text, error) = run(&[&url, "--idle", "2s"], &[]).await?;
    println!("{text}");
    assert_eq!((code, error.as_str()), (Some(0), ""), "{text}");
    for word in [
        "GET /ws (Host: 127.0.0.1:",
        "answers 101 Switching Protocols",
        wire::ACCEPT,
        "fanfare.v1",
        "x-backend: node-",
        "GET / answers 200",
        "holding three connections for 2.0 s",
        "\n\nAll is well.\n",
    ] {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
    assert!(text.contains("nothing ended quiet connections within 2.0 s"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 120 && !line.contains('\x1b')), "{text}");

    let seen = probe(&[&url, "--connections", "8", "--idle", "1s"]).await?;
    assert_eq!((seen.code, &seen.report["ok"]), (Some(0), &true.into()), "{seen:?}");
    let nodes = &seen.step("nodes")["facts"]["nodes"];
    let on = |node: &str| nodes[node].as_u64().unwrap_or_default();
    assert!(on("node-1") > 0 && on("node-2") > 0 && on("node-1") + on("node-2") == 8, "{seen:?}");
    let way = &seen.step("message")["facts"];
    assert_ne!(way["from"], way["to"], "over the broker: {seen:?}");
    let idle = &seen.step("idle")["facts"];
    assert_eq!((&idle["points_to"], &idle["timeout_ms"]), (&"nothing".into(), &Value::Null), "{seen:?}");
    let node = &idle["quiet"]["node"];
    assert!(node.is_string() && *node == idle["pinged"]["node"] && *node == idle["mute"]["node"], "{seen:?}");

    for (url, protocol) in
        [(format!("{}/raw/a", cluster.gateway_url()), "text"), (format!("{}/ws/echo", cluster.echo_url()), "text")]
    {
        let seen = probe(&[&url]).await?;
        assert_eq!((seen.code, &seen.step("message")["facts"]["protocol"]), (Some(0), &protocol.into()), "{seen:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_time_out_of_the_balancer_is_named_with_its_length() -> Result<()> {
    let node = wire::serve("fanfare", &[]).await?;
    let tunnel = ["timeout client 1h", "timeout server 1h", "timeout tunnel 5s"];
    let client = ["timeout client 3s", "timeout server 1h"];
    let server = ["timeout client 1h", "timeout server 3s"];
    let cases = [(&tunnel[..], "5 s", 5.0), (&client, "3 s", 3.0), (&server, "3 s", 3.0)].map(
        async |(defaults, text, length)| {
            let balancer = Server::haproxy(&[node.address], defaults, "").await?;
            let url = balancer.url("ws");
            let seen = probe(&[&url, "--idle", "8s"]).await?;
            let (name, words) = seen.wrong();
            let idle = &seen.step("idle")["facts"];
            let found = idle["timeout_ms"].as_f64().context("a time-out")? / 1e3;
            assert_eq!(
                (name, &idle["points_to"], &idle["quiet"]["end"]),
                ("idle", &"balancer".into(), &"fin".into()),
                "{seen:?}"
            );
            assert!((found - length).abs() < 0.5, "{seen:?}");
            assert!(words.contains(&format!("a time-out of {text} without traffic: the balancer's")), "{words}");
            assert!(
                words.contains(&format!("`timeout tunnel {}`", text.replace(' ', "")))
                    && words.contains("cD is `timeout client`"),
                "{words}"
            );
            assert_eq!(idle["pinged"]["end"], "open", "{seen:?}");
            anyhow::Ok(())
        },
    );
    try_join_all(cases).await.map(drop)
}

#[tokio::test]
async fn a_nat_that_forgets_is_not_taken_for_a_balancer() -> Result<()> {
    let node = wire::serve("fanfare", &[]).await?;
    let nat = Fake::forgetful(node.address, Duration::from_millis(2500)).await?;
    let seen = probe(&[&format!("ws://{}/ws", nat.address), "--idle", "5s"]).await?;
    let (name, words) = seen.wrong();
    assert_eq!((name, &seen.step("idle")["facts"]["points_to"]), ("idle", &"network".into()), "{seen:?}");
    assert!(
        words.contains("a NAT's or a firewall's") && words.contains("neither balancer nor node ended it"),
        "{words}"
    );
    Ok(())
}

#[tokio::test]
async fn time_outs_of_the_node_are_named_as_its_own() -> Result<()> {
    let reaping = wire::serve("fanfare", &[("FANFARE__TIMING__IDLE", "3s")]).await?;
    let balancer = Server::haproxy(&[reaping.address], &PATIENT, "").await?;
    let url = balancer.url("ws");
    finds(&[&url, "--idle", "6s"], &[], "idle", &["a time-out of the node", "1000 (idle for too long)", "timing.idle"])
        .await?;

    let pinging = wire::serve("fanfare", &[("FANFARE__TIMING__PING", "3s"), ("FANFARE__TIMING__PONG", "1s")]).await?;
    let balancer = Server::haproxy(&[pinging.address], &PATIENT, "").await?;
    let url = balancer.url("ws");
    let seen = probe(&[&url, "--idle", "6s"]).await?;
    let (idle, notes) = (&seen.step("idle")["facts"], seen.step("idle")["notes"].to_string());
    assert_eq!(
        (seen.code, &idle["quiet"]["end"], &idle["mute"]["end"]),
        (Some(0), &"open".into(), &"fin".into()),
        "{seen:?}"
    );
    assert!(notes.contains("leave its ping unanswered for 1") && notes.contains("(`timing.pong`)"), "{notes}");
    Ok(())
}

#[tokio::test]
async fn an_end_that_has_nothing_to_do_with_traffic_is_no_time_out() -> Result<()> {
    for (signal, points_to, advice) in
        [("TERM", "restart", "the node was stopped"), ("KILL", "age", "traffic or not: no idle time-out")]
    {
        let node = wire::serve("fanfare", &[]).await?;
        let balancer = Server::haproxy(&[node.address], &PATIENT, "").await?;
        let url = balancer.url("ws");
        let holds = async {
            // Two for the spread, and then the three that are held.
            let held = |answer: &http::Answer| answer.body.contains("fanfare_connections_opened_total 5");
            http::until(node.address, "/metrics", held).await?;
            node.signal(signal).await
        };
        let arguments = [&url, "--connections", "2", "--idle", "8s"];
        let (seen, stopped) = tokio::join!(probe(&arguments), holds);
        stopped?;
        let seen = seen?;
        let (name, words) = seen.wrong();
        assert_eq!((name, &seen.step("idle")["facts"]["points_to"]), ("idle", &points_to.into()), "{seen:?}");
        assert!(words.contains(advice), "{words}");
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_upgrade_says_why_and_where_to_look() -> Result<()> {
    let node = wire::serve("fanfare", &[]).await?;
    let (nodes, nowhere) = ([node.address], ["127.0.0.1:1".parse()?]);
    let (balancer, dead) =
        tokio::try_join!(Server::haproxy(&nodes, &PATIENT, ""), Server::haproxy(&nowhere, &PATIENT, ""))?;
    let (url, elsewhere) = (balancer.url("ws"), balancer.url("ws") + "s");
    finds(&[&elsewhere], &[], "upgrade", &["GET /wss", "404", "no WebSocket at this path", "path_beg"]).await?;
    let seen = probe(&[&elsewhere, "--idle", "1s"]).await?;
    assert_eq!(seen.step("upgrade")["facts"]["status"], 404, "{seen:?}");
    let who = seen.step("headers")["what"].as_str();
    assert!(
        who.is_some_and(|who| who.contains("x-backend: node-1")),
        "the answer names the server that refused: {seen:?}"
    );
    assert!(seen.step("idle").is_null(), "there is nothing to hold: {seen:?}");
    let origin = "Origin: https://elsewhere.example";
    finds(&[&url, "--header", origin], &[], "upgrade", &["403", "http.origins"]).await?;
    let version = "Sec-WebSocket-Version: 8";
    finds(&[&url, "--header", version], &[], "upgrade", &["426", "saw no upgrade"]).await?;
    let direct = format!("ws://{}/ws", node.address);
    finds(&[&direct, "--header", "Connection: close"], &[], "upgrade", &["400", "must list Upgrade"]).await?;
    let chat = "Sec-WebSocket-Protocol: chat";
    finds(&[&url, "--header", chat], &[], "protocol", &["none agreed on, of chat", "Browsers end"]).await?;

    let seen = probe(&[&dead.url("ws")]).await?;
    assert_eq!(seen.error, "wrong: upgrade, http\n", "the page fails as well");
    assert!(seen.step("upgrade")["means"].as_str().is_some_and(|means| means.contains("No node takes")), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_without_websockets_is_recognised() -> Result<()> {
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    finds(&[&format!("ws://{address}/ws")], &[], "tcp", &["Connection refused", "nothing listens", "ss -ltnp"]).await?;
    finds(&["ws://no-such-host.invalid/ws"], &[], "dns", &["no-such-host.invalid"]).await?;
    let cases = [
        (&b""[..], "upgrade, http", "no answer to the request within 5 s"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "upgrade, http", "not HTTP"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "upgrade, http", "HTTP/2 only"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "upgrade, http", "wss://"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "upgrade", "ordinary page"),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: https://a.example/ws\r\nContent-Length: 0\r\n\r\n",
            "upgrade",
            "https://a.example/ws",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "accept", "missing"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            "accept",
            "wrong: AAAA",
        ),
    ];
    let cases = cases.map(async |(answer, step, words)| {
        let fake = Fake::answering(answer).await?;
        let seen = probe(&[&format!("ws://{}/ws", fake.address)]).await?;
        assert_eq!((seen.code, seen.error.as_str()), (Some(1), format!("wrong: {step}\n").as_str()), "{seen:?}");
        assert!(seen.report.to_string().contains(words), "{words:?} is not in {seen:?}");
        anyhow::Ok(())
    });
    try_join_all(cases).await.map(drop)
}

#[tokio::test]
async fn a_listener_that_accepts_no_more_is_not_taken_for_a_missing_one() -> Result<()> {
    let full = Full::listening().await?;
    let url = format!("ws://{}/ws", full.address);
    finds(&[&url], &[], "tcp", &["no answer within 5 s", "a firewall drops", "accept queue", "ss -ltn"]).await
}

#[tokio::test]
async fn nodes_without_a_common_broker_are_found_out() -> Result<()> {
    let (one, two) = (wire::serve("fanfare", &[]).await?, wire::serve("fanfare", &[]).await?);
    let balancer = Server::haproxy(&[one.address, two.address], &PATIENT, "").await?;
    let url = balancer.url("ws");
    finds(&[&url], &[], "message", &["not delivered within 5 s", "do not share a broker"]).await
}

#[tokio::test]
async fn what_is_wrong_with_tls_is_said_in_words() -> Result<()> {
    let node = wire::serve("fanfare", &[]).await?;
    let certificates = tokio::try_join!(
        Certificate::of("localhost", 30),
        Certificate::of("localhost", 0),
        Certificate::of("other.example", 9),
        Certificate::of("unknown.example", 30)
    )?;
    let file = |certificate: &Certificate| anyhow::Ok(certificate.both()?.display().to_string());
    let (good, old) = (file(&certificates.0)?, file(&certificates.1)?);
    let (other, unknown) = (file(&certificates.2)?, file(&certificates.3)?);
    let nodes = [node.address];
    let start = async |bind: String| Server::haproxy(&nodes, &PATIENT, &bind).await;
    let (balancer, expired, named, modern, plain) = tokio::try_join!(
        start(format!("ssl crt {good}")),
        start(format!("ssl crt {old}")),
        start(format!("ssl crt {other}")),
        Server::http2_only(&good),
        start(String::new())
    )?;

    let seen = probe_in(&[&balancer.url("wss"), "--idle", "1s"], &[("SSL_CERT_FILE", &good)]).await?;
    let tls = seen.step("tls");
    assert_eq!((seen.code, &tls["facts"]["trusted"]), (Some(0), &true.into()), "{seen:?}");
    assert_eq!((&tls["facts"]["version"], &tls["facts"]["names"][0]), (&"TLSv1.3".into(), &"localhost".into()));
    assert!(tls["facts"]["days_left"].as_i64().is_some_and(|days| (29..=30).contains(&days)), "{tls}");

    finds(&[&balancer.url("wss")], &[("SSL_CERT_FILE", &unknown)], "tls", &["not signed by a known CA"]).await?;
    let seen = probe_in(&[&balancer.url("wss"), "--insecure"], &[("SSL_CERT_FILE", &unknown)]).await?;
    assert_eq!((seen.code, &seen.step("tls")["facts"]["trusted"]), (Some(0), &false.into()), "{seen:?}");
    let words = ["is for other.example, not for localhost", "--host"];
    finds(&[&named.url("wss")], &[("SSL_CERT_FILE", &other)], "tls", &words).await?;
    let seen = probe_in(&[&named.url("wss"), "--host", "other.example"], &[("SSL_CERT_FILE", &other)]).await?;
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(seen.step("tls")["what"].as_str().is_some_and(|what| what.contains("days: renew it)")), "{seen:?}");
    finds(&[&expired.url("wss")], &[("SSL_CERT_FILE", &old)], "tls", &["expired"]).await?;
    finds(&[&modern.url("wss")], &[("SSL_CERT_FILE", &good)], "tls", &["HTTP/1.1 (ALPN)", "alpn h2,http/1.1"]).await?;
    finds(&[&plain.url("wss")], &[("SSL_CERT_FILE", &good)], "tls", &["not TLS", "ws://"]).await?;
    let seen = probe(&[&balancer.url("ws")]).await?;
    assert_eq!(seen.error, "wrong: upgrade, http\n", "{seen:?}");
    assert!(seen.step("upgrade")["look"].as_str().is_some_and(|look| look.contains("wss://")), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn a_mistake_at_the_command_line_exits_with_2() -> Result<()> {
    for arguments in [&["localhost/ws"][..], &[], &["ws://localhost/", "--idle", "0s"], &["ws://localhost/", "--hurry"]]
    {
        let (code, out, error) = run(arguments, &[]).await?;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?} {error}");
        assert!(error.starts_with("error: "), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_node_by_itself_tells_its_name() -> Result<()> {
    let node = Program::start("fanfare", &["--name", "blue"], &[]).await?;
    wire::ready(node.address).await?;
    let seen = probe(&[&format!("http://{}/ws", node.address), "--connections", "2"]).await?;
    assert_eq!((seen.code, &seen.step("nodes")["facts"]["nodes"]["blue"]), (Some(0), &2.into()), "{seen:?}");
    Ok(())
}
