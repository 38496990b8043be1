//! Computes the resources for a load: each figure with its formula.
//!
//! Pure. Nodes are sized for the loss of one node, CPU for half load.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Options;
use super::costs::{
    BALANCER, CONNECTION, DELIVERY, FORWARD, HANDSHAKE, IDS, NODE, OPEN, PING, PUBLISH, RECORD, SOCKET, TLS_OPEN,
    TLS_TUNNEL, TUNNEL,
};
use crate::columns::grouped;
use crate::config::{Limits, Window};

/// Descriptors of a node besides those of its clients. Enough for what it reserves with any broker and 16 workers.
const NODE_FILES: f64 = 200.0;
/// Descriptors of HAProxy besides its tunnels: listeners, health checks, logs, resolvers.
const BALANCER_FILES: f64 = 200.0;
/// Spare connections for clients that reconnect before their old connection is gone, in percent.
const RECONNECTING: f64 = 10.0;
/// Cores to provide per core of load, so that each core is half busy.
const HEADROOM: f64 = 2.0;
/// Ethernet, IPv4 and TCP with time stamps, per segment, in bytes.
const SEGMENT: f64 = 66.0;
/// Payload of a segment, in bytes.
const SEGMENT_SIZE: f64 = 1448.0;
/// Bytes that the native protocol and the WebSocket frame add to a message.
const ENVELOPE: f64 = 90.0;
/// A TLS record's header, tag and content type, in bytes.
const TLS_RECORD: f64 = 22.0;

/// The settings of a node that limit its connections.
const ALLOW: &str = "http.max_connections and limits.connections_per_address (with trusted_proxies) must allow it";

/// The unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// Bits per second.
    BitsPerSecond,
    /// CPU cores.
    Cores,
    /// Things per second.
    PerSecond,
    /// Seconds.
    Seconds,
}

/// One result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its name, in words.
    pub name: &'static str,
    /// Its value, in `unit`.
    #[serde(serialize_with = "rounded")]
    pub value: f64,
    /// Its unit.
    pub unit: Unit,
    /// How it was computed.
    pub formula: String,
}

fn rounded<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1000.0).round() / 1000.0)
}

/// What each node, the balancer and the cluster need.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// What each node needs after another one is lost.
    pub node: Vec<Figure>,
    /// What the balancer needs; there is one.
    pub balancer: Vec<Figure>,
    /// What happens when a node is lost.
    pub loss: Vec<Figure>,
}

/// The needs to compare with a machine's limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Needs {
    /// Connections of one node.
    pub(super) connections: f64,
    pub(super) maxconn: f64,
    pub(super) node: Need,
    pub(super) balancer: Need,
}

/// What a node or the balancer needs; memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Need {
    pub(super) files: f64,
    pub(super) memory: f64,
    pub(super) cores: f64,
}

/// Bytes on the wire for one message of `size` bytes.
fn wire(size: f64, tls: bool) -> f64 {
    let payload = size + ENVELOPE + if tls { TLS_RECORD } else { 0.0 };
    payload + (payload / SEGMENT_SIZE).ceil() * SEGMENT
}

fn figure(name: &'static str, value: f64, unit: Unit, formula: impl fmt::Display) -> Figure {
    Figure { name, value, unit, formula: formula.to_string() }
}

/// Computes the plan.
pub(super) fn plan(options: &Options) -> (Plan, Needs) {
    let load = Load::of(options);
    let ((node, of_node), (balancer, of_balancer)) = (load.node(), load.balancer());
    let needs = Needs { connections: load.each, maxconn: load.maxconn(), node: of_node, balancer: of_balancer };
    (Plan { node, balancer, loss: load.loss() }, needs)
}

/// The load as numbers that the formulas share.
struct Load {
    all: f64,
    nodes: f64,
    /// Nodes that remain when one is lost.
    left: f64,
    /// Connections of each remaining node.
    each: f64,
    /// Messages per second, and the size of one in bytes.
    rate: f64,
    size: f64,
    /// Deliveries to subscribers per second, by all nodes together.
    deliveries: f64,
    /// Seconds between two pings.
    ping: f64,
    tls: bool,
    /// For the formulas: all connections, and those of one node.
    total: String,
    share: String,
}

impl Load {
    fn of(options: &Options) -> Self {
        let (all, nodes, rate) = (options.connections as f64, f64::from(options.nodes), options.rate as f64);
        let left = (nodes - 1.0).max(1.0);
        let total = grouped(all);
        let share = if options.nodes > 1 { format!("{total} / ({nodes} − 1)") } else { "all".to_owned() };
        Self {
            all,
            nodes,
            left,
            each: (all / left).ceil(),
            rate,
            size: options.size.bytes() as f64,
            deliveries: rate * options.subscribers as f64,
            ping: options.ping.as_secs_f64(),
            tls: options.tls,
            total,
            share,
        }
    }

    fn maxconn(&self) -> f64 {
        (self.all * (100.0 + RECONNECTING) / 10_000.0).ceil() * 100.0
    }

    /// The share of one node, with the reason for it.
    fn spare(&self) -> String {
        let share = &self.share;
        if self.nodes > 1.0 { format!("{share}, so that one may be lost") } else { share.clone() }
    }

