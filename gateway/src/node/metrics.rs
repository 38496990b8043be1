//! What the node counts, in the text format of Prometheus.
//!
//! One value, passed in. Labels are bounded: reasons and outcomes, never a channel or a client.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use broker_adapters::{Log, Position, PublishError};

use crate::close::CloseReason;

/// The node's counters.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    opened: AtomicU64,
    closed: Mutex<BTreeMap<&'static str, u64>>,
    refused: [AtomicU64; Refused::ALL.len()],
    made_room: AtomicU64,
    received: AtomicU64,
    delivered: AtomicU64,
    published: [AtomicU64; OUTCOMES.len()],
    log_lines_dropped: Arc<AtomicU64>,
}

/// Why a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The node has all the connections it may have.
    Full,
    /// The descriptors that are left are the node's own.
    Descriptors,
    /// It has taken all that it takes in a second.
    Rate,
    /// The client's address has.
    Address,
    /// The PROXY header was missing, bad or late, or came from someone who may not send it.
    ProxyHeader,
    /// The TLS handshake failed.
    Tls,
    /// The page that connects is of another origin.
    Origin,
    /// It asked for a name that the node does not have.
    Host,
    /// It is no lawful handshake for another reason.
    Handshake,
    /// The head of its request is too large.
    Head,
    /// There is no WebSocket at its path.
    Path,
}

impl Refused {
    /// All reasons, each at the index that it has as a number.
    pub(crate) const ALL: [(Self, &str); 11] = [
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
    ];
}

const OUTCOMES: [&str; 5] = ["stored", "rejected", "overloaded", "unavailable", "unknown"];

impl Metrics {
    /// With the log's own count of lines that it dropped.
    pub(crate) fn new(log_lines_dropped: Arc<AtomicU64>) -> Self {
        Self { log_lines_dropped, ..Self::default() }
    }

    pub(crate) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner).entry(reason.label()).or_default() += 1;
    }

    /// A client was turned away.
    pub(crate) fn refused(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A client was cut off because there was no room for what waited for all clients.
    pub(crate) fn made_room(&self) {
        self.made_room.fetch_add(1, Ordering::Relaxed);
    }

    /// A message came from a client.
    pub(crate) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages were queued for clients.
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

    /// Everything, for a scrape.
    pub(crate) fn text(&self, log: &Log, ready: bool) -> String {
        let mut out = String::new();
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let opened = self.opened.load(Ordering::Relaxed);
        let open = opened.saturating_sub(closed.values().sum());
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
        family("connections", "gauge", "Open WebSocket connections.", &plain(open));
        family("connections_opened_total", "counter", "WebSocket connections since the start.", &plain(opened));
        let samples: Vec<_> = closed.iter().map(|(reason, n)| labelled("reason", reason, *n)).collect();
        family("connections_closed_total", "counter", "Connections that ended, by reason.", &samples);
        let refused = Refused::ALL.iter().zip(&self.refused);
        let samples: Vec<_> = refused.map(|((_, why), n)| labelled("reason", why, n.load(Ordering::Relaxed))).collect();
        family("connections_refused_total", "counter", "Connections turned away, by reason.", &samples);
        let help = "Connections that ended because limits.outbox_total was used up, the slowest first.";
        family("connections_closed_for_room_total", "counter", help, &read(&self.made_room));
        family("messages_received_total", "counter", "Messages from clients.", &read(&self.received));
        family(
            "messages_delivered_total",
            "counter",
            "Messages queued for clients, each counted for every receiver.",
            &read(&self.delivered),
        );
        let outcomes = OUTCOMES.iter().zip(&self.published);
        let samples: Vec<_> =
            outcomes.map(|(outcome, n)| labelled("outcome", outcome, n.load(Ordering::Relaxed))).collect();
        family("publishes_total", "counter", "Messages given to the broker, by outcome.", &samples);
        let help = "Lines of the log that could not be written, or for which there was no room.";
        family("log_lines_dropped_total", "counter", help, &read(&self.log_lines_dropped));
        let counters = log.counters();
        let help = "Records dropped because their id came before.";
        family("broker_duplicates_total", "counter", help, &plain(counters.duplicates.value()));
        let help = "Records passed over that only newer releases know, and that may be skipped.";
        family("broker_skipped_total", "counter", help, &plain(counters.skipped.value()));
        let help = "Places where the broker's log did not go on from what was read.";
        family("broker_breaks_total", "counter", help, &plain(counters.breaks.value()));
        let help = "Times that the broker was asked for records older than the window.";
        family("broker_read_backs_total", "counter", help, &plain(counters.read_backs.value()));
        out
    }
}
