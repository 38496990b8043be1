//! The last messages for a new subscriber.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::history::parts;
use tests::{Broker, Client, Cluster};
use tokio::task::JoinSet;

use super::{channels, history, live, publish, subscribe, url};

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq, memory Memory: {
    the_last_messages_come_first_and_live_ones_follow_without_gap_or_duplicate,
} }

async fn the_last_messages_come_first_and_live_ones_follow_without_gap_or_duplicate(broker: Broker) -> Result<()> {
    let cluster = Cluster::of(1).shared(broker).set("FANFARE__WINDOW__BYTES", "32KiB").start().await?;
    let url = url(&cluster, 1);
    let speaker = Client::native(&url).await?;
    let [channel, beside, _] = channels(&speaker).await?;
    let numbers = |numbers: std::ops::Range<usize>| numbers.map(|number| number.to_string()).collect::<Vec<_>>();
    for number in 0..30 {
        publish(&speaker, &channel, &number.to_string()).await?;
    }
    // Now they are older than the window.
    for number in 0..60 {
        publish(&speaker, &beside, &format!("{number} {}", "x".repeat(400))).await?;
    }
    let old = parts(&subscribe(&speaker, &channel).await?)?;
    for last in [1, 7, 29, 1000] {
        let client = Client::native(&url).await?;
        let ok = client.ask(json!({ "subscribe": { "channel": channel, "last": last } })).await?["ok"].take();
        let expected = last.min(30);
        ensure!(ok["last"] == expected && ok["recovered"].is_null(), "{ok}");
        ensure!(parts(ok["at"].as_str().context("no position")?)?.0 < old.0, "{ok}");
        client.messages(expected).await?;
        ensure!(live(&client) == numbers(30 - expected..30), "{:?}", live(&client));
    }
    // While messages come: those of before and those of after the subscription are one run.
    let mut readers = JoinSet::new();
    for number in 30..90 {
        publish(&speaker, &channel, &number.to_string()).await?;
        if number % 10 == 0 {
            let (client, channel) = (Client::native(&url).await?, channel.clone());
            readers.spawn(async move {
                let ok = client.ask(json!({ "subscribe": { "channel": channel, "last": 5 } })).await?["ok"].take();
                ensure!(ok["last"] == 5, "{ok}");
                client.sees("89").await?;
                let seen = live(&client);
                let first: usize = seen.first().context("no message")?.parse()?;
                ensure!(seen == (first..90).map(|number| number.to_string()).collect::<Vec<_>>(), "{seen:?}");
                Ok(())
            });
        }
    }
    while let Some(read) = readers.join_next().await {
        read??;
    }
    // A position that proves nothing: the last ones instead. One that does wins.
    let forged = tests::history::earlier_text((old.0, old.1, 1));
    let client = Client::native(&url).await?;
    let join = json!({ "channel": channel, "since": forged, "last": 3 });
    let ok = client.ask(json!({ "subscribe": join })).await?["ok"].take();
    ensure!(ok["recovered"] == false && ok["last"] == 3, "{ok}");
    client.messages(3).await?;
    ensure!(live(&client) == numbers(87..90), "{:?}", live(&client));
    let client = Client::native(&url).await?;
    let page = history(&speaker, json!({ "channel": channel, "limit": 5 })).await?;
    let join = json!({ "channel": channel, "since": page["messages"][0]["at"], "last": 50 });
    let ok = client.ask(json!({ "subscribe": join })).await?["ok"].take();
    ensure!(ok["recovered"] == true && ok["last"].is_null(), "{ok}");
    client.messages(4).await?;
    ensure!(live(&client) == numbers(86..90), "{:?}", live(&client));
    Ok(())
}
