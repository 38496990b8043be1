//! The words of the command line.
//!
//! Never prints and never exits: [`program`](crate::program) does.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::Overrides;
use crate::{capacity, probe};

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
    /// Ask the running node whether it is ready; see [`ready::ask`](super::ready::ask).
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
