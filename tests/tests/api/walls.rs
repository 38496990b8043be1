//! The balancers of `deploy/` never route to the API, also if a caller has a valid key.

use std::path::Path;

use anyhow::Result;
use tests::api::BACKEND;
use tests::certificate::Certificate;
use tests::door::Door;
use tests::nginx::{Nginx, Site};
use tests::{Broker, Cluster, http};

/// Paths that only the API has.
const PATHS: [&str; 4] = ["/v1/me", "/v1/publish", "/v1/channels/news/history", "/v1/openapi.json"];

#[tokio::test]
async fn the_shipped_balancers_do_not_route_to_the_api() -> Result<()> {
    let mut cluster = Cluster::of(2).shared(Broker::Redis).haproxy().apis().start().await?;
    assert_eq!(cluster.api(1)?.get("/v1/me").await?.0, 200, "the API itself answers");
    let address = cluster.balancer().gateway().to_string();
    for path in PATHS {
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {BACKEND}\r\n\r\n");
        let answer = http::ask(&mut tokio::net::TcpStream::connect(&address).await?, &request).await?;
        assert_eq!(answer.status, 404, "HAProxy, {path}: {} {}", answer.head, answer.body);
    }
    let (web, certificate) = (Nginx::web().await?, Certificate::make("site").await?);
    let (names, page) = ([1, 2].map(|node| cluster.node_address(node).to_string()), web.http().to_string());
    let site = Site { nodes: [&names[0], &names[1]], web: &page };
    let nginx = Nginx::balancer(site, &certificate, None).await?;
    let door = Door::secure(nginx.https(), &certificate)?.called("localhost");
    for path in PATHS {
        let answer = door.ask(path, &[&format!("Authorization: Bearer {BACKEND}")]).await?;
        assert!(answer.body.contains("an ordinary page"), "nginx, {path}: {} {}", answer.head, answer.body);
    }
    cluster.well();
    Ok(())
}

#[test]
fn no_file_for_deployments_names_the_port_of_the_api() -> Result<()> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir()? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != "fanfare.toml") {
                let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
                assert!(!text.contains("9080") && !text.contains("FANFARE__API"), "{}", path.display());
                read += 1;
            }
        }
    }
    assert!(read >= 5, "the files of deploy/ are read");
    Ok(())
}
