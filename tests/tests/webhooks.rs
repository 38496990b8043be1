//! Webhooks: a backend that is notified of who comes and goes, through its own outages, nodes that die, and brokers that do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use tests::backend::{Backend, Question, ok};
use tests::cluster::Plan;
use tests::tokens::{Issuer, OPEN};
use tests::{Broker, Client, Cluster, PATIENCE, Program, binary, http, wire};
use tokio::time::{sleep, timeout};

/// Between two looks at something that comes by itself.
const GLANCE: Duration = Duration::from_millis(50);

/// How long the backend is away, at least.
const AWAY: Duration = Duration::from_secs(10);

const RULES: &str =
    r#"[{ match = "room:*", presence = "members" }, { match = "count:*", presence = "counts" }, { match = "*" }]"#;

/// The bytes of the two secrets.
const SECRETS: [&[u8]; 2] = [b"canary-0123456789-canary-0123456", b"canary-abcdefghi-canary-abcdefgh"];

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    each_event_comes_in_order_while_the_backend_is_away_its_keeper_is_killed_and_then_another_node,
} }
tests::on_brokers! { redis_restarted Redis, rabbitmq_restarted RabbitMq: {
    no_channel_is_vacated_while_the_broker_restarts_or_loses_its_log,
} }

fn secret(bytes: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(bytes))
}

fn settings(backend: SocketAddr) -> Vec<(String, String)> {
    let of = |name: &str, value: &str| (format!("FANFARE__{name}"), value.to_owned());
    let secrets = SECRETS.map(secret).join(",");
    vec![
        of("CHANNELS", RULES),
        of("WEBHOOKS__ENDPOINT", &format!("http://{backend}/hooks")),
        of("WEBHOOKS__SECRETS", &secrets),
        of("PRESENCE__LINGER", "3s"),
        of("CLUSTER__LEASE", "3s"),
        of("BROKER__HEARTBEAT", "500ms"),
    ]
}

fn with(plan: Plan, backend: SocketAddr) -> Plan {
    settings(backend).iter().fold(plan, |plan, (name, value)| plan.set(name, value))
}

/// A node alone, with more settings.
async fn node(backend: &Backend, more: &[(&str, &str)]) -> Result<Program> {
    let mut all = settings(backend.address);
    all.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let all: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    wire::serve("fanfare", &all).await
}

fn header(question: &Question, name: &str) -> Result<String> {
    let found = question.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    Ok(found.with_context(|| format!("no {name} in {}", question.head))?.to_owned())
}

/// Checks both signatures of a request.
fn check(question: &Question) -> Result<()> {
    let (id, time) = (header(question, "webhook-id")?, header(question, "webhook-timestamp")?);
    let signed = [id.as_bytes(), b".", time.as_bytes(), b".", &question.body].concat();
    let expected = SECRETS.map(|secret| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), &signed);
        format!("v1,{}", STANDARD.encode(tag))
    });
    ensure!(header(question, "webhook-signature")? == expected.join(" "), "{}", question.head);
    ensure!(header(question, "content-type")? == "application/json" && !question.head.contains("canary"));
    Ok(())
}

/// What a backend has received, through its lives.
#[derive(Default)]
struct Received {
    before: Vec<Question>,
}

impl Received {
    /// By channel, the events in the order in which they came first, such as `+ann`.
    fn channels(&self, now: &[Question]) -> Result<BTreeMap<String, Vec<String>>> {
        let (mut seen, mut channels) = (BTreeSet::new(), BTreeMap::<String, Vec<String>>::new());
        for question in self.before.iter().chain(now) {
            check(question)?;
            for event in question.json["events"].as_array().context("events")? {
                let text = |name: &str| event[name].as_str().unwrap_or_default();
                if seen.insert(text("id").to_owned()) {
                    let kind = match text("type") {
                        "joined" => format!("+{}", text("user")),
                        "left" => format!("-{}", text("user")),
                        kind => kind.to_owned(),
                    };
                    channels.entry(text("channel").to_owned()).or_default().push(kind);
                }
            }
        }
        Ok(channels)
    }

