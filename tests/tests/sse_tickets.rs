//! Tickets: each is redeemed once in the whole cluster, gives what its maker may give, and is shown nowhere.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::api::{Api, SECRET, backend, keys};
use tests::browser::{Browser, Page};
use tests::events::Events;
use tests::tokens::Issuer;
use tests::wire::{Head, Wire, serve};
use tests::{Broker, Client, Cluster, PATIENCE, Program, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

tests::on_brokers! { memory Memory, redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    a_ticket_of_any_node_is_redeemed_once_by_any_node,
} }

/// How long a ticket is valid.
const LIFE: Duration = Duration::from_secs(30);
/// Races for a ticket.
const ROUNDS: usize = 10;
/// Clients of each node in a race.
const RACERS: usize = 3;

/// Makes a ticket.
async fn ticket(api: &Api, body: &Value) -> Result<String> {
    let (status, answer) = api.post("/v1/tickets", body).await?;
    ensure!(status == 200 && answer["expires_in"] == 30, "{status} {answer}");
    Ok(answer["ticket"].as_str().context("no ticket")?.to_owned())
}

async fn listen(cluster: &Cluster, node: usize, ticket: &str) -> Result<Events> {
    Events::open(cluster.node_address(node), &format!("/sse/news?ticket={ticket}"), &[]).await
}

async fn a_ticket_of_any_node_is_redeemed_once_by_any_node(broker: Broker) -> Result<()> {
    let (variable, tokens) = Issuer::keys();
    let nodes = broker.nodes();
    let mut cluster = Cluster::of(nodes).shared(broker).apis().set(variable, &tokens).start().await?;
    let ann = json!({ "user": "ann" });
    for made in 1..=nodes {
        for used in 1..=nodes {
            let ticket = ticket(&cluster.api(made)?, &ann).await?;
            let mut stream = listen(&cluster, used, &ticket).await?;
            ensure!(stream.status == 200, "made by {made}, used on {used}: {}", stream.head);
            stream.event().await.context("its position")?;
            for other in 1..=nodes {
                let mut again = listen(&cluster, other, &ticket).await?;
                let why = again.body().await?;
                ensure!(again.status == 401 && why.contains("has been used"), "{other}: {why}");
            }
        }
    }
    for round in 0..ROUNDS {
        let ticket = ticket(&cluster.api(round % nodes + 1)?, &ann).await?;
        let racers = (0..nodes * RACERS).map(|racer| listen(&cluster, racer % nodes + 1, &ticket));
        let statuses: Vec<_> = try_join_all(racers).await?.iter().map(|stream| stream.status).collect();
        let winners = statuses.iter().filter(|status| **status == 200).count();
        ensure!(winners == 1 && statuses.iter().all(|status| [200, 401].contains(status)), "{round}: {statuses:?}");
    }
    if broker != Broker::Memory {
        cluster.kill_node("node-3").await?;
        let made = Instant::now();
        let (unused, used) = (ticket(&cluster.api(1)?, &ann).await?, ticket(&cluster.api(1)?, &ann).await?);
        ensure!(listen(&cluster, 2, &used).await?.status == 200);
        cluster.start_node("node-3").await?;
        ensure!(listen(&cluster, 3, &used).await?.status == 401, "the new node does not know the use");
        let status = listen(&cluster, 3, &unused).await?.status;
        // A slow machine may have taken longer than the ticket's life to start the node.
        ensure!(status == 200 || made.elapsed() > LIFE, "{status}");
    }
    Ok(())
}

/// A node that lets only clients with a token or a ticket in, with these keys of its API and more variables.
async fn node(keys: &str, more: &[(&str, &str)]) -> Result<(Program, Api)> {
    let (variable, tokens) = Issuer::keys();
    let own = [("FANFARE__API__LISTEN", "127.0.0.1:0"), ("FANFARE__API__KEYS", keys), (variable, tokens.as_str())];
    let node = serve("fanfare", &[&own, more].concat()).await?;
    let api = Api::of(&node).await?;
    Ok((node, api))
}

