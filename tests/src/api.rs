//! The HTTP API of a node, as a backend uses it: one connection for each request, and every answer as it came.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::http::{self, Answer};
use crate::program::Program;

/// The secret of [`BACKEND`]. A test looks for it in what programs print.
pub const SECRET: &str = "canary-api-secret-0123456789-0123456789";

/// A key that may do everything, on a node with [`keys`].
pub const BACKEND: &str = "backend.canary-api-secret-0123456789-0123456789";

/// The variable that gives a node some keys, and its value. Each is an id, rights and channels as in the configuration; all
/// have [`SECRET`].
#[must_use]
pub fn keys(keys: &[(&str, &str, &str)]) -> (&'static str, String) {
    let table = |(id, can, channels): &(&str, &str, &str)| {
        format!("{{ id = \"{id}\", secret = \"{SECRET}\", can = {can}, channels = {channels} }}")
    };
    ("FANFARE__API__KEYS", format!("[{}]", keys.iter().map(table).collect::<Vec<_>>().join(", ")))
}

/// The variable that gives a node [`BACKEND`], and its value.
#[must_use]
pub fn backend() -> (&'static str, String) {
    keys(&[("backend", "[\"publish\", \"read\", \"admin\"]", "[\"*\"]")])
}

/// The API of one node, with one key.
#[derive(Debug, Clone)]
pub struct Api {
    /// Where it listens.
    pub address: SocketAddr,
    /// The key, as it is sent.
    pub key: String,
}

impl Api {
    /// The API of a program that says where it is, with [`BACKEND`].
    pub async fn of(program: &Program) -> Result<Self> {
        let line = program.line("API on http://").await?;
        let address = line.split("://").nth(1).and_then(|rest| rest.split('/').next()).context("no address")?;
        Ok(Self { address: address.parse()?, key: BACKEND.to_owned() })
    }

    /// The same with another key.
    #[must_use]
    pub fn with(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// A request as bytes, with these headers besides its key.
    #[must_use]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        let own = [("Host", self.address.to_string()), ("Authorization", format!("Bearer {}", self.key))];
        let given = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let own = own.iter().filter(|(name, _)| !given(name)).map(|(name, value)| (*name, value.as_str()));
        for (name, value) in own.chain(headers.iter().copied()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        [head.as_bytes(), b"\r\n", body].concat()
    }

    /// Sends a request with these headers besides its key, and gives the answer.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
        let request = self.request(method, path, headers, body);
        http::exchange(&mut TcpStream::connect(self.address).await?, &request).await
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        self.post_with(path, &[], body).await
    }

    /// Posts JSON with more headers.
    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<(u16, Value)> {
        let headers = [&[("Content-Type", "application/json")], headers].concat();
        document(&self.send("POST", path, &headers, body.to_string().as_bytes()).await?)
    }

    /// Asks for a document.
    pub async fn get(&self, path: &str) -> Result<(u16, Value)> {
        document(&self.send("GET", path, &[], b"").await?)
    }
}

/// The status and the document of an answer.
pub fn document(answer: &Answer) -> Result<(u16, Value)> {
    let body = serde_json::from_str(&answer.body);
    Ok((answer.status, body.with_context(|| format!("{}{}", answer.head, answer.body))?))
}
