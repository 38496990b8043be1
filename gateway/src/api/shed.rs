//! `POST /v1/shed`: moves clients from the fullest nodes to the others, as `fanfare shed` does, or shows what would move.

use axum::http::StatusCode;
use axum::http::request::Parts;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::body::Kind;
use super::messages::{parse, present};
use super::problem::{Problem, Reply, json_reply};
use crate::cluster::{Control, Live, Part, Plan, Shed};

/// The most bytes of the body.
const BODY: usize = 16 << 10;

/// Clients a second, and the percentage of its share that a node may have more, if the request does not say.
const PACE: u32 = 100;
const TOLERANCE: u32 = 2;

/// The fastest pace.
const FASTEST: u32 = 100_000;

/// What to do. Without a field, the default order.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    #[serde(deserialize_with = "present")]
    pace: Option<u32>,
    #[serde(deserialize_with = "present")]
    tolerance: Option<u32>,
    everyone: bool,
    /// Only to say what would move.
    dry_run: bool,
    /// To end the shed that is under way.
    stop: bool,
}

impl Wanted {
    /// The order, without its id.
    fn order(&self) -> Result<Shed, Problem> {
        let Self { pace, tolerance, everyone, dry_run, stop } = *self;
        if stop {
            if pace.is_some() || tolerance.is_some() || everyone || dry_run {
                return Err(Problem::bad_request("send `stop` alone"));
            }
            return Ok(Shed::default());
        }
        let (pace, tolerance) = (pace.unwrap_or(PACE), tolerance.unwrap_or(TOLERANCE));
        if !(1..=FASTEST).contains(&pace) {
            return Err(Problem::bad_request(format!("`pace` is 1 to {FASTEST} clients a second")));
        }
        if tolerance > 100 {
            return Err(Problem::bad_request("`tolerance` is 0 to 100 percent"));
        }
        Ok(Shed { id: String::new(), pace, tolerance, everyone })
    }
}

impl Api {
    pub(super) async fn shed(&self, head: &Parts, body: Incoming) -> Result<Reply, Problem> {
        Kind::must_be_json(&head.headers)?;
        let (body, _room) = self.read(body, BODY).await?;
        let wanted: Wanted = parse(&body)?;
        let order = wanted.order()?;
        if wanted.stop {
            return self.order(Control { shed: Some(order), ..Control::default() }).await;
        }
        let lives = self.figures().await?;
        let plan = Plan::new(&order, lives.iter().map(|live| &live.node));
        let nodes: Vec<_> = lives.iter().zip(&plan.nodes).map(|(live, part)| described(live, part)).collect();
        let mut document = json!({
            "moves": plan.moves,
            "seconds": plan.span.as_secs_f64().ceil() as u64,
            "nodes": nodes,
            "complete": self.shared.cluster.knows_lives(),
        });
        if plan.moves > 0 && !wanted.dry_run {
            let id = format!("{:016x}", fastrand::u64(..));
            document["id"] = id.clone().into();
            let at = self.write(&Control { shed: Some(Shed { id, ..order }), ..Control::default() }).await?;
            if let Some(at) = at {
                document["at"] = at.into();
            }
        }
        Ok(json_reply(StatusCode::OK, document.to_string()))
    }

    /// The nodes in the order of their names, each with figures of now.
    async fn figures(&self) -> Result<Vec<Live>, Problem> {
        let now = (self.shared.clock)();
        self.write(&Control { report: true, ..Control::default() }).await?;
        let mut lives = self.shared.cluster.figures(now).await;
        lives.sort_by(|one, other| one.node.name.cmp(&other.node.name));
        Ok(lives)
    }
}

/// A node, and what it gives up.
fn described(Live { node, .. }: &Live, part: &Part) -> Value {
    let mut document = json!({
        "name": node.name,
        "id": format!("{:016x}", node.life.node),
        "connections": node.connections,
        "resumable": node.resumable,
        "capacity": node.capacity,
        "draining": node.draining,
        "above": part.above,
        "gives": part.gives,
    });
    if let Some(share) = part.share {
        document["share"] = share.into();
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_defaults_and_limits_and_a_stop_has_nothing_else() {
        let order = |body: &str| parse::<Wanted>(body.as_bytes()).and_then(|wanted| wanted.order()).ok();
        let shed = |pace, tolerance, everyone| Some(Shed { id: String::new(), pace, tolerance, everyone });
        for (body, expected) in [
            ("{}", shed(100, 2, false)),
            (r#"{"pace":7,"tolerance":0,"everyone":true,"dry_run":true}"#, shed(7, 0, true)),
            (r#"{"pace":100000,"tolerance":100}"#, shed(100_000, 100, false)),
            (r#"{"stop":true}"#, shed(0, 0, false)),
            (r#"{"stop":true,"pace":1}"#, None),
            (r#"{"stop":true,"dry_run":true}"#, None),
            (r#"{"pace":0}"#, None),
            (r#"{"pace":100001}"#, None),
            (r#"{"tolerance":101}"#, None),
            (r#"{"pace":null}"#, None),
            (r#"{"speed":1}"#, None),
            ("", None),
        ] {
            assert_eq!(order(body), expected, "{body}");
        }
    }
}
