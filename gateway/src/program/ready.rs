//! `ready`: asks a running node whether it is ready.
//!
//! Never prints and never exits: [`program`](crate::program) does.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::config::Config;

/// The deadline of [`ask`] for the whole answer.
const READY_TIME: Duration = Duration::from_secs(2);
/// The most bytes of an answer that [`ask`] reads.
const READY_ANSWER: usize = 4096;

/// Why a node is not ready, or cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// The connection to the node failed.
    #[error("cannot ask {target}: {why}")]
    Unreachable {
        /// The address that was asked.
        target: String,
        /// What failed.
        why: io::Error,
    },
    /// No answer within two seconds.
    #[error("no answer from {target} within {} s", READY_TIME.as_secs())]
    Silent {
        /// The address that was asked.
        target: String,
    },
    /// The answer is not from a node.
    #[error("the answer from {target} is not {expected}")]
    Foreign {
        /// The address that was asked.
        target: String,
        /// The kind of answer that a node gives.
        expected: &'static str,
    },
    /// The node answered that it is not ready.
    #[error("not ready: {target} answers {answer}")]
    NotReady {
        /// The address that was asked.
        target: String,
        /// The status line without the version and the first line of the body, or the agent's line.
        answer: String,
    },
    /// The node speaks TLS or the PROXY protocol, which this command does not, and it has no agent.
    #[error("set `agent.listen`: with TLS or the PROXY protocol, `http.listen` cannot be asked")]
    NoAgent,
}

/// Asks the node of this configuration, on this machine, whether it is ready. Asks its agent if it has one, otherwise
/// `/ready`. Takes at most two seconds. If the node listens on all addresses, asks it on 127.0.0.1.
///
/// # Errors
/// Fails unless the node answers in time that it is ready.
pub fn ask(config: &Config) -> Result<(), ReadyError> {
    match config.agent.listen {
        Some(agent) => ask_agent(agent),
        None if config.http.proxy_protocol || !config.tls.certificate.is_empty() => Err(ReadyError::NoAgent),
        None => ask_page(config.http.listen),
    }
}

fn ask_agent(listen: SocketAddr) -> Result<(), ReadyError> {
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    let target = format!("the agent on {address}");
    let answer = answer(address, "", &target)?;
    match answer.split([' ', '\n']).next() {
        Some("up") => Ok(()),
        Some("drain" | "down") => {
            let answer = answer.trim().replace(char::is_control, " ");
            Err(ReadyError::NotReady { target, answer })
        }
        _ => Err(ReadyError::Foreign { target, expected: "an agent's" }),
    }
}

fn ask_page(listen: SocketAddr) -> Result<(), ReadyError> {
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    let target = format!("http://{address}/ready");
    let request = format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = answer(address, &request, &target)?;
    let status = answer.lines().next().and_then(|line| line.strip_prefix("HTTP/1.")?.split_once(' '));
    let Some((_, status)) = status else {
        return Err(ReadyError::Foreign { target, expected: "HTTP" });
    };
    if status.split(' ').next() == Some("200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").and_then(|(_, body)| body.lines().next()).unwrap_or_default();
    let answer = [status.trim(), body.trim()].join(": ").trim_end_matches(": ").replace(char::is_control, " ");
    Err(ReadyError::NotReady { target, answer })
}

/// The address at which this machine reaches a listener on `ip`. For `0.0.0.0` and `[::]` this is 127.0.0.1: `[::]` accepts
/// IPv4 too, and a container may have no `::1`.
pub(crate) fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip }
}

fn answer(address: SocketAddr, request: &str, target: &str) -> Result<String, ReadyError> {
    exchange(address, request, READY_TIME).map_err(|why| match why.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ReadyError::Silent { target: target.to_owned() },
        _ => ReadyError::Unreachable { target: target.to_owned(), why },
    })
}

/// Sends the request and reads the answer until the node closes the connection or enough has arrived.
fn exchange(address: SocketAddr, request: &str, within: Duration) -> io::Result<String> {
    let deadline = Instant::now() + within;
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut part) = (Vec::new(), [0; 512]);
    while answer.len() < READY_ANSWER && !is_enough(&answer) {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&part[..len]),
            // A signal interrupted the read.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether the answer so far already says that the node is ready.
