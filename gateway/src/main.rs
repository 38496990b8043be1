//! The program `fanfare`: the gateway with its own page, ready to run.

use std::process::ExitCode;

use gateway::App;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match App::gateway().listen("127.0.0.1:8080").await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
