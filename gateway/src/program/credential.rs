//! A token or a key on a command line: itself, in a file, or on stdin.

use std::io;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, bail};
use broker_adapters::read_file;

/// The longest one that is read, in bytes: more than any node accepts.
const LONGEST: u64 = 64 << 10;

/// The token that is meant by what was given. No error shows it.
pub(super) fn token(given: &str, stdin: impl io::Read) -> anyhow::Result<String> {
    read("token", given, stdin)
}

/// The same for a key of the HTTP API.
pub(super) fn key(given: &str, stdin: impl io::Read) -> anyhow::Result<String> {
    read("key", given, stdin)
}

fn read(what: &str, given: &str, stdin: impl io::Read) -> anyhow::Result<String> {
    let text = match given.strip_prefix('@') {
        Some(file) => {
            let bytes = read_file(Path::new(file)).with_context(|| format!("cannot read the {what} from {file}"))?;
            String::from_utf8(bytes).ok().with_context(|| format!("{file} does not hold a {what}"))?
        }
        None if given == "-" => {
            let mut text = String::new();
            stdin
                .take(LONGEST)
                .read_to_string(&mut text)
                .with_context(|| format!("cannot read the {what} from stdin"))?;
            text
        }
        None => given.to_owned(),
    };
    let text = text.trim();
    if text.is_empty() {
        bail!("the {what} is empty");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use super::*;

    #[test]
    fn a_token_is_given_as_itself_in_a_file_or_on_stdin() {
        let file = env::temp_dir().join(format!("fanfare-{}-token", process::id()));
        fs::write(&file, "in.a.file\n").expect("the temporary directory is writable");
        for (given, expected) in [("a.b.c", "a.b.c"), ("-", "on.stdin"), (&format!("@{}", file.display()), "in.a.file")]
        {
            assert_eq!(token(given, &b" on.stdin\n"[..]).expect(given), expected);
        }
        fs::remove_file(&file).expect("it was there");
        for given in ["", " ", "-", "@/nowhere/token"] {
            assert!(token(given, &b""[..]).is_err(), "{given}");
        }
    }
}
