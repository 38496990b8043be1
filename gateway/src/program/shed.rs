//! `fanfare shed`: asks a node's HTTP API to move clients to emptier nodes, and follows that until it is over.

use std::fmt::{self, Display};
use std::io;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::credential;
use crate::cluster::{Progress, Stage};
use crate::columns::grouped;
use crate::fetch::{Client, NoRoots};

/// The exit codes, for `--help`.
pub(super) const EXIT: &str = "The nodes carry out the order by themselves: if this command ends before, the shed goes on.\n\n\
    Exit codes: 0 done, or nothing to do; 1 the node cannot be asked or refuses, or the shed ended early; 2 a mistake in the \
    command line.";

/// How often the nodes are asked how far they are, and how often that is printed.
const ASK: Duration = Duration::from_secs(1);
const PRINT: Duration = Duration::from_secs(5);

/// How long the API may be away while the shed is followed, and how long a node may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// Clients that were moved come back within this time: up to a second by the hint, and a moment to connect.
const RETURN: Duration = Duration::from_secs(3);

/// What to move, and how fast.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Options {
    /// HTTP API of any node of the cluster.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9080")]
    api: String,
    /// Key of the API with the right `admin`: itself, @FILE, or - for stdin.
    #[arg(long, value_name = "KEY")]
    key: String,
    /// Clients to move a second, over all nodes [default: 100].
    #[arg(long, value_name = "N", conflicts_with = "stop")]
    pace: Option<u32>,
    /// Leave a node alone that has up to this many percent more clients than its share [default: 2].
    #[arg(long, value_name = "PERCENT", conflicts_with = "stop")]
    tolerance: Option<u32>,
    /// Move clients too whose protocol cannot resume (raw sockets and those of apps): they miss what is sent until they are back.
    #[arg(long, conflicts_with = "stop")]
    everyone: bool,
    /// Only say what would move.
    #[arg(long, conflicts_with = "stop")]
    dry_run: bool,
    /// End the shed that is under way.
    #[arg(long)]
    stop: bool,
}

impl Options {
    fn body(&self, dry_run: bool) -> Value {
        if self.stop {
            return json!({ "stop": true });
        }
        let mut body = json!({ "everyone": self.everyone, "dry_run": dry_run });
        for (name, number) in [("pace", self.pace), ("tolerance", self.tolerance)] {
            if let Some(number) = number {
                body[name] = number.into();
            }
        }
        body
    }
}

/// What a shed does, as the API says it.
#[derive(Debug, Deserialize)]
struct Plan {
    #[serde(default)]
    id: Option<String>,
    moves: u64,
    seconds: u64,
    nodes: Vec<Part>,
    complete: bool,
}

#[derive(Debug, Deserialize)]
struct Part {
    name: String,
    id: String,
    connections: u64,
    capacity: u64,
    share: Option<u64>,
    above: u64,
    gives: u64,
}

/// The nodes, as `GET /v1/nodes` says it.
#[derive(Debug, Deserialize)]
struct Nodes {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    shed: Option<Progress>,
}

type Print<'a> = &'a mut dyn FnMut(&dyn Display) -> anyhow::Result<()>;

/// Carries out the command. Prints with `print`.
pub(super) async fn run(options: &Options, print: Print<'_>) -> anyhow::Result<()> {
    let api = Api::new(options)?;
    if options.stop {
        api.ask(Method::POST, "/v1/shed", Some(&options.body(false))).await?;
        return print(&"stopped: the clients that have not moved stay where they are");
    }
    let plan = api.plan(options, options.dry_run).await?;
    print(&plan)?;
    let Some(id) = &plan.id else {
        return if plan.moves > 0 { print(&plan.summary("would move")) } else { print(&plan.idle()) };
    };
    print(&plan.summary("move"))?;
    let stages = api.follow(&plan, id, print).await?;
    sleep(RETURN).await;
    let left = api.plan(options, true).await?;
    print(&left)?;
    let moved: u64 = stages.iter().map(|stage| stage.moved).sum();
    print(&format!("{} of {} clients have moved.", count(moved), count(plan.moves)))?;
    if left.moves > 0 {
        print(&format!("{} still above the shares: {COME_BACK}", count(left.moves)))?;
    }
    let early = stages.iter().find_map(|stage| stage.early);
    early.map_or(Ok(()), |why| bail!("the shed has ended early: {why}"))
}

