//! The command line of every program built on this library: serve, check, ready, subscribe, publish, explain, probe,
//! capacity, token, genkey, revoke, shed, webhook-test, completions, man.
//!
//! Only this module reads arguments, installs logging, prints and chooses the exit code.

pub mod cli;
mod credential;
pub mod explain;
pub mod genkey;
mod manual;
pub mod publish;
pub mod ready;
pub mod revoke;
mod serve;
pub mod shed;
mod signals;
pub mod subscribe;
mod telemetry;
pub mod token;
pub mod webhook_test;

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use broker_adapters::wall_clock;
use tokio::runtime::Builder;

use self::cli::{Command, Name};
use crate::app::App;
use crate::auth::{Auth, Verification};
use crate::config::{Config, Overrides, load};
use crate::gate::{self, Answer};
use crate::{capacity, hooks, node, probe, webhooks};

impl App {
    /// Runs the process's command line, which by default serves until a signal to stop. The command line, the environment
    /// and a file configure it; `address` is the default of `http.listen`. Prints an error and returns the exit code.
    ///
    /// # Panics
    /// Inside a tokio runtime. Await [`listen`](Self::listen) there.
    #[must_use]
    pub fn run(self, address: &str) -> ExitCode {
        match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(run(self, address)),
            Err(error) => {
                telemetry::print_error(&format!("cannot start: {error}\n"));
                ExitCode::FAILURE
            }
        }
    }

    /// As [`run`](Self::run), inside a tokio runtime, and returns errors instead of printing them.
    ///
    /// # Errors
    /// Fails if the configuration is invalid, if the address is in use, or if a stop was cut short.
    pub async fn listen(self, address: &str) -> anyhow::Result<()> {
        execute(self, address).await
    }
}

/// Runs the process's command line for `app`. `address` is the default of `http.listen`. Prints an error and returns the
/// exit code.
pub async fn run(app: App, address: &str) -> ExitCode {
    match execute(app, address).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::print_error(&format!("{error:#}\n"));
            match error {
                error if error.is::<publish::Unknown>() => ExitCode::from(publish::UNKNOWN),
                error if error.is::<explain::Undecided>() => ExitCode::from(explain::UNDECIDED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// As [`run`], but returns errors instead of printing them.
async fn execute(app: App, address: &str) -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let name = Name::new(app.program, &arguments);
    match cli::parse(&name, arguments).unwrap_or_else(|error| error.exit()) {
        Command::Serve { file, overrides } => serve::serve(app, load_config(file, overrides, address)?).await,
        Command::Check { file } => {
            let config = load(file.as_deref(), cli::environment(), Overrides::default())?;
            node::check(&config)?;
            telemetry::filter(&config.log.level)?;
            for warning in
                gate::warnings(&config).into_iter().chain(hooks::warnings(&config)).chain(webhooks::warnings(&config))
            {
                telemetry::print_error(&format!("warning: {warning}\n"));
            }
            print_line(&"Configuration file is valid")
        }
        Command::Ready { file, overrides } => {
            let config = load_config(file, overrides, address)?;
            ready::ask(&config)?;
            print_line(&"ready")
        }
        Command::Revoke(options) => {
            let overrides = Overrides { broker: options.broker.clone(), ..Overrides::default() };
            let config = load(options.config.as_deref(), cli::environment(), overrides)?;
            print_line(&revoke::run(&options, &config).await?)
        }
        Command::Shed(options) => shed::run(&options, &mut print_line).await,
        Command::Explain(options) => {
            let config = load(options.config.as_deref(), cli::environment(), Overrides::default())?;
            let auth = Auth::new(&config)?;
            let identify = |token: &str| match auth.verify(token, wall_clock() / 1000) {
                Verification::Now(verified) => verified.map_err(|refused| refused.to_string()),
                Verification::Later(_) => {
                    Err("the token's key is in `auth.jwks`, which this command does not read".to_owned())
                }
            };
            let (text, answer) = explain::explain(&options, &config, identify)?;
            print_line(&text)?;
            match answer {
                Answer::Yes => Ok(()),
                Answer::No => anyhow::bail!("not allowed"),
                Answer::Hook => Err(explain::Undecided.into()),
            }
        }
        Command::Subscribe(options) => subscribe::run(&options).await,
        Command::Publish(options) => publish::run(&options).await,
        Command::Probe(options) => run_probe(&options).await,
        Command::Capacity(options) => {
            let report = capacity::report(&options);
            print_line(&if options.json { serde_json::to_string(&report)? } else { report.to_string() })
        }
        Command::Token(options) => {
            let config = load(options.config.as_deref(), cli::environment(), Overrides::default())?;
            print_line(&token::make(&options, &config)?)
        }
        Command::Genkey(options) => print_line(&genkey::make(&options)?),
        Command::WebhookTest(options) => {
            let config = load(options.config.as_deref(), cli::environment(), Overrides::default())?;
            print_line(&webhook_test::run(&options, &config).await?)
        }
        Command::Print(text) => print_line(&text.trim_end()),
    }
}

/// Probes, and prints each step when it ends, or one JSON object at the end.
async fn run_probe(options: &probe::Options) -> anyhow::Result<()> {
    let report = if options.json {
        let report = probe::run(options, &mut |_| {}).await;
        print_line(&serde_json::to_string(&report)?)?;
        report
    } else {
        print_line(&format!("{}\n", options.endpoint.url))?;
        let mut printed = Ok(());
        let mut progress = |line: &dyn fmt::Display| {
            if printed.is_ok() {
                printed = print_line(line);
            }
        };
        let report = probe::run(options, &mut progress).await;
        printed?;
        if report.ok {
            print_line(&"\nAll is well.")?;
        }
        report
    };
    let wrong = report.wrong();
    anyhow::ensure!(wrong.is_empty(), "wrong: {}", wrong.join(", "));
    Ok(())
}

/// Prints a line. A reader that closes the pipe early, such as `head`, is not an error.
fn print_line(line: &dyn fmt::Display) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot print to stdout"),
        _ => Ok(()),
    }
}

/// Loads the configuration. The program's own `address` applies only if the operator sets none.
fn load_config(file: Option<PathBuf>, mut overrides: Overrides, address: &str) -> anyhow::Result<Config> {
    let configured = file.is_some() || cli::environment().any(|(name, _)| name == "FANFARE__HTTP__LISTEN");
    if !configured {
        overrides.listen.get_or_insert_with(|| address.to_owned());
    }
    Ok(load(file.as_deref(), cli::environment(), overrides)?)
}
