//! `fanfare probe`: tests a WebSocket from outside, step by step, and says what each failure means.
//!
//! It needs only a URL, so it also works on other gateways. Each step has a deadline. Nothing is printed here.
//! It publishes one message: on a new channel, or on the endpoint's own channel if the endpoint has only one.

mod idle;
mod judge;
mod options;
mod step;
mod trip;

use std::fmt;

use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::Instant;

pub use options::Options;
pub use step::{Outcome, Step};

use crate::client::{self, Door, Good, PROBE, Response, Socket, Stream, Tls, Trouble, upgrade};

/// The exit codes of `fanfare probe`, for its help.
pub const EXIT: &str = "Exit code: 0 all is well, 1 something is wrong, 2 a mistake in this command line.";

/// The result of a probe.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The URL that was probed.
    pub url: String,
    /// Whether no step failed.
    pub ok: bool,
    /// The steps, in the order in which they ran.
    pub steps: Vec<Step>,
}

impl Report {
    /// The names of the steps that failed.
    pub fn wrong(&self) -> Vec<&'static str> {
        self.steps.iter().filter(|step| step.outcome == Outcome::Wrong).map(|step| step.name).collect()
    }
}

/// Receives progress while the probe runs: each [`Step`] when it ends, and a line before a step that takes long.
pub type Progress<'a> = &'a mut dyn FnMut(&dyn fmt::Display);

/// Probes the URL of `options` and passes each step to `progress` when it ends.
pub async fn run(options: &Options, progress: Progress<'_>) -> Report {
    let mut record = Record { steps: Vec::new(), progress };
    run_steps(options, &mut record).await;
    let steps = record.steps;
    Report { url: options.endpoint.url.to_string(), ok: steps.iter().all(|step| step.outcome != Outcome::Wrong), steps }
}

struct Record<'a> {
    steps: Vec<Step>,
    progress: Progress<'a>,
}

impl Record<'_> {
    fn add(&mut self, step: Step) {
        (self.progress)(&step);
        self.steps.push(step);
    }

    /// Runs a step and records its duration; `None` if it failed.
    async fn time<T>(
        &mut self,
        name: &'static str,
        step: impl Future<Output = Result<(T, Good), Trouble>>,
    ) -> Option<T> {
        let begin = Instant::now();
        let result = step.await;
        let took = Some(begin.elapsed());
        let (value, result) = match result {
            Ok((value, good)) => (Some(value), Ok(good)),
            Err(trouble) => (None, Err(trouble)),
        };
        self.add(Step::of(name, took, result));
        value
    }

    fn note(&mut self, name: &'static str, result: Result<Good, Trouble>) -> bool {
        let good = result.is_ok();
        self.add(Step::of(name, None, result));
        good
    }
}

/// Runs all steps. Stops early if a step fails on which the later ones depend.
async fn run_steps(options: &Options, record: &mut Record<'_>) -> Option<()> {
    let endpoint = &options.endpoint;
    let addresses = record.time("dns", client::resolve(endpoint)).await?;
    let (address, stream) = record.time("tcp", client::connect(&addresses)).await?;
    let tls = match endpoint.url.secure {
        true => Some(Tls::new(endpoint.name(), endpoint.insecure)),
        false => None,
    };
    let tls = match tls.transpose() {
        Ok(tls) => tls,
        Err(trouble) => return record.note("tls", Err(trouble)).then_some(()),
    };
    let door = Door { endpoint, greeting: PROBE.clone(), address, tls };
    let stream = secured(&door, stream, record).await?;
    let begin = Instant::now();
    let answer = door.shake(stream).await;
    let took = Some(begin.elapsed());
    let sockets = match answer {
        Ok((socket, response)) => {
            let verdict = upgrade::status(&response, endpoint);
            let switched = verdict.is_ok();
            record.add(Step::of("upgrade", took, verdict));
            if switched {
                talk(&door, socket, &response, options.connections, record).await
            } else {
                record.note("headers", Ok(upgrade::headers(&response)));
                Vec::new()
            }
        }
        Err(trouble) => {
            record.add(Step::of("upgrade", took, Err(trouble)));
            Vec::new()
        }
    };
    page(&door, record).await;
    let usable = !sockets.is_empty();
    for socket in sockets {
        socket.leave().await;
    }
    if let Some(idle) = options.idle.filter(|_| usable) {
        (record.progress)(&step::meanwhile("idle", &format!("holding three connections for {}", step::time(idle))));
        match idle::hold(&door, idle).await {
            Ok(held) => record.add(judge::step(&held, idle)),
            Err(trouble) => record.add(Step::of("idle", None, Err(trouble))),
        }
    }
    Some(())
}

/// Requests the page at `/` over ordinary HTTP. The explanation is left out if the upgrade failed in the same way.
async fn page(door: &Door<'_>, record: &mut Record<'_>) {
    let earlier = record.steps.iter().find(|step| step.name == "upgrade").map(|step| step.what.clone());
    let page = async {
        let page = door.page().await.map_err(|trouble| match earlier.as_ref() == Some(&trouble.what) {
            true => Trouble { what: format!("GET /: {}", trouble.what), ..Trouble::default() },
            false => trouble,
        });
        Ok(((), page?))
    };
    record.time("http", page).await;
}

async fn secured(door: &Door<'_>, stream: TcpStream, record: &mut Record<'_>) -> Option<Box<dyn Stream>> {
    let Some(tls) = &door.tls else { return Some(Box::new(stream)) };
    let secure = async {
        let stream = client::secure(tls, stream).await?;
        let good = tls.agreed(&stream);
        Ok((stream, good))
    };
    Some(Box::new(record.time("tls", secure).await?))
}

/// Checks the 101, opens more sockets and sends a message. Returns the open sockets, or none if they cannot be used.
async fn talk(
    door: &Door<'_>,
    socket: Socket,
    response: &Response,
    connections: u16,
    record: &mut Record<'_>,
) -> Vec<Socket> {
    let accepted = record.note("accept", upgrade::accept(response, &door.greeting));
    let agreed = record.note("protocol", upgrade::protocol(response, door.endpoint));
    record.note("headers", Ok(upgrade::headers(response)));
    if !accepted || !agreed {
        return Vec::new();
    }
    let mut sockets = vec![socket];
    record.time("nodes", async { Ok(((), trip::spread(door, connections, &mut sockets).await?)) }).await;
    record.time("message", async { Ok(((), trip::message(&mut sockets).await?)) }).await;
    sockets
}
