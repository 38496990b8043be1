//! The words of the command line, and `ready`, which asks a running node.
//!
//! Never prints and never exits: [`program`](crate::program) does.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Config, Overrides};
use crate::{capacity, probe};

/// Time that [`ready`] waits for the whole answer.
const READY_TIME: Duration = Duration::from_secs(2);
/// Bytes of an answer that [`ready`] reads at most.
const READY_ANSWER: usize = 4096;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run the node until it is told to stop.
    Serve {
        /// The configuration file.
        file: Option<PathBuf>,
        /// What flags set.
        overrides: Overrides,
    },
    /// Say whether the configuration is valid.
    Check {
        /// The configuration file.
        file: Option<PathBuf>,
    },
    /// Ask the running node whether it is ready; see [`ready`].
    Ready {
        /// The configuration file.
        file: Option<PathBuf>,
        /// What flags set.
        overrides: Overrides,
    },
    /// Look at a WebSocket from outside; see [`probe::run`].
    Probe(Box<probe::Options>),
    /// Say what so many connections take; see [`capacity::report`].
    Capacity(capacity::Options),
}

/// What a program is called at its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    name: String,
    version: &'static str,
}

impl Name {
    /// What the program calls itself, or else the name of its file, which is the first of the `arguments`.
    #[must_use]
    pub fn new(own: Option<(&str, &'static str)>, arguments: &[OsString]) -> Self {
        const BUILT_ON: &str = concat!("(built on Fanfare ", env!("CARGO_PKG_VERSION"), ")");
        if let Some((name, version)) = own {
            return Self { name: name.to_owned(), version };
        }
        let file = arguments.first().and_then(|file| Path::new(file).file_name()).unwrap_or(OsStr::new("app"));
        Self { name: file.to_string_lossy().into_owned(), version: BUILT_ON }
    }
}

/// Serves WebSockets on any number of nodes: a message sent to one reaches the subscribers of all.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Line {
    #[command(subcommand)]
    word: Option<Word>,
    #[command(flatten)]
    serve: ServeFlags,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// Run the node; the same as no command.
    Serve(ServeFlags),
    /// Say whether the configuration is valid; exit with 1 if not.
    Check(FileFlag),
    /// Ask the node on the configured address whether it is ready; exit with 1 if not.
    Ready {
        #[command(flatten)]
        file: FileFlag,
        #[command(flatten)]
        listen: ListenFlag,
    },
    /// Look at a WebSocket from outside, step by step; exit with 1 if something is wrong.
    #[command(after_help = probe::EXIT)]
    Probe(Box<probe::Options>),
    /// Say what a number of connections takes, and whether this machine allows it.
    Capacity(capacity::Options),
}