/// A WebSocket, or the status and the text of its refusal.
async fn socket(node: &Program, path: &str) -> Result<(Wire, u16, String)> {
    let mut wire = Wire::connect(node.address).await?;
    wire.send(Head::upgrade(path).bytes()).await?;
    let response = wire.response().await?;
    Ok((wire, response.status, response.body))
}

#[tokio::test]
async fn a_ticket_opens_each_kind_of_connection_with_its_user_and_rights() -> Result<()> {
    let (node, api) = node(&backend().1, &[]).await?;
    let rights = json!([{ "match": "news", "can": ["subscribe", "publish"] }]);
    let body = json!({ "user": "ann", "info": { "name": "Ann" }, "channels": rights, "expires_in": 600 });
    let (mut native, status, _) = socket(&node, &format!("/ws?x=1&ticket={}", ticket(&api, &body).await?)).await?;
    ensure!(status == 101);
    let connected = native.ask(&json!({ "id": 1, "connect": {} }).to_string()).await?;
    let left = connected["ok"]["expires_in"].as_u64().context("no end")?;
    ensure!(connected["ok"]["user"] == "ann" && (500..=600).contains(&left), "{connected}");
    let refused = native.ask(&json!({ "id": 2, "subscribe": { "channel": "other" } }).to_string()).await?;
    ensure!(refused["error"]["code"] == "forbidden", "{refused}");
    let (mut raw, status, _) = socket(&node, &format!("/raw/news?ticket={}", ticket(&api, &body).await?)).await?;
    ensure!(status == 101);
    let mut both = Events::open(
        node.address,
        &format!("/sse?channel=news&data=message&ticket={}", ticket(&api, &body).await?),
        &[("Cookie", "a=b")],
    )
    .await?;
    let begin = both.event().await?;
    ensure!((begin.name.as_str(), begin.data.as_str()) == ("at", "") && !both.last_id.is_empty(), "{begin:?}");
    let other = Events::open(node.address, &format!("/sse/other?ticket={}", ticket(&api, &body).await?), &[]).await?;
    ensure!(other.status == 403, "{}", other.head);
    native.ask(&json!({ "id": 3, "publish": { "channel": "news", "data": "hello" } }).to_string()).await?;
    ensure!(raw.message().await? == "hello" && both.event().await?.data.contains("hello"));
    // Like a token of the user, it ends when all are revoked.
    let (status, answer) = api.post("/v1/revoke", &json!({ "everyone": false })).await?;
    ensure!(status == 400, "{answer}");
    ensure!(api.send("POST", "/v1/revoke", &[], b"").await?.status == 415);
    ensure!(api.post("/v1/revoke", &json!({ "everyone": true, "issued_until": 1_000 })).await?.0 == 200);
    ensure!(native.ask(&json!({ "id": 4, "ping": {} }).to_string()).await?["ok"] == json!({}));
    ensure!(api.post("/v1/revoke", &json!({ "everyone": true })).await?.0 == 200);
    for wire in [&mut native, &mut raw] {
        let end = wire.end().await?;
        ensure!(end.code == Some(4401), "{end:?}");
    }
    let close = both.event().await?;
    ensure!(close.name == "close" && close.data.contains("4401"), "{close:?}");
    Ok(())
}

