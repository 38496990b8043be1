//! Refusals are explained to the client and to the operator.

use anyhow::{Result, ensure};
use tests::wire::{self, Head};

use crate::{answer, answers, counts};

#[tokio::test]
async fn a_missing_path_and_a_large_head_are_explained_and_logged() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    let missing = answer(&server, Head::upgrade("/sockets?token=hunter2").bytes()).await?;
    ensure!(missing.status == 404, "{missing:?}");
    for word in ["no WebSocket at /sockets", "/ws, /raw/{channel}", "fanfare probe"] {
        ensure!(missing.body.contains(word), "{word} is not in {missing:?}");
    }
    let page = answer(&server, Head::get("/nowhere").bytes()).await?;
    ensure!(
        page.status == 404 && page.body.contains("there are /, /ws, /raw/{channel}, /sse, /sse/{channel}, /live"),
        "{page:?}"
    );
    let large = answers(&server, Head::upgrade("/ws").with("Cookie", vec![b'x'; 17 << 10]).bytes()).await?;
    ensure!(large.len() == 1 && large[0].status == 431, "{large:?}");
    ensure!(large[0].body.contains("16 KiB") && large[0].body.contains("cookies"), "{large:?}");
    let tls = answers(&server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await?;
    ensure!(tls.len() == 1 && tls[0].status == 400 && tls[0].body.contains("TLS"), "{tls:?}");
    for why in ["no WebSocket at /sockets", "16 KiB"] {
        let line = server.line(why).await?;
        ensure!(line.contains("WARN") && line.contains("requests refused"), "{line}");
    }
    ensure!(!server.output().contains("hunter2"), "{}", server.output());
    counts(&server, "path", 1).await?;
    counts(&server, "head", 1).await
}

#[tokio::test]
async fn a_bad_channel_name_is_refused_and_every_event_stays_one_line_of_the_log() -> Result<()> {
    let server = wire::serve("fanfare", &[("FANFARE__LOG__LEVEL", "debug")]).await?;
    let banner = server.output();
    let long = "x".repeat(256);
    for (name, status) in [
        ("%0d%0aINFO%20forged", 400),
        ("a%0Ab", 400),
        ("%1b[31mred", 400),
        ("%9b31m", 400),
        ("%c2%9b31m", 400),
        ("%00", 400),
        ("%7f", 400),
        ("{}", 400),
        ("%7B%7D", 400),
        ("*", 400),
        ("news*", 400),
        ("%20", 400),
        ("a%20b", 400),
        ("a%E2%80%A8b", 400),
        ("%ff", 400),
        ("%c3", 400),
        ("%ed%a0%80", 400),
        (&long, 400),
        (&long[1..], 101),
        ("gr%C3%B6%C3%9Fe", 101),
        ("a%2Fb", 101),
        ("a%2fb+c", 101),
        ("50%", 101),
        ("%zz", 101),
    ] {
        let response = answer(&server, Head::upgrade(format!("/raw/{name}")).bytes()).await?;
        assert_eq!(response.status, status, "{name}: {response:?}");
        assert!(!response.body.contains(|c: char| c.is_control() && c != '\n'), "{name}: {response:?}");
    }
    for name in [&b"\xff"[..], "größe".as_bytes(), b"a\x1bb", b"a\"b", b"a\\b", b"a\tb"] {
        let head = Head::upgrade([b"/raw/", name].concat());
        assert!([101, 400].contains(&answer(&server, head.bytes()).await?.status), "{name:?}");
    }
    wire::visit(server.address, "/raw/news").await?;
    server.line("connection closed").await?;
    let output = server.output();
    for line in output.lines().filter(|line| !banner.contains(line)) {
        let time = line.split(' ').next().unwrap_or_default();
        assert!(time.len() == 27 && time.ends_with('Z'), "a line that is no event: {line:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(!line.contains("forged"), "{line:?}");
    }
    Ok(())
}
