//! Conditions under which a program runs: a log that is not written anywhere, few descriptors.

use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::path::Path;
use std::process::Stdio;

use anyhow::Result;
use tokio::process::Command;

/// What a program is started with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions {
    /// Where its log goes.
    pub log: Log,
    /// Its limit of open files, if that is not the test's.
    pub files: Option<u32>,
}

/// Where the log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Log {
    /// To the test, with all else that the program prints.
    #[default]
    Kept,
    /// Into a pipe whose reader is gone.
    Gone,
    /// Onto a disk that is full.
    Full,
    /// Into a pipe that is not read, for now.
    Stalled,
}

impl Conditions {
    /// The command that starts this program under these conditions.
    pub(crate) fn command(self, program: &Path) -> Command {
        let Some(files) = self.files else { return Command::new(program) };
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" \"$@\"")).arg(program);
        command
    }
}

impl Log {
    /// What to give the program for its stderr, and what must be kept for it.
    pub(crate) fn open(self) -> Result<(Stdio, Option<PipeReader>)> {
        Ok(match self {
            Self::Kept => (Stdio::piped(), None),
            Self::Full => (std::fs::File::create("/dev/full")?.into(), None),
            Self::Gone => (pipe()?.1.into(), None),
            Self::Stalled => {
                let (reader, writer) = pipe()?;
                (writer.into(), Some(reader))
            }
        })
    }
}

/// Reads lines on a thread of its own, until the program has ended.
pub(crate) fn read(pipe: PipeReader, mut take: impl FnMut(String) + Send + 'static) {
    std::thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).for_each(&mut take));
}
