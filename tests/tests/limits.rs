//! Clients that take more than their share: they are slowed down or ended, and other clients are not affected.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::{join_all, try_join_all};
use real_brokers::{Redis, Server};
use serde_json::json;
use tests::latency::Beat;
use tests::wire::{self, Frame, Head, TEXT, Wire};
use tests::{PATIENCE, Program};
use tokio::time::{interval, sleep, timeout};

/// Clients that must not notice.
const OTHERS: usize = 1_000;
/// One measurement.
const BEAT: Beat = Beat { channel: "news", messages: 120, pace: Duration::from_millis(50), size: SIZE };
/// The size of a message.
const SIZE: usize = 1024;

/// How long a broker stands still.
const STANDSTILL: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_never_reads_is_ended_while_a_thousand_others_see_no_delay() -> Result<()> {
    let limits = [
        ("FANFARE__LIMITS__MESSAGE", "16KiB"),
        ("FANFARE__LIMITS__OUTBOX", "32KiB"),
        // So many at once may take their time.
        ("FANFARE__HTTP__HEAD_TIME", "1m"),
    ];
    let server = wire::serve("fanfare", &limits).await?;
    let mut others = try_join_all((0..OTHERS).map(|_| Wire::open(server.address, "/raw/news"))).await?;
    let before = memory(&server)?;
    let mut attempts = Vec::new();
    // Whatever else runs on this machine only ever adds to a delay, and not to each of three.
    while attempts.len() < 3 {
        let alone;
        (others, alone) = BEAT.p99(server.address, others).await?;
        let mut stalled = Wire::narrow(server.address).await?.upgraded("/raw/news").await?;
        let beside;
        (others, beside) = BEAT.p99(server.address, others).await?;
        let line = server.line(&format!("peer={} ", stalled.local())).await?;
        ensure!(line.contains("reason=\"too_slow\" code=4410"), "{line}");
        let end = stalled.end().await?;
        ensure!(end.reset || end.code == Some(4410), "it got neither a reset nor 4410: {:?} {}", end.code, end.reason);
        println!("p99 of {OTHERS}: {alone:?} alone, {beside:?} beside one that does not read");
        if beside <= alone * 3 + Duration::from_millis(20) {
            let grown = memory(&server)?.saturating_sub(before);
            ensure!(grown < 16 << 20, "memory grew by {grown} bytes");
            return Ok(());
        }
        attempts.push((alone, beside));
    }
    anyhow::bail!("the others wait: {attempts:?}")
}

#[tokio::test]
async fn a_slow_socket_that_reads_in_time_gets_4410() -> Result<()> {
    let limits = [("FANFARE__LIMITS__MESSAGE", "16KiB"), ("FANFARE__LIMITS__OUTBOX", "32KiB")];
    let server = wire::serve("fanfare", &limits).await?;
    let mut slow = Wire::narrow(server.address).await?.upgraded("/raw/news").await?;
    publish(&server, "news", SIZE, 500).await?;
    let end = slow.end().await?;
    assert_eq!((end.code, end.reset), (Some(4410), false), "{}", end.reason);
    // What came before is a beginning of what was sent, without a gap.
    assert!(end.frames.iter().all(|frame| frame.opcode == TEXT && frame.payload.len() == SIZE));
    assert!(end.frames.len() < 500);
    Ok(())
}

#[tokio::test]
async fn half_of_all_clients_stall_and_the_other_half_gets_everything() -> Result<()> {
    const HALF: usize = 60;
    const MESSAGES: usize = 60;
    let budget = [
        ("FANFARE__NODE__WORKERS", "1"),
        ("FANFARE__LIMITS__OUTBOX", "1MiB"),
        ("FANFARE__LIMITS__OUTBOX_TOTAL", "1MiB"),
    ];
    let server = wire::serve("fanfare", &budget).await?;
    let mut stalled = Vec::new();
    let mut lively = Vec::new();
    for _ in 0..HALF {
        stalled.push(Wire::narrow(server.address).await?.upgraded("/raw/news").await?);
        lively.push(Wire::open(server.address, "/raw/news").await?);
    }
    let before = memory(&server)?;
    let reading = lively.iter_mut().map(async |wire| {
        for n in 0..MESSAGES {
            let message = wire.message().await.with_context(|| format!("message {n} of {MESSAGES}"))?;
            ensure!(message.len() == 20 << 10, "{} bytes", message.len());
        }
        anyhow::Ok(())
    });
    let (read, published) = tokio::join!(join_all(reading), publish(&server, "news", 20 << 10, MESSAGES));
    published?;
    let unlucky: Vec<_> = read.into_iter().filter_map(Result::err).collect();
    assert!(unlucky.is_empty(), "{} clients that read were ended: {}", unlucky.len(), unlucky[0]);
    let grown = memory(&server)?.saturating_sub(before);
    assert!(grown < 16 << 20, "memory grew by {grown} bytes");
    for mut wire in stalled {
        let line = server.line(&format!("peer={} ", wire.local())).await?;
        assert!(line.contains("reason=\"too_slow\" code=4410"), "{line}");
        let end = wire.end().await?;
        assert!(end.reset || end.code == Some(4410), "{:?}", end.code);
    }
    let closed = || server.output().matches("connection closed").count();
    until(async || Ok(closed() > HALF)).await?;
    assert_eq!(closed(), HALF + 1, "the publisher left as well");
    Ok(())
}

