//! XADD over one multiplexed connection, XREAD over another.

use std::sync::Arc;

use async_trait::async_trait;
use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use tokio::sync::watch;

use super::{ENVELOPE, Error, Publish, SETTINGS, Side};

/// Streams, each with its entries: their ids and what they hold.
type Reply = Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>;

struct Raw(MultiplexedConnection);

fn key(partition: u16) -> String {
    format!("raw:{partition}")
}

#[async_trait]
impl Publish for Raw {
    async fn publish(&self, channel: String) -> Result<(), Error> {
        let mut add = redis::cmd("XADD");
        add.arg(key(super::partition(&channel)))
            .arg("MAXLEN")
            .arg("~")
            .arg(SETTINGS.retention)
            .arg("*")
            .arg("r")
            .arg(&[7; ENVELOPE][..]);
        Ok(add.exec_async(&mut self.0.clone()).await?)
    }
}

pub(super) async fn side(url: &str) -> Result<Side, Error> {
    let client = redis::Client::open(url)?;
    let patient = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut reader = client.get_multiplexed_async_connection_with_config(&patient).await?;
    let keys: Vec<_> = (0..SETTINGS.partitions).map(key).collect();
    redis::cmd("DEL").arg(&keys).exec_async(&mut reader).await?;
    let (count, received) = watch::channel(0);
    tokio::spawn(async move {
        let mut last = vec!["0-0".to_owned(); keys.len()];
        while !count.is_closed() {
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(512).arg("BLOCK").arg(1000).arg("STREAMS").arg(&keys).arg(&last);
            let reply: Option<Reply> = match read.query_async(&mut reader).await {
                Ok(reply) => reply,
                Err(error) => return eprintln!("the raw reader failed: {error}"),
            };
            for (stream, entries) in reply.into_iter().flatten() {
                let place = keys.iter().position(|key| *key == stream);
                if let (Some(place), Some((newest, _))) = (place, entries.last()) {
                    last[place].clone_from(newest);
                }
                count.send_modify(|count| *count += entries.len() as u64);
            }
        }
    });
    Ok(Side { publisher: Arc::new(Raw(client.get_multiplexed_async_connection().await?)), received })
}
