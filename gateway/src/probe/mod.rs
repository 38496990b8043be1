//! `fanfare probe`: a WebSocket looked at from outside, step by step, and what each failure means.
//!
//! Needs nothing of the server but its URL, so it also probes other gateways. Every step ends in time; nothing is
//! printed here. Leaves nothing behind but a message on a channel of its own, or on the endpoint's where that has but one.

mod certificate;
mod door;
mod head;
mod idle;
mod judge;
mod options;
mod socket;
mod step;
mod trip;
mod trust;
mod upgrade;

use std::fmt;

use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::Instant;

pub use options::{Header, Host, Options, Target};
pub use step::{Outcome, Step};

use door::Door;
use head::Response;
use socket::{Socket, Stream};
use step::{Good, Trouble};
use trust::Tls;

/// What the exit code of `fanfare probe` says.
pub const EXIT: &str = "Exit code: 0 all is well, 1 something is wrong, 2 a mistake in this command line.";

/// All that was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was looked at.
    pub url: String,
    /// No step went wrong.
    pub ok: bool,
    /// In the order in which they were made.
    pub steps: Vec<Step>,
}

impl Report {
    /// The names of what went wrong.
    pub fn wrong(&self) -> Vec<&'static str> {
        self.steps.iter().filter(|step| step.outcome == Outcome::Wrong).map(|step| step.name).collect()
    }
}

/// What is to be told while the probe runs: a [`Step`] that was made, or what a person now waits for.
pub type Tell<'a> = &'a mut dyn FnMut(&dyn fmt::Display);

/// Looks, and tells each step as it is made.
pub async fn run(options: &Options, tell: Tell<'_>) -> Report {
    let mut record = Record { steps: Vec::new(), tell };
    look(options, &mut record).await;
    let steps = record.steps;
    Report { url: options.url.to_string(), ok: steps.iter().all(|step| step.outcome != Outcome::Wrong), steps }
}

struct Record<'a> {
    steps: Vec<Step>,
    tell: Tell<'a>,
}

impl Record<'_> {
    fn add(&mut self, step: Step) {
        (self.tell)(&step);
        self.steps.push(step);
    }

    /// Makes a step and notes its time; `None` when it failed.
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

/// Ends early when a step fails that all others need.
async fn look(options: &Options, record: &mut Record<'_>) -> Option<()> {
    let addresses = record.time("dns", door::resolve(options)).await?;
    let (address, stream) = record.time("tcp", door::connect(&addresses)).await?;
    let tls = match options.url.secure {
        true => Some(Tls::new(options.name(), options.insecure)),
        false => None,
    };
    let tls = match tls.transpose() {
        Ok(tls) => tls,
        Err(trouble) => return record.note("tls", Err(trouble)).then_some(()),
    };
    let door = Door { options, address, tls };
    let stream = secured(&door, stream, record).await?;
    let begin = Instant::now();
    let answer = door.shake(stream).await;
    let took = Some(begin.elapsed());
    let sockets = match answer {
        Ok((socket, response)) => {
            let verdict = upgrade::status(&response, options);
            let switched = verdict.is_ok();
            record.add(Step::of("upgrade", took, verdict));
            if switched {
                talk(&door, socket, &response, record).await
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
        (record.tell)(&step::meanwhile("idle", &format!("holding three connections for {}", step::time(idle))));
        match idle::hold(&door, idle).await {
            Ok(held) => record.add(judge::step(&held, idle)),
            Err(trouble) => record.add(Step::of("idle", None, Err(trouble))),
        }
    }
    Some(())
}

/// Ordinary HTTP beside it. What the upgrade has told already is not told twice.
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
        let stream = door::secure(tls, stream).await?;
        let good = tls.told(&stream);
        Ok((stream, good))
    };
    Some(Box::new(record.time("tls", secure).await?))
}

/// What the 101 says, and what goes over the sockets behind it. None are left when they cannot be used.
async fn talk(door: &Door<'_>, socket: Socket, response: &Response, record: &mut Record<'_>) -> Vec<Socket> {
    let accepted = record.note("accept", upgrade::accept(response));
    let agreed = record.note("protocol", upgrade::protocol(response, door.options));
    record.note("headers", Ok(upgrade::headers(response)));
    if !accepted || !agreed {
        return Vec::new();
    }
    let mut sockets = vec![socket];
    record.time("nodes", async { Ok(((), trip::spread(door, &mut sockets).await?)) }).await;
    record.time("message", async { Ok(((), trip::message(&mut sockets).await?)) }).await;
    sockets
}
