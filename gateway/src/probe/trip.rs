//! Tests over open sockets: which nodes they are on, and a message from one socket to another.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::step::time;
use crate::client::{Door, End, Good, STEP, Socket, Trouble, tame};
use crate::codec::Opcode;
use crate::protocol::native::NAME;

/// How long to wait for a server to echo a text.
const ECHO: Duration = Duration::from_secs(2);

/// Opens connections until as many are open at once as `--connections` says, and reports which nodes they are on.
pub(super) async fn spread(door: &Door<'_>, connections: u16, sockets: &mut Vec<Socket>) -> Result<Good, Trouble> {
    let wanted = usize::from(connections);
    let begin = Instant::now();
    let mut failed: Vec<Trouble> = Vec::new();
    for _ in sockets.len()..wanted {
        match door.socket().await {
            Ok(socket) => sockets.push(socket),
            Err(trouble) => failed.push(trouble),
        }
        if begin.elapsed() > STEP && !failed.is_empty() {
            break;
        }
    }
    for socket in sockets.iter_mut().filter(|socket| socket.native && socket.node.is_none()) {
        socket.node = name(socket).await;
    }
    let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
    for node in sockets.iter().filter_map(|socket| socket.node.as_deref()) {
        *nodes.entry(node).or_default() += 1;
    }
    let list: Vec<_> = nodes.iter().map(|(node, count)| format!("{count} on {node}")).collect();
    let list = match list.is_empty() {
        true => "no header x-backend says on which node (HAProxy: http-response set-header x-backend %s)".to_owned(),
        false => list.join(", "),
    };
    let facts = json!({"connections": wanted, "failed": failed.len(), "nodes": nodes});
    if let Some(Trouble { what, means, look, .. }) = failed.pop() {
        let what = format!("{} of {wanted} connections failed, the last with: {what}; {list}", failed.len() + 1);
        return Err(Trouble::new(what, means, look).with(facts));
    }
    Ok(Good::new(format!("{wanted} connections: {list}"), facts))
}

/// The node's name, from its reply to `connect`.
async fn name(socket: &mut Socket) -> Option<String> {
    let reply = ask(socket, json!({"id": 1, "connect": {}})).await.ok()?;
    Some(tame(reply["node"].as_str()?))
}

/// Sends a message on one socket and waits for it on that socket and on a second one, on another node if possible.
pub(super) async fn message(sockets: &mut [Socket]) -> Result<Good, Trouble> {
    let Some((first, others)) = sockets.split_first_mut() else {
        return Ok(Good::skipped("no connection is open"));
    };
    let other = others.iter().position(|socket| socket.node != first.node).unwrap_or(0);
    let Some(second) = others.get_mut(other) else {
        return Ok(Good::skipped("needs two connections"));
    };
    if first.native && second.native { native(first, second).await } else { text(first, second).await }
}

fn names(first: &Socket, second: &Socket) -> String {
    match (&first.node, &second.node) {
        (Some(first), Some(second)) if first == second => format!("both on {first}"),
        (Some(first), Some(second)) => format!("{first} to {second}"),
        _ => "one socket to another".to_owned(),
    }
}

async fn native(first: &mut Socket, second: &mut Socket) -> Result<Good, Trouble> {
    let channel = format!("fanfare-probe-{:016x}", fastrand::u64(..));
    let way = names(first, second);
    for socket in [&mut *first, &mut *second] {
        ask(socket, json!({"id": 2, "subscribe": {"channel": channel}})).await?;
    }
    let begin = Instant::now();
    send(first, &json!({"id": 3, "publish": {"channel": channel, "data": "probe"}})).await?;
    let is_ours = |object: &Value| object["channel"] == channel.as_str() && object["data"] == "probe";
    object(second, is_ours).await.map_err(|trouble| match trouble {
        Failed::Late => Trouble::new(
            format!("not delivered within {} s ({way})", STEP.as_secs()),
            "One node accepted the message and the other did not deliver it: they do not share a broker, or one of them \
             does not receive from it.",
            "`--broker` of both nodes (their banner names it); /ready and /metrics of each.",
        )
        .with(json!({"from": first.node, "to": second.node})),
        Failed::Otherwise(trouble) => trouble,
    })?;
    let took = begin.elapsed();
    object(first, is_ours).await.map_err(Failed::trouble)?;
    let what = format!("delivered in {}, {way}, and back to its sender ({})", time(took), NAME);
    Ok(Good::new(what, json!({"protocol": NAME, "from": first.node, "to": second.node})))
}

