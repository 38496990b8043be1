//! The load tool: measures a WebSocket server on this machine, and the floor beneath all of them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is its purpose")]

mod audience;
mod beside;
mod broadcast;
mod connect;
mod ended;
mod fanout;
mod floor;
mod foreign;
mod frame;
mod helpers;
mod histogram;
mod idle;
mod protocol;
mod server;
mod stalled;
mod subject;
mod suite;
mod swarm;
mod table;
mod target;
mod user;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tests::measure;

/// Measures a WebSocket server on this machine; checks the order of messages at every receiver
#[derive(Parser)]
#[command(name = "load")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Floor(floor::Options),
    Fanout(fanout::Options),
    Idle(idle::Options),
    Stalled(stalled::Options),
    Beside(beside::Options),
    Foreign(foreign::Options),
    Connect(connect::Options),
    Suite(suite::Options),
    #[command(hide = true)]
    Listen(helpers::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Floor(options) => options.run(),
        Command::Fanout(options) => options.run(),
        Command::Idle(options) => options.run(),
        Command::Stalled(options) => options.run(),
        Command::Beside(options) => options.run(),
        Command::Foreign(options) => options.run(),
        Command::Connect(options) => options.run(),
        Command::Suite(options) => options.run(),
        Command::Listen(options) => options.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
