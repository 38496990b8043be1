//! Further client processes, for more sockets than one process may open.
//!
//! Each opens its share, checks the order at its own receivers, answers pings, and on every line of its standard input
//! prints `deliveries heard`, where `heard` is the number of messages its slowest receiver has. It ends with its input.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;

use crate::audience::Audience;
use crate::protocol::Protocol;
use crate::server;
use crate::swarm::{PER_PROCESS, Plan, Swarm};
use crate::target::Target;

/// How long a question may wait for its answer.
const TURN: Duration = Duration::from_millis(10);
/// How long a helper may be busy: it opens thousands of connections before it says its first word.
const PATIENCE: Duration = Duration::from_secs(60);

/// A share of the receivers (started by the other commands)
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    #[arg(long)]
    url: String,
    #[arg(long, value_enum)]
    protocol: Protocol,
    #[arg(long)]
    connections: usize,
    #[arg(long)]
    subscribe: bool,
}

impl Options {
    pub(crate) fn run(&self) -> Result<()> {
        let plan = Plan {
            target: self.url.parse()?,
            protocol: self.protocol,
            connections: self.connections,
            subscribe: self.subscribe,
            size: None,
            receive_buffer: None,
            secret: None,
        };
        let mut swarm = Swarm::open(plan)?;
        let mut audience = Audience::new(swarm.connections());
        let questions = lines(BufReader::new(std::io::stdin()));
        let mut ready = Vec::new();
        println!("{}", swarm.connections());
        loop {
            swarm.wait(TURN, &mut ready)?;
            for news in &ready {
                swarm.read(*news, &mut |receiver, number| Ok(audience.follow(receiver, number)?))?;
            }
            match questions.try_recv() {
                Ok(_) => println!("{} {}", audience.deliveries(), audience.slowest().1),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }
}

/// The lines that arrive, read by a thread that ends with them. One waits at most: each is awaited before the next.
fn lines(input: impl BufRead + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let lines = input.lines().map_while(Result::ok);
        lines.map_while(|line| sender.send(line).ok()).for_each(drop);
    });
    receiver
}

/// Shares of at most a process's limit each; the first is this process's own.
pub(crate) fn shares(connections: usize, processes: Option<usize>) -> Result<Vec<usize>> {
    let processes = processes.unwrap_or(connections.div_ceil(PER_PROCESS)).clamp(1, connections.max(1));
    let share = connections.div_ceil(processes);
    ensure!(share <= PER_PROCESS, "{share} connections per process: {PER_PROCESS} are the most, use more --processes");
    Ok((0..processes).map(|index| connections / processes + usize::from(index < connections % processes)).collect())
}

struct Helper {
    child: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

/// Killed on drop.
pub(crate) struct Helpers {
    helpers: Vec<Helper>,
}

impl Helpers {
    /// Starts one for each share and waits until all have opened their connections.
    pub(crate) fn start(target: &Target, protocol: Protocol, shares: &[usize], subscribe: bool) -> Result<Self> {
        let mut all = Self { helpers: Vec::new() };
        for share in shares {
            let url = format!("ws://{}{}", target.address, target.path);
            let name = format!("{protocol:?}").to_lowercase();
            let connections = share.to_string();
            let arguments = ["listen", "--url", &url, "--protocol", &name, "--connections", &connections];
            let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
            arguments.extend(subscribe.then(|| "--subscribe".to_owned()));
            let mut command = server::helper(&arguments)?;
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run setpriv")?;
            let input = child.stdin.take().context("the helper's input was asked for")?;
            let output = BufReader::new(child.stdout.take().context("the helper's output was asked for")?);
            all.helpers.push(Helper { child, input, answers: lines(output) });
        }
        all.helpers.iter_mut().try_for_each(|helper| helper.line().map(drop)).context("opening connections")?;
        Ok(all)
    }

    /// Deliveries so far, and how many messages the slowest receiver has; `None` when there are no helpers.
    pub(crate) fn ask(&mut self) -> Result<Option<(u64, u64)>> {
        let mut sum = None;
        for helper in &mut self.helpers {
            helper.input.write_all(b"\n")?;
            let line = helper.line()?;
            let numbers = line.trim().split_once(' ').context("a helper's answer has two numbers")?;
            let (deliveries, heard): (u64, u64) = (numbers.0.parse()?, numbers.1.parse()?);
            let (before, least) = sum.unwrap_or((0, u64::MAX));
            sum = Some((before + deliveries, heard.min(least)));
        }
        Ok(sum)
    }
}

impl Helper {
    fn line(&mut self) -> Result<String> {
        self.answers.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("a client process says nothing for {PATIENCE:?}"),
            RecvTimeoutError::Disconnected => anyhow!("a client process has failed, it says above why"),
        })
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        for helper in &mut self.helpers {
            // An error means that it has ended already.
            drop(helper.child.kill());
            drop(helper.child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_shared_evenly_and_below_the_limit() {
        assert_eq!(shares(1_000, None).unwrap(), [1_000]);
        assert_eq!(shares(10, Some(3)).unwrap(), [4, 3, 3]);
        assert_eq!(shares(2, Some(5)).unwrap(), [1, 1]);
        assert_eq!(shares(40_000, None).unwrap(), [13_334, 13_333, 13_333]);
        assert!(shares(40_000, Some(2)).is_err());
    }
}
