//! The page that `fanfare` serves at `/`, in a real browser: a newcomer's first minute.

mod access;
mod members;
mod messages;
mod tour;

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;
use tests::PATIENCE;
use tests::browser::{ENTER, Page};

/// Waits until this step of the tour is ticked off.
async fn done(page: &Page, topic: &str) -> Result<()> {
    page.wait_until(&format!("document.querySelector('[data-topic={topic}].done')"), PATIENCE).await.map(drop)
}

async fn text(page: &Page, js: &str) -> Result<String> {
    page.eval(js).await?.as_str().map(str::to_owned).with_context(|| format!("{js} is no text"))
}

/// Waits until the header has this state.
async fn state(page: &Page, wanted: &str) -> Result<()> {
    let is = format!("document.querySelector('#state').dataset.state === {wanted:?}");
    page.wait_until(&is, PATIENCE).await.map(drop)
}

/// Waits until a text that was published stands in its box again, with a reason below it.
async fn returned(page: &Page, text: &str) -> Result<()> {
    let is = format!("document.querySelector('#data').value === {text:?} && document.querySelector('#result.error')");
    page.wait_until(&is, PATIENCE).await.map(drop)
}

/// Waits until there is such a line between the messages.
async fn divided(page: &Page, text: &str) -> Result<()> {
    let is = format!("[...document.querySelectorAll('.divider')].some(line => line.textContent.includes({text:?}))");
    page.wait_until(&is, PATIENCE).await.map(drop)
}

async fn subscribed(page: &Page, channel: &str) -> Result<()> {
    let row = format!("document.querySelector('#channels [data-channel={channel}][data-state=open]') !== null");
    page.wait_until(&row, PATIENCE).await.map(drop)
}

async fn publish(page: &Page, channel: &str, data: &str) -> Result<()> {
    page.fill("#publishChannel", channel).await?;
    page.fill("#data", &format!("{data}{ENTER}")).await
}

async fn sees(page: &Page, channel: &str, data: &str) -> Result<()> {
    let data = serde_json::to_string(data)?;
    let shown = format!(
        "[...document.querySelectorAll('.message[data-channel={channel}] .data')].some((shown) => shown.textContent === {data})"
    );
    page.wait_until(&shown, PATIENCE).await.map(drop)
}

fn shot(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("output/screenshots").join(format!("{name}.png"))
}
