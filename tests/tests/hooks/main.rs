//! Hooks: a node that asks a backend about clients, subscriptions and messages.

mod commands;
mod connect;
mod ends;
mod outage;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::backend::Backend;
use tests::wire::{self, Head, Wire};
use tests::{Program, http};

/// The secret by which the backend recognises the node.
const SECRET: &str = "canary-hook-secret-0123456789-0123456789";

/// Rules of a node that asks about every channel but `free`.
const RULES: &str = r#"[{ match = "free", subscribe = "anyone", publish = "anyone" },
                        { match = "*", subscribe = "hook", publish = "hook" }]"#;

/// Starts a node that asks a backend about `hooks`.
async fn node(backend: &Backend, hooks: &[&str], more: &[(&str, &str)]) -> Result<Program> {
    let url = backend.url();
    let names: Vec<_> = hooks.iter().map(|hook| format!("FANFARE__HOOKS__{}", hook.to_uppercase())).collect();
    let hooks = names.iter().map(|name| (name.as_str(), url.as_str()));
    let common = [("FANFARE__HOOKS__SECRET", SECRET)].into_iter().chain(more.iter().copied());
    wire::serve("fanfare", &hooks.chain(common).collect::<Vec<_>>()).await
}

/// Starts a node that asks about subscriptions and messages on all channels but `free`.
async fn asking(backend: &Backend, more: &[(&str, &str)]) -> Result<Program> {
    node(backend, &["subscribe", "publish"], &[&[("FANFARE__CHANNELS", RULES)], more].concat()).await
}

/// Sends a handshake. Returns the connection and the answer.
async fn handshake(node: &Program, head: Head) -> Result<(Wire, wire::Response)> {
    let mut wire = Wire::connect(node.address).await?;
    wire.send(head.bytes()).await?;
    let response = wire.response().await?;
    Ok((wire, response))
}

fn command(id: u64, name: &str, what: &Value) -> String {
    json!({ "id": id, name: what }).to_string()
}

fn subscribe(channel: &str) -> String {
    command(1, "subscribe", &json!({ "channel": channel }))
}

fn publish(channel: &str, data: impl Into<Value>) -> String {
    command(2, "publish", &json!({ "channel": channel, "data": data.into() }))
}

/// The value of a metric, by its name and labels.
async fn metric(node: &Program, name: &str) -> Result<u64> {
    let page = http::get(node.address, "/metrics").await?.body;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line.with_context(|| format!("no {name} in:\n{page}"))
}
