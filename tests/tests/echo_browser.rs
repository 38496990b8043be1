//! The echo page in a real browser, on a real cluster: issue 3, must-show 4.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tests::{
    Cluster, PATIENCE,
    browser::{Browser, ENTER, Page},
};

#[tokio::test]
async fn two_tabs_on_different_nodes_talk_and_the_one_whose_node_is_killed_goes_on() -> Result<()> {
    let mut cluster = Cluster::of(3).echo(2).redis().haproxy().start().await?;
    let browser = Browser::start().await?;
    let url = format!("{}/ws", cluster.echo_url());
    let first = open_echo(&browser, &url).await?;
    let second = open_echo(&browser, &url).await?;
    let stays = node(&first).await?;
    let dies = reload_until_not_on(&stays, &second).await?;

    first.fill("#message", "from the first tab").await?;
    first.click("#sendBtn").await?;
    sees(&first, "Received: from the first tab").await?;
    sees(&second, "Received: from the first tab").await?;
    second.fill("#message", &format!("from the second tab{ENTER}")).await?;
    sees(&first, "Received: from the second tab").await?;
    sees(&second, "Received: from the second tab").await?;
    first.screenshot(shot("echo-1-first-tab")).await?;
    second.screenshot(shot("echo-2-second-tab-before-the-kill")).await?;

    cluster.kill_echo(&dies).await?;
    second
        .wait_until(&format!("document.querySelector('#node').textContent === {stays:?}"), PATIENCE)
        .await
        .context("the tab whose node was killed did not come back on the other")?;
    assert_eq!(node(&first).await?, stays, "the other tab never moved");
    first.fill("#message", &format!("still here?{ENTER}")).await?;
    sees(&second, "Received: still here?").await?;
    second.fill("#message", &format!("back again{ENTER}")).await?;
    sees(&first, "Received: back again").await?;
    sees(&second, "Received: back again").await?;
    second.screenshot(shot("echo-3-second-tab-after-the-kill")).await?;

    cluster.start_echo(&dies).await?;
    let third = open_echo(&browser, &url).await?;
    reload_until_not_on(&stays, &third).await?;
    third.fill("#message", &format!("from the node that came back{ENTER}")).await?;
    sees(&first, "Received: from the node that came back").await?;
    Ok(())
}

#[tokio::test]
async fn what_a_stranger_sends_is_shown_as_text_and_never_run() -> Result<()> {
    let cluster = Cluster::of(0).echo(2).redis().haproxy().start().await?;
    let browser = Browser::start().await?;
    let page = open_echo(&browser, &format!("{}/ws", cluster.echo_url())).await?;
    let attack = "<img src=x onerror=attacked=1>";
    page.fill("#message", &format!("{attack}{ENTER}")).await?;
    sees(&page, &format!("Received: {attack}")).await?;
    assert_eq!(page.eval("document.querySelectorAll('#output img').length").await?, 0);
    assert_eq!(page.eval("window.attacked === undefined").await?, true);
    Ok(())
}

#[tokio::test]
async fn a_text_that_may_not_have_arrived_is_back_in_its_box() -> Result<()> {
    let cluster = Cluster::of(0).echo(1).set("FANFARE__LIMITS__MESSAGE", "1KiB").start().await?;
    let browser = Browser::start().await?;
    let page = open_echo(&browser, &format!("http://{}/ws", cluster.echo_address(1))).await?;
    let large = "x".repeat(2000);
    page.fill("#message", &format!("{large}{ENTER}")).await?;
    sees(&page, &format!("Perhaps not sent: {large}")).await?;
    assert_eq!(page.eval("document.querySelector('#message').value.length").await?, 2000);
    joined(&page).await?;
    page.fill("#message", &format!("smaller{ENTER}")).await?;
    sees(&page, "Received: smaller").await?;
    page.appear(390, 844, "dark").await?;
    page.screenshot(shot("echo-4-phone")).await
}

async fn open_echo(browser: &Browser, url: &str) -> Result<Page> {
    let page = browser.open(url).await?;
    joined(&page).await?;
    Ok(page)
}

/// Waits until the page has said hello to everyone and heard it.
async fn joined(page: &Page) -> Result<()> {
    page.wait_until("document.querySelector('#status').dataset.state === 'open'", PATIENCE).await?;
    page.wait_until("document.querySelector('#node').textContent", PATIENCE).await?;
    sees(page, "Received: Client connected!").await
}

async fn node(page: &Page) -> Result<String> {
    page.text("#node").await
}

/// The balancer decides where a socket goes, so this asks until it is another node.
async fn reload_until_not_on(avoid: &str, page: &Page) -> Result<String> {
    for _ in 0..40 {
        let now = node(page).await?;
        if now != avoid {
            return Ok(now);
        }
        page.reload().await?;
        joined(page).await?;
    }
    bail!("40 connections, and all on {avoid}")
}

async fn sees(page: &Page, line: &str) -> Result<()> {
    let line = serde_json::to_string(line)?;
    let shown = format!("[...document.querySelectorAll('#output > *')].some((line) => line.textContent === {line})");
    page.wait_until(&shown, PATIENCE).await.map(drop)
}

fn shot(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("output/screenshots").join(format!("{name}.png"))
}
