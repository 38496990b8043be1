//! The JavaScript client as every node serves it.

use anyhow::{Context, Result};
use tests::http::{self, Answer};
use tests::{Program, wire};
use tokio::net::TcpStream;

async fn ask(node: &Program, method: &str, path: &str, headers: &str) -> Result<Answer> {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", node.address);
    http::ask(&mut TcpStream::connect(node.address).await?, &request).await
}

#[tokio::test]
async fn a_node_serves_the_client_that_the_repository_has() -> Result<()> {
    let node = wire::serve("fanfare", &[]).await?;
    let javascript = "text/javascript; charset=utf-8";
    let files = [
        ("fanfare.js", javascript),
        ("fanfare-members.js", javascript),
        ("fanfare-share.js", javascript),
        ("fanfare.d.ts", "text/plain; charset=utf-8"),
    ];
    for (name, kind) in files {
        let answer = ask(&node, "GET", &format!("/{name}"), "Origin: https://other.example\r\n").await?;
        let text = std::fs::read_to_string(format!("{}/../clients/js/{name}", env!("CARGO_MANIFEST_DIR")))?;
        assert_eq!(answer.status, 200, "{name}");
        assert!(answer.body == text, "{name}: run `npm run build` in clients/js, then build the node");
        assert_eq!(answer.header("content-type"), Some(kind));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "a page of another site may import it");
    }
    Ok(())
}

#[tokio::test]
async fn a_browser_that_has_the_client_gets_304() -> Result<()> {
    let (one, two) = (wire::serve("fanfare", &[]).await?, wire::serve("fanfare", &[]).await?);
    let first = ask(&one, "GET", "/fanfare.js", "").await?;
    let tag = first.header("etag").context("no ETag")?.to_owned();
    for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
        let answer = ask(&two, "GET", "/fanfare.js", &format!("If-None-Match: {known}\r\n")).await?;
        assert_eq!((answer.status, answer.body.as_str()), (304, ""), "{known}");
        assert_eq!(answer.header("etag"), Some(tag.as_str()));
    }
    assert_eq!(ask(&two, "GET", "/fanfare.js", "If-None-Match: \"other\"\r\n").await?.status, 200);
    assert_ne!(ask(&two, "GET", "/fanfare-share.js", "").await?.header("etag"), Some(tag.as_str()));
    Ok(())
}