const COME_BACK: &str = "clients came back or new ones came. If it is not fewer each time, check that the balancer sends new clients to \
    the node with the fewest (HAProxy: `balance leastconn`), and that it knows all nodes.";

impl Plan {
    fn summary(&self, verb: &str) -> String {
        format!("{} clients {verb}, in about {} s.", count(self.moves), count(self.seconds))
    }

    /// Why nothing moves.
    fn idle(&self) -> String {
        match self.nodes.iter().map(|part| part.above).sum() {
            0 => "Nothing to do: no node has more than its share and the tolerance.".to_owned(),
            above => format!(
                "Nothing to do: {} clients are above the shares, and their protocol cannot resume. --everyone moves them too.",
                count(above)
            ),
        }
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.nodes.iter().map(|part| part.name.chars().count()).max().unwrap_or(0).max("node".len());
        write!(f, "{:width$}  {:>10}  {:>10}  {:>10}  {:>10}", "node", "clients", "capacity", "share", "gives up")?;
        for Part { name, connections, capacity, share, gives, .. } in &self.nodes {
            let share = share.map_or_else(|| "draining".to_owned(), count);
            let (connections, capacity, gives) = (count(*connections), count(*capacity), count(*gives));
            write!(f, "\n{name:width$}  {connections:>10}  {capacity:>10}  {share:>10}  {gives:>10}")?;
        }
        if !self.complete {
            f.write_str(
                "\nA node may be missing: the one that was asked has not read the log for `cluster.lease` yet.",
            )?;
        }
        Ok(())
    }
}

fn count(number: u64) -> String {
    grouped(number as f64)
}

/// How far a node is.
#[derive(Debug, Clone, Copy, Default)]
struct Followed {
    moved: u64,
    begun: bool,
    over: bool,
    /// Why it has ended before it was done.
    early: Option<&'static str>,
}

impl Followed {
    /// Takes in what the node says; `None` if it is gone. `late` means that it should have begun.
    fn update(&mut self, id: &str, node: Option<&Node>, late: bool) {
        let (over, early) = match node.map(|node| node.shed.as_ref().filter(|shed| shed.id == id)) {
            None => (true, Some("a node has ended")),
            Some(None) if self.begun => (true, Some("another order has replaced it")),
            Some(None) => (late, late.then_some("a node does not begin")),
            Some(Some(shed)) => {
                (self.moved, self.begun) = (shed.moved, true);
                match shed.state {
                    Stage::Waiting | Stage::Moving => (false, None),
                    Stage::Done | Stage::Unknown => (true, None),
                    Stage::Stopped => (true, Some("another order has stopped it")),
                    Stage::Draining => (true, Some("a node has begun to drain")),
                }
            }
        };
        (self.over, self.early) = (over, early);
    }
}

/// The API of a node.
struct Api {
    client: Client,
    url: String,
    headers: HeaderMap,
}

