//! Streams that are cut and go on elsewhere: exactly what was missed, in the order of all clients, on every broker.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use tests::events::Events;
use tests::{Broker, Client, Cluster, Frame};

const CHANNELS: [&str; 3] = ["chat:1", "chat:2", "prices"];
/// Messages of each channel: 10,200 in all.
const EACH: usize = 3_400;
/// Publishes of each channel that are under way at a time.
const FLYING: usize = 32;

tests::on_brokers! { memory Memory, redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    a_stream_that_is_cut_and_resumed_on_other_nodes_gets_each_message_once_in_the_order_of_a_websocket,
} }

fn url(cluster: &Cluster, node: usize) -> String {
    format!("http://{}", cluster.node_address(node))
}

/// Publishes all messages of a channel. The log decides on their order.
async fn publish(cluster: &Cluster, channel: &str) -> Result<()> {
    let client = &Client::native(&url(cluster, 1)).await?;
    let published =
        stream::iter(0..EACH).map(|number| async move { client.publish(channel, &text(channel, number)).await });
    published.buffered(FLYING).try_for_each(async |_| Ok(())).await
}

fn text(channel: &str, number: usize) -> String {
    format!("{channel} {number}")
}

/// Reads all messages over many streams, each on the next node and cut after some events.
async fn read(
    cluster: &Cluster,
    nodes: usize,
    mut events: Events,
    path: &str,
) -> Result<(BTreeMap<String, Vec<String>>, usize)> {
    let (mut came, mut streams) = (BTreeMap::<String, Vec<String>>::new(), 1);
    for number in 0..EACH * CHANNELS.len() {
        let event = events.event().await?;
        ensure!(event.name == "message", "{event:?} after {number} messages on stream {streams}");
        let (channel, _) = event.data.split_once(' ').context("a message of another test")?;
        came.entry(channel.to_owned()).or_default().push(event.data);
        if fastrand::u32(..300) == 0 {
            let id = std::mem::take(&mut events.last_id);
            ensure!(id.len() <= 2048, "an id of {} bytes", id.len());
            events = Events::resume(cluster.node_address(streams % nodes + 1), path, &id).await?;
            ensure!(events.status == 200, "{events:?}");
            events.last_id = id;
            streams += 1;
        }
    }
    Ok((came, streams))
}

async fn a_stream_that_is_cut_and_resumed_on_other_nodes_gets_each_message_once_in_the_order_of_a_websocket(
    broker: Broker,
) -> Result<()> {
    let nodes = broker.nodes();
    let cluster = Cluster::of(nodes).shared(broker).start().await?;
    let path = format!("/sse?channel={}", CHANNELS.join("&channel="));
    let mut events = Events::open(cluster.node_address(1), &path, &[]).await?;
    events.placed().await?;
    let native = Client::native(&url(&cluster, nodes)).await?;
    for channel in CHANNELS {
        native.subscribe(channel).await?;
    }
    let publishing = try_join_all(CHANNELS.map(|channel| publish(&cluster, channel)));
    let (_, (came, streams)) = tokio::try_join!(publishing, read(&cluster, nodes, events, &path))?;
    native.messages(EACH * CHANNELS.len()).await?;
    for channel in CHANNELS {
        let seen = native.frames().into_iter().filter_map(|frame| match frame {
            Frame::Message { channel: found, data, .. } if found == channel => Some(data),
            _ => None,
        });
        let seen: Vec<_> = seen.collect();
        let all: BTreeSet<_> = (0..EACH).map(|number| text(channel, number)).collect();
        ensure!(seen.len() == EACH && seen.iter().cloned().collect::<BTreeSet<_>>() == all, "{channel}: {seen:?}");
        let came = &came[channel];
        let differs = came.iter().zip(&seen).position(|(one, other)| one != other);
        ensure!(
            came.len() == EACH && differs.is_none(),
            "{channel} over {streams} streams: {differs:?} of {}",
            came.len()
        );
    }
    ensure!(streams > 5, "only {streams} streams");
    Ok(())
}
