//! For everyone: by keyboard, by finger, on a small phone.

use anyhow::ensure;
use serde_json::Value;
use tests::Cluster;
use tests::browser::Browser;

use super::*;

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
