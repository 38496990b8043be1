//! `fanfare capacity`: what it says of memory is what real sockets cost.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::binary;
use tokio::process::Command;
use tokio::time::timeout;

/// What one node holds here; a process may open 20,000 files on many machines.
const SOCKETS: f64 = 15_000.0;
/// How far the tool may be off, as a share of the measured value.
const TOLERANCE: f64 = 0.2;
/// Thousands of connections, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

async fn out(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(binary(program)?);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.with_context(|| format!("{program} does not end"))??;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

async fn capacity(arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&out("fanfare", &[&["capacity", "--json"], arguments].concat()).await?)?)
}

fn figure(report: &Value, place: &str, name: &str) -> Result<f64> {
    let mut figures = report[place].as_array().into_iter().flatten();
    let found = figures.find(|figure| figure["name"] == name).and_then(|figure| figure["value"].as_f64());
    found.with_context(|| format!("{name} of {place} is not in {report}"))
}

/// The number behind a name in what the load tool prints.
fn measured(text: &str, name: &str) -> Result<f64> {
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} is not in {text}"))?;
    Ok(line.split_ascii_whitespace().next().context("no number")?.parse()?)
}

#[tokio::test]
async fn memory_is_what_15_000_real_sockets_cost() -> Result<()> {
    let fanfare = binary("fanfare")?.display().to_string();
    let sockets = SOCKETS.to_string();
    let arguments = ["idle", "--connections", &sockets, "--protocol", "native", "--subscribe", "--seconds", "1"];
    let server = ["--server", &fanfare, "--listen", "127.0.0.1:{port}"];
    let text = out("load", &[&arguments[..], &server].concat()).await?;
    println!("{text}");
    ensure!(text.contains("steady") && !text.contains("NOT STEADY"), "{text}");

    let with = capacity(&["--connections", &sockets, "--nodes", "1", "--rate", "0"]).await?;
    let without = capacity(&["--connections", "1", "--nodes", "1", "--rate", "0"]).await?;
    let each = |name| anyhow::Ok((figure(&with, "node", name)? - figure(&without, "node", name)?) / (SOCKETS - 1.0));
    let (user, kernel) = (each("memory, node")?, each("memory, kernel")?);
    let real_user = measured(&text, "user bytes/connection")?;
    // The clients' ends are on this machine too, and cost the same.
    let real_kernel = measured(&text, "kernel bytes/connection")? / 2.0;
    println!("user {user} said, {real_user} measured; kernel {kernel} said, {real_kernel} measured");
    for (said, real) in [(user, real_user), (kernel, real_kernel), (user + kernel, real_user + real_kernel)] {
        ensure!((said - real).abs() <= TOLERANCE * real, "{said} said, {real} measured");
    }
    Ok(())
}

#[tokio::test]
async fn what_this_machine_lacks_is_named_with_the_way_to_raise_it() -> Result<()> {
    // More than any machine's 64,511 ports between two addresses.
    let text = out("fanfare", &["capacity", "--connections", "1000000", "--nodes", "3", "--tls"]).await?;
    println!("{text}");
    for word in ["this machine falls short", "source ports, from the balancer to one node: 500,000 needed", "sysctl -w"]
    {
        ensure!(text.contains(word), "{word:?} is not in\n{text}");
    }
    ensure!(text.lines().all(|line| !line.contains('\x1b')), "{text}");
    let small = capacity(&["--connections", "100", "--rate", "1"]).await?;
    ensure!(small["shortfalls"].as_array().is_some_and(Vec::is_empty), "{small}");
    Ok(())
}
