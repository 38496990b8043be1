//! The program `fanfare`: the gateway with its own page, ready to run.

use std::process::ExitCode;

use fanfare::App;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut app = App::gateway();
    app.called("fanfare", env!("CARGO_PKG_VERSION"));
    app.run("127.0.0.1:8080").await
}
