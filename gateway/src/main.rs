//! The program `fanfare`: the gateway with its own page, ready to run.

use fanfare::{App, ExitCode};

fn main() -> ExitCode {
    let mut app = App::gateway();
    app.called("fanfare", env!("CARGO_PKG_VERSION"));
    app.run("127.0.0.1:8080")
}
