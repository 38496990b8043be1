//! The agent of a node, asked as HAProxy asks it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use crate::{PATIENCE, Program};

/// Where a program's agent listens; it must have been given `agent.listen`.
pub async fn of(program: &Program) -> Result<SocketAddr> {
    let line = program.line("agent-check on ").await?;
    Ok(line.rsplit(' ').next().context("an address")?.parse()?)
}

/// The agent's line.
pub async fn ask(address: SocketAddr) -> Result<String> {
    let mut line = String::new();
    let asked = async { TcpStream::connect(address).await?.read_to_string(&mut line).await };
    timeout(PATIENCE, asked).await.context("the agent neither answers nor closes")??;
    Ok(line)
}

/// Asks until the line begins so.
pub async fn until(address: SocketAddr, word: &str) -> Result<String> {
    let mut last = String::new();
    let says = async {
        let mut look = interval(Duration::from_millis(10));
        loop {
            look.tick().await;
            last = ask(address).await?;
            if last.starts_with(word) {
                return anyhow::Ok(());
            }
        }
    };
    let said = timeout(PATIENCE, says).await;
    said.with_context(|| format!("the agent says {last:?}, not {word:?}"))??;
    Ok(last)
}
