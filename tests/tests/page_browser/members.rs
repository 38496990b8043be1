//! The list of who is in the channel, where its rule has `presence`.

use tests::browser::Browser;
use tests::cluster::Plan;
use tests::tokens::{Issuer, OPEN};
use tests::{Client, Cluster};

use super::*;

const RULES: &str =
    r#"[{ match = "news", presence = "members" }, { match = "score", presence = "counts" }, { match = "*" }]"#;

/// The texts of the members, separated by `|`.
const NAMES: &str = "[...document.querySelectorAll('#members li')].map(member => member.textContent).join('|')";

fn plan() -> Plan {
    let (keys, secret) = Issuer::keys();
    let plan = Cluster::of(2).redis().set(keys, &secret).set(OPEN.0, OPEN.1).set("FANFARE__CHANNELS", RULES);
    plan.set("FANFARE__PRESENCE__LINGER", "500ms").set("FANFARE__CLUSTER__LEASE", "3s")
}

async fn user(cluster: &Cluster, node: usize, name: &str) -> Result<Client> {
    Client::with_token(&format!("http://{}", cluster.node_address(node)), &Issuer::new()?.token(name, &[])?).await
}

/// Waits until the page shows these members.
async fn shows(page: &Page, names: &str) -> Result<()> {
    page.wait_until(&format!("{NAMES} === {names:?}"), PATIENCE).await.map(drop).with_context(|| names.to_owned())
}

#[tokio::test]
async fn the_members_of_the_channel_come_and_leave_on_the_page_and_their_names_stay_text() -> Result<()> {
    let cluster = plan().start().await?;
    let browser = Browser::start().await?;
    let page =
        browser.open(&format!("http://{}/?channel=news&channel=score&channel=plain", cluster.node_address(1))).await?;
    page.fill("#token", &format!("{}{ENTER}", Issuer::new()?.token("ann", &["--info", r#"{"name":"Ann"}"#])?)).await?;
    page.wait_until("document.querySelector('#user').textContent === 'Connected as ann'", PATIENCE).await?;
    shows(&page, "ann (you)").await?;
    // Who comes before the list is whole may have been there.
    page.wait_until("document.querySelector('#presentNote').hidden", PATIENCE).await?;
    let attack = "<img src=x onerror=attacked=1>";
    let (bob, eve) = (user(&cluster, 2, "bob").await?, user(&cluster, 1, attack).await?);
    bob.subscribe("news").await?;
    shows(&page, "ann (you)|bob").await?;
    page.wait_until("document.querySelector('#presentNews').textContent.includes('bob has joined')", PATIENCE).await?;
    eve.subscribe("news").await?;
    let proto = user(&cluster, 2, "__proto__").await?;
    proto.subscribe("news").await?;
    let sorted = NAMES.replace(".join", ".sort().join");
    let all = ["ann (you)", "bob", attack, "__proto__"];
    let wanted = format!("{sorted} === {}.sort().join('|')", json!(all));
    page.wait_until(&wanted, PATIENCE).await?;
    assert_eq!(page.text("#presentTitle").await?, "In news now: 4");
    assert_eq!(page.eval("document.images.length + (window.attacked ?? 0)").await?, 0);
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
        page.appear(width, 800, scheme).await?;
        page.screenshot(shot(&format!("page-members-{width}-{scheme}"))).await?;
        assert_eq!(page.eval("document.documentElement.scrollWidth").await?, width, "{scheme}");
    }
    bob.close().await?;
    page.wait_until(&format!("!{NAMES}.includes('bob')"), PATIENCE).await?;

    // A number without names, and a channel without presence.
    page.click("[data-channel=score] .pick").await?;
    page.wait_until("document.querySelector('#presentTitle').textContent === 'In score now: 1'", PATIENCE).await?;
    assert_eq!(page.eval("document.querySelector('#members').hidden").await?, true);
    page.click("[data-channel=plain] .pick").await?;
    page.wait_until("document.querySelector('#present').hidden", PATIENCE).await?;
    assert_eq!(page.console().await?, Vec::<String>::new(), "the console is silent");
    Ok(())
}

#[tokio::test]
async fn after_a_kill_and_after_the_death_of_another_node_the_list_is_right_again() -> Result<()> {
    let mut cluster = plan().start().await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", cluster.node_address(1))).await?;
    subscribed(&page, "news").await?;
    let bob = user(&cluster, 2, "bob").await?;
    bob.subscribe("news").await?;
    page.wait_until(&format!("{NAMES}.includes('bob')"), PATIENCE).await?;
    page.click("#kill").await?;
    done(&page, "resume").await?;
    page.wait_until(&format!("/^guest \\S+ \\(you\\)\\|bob$/.test({NAMES})"), PATIENCE).await?;
    cluster.kill_node("node-2").await?;
    page.wait_until(&format!("/^guest \\S+ \\(you\\)$/.test({NAMES})"), PATIENCE).await.map(drop)
}
