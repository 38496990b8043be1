//! The node's counters, in the text format of Prometheus.
//!
//! One value, passed in. Labels are bounded: reasons and outcomes, never a channel or a client.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use broker_adapters::{Log, Position, PublishError};

use crate::close::CloseReason;
use crate::cluster::{Clients, Cluster};
use crate::hooks::AllCounters;
use crate::webhooks;

/// The node's counters.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    opened: AtomicU64,
    closed: Mutex<BTreeMap<&'static str, u64>>,
    /// Of the open connections, those whose protocol can resume.
    resumable: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
    made_room: AtomicU64,
    received: AtomicU64,
    delivered: AtomicU64,
    skipped: AtomicU64,
    limited: AtomicU64,
    published: [AtomicU64; OUTCOMES.len()],
    log_lines_dropped: Arc<AtomicU64>,
    hooks: Arc<AllCounters>,
    webhooks: Arc<webhooks::Counters>,
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The node has `http.max_connections` connections.
    Full,
    /// Only descriptors that the node keeps for itself are left.
    Descriptors,
    /// The node has accepted as many connections as it may in this second.
    Rate,
    /// The client's address has as many connections as it may have.
    Address,
    /// The PROXY header was missing, invalid or late, or came from an address that is not trusted.
    ProxyHeader,
    /// The TLS handshake failed.
    Tls,
    /// The page's origin is not allowed.
    Origin,
    /// The request names a host that is not one of the node's names.
    Host,
    /// The handshake is invalid for another reason.
    Handshake,
    /// The head of the request is too large.
    Head,
    /// There is no WebSocket at the path.
    Path,
    /// The client's token is missing or not valid.
    Token,
    /// A request to the API has no valid key.
    Key,
}

impl Refused {
    /// All reasons with their labels, in the order of the enum.
    pub(crate) const ALL: [(Self, &str); 13] = [
        (Self::Full, "full"),
        (Self::Descriptors, "descriptors"),
        (Self::Rate, "rate"),
        (Self::Address, "address"),
        (Self::ProxyHeader, "proxy_header"),
        (Self::Tls, "tls"),
        (Self::Origin, "origin"),
        (Self::Host, "host"),
        (Self::Handshake, "handshake"),
        (Self::Head, "head"),
        (Self::Path, "path"),
        (Self::Token, "token"),
        (Self::Key, "key"),
    ];
}

const OUTCOMES: [&str; 5] = ["stored", "rejected", "overloaded", "unavailable", "unknown"];

impl Metrics {
    /// New counters. The program's log counts its dropped lines in `log_lines_dropped`.
    pub(crate) fn new(log_lines_dropped: Arc<AtomicU64>) -> Self {
        Self { log_lines_dropped, ..Self::default() }
    }

    /// The same, with what hooks count.
    pub(crate) fn with_hooks(self, hooks: Arc<AllCounters>) -> Self {
        Self { hooks, ..self }
    }

    /// The same, with what webhooks count.
    pub(crate) fn with_webhooks(self, webhooks: Arc<webhooks::Counters>) -> Self {
        Self { webhooks, ..self }
    }