#[tokio::test]
async fn a_ticket_gives_no_more_than_the_key_that_made_it_may_do() -> Result<()> {
    let rules = "[{ match = \"*\", subscribe = \"user\", publish = \"user\", history = \"user\" }]";
    for rules in ["[]", rules] {
        let (_, keys) = keys(&[
            ("reader", "[\"read\", \"admin\"]", "[\"orders:*\"]"),
            ("writer", "[\"publish\", \"admin\"]", "[\"orders:*\"]"),
            ("none", "[\"publish\", \"read\"]", "[\"*\"]"),
        ]);
        let (node, api) = node(&keys, &[("FANFARE__CHANNELS", rules)]).await?;
        let all = json!([{ "match": "*", "can": ["subscribe", "publish", "history"] }]);
        for body in [json!({ "user": "ann" }), json!({ "user": "ann", "channels": all })] {
            for (key, allowed) in [("reader", ["subscribe", "history"].as_slice()), ("writer", &["publish"])] {
                let ticket = ticket(&api.with(&format!("{key}.{SECRET}")), &body).await?;
                let (mut wire, status, why) = socket(&node, &format!("/ws?ticket={ticket}")).await?;
                ensure!(status == 101, "{why}");
                for channel in ["orders:1", "news"] {
                    for (verb, rest) in [("subscribe", json!({})), ("history", json!({})), ("publish", json!(1))] {
                        let mut command = json!({ "channel": channel });
                        if verb == "publish" {
                            command["data"] = rest;
                        }
                        let asked = json!({ "id": 1, verb: command }).to_string();
                        let mut reply = wire.ask(&asked).await?;
                        while reply["id"] != 1 {
                            reply = serde_json::from_str(&wire.message().await?)?;
                        }
                        let may = channel == "orders:1" && allowed.contains(&verb);
                        ensure!(reply["ok"].is_object() == may, "{key} {verb} {channel}: {reply}");
                        ensure!(may || reply["error"]["code"] == "forbidden", "{reply}");
                    }
                }
            }
        }
        let (status, problem) =
            api.with(&format!("none.{SECRET}")).post("/v1/tickets", &json!({ "user": "a" })).await?;
        ensure!(status == 403, "{problem}");
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_a_ticket_is_refused_and_none_is_shown() -> Result<()> {
    let (node, api) =
        node(&backend().1, &[("FANFARE__LOG__LEVEL", "trace"), ("FANFARE__AUTH__MAX_LIFE", "24h")]).await?;
    let (long, large) = ("x".repeat(256), "x".repeat(5000));
    let many = vec![json!({ "match": "a", "can": ["subscribe"] }); 1000];
    for (body, expected, words) in [
        (json!({}), 400, "user"),
        (json!({ "user": "" }), 400, "sub"),
        (json!({ "user": long }), 400, "255"),
        (json!({ "user": "a\u{7}" }), 400, "control"),
        (json!({ "user": "a", "info": large }), 400, "4 KiB"),
        (json!({ "user": "a", "channels": many }), 413, "bytes"),
        (json!({ "user": "a", "channels": [{ "match": "a:{", "can": [] }] }), 400, "segment"),
        (json!({ "user": "a", "channels": [{ "match": "a", "can": ["fly"] }] }), 400, "fly"),
        (json!({ "user": "a", "expires_in": 0 }), 400, "expires_in"),
        (json!({ "user": "a", "expires_in": 100_000_000 }), 400, "max_life"),
        (json!({ "user": "a", "jti": "b" }), 400, "jti"),
    ] {
        let (status, problem) = api.post("/v1/tickets", &body).await?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        ensure!(status == expected && detail.contains(words), "{body}: {problem}");
    }
    let mut shown = String::new();
    let made = [ticket(&api, &json!({ "user": "a" })).await?, ticket(&api, &json!({ "user": "a" })).await?];
    let unknown = "canary-ticket-0123456789";
    for (ticket, status) in [(&*made[0], 200), (&made[0], 401), (unknown, 401)] {
        let mut stream = Events::open(node.address, &format!("/sse/news?ticket={ticket}"), &[]).await?;
        ensure!(stream.status == status, "{}", stream.head);
        shown += &stream.head;
        shown += &if status == 200 { stream.event().await?.data } else { stream.body().await? };
        for path in
            [format!("/ws?ticket={ticket}"), format!("/raw/news?ticket={ticket}"), format!("/no?ticket={ticket}")]
        {
            let (_, status, body) = socket(&node, &path).await?;
            ensure!(status == if path.starts_with("/no") { 404 } else { 401 }, "{path}: {body}");
            shown += &body;
        }
    }
    let token = Issuer::new()?.token("ann", &[])?;
    let bearer = [("Authorization", format!("Bearer {token}"))];
    let bearer: Vec<_> = bearer.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for query in [format!("ticket={}", made[1]), format!("ticket={0}&ticket={0}", made[1])] {
        let both = Events::open(node.address, &format!("/sse/news?{query}"), &bearer).await?;
        ensure!(both.status == 400, "{query}: {}", both.head);
    }
    let unspent = Events::open(node.address, &format!("/sse/news?ticket={}", made[1]), &[]).await?;
    ensure!(unspent.status == 200, "a request that is refused before does not use the ticket");
    shown += &http::get(api.address, "/metrics").await?.body;
    shown += &node.output();
    for secret in made.iter().map(String::as_str).chain([unknown]) {
        ensure!(!shown.contains(secret), "a ticket was shown");
    }
    ensure!(shown.contains("DEBUG"), "the log is not at trace");
    Ok(())
}

/// A backend that gives pages tickets, from whichever node answers.
async fn ticket_office(apis: Vec<Api>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/ticket", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let mut body = String::new();
            for api in &apis {
                body = ticket(api, &json!({ "user": "ann" })).await.unwrap_or(body);
            }
            let head = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nConnection: close\r\n";
            let _ = stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
        }
    });
    Ok(url)
}