fn is_enough(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 ") && answer.contains(&b'\n')
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::config::{Agent, Http, Tls};

    #[test]
    fn a_node_on_all_addresses_is_asked_on_the_loopback() {
        for (listen, target) in
            [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("10.0.0.7", "10.0.0.7"), ("::2", "::2")]
        {
            assert_eq!(reachable(listen.parse().expect("an IP")).to_string(), target);
        }
    }

    /// The configuration of a node that listens on this address.
    fn on(listen: SocketAddr) -> Config {
        Config { http: Http { listen, ..Http::default() }, ..Config::default() }
    }

    /// A fake node that answers one request with `answer`, and then returns the request.
    fn node(answer: &'static str) -> (SocketAddr, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the test connects");
            let mut request = [0; 512];
            let len = stream.read(&mut request).expect("the test sends");
            stream.write_all(answer.as_bytes()).expect("the test reads");
            stream.shutdown(std::net::Shutdown::Write).expect("the test reads");
            String::from_utf8_lossy(&request[..len]).into_owned()
        });
        (address, thread)
    }

    #[test]
    fn a_node_is_ready_when_it_answers_200() {
        let (address, node) = node("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert!(ask(&on(unspecified)).is_ok());
        let request = node.join().expect("it got a request");
        assert_eq!(request, format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn any_other_answer_is_reported() {
        for (answer, message) in [
            (
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 14\r\n\r\nbroker is down\nsince 12:00",
                "not ready: http://ADDR/ready answers 503 Service Unavailable: broker is down",
            ),
            ("HTTP/1.1 404 Not Found\r\n\r\n", "not ready: http://ADDR/ready answers 404 Not Found"),
            ("HTTP/1.1 2000 \r\n\r\n\x1b[2J", "not ready: http://ADDR/ready answers 2000:  [2J"),
            ("SSH-2.0-OpenSSH_9.9\r\n", "the answer from http://ADDR/ready is not HTTP"),
            ("", "the answer from http://ADDR/ready is not HTTP"),
        ] {
            let (address, node) = node(answer);
            let error = ask(&on(address)).expect_err("not ready").to_string();
            assert_eq!(error, message.replace("ADDR", &address.to_string()));
            node.join().expect("it got a request");
        }
    }

    #[test]
    fn the_agent_is_asked_if_there_is_one() {
        for (answer, message) in [
            ("up ready\n", None),
            ("drain\n", Some("not ready: the agent on ADDR answers drain")),
            ("down #no broker\n", Some("not ready: the agent on ADDR answers down #no broker")),
            ("HTTP/1.1 400 Bad Request\r\n\r\n", Some("the answer from the agent on ADDR is not an agent's")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            let agent = thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("the test connects");
                stream.write_all(answer.as_bytes()).expect("the test reads");
            });
            let config = Config { agent: Agent { listen: Some(address) }, ..Config::default() };
            let error = ask(&config).err().map(|error| error.to_string());
            assert_eq!(error, message.map(|message| message.replace("ADDR", &address.to_string())));
            agent.join().expect("it got a connection");
        }
    }

    #[test]
    fn a_node_that_cannot_be_asked_needs_an_agent() {
        let tls = Tls { certificate: "a.pem".into(), key: "a.key".into() };
        let proxied = Http { proxy_protocol: true, ..Http::default() };
        for config in [Config { tls, ..Config::default() }, Config { http: proxied, ..Config::default() }] {
            let error = ask(&config).expect_err("there is no agent").to_string();
            assert!(error.contains("set `agent.listen`"), "{error}");
        }
    }

    #[test]
    fn a_silent_node_and_a_missing_node_have_different_errors() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let error = ask(&on(address)).expect_err("no answer").to_string();
        assert_eq!(error, format!("no answer from http://{address}/ready within 2 s"));
        drop(listener);
        let error = ask(&on(address)).expect_err("no listener").to_string();
        assert_eq!(error, format!("cannot ask http://{address}/ready: Connection refused (os error 111)"));
    }
}