    /// Counts a connection that has begun. `resumes` says whether its protocol can resume.
    pub(crate) fn opened(&self, resumes: bool) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.resumable.fetch_add(resumes.into(), Ordering::Relaxed);
    }

    /// Counts a connection that has ended.
    pub(crate) fn closed(&self, reason: CloseReason, resumes: bool) {
        self.resumable.fetch_sub(resumes.into(), Ordering::Relaxed);
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner).entry(reason.label()).or_default() += 1;
    }

    /// Counts a refused client.
    pub(crate) fn refused(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a client that was closed because the backlog of all clients was over its limit.
    pub(crate) fn made_room(&self) {
        self.made_room.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message from a client.
    pub(crate) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts messages queued for clients.
    /// Notes a command that was refused because of a rate.
    pub(crate) fn limited(&self) {
        self.limited.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes messages that a slow subscriber of a `latest` channel does not receive.
    pub(crate) fn skipped(&self, messages: u64) {
        self.skipped.fetch_add(messages, Ordering::Relaxed);
    }

    pub(crate) fn delivered(&self, messages: usize) {
        self.delivered.fetch_add(messages as u64, Ordering::Relaxed);
    }

    pub(crate) fn published(&self, result: &Result<Option<Position>, PublishError>) {
        let outcome = match result {
            Ok(_) => 0,
            Err(PublishError::Rejected(_)) => 1,
            Err(PublishError::Overloaded(_)) => 2,
            Err(PublishError::Unavailable) => 3,
            Err(PublishError::Unknown) => 4,
        };
        self.published[outcome].fetch_add(1, Ordering::Relaxed);
    }

    /// The number of open connections.
    pub(crate) fn open(&self) -> u64 {
        self.clients().open
    }

    /// The clients of now, for reports and for a shed.
    pub(crate) fn clients(&self) -> Clients {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, moved) = (closed.values().sum(), closed.get(CloseReason::Moved.label()).copied().unwrap_or_default());
        let open = self.opened.load(Ordering::Relaxed).saturating_sub(all);
        Clients { open, resumable: self.resumable.load(Ordering::Relaxed), moved }
    }

    /// All metrics, as the answer to a scrape.
    pub(crate) fn text(&self, log: &Log, ready: bool, cluster: &Cluster) -> String {
        let mut out = String::new();
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (opened, open) = (self.opened.load(Ordering::Relaxed), self.open());
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# HELP fanfare_{name} {help}\n# TYPE fanfare_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(out, "fanfare_{name}{labels} {value}");
            }
        };
        let plain = |value: u64| [(String::new(), value)];
        let read = |counter: &AtomicU64| plain(counter.load(Ordering::Relaxed));
        let labelled = |label: &str, value: &str, n: u64| (format!("{{{label}=\"{value}\"}}"), n);
        family("ready", "gauge", "1 while the node should be sent new clients.", &plain(ready.into()));
        let help = "Nodes of the cluster that live, as this node knows; 0 before it has read the log.";
        family("nodes", "gauge", help, &plain(cluster.size() as u64));
        let help = "Clients that this node has yet to move in the shed that is under way.";
        family("shed_left", "gauge", help, &plain(cluster.shed_left()));
        family("connections", "gauge", "Open WebSocket connections.", &plain(open));
        family("connections_opened_total", "counter", "WebSocket connections since the start.", &plain(opened));
        let samples: Vec<_> = closed.iter().map(|(reason, n)| labelled("reason", reason, *n)).collect();
        family("connections_closed_total", "counter", "Connections that ended, by reason.", &samples);
        let refused = Refused::ALL.iter().zip(&self.refused);
        let samples: Vec<_> = refused.map(|((_, why), n)| labelled("reason", why, n.load(Ordering::Relaxed))).collect();
        family("connections_refused_total", "counter", "Connections refused, by reason.", &samples);
        let help = "Connections closed because limits.outbox_total was used up, slowest first.";
        family("connections_closed_for_room_total", "counter", help, &read(&self.made_room));
        family("messages_received_total", "counter", "Messages from clients.", &read(&self.received));
        family(
            "messages_delivered_total",
            "counter",
            "Messages queued for clients, counted once per receiver.",
            &read(&self.delivered),
        );
        let help = "Messages that slow subscribers of channels with `slow = latest` do not receive.";
        family("messages_skipped_total", "counter", help, &read(&self.skipped));
        let help = "Commands refused because of a rate.";
        family("commands_limited_total", "counter", help, &read(&self.limited));
        let outcomes = OUTCOMES.iter().zip(&self.published);
        let samples: Vec<_> =
            outcomes.map(|(outcome, n)| labelled("outcome", outcome, n.load(Ordering::Relaxed))).collect();
        family("publishes_total", "counter", "Messages given to the broker, by outcome.", &samples);
        let help = "Lines of the program's log that were dropped.";
        family("log_lines_dropped_total", "counter", help, &read(&self.log_lines_dropped));
        let counters = log.counters();
        let help = "Records dropped because a record with the same id came before.";
        family("broker_duplicates_total", "counter", help, &plain(counters.duplicates.value()));
        let help = "Records skipped because only newer releases know their kind.";
        family("broker_skipped_total", "counter", help, &plain(counters.skipped.value()));
        let help = "Places where the broker's log did not continue from the last record read.";
        family("broker_breaks_total", "counter", help, &plain(counters.breaks.value()));
        let help = "Requests to the broker for records older than the window.";
        family("broker_read_backs_total", "counter", help, &plain(counters.read_backs.value()));
        out += &self.hooks.text();
        out += &self.webhooks.text();
        out
    }
}
