//! What an app on the library decides for itself: a page and a socket on one path, its subprotocols, its name.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tests::wire::{self, Head, Wire};
use tests::{PATIENCE, binary};
use tokio::process::Command;
use tokio::time::timeout;

#[tokio::test]
async fn a_client_that_offers_another_upgrade_gets_the_page_and_one_that_wants_a_socket_gets_it() -> Result<()> {
    let app = wire::serve("echo-endpoint", &[]).await?;
    let page = |upgrade: &str| Head::get("/echo").with("Upgrade", upgrade).with("Connection", "Upgrade");
    for (what, head, status) in [
        ("no upgrade", Head::get("/echo"), 200),
        ("h2c", page("h2c").with("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"), 200),
        ("TLS", page("TLS/1.2"), 200),
        ("nothing", page(""), 200),
        ("a socket over HTTP/1.0", Head::upgrade("/echo").line("GET /echo HTTP/1.0"), 200),
        ("a socket", Head::upgrade("/echo"), 101),
        ("a socket among others", Head::upgrade("/echo").set("Upgrade", "h2c, WebSocket"), 101),
        ("a socket without a key", Head::upgrade("/echo").without("Sec-WebSocket-Key"), 400),
        ("a socket without Connection", Head::upgrade("/echo").without("Connection"), 400),
    ] {
        let mut wire = Wire::connect(app.address).await?;
        wire.send(head.bytes()).await?;
        let response = wire.response().await.context(what)?;
        ensure!(response.status == status, "{what}: {response:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_clients_first_subprotocol_that_the_app_speaks_is_agreed_on() -> Result<()> {
    let app = wire::serve("echo-endpoint", &[]).await?;
    for (offered, agreed) in [
        (None, None),
        (Some("echo.v1"), Some("echo.v1")),
        (Some("echo.v1, echo.v2"), Some("echo.v1")),
        (Some("chat,, echo.v2"), Some("echo.v2")),
        (Some("chat"), None),
    ] {
        let mut wire = Wire::connect(app.address).await?;
        let head = Head::upgrade("/echo?protocol");
        wire.send(offered.iter().fold(head, |head, names| head.with("Sec-WebSocket-Protocol", names)).bytes()).await?;
        let response = wire.response().await?;
        ensure!(response.status == 101 && response.header("sec-websocket-protocol") == agreed, "{response:?}");
        ensure!(wire.message().await? == agreed.unwrap_or("none"), "the handler knows it: {offered:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_program_has_its_own_name_and_version() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    for (program, expected) in [
        ("fanfare", format!("fanfare {version}\n")),
        ("echo-server", format!("echo-server (built on Fanfare {version})\n")),
        ("echo-endpoint", format!("echo-endpoint (built on Fanfare {version})\n")),
    ] {
        let mut command = Command::new(binary(program)?);
        command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await.context("it does not end")??;
        ensure!(output.status.success() && output.stdout == expected.as_bytes(), "{output:?}");
    }
    Ok(())
}
