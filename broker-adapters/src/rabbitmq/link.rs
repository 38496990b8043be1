//! Connections to RabbitMQ: made here, never repaired; a broken one is replaced by its next user.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_rs::Tokio;
use async_rs::util::RuntimeParts;
use futures_util::future::{BoxFuture, FutureExt};
use lapin::message::BasicReturnMessage;
use lapin::tcp::AsyncTcpStream;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::agree::{agree, watch};
use super::append::Press;
use super::url::Address;
use super::wire::{self, Hangup, Wire, Wires};
use super::words::{advise, failed};
use crate::broker::LinkError;
use crate::stored::position::Epoch;
use crate::writes::Writes;

/// The longest that making a connection may take, log-in and a look at the streams included.
const DIAL: Duration = Duration::from_secs(4);
/// How long RabbitMQ has to answer a farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// All that is needed to make a connection.
pub(super) struct Dialer {
    pub(super) address: Address,
    pub(super) partitions: u16,
    pub(super) writes: Writes,
}

/// One connection. Dropping it closes it.
pub(super) struct Link {
    connection: Option<Connection>,
    hangup: Option<Hangup>,
    /// The log that it leads to.
    pub(super) epoch: Epoch,
    /// Done when the log is another one or the connection failed. A reader takes it.
    watch: Mutex<Option<BoxFuture<'static, LinkError>>>,
    given_up: AtomicBool,
    /// What an appender needs, once one came.
    pub(super) press: tokio::sync::Mutex<Option<Press>>,
    /// What RabbitMQ sent back. The connection is given up soon after.
    pub(super) returned: Mutex<Vec<BasicReturnMessage>>,
}

impl Dialer {
    /// Connects, logs in, and makes sure that the log is there and that this node fits to it.
    pub(super) async fn dial(&self) -> Result<Link, LinkError> {
        match timeout(DIAL, self.dial_for_ever()).await {
            Ok(result) => result.map_err(|error| self.named(error)),
            Err(_) => Err(self.named(LinkError::new(format!("no connection within {DIAL:?}")))),
        }
    }

    /// An error that says which RabbitMQ it is about, and what to do.
    pub(super) fn named(&self, error: LinkError) -> LinkError {
        let Address { host, port, prefix, .. } = &self.address;
        let name = format!("RabbitMQ at {host}:{port}: ");
        // The connection that appends may have said it.
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
        Ok(Link {
            connection: Some(connection),
            hangup: Some(hangup),
            epoch,
            watch: Mutex::new(Some(watch(settings).boxed())),
            given_up: AtomicBool::new(false),
            press: tokio::sync::Mutex::default(),
            returned: Mutex::default(),
        })
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

impl Link {
    pub(super) async fn channel(&self) -> Result<Channel, LinkError> {
        let connection = self.connection.as_ref().ok_or_else(|| LinkError::new("closed"))?;
        connection.create_channel().await.map_err(|error| failed(&error))
    }

    /// Whether it may be used for a new request.
    pub(super) fn usable(&self) -> bool {
        let connected = self.connection.as_ref().is_some_and(|connection| connection.status().connected());
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.as_mut().is_some_and(|watch| watch.now_or_never().is_some()) {
            *watch = None;
            self.give_up();
        }
        connected && !self.given_up.load(Ordering::Relaxed)
    }

    /// What says when the log is another one. The taker watches it from now on.
    pub(super) fn take_watch(&self) -> Option<BoxFuture<'static, LinkError>> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether RabbitMQ takes no publishes for now: it is short of memory or disk.
    pub(super) fn blocked(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.status().blocked())
    }

    /// No new request will use it; those under way may still be answered.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Says farewell and hangs up.
    pub(super) async fn close(&self) {
        self.give_up();
        if let Some(connection) = &self.connection {
            let _ = timeout(FAREWELL, connection.close(200, "closed".into())).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let (connection, hangup) = (self.connection.take(), self.hangup.take());
        // The client library says farewell as it is dropped, and would wait for the answer for ever.
        if connection.is_some_and(|connection| connection.status().connected())
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                sleep(FAREWELL).await;
                drop(hangup);
            });
        }
    }
}