#[derive(Debug, Args)]
struct FileFlag {
    /// Configuration file (TOML); FANFARE__SECTION__KEY variables win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ListenFlag {
    /// IP address and port of the node; wins over http.listen [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

#[derive(Debug, Args)]
struct ServeFlags {
    #[command(flatten)]
    file: FileFlag,
    #[command(flatten)]
    listen: ListenFlag,
    /// Broker's URL, such as redis://host; wins over broker.url [default: memory:].
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Node's name, unlike any other's; wins over node.name [default: <hostname>-<process id>].
    #[arg(long, value_name = "NODE")]
    name: Option<String>,
}

/// Reads the command line of a program with this name; `arguments` begin with that of its file.
///
/// # Errors
/// Fails for what it does not know, and for `--help` and `--version`: `clap::Error::exit` prints what to print and
/// exits as it should.
pub fn parse(name: &Name, arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let command = Line::command().version(name.version).display_name(&name.name).bin_name(&name.name);
    let line = Line::from_arg_matches(&command.try_get_matches_from(arguments)?)?;
    Ok(match line.word {
        None => serve(line.serve),
        Some(Word::Serve(flags)) => serve(flags),
        Some(Word::Check(file)) => Command::Check { file: file.config },
        Some(Word::Ready { file, listen }) => {
            Command::Ready { file: file.config, overrides: Overrides { listen: listen.listen, ..Overrides::default() } }
        }
        Some(Word::Probe(options)) => Command::Probe(options),
        Some(Word::Capacity(options)) => Command::Capacity(options),
    })
}

fn serve(ServeFlags { file, listen, broker, name }: ServeFlags) -> Command {
    Command::Serve { file: file.config, overrides: Overrides { listen: listen.listen, broker, name } }
}

/// The process's environment, for [`load`](crate::config::load); what is not UTF-8 in it is replaced.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

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
pub fn ready(config: &Config) -> Result<(), ReadyError> {
    match config.agent.listen {
        Some(agent) => ask_agent(agent),
        None if config.http.proxy_protocol || !config.tls.certificate.is_empty() => Err(ReadyError::NoAgent),
        None => ask_page(config.http.listen),
    }
}

fn ask_agent(listen: SocketAddr) -> Result<(), ReadyError> {
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    let asked = format!("the agent on {address}");
    let answer = ask(address, "", &asked)?;
    match answer.split([' ', '\n']).next() {
        Some("up") => Ok(()),
        Some("drain" | "down") => {
            let answer = answer.trim().replace(char::is_control, " ");
            Err(ReadyError::NotReady { asked, answer })
        }
        _ => Err(ReadyError::Foreign { asked, spoken: "an agent's" }),
    }
}

fn ask_page(listen: SocketAddr) -> Result<(), ReadyError> {
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    let asked = format!("http://{address}/ready");
    let request = format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = ask(address, &request, &asked)?;
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

fn ask(address: SocketAddr, request: &str, asked: &str) -> Result<String, ReadyError> {
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
    use std::{net::TcpListener, thread};

    use super::*;
    use crate::config::{Agent, Http, Tls};

    fn parsed(line: &str) -> Result<Command, String> {
        let arguments = line.split(' ').map(OsString::from);
        parse(&Name::new(Some(("fanfare", env!("CARGO_PKG_VERSION"))), &[]), arguments)
            .map_err(|error| error.to_string())
    }

    fn overrides(listen: &str, broker: &str, name: &str) -> Overrides {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Overrides { listen: given(listen), broker: given(broker), name: given(name) }
    }

    #[test]
    fn serve_is_what_is_meant_when_nothing_is_said() {
        let all = overrides("0.0.0.0:80", "redis://h", "n");
        let config = || Some(PathBuf::from("f.toml"));
        for (line, command) in [
            ("fanfare", Command::Serve { file: None, overrides: Overrides::default() }),
            ("fanfare serve", Command::Serve { file: None, overrides: Overrides::default() }),
            ("fanfare --config f.toml", Command::Serve { file: config(), overrides: Overrides::default() }),
            (
                "fanfare --config f.toml --listen 0.0.0.0:80 --broker redis://h --name n",
                Command::Serve { file: config(), overrides: all.clone() },
            ),
            (
                "fanfare serve --listen=0.0.0.0:80 --broker=redis://h --name=n --config=f.toml",
                Command::Serve { file: config(), overrides: all },
            ),
            ("fanfare check", Command::Check { file: None }),
            ("fanfare check --config f.toml", Command::Check { file: config() }),
            (
                "fanfare ready --config f.toml --listen :80",
                Command::Ready { file: config(), overrides: overrides(":80", "", "") },
            ),
        ] {
            assert_eq!(parsed(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn a_misspelt_word_or_flag_is_told_with_the_nearest() {
        for (line, message) in [
            ("fanfare serv", "a similar subcommand exists: 'serve'"),
            ("fanfare --lisen x", "a similar argument exists: '--listen'"),
            ("fanfare check --confg x", "a similar argument exists: '--config'"),
            ("fanfare --listen", "a value is required for '--listen <ADDR>'"),
        ] {
            let text = parsed(line).expect_err("misspelt");
            assert!(text.contains(message), "{line}: {text}");
        }
    }

    #[test]
    fn version_and_help_are_answered() {
        assert_eq!(parsed("fanfare --version"), Err(format!("fanfare {}\n", env!("CARGO_PKG_VERSION"))));
        let help = parsed("fanfare --help").expect_err("help is no command");
        for word in ["serve", "check", "ready", "--config <FILE>", "--listen <ADDR>", "--broker <URL>", "--name <NODE>"]
        {
            assert!(help.contains(word), "{word} in {help}");
        }
    }

    #[test]
    fn an_app_has_its_own_name_and_version_or_the_name_of_its_file() {
        let arguments: Vec<_> = ["/usr/bin/chat", "--version"].map(OsString::from).into();
        for (own, version) in [
            (None, format!("chat (built on Fanfare {})\n", env!("CARGO_PKG_VERSION"))),
            (Some(("parley", "2.1.0")), "parley 2.1.0\n".to_owned()),
        ] {
            let name = Name::new(own, &arguments);
            let told = parse(&name, arguments.clone()).expect_err("a version is no command").to_string();
            assert_eq!(told, version);
            let help =
                parse(&name, ["chat", "--help"].map(OsString::from)).expect_err("help is no command").to_string();
            assert!(help.contains(&format!("Usage: {}", name.name)) && !help.contains("fanfare"), "{help}");
            let wrong = parse(&name, ["chat", "--lisen"].map(OsString::from)).expect_err("misspelt").to_string();
            assert!(wrong.contains(&format!("Usage: {}", name.name)), "{wrong}");
        }
    }

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
        assert!(ready(&on(unspecified)).is_ok());
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
            let error = ready(&on(address)).expect_err("not ready").to_string();
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
            let error = ready(&config).err().map(|error| error.to_string());
            assert_eq!(error, message.map(|message| message.replace("ADDR", &address.to_string())));
            agent.join().expect("it was asked");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_told_with_the_remedy() {
        let tls = Tls { certificate: "a.pem".into(), key: "a.key".into() };
        let proxied = Http { proxy_protocol: true, ..Http::default() };
        for config in [Config { tls, ..Config::default() }, Config { http: proxied, ..Config::default() }] {
            let error = ready(&config).expect_err("there is no agent").to_string();
            assert!(error.contains("set `agent.listen`"), "{error}");
        }
    }

    #[test]
    fn no_node_and_a_silent_one_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let error = ready(&on(address)).expect_err("nobody answers").to_string();
        assert_eq!(error, format!("no answer from http://{address}/ready within 2 s"));
        drop(listener);
        let error = ready(&on(address)).expect_err("nobody listens").to_string();
        assert_eq!(error, format!("cannot ask http://{address}/ready: Connection refused (os error 111)"));
    }
}
