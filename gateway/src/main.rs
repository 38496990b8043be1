//! The program `fanfare`: the gateway with its own page, ready to run.

use std::process::ExitCode;

use gateway::App;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    App::gateway().listen("127.0.0.1:8080").await
}
