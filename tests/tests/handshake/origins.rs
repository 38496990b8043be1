//! Which pages may connect, and to which names of the node.

use anyhow::{Result, ensure};
use tests::tokens::OPEN;
use tests::wire::{self, Head};

use crate::{answer, answer_at, counts};

#[tokio::test]
async fn pages_of_other_origins_are_kept_out() -> Result<()> {
    let listed = [("FANFARE__HTTP__ORIGINS", "https://listed.org,https://*.wide.org,http://ported.org:8000")];
    let server = wire::serve("fanfare", &listed).await?;
    for (origin, host, status) in [
        ("http://localhost:8080", "localhost:8080", 101),
        ("https://localhost", "localhost", 101),
        ("https://LISTED.org", "localhost", 101),
        ("https://listed.org:443", "localhost", 101),
        ("https://a.wide.org", "localhost", 101),
        ("http://ported.org:8000", "localhost", 101),
        ("https://foreign.org", "localhost", 403),
        ("null", "localhost", 403),
        ("", "localhost", 403),
        ("file://", "localhost", 403),
        ("*", "localhost", 403),
        ("listed.org", "localhost", 403),
        ("http://listed.org", "localhost", 403),
        ("https://listed.org:444", "localhost", 403),
        ("https://listed.org.evil.org", "localhost", 403),
        ("https://evil-listed.org", "localhost", 403),
        ("https://listed.org@evil.org", "localhost", 403),
        ("https://evil.org#listed.org", "localhost", 403),
        ("https://listed.org/", "localhost", 403),
        ("https://listed.org evil.org", "localhost", 403),
        ("https://wide.org", "localhost", 403),
        ("https://evilwide.org", "localhost", 403),
        ("http://localhost:8081", "localhost:8080", 101),
        ("http://127.0.0.1:5173", "localhost:8080", 101),
        ("http://[::1]:5173", "127.0.0.1:8080", 101),
        ("http://localhost:8081", "192.0.2.7:8080", 403),
        ("http://evil.example:8080", "evil.example:8080", 421),
        ("http://listed.org", "listed.org", 101),
        ("http://localhost.evil.org", "localhost", 403),
        ("https://lísted.org", "localhost", 403),
    ] {
        for path in ["/ws", "/raw/news"] {
            let head = Head::upgrade(path).set("Host", host).with("Origin", origin);
            let response = answer(&server, head.bytes()).await?;
            assert_eq!(response.status, status, "{path}: {origin} at {host}");
        }
    }
    let two = Head::upgrade("/ws").with("Origin", "https://listed.org").with("Origin", "https://listed.org");
    assert_eq!(answer(&server, two.bytes()).await?.status, 403, "two origins");
    Ok(())
}

#[tokio::test]
async fn a_refused_origin_is_answered_logged_and_counted_with_the_line_that_allows_it() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    for origin in ["http://app.example:5173", "null", "file://"] {
        let head = |path: &str| Head::upgrade(path).with("Origin", origin);
        let response = answer(&server, head("/ws?token=hunter2").bytes()).await?;
        let line = format!("http.origins = [\"{origin}\"]");
        ensure!(response.status == 403 && response.body.contains(&line), "{response:?}");
        ensure!(!response.body.contains("https://") && response.body.contains("fanfare probe"), "{response:?}");

        let allowing = wire::serve("fanfare", &[("FANFARE__HTTP__ORIGINS", origin)]).await?;
        ensure!(answer(&allowing, head("/ws").bytes()).await?.status == 101, "the line does not help {origin}");
    }
    let line = server.line("requests refused").await?;
    for word in ["WARN", "peer=127.0.0.1:", "path=/ws ", "http.origins = [\"http://app.example:5173\"]", "times=1"] {
        ensure!(line.contains(word), "{word} is not in {line}");
    }
    for origin in [&b"https://\xff\x9b31m.example"[..], &[b'x'; 8_000], b"a\tb", b"\"", b"https://a.example/\"]"] {
        let response = answer(&server, Head::upgrade("/ws").with("Origin", origin).bytes()).await?;
        ensure!(response.status == 403 && response.body.len() < 500, "{response:?}");
        ensure!(response.body.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{response:?}");
    }
    ensure!(server.output().matches("requests refused").count() < 8, "a line for each: {}", server.output());
    ensure!(!server.output().contains("hunter2"), "a query is nothing for a log: {}", server.output());
    counts(&server, "origin", 8).await
}

