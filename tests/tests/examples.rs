//! The programs in `gateway/examples/`, as a newcomer runs them: real processes, and their pages in a real browser.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::browser::{Browser, ENTER, Page};
use tests::wire::{self, Frame, Head, Response, Wire};
use tests::{PATIENCE, Program};

async fn example(name: &str) -> Result<Program> {
    let program = wire::serve(&format!("examples/{name}"), &[]).await;
    program.context("build the examples first: cargo build --profile checked --workspace --examples")
}

async fn post(address: SocketAddr, path: &str, kind: &str, body: &str) -> Result<Response> {
    let head = Head::get(path).line(&format!("POST {path} HTTP/1.1")).with("Content-Type", kind);
    let mut request = head.with("Content-Length", body.len().to_string()).bytes();
    request.extend_from_slice(body.as_bytes());
    let mut wire = Wire::connect(address).await?;
    wire.send(request).await?;
    wire.response().await
}

async fn say(wire: &mut Wire, text: &str) -> Result<()> {
    Ok(wire.send(Frame::text(text).bytes()).await?)
}

async fn next_is(wire: &mut Wire, wanted: &str) -> Result<()> {
    let message = wire.message().await.with_context(|| format!("before {wanted:?}"))?;
    ensure!(message == wanted, "{message:?} instead of {wanted:?}");
    Ok(())
}

async fn shows(page: &Page, css: &str, text: &str) -> Result<()> {
    let shown = format!("document.querySelector({css:?}).innerText.includes({text:?})");
    page.wait_until(&shown, PATIENCE).await.map(drop)
}

fn shot(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "output", "screenshots", &format!("example-{name}.png")].iter().collect()
}

async fn log_in(app: &Program, name: &str, password: &str) -> Result<Response> {
    let form = json!({ "name": name, "password": password }).to_string();
    post(app.address, "/login", "application/json", &form).await
}

/// A client of the chat that has logged in and read its own announcement.
async fn member(app: &Program, room: &str, name: &str) -> Result<Wire> {
    let answer = log_in(app, name, "fanfare").await?;
    let cookie = answer.header("set-cookie").and_then(|cookie| cookie.split(';').next()).context("no cookie")?;
    let mut wire = Wire::connect(app.address).await?;
    wire.send(Head::upgrade(format!("/rooms/{room}")).with("Cookie", cookie).bytes()).await?;
    ensure!(wire.response().await?.status == 101, "{name} is let in");
    next_is(&mut wire, &format!("{name} joined")).await?;
    Ok(wire)
}

#[tokio::test]
async fn the_chat_lets_in_users_with_a_session_and_keeps_rooms_apart() -> Result<()> {
    let app = example("chat").await?;
    for (name, password) in [("ann", "wrong"), ("mallory", "fanfare"), ("", "")] {
        let answer = log_in(&app, name, password).await?;
        ensure!(answer.status == 401 && answer.header("set-cookie").is_none(), "{name}: {answer:?}");
    }
    for cookie in ["", "session=", "session=0"] {
        let mut stranger = Wire::connect(app.address).await?;
        stranger.send(Head::upgrade("/rooms/blue").with("Cookie", cookie).bytes()).await?;
        ensure!(stranger.response().await?.status == 401, "the cookie {cookie:?}");
    }
    let mut eve = member(&app, "red", "eve").await?;
    let mut ann = member(&app, "blue", "ann").await?;
    let mut bob = member(&app, "blue", "bob").await?;
    next_is(&mut ann, "bob joined").await?;
    say(&mut ann, "hello").await?;
    next_is(&mut ann, "ann: hello").await?;
    next_is(&mut bob, "ann: hello").await?;
    bob.send(Frame::close(1000, "").bytes()).await?;
    next_is(&mut ann, "bob left").await?;
    // If the other room's messages came to this one, they would come before this.
    say(&mut eve, "alone?").await?;
    next_is(&mut eve, "eve: alone?").await?;
    Ok(())
}

