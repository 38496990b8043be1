//! `fanfare subscribe` and `fanfare publish` as a shell uses them: pipes, exit codes, cuts, tokens.

use std::process::{Output, Stdio};
use std::time::Duration;
use std::{fs, str};

use anyhow::{Context, Result, ensure};
use real_brokers::Scratch;
use tests::tokens::{Issuer, SECRET};
use tests::{Cluster, PATIENCE, Program, binary};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How long to wait for a message before another one is published.
const AGAIN: Duration = Duration::from_millis(500);

/// A running `fanfare subscribe` or `fanfare publish`.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    stdin: Option<ChildStdin>,
}

impl Running {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary("fanfare")?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
        Ok(Self { stdin: child.stdin.take(), lines, child })
    }

    /// A subscriber that has printed `first`, which is published until it does.
    async fn subscriber(url: &str, channel: &str, flags: &[&str]) -> Result<Self> {
        let mut running = Self::start(&[&["subscribe", url, channel][..], flags].concat())?;
        loop {
            stored(&[&[url, channel, "first"][..], flags].concat()).await?;
            if let Ok(line) = timeout(AGAIN, running.lines.next_line()).await {
                ensure!(line?.context("it ended")?.contains("first"), "another message");
                return Ok(running);
            }
        }
    }

    async fn line(&mut self) -> Result<String> {
        timeout(PATIENCE, self.lines.next_line()).await.context("no line")??.context("it ended")
    }

    /// The next line that is not `first`.
    async fn next(&mut self) -> Result<String> {
        loop {
            let line = self.line().await?;
            if !line.contains("first") {
                return Ok(line);
            }
        }
    }

    /// Waits for its end; returns the exit code and what it said on stderr.
    async fn end(mut self) -> Result<(Option<i32>, String)> {
        drop(self.stdin.take());
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().context("it is piped")?;
        timeout(PATIENCE, stderr.read_to_string(&mut said)).await.context("it does not end")??;
        Ok((self.child.wait().await?.code(), said))
    }
}

/// Runs a command to its end.
async fn run(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("fanfare")?);
    let output = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    Ok(timeout(PATIENCE, output).await.context("it does not end")??)
}

async fn stored(arguments: &[&str]) -> Result<String> {
    let output = run(&[&["publish"], arguments].concat()).await?;
    ensure!(output.status.success(), "{arguments:?}: {}", str::from_utf8(&output.stderr)?);
    Ok(String::from_utf8(output.stdout)?)
}

