//! `ready`: asks a running node whether it is ready.
//!
//! Never prints and never exits: [`program`](crate::program) does.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::config::Config;

/// Time that [`ask`] waits for the whole answer.
const READY_TIME: Duration = Duration::from_secs(2);
/// Bytes of an answer that [`ask`] reads at most.
const READY_ANSWER: usize = 4096;

/// Why a node does not count as ready.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// There is no connection to it, or it broke.
    #[error("cannot ask {asked}: {why}")]
    Unreachable {
        /// What was asked.
        asked: String,
        /// Why.
        why: io::Error,
    },
    /// It took longer than two seconds.
    #[error("no answer from {asked} within {} s", READY_TIME.as_secs())]
    Silent {
        /// What was asked.
        asked: String,
    },
    /// Something else listens there.
    #[error("the answer from {asked} is not {spoken}")]
    Foreign {
        /// What was asked.
        asked: String,
        /// What a node would have spoken.
        spoken: &'static str,
    },
    /// It says that it is not.
    #[error("not ready: {asked} answers {answer}")]
    NotReady {
        /// What was asked.
        asked: String,
        /// The status line without the version and the first line of the body, or the agent's line.
        answer: String,
    },
    /// It can only be asked in ways that this command does not know.
    #[error("set `agent.listen`: with TLS or the PROXY protocol, `http.listen` cannot be asked")]
    NoAgent,
}

/// Asks the node of this configuration, on this machine: its agent if it has one, `/ready` if not. Takes two seconds at most.
///
/// Where it listens on all addresses, the loopback of the same family is asked.
///
/// # Errors
/// Fails for any answer but the good one, and for none.
pub fn ask(config: &Config) -> Result<(), ReadyError> {
    match config.agent.listen {
        Some(agent) => of_agent(agent),
        None if config.http.proxy_protocol || !config.tls.certificate.is_empty() => Err(ReadyError::NoAgent),
        None => of_page(config.http.listen),
    }
}

fn of_agent(listen: SocketAddr) -> Result<(), ReadyError> {
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    let asked = format!("the agent on {address}");
    let answer = answer(address, "", &asked)?;
    match answer.split([' ', '\n']).next() {
        Some("up") => Ok(()),
        Some("drain" | "down") => {
            let answer = answer.trim().replace(char::is_control, " ");
            Err(ReadyError::NotReady { asked, answer })
        }
        _ => Err(ReadyError::Foreign { asked, spoken: "an agent's" }),
    }
}

fn of_page(listen: SocketAddr) -> Result<(), ReadyError> {
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    let asked = format!("http://{address}/ready");
    let request = format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = answer(address, &request, &asked)?;
    let status = answer.lines().next().and_then(|line| line.strip_prefix("HTTP/1.")?.split_once(' '));
    let Some((_, status)) = status else {
        return Err(ReadyError::Foreign { asked, spoken: "HTTP" });
    };
    if status.split(' ').next() == Some("200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").and_then(|(_, body)| body.lines().next()).unwrap_or_default();
    let answer = [status.trim(), body.trim()].join(": ").trim_end_matches(": ").replace(char::is_control, " ");
    Err(ReadyError::NotReady { asked, answer })
}

/// An address at which this machine reaches a listener. `[::]` takes IPv4 as well, and a container may have no `::1`.
pub(crate) fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip }
}

fn answer(address: SocketAddr, request: &str, asked: &str) -> Result<String, ReadyError> {
    exchange(address, request, READY_TIME).map_err(|why| match why.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ReadyError::Silent { asked: asked.to_owned() },
        _ => ReadyError::Unreachable { asked: asked.to_owned(), why },
    })
}

/// Sends the request and reads what comes back until the node closes, or enough came.
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
    while answer.len() < READY_ANSWER && !is_yes(&answer) {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&part[..len]),
            // The process was stopped for a while.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether no more needs to be read.
fn is_yes(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 ") && answer.contains(&b'\n')
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::config::{Agent, Http, Tls};

    #[test]
    fn all_addresses_are_asked_on_the_loopback() {
        for (listen, asked) in [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("10.0.0.7", "10.0.0.7"), ("::2", "::2")]
        {
            assert_eq!(reachable(listen.parse().expect("an IP")).to_string(), asked);
        }
    }

    /// The configuration of a node that listens there.
    fn on(listen: SocketAddr) -> Config {
        Config { http: Http { listen, ..Http::default() }, ..Config::default() }
    }

    /// Answers one request with `answer`, keeps the connection open until the client leaves, and returns the request.
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
        let request = node.join().expect("it was asked");
        assert_eq!(request, format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn any_other_answer_is_told() {
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
            node.join().expect("it was asked");
        }
    }

    #[test]
    fn the_agent_is_asked_where_there_is_one() {
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
            agent.join().expect("it was asked");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_told_with_the_remedy() {
        let tls = Tls { certificate: "a.pem".into(), key: "a.key".into() };
        let proxied = Http { proxy_protocol: true, ..Http::default() };
        for config in [Config { tls, ..Config::default() }, Config { http: proxied, ..Config::default() }] {
            let error = ask(&config).expect_err("there is no agent").to_string();
            assert!(error.contains("set `agent.listen`"), "{error}");
        }
    }

    #[test]
    fn no_node_and_a_silent_one_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let error = ask(&on(address)).expect_err("nobody answers").to_string();
        assert_eq!(error, format!("no answer from http://{address}/ready within 2 s"));
        drop(listener);
        let error = ask(&on(address)).expect_err("nobody listens").to_string();
        assert_eq!(error, format!("cannot ask http://{address}/ready: Connection refused (os error 111)"));
    }
}