    /// Waits until a channel has had so many events, and gives them.
    async fn events(&self, backend: &Backend, channel: &str, count: usize) -> Result<Vec<String>> {
        let mut last = Vec::new();
        let enough = async {
            loop {
                last = self.channels(&backend.questions())?.remove(channel).unwrap_or_default();
                if last.len() >= count {
                    return Ok(());
                }
                sleep(GLANCE).await;
            }
        };
        timeout(PATIENCE, enough)
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("{count} events do not come")))
            .with_context(|| format!("{channel} had {last:?}"))?;
        Ok(last)
    }
}

async fn yes() -> Result<Backend> {
    Backend::start(|_| ok(&json!({}))).await
}

/// Waits until a node knows of so many members.
async fn counts(client: &Client, channel: &str, count: u64) -> Result<()> {
    let asked = async {
        loop {
            let reply = client.ask(json!({ "presence": { "channel": channel } })).await?;
            if reply["ok"]["count"] == count {
                return Ok(());
            }
            sleep(GLANCE).await;
        }
    };
    timeout(PATIENCE, asked).await.with_context(|| format!("{count} members of {channel} are not seen"))?
}

async fn metric(address: SocketAddr, name: &str) -> Result<u64> {
    let page = http::get(address, "/metrics").await?.body;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line.with_context(|| format!("no {name} in:\n{page}"))
}

/// Waits until one of these nodes has so many events to deliver, and gives its number.
async fn keeper(cluster: &Cluster, nodes: &[usize], events: u64) -> Result<usize> {
    let found = async {
        loop {
            for node in nodes {
                if metric(cluster.node_address(*node), "fanfare_webhook_waiting").await? >= events {
                    return Ok(*node);
                }
            }
            sleep(GLANCE).await;
        }
    };
    timeout(PATIENCE, found).await.context("no node has events to deliver")?
}

/// A user with a connection to each of these nodes, in the channel.
async fn everywhere(
    cluster: &Cluster,
    issuer: &Issuer,
    name: &str,
    nodes: &[usize],
    channel: &str,
) -> Result<Vec<Client>> {
    let token = issuer.token(name, &[])?;
    let mut tabs = Vec::new();
    for node in nodes {
        let tab = Client::with_token(&format!("http://{}", cluster.node_address(*node)), &token).await?;
        tab.subscribe(channel).await?;
        tabs.push(tab);
    }
    Ok(tabs)
}

async fn each_event_comes_in_order_while_the_backend_is_away_its_keeper_is_killed_and_then_another_node(
    broker: Broker,
) -> Result<()> {
    let (keys, token_secret) = Issuer::keys();
    let backend = yes().await?;
    let (at, mut received) = (backend.address, Received::default());
    let plan = with(Cluster::of(3).shared(broker).set(keys, &token_secret).set(OPEN.0, OPEN.1), at);
    let mut cluster = plan.start().await?;
    let issuer = Issuer::new()?;
    let nodes = [1, 2, 3];
    let ann = everywhere(&cluster, &issuer, "ann", &nodes, "room:1").await?;
    for tab in &ann {
        tab.subscribe("count:1").await?;
    }
    assert_eq!(received.events(&backend, "room:1", 2).await?, ["occupied", "+ann"]);
    assert_eq!(received.events(&backend, "count:1", 1).await?, ["occupied"]);

    received.before.extend(backend.questions());
    drop(backend);
    let bob = everywhere(&cluster, &issuer, "bob", &[1], "room:1").await?;
    counts(&ann[1], "room:1", 2).await?;
    bob[0].close().await?;
    // The same node, because another one may not have read yet that he was there.
    counts(&ann[1], "room:1", 1).await?;
    let eve = everywhere(&cluster, &issuer, "eve", &nodes, "room:1").await?;
    let first = keeper(&cluster, &nodes, 3).await?;
    cluster.kill_node(&format!("node-{first}")).await?;
    let rest: Vec<_> = nodes.into_iter().filter(|node| *node != first).collect();
    let second = keeper(&cluster, &rest, 3).await?;
    let other = rest.into_iter().find(|node| *node != second).context("a third node")?;
    cluster.kill_node(&format!("node-{other}")).await?;
    let carl = everywhere(&cluster, &issuer, "carl", &[second], "room:1").await?;
    counts(&carl[0], "room:1", 3).await?;
    sleep(AWAY).await;

    let backend = Backend::start_at(at, |_| ok(&json!({}))).await?;
    let came = ["occupied", "+ann", "+bob", "-bob", "+eve", "+carl"];
    assert_eq!(received.events(&backend, "room:1", came.len()).await?, came);
    // She comes back at once, on another node.
    cluster.start_node(&format!("node-{first}")).await?;
    let again = &everywhere(&cluster, &issuer, "ann", &[first], "room:1").await?[0];
    ann[second - 1].close().await?;
    carl[0].close().await?;
    let left = received.events(&backend, "room:1", came.len() + 1).await?;
    assert_eq!(left[came.len()..], ["-carl"], "{left:?}");
    assert_eq!(received.events(&backend, "count:1", 2).await?, ["occupied", "vacated"]);
    for client in [again, &eve[second - 1]] {
        client.close().await?;
    }
    let mut all = received.events(&backend, "room:1", came.len() + 4).await?.split_off(came.len() + 1);
    assert_eq!(all.pop().as_deref(), Some("vacated"), "{all:?}");
    all.sort_unstable();
    assert_eq!(all, ["-ann", "-eve"]);
    cluster.well();
    Ok(())
}

