//! The page that `fanfare` serves at `/`, in a real browser: a newcomer's first minute.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    Client, Cluster, PATIENCE, binary,
    browser::{Browser, ENTER, Page},
    tokens::Issuer,
};
use tokio::process::Command;

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

#[tokio::test]
async fn fields_have_labels_and_a_finger_hits_what_it_aims_at() -> Result<()> {
    let cluster = Cluster::of(1).start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", cluster.node_address(1))).await?;
    subscribed(&page, "news").await?;
    page.appear(390, 844, "light").await?;
    page.eval("document.querySelectorAll('details').forEach(code => code.open = true)").await?;
    let fields = "[...document.querySelectorAll('input, textarea')]";
    for (what, wrong) in [
        ("a field without a visible label", format!("{fields}.filter(f => !f.labels[0]?.offsetParent).map(f => f.id)")),
        ("a field that phones zoom into", format!("{fields}.filter(f => parseFloat(getComputedStyle(f).fontSize) < 16).map(f => f.id)")),
        (
            "a target under 44 px",
            "[...document.querySelectorAll('a, button, summary, input:not([type=checkbox]), textarea, .foot label')]
                .filter(t => t.offsetParent && Math.min(t.offsetWidth, t.offsetHeight) < 44).map(t => t.id || t.className)".to_owned(),
        ),
        ("something wider than the screen", "document.documentElement.scrollWidth > 390 ? ['page'] : []".to_owned()),
        // A list whose role is another one has items without a list (axe-core: `aria-allowed-role`, `listitem`).
        ("a list with another role", "[...document.querySelectorAll('ol[role], ul[role]')].map(l => l.id)".to_owned()),
    ] {
        assert_eq!(page.eval(&wrong).await?, json!([]), "{what}");
    }
    assert_eq!(page.eval("document.querySelector('[role=log] > ol#messages') !== null").await?, true);
    assert_eq!(
        page.eval("[...document.querySelectorAll('pre')].some(code => /reload/.test(code.textContent))").await?,
        false
    );
    Ok(())
}

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

#[tokio::test]
async fn the_keyboard_alone_is_enough_and_the_focus_is_always_seen() -> Result<()> {
    let cluster = Cluster::of(1).start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", cluster.node_address(1))).await?;
    subscribed(&page, "news").await?;
    tab_to(&page, "#data").await?;
    key(&page, "Enter").await?;
    sees(&page, "news", "Hello, world").await?;
    tab_to(&page, "[data-topic=publish] summary").await?;
    key(&page, "Enter").await?;
    tab_to(&page, "[data-topic=publish] [data-language=cli]").await?;
    key(&page, "Enter").await?;
    page.wait_until(
        "document.querySelector('[data-topic=publish] pre').textContent.startsWith('fanfare publish')",
        PATIENCE,
    )
    .await?;
    tab_to(&page, "#kill").await?;
    key(&page, "Enter").await?;
    done(&page, "resume").await?;
    assert_eq!(page.eval("document.activeElement.id").await?, "kill", "the focus stays");
    tab_to(&page, "#earlier").await?;
    key(&page, "Enter").await?;
    done(&page, "history").await?;
    tab_to(&page, "#since").await?;
    key(&page, "Enter").await?;
    done(&page, "positions").await
}

#[tokio::test]
async fn nothing_is_wider_than_a_small_phone_whatever_is_shown() -> Result<()> {
    let mut cluster = Cluster::of(1).start().await?;
    let browser = Browser::start().await?;
    let page =
        browser.open(&format!("http://{}/?channel=news&channel={}", cluster.node_address(1), "n".repeat(120))).await?;
    page.appear(360, 740, "light").await?;
    let fits = async |when: &str| -> Result<()> {
        let wide = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 360.5 && !e.closest('pre, #channels, .unseen'))
            .map(e => e.outerHTML.slice(0, 80))";
        assert_eq!(page.eval(wide).await?, json!([]), "{when}");
        assert_eq!(page.eval("document.documentElement.scrollWidth").await?, 360, "{when}");
        Ok(())
    };
    subscribed(&page, "news").await?;
    fits("fresh").await?;
    page.eval("document.querySelectorAll('details').forEach(code => code.open = true)").await?;
    let long = "x".repeat(300);
    publish(&page, "news", &long).await?;
    sees(&page, "news", &long).await?;
    page.click("#sinceForm button").await?;
    done(&page, "positions").await?;
    page.fill("#channel", &format!("two words{ENTER}")).await?;
    page.wait_until("document.querySelector('#subscribeNote').textContent !== ''", PATIENCE).await?;
    fits("with messages, code and a refused name").await?;
    page.screenshot(shot("page-360")).await?;
    cluster.kill_node("node-1").await?;
    state(&page, "closed").await?;
    page.wait_until("document.querySelector('#stateText').textContent.startsWith('No connection')", PATIENCE).await?;
    fits("without a node").await
}

/// Waits until this step of the tour is ticked off.
async fn done(page: &Page, topic: &str) -> Result<()> {
    page.wait_until(&format!("document.querySelector('[data-topic={topic}].done')"), PATIENCE).await.map(drop)
}

async fn text(page: &Page, js: &str) -> Result<String> {
    page.eval(js).await?.as_str().map(str::to_owned).with_context(|| format!("{js} is no text"))
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

/// Presses a key as a keyboard does: it goes to what has the focus.
async fn key(page: &Page, name: &str) -> Result<()> {
    let (code, text) = if name == "Enter" { (13, "\r") } else { (9, "") };
    for kind in ["keyDown", "keyUp"] {
        let event = json!({ "type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code, "text": text });
        page.devtools("Input.dispatchKeyEvent", event).await?;
    }
    Ok(())
}

/// Presses Tab until this element has the focus. Each stop on the way must show that it has it.
async fn tab_to(page: &Page, css: &str) -> Result<()> {
    const MOST: usize = 60;
    for _ in 0..MOST {
        key(page, "Tab").await?;
        let stop = "(({ outlineStyle, outlineWidth }, element) => [element.matches(WANTED), outlineStyle !== 'none' && outlineWidth !== '0px', element.outerHTML.slice(0, 80)])
            (getComputedStyle(document.activeElement), document.activeElement)";
        let stop = page.eval(&stop.replace("WANTED", &format!("{css:?}"))).await?;
        // After the last element, the focus goes to the browser and comes back.
        let leaves = stop[2].as_str().is_some_and(|html| html.starts_with("<body"));
        ensure!(leaves || stop[1] == true, "no outline: {stop}");
        if stop[0] == Value::Bool(true) {
            return Ok(());
        }
    }
    anyhow::bail!("{MOST} times Tab do not reach {css}")
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
