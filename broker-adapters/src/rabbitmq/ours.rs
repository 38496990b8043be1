//! Whether existing streams hold Fanfare's log. Checked before settings are written, which begin a log.
//!
//! A log is known by its records: an envelope at the beginning of any stream. Empty streams are free.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use lapin::Connection;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;

use super::agree::{open, unless_missing};
use super::lane::first_offset;
use super::words::failed_on;
use crate::broker::LinkError;
use crate::stored::envelope;

/// How long a stream may take to show its first record: one that has records, and one that seems to be empty.
const SHOW: Duration = Duration::from_secs(2);
const EMPTY: Duration = Duration::from_millis(500);

/// What a stream begins with.
enum Begins {
    /// It is missing or empty.
    Free,
    Ours,
    /// With another program's record.
    Other,
}

/// Refuses streams that other programs write to. Leaves them as they are.
pub(super) async fn examine(connection: &Connection, streams: &[String]) -> Result<(), LinkError> {
    let begins = try_join_all(streams.iter().map(|stream| beginning(connection, stream))).await?;
    if begins.iter().any(|begins| matches!(begins, Begins::Ours)) {
        return Ok(());
    }
    match streams.iter().zip(begins).find(|(_, begins)| matches!(begins, Begins::Other)) {
        Some((stream, _)) => Err(LinkError::set_up(format!(
            "the stream `{stream}` holds records of another program, and nothing was written: name another `?prefix=` in \
             the broker's URL, or add `adopt=true` to it if Fanfare is to write there too"
        ))),
        None => Ok(()),
    }
}

async fn beginning(connection: &Connection, stream: &str) -> Result<Begins, LinkError> {
    let channel = open(connection).await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(stream.into(), options, FieldTable::default()).await;
    let Some(there) = unless_missing(asked)? else { return Ok(Begins::Free) };
    let wait = if there.message_count() > 0 { SHOW } else { EMPTY };
    let failed = |error: lapin::Error| failed_on(stream, &error);
    channel.basic_qos(1, BasicQosOptions::default()).await.map_err(failed)?;
    // A queue that is no stream cannot be read from an offset, so this takes nothing out of it.
    let consumer =
        channel.basic_consume(stream.into(), "".into(), BasicConsumeOptions::default(), first_offset()).await;
    match timeout(wait, consumer.map_err(failed)?.next()).await {
        Ok(Some(Ok(first))) if envelope::is_ours(&first.data) => Ok(Begins::Ours),
        Ok(Some(Ok(_))) => Ok(Begins::Other),
        Ok(Some(Err(error))) => Err(failed(error)),
        Ok(None) => Err(LinkError::new(format!("the stream `{stream}` was deleted"))),
        Err(_) if there.message_count() > 0 => {
            let why =
                format!("the stream `{stream}` did not show its first record in time: it may be another program's");
            Err(LinkError::new(why))
        }
        Err(_) => Ok(Begins::Free),
    }
}
