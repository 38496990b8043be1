//! What a node makes of a request before there is a WebSocket. What is no lawful handshake is refused as RFC 6455 §4.2 and
//! RFC 9112 want it, and costs its sender only.

mod head;
mod origins;
mod refusals;
mod upgrade;

use std::net::SocketAddr;

use anyhow::Result;
use tests::wire::{Response, Wire};
use tests::{Program, http};

/// Every endpoint of the two programs, and a page of each.
pub(crate) const ENDPOINTS: [(&str, &[&str], &str); 2] =
    [("fanfare", &["/ws", "/raw/news"], "/"), ("echo-server", &["/ws/echo"], "/ws")];

/// Waits until so many requests were refused for this reason.
pub(crate) async fn counts(server: &Program, reason: &str, times: u32) -> Result<()> {
    let counted = format!("fanfare_connections_refused_total{{reason=\"{reason}\"}} {times}\n");
    http::until(server.address, "/metrics", |page| page.body.contains(&counted)).await.map(drop)
}

/// The only response to some bytes.
pub(crate) async fn answer(server: &Program, bytes: impl AsRef<[u8]>) -> Result<Response> {
    let mut wire = Wire::connect(server.address).await?;
    wire.send(bytes).await?;
    wire.response().await
}

/// The only response of this machine's server on a port.
pub(crate) async fn answer_at(port: u16, bytes: impl AsRef<[u8]>) -> Result<Response> {
    let mut wire = Wire::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    wire.send(bytes).await?;
    wire.response().await
}

/// All responses to some bytes, after which the server must close; it may do so before it has taken all of them.
pub(crate) async fn answers(server: &Program, bytes: impl AsRef<[u8]>) -> Result<Vec<Response>> {
    let mut wire = Wire::connect(server.address).await?;
    let _ = wire.send(bytes).await;
    let mut answers = Vec::new();
    while let Some(response) = wire.next_response().await? {
        answers.push(response);
    }
    Ok(answers)
}

pub(crate) fn statuses(answers: &[Response]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}