/// For servers that echo each text to all clients, as chats and `/raw/` do, or to its sender.
async fn text(first: &mut Socket, second: &mut Socket) -> Result<Good, Trouble> {
    let mark = format!("fanfare-probe-{:016x}", fastrand::u64(..));
    let way = names(first, second);
    let begin = Instant::now();
    first.send(Opcode::Text, mark.as_bytes()).await.map_err(|end| closed(&end))?;
    let (back, across) = tokio::join!(wait_for_text(first, &mark), wait_for_text(second, &mark));
    let across = across?.map(|at| time(at - begin));
    Ok(match (back?, across) {
        (Some(_), Some(took)) => {
            let what = format!("a text came back to its sender and reached the other connection, {way}, in {took}");
            Good::new(what, json!({"protocol": "text", "from": first.node, "to": second.node}))
        }
        (None, Some(took)) => {
            let what =
                format!("a text reached the other connection, {way}, in {took}, and did not come back to its sender");
            Good::new(what, json!({"protocol": "text", "from": first.node, "to": second.node}))
        }
        (Some(at), None) => {
            let took = time(at - begin);
            let what =
                format!("a text came back to its sender in {took} and reached no other connection: a plain echo");
            Good::new(what, json!({"protocol": "echo"}))
        }
        (None, None) => Good::skipped(format!(
            "not tested: the server does not speak fanfare.v1, and it echoed no text within {} s",
            ECHO.as_secs()
        )),
    })
}

async fn wait_for_text(socket: &mut Socket, mark: &str) -> Result<Option<Instant>, Trouble> {
    let arrival = async {
        loop {
            match socket.text().await {
                Ok(text) if text.contains(mark) => return Ok(Some(Instant::now())),
                Ok(_) => {}
                Err(end) => return Err(closed(&end)),
            }
        }
    };
    timeout(ECHO, arrival).await.unwrap_or(Ok(None))
}

enum Failed {
    Late,
    Otherwise(Trouble),
}

impl Failed {
    fn trouble(self) -> Trouble {
        match self {
            Self::Otherwise(trouble) => trouble,
            Self::Late => Trouble::new(
                format!("no reply within {} s", STEP.as_secs()),
                "The node accepted the upgrade but does not answer.",
                "the node's load and log.",
            ),
        }
    }
}

/// Sends a command and returns the `ok` of its reply.
async fn ask(socket: &mut Socket, command: Value) -> Result<Value, Trouble> {
    send(socket, &command).await?;
    let mut reply = object(socket, |object| object["id"] == command["id"]).await.map_err(Failed::trouble)?;
    match &reply["error"] {
        Value::Null => Ok(reply["ok"].take()),
        error => Err(refused(error)),
    }
}

async fn send(socket: &mut Socket, command: &Value) -> Result<(), Trouble> {
    socket.send(Opcode::Text, command.to_string().as_bytes()).await.map_err(|end| closed(&end))
}

/// Waits for an object that `wanted` accepts. An error from the server ends the wait.
async fn object(socket: &mut Socket, wanted: impl Fn(&Value) -> bool) -> Result<Value, Failed> {
    let arrival = async {
        loop {
            let text = socket.text().await.map_err(|end| Failed::Otherwise(closed(&end)))?;
            let object: Value = serde_json::from_str(&text).unwrap_or_default();
            if wanted(&object) {
                return Ok(object);
            }
            if !object["error"].is_null() {
                return Err(Failed::Otherwise(refused(&object["error"])));
            }
        }
    };
    timeout(STEP, arrival).await.unwrap_or(Err(Failed::Late))
}

fn refused(error: &Value) -> Trouble {
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    let (means, look) = match text("code").as_str() {
        "unavailable" | "unknown" => ("The node has lost its broker.", "/ready of the node, and the broker."),
        "overloaded" => ("The node has too many publishes under way.", "the broker's latency; `broker.in_flight`."),
        _ => ("The node refused the command.", "docs/protocol.md, Errors."),
    };
    Trouble::new(format!("refused: {}: {}", text("code"), text("message")), means, look)
}

fn closed(end: &End) -> Trouble {
    Trouble::new(
        format!("the connection was ended {}", end.words()),
        "It ended before the message arrived.",
        "the logs of node and balancer at this moment; the table of close codes in docs/protocol.md.",
    )
}
