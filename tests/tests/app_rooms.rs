//! What an app on the library offers beside its routes: rooms, a guard, a router, a handle to publish, codes, a hook at the stop.

use anyhow::{Context, Result, ensure};
use tests::wire::{self, Frame, Head, Wire};
use tests::{Cluster, Program};

/// Two processes of the app on one broker. The cluster lends the broker.
async fn apps() -> Result<(Cluster, Program, Program)> {
    let cluster = Cluster::of(1).redis().start().await?;
    let url = cluster.broker_url();
    let environment = [("FANFARE__BROKER__URL", url.as_str())];
    let one = wire::serve("rooms-app", &environment).await?;
    Ok((cluster, one, wire::serve("rooms-app", &environment).await?))
}

/// A member who has joined a room, after its own announcement.
async fn member(app: &Program, room: &str, name: &str) -> Result<Wire> {
    let mut wire = Wire::connect(app.address).await?;
    wire.send(Head::upgrade(format!("/chat/{room}")).with("Cookie", format!("a=b; name={name}")).bytes()).await?;
    let response = wire.response().await?;
    ensure!(response.status == 101, "{response:?}");
    until(&mut wire, &format!("{name}@{room} joins {room}")).await?;
    Ok(wire)
}

/// Reads up to this message, and fails on one that names `never`.
async fn until(wire: &mut Wire, text: &str) -> Result<()> {
    loop {
        let message = wire.message().await.with_context(|| format!("before {text:?}"))?;
        ensure!(!message.contains("never"), "{message}");
        if message == text {
            return Ok(());
        }
    }
}

async fn say(wire: &mut Wire, text: &str) -> Result<()> {
    Ok(wire.send(Frame::text(text).bytes()).await?)
}

#[tokio::test]
async fn a_room_reaches_its_members_on_all_nodes_and_no_other_socket() -> Result<()> {
    let (mut cluster, one, two) = apps().await?;
    let mut ann = member(&one, "blue", "ann").await?;
    let mut bob = member(&two, "blue", "bob").await?;
    let mut eve = member(&two, "red", "eve").await?;
    until(&mut ann, "bob@blue joins blue").await?;
    say(&mut ann, "to blue not for red").await?;
    for wire in [&mut ann, &mut bob] {
        ensure!(wire.message().await? == "ann@blue: not for red", "members receive it");
    }
    say(&mut ann, "to red for red").await?;
    ensure!(eve.message().await? == "ann@blue: for red", "others do not");
    say(&mut eve, "join blue").await?;
    say(&mut eve, "join blue").await?;
    say(&mut eve, "to blue hello").await?;
    for wire in [&mut ann, &mut bob, &mut eve] {
        until(wire, "eve@red: hello").await?;
    }
    say(&mut eve, "leave blue").await?;
    until(&mut eve, "true").await?;
    say(&mut eve, "leave blue").await?;
    until(&mut eve, "false").await?;
    say(&mut bob, "to blue never for eve").await?;
    ensure!(ann.message().await?.contains("never for eve"), "a member receives it");
    say(&mut bob, "everyone").await?;
    until(&mut eve, "all: everyone").await?;
    until(&mut ann, "all: everyone").await?;
    cluster.well();
    Ok(())
}