#[tokio::test]
async fn slow_clients_that_are_gone_leave_nothing_in_the_budget() -> Result<()> {
    let budget = [
        ("FANFARE__NODE__WORKERS", "1"),
        ("FANFARE__LIMITS__MESSAGE", "32KiB"),
        ("FANFARE__LIMITS__OUTBOX", "64KiB"),
        ("FANFARE__LIMITS__OUTBOX_TOTAL", "128KiB"),
    ];
    let server = wire::serve("fanfare", &budget).await?;
    for n in 0..4 {
        let path = format!("/raw/slow-{n}");
        let slow = Wire::narrow(server.address).await?.upgraded(&path).await?;
        publish(&server, &path[5..], 8 << 10, 64).await?;
        let line = server.line(&format!("peer={} ", slow.local())).await?;
        assert!(line.contains("too_slow"), "{line}");
    }
    let mut fast = Wire::open(server.address, "/raw/news").await?;
    for n in 0..3 {
        publish(&server, "news", 30 << 10, 1).await?;
        let message = fast.message().await.with_context(|| format!("message {n} of a client that reads"))?;
        assert_eq!(message.len(), 30 << 10);
    }
    Ok(())
}

#[tokio::test]
async fn unread_small_replies_take_no_more_memory_than_the_budget_says() -> Result<()> {
    const CLIENTS: usize = 4;
    let server = wire::serve("fanfare", &[]).await?;
    let mut wires = Vec::new();
    for _ in 0..CLIENTS {
        wires.push(Wire::narrow(server.address).await?.upgraded("/ws").await?);
    }
    let before = memory(&server)?;
    let commands = Frame::text(r#"{"ping":{}}"#).bytes().repeat(50_000);
    // They are ended before they have said all of it.
    join_all(wires.iter_mut().map(|wire| wire.send(&commands))).await;
    let mut peak = 0;
    until(async || {
        peak = peak.max(memory(&server)?);
        Ok(server.output().matches("reason=\"too_slow\"").count() == CLIENTS)
    })
    .await?;
    let grown = peak.saturating_sub(before);
    assert!(grown < (CLIENTS + 4) << 20, "memory grew by {grown} bytes");
    Ok(())
}

#[tokio::test]
async fn unread_answers_are_not_kept_for_ever() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    let mut wire = Wire::narrow(server.address).await?;
    let request = Head::get("/").bytes().repeat(1_000);
    // The server waits for it, so that soon it cannot even send more.
    let late = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
    let more = async { while wire.send(&request).await.as_ref().err().is_none_or(late) {} };
    timeout(2 * PATIENCE, more).await.context("it may leave its answers unread for ever")?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_leaves_nothing_in_the_kernel_either() -> Result<()> {
    let times = [("FANFARE__TIMING__PING", "1s"), ("FANFARE__TIMING__PONG", "500ms")];
    let server = wire::serve("fanfare", &times).await?;
    let silent = Wire::narrow(server.address).await?.upgraded("/raw/news").await?;
    publish(&server, "news", SIZE, 200).await?;
    let line = server.line(&format!("peer={} ", silent.local())).await?;
    assert!(line.contains("ping_timeout"), "{line}");
    // The server's end would wait there for as long as the client takes nothing of what was sent.
    let end = format!(":{:04X} 0100007F:{:04X} ", server.address.port(), silent.local().port());
    until(async || Ok(!std::fs::read_to_string("/proc/net/tcp")?.contains(&end))).await
}

#[tokio::test]
async fn a_full_node_answers_503_with_retry_after_and_takes_the_next_when_one_leaves() -> Result<()> {
    let server = wire::serve("fanfare", &[("FANFARE__HTTP__MAX_CONNECTIONS", "10")]).await?;
    // Those that asked whether the node is ready may have left a moment ago.
    let mut open = Vec::new();
    until(async || {
        let mut wire = Wire::connect(server.address).await?;
        wire.send(Head::upgrade("/ws").bytes()).await?;
        if wire.response().await.is_ok_and(|response| response.status == 101) {
            open.push(wire);
        }
        Ok(open.len() == 10)
    })
    .await?;
    for request in [vec![], Head::get("/live").bytes(), Head::upgrade("/ws").bytes()] {
        let mut wire = Wire::connect(server.address).await?;
        let _ = wire.send(&request).await;
        let response = wire.response().await?;
        assert_eq!(response.status, 503, "{response:?}");
        let seconds: u32 = response.header("retry-after").context("Retry-After")?.parse()?;
        assert!((1..=60).contains(&seconds) && response.body.ends_with('\n'), "{response:?}");
        assert_eq!(response.header("connection"), Some("close"));
        assert!(wire.next_response().await?.is_none(), "it is closed");
    }
    for wire in &mut open {
        wire.send(Frame::text(r#"{"id":1,"ping":{}}"#).bytes()).await?;
        assert_eq!(wire.message().await?, r#"{"id":1,"ok":{}}"#, "those inside are served");
    }
    open.pop();
    until(async || Ok(Wire::open(server.address, "/ws").await.is_ok())).await?;
    let body = {
        open.clear();
        let mut body = None;
        until(async || {
            body = wire::get(server.address, "/metrics").await.ok().filter(|page| page.status == 200);
            Ok(body.is_some())
        })
        .await?;
        body.context("metrics")?.body
    };
    let refused =
        body.lines().find_map(|line| line.strip_prefix("fanfare_connections_refused_total{reason=\"full\"} "));
    assert!(refused.context("counted")?.parse::<u64>()? >= 3, "{body}");
    Ok(())
}

/// A node on a broker of its own, which can be stopped in its tracks.
async fn on_redis() -> Result<(Redis, Program)> {
    let redis = Redis::new(0)?;
    redis.start().await?;
    let url = redis.inside_url();
    let patient = [
        ("FANFARE__BROKER__URL", &*url),
        // However long this machine takes, no publish fails, and no silence ends the link.
        ("FANFARE__BROKER__PUBLISH_TIMEOUT", "5m"),
        ("FANFARE__BROKER__HEARTBEAT", "1m"),
        // How fast a test reads is not what these tests are about.
        ("FANFARE__LIMITS__OUTBOX", "64MiB"),
        ("FANFARE__LIMITS__PUBLISHES_PER_SECOND", "0"),
    ];
    let server = wire::serve("fanfare", &patient).await?;
    Ok((redis, server))
}

#[tokio::test]
async fn a_publisher_faster_than_the_broker_has_to_wait_and_fills_no_memory() -> Result<()> {
    const MESSAGES: usize = 24_000;
    let (redis, server) = on_redis().await?;
    let mut wire = Wire::open(server.address, "/raw/flood").await?;
    let flood: Vec<u8> = (0..MESSAGES).flat_map(|n| Frame::text(format!("{n:01000}")).bytes()).collect();
    let before = memory(&server)?;
    redis.freeze().await?;
    let mut sent = Box::pin(wire.exchange(&flood));
    // More than all the kernel's buffers hold: some of it must wait here.
    let waits = timeout(STANDSTILL, &mut sent).await.is_err();
    let grown = memory(&server)?.saturating_sub(before);
    redis.thaw().await?;
    assert!(waits, "{} bytes were taken while the broker stood still", flood.len());
    assert!(grown < 16 << 20, "memory grew by {grown} bytes");
    sent.await.with_context(|| server.output())?;
    all_come(&mut wire, MESSAGES, &server).await
}

#[tokio::test]
async fn publishers_of_many_small_messages_are_slowed_down_and_lose_none() -> Result<()> {
    const MESSAGES: usize = 15_000;
    let (redis, server) = on_redis().await?;
    let paths = ["/raw/a", "/raw/b", "/raw/c", "/raw/d"];
    let mut wires = try_join_all(paths.map(|path| Wire::open(server.address, path))).await?;
    let flood: Vec<u8> = (0..MESSAGES).flat_map(|n| Frame::text(n.to_string()).bytes()).collect();
    redis.freeze().await?;
    let (sent, thawed) =
        tokio::join!(timeout(PATIENCE, try_join_all(wires.iter_mut().map(|wire| wire.exchange(&flood)))), async {
            sleep(STANDSTILL).await;
            redis.thaw().await
        });
    thawed?;
    sent??;
    for wire in &mut wires {
        all_come(wire, MESSAGES, &server).await?;
    }
    Ok(())
}

/// The messages are the numbers up to `count`, in order, also if the broker answers so late that they are sent again.
async fn all_come(wire: &mut Wire, count: usize, server: &Program) -> Result<()> {
    for n in 0..count {
        let message = wire.message().await.with_context(|| format!("message {n}: {}", server.output()))?;
        ensure!(message.parse() == Ok(n), "message {n} is due, and {message:.20} came: {}", server.output());
    }
    Ok(())
}

#[tokio::test]
async fn a_thousand_sockets_opened_and_closed_leave_no_descriptor_behind() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    let others = Wire::open(server.address, "/raw/stays").await?;
    wire::visit(server.address, "/raw/news").await?;
    let before = until_steady(&server).await?;
    for round in 0..4 {
        let wires = (0..250).map(async |n: usize| {
            let path = ["/raw/news", "/ws"][n % 2];
            let mut wire = Wire::connect(server.address).await?;
            match n % 10 {
                0 => {}
                1 => wire.send(&Head::upgrade(path).bytes()[..40]).await?,
                2 => wire.send(Head::upgrade(path).without("Sec-WebSocket-Key").bytes()).await?,
                3 => wire.send(Head::get("/").bytes()).await?,
                n => {
                    wire = wire.upgraded(path).await?;
                    match n {
                        4 => wire.send(Frame::close(1000, "").bytes()).await?,
                        5 => wire.send(Frame::text("").unmasked().bytes()).await?,
                        6 => wire.send(Frame::text("x").open().bytes()).await?,
                        7 => wire.shut().await?,
                        8 => wire.send(Frame::text(r#"{"subscribe":{"channel":"a"}}"#).bytes()).await?,
                        _ => {}
                    }
                }
            }
            if n.is_multiple_of(3) {
                wire.reset()?;
            }
            anyhow::Ok(())
        });
        try_join_all(wires).await.with_context(|| format!("round {round}"))?;
    }
    let mut open = 0;
    let gone = until(async || {
        open = descriptors(&server)?;
        Ok(open <= before)
    });
    gone.await.with_context(|| format!("{open} descriptors, {before} before"))?;
    until(async || Ok(metric(&server, "fanfare_connections").await? == 1)).await?;
    drop(others);
    Ok(())
}

/// Publishes messages of one size, each once the one before is acknowledged.
async fn publish(server: &Program, channel: &str, size: usize, count: usize) -> Result<()> {
    let mut wire = Wire::open(server.address, "/ws").await?;
    let command = json!({"publish": {"channel": channel, "data": "x".repeat(size)}}).to_string();
    for _ in 0..count {
        wire.send(Frame::text(&command).bytes()).await?;
        let mut reply = wire.message().await?;
        // It may take so long that the node wants to know whether we are there.
        while reply.starts_with("{\"ping\"") {
            reply = wire.message().await?;
        }
        ensure!(reply.contains("\"ok\""), "{reply}");
    }
    Ok(())
}

/// Looks again and again until something is so.
async fn until(mut look: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let mut pace = interval(Duration::from_millis(20));
    let looking = async {
        loop {
            pace.tick().await;
            if look().await? {
                return Ok(());
            }
        }
    };
    timeout(PATIENCE, looking).await.context("it never becomes so")?
}

/// The descriptors of a server while no client connects.
async fn until_steady(server: &Program) -> Result<usize> {
    let mut last = 0;
    until(async || {
        let now = descriptors(server)?;
        Ok(std::mem::replace(&mut last, now) == now)
    })
    .await?;
    Ok(last)
}

fn descriptors(server: &Program) -> Result<usize> {
    server.process()?.descriptors()
}

/// Bytes that the process itself has taken.
fn memory(server: &Program) -> Result<usize> {
    Ok(usize::try_from(server.process()?.memory()?)?)
}

/// A counter or gauge without labels.
async fn metric(server: &Program, name: &str) -> Result<u64> {
    let page = wire::get(server.address, "/metrics").await?.body;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no {name}"))?.parse()?)
}
