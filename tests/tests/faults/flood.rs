//! Commands without an end, from a thread of their own, so that sending them delays nothing that is measured.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use tests::wire::Wire;
use tokio::sync::oneshot;

/// A flood, while it lasts.
pub(crate) struct Flood {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Flood {
    /// Sends these frames again and again over so many sockets, each time once all before were answered.
    pub(crate) fn begin(address: SocketAddr, frames: Vec<u8>, sockets: usize) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                tokio::select! {
                    ended = try_join_all((0..sockets).map(|_| send(address, &frames))) => ended.map(drop),
                    _ = stopped => Ok(()),
                }
            })
        });
        Self { stop, thread }
    }

    /// Ends it; fails if it has ended before.
    pub(crate) fn end(self) -> Result<()> {
        let going = self.stop.send(()).is_ok();
        let ended = self.thread.join().ok().context("the flood panicked")?;
        ended.and_then(|()| going.then_some(()).context("the flood ended by itself"))
    }
}

async fn send(address: SocketAddr, frames: &[u8]) -> Result<()> {
    let mut wire = Wire::open(address, "/ws").await?;
    loop {
        wire.exchange(frames).await?;
        wire.ask(r#"{"id":1,"ping":{}}"#).await?;
    }
}
