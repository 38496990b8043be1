//! The steps of the tour, each as a newcomer takes it, and their code.

use std::process::Stdio;

use anyhow::ensure;
use tests::browser::Browser;
use tests::tokens::Issuer;
use tests::{Client, Cluster, binary};
use tokio::process::Command;

use super::*;

#[tokio::test]
async fn a_token_in_the_field_connects_as_its_user_and_is_kept_nowhere() -> Result<()> {
    let issuer = Issuer::new()?;
    let (variable, keys) = Issuer::keys();
    let cluster = Cluster::of(1).set(variable, &keys).set("FANFARE__AUTH__ANONYMOUS", "off").start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", cluster.node_address(1))).await?;
    let asks = "document.querySelector('#stateText').textContent.includes('(4401)')";
    page.wait_until(asks, PATIENCE).await?;
    let token = issuer.token("alice", &[])?;
    page.fill("#token", &format!("{token}{ENTER}")).await?;
    page.wait_until("document.querySelector('#user').textContent === 'Connected as alice'", PATIENCE).await?;
    subscribed(&page, "news").await?;
    publish(&page, "news", "from alice").await?;
    sees(&page, "news", "from alice").await?;
    page.screenshot(shot("page-token")).await?;

    assert_eq!(page.eval("document.querySelector('#token').type").await?, "password");
    let kept = "location.href + document.cookie + JSON.stringify([{ ...localStorage }, { ...sessionStorage }]) + document.body.innerText";
    let kept = page.eval(kept).await?;
    assert!(!kept.as_str().unwrap_or_default().contains(&token), "the token is in {kept}");
    page.reload().await?;
    page.wait_until(asks, PATIENCE).await.map(drop)
}

#[tokio::test]
async fn a_publish_shows_the_position_that_its_message_has() -> Result<()> {
    let cluster = Cluster::of(1).start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", cluster.node_address(1))).await?;
    subscribed(&page, "news").await?;
    // The first action of a newcomer: the message is there already.
    page.click("#publish").await?;
    sees(&page, "news", "Hello, world").await?;
    page.wait_until("document.querySelector('#result').textContent.startsWith('Published at ')", PATIENCE).await?;
    let at = position(&page, "Hello, world").await?;
    ensure!(page.text("#result").await?.starts_with(&format!("Published at {at} in ")), "{at}");
    done(&page, "publish").await
}

#[tokio::test]
async fn a_killed_connection_resumes_with_what_was_published_meanwhile() -> Result<()> {
    let cluster = Cluster::of(2).redis().haproxy().start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&cluster.gateway_url()).await?;
    subscribed(&page, "news").await?;
    publish(&page, "news", "before").await?;
    sees(&page, "news", "before").await?;
    page.click("#kill").await?;
    divided(&page, "Killed by this page").await?;
    divided(&page, "Back on node-").await?;
    divided(&page, "news: resumed, nothing is missing").await?;
    done(&page, "resume").await?;
    assert_eq!(page.text("#killNote").await?, "All 3 came, in order, each once.");
    subscribed(&page, "news").await?;
    publish(&page, "news", "after").await?;
    sees(&page, "news", "after").await?;
    assert_eq!(shown(&page).await?.replace(" of 3, published while you were away", ""), "before,1,2,3,after");
    page.screenshot(shot("page-resumed")).await
}

#[tokio::test]
async fn earlier_messages_are_read_page_by_page_and_each_is_shown_once() -> Result<()> {
    let cluster = Cluster::of(1).start().await?;
    let browser = Browser::start().await?;
    let address = cluster.node_address(1);
    let writer = Client::native(&format!("http://{address}")).await?;
    for number in 0..25 {
        writer.publish("news", &number.to_string()).await?;
    }
    let page = browser.open(&format!("http://{address}/")).await?;
    subscribed(&page, "news").await?;
    publish(&page, "news", "live").await?;
    sees(&page, "news", "live").await?;
    page.click("#earlier").await?;
    sees(&page, "news", "5").await?;
    let noted = "document.querySelector('#pastNote').textContent";
    page.wait_until(&format!("{noted}.startsWith('20 earlier messages')"), PATIENCE).await?;
    page.click("#earlier").await?;
    page.wait_until(&format!("{noted}.endsWith('That is the beginning.')"), PATIENCE).await?;
    let wanted = (0..25).map(|number| format!("{number},")).collect::<String>() + "live";
    assert_eq!(shown(&page).await?, wanted);
    done(&page, "history").await
}

#[tokio::test]
async fn after_a_position_come_exactly_the_messages_that_followed_it() -> Result<()> {
    let cluster = Cluster::of(1).start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", cluster.node_address(1))).await?;
    subscribed(&page, "news").await?;
    for text in ["one", "two", "three"] {
        publish(&page, "news", text).await?;
        sees(&page, "news", text).await?;
    }
    let note = |text: &str| format!("document.querySelector('#sinceNote').textContent === {text:?}");
    page.click("#sinceForm button").await?;
    page.wait_until(&note("3 messages: one · two · three"), PATIENCE).await.context("since the tab began")?;
    page.fill("#since", &format!("{}{ENTER}", position(&page, "two").await?)).await?;
    page.wait_until(&note("1 message: three"), PATIENCE).await?;
    page.fill("#since", &format!("nonsense{ENTER}")).await?;
    page.wait_until("document.querySelector('#sinceNote').textContent.startsWith('Not read: ')", PATIENCE)
        .await
        .map(drop)
}