#[tokio::test]
async fn the_chats_page_logs_in_and_changes_rooms() -> Result<()> {
    let app = example("chat").await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", app.address)).await?;
    shows(&page, "#state", "Log in").await?;
    page.fill("#name", "ann").await?;
    page.fill("#password", &format!("wrong{ENTER}")).await?;
    shows(&page, "#state", "password is wrong").await?;
    page.fill("#password", &format!("fanfare{ENTER}")).await?;
    shows(&page, "#log", "ann joined").await?;
    let mut bob = member(&app, "blue", "bob").await?;
    shows(&page, "#log", "bob joined").await?;
    let attack = "<img src=x onerror=attacked=1>";
    say(&mut bob, attack).await?;
    shows(&page, "#log", &format!("bob: {attack}")).await?;
    page.fill("#text", &format!("Hello, bob{ENTER}")).await?;
    shows(&page, "#log", "ann: Hello, bob").await?;
    page.screenshot(shot("chat")).await?;
    page.appear(360, 740, "dark").await?;
    page.screenshot(shot("chat-phone")).await?;
    page.click("a[href='#red']").await?;
    shows(&page, "#state", "in red").await?;
    next_is(&mut bob, &format!("bob: {attack}")).await?;
    next_is(&mut bob, "ann: Hello, bob").await?;
    next_is(&mut bob, "ann left").await?;
    page.reload().await?;
    shows(&page, "#state", "in red").await
}

#[tokio::test]
async fn what_is_posted_appears_on_open_dashboards_and_on_later_ones() -> Result<()> {
    let app = example("dashboard").await?;
    let mut early = Wire::open(app.address, "/live").await?;
    next_is(&mut early, "0\n").await?;
    for (body, status) in
        [("orders 12", 200), ("orders", 400), ("orders many", 400), ("queue 3.5", 200), ("orders 13", 200)]
    {
        let answer = post(app.address, "/metrics-in", "text/plain", body).await?;
        ensure!(answer.status == status, "{body}: {answer:?}");
    }
    next_is(&mut early, "1\norders 12\n").await?;
    next_is(&mut early, "2\norders 12\nqueue 3.5\n").await?;
    next_is(&mut early, "3\norders 13\nqueue 3.5\n").await?;
    let mut late = Wire::open(app.address, "/live").await?;
    next_is(&mut late, "3\norders 13\nqueue 3.5\n").await?;

    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", app.address)).await?;
    shows(&page, "#board", "13").await?;
    post(app.address, "/metrics-in", "text/plain", "orders 14").await?;
    shows(&page, "#board", "14").await?;
    page.screenshot(shot("dashboard")).await
}

/// A client of the cursors that has read its own announcement, and its id.
async fn mouse(app: &Program, board: &str) -> Result<(Wire, String)> {
    let mut wire = Wire::open(app.address, &format!("/boards/{board}")).await?;
    let id = wire.message().await?.strip_prefix("you ").context("no id")?.to_owned();
    next_is(&mut wire, &format!("joined {id}")).await?;
    Ok((wire, id))
}

#[tokio::test]
async fn a_cursor_is_seen_by_the_others_on_its_board() -> Result<()> {
    let app = example("cursors").await?;
    let (mut other, other_id) = mouse(&app, "other").await?;
    let (mut one, one_id) = mouse(&app, "start").await?;
    let (mut two, two_id) = mouse(&app, "start").await?;
    ensure!(one_id != two_id, "{one_id}");
    next_is(&mut one, &format!("joined {two_id}")).await?;
    say(&mut two, "0.25 0.5").await?;
    next_is(&mut one, &format!("at {two_id} 0.2500 0.5000")).await?;
    for wrong in ["1.5 0", "NaN 0", "<b> 1", ""] {
        let (mut bad, bad_id) = mouse(&app, "start").await?;
        say(&mut bad, wrong).await?;
        let end = bad.end().await?;
        ensure!(end.code == Some(4400), "{wrong}: {end:?}");
        next_is(&mut one, &format!("joined {bad_id}")).await?;
        next_is(&mut one, &format!("left {bad_id}")).await?;
    }
    say(&mut other, "0 0").await?;
    next_is(&mut other, &format!("at {other_id} 0.0000 0.0000")).await
}