#[tokio::test]
async fn a_name_that_the_node_does_not_have_is_refused_to_pages_with_the_line_that_adds_it() -> Result<()> {
    const NAME: &str = "evil.example";
    let server = wire::serve("fanfare", &[]).await?;
    let socket = |name: &str| Head::upgrade("/ws").set("Host", name).with("Origin", format!("http://{name}"));
    let page = |path: &str| Head::get(path).set("Host", NAME);
    for (what, head, status) in [
        ("a socket of its page", socket(NAME), 421),
        ("with a port", socket("evil.example:8080"), 421),
        ("a page", page("/"), 421),
        ("the metrics", page("/metrics"), 421),
        ("an absolute target", Head::get("/").line("GET http://evil.example/ HTTP/1.1"), 421),
        ("no page's socket", Head::upgrade("/ws").set("Host", NAME), 101),
        (
            "a page that came over TLS",
            Head::upgrade("/ws").set("Host", NAME).with("Origin", "https://evil.example"),
            101,
        ),
        ("a health check", page("/ready"), 200),
        ("another", page("/live"), 200),
        ("an address", socket("192.0.2.7:8080"), 101),
        ("its page", Head::get("/").set("Host", "192.0.2.7:8080"), 200),
        ("a forged word", page("/").with("X-Forwarded-Host", "localhost").with("X-Forwarded-Proto", "https"), 421),
        ("a neighbour's name", Head::get("/").set("Host", "printer.local"), 421),
    ] {
        let response = answer(&server, head.bytes()).await?;
        ensure!(response.status == status, "{what}: {response:?}");
        ensure!(status != 421 || response.body.contains(".hosts = [\""), "{what}: {response:?}");
    }
    let line = server.line("requests refused").await?;
    ensure!(line.contains("WARN") && line.contains("http.hosts = [\"evil.example\"]"), "{line}");
    counts(&server, "host", 7).await?;

    for named in [("FANFARE__HTTP__HOSTS", NAME), ("FANFARE__HTTP__ORIGINS", "http://evil.example")] {
        let server = wire::serve("fanfare", &[named]).await?;
        for (head, status) in [(socket(NAME), 101), (page("/"), 200)] {
            ensure!(answer(&server, head.bytes()).await?.status == status, "{named:?}");
        }
    }
    // Where neighbours can reach it anyway, names that no stranger can register are as good as addresses.
    let open = wire::serve("fanfare", &[("FANFARE__HTTP__LISTEN", "0.0.0.0:0"), OPEN]).await?;
    for (name, status) in [("node-1:8080", 101), ("fanfare.default.svc.cluster.local", 101), (NAME, 421)] {
        ensure!(answer_at(open.address.port(), socket(name).bytes()).await?.status == status, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_trusted_proxy_s_word_for_host_and_scheme_counts() -> Result<()> {
    let proxied = [("FANFARE__HTTP__TRUSTED_PROXIES", "127.0.0.1"), ("FANFARE__HTTP__HOSTS", "public.example")];
    let server = wire::serve("fanfare", &proxied).await?;
    let page = |host: &str| Head::get("/").set("Host", host);
    let socket = |origin: &str| Head::upgrade("/ws").set("Host", "upstream").with("Origin", origin);
    for (what, head, status) in [
        ("its own name for the node", page("upstream.example"), 421),
        ("the client's", page("upstream.example").with("X-Forwarded-Host", "public.example"), 200),
        ("the nearest one's", page("upstream.example").with("X-Forwarded-Host", "evil.example, public.example"), 200),
        ("over TLS", page("any.example").with("X-Forwarded-Proto", "HTTPS"), 200),
        (
            "a page of the client's host",
            socket("http://public.example").with("X-Forwarded-Host", "public.example"),
            101,
        ),
        ("a page of another", socket("http://evil.example").with("X-Forwarded-Host", "public.example"), 403),
        ("a stranger's page", socket("http://evil.example").with("X-Forwarded-Host", "evil.example"), 421),
    ] {
        let response = answer(&server, head.bytes()).await?;
        ensure!(response.status == status, "{what}: {response:?}");
    }
    Ok(())
}