async fn printed(arguments: &[&str]) -> Result<String> {
    let output = run(&[&["subscribe"], arguments].concat()).await?;
    ensure!(output.status.success(), "{arguments:?}: {}", str::from_utf8(&output.stderr)?);
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn texts_and_json_come_out_as_they_went_in() -> Result<()> {
    let node = Program::start("fanfare", &[], &[]).await?;
    let url = &format!("http://{}", node.address);
    let number = r#"{"n": 12345678901234567890123, "s":"a\tb"}"#;
    ensure!(stored(&[url, "news", "one \"two\" ü"]).await?.is_empty(), "nothing to say");
    let reply = stored(&[url, "news", number, "--json", "--verbose"]).await?;
    ensure!(reply.starts_with(r#"{"at":""#), "{reply}");
    for _ in 0..2 {
        stored(&[url, "news", "three", "--key", "k1"]).await?;
    }
    let texts = printed(&[url, "news", "--last", "9", "--count", "3"]).await?;
    assert_eq!(texts, format!("one \"two\" ü\n{number}\nthree\n"));
    let json = printed(&[url, "news", "--last", "9", "--count", "3", "--json"]).await?;
    let second = json.lines().nth(1).context("three lines")?;
    ensure!(second.starts_with(&format!(r#"{{"channel":"news","data":{number},"at":""#)), "{second}");
    let at = serde_json::from_str::<serde_json::Value>(second)?["at"].as_str().context("a position")?.to_owned();
    assert_eq!(printed(&[url, "news", "--since", &at, "--count", "1"]).await?, "three\n");
    let several = printed(&[url, "news", "other", "--last", "1", "--count", "1"]).await?;
    assert_eq!(several, "news\tthree\n");
    Ok(())
}

#[tokio::test]
async fn a_pipe_of_lines_goes_through_killed_nodes_and_a_cut_broker_once_and_in_order() -> Result<()> {
    const LINES: usize = 3_000;
    let mut cluster = Cluster::of(2).redis().haproxy().start().await?;
    let url = &cluster.gateway_url();
    let mut subscriber = Running::subscriber(url, "pipe", &[]).await?;
    let mut publisher = Running::start(&["publish", url, "pipe"])?;
    let mut stdin = publisher.stdin.take().context("it is piped")?;
    let writing = tokio::spawn(async move {
        for number in 0..LINES {
            stdin.write_all(format!("line {number}\n").as_bytes()).await?;
        }
        anyhow::Ok(())
    });
    for number in 0..LINES {
        assert_eq!(subscriber.next().await?, format!("line {number}"));
        match number {
            500 => cluster.kill_node("node-1").await?,
            1_000 => cluster.start_node("node-1").await?,
            1_500 => cluster.kill_node("node-2").await?,
            2_000 => cluster.start_node("node-2").await?,
            2_500 => {
                let wire = cluster.wire("node-1")?;
                wire.cut();
                wire.mend();
            }
            _ => {}
        }
    }
    writing.await??;
    let (code, said) = publisher.end().await?;
    assert_eq!(code, Some(0), "{said}");
    subscriber.child.start_kill()?;
    let (_, said) = subscriber.end().await?;
    ensure!(said.contains("connecting again") && !said.contains("missing"), "{said}");
    cluster.well();
    Ok(())
}

#[tokio::test]
async fn exit_codes_tell_refused_from_unknown() -> Result<()> {
    let mut cluster = Cluster::of(1).redis().start().await?;
    let url = &format!("http://{}", cluster.node_address(1));
    for (arguments, code, text) in [
        (&["publish", url, "bad name", "x"][..], 1, "not stored: bad_channel"),
        (&["publish", url, "news", "{", "--json"], 1, "the message is not JSON"),
        (&["publish", url, "news", "--key", "k"], 1, "give the message as TEXT"),
        (
            &["publish", "ws://127.0.0.1:1", "news", "x", "--timeout", "1s"],
            1,
            "not stored: 127.0.0.1:1: Connection refused",
        ),
        (&["subscribe", "ws://127.0.0.1:1", "news"], 1, "Connection refused"),
        (&["subscribe", url, "bad name"], 1, "bad_channel"),
        (&["subscribe", &format!("{url}/nowhere"), "news"], 1, "404 Not Found"),
        (&["subscribe", url, "a", "b", "--since", "P"], 1, "name one channel only"),
        (&["subscribe", url], 2, "<CHANNEL>"),
        (&["publish", url], 2, "<CHANNEL>"),
    ] {
        let output = run(arguments).await?;
        let said = str::from_utf8(&output.stderr)?;
        ensure!(output.status.code() == Some(code) && said.contains(text), "{arguments:?}: {} {said}", output.status);
    }
    cluster.broker().freeze().await?;
    let output = run(&["publish", url, "news", "x", "--key", "k7", "--timeout", "5s"]).await?;
    cluster.broker().thaw().await?;
    let said = str::from_utf8(&output.stderr)?;
    ensure!(output.status.code() == Some(3) && said.contains("--key k7"), "{} {said}", output.status);
    cluster.well();
    Ok(())
}

#[tokio::test]
async fn a_token_is_read_again_from_its_file_and_never_printed() -> Result<()> {
    let (issuer, folder) = (Issuer::new()?, Scratch::new("subscriber")?);
    let (variable, keys) = Issuer::keys();
    let mut cluster = Cluster::of(1).apis().set(variable, &keys).start().await?;
    let (url, file) = (&format!("http://{}", cluster.node_address(1)), folder.path().join("token"));
    let given = &format!("@{}", file.display());
    let all = ["--channel", "*", "--can", "subscribe,publish,history"];
    fs::write(&file, issuer.token("ann", &all)?)?;
    let mut subscriber = Running::subscriber(url, "news", &["--token", given]).await?;
    let (status, answer) = cluster.api(1)?.post("/v1/users/ann/revoke", &serde_json::json!({})).await?;
    ensure!(status == 200, "{answer}");
    // A token of the second of its revocation is revoked as well: the issuer goes on until one is not.
    loop {
        fs::write(&file, issuer.token("ann", &all)?)?;
        if run(&["publish", url, "news", "two", "--token", given, "--key", "k"]).await?.status.success() {
            break;
        }
    }
    assert_eq!(subscriber.next().await?, "two");
    subscriber.child.start_kill()?;
    let (_, said) = subscriber.end().await?;
    ensure!(said.contains("the node refused the token; connecting again") && !said.contains(SECRET), "{said}");
    cluster.well();
    let refused = run(&["subscribe", "ws://127.0.0.1:1", "news", "--token", "@/nowhere/token"]).await?;
    ensure!(str::from_utf8(&refused.stderr)?.contains("cannot read the token from /nowhere/token"), "its words");
    Ok(())
}
