//! The HTTP API: keys, publishes and their three outcomes, history, revocation, and its description.

mod basics;
mod description;
mod keys;
mod outcomes;
mod receivers;
mod walls;

use anyhow::Result;
use tests::api::{Api, backend};
use tests::wire::serve;
use tests::{Client, Program};

/// A node with an API that takes [`BACKEND`](tests::api::BACKEND), with more variables.
async fn node(more: &[(&str, &str)]) -> Result<(Program, Api)> {
    let (variable, keys) = backend();
    let node =
        serve("fanfare", &[&[("FANFARE__API__LISTEN", "127.0.0.1:0"), (variable, &keys)], more].concat()).await?;
    let api = Api::of(&node).await?;
    Ok((node, api))
}

/// A client that is subscribed to a channel.
async fn listener(node: &Program, channel: &str) -> Result<Client> {
    let client = Client::native(&format!("http://{}", node.address)).await?;
    client.subscribe(channel).await?;
    Ok(client)
}