    fn node(&self) -> (Vec<Figure>, Need) {
        let Self { each, rate, size, ping, .. } = *self;
        let deliveries = self.deliveries / self.left;
        let Window { age, bytes } = Window::default();
        let kept = (rate * age.as_secs_f64()).min(bytes.bytes() as f64 / (2.0 * size + RECORD.value));
        let window = kept * (2.0 * size + RECORD.value);
        let ids = if rate > 0.0 { IDS.value } else { 0.0 };
        let user = NODE.value + ids + window + each * CONNECTION.value;
        let outboxes = Limits::default().outbox_total.bytes() as f64;
        let kernel = each * SOCKET.value;
        let busy = rate * PUBLISH.seconds() + deliveries * DELIVERY.seconds() + each / ping * PING.seconds();
        let (files, cores, bytes) = (each + NODE_FILES, busy * HEADROOM, wire(size, false));
        let out = deliveries * bytes + each / ping * (SEGMENT + 2.0);
        let into = rate * bytes + deliveries * SEGMENT + each / ping * (SEGMENT + 6.0);
        let (node, ids, window) = (NODE.value / 1e6, ids / 1e6, window / 1e6);
        let connection = CONNECTION.value;
        let (publish, delivery, pong) = (PUBLISH.value, DELIVERY.value, PING.value);
        let [memory, cpu] = [
            format!("{node:.0} MB + ids {ids:.0} MB + window {window:.0} MB + connections × {connection} B"),
            format!(
                "{HEADROOM} × ({rate}/s × {publish} µs + {deliveries:.0}/s × {delivery} µs + connections / {ping} s × {pong} µs)"
            ),
        ];
        let sent = format!("{deliveries:.0}/s × {bytes:.0} B, pings");
        let received = format!("{rate}/s × {bytes:.0} B from the broker, acknowledgements, pongs");
        let figures = vec![
            figure("connections", each, Unit::Count, format!("{}; {ALLOW}", self.spare())),
            figure("descriptors", files, Unit::Count, format!("connections + {NODE_FILES}")),
            figure("memory, node", user, Unit::Bytes, memory),
            figure("memory, kernel", kernel, Unit::Bytes, format!("connections × {} B", SOCKET.value)),
            figure("memory, slow clients", outboxes, Unit::Bytes, "at most, in outboxes (limits.outbox_total)"),
            figure("memory in all", user + kernel + outboxes, Unit::Bytes, "the three together"),
            figure("CPU", cores, Unit::Cores, cpu),
            figure("bandwidth out", out * 8.0, Unit::BitsPerSecond, sent),
            figure("bandwidth in", into * 8.0, Unit::BitsPerSecond, received),
        ];
        (figures, Need { files, memory: user + kernel + outboxes, cores })
    }

    fn balancer(&self) -> (Vec<Figure>, Need) {
        let Self { all, each, deliveries, ping, tls, ref total, ref share, .. } = *self;
        let tunnel = if tls { TLS_TUNNEL } else { TUNNEL };
        let user = BALANCER.value + all * tunnel.value;
        let kernel = 2.0 * all * SOCKET.value;
        let files = 2.0 * self.maxconn() + BALANCER_FILES;
        let cores = (deliveries + 2.0 * all / ping) * FORWARD.seconds() * HEADROOM;
        let bytes = wire(self.size, tls);
        let out = deliveries * bytes + all / ping * (SEGMENT + 2.0);
        let (base, each_tunnel, with) = (BALANCER.value / 1e6, tunnel.value, if tls { " (TLS)" } else { "" });
        let (back, forward) = (RECONNECTING, FORWARD.value);
        let [memory, cpu, sent] = [
            format!("{base:.0} MB + {total} × {each_tunnel} B{with}"),
            format!("{HEADROOM} × ({deliveries}/s + 2 × {total} / {ping} s) × {forward} µs"),
            format!("{deliveries}/s × {bytes:.0} B to clients, pings; as much in from the nodes"),
        ];
        let ports = format!("{share}, for each pair of addresses of balancer and node");
        let early = format!("{back} % more, for clients that reconnect before their old connection is gone");
        let figures = vec![
            figure("maxconn", self.maxconn(), Unit::Count, early),
            figure(
                "descriptors",
                files,
                Unit::Count,
                format!("2 × maxconn + {BALANCER_FILES}: two per socket; fd-hard-limit must allow it"),
            ),
            figure("source ports to a node", each, Unit::Count, ports),
            figure("memory, HAProxy", user, Unit::Bytes, memory),
            figure("memory, kernel", kernel, Unit::Bytes, format!("2 × {total} × {} B", SOCKET.value)),
            figure("memory in all", user + kernel, Unit::Bytes, "the two together"),
            figure("CPU", cores, Unit::Cores, cpu),
            figure("bandwidth out", out * 8.0, Unit::BitsPerSecond, sent),
        ];
        (figures, Need { files, memory: user + kernel, cores })
    }

