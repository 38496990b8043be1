//! The command line of `fanfare probe`.

use std::time::Duration;

use clap::Args;

use crate::client::Endpoint;
use crate::config::parse_duration;

/// What to probe, and how.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Options {
    /// The WebSocket to probe.
    #[command(flatten)]
    pub endpoint: Endpoint,
    /// Hold idle connections for this time, such as 2m, and say what ended them.
    #[arg(long, value_name = "TIME", value_parser = long_enough)]
    pub idle: Option<Duration>,
    /// Number of connections to open, to see which nodes answer.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub connections: u16,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Parses a time of at least one second. A shorter test says nothing about time-outs.
fn long_enough(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        time if time < Duration::from_secs(1) => Err("expected at least 1s".to_owned()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_command_line_is_a_usage_error() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            _options: Options,
        }
        for (line, message) in [
            ("ws://h --idle 5", "such as \"5s\""),
            ("ws://h --idle 500ms", "at least 1s"),
            ("ws://h --connections 1", "1 is not in 2..=1000"),
        ] {
            let line = ["probe"].into_iter().chain(line.split(' '));
            let error = <Line as clap::Parser>::try_parse_from(line).expect_err(message);
            assert!(error.to_string().contains(message), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
