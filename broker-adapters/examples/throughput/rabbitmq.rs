//! Publisher confirms on one channel, a consumer per stream on another connection.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::sync::watch;

use super::{ENVELOPE, Error, Publish, SETTINGS, Side};

struct Raw {
    _connection: Connection,
    channel: Channel,
}

fn stream(partition: u16) -> String {
    format!("raw.{partition}")
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[async_trait]
impl Publish for Raw {
    async fn publish(&self, channel: String) -> Result<(), Error> {
        let (stream, properties) = (stream(super::partition(&channel)).as_str().into(), BasicProperties::default());
        let sent =
            self.channel.basic_publish("".into(), stream, BasicPublishOptions::default(), &[7; ENVELOPE], properties);
        let confirmed = sent.await?.await?;
        if confirmed.is_ack() { Ok(()) } else { Err("not confirmed".into()) }
    }
}

pub(super) async fn side(url: &str) -> Result<Side, Error> {
    let url = url.split('?').next().unwrap_or_default();
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let reading = Connection::connect(url, ConnectionProperties::default()).await?;
    let mut consumers = SelectAll::new();
    for partition in 0..SETTINGS.partitions {
        let mut kind = FieldTable::default();
        kind.insert("x-queue-type".into(), text("stream"));
        channel.queue_declare(stream(partition).as_str().into(), QueueDeclareOptions::durable(), kind).await?;
        let channel = reading.create_channel().await?;
        channel.basic_qos(64, BasicQosOptions::default()).await?;
        let mut from = FieldTable::default();
        from.insert("x-stream-offset".into(), text("next"));
        let name = stream(partition);
        consumers
            .push(channel.basic_consume(name.as_str().into(), "".into(), BasicConsumeOptions::default(), from).await?);
    }
    let (count, received) = watch::channel(0);
    tokio::spawn(async move {
        let _reading = reading;
        while let Some(delivery) = consumers.next().await {
            let acknowledged = match delivery {
                Ok(delivery) => delivery.ack(BasicAckOptions::default()).await,
                Err(error) => Err(error),
            };
            if let Err(error) = acknowledged {
                return eprintln!("the raw reader failed: {error}");
            }
            count.send_modify(|count| *count += 1);
        }
    });
    Ok(Side { publisher: Arc::new(Raw { _connection: connection, channel }), received })
}