#[tokio::test]
async fn a_loss_and_the_end_of_a_subscription_are_shown_where_they_happen() -> Result<()> {
    let issuer = Issuer::new()?;
    let (variable, keys) = Issuer::keys();
    let rules = r#"[{ match = "*", subscribe = "token", publish = "token" }]"#;
    let plan = Cluster::of(1).redis().set(variable, &keys).set("FANFARE__CHANNELS", rules);
    let cluster = plan.start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", cluster.node_address(1))).await?;
    let enter = async |flags: &[&str]| -> Result<()> {
        page.fill("#token", &format!("{}{ENTER}", issuer.token("ann", flags)?)).await
    };
    enter(&["--channel", "news", "--can", "subscribe,publish"]).await?;
    page.fill("#channel", &format!("news{ENTER}")).await?;
    subscribed(&page, "news").await?;
    publish(&page, "news", "old").await?;
    sees(&page, "news", "old").await?;
    cluster.broker().tool(&["FLUSHALL"]).await?;
    divided(&page, "news: lost. Messages may be missing here: the broker's log was replaced").await?;
    publish(&page, "news", "new").await?;
    sees(&page, "news", "new").await?;

    enter(&["--channel", "sport", "--can", "subscribe"]).await?;
    divided(&page, "news: unsubscribed by the node: you may not read this channel").await?;
    page.wait_until("document.querySelector('#channels [data-state=ended]')", PATIENCE).await?;
    publish(&page, "news", "forbidden").await?;
    returned(&page, "forbidden").await?;
    ensure!(page.text("#result").await?.starts_with("Not published: "), "it is surely not stored");
    page.screenshot(shot("page-lost")).await
}

#[tokio::test]
async fn the_code_of_each_step_has_the_pages_address_channel_and_position_and_works() -> Result<()> {
    let cluster = Cluster::of(1).set("FANFARE__HTTP__PUBLISH", "true").start().await?;
    let browser = Browser::start().await?;
    let address = cluster.node_address(1);
    let page = browser.open(&format!("http://{address}/?channel=it's")).await?;
    page.wait_until("document.querySelector('#channels [data-state=open]')", PATIENCE).await?;
    let since = text(&page, "document.querySelector('#since').value").await?;
    ensure!(!since.is_empty(), "the position where the tab began");
    for language in ["browser", "curl", "cli"] {
        let press = format!("document.querySelector('[data-language={language}]').click()");
        page.eval(&press).await?;
        for topic in ["publish", "subscribe", "resume", "history", "positions", "connect"] {
            let code = code(&page, topic).await?;
            ensure!(code.contains(&format!("http://{address}")), "{topic}, {language}: {code}");
            let named = ["it's", r"it'\''s", "probe"].iter().any(|name| code.contains(name));
            ensure!(named, "{topic}, {language}: {code}");
            ensure!(topic != "positions" || code.contains(&since), "{topic}, {language}: {code}");
            if language == "browser" {
                let parsed = format!("(Object.getPrototypeOf(async () => {{}}).constructor({}), true)", json!(code));
                ensure!(page.eval(&parsed).await? == true, "{code}");
            }
        }
        let publish = code(&page, "publish").await?.replace("Hello", language);
        if language == "browser" {
            page.eval(&format!("Object.getPrototypeOf(async () => {{}}).constructor({})()", json!(publish))).await?;
        } else {
            shell(&publish).await?;
        }
        page.wait_until(&format!("document.querySelector('#log').textContent.includes({language:?})"), PATIENCE)
            .await?;
    }
    Ok(())
}

/// The texts of all messages in their order, separated by commas.
async fn shown(page: &Page) -> Result<String> {
    text(page, "[...document.querySelectorAll('.message .data')].map(shown => shown.textContent).join()").await
}

/// The position of the message with this text.
async fn position(page: &Page, data: &str) -> Result<String> {
    let row = format!(
        "[...document.querySelectorAll('.message')].find(row => row.querySelector('.data').textContent === {data:?})"
    );
    text(page, &format!("{row}.querySelector('.at').textContent")).await
}

/// The code that a step shows.
async fn code(page: &Page, topic: &str) -> Result<String> {
    text(page, &format!("document.querySelector('[data-topic={topic}] pre').textContent")).await
}

/// Runs a command as one that is pasted into a shell.
async fn shell(command: &str) -> Result<()> {
    let folder = binary("fanfare")?.parent().context("a folder")?.to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH")?);
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env("PATH", path).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, shell.output()).await??;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
