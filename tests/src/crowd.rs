//! The main job, on any cluster behind HAProxy: 300 sockets on all its servers, and a message sent on any of them comes to
//! all, exactly once and in one order.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::client::{Client, ECHO};
use crate::history::{Outcome, Run};

/// Sockets of each protocol of the gateway; half as many again are on the echo servers.
const EACH: usize = 120;
/// Messages on the gateway.
const MESSAGES: usize = 1000;
/// Messages on the echo servers.
const ECHOES: usize = 200;
/// Messages under way at a time, and connections being made.
const AT_ONCE: usize = 8;

/// How many sockets each server had, by its name.
pub type Spread = BTreeMap<String, usize>;

/// Connects, sends, and checks what came; gives where the sockets were.
pub async fn converse(gateway: &str, echo: &str) -> Result<Spread> {
    let channel = format!("crowd-{}", fastrand::u32(..));
    let native = connect(EACH, async || {
        let client = Client::native(gateway).await?;
        client.subscribe(&channel).await?;
        Ok(client)
    });
    let native = native.await?;
    let raw = connect(EACH, || Client::raw(gateway, &channel)).await?;
    let echoes = connect(EACH / 2, || Client::echo(echo)).await?;
    everyone_hears(&channel, &[&native, &raw], MESSAGES).await?;
    everyone_hears(ECHO, &[&echoes], ECHOES).await?;

    let mut spread = Spread::new();
    let all = native.iter().chain(&raw).chain(&echoes);
    all.for_each(|client| *spread.entry(client.node.clone()).or_default() += 1);
    println!("sockets: {spread:?}");
    Ok(spread)
}

async fn connect<F: Future<Output = Result<Client>>>(count: usize, one: impl Fn() -> F) -> Result<Vec<Client>> {
    stream::iter(0..count).map(|_| one()).buffer_unordered(AT_ONCE).try_collect().await
}

/// Sends, each message on another node than the one before and over all protocols by turns, and checks what all heard.
async fn everyone_hears(channel: &str, protocols: &[&[Client]], count: usize) -> Result<()> {
    let run = &Run::on(channel);
    let senders: Vec<_> = protocols.iter().flat_map(|clients| by_node(clients).into_values()).collect();
    let sent = stream::iter(0..count).map(|number| {
        let senders = &senders;
        async move {
            let clients = &senders[number % senders.len()];
            let client = clients[number / senders.len() % clients.len()];
            let outcome = run.publish(client, &format!("message {number}")).await?;
            ensure!(outcome == Outcome::Acknowledged, "message {number}, sent on {}, is {outcome:?}", client.node);
            Ok(())
        }
    });
    sent.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let everyone = || protocols.iter().copied().flatten();
    for client in everyone() {
        client.messages(count).await?;
    }
    let report = run.judge(everyone(), []);
    report.assert_whole();
    assert_eq!((report.acked, report.delivered), (count, count * everyone().count()), "{report}");
    assert!(everyone().all(Client::is_open), "every socket is still open");
    Ok(())
}

fn by_node(clients: &[Client]) -> BTreeMap<&str, Vec<&Client>> {
    let mut nodes: BTreeMap<&str, Vec<&Client>> = BTreeMap::new();
    clients.iter().for_each(|client| nodes.entry(&client.node).or_default().push(client));
    nodes
}
