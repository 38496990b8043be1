//! Frames after the handshake: a broken rule ends its sender's connection only, and the close reason names the rule.

mod apps;
mod ends;
mod messages;
mod pings;

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tests::Program;
use tests::wire::{self, Wire};

/// Both programs and all their endpoints; a good client visits the first of each.
pub(crate) const ENDPOINTS: [(&str, &[&str]); 2] = [("fanfare", &["/raw/news", "/ws"]), ("echo-server", &["/ws/echo"])];

/// What a client sends, and what that is.
pub(crate) type Row = (&'static str, Vec<u8>);

/// Sends each row on a connection of its own to every endpoint: it ends with the code, a good client is served
/// after it, and the log has one line on it.
pub(crate) async fn each_ends(rows: &[Row], environment: &[(&str, &str)], reason: &str, code: u16) -> Result<()> {
    for (program, paths) in ENDPOINTS {
        let server = wire::serve(program, environment).await?;
        for path in paths {
            for (what, bytes) in rows {
                let mut wire = Wire::open(server.address, path).await?;
                // The server may be done with us before we are done.
                let _ = wire.send(bytes).await;
                let end = wire.end().await.with_context(|| format!("{path}: {what}"))?;
                assert_eq!(end.code, Some(code), "{path}: {what}: {end:?}");
                assert!(!end.reason.is_empty() && !end.reset, "{path}: {what}: {end:?}");
                wire::visit(server.address, paths[0]).await.with_context(|| format!("{path}: after {what}"))?;
                logged(&server, wire, reason, Some(code)).await?;
            }
        }
    }
    Ok(())
}

/// Leaves, if that is still to be done; then the log has exactly one line on the connection, with this reason.
pub(crate) async fn logged(server: &Program, wire: Wire, reason: &str, code: Option<u16>) -> Result<()> {
    let peer = wire.local();
    drop(wire);
    logged_of(server, peer, reason, code).await
}

pub(crate) async fn logged_of(server: &Program, peer: SocketAddr, reason: &str, code: Option<u16>) -> Result<()> {
    let peer = format!("peer={peer} ");
    let line = server.line(&peer).await?;
    let code = code.map_or_else(String::new, |code| format!(" code={code} "));
    ensure!(line.contains(&format!("reason=\"{reason}\"")) && line.contains(&code), "{reason}: {line}");
    ensure!(server.output().matches(&peer).count() == 1, "more than one line: {}", server.output());
    Ok(())
}