async fn no_channel_is_vacated_while_the_broker_restarts_or_loses_its_log(broker: Broker) -> Result<()> {
    /// Longer than the lease.
    const BROKEN: Duration = Duration::from_secs(6);
    let (keys, token_secret) = Issuer::keys();
    let (backend, received) = (yes().await?, Received::default());
    let plan = with(Cluster::of(2).broker(broker).set(keys, &token_secret).set(OPEN.0, OPEN.1), backend.address);
    let mut cluster = plan.start().await?;
    let issuer = Issuer::new()?;
    let ann = &everywhere(&cluster, &issuer, "ann", &[1], "room:1").await?[0];
    ann.subscribe("count:1").await?;
    let bob = &everywhere(&cluster, &issuer, "bob", &[2], "room:1").await?[0];
    assert_eq!(received.events(&backend, "room:1", 3).await?[..1], ["occupied"]);
    assert_eq!(received.events(&backend, "count:1", 1).await?, ["occupied"]);
    cluster.broker().kill().await?;
    sleep(BROKEN).await;
    cluster.broker().start().await?;
    let eve = &everywhere(&cluster, &issuer, "eve", &[2], "room:1").await?[0];
    assert_eq!(received.events(&backend, "room:1", 4).await?[3..], ["+eve"]);
    cluster.broker().kill().await?;
    cluster.broker().wipe().await?;
    cluster.broker().start().await?;
    bob.close().await?;
    assert_eq!(received.events(&backend, "room:1", 5).await?[4..], ["-bob"]);
    assert_eq!(received.events(&backend, "count:1", 1).await?, ["occupied"]);
    eve.close().await?;
    ann.close().await?;
    let mut all = received.events(&backend, "room:1", 8).await?.split_off(5);
    assert_eq!(all.pop().as_deref(), Some("vacated"), "{all:?}");
    all.sort_unstable();
    assert_eq!(all, ["-ann", "-eve"]);
    assert_eq!(received.events(&backend, "count:1", 2).await?, ["occupied", "vacated"]);
    cluster.well();
    Ok(())
}

