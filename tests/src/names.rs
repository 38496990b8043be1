//! A name server of the tests' own, whose answers can change while others ask.
//!
//! Knows IPv4 addresses only; a name that it does not have does not exist. Its answers may be kept for 10 minutes, as
//! those of Docker's.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const TTL: u32 = 600;
/// Bytes of a message before its question.
const HEADER: usize = 12;
/// The type of question that asks for an IPv4 address.
const A: [u8; 2] = [0, 1];

type Known = Arc<Mutex<HashMap<String, Ipv4Addr>>>;

/// A running name server.
#[derive(Debug)]
pub struct Names {
    /// Where it is asked, over UDP.
    pub address: SocketAddr,
    known: Known,
    task: JoinHandle<()>,
}

impl Names {
    /// One that knows no name yet.
    pub async fn start() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, known) = (socket.local_addr()?, Known::default());
        let task = tokio::spawn(serve(socket, Arc::clone(&known)));
        Ok(Self { address, known, task })
    }

    /// From now on the name has this address.
    pub fn set(&self, name: &str, address: Ipv4Addr) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), address);
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, known: Known) {
    let mut query = [0; 512];
    while let Ok((size, asker)) = socket.recv_from(&mut query).await {
        let answer =
            answer(&query[..size], |name| known.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied());
        if let Some(answer) = answer {
            // The client asks again.
            let _ = socket.send_to(&answer, asker).await;
        }
    }
}

/// The answer to a query with one question (RFC 1035 §4); `None` if it is no query.
fn answer(query: &[u8], find: impl Fn(&str) -> Option<Ipv4Addr>) -> Option<Vec<u8>> {
    let (mut name, mut end) = (Vec::new(), HEADER);
    loop {
        let size = usize::from(*query.get(end)?);
        let label = query.get(end + 1..end + 1 + size)?;
        end += 1 + size;
        if size == 0 {
            break;
        }
        name.push(std::str::from_utf8(label).ok()?);
    }
    let address = find(&name.join("."));
    let question = query.get(HEADER..end + 4)?;
    let records = address.filter(|_| question[question.len() - 4..].starts_with(&A));
    // A response, recursion desired and available; 3 is "no such name".
    let code = if address.is_none() { 3 } else { 0 };
    let mut bytes = [&query[..2], &[0x81, 0x80 | code, 0, 1, 0, u8::from(records.is_some()), 0, 0, 0, 0]].concat();
    bytes.extend(question);
    if let Some(address) = records {
        // The question's name, type A, class IN.
        bytes.extend([0xC0, HEADER as u8, 0, 1, 0, 1]);
        bytes.extend(TTL.to_be_bytes());
        bytes.extend([0, 4]);
        bytes.extend(address.octets());
    }
    Some(bytes)
}
