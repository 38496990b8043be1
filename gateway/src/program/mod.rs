//! What every program built on this library does at its command line: serve, check, ready, probe, capacity.
//!
//! The only place that reads arguments, installs logging, prints and chooses an exit code.

pub mod cli;
pub mod ready;
mod serve;
mod signals;
mod telemetry;

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use self::cli::{Command, Name};
use crate::app::App;
use crate::config::{Config, Overrides, load};
use crate::{capacity, node, probe};

impl App {
    /// Serves until the process gets a signal to stop, set up by the command line, the environment and a config file;
    /// `address` is where to listen by default. Prints why it fails, and gives the process's exit code. The short form of
    /// [`run`].
    pub async fn run(self, address: &str) -> ExitCode {
        run(self, address).await
    }

    /// The same for a program that handles errors by itself: prints no errors.
    ///
    /// # Errors
    /// Fails for a configuration that is not valid, for an address that is taken, and for a stop that was cut short.
    pub async fn listen(self, address: &str) -> anyhow::Result<()> {
        carry_out(self, address).await
    }
}

/// Carries out the process's command line; `address` is where to listen unless something says otherwise. Prints why it
/// fails.
pub async fn run(app: App, address: &str) -> ExitCode {
    match carry_out(app, address).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::complain(&format!("{error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// The same, where the caller reports the failure.
async fn carry_out(app: App, address: &str) -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let name = Name::new(app.program, &arguments);
    match cli::parse(&name, arguments).unwrap_or_else(|error| error.exit()) {
        Command::Serve { file, overrides } => serve::serve(app, configured(file, overrides, address)?).await,
        Command::Check { file } => {
            let config = load(file.as_deref(), cli::environment(), Overrides::default())?;
            node::check(&config)?;
            telemetry::filter(&config.log.level)?;
            say(&"Configuration file is valid")
        }
        Command::Ready { file, overrides } => {
            let config = configured(file, overrides, address)?;
            ready::ask(&config)?;
            say(&"ready")
        }
        Command::Probe(options) => look(&options).await,
        Command::Capacity(options) => {
            let report = capacity::report(&options);
            say(&if options.json { serde_json::to_string(&report)? } else { report.to_string() })
        }
    }
}

/// Prints the steps as they are made, or one JSON object.
async fn look(options: &probe::Options) -> anyhow::Result<()> {
    let report = if options.json {
        let report = probe::run(options, &mut |_| {}).await;
        say(&serde_json::to_string(&report)?)?;
        report
    } else {
        say(&format!("{}\n", options.url))?;
        let mut told = Ok(());
        let mut tell = |line: &dyn fmt::Display| {
            if told.is_ok() {
                told = say(line);
            }
        };
        let report = probe::run(options, &mut tell).await;
        told?;
        if report.ok {
            say(&"\nAll is well.")?;
        }
        report
    };
    let wrong = report.wrong();
    anyhow::ensure!(wrong.is_empty(), "wrong: {}", wrong.join(", "));
    Ok(())
}

/// Prints a line. A reader that has had enough, as `head` has, is no failure.
fn say(line: &dyn fmt::Display) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot print to stdout"),
        _ => Ok(()),
    }
}

/// The configuration, where a program's own address is weaker than all that an operator says.
fn configured(file: Option<PathBuf>, mut overrides: Overrides, address: &str) -> anyhow::Result<Config> {
    let said = file.is_some() || cli::environment().any(|(name, _)| name == "FANFARE__HTTP__LISTEN");
    if !said {
        overrides.listen.get_or_insert_with(|| address.to_owned());
    }
    Ok(load(file.as_deref(), cli::environment(), overrides)?)
}