    fn loss(&self) -> Vec<Figure> {
        let lost = (self.all / self.nodes).ceil();
        let opening = OPEN.seconds() + if self.tls { TLS_OPEN.seconds() } else { 0.0 };
        let (at_balancer, at_node) = (lost * opening, lost / self.left * HANDSHAKE.seconds());
        let shortest = at_balancer.max(at_node);
        let (clients, each, node) = (grouped(lost), grouped(lost / self.left), HANDSHAKE.value);
        let opening = opening * 1e6;
        let rate = "at most, with a free core in the balancer and in each node; see also http.accept_rate";
        let time = format!("at least: {clients} × {opening:.0} µs in the balancer or {each} × {node} µs in a node");
        vec![
            figure("clients to reconnect", lost, Unit::Count, format!("{} / {}", self.total, self.nodes)),
            figure("handshakes", lost / shortest, Unit::PerSecond, rate),
            figure("reconnection", shortest, Unit::Seconds, time),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::options;
    use super::*;

    /// Defaults of `limits.outbox_total` and `window.bytes`.
    const OUTBOXES: f64 = 256.0 * 1024.0 * 1024.0;
    const WINDOW_BYTES: f64 = 64.0 * 1024.0 * 1024.0;

    fn value(figures: &[Figure], name: &str) -> f64 {
        figures.iter().find(|figure| figure.name == name).map_or(f64::NAN, |figure| figure.value)
    }

    #[test]
    fn each_figure_follows_from_the_load() {
        let (plan, needs) = plan(&options("--connections 100000 --nodes 3 --rate 0"));
        assert_eq!(value(&plan.node, "connections"), 50_000.0);
        assert_eq!(value(&plan.node, "descriptors"), 50_200.0);
        assert_eq!(value(&plan.node, "memory, node"), 13e6 + 50_000.0 * 1_230.0);
        assert_eq!(value(&plan.node, "memory, kernel"), 50_000.0 * 4_900.0);
        assert_eq!(value(&plan.balancer, "maxconn"), 110_000.0);
        assert_eq!(value(&plan.balancer, "descriptors"), 220_200.0);
        assert_eq!(value(&plan.balancer, "source ports to a node"), 50_000.0);
        assert_eq!(value(&plan.balancer, "memory, HAProxy"), 10e6 + 100_000.0 * 4_800.0);
        assert_eq!(value(&plan.loss, "clients to reconnect"), 33_334.0);
        assert_eq!(needs.node.memory, 13e6 + 50_000.0 * 6_130.0 + OUTBOXES);
        assert_eq!(value(&plan.node, "memory in all"), needs.node.memory);
        // 2,000 pings a second of 15.4 µs, at half load.
        assert!((needs.node.cores - 2_000.0 * 15.4e-6 * 2.0).abs() < 1e-9, "{}", needs.node.cores);
    }

    #[test]
    fn a_single_node_carries_all_connections() {
        let (plan, _) = plan(&options("--connections 15000 --nodes 1"));
        assert_eq!(value(&plan.node, "connections"), 15_000.0);
        assert_eq!(value(&plan.loss, "clients to reconnect"), 15_000.0);
    }

    #[test]
    fn messages_cost_cpu_bandwidth_and_the_window() {
        let of = |line: &str| plan(&options(line));
        let (quiet, _) = of("--connections 1000 --rate 0");
        let (busy, needs) = of("--connections 1000 --rate 1000 --size 1KiB --subscribers 100");
        let more = value(&busy.node, "memory, node") - value(&quiet.node, "memory, node");
        assert!((more - 27e6 - WINDOW_BYTES).abs() < 1.0, "{more}: the window is full");
        let (some, _) = of("--connections 1000 --rate 10 --size 64B");
        let more = value(&some.node, "memory, node") - value(&quiet.node, "memory, node");
        assert_eq!(more, 27e6 + 3000.0 * 748.0);
        // 50,000 deliveries a second on each of two nodes, and 1,000 messages.
        assert!((needs.node.cores - 2.0 * (0.05 + 50_000.0 * 5.5e-6)).abs() < 0.01, "{}", needs.node.cores);
        assert!((value(&busy.node, "bandwidth out") - 50_000.0 * 8.0 * (1024.0 + 90.0 + 66.0)).abs() < 1e5);
    }

    #[test]
    fn tls_costs_the_balancer_memory_and_handshakes() {
        let (plain, _) = plan(&options("--connections 10000"));
        let (tls, _) = plan(&options("--connections 10000 --tls"));
        assert_eq!(value(&tls.balancer, "memory, HAProxy") - value(&plain.balancer, "memory, HAProxy"), 1e4 * 14_900.0);
        assert!(value(&tls.loss, "handshakes") < value(&plain.loss, "handshakes") / 5.0);
        assert_eq!(tls.node, plain.node, "TLS ends at the balancer");
        assert_eq!(value(&plain.loss, "reconnection"), 3334.0 * 70e-6);
    }

    #[test]
    fn a_message_larger_than_a_segment_has_several_headers() {
        assert_eq!(wire(64.0, false), 64.0 + 90.0 + 66.0);
        assert_eq!(wire(1400.0, false), 1400.0 + 90.0 + 2.0 * 66.0);
    }
}
