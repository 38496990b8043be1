//! A log that is not read: the node drops lines, counts them, and serves and stops as before.

use std::io::pipe;
use std::process::{Output, Stdio};

use anyhow::{Context, Result};
use real_brokers::Port;
use tests::{Client, Conditions, Ended, Log, PATIENCE, Program, binary, http};
use tokio::process::Command;
use tokio::time::timeout;

/// The code of a node that goes away.
const DRAIN: u16 = 1012;

async fn node(log: Log) -> Result<Program> {
    let (conditions, environment) = (Conditions { log, ..Conditions::default() }, [("FANFARE__TIMING__DRAIN", "1s")]);
    let node = Program::start_under(conditions, "fanfare", &[], &environment).await?;
    http::until(node.address, "/ready", |answer| answer.status == 200).await?;
    Ok(node)
}

async fn dropped(node: &Program) -> Result<u64> {
    let metrics = http::get(node.address, "/metrics").await?.body;
    let value = metrics.lines().find_map(|line| line.strip_prefix("fanfare_log_lines_dropped_total "));
    Ok(value.context("no such metric")?.parse()?)
}

/// A client hears what it publishes.
async fn serves(client: &Client, word: &str) -> Result<()> {
    client.publish("news", word).await?;
    client.sees(word).await
}

/// SIGTERM ends the node as ever.
async fn stops(mut node: Program, client: &Client) -> Result<()> {
    node.signal("TERM").await?;
    let ended = client.ended().await?;
    assert!(matches!(ended, Ended::Closed(DRAIN, _)), "{ended:?}");
    assert_eq!(node.ended().await?.code(), Some(0));
    Ok(())
}

/// Leaves lines in the log until some are dropped.
async fn fill(node: &Program, url: &str) -> Result<()> {
    let full = async {
        while dropped(node).await? == 0 {
            for _ in 0..100 {
                Client::native(url).await?;
            }
        }
        anyhow::Ok(())
    };
    timeout(3 * PATIENCE, full).await.context("the log never fills up")?
}

#[tokio::test]
async fn a_node_whose_log_cannot_be_written_serves_and_stops_in_order() -> Result<()> {
    for log in [Log::Gone, Log::Full] {
        let node = node(log).await?;
        let client = Client::native(&format!("http://{}", node.address)).await?;
        client.subscribe("news").await?;
        serves(&client, "one").await?;
        // Its end is a line of the log.
        drop(Client::native(&format!("http://{}", node.address)).await?);
        let counted = async { while dropped(&node).await.is_ok_and(|lines| lines == 0) {} };
        timeout(PATIENCE, counted).await.context("no line is counted")?;
        serves(&client, "two").await?;
        stops(node, &client).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_node_whose_log_is_not_read_serves_and_says_later_what_it_dropped() -> Result<()> {
    let mut node = node(Log::Stalled).await?;
    let url = format!("http://{}", node.address);
    let client = Client::native(&url).await?;
    client.subscribe("news").await?;
    fill(&node, &url).await?;
    serves(&client, "all the same").await?;
    assert_eq!(http::get(node.address, "/ready").await?.status, 200);
    node.read_log();
    let line = node.line("lines of this log were dropped").await?;
    assert!(line.contains("WARN") && line.contains("lines="), "{line}");
    stops(node, &client).await
}

#[tokio::test]
async fn a_node_whose_log_is_not_read_stops_in_order() -> Result<()> {
    let node = node(Log::Stalled).await?;
    let url = format!("http://{}", node.address);
    let client = Client::native(&url).await?;
    fill(&node, &url).await?;
    stops(node, &client).await
}

#[tokio::test]
async fn a_node_whose_banner_is_not_read_serves() -> Result<()> {
    let port = Port::take()?;
    let (unread, full) = pipe()?;
    // As much as a pipe holds, so that the banner would have to wait.
    std::io::Write::write_all(&mut &full, &[b'\n'; 65_536])?;
    for stdout in [Stdio::from(full), pipe()?.1.into(), std::fs::File::create("/dev/full")?.into()] {
        let mut command = Command::new(binary("fanfare")?);
        command.args(["--listen", &port.address.to_string()]).kill_on_drop(true);
        let mut node = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null()).spawn()?;
        http::until(port.address, "/ready", |answer| answer.status == 200).await?;
        real_brokers::signal(node.id().context("it runs")?, "TERM").await?;
        assert_eq!(timeout(PATIENCE, node.wait()).await??.code(), Some(0));
    }
    drop(unread);
    Ok(())
}

#[tokio::test]
async fn a_command_whose_reader_has_left_says_by_its_exit_status_what_it_found() -> Result<()> {
    let node = node(Log::Kept).await?;
    let (address, url) = (node.address.to_string(), format!("ws://{}/ws", node.address));
    for arguments in [&["check"][..], &["ready", "--listen", &address], &["probe", &url], &["--help"], &["--version"]] {
        let left = run(arguments, pipe()?.1.into()).await?;
        assert_eq!((left.status.code(), text(&left.stderr)), (Some(0), String::new()), "{arguments:?}");
    }
    let left = run(&["check"], std::fs::File::create("/dev/full")?.into()).await?;
    assert_eq!(left.status.code(), Some(1), "what could not be printed is a failure");
    assert!(text(&left.stderr).contains("No space left"), "{}", text(&left.stderr));
    Ok(())
}

/// Runs `fanfare` to its end, with this stdout.
async fn run(arguments: &[&str], stdout: Stdio) -> Result<Output> {
    let mut command = Command::new(binary("fanfare")?);
    command.args(arguments).env_clear().kill_on_drop(true);
    let program = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn()?;
    // It holds our end of the pipe.
    drop(command);
    timeout(PATIENCE, program.wait_with_output())
        .await
        .with_context(|| format!("{arguments:?} does not end"))?
        .map_err(Into::into)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
