//! The commands and flags of the command line.
//!
//! Never prints and never exits: [`program`](crate::program) does.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use super::{explain, genkey, manual, publish, revoke, shed, subscribe, token, webhook_test};
use crate::config::Overrides;
use crate::{capacity, probe};

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run the node until a signal stops it.
    Serve {
        /// The configuration file.
        file: Option<PathBuf>,
        /// The settings from flags.
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
        /// The settings from flags.
        overrides: Overrides,
    },
    /// Print the messages of channels; see [`subscribe`].
    Subscribe(Box<subscribe::Options>),
    /// Publish messages; see [`publish`].
    Publish(Box<publish::Options>),
    /// Explain what a client may do.
    Explain(explain::Options),
    /// Test a WebSocket from outside; see [`probe::run`].
    Probe(Box<probe::Options>),
    /// Compute the resources for a number of connections; see [`capacity::report`].
    Capacity(capacity::Options),
    /// End tokens before they expire; see [`revoke`].
    Revoke(revoke::Options),
    /// Move clients to emptier nodes; see [`shed`].
    Shed(shed::Options),
    /// Make a token; see [`token::make`].
    Token(Box<token::Options>),
    /// Make a key for tokens, for the HTTP API or for webhooks; see [`genkey::make`].
    Genkey(genkey::Options),
    /// Show, check or send a signed request of webhooks; see [`webhook_test`].
    WebhookTest(webhook_test::Options),
    /// Print this text: completions for a shell, or the man pages.
    Print(String),
}

/// The name and version of a program, for `--help`, `--version` and errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    name: String,
    version: &'static str,
}

impl Name {
    /// The program's own name and version if it has set them. Otherwise the name of its file, from the first of `arguments`.
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
struct CommandLine {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    serve: ServeFlags,
}

#[derive(Debug, Subcommand)]
enum Verb {
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
    /// Print the messages of channels as they come; after a cut, go on from the last one.
    #[command(after_help = subscribe::EXIT)]
    Subscribe(Box<subscribe::Options>),
    /// Publish a message, or each line of stdin.
    #[command(after_help = publish::EXIT)]
    Publish(Box<publish::Options>),
    /// Explain which rule decides what a client may do on a channel.
    #[command(after_help = explain::EXIT)]
    Explain(explain::Options),
    /// Test a WebSocket from outside, step by step; exit with 1 if a step fails.
    #[command(after_help = probe::EXIT)]
    Probe(Box<probe::Options>),
    /// Compute the resources for a number of connections, and check this machine's limits.
    Capacity(capacity::Options),
    /// End tokens before they expire: every node closes their connections with 4401.
    Revoke(revoke::Options),
    /// Move clients from the fullest nodes to the others, such as after a node was added.
    #[command(after_help = shed::EXIT)]
    Shed(shed::Options),
    /// Make a token for a user, signed with a secret or a private key.
    Token(Box<token::Options>),
    /// Make a key for tokens (a secret or a key pair), for the HTTP API or for webhooks, with the lines for the configuration.
    Genkey(genkey::Options),
    /// Show a signed request of webhooks, check one, or send one to your backend; exit with 1 if it is not genuine or not accepted.
    WebhookTest(webhook_test::Options),
    /// Print completions for a shell.
    #[command(after_help = manual::COMPLETIONS)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the man page of the program or of a command.
    #[command(after_help = manual::MAN)]
    Man {
        /// The command [default: the program].
        command: Option<String>,
    },
}

#[derive(Debug, Args)]
struct FileFlag {
    /// Configuration file (TOML); variables FANFARE__SECTION__KEY override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ListenFlag {
    /// IP address and port of the node; overrides http.listen [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

#[derive(Debug, Args)]
struct ServeFlags {
    #[command(flatten)]
    file: FileFlag,
    #[command(flatten)]
    listen: ListenFlag,
    /// URL of the broker, such as redis://host; overrides broker.url [default: memory:].
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Name of the node, unique in the cluster; overrides node.name [default: <hostname>-<process id>].
    #[arg(long, value_name = "NODE")]
    name: Option<String>,
}

/// Parses the command line of the program `name`. The first of `arguments` is the name of its file.
///
/// # Errors
/// Fails for unknown arguments, and for `--help` and `--version`. `clap::Error::exit` prints the text and exits with the
/// right code.
pub fn parse(name: &Name, arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let command = CommandLine::command().version(name.version).display_name(&name.name).bin_name(&name.name);
    let line = CommandLine::from_arg_matches(&command.clone().try_get_matches_from(arguments)?)?;
    Ok(match line.verb {
        None => serve(line.serve),
        Some(Verb::Serve(flags)) => serve(flags),
        Some(Verb::Check(file)) => Command::Check { file: file.config },
        Some(Verb::Ready { file, listen }) => {
            Command::Ready { file: file.config, overrides: Overrides { listen: listen.listen, ..Overrides::default() } }
        }
        Some(Verb::Subscribe(options)) => Command::Subscribe(options),
        Some(Verb::Publish(options)) => Command::Publish(options),
        Some(Verb::Explain(options)) => Command::Explain(options),
        Some(Verb::Probe(options)) => Command::Probe(options),
        Some(Verb::Capacity(options)) => Command::Capacity(options),
        Some(Verb::Revoke(options)) => Command::Revoke(options),
        Some(Verb::Shed(options)) => Command::Shed(options),
        Some(Verb::Token(options)) => Command::Token(options),
        Some(Verb::Genkey(options)) => Command::Genkey(options),
        Some(Verb::WebhookTest(options)) => Command::WebhookTest(options),
        Some(Verb::Completions { shell }) => Command::Print(manual::completions(command, shell)),
        Some(Verb::Man { command: about }) => Command::Print(manual::page(command, about.as_deref())?),
    })
}

fn serve(ServeFlags { file, listen, broker, name }: ServeFlags) -> Command {
    Command::Serve { file: file.config, overrides: Overrides { listen: listen.listen, broker, name } }
}

/// The process's environment, for [`load`](crate::config::load). Invalid UTF-8 is replaced.
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
    fn serve_is_the_default_command() {
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
    fn a_misspelt_command_or_flag_gets_a_suggestion() {
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
        let help = parsed("fanfare --help").expect_err("help is not a command");
        for verb in ["serve", "check", "ready", "--config <FILE>", "--listen <ADDR>", "--broker <URL>", "--name <NODE>"]
        {
            assert!(help.contains(verb), "{verb} in {help}");
        }
    }

    #[test]
    fn an_app_uses_its_own_name_and_version_or_the_name_of_its_file() {
        let arguments: Vec<_> = ["/usr/bin/chat", "--version"].map(OsString::from).into();
        for (own, version) in [
            (None, format!("chat (built on Fanfare {})\n", env!("CARGO_PKG_VERSION"))),
            (Some(("parley", "2.1.0")), "parley 2.1.0\n".to_owned()),
        ] {
            let name = Name::new(own, &arguments);
            let printed = parse(&name, arguments.clone()).expect_err("a version is not a command").to_string();
            assert_eq!(printed, version);
            let help =
                parse(&name, ["chat", "--help"].map(OsString::from)).expect_err("help is not a command").to_string();
            assert!(help.contains(&format!("Usage: {}", name.name)) && !help.contains("fanfare"), "{help}");
            let wrong = parse(&name, ["chat", "--lisen"].map(OsString::from)).expect_err("misspelt").to_string();
            assert!(wrong.contains(&format!("Usage: {}", name.name)), "{wrong}");
        }
    }
}