#[tokio::test]
async fn a_guard_answers_for_the_app_or_attaches_what_it_knows() -> Result<()> {
    let app = wire::serve("rooms-app", &[]).await?;
    for (path, cookie, status, location) in [
        ("/chat/blue", None, 401, None),
        ("/chat/blue", Some("other=1"), 401, None),
        ("/chat/blue?redirect", None, 303, Some("/login")),
        ("/chat/blue", Some("name=ann"), 101, None),
    ] {
        let mut wire = Wire::connect(app.address).await?;
        let head = Head::upgrade(path);
        wire.send(cookie.iter().fold(head, |head, cookie| head.with("Cookie", *cookie)).bytes()).await?;
        let response = wire.response().await?;
        ensure!(response.status == status && response.header("location") == location, "{path}: {response:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_backend_route_and_the_hook_at_the_stop_send_to_rooms() -> Result<()> {
    let (mut cluster, one, mut two) = apps().await?;
    let mut ann = member(&one, "blue", "ann").await?;
    let mut wire = Wire::connect(two.address).await?;
    wire.exchange("POST /tell HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello").await?;
    ensure!(wire.response().await?.status == 200, "the router answers");
    until(&mut ann, "backend: hello").await?;
    for (request, status) in [("GET /tell", 405), ("GET /nowhere", 404), ("GET /ready", 200)] {
        let mut wire = Wire::connect(two.address).await?;
        wire.exchange(format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await?;
        ensure!(wire.response().await?.status == status, "{request}");
    }
    drop(wire);
    two.signal("TERM").await?;
    until(&mut ann, "a node stops").await?;
    ensure!(two.ended().await?.success(), "{}", two.output());
    cluster.well();
    Ok(())
}

/// A member that asks for positions, after the handshake.
async fn resuming(app: &Program, since: &str) -> Result<Wire> {
    let mut wire = Wire::connect(app.address).await?;
    wire.send(Head::upgrade(format!("/chat/blue?{since}")).with("Cookie", "name=zoe").bytes()).await?;
    let response = wire.response().await?;
    ensure!(response.status == 101, "{response:?}");
    Ok(wire)
}

/// The client's place on the route and in its room, and the texts, until this text has come.
async fn read(wire: &mut Wire, place: &mut [String; 2], last: &str) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    loop {
        let frame = wire.message().await.with_context(|| format!("before {last:?}, after {texts:?}"))?;
        let message: serde_json::Value = serde_json::from_str(&frame)?;
        ensure!(message.get("lost").is_none() && message["recovered"] != false, "{frame}");
        if let Some(at) = message["at"].as_str() {
            place[usize::from(message["room"] == "blue")] = at.to_owned();
        }
        let Some(text) = message["data"].as_str() else { continue };
        texts.push(text.to_owned());
        if text == last {
            return Ok(texts);
        }
    }
}

#[tokio::test]
async fn a_client_that_asks_for_positions_resumes_on_another_node_with_exactly_what_it_missed() -> Result<()> {
    let (mut cluster, one, two) = apps().await?;
    let (mut ann, mut place) = (member(&one, "blue", "ann").await?, Default::default());
    let mut zoe = resuming(&one, "since").await?;
    read(&mut zoe, &mut place, "zoe@blue joins blue").await?;
    say(&mut zoe, "leave green").await?;
    ensure!(read(&mut zoe, &mut place, "false").await? == ["false"], "what is sent to it alone is in the same form");
    for n in 0..20 {
        say(&mut ann, &format!("to blue {n}")).await?;
        say(&mut ann, &format!("{n}")).await?;
    }
    let seen = read(&mut zoe, &mut place, "all: 7").await?;
    drop(zoe);
    say(&mut ann, "to blue last").await?;
    until(&mut ann, "ann@blue: last").await?;
    let [route, room] = &place;
    let mut zoe = resuming(&two, &format!("since={route}&since.blue={room}")).await?;
    let mut missed = read(&mut zoe, &mut place, "ann@blue: last").await?;
    // Route and room are two channels: each has its own order.
    while !missed.iter().any(|text| text == "all: 19") {
        missed.extend(read(&mut zoe, &mut place, "all: 19").await?);
    }
    let all: Vec<_> = seen.into_iter().chain(missed).collect();
    for channel in ["all: ", "ann@blue: "] {
        let mut got = all.iter().filter_map(|text| text.strip_prefix(channel)).collect::<Vec<_>>();
        got.retain(|text| *text != "last");
        let expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
        ensure!(got == expected, "{channel}: {all:?}");
    }
    let mut wire = Wire::connect(one.address).await?;
    wire.send(Head::upgrade("/chat/blue?since=yesterday").with("Cookie", "name=zoe").bytes()).await?;
    let refused = wire.response().await?;
    ensure!(refused.status == 400 && refused.body.contains("`since` is"), "{refused:?}");
    cluster.well();
    Ok(())
}

#[tokio::test]
async fn codes_of_a_close_go_both_ways() -> Result<()> {
    let app = wire::serve("rooms-app", &[]).await?;
    let mut ann = member(&app, "blue", "ann").await?;
    for (close, left) in [(Frame::close(3007, "bye"), "3007"), (Frame::new(8, ""), "none")] {
        let mut bob = member(&app, "blue", "bob").await?;
        bob.send(close.bytes()).await?;
        until(&mut ann, &format!("bob@blue left with {left}")).await?;
    }
    say(&mut ann, &format!("close {}", "é".repeat(80))).await?;
    let end = ann.end().await?;
    ensure!(end.code == Some(4321) && end.reason == "é".repeat(61), "{end:?}");
    Ok(())
}
