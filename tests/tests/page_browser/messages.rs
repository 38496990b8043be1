//! Channels and messages: what is seen, what was not published, and why there is no connection.

use tests::Cluster;
use tests::browser::Browser;

use super::*;

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

#[tokio::test]
async fn a_message_that_was_not_published_goes_back_into_its_box_and_a_degraded_node_is_shown() -> Result<()> {
    let cluster = Cluster::of(1).redis().start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", cluster.node_address(1))).await?;
    subscribed(&page, "news").await?;
    cluster.broker().kill().await?;
    state(&page, "degraded").await?;
    assert_eq!(page.text("#node").await?, "node-1");

    publish(&page, "news", "first").await?;
    returned(&page, "first").await?;
    // While something else stands in the box, what comes back stands below it.
    let goes_on =
        "(document.querySelector('#publishForm').requestSubmit(), document.querySelector('#data').value = 'second')";
    page.eval(goes_on).await?;
    page.wait_until("document.querySelector('#unsent').textContent.includes('news: first')", PATIENCE).await?;
    page.screenshot(shot("page-degraded")).await?;
    page.click("#unsent .quiet").await?;
    returned(&page, "first").await?;
    page.wait_until("document.querySelector('#unsent').textContent.includes('news: second')", PATIENCE).await?;

    cluster.broker().start().await?;
    state(&page, "open").await?;
    page.press("#data", ENTER).await?;
    sees(&page, "news", "first").await?;
    page.wait_until("document.querySelector('#data').value === ''", PATIENCE).await.map(drop)
}

#[tokio::test]
async fn a_message_that_is_too_large_is_said_to_be_and_stays_in_its_box() -> Result<()> {
    let cluster = Cluster::of(1).set("FANFARE__LIMITS__MESSAGE", "1KiB").start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", cluster.node_address(1))).await?;
    subscribed(&page, "news").await?;
    let large = "x".repeat(2000);
    publish(&page, "news", &large).await?;
    returned(&page, &large).await?;
    assert!(page.text("#result").await?.starts_with("Not published: A message was larger"));
    divided(&page, "(1009)").await?;
    // Nothing that is too large is sent again by itself.
    divided(&page, "Back on node-1").await?;
    subscribed(&page, "news").await?;
    publish(&page, "news", "small").await?;
    sees(&page, "news", "small").await
}

#[tokio::test]
async fn a_name_that_is_refused_goes_back_to_where_it_was_typed_and_nowhere_else() -> Result<()> {
    let cluster = Cluster::of(1).start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/?channel=news", cluster.node_address(1))).await?;
    subscribed(&page, "news").await?;
    page.fill("#channel", &format!("two words{ENTER}")).await?;
    page.wait_until("document.querySelector('#subscribeNote').textContent.startsWith('two words: ')", PATIENCE).await?;
    assert_eq!(page.eval("document.querySelector('#channel').value").await?, "two words");
    assert_eq!(page.eval("document.querySelector('#channel').getAttribute('aria-invalid')").await?, "true");
    assert_eq!(page.eval("document.querySelector('#publishChannel').value").await?, "news");
    assert_eq!(page.eval("document.querySelectorAll('#channels li').length").await?, 1);
    assert_eq!(page.eval("location.search").await?, "?channel=news");
    page.screenshot(shot("page-refused-name")).await
}

#[tokio::test]
async fn the_page_says_why_it_has_no_connection() -> Result<()> {
    let mut cluster = Cluster::of(1).set("FANFARE__TIMING__DRAIN_WAIT", "off").haproxy().start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("{}/?channel=news", cluster.gateway_url())).await?;
    subscribed(&page, "news").await?;
    cluster.stop_node("node-1").await?;
    divided(&page, "The node is restarting (1012)").await?;
    let says = |text: &str| format!("document.querySelector('#stateText').textContent.includes({text:?})");
    page.wait_until(&says("Refused: the server answers 503"), PATIENCE).await?;
    page.screenshot(shot("page-refused")).await?;
    let waits = "document.querySelector('#channels li').innerText.includes('waiting')";
    page.wait_until(waits, PATIENCE).await?;
    cluster.start_node("node-1").await?;
    divided(&page, "Back on node-1").await?;
    state(&page, "open").await?;
    cluster.balancer_mut().stop().await?;
    page.wait_until(&says("No connection"), PATIENCE).await.map(drop)
}