impl Api {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let url = options.api.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            bail!("--api is a URL such as http://127.0.0.1:9080");
        }
        let key = credential::key(&options.key, io::stdin())?;
        let mut value = HeaderValue::try_from(format!("Bearer {key}")).ok().context("the key is not plain ASCII")?;
        value.set_sensitive(true);
        let client = Client::new(url.starts_with("https://"), 1);
        let client =
            client.map_err(|NoRoots| anyhow::anyhow!("this machine has no CA certificates to check https with"))?;
        Ok(Self { client, url, headers: HeaderMap::from_iter([(AUTHORIZATION, value)]) })
    }

    async fn plan(&self, options: &Options, dry_run: bool) -> anyhow::Result<Plan> {
        let answer = self.ask(Method::POST, "/v1/shed", Some(&options.body(dry_run))).await?;
        serde_json::from_slice(&answer).context("the answer is not that of a node's API")
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Bytes> {
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let asked = self.client.ask(method, &format!("{}{path}", self.url), &self.headers, body).await;
        let (status, answer) = asked.with_context(|| format!("cannot ask the API at {}", self.url))?;
        if status != StatusCode::OK {
            let problem: Value = serde_json::from_slice(&answer).unwrap_or_default();
            let detail = problem["detail"].as_str().unwrap_or("the answer is not that of a node's API");
            bail!("{} answers {}: {detail}", self.url, status.as_u16());
        }
        Ok(answer)
    }

    /// Waits until the shed is over on all nodes that give up clients.
    async fn follow(&self, plan: &Plan, id: &str, print: Print<'_>) -> anyhow::Result<Vec<Followed>> {
        let givers: Vec<_> = plan.nodes.iter().filter(|part| part.gives > 0).collect();
        let mut stages = vec![Followed::default(); givers.len()];
        let begin = Instant::now();
        let (mut printed, mut answered) = (begin, begin);
        loop {
            sleep(ASK).await;
            let nodes: Nodes = match self.ask(Method::GET, "/v1/nodes", None).await {
                Ok(answer) => serde_json::from_slice(&answer).context("the answer is not that of a node's API")?,
                Err(error) if answered.elapsed() > PATIENCE => {
                    return Err(error.context("the shed goes on, but this command cannot follow it"));
                }
                Err(_) => continue,
            };
            answered = Instant::now();
            for (part, stage) in givers.iter().zip(&mut stages) {
                let node = nodes.nodes.iter().find(|node| node.id == part.id);
                stage.update(id, node, begin.elapsed() > PATIENCE);
            }
            if stages.iter().all(|stage| stage.over) {
                return Ok(stages);
            }
            if printed.elapsed() >= PRINT {
                printed = Instant::now();
                let moved = stages.iter().map(|stage| stage.moved).sum();
                print(&format!("{} of {} clients have moved", count(moved), count(plan.moves)))?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(parts: &[(u64, Option<u64>, u64, u64)]) -> Plan {
        let part = |(number, (connections, share, above, gives)): (usize, &(u64, Option<u64>, u64, u64))| Part {
            name: format!("node-{number}"),
            id: format!("{number:016x}"),
            connections: *connections,
            capacity: 20_000,
            share: *share,
            above: *above,
            gives: *gives,
        };
        let nodes: Vec<_> = parts.iter().enumerate().map(part).collect();
        Plan { id: None, moves: nodes.iter().map(|part| part.gives).sum(), seconds: 20, nodes, complete: true }
    }

    #[test]
    fn a_plan_is_a_table_and_a_sentence() {
        let full = plan(&[(3_000, Some(1_500), 1_500, 1_500), (0, Some(1_500), 0, 0), (7, None, 0, 0)]);
        let table = "\
            node       clients    capacity       share    gives up\n\
            node-0       3,000      20,000       1,500       1,500\n\
            node-1           0      20,000       1,500           0\n\
            node-2           7      20,000    draining           0";
        assert_eq!(full.to_string(), table);
        assert!(Plan { complete: false, ..plan(&[]) }.to_string().ends_with("`cluster.lease` yet."));
        assert_eq!(full.summary("move"), "1,500 clients move, in about 20 s.");
        assert!(plan(&[(10, Some(10), 0, 0)]).idle().contains("no node has more"));
        assert!(plan(&[(20, Some(10), 10, 0), (0, Some(10), 0, 0)]).idle().contains("10 clients are above"));
    }

    #[test]
    fn a_node_is_followed_until_it_is_done_or_another_order_or_its_end_comes() {
        let node = |id: &str, state, moved| Node {
            id: String::new(),
            shed: Some(Progress { id: id.to_owned(), state, moved, gives: 10 }),
        };
        let other = Node { id: String::new(), shed: None };
        let (moving, done) = (node("a", Stage::Moving, 3), node("a", Stage::Done, 10));
        let stopped = node("a", Stage::Stopped, 4);
        for (steps, late, moved, over, early) in [
            (&[Some(&other)][..], false, 0, false, None),
            (&[Some(&other)], true, 0, true, Some("a node does not begin")),
            (&[Some(&other), Some(&moving)], false, 3, false, None),
            (&[Some(&moving), Some(&done)], true, 10, true, None),
            (&[Some(&moving), Some(&stopped)], false, 4, true, Some("another order has stopped it")),
            (&[Some(&moving), Some(&other)], false, 3, true, Some("another order has replaced it")),
            (&[Some(&moving), None], false, 3, true, Some("a node has ended")),
        ] {
            let mut followed = Followed::default();
            steps.iter().for_each(|step| followed.update("a", *step, late));
            assert_eq!((followed.moved, followed.over, followed.early), (moved, over, early), "{steps:?}");
        }
    }
}