#[tokio::test]
async fn the_cursors_page_sends_few_positions_and_shows_those_of_others() -> Result<()> {
    let app = example("cursors").await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", app.address)).await?;
    shows(&page, "#state", "on the board start").await?;
    let (mut one, one_id) = mouse(&app, "start").await?;
    say(&mut one, "0.5 0.5").await?;
    next_is(&mut one, &format!("at {one_id} 0.5000 0.5000")).await?;
    shows(&page, "#board", &one_id).await?;
    // All in one turn of the page's event loop, so within one pause.
    page.eval(
        "(() => {
            const { left, top, width, height } = document.querySelector('#board').getBoundingClientRect();
            for (let step = 1; step <= 80; step++) {
                const place = { clientX: left + width * step / 100, clientY: top + height * step / 100 };
                document.querySelector('#board').dispatchEvent(new PointerEvent('pointermove', place));
            }
        })()",
    )
    .await?;
    let position = one.message().await?;
    ensure!(position.starts_with("at ") && position.ends_with(" 0.8000 0.8000"), "only the newest: {position}");
    let (mut two, two_id) = mouse(&app, "start").await?;
    next_is(&mut one, &format!("joined {two_id}")).await?;
    next_is(&mut one, &position).await.context("the page says where it is to a client that joins")?;
    say(&mut two, "0.2 0.7").await?;
    // The page hides a mouse that rests, and a slow machine may have taken that long.
    say(&mut one, "0.5 0.5").await?;
    let colours =
        "new Set([...document.querySelectorAll('.cursor')].map((c) => c.style.getPropertyValue('--colour'))).size";
    page.wait_until(&format!("{colours} === 2"), PATIENCE).await.context("a colour for each client")?;
    page.screenshot(shot("cursors")).await?;
    two.send(Frame::close(1000, "").bytes()).await?;
    let gone = format!("!document.querySelector('#board').innerText.includes({two_id:?})");
    page.wait_until(&gone, PATIENCE).await.map(drop)
}

/// Reads an answer as its page does, up to the end.
async fn whole(wire: &mut Wire) -> Result<String> {
    let (mut count, mut whole) = (None, String::new());
    loop {
        let message = wire.message().await?;
        let (head, text) = message.split_once('\n').context("no head")?;
        let (kind, number) = head.split_once(' ').context("no number")?;
        let number: usize = number.parse()?;
        match (kind, count) {
            ("text", None) => (count, whole) = (Some(number), text.to_owned()),
            ("token", Some(known)) if number <= known => {}
            ("token", Some(known)) if number == known + 1 => {
                count = Some(number);
                whole.push_str(text);
            }
            ("end", Some(known)) if number == known => return Ok(whole),
            _ => anyhow::bail!("{message:?} after {count:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_is_the_same_for_a_socket_from_the_start_a_late_one_and_one_after_the_end() -> Result<()> {
    let app = example("tokens").await?;
    let id = post(app.address, "/ask", "text/plain", "").await?.body;
    let path = format!("/answers/{id}");
    let mut first = Wire::open(app.address, &path).await?;
    let mut watcher = Wire::open(app.address, &path).await?;
    // On a slow machine the answer may be complete by now, which must make no difference.
    while watcher.message().await?.starts_with("text ") {}
    let mut late = Wire::open(app.address, &path).await?;
    let text = whole(&mut first).await?;
    ensure!(text.starts_with("A gateway") && text.ends_with("🎺. That is all."), "{text}");
    ensure!(whole(&mut late).await? == text, "a late socket has the same text");
    ensure!(whole(&mut Wire::open(app.address, &path).await?).await? == text, "after the end too");
    let end = Wire::open(app.address, "/answers/unknown").await?.end().await?;
    ensure!(end.code == Some(4404), "{end:?}");

    let browser = Browser::start().await?;
    let page = browser.open(&format!("http://{}/", app.address)).await?;
    page.click("#ask").await?;
    shows(&page, "#answer", "A gateway holds").await?;
    page.reload().await?;
    let second = browser.open(page.eval("location.href").await?.as_str().context("no address")?).await?;
    for page in [&page, &second] {
        shows(page, "#state", "whole answer").await?;
        ensure!(page.eval("document.querySelector('#answer').textContent").await? == text, "nothing missing or twice");
    }
    page.screenshot(shot("tokens")).await
}