#[tokio::test]
async fn a_request_is_repeated_unchanged_until_it_is_answered_well_and_has_only_what_is_wanted() -> Result<()> {
    let backend = Backend::start(|_| (503, String::new())).await?;
    let more = [("FANFARE__WEBHOOKS__EVENTS", "joined,left"), ("FANFARE__WEBHOOKS__CHANNELS", "room:{number}")];
    let node = node(&backend, &more).await?;
    let client = Client::native(&format!("http://{}", node.address)).await?;
    let id = client.ask(json!({ "connect": {} })).await?["ok"]["client"].as_str().context("no id")?.to_owned();
    for channel in ["room:a:b", "count:1", "room:1"] {
        client.subscribe(channel).await?;
    }
    let asked = backend.asked(3).await?;
    let same = |question: &Question| anyhow::Ok((header(question, "webhook-id")?, question.body.clone()));
    let expected: (String, Vec<u8>) = same(&asked[0])?;
    for question in &asked {
        check(question)?;
        ensure!(same(question)? == expected, "{} and then {}", asked[0].head, question.head);
    }
    let mut events = asked[0].json["events"].as_array().context("events")?.clone();
    let mut event = events.pop().context("an event")?;
    ensure!(events.is_empty() && event["time"].take().is_u64() && event["id"].take().is_string());
    let expected = json!({ "id": null, "type": "joined", "channel": "room:1", "client": id, "time": null });
    assert_eq!(event, expected);
    for status in [302, 204] {
        backend.answer(move |_| (status, String::new()));
        backend.asked(backend.questions().len() + 1).await?;
    }
    let line = node.line("webhook events are not delivered").await?;
    assert!(line.contains("503"), "{line}");
    let settled = async {
        while metric(node.address, "fanfare_webhook_events_total{outcome=\"delivered\"}").await? < 1 {
            sleep(GLANCE).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, settled).await??;
    assert!(metric(node.address, "fanfare_webhook_retries_total").await? >= 3);
    assert_eq!(metric(node.address, "fanfare_webhook_events_total{outcome=\"failed\"}").await?, 0);
    assert!(!node.output().contains("canary"), "{}", node.output());
    Ok(())
}

/// Subscribes to one channel after the other until a request is as wanted, and gives its JSON.
async fn until(client: &Client, backend: &Backend, prefix: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let before = backend.questions().len();
    let found = async {
        for number in 0.. {
            client.subscribe(&format!("count:{prefix}:{number}")).await?;
            // Without a new request the next event may cause one.
            let _ = timeout(Duration::from_secs(1), backend.asked(backend.questions().len() + 1)).await;
            let questions = backend.questions().into_iter().skip(before);
            if let Some(found) = questions.map(|question| question.json).find(&wanted) {
                return Ok(found);
            }
        }
        anyhow::bail!("no such request")
    };
    timeout(PATIENCE, found).await?
}

#[tokio::test]
async fn an_event_that_cannot_be_delivered_in_time_is_logged_and_a_later_request_says_that_some_are_missing()
-> Result<()> {
    let backend = yes().await?;
    let node = node(&backend, &[("FANFARE__WEBHOOKS__RETRY", "2s")]).await?;
    let client = Client::native(&format!("http://{}", node.address)).await?;
    until(&client, &backend, "first", |_| true).await?;
    backend.answer(|_| (500, String::new()));
    client.subscribe("count:lost").await?;
    let line = node.line("count:lost").await?;
    assert!(line.contains("a webhook event is given up") && line.contains("\"type\":\"occupied\""), "{line}");
    backend.answer(|_| ok(&json!({})));
    until(&client, &backend, "next", |json| json["missed"].as_u64() >= Some(1)).await?;
    until(&client, &backend, "last", |json| json["missed"].is_null()).await?;
    assert!(metric(node.address, "fanfare_webhook_events_total{outcome=\"failed\"}").await? >= 1);
    Ok(())
}

/// Runs `fanfare webhook-test`. Gives whether it succeeded, and what it printed.
fn webhook_test(arguments: &[&str], url: &str, input: &str) -> Result<(bool, String)> {
    let mut command = Command::new(binary("fanfare")?);
    command.arg("webhook-test").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("FANFARE__WEBHOOKS__ENDPOINT", url).env("FANFARE__WEBHOOKS__SECRETS", secret(SECRETS[0]));
    let mut child = command.spawn()?;
    // It may end without reading.
    let _ = child.stdin.take().context("a pipe")?.write_all(input.as_bytes());
    let output = child.wait_with_output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(text)?))
}

#[tokio::test]
async fn the_command_shows_checks_and_sends_a_request() -> Result<()> {
    let backend = yes().await?;
    let url = backend.url();
    let (good, shown) = webhook_test(&[], &url, "")?;
    ensure!(good && !shown.contains("canary"), "{shown}");
    let both = [shown.clone(), shown.replace("\"test\"", "\"changed\"")];
    let checked = both.map(|text| webhook_test(&["--verify", "-"], &url, &text));
    let [genuine, changed] = checked;
    let (genuine, changed) = (genuine?, changed?);
    ensure!(genuine.0 && genuine.1.contains("genuine"), "{}", genuine.1);
    ensure!(!changed.0 && changed.1.contains("no signature fits"), "{}", changed.1);
    ensure!(!webhook_test(&["--verify", "-", "--secret", &secret(SECRETS[1])], &url, &shown)?.0);
    let sending = tokio::task::spawn_blocking(move || webhook_test(&["--send"], &url, ""));
    let asked = backend.asked(1).await?;
    assert_eq!(asked[0].json["events"][0]["type"], "test");
    let (good, text) = sending.await??;
    ensure!(good && text.ends_with("Accepted.\n"), "{text}");
    Ok(())
}
