//! Makes a connection: TCP, TLS, log-in, and the question whether the log is there and this node fits to it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_rs::Tokio;
use async_rs::util::RuntimeParts;
use lapin::tcp::AsyncTcpStream;
use lapin::{Connection, ConnectionProperties};
use tokio::time::timeout;

use super::agree::agree;
use super::link::Link;
use super::url::Address;
use super::wire::{self, Wire, Wires};
use super::words::{advise, failed};
use crate::broker::LinkError;
use crate::line::Dial;
use crate::writes::Writes;

/// The longest that making a connection may take, log-in and a look at the streams included.
const DIAL: Duration = Duration::from_secs(4);

/// Makes connections to RabbitMQ.
pub(super) struct Dialer {
    pub(super) address: Address,
    pub(super) partitions: u16,
    pub(super) writes: Writes,
}

impl Dial for Dialer {
    type Link = Link;
    const BROKER: &'static str = "RabbitMQ";

    async fn dial(&self) -> Result<Link, LinkError> {
        match timeout(DIAL, self.dial_for_ever()).await {
            Ok(result) => result.map_err(|error| self.named(error)),
            Err(_) => Err(self.named(LinkError::new(format!("no connection within {DIAL:?}")))),
        }
    }

    fn serves(&self, link: &Link) -> bool {
        link.usable()
    }

    async fn hang_up(link: &Link) {
        link.close().await;
    }
}

impl Dialer {
    /// An error that says which RabbitMQ it is about, and what to do.
    pub(super) fn named(&self, error: LinkError) -> LinkError {
        let Address { host, port, prefix, .. } = &self.address;
        let name = format!("RabbitMQ at {host}:{port}: ");
        // An error of the appends' connection names it already.
        if error.why.starts_with(&name) {
            return error;
        }
        LinkError::of(error.kind, name + &advise(&error.why, prefix))
    }

    async fn dial_for_ever(&self) -> Result<Link, LinkError> {
        let (wire, hangup) = wire::connect(&self.address).await?;
        let connection = log_in(&self.address, wire).await?;
        enough_channels(connection.configuration().channel_max(), self.partitions)?;
        let (epoch, settings) = agree(&connection, &self.address, self.partitions).await?;
        Ok(Link::new(connection, hangup, epoch, settings))
    }
}

/// While a log is made, a connection has up to three channels for each partition, as closed ones linger, and a few more.
fn enough_channels(most: u16, partitions: u16) -> Result<(), LinkError> {
    let needed = 3 * u32::from(partitions) + 8;
    if most == 0 || u32::from(most) >= needed {
        return Ok(());
    }
    Err(LinkError::set_up(format!(
        "it lets a connection have {most} channels, and {partitions} partitions need {needed}: raise `channel_max` in \
         rabbitmq.conf, or start with fewer `broker.partitions`"
    )))
}

async fn log_in(address: &Address, wire: Wire) -> Result<Connection, LinkError> {
    let wire = Mutex::new(Some(wire));
    // Asked once: nothing here lets the client library connect again.
    let connect = async move |_, _| {
        let wire = wire.lock().unwrap_or_else(PoisonError::into_inner).take();
        let again = || std::io::Error::other("the connection failed at its start");
        wire.map(AsyncTcpStream::Plain).ok_or_else(again).map_err(lapin::Error::from)
    };
    let tokio = Tokio::current();
    let runtime = async_rs::Runtime::new(RuntimeParts::new(tokio.clone(), Wires(tokio)));
    let properties = ConnectionProperties::default()
        .with_connection_name("fanfare".into())
        .with_client_property("product".into(), "Fanfare".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    Connection::connector(address.login.clone(), runtime, connect, properties).await.map_err(|error| failed(&error))
}
