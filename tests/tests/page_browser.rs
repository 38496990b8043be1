//! The page that `fanfare` serves at `/`, in a real browser: a newcomer's first minute.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;
use tests::{
    Cluster, PATIENCE,
    browser::{Browser, ENTER, Page},
};

#[tokio::test]
async fn two_tabs_subscribe_and_both_see_what_either_publishes() -> Result<()> {
    let cluster = Cluster::of(3).redis().haproxy().start().await?;
    let browser = Browser::start().await?;
    let first = browser.open(&cluster.gateway_url()).await?;
    let second = browser.open(&format!("{}/?channel=weather", cluster.gateway_url())).await?;
    subscribed(&first, "news").await?;
    subscribed(&second, "weather").await?;
    second.fill("#channel", &format!("news{ENTER}")).await?;
    subscribed(&second, "news").await?;

    first.fill("#data", "good morning").await?;
    first.click("#publish").await?;
    for page in [&first, &second] {
        sees(page, "news", "good morning").await?;
    }
    second.fill("#publishChannel", "news").await?;
    second.fill("#data", &format!(r#"{{"temperature": 21.5}}{ENTER}"#)).await?;
    for page in [&first, &second] {
        sees(page, "news", r#"{"temperature":21.5}"#).await?;
    }

    for (width, height, scheme) in [(1280, 800, "light"), (1280, 800, "dark"), (390, 844, "light")] {
        first.appear(width, height, scheme).await?;
        first.screenshot(shot(&format!("page-{width}-{scheme}"))).await?;
    }
    assert_eq!(first.console().await?, Vec::<String>::new(), "the console is silent");
    Ok(())
}

#[tokio::test]
async fn a_channel_left_is_heard_no_more() -> Result<()> {
    let cluster = Cluster::of(2).redis().haproxy().start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("{}/?channel=kept&channel=left", cluster.gateway_url())).await?;
    subscribed(&page, "kept").await?;
    subscribed(&page, "left").await?;
    page.click("[data-channel=left] .leave").await?;
    publish(&page, "left", "unheard").await?;
    page.wait_until("document.querySelector('#result').textContent.startsWith('Published')", PATIENCE).await?;
    publish(&page, "kept", "heard").await?;
    sees(&page, "kept", "heard").await?;
    assert_eq!(page.eval("document.querySelectorAll('.message').length").await?, 1);
    assert_eq!(page.eval("location.search").await?, "?channel=kept", "the address follows, to be shared");
    Ok(())
}

#[tokio::test]
async fn a_message_that_looks_like_html_stays_text() -> Result<()> {
    let cluster = Cluster::of(1).redis().haproxy().start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&cluster.gateway_url()).await?;
    subscribed(&page, "news").await?;
    let attack = "<img src=x onerror=attacked=1>";
    publish(&page, "news", attack).await?;
    sees(&page, "news", attack).await?;
    let json = json!({ attack: attack }).to_string();
    publish(&page, "news", &json).await?;
    sees(&page, "news", &json).await?;
    page.fill("#channel", &format!("{attack}{ENTER}")).await?;
    // Whether such a name is accepted or refused is the gateway's affair; the page shows it as text either way.
    page.wait_until("document.querySelector('#subscribeNote:not(:empty)') || document.querySelectorAll('#channels [data-state=open]').length === 2", PATIENCE).await?;
    assert_eq!(page.eval("document.images.length").await?, 0);
    assert_eq!(page.eval("window.attacked === undefined").await?, true);
    page.screenshot(shot("page-html-stays-text")).await
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