/// The code of `docs/sse.md` for pages with tickets.
fn documented() -> Result<String> {
    let page = std::fs::read_to_string("../docs/sse.md")?;
    let (_, rest) = page.split_once("## With a ticket").context("no such section")?;
    let code = rest.split("```js\n").nth(1).and_then(|rest| rest.split("```").next());
    Ok(code.context("no code")?.to_owned())
}

/// Publishes some messages, and expects the page to get them with all before, each once and in order.
async fn publish(cluster: &Cluster, node: usize, page: &Page, all: &mut Vec<String>) -> Result<()> {
    let token = Issuer::new()?.token("bob", &[])?;
    let client = Client::with_token(&format!("http://{}", cluster.node_address(node)), &token).await?;
    for _ in 0..5 {
        let text = all.len().to_string();
        client.publish("news", &text).await?;
        all.push(text);
    }
    let arrived = page.wait_until(&format!("given.length >= {}", all.len()), PATIENCE).await;
    let shown = page.eval("[given, opened]").await?;
    ensure!(arrived.is_ok() && shown[0] == json!(all), "the page has shown {shown} of {all:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_with_tickets_comes_back_by_the_documented_code_and_misses_nothing() -> Result<()> {
    let (variable, tokens) = Issuer::keys();
    let plan = Cluster::of(2).shared(Broker::Redis).apis().haproxy().set(variable, &tokens);
    let plan = plan.set("FANFARE__TIMING__DRAIN_WAIT", "1s").set("FANFARE__TIMING__DRAIN", "1s");
    let mut cluster = plan.set("FANFARE__HTTP__TRUSTED_PROXIES", "127.0.0.1").start().await?;
    let office = ticket_office(vec![cluster.api(1)?, cluster.api(2)?]).await?;
    let browser = Browser::start().await?;
    let page = browser.open(&cluster.gateway_url()).await?;
    // The page has names of its own, so the code gets its by parameters.
    let run = format!(
        "(window.given = [], window.opened = 0, ((getTicket, show, reload, EventSource) => {{ {} }})(
          async () => (await fetch('{office}')).text(), (data) => given.push(data), () => given.push('lost'),
          class extends EventSource {{
            constructor(url) {{ super(url); this.addEventListener('at', () => opened++, {{ once: true }}); }}
          }}), true)",
        documented()?
    );
    page.eval(&run).await?;
    page.wait_until("opened === 1", PATIENCE).await?;
    // It has seen no message yet, so only the event `at` says where it stands.
    for name in ["node-1", "node-2"] {
        cluster.kill_node(name).await?;
    }
    for name in ["node-1", "node-2"] {
        cluster.start_node(name).await?;
    }
    let mut all = Vec::new();
    publish(&cluster, 1, &page, &mut all).await?;
    for (victim, other) in [("node-1", 2), ("node-2", 1)] {
        ensure!(cluster.stop_node(victim).await?.success());
        publish(&cluster, other, &page, &mut all).await?;
        cluster.start_node(victim).await?;
        publish(&cluster, other, &page, &mut all).await?;
    }
    let opened = page.eval("opened").await?;
    ensure!(opened.as_u64().is_some_and(|opened| opened >= 3), "it was opened {opened} times");
    Ok(())
}
