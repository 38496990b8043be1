//! The timers of a connection: pings, incomplete messages, idle connections.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Worker;
use super::connection::Connection;
use super::hub::Member;
use crate::clock;
use crate::close::CloseReason;
use crate::codec;
use crate::config::Config;
use crate::protocol::{Notice, Output};

/// A timer of one connection. The serial distinguishes the connection from a later one with the same member number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timer {
    member: Member,
    serial: u32,
    what: Wake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// A ping is due.
    Ping,
    /// The answer to the ping is due.
    Pong,
    /// The incomplete message must be complete.
    Message,
    /// The connection is closed if it was not used since the last check.
    Idle,
    /// The client must have proven who it is, and its token may have ended.
    Identity,
}

/// If a worker checks its timers later than planned by more than this, it was paused.
const PAUSED: Duration = Duration::from_secs(1);

/// Detects that a worker was paused, for example with its machine. Clients may have answered meanwhile, so their timers
/// are judged only after the next reads.
#[derive(Debug)]
struct Pauses {
    last: Instant,
    most: Duration,
    skipped: bool,
}

impl Pauses {
    fn new(now: Instant, most: Duration) -> Self {
        Self { last: now, most, skipped: false }
    }

    /// Whether the worker was paused before `now`. Never true twice in a row, so that a worker that is always late
    /// still fires its timers.
    fn was_paused(&mut self, now: Instant) -> bool {
        let late = now.saturating_duration_since(self.last) > self.most;
        self.last = now;
        self.skipped = late && !self.skipped;
        self.skipped
    }
}

/// The tick of the timer wheel: 1/16 of the shortest configured time, from 5 to 500 ms, so that it is precise enough
/// and costs little.
pub(super) fn tick(config: &Config) -> Duration {
    let timing = &config.timing;
    let times = [Some(timing.ping), Some(timing.pong), timing.idle, Some(config.limits.message_time)];
    let shortest = times.into_iter().flatten().min().unwrap_or(timing.ping);
    (shortest / 16).clamp(Duration::from_millis(5), Duration::from_millis(500))
}

impl Worker {
    /// Fires timers while the worker lives.
    pub(super) async fn keep_time(self: Rc<Self>) {
        let mut interval = tokio::time::interval(self.wheel.borrow().tick());
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut due = Vec::new();
        let mut pauses = Pauses::new(clock::now(), interval.period() + PAUSED);
        loop {
            interval.tick().await;
            let now = clock::now();
            if pauses.was_paused(now) {
                continue;
            }
            self.wheel.borrow_mut().turn(now, &mut due);
            for timer in due.drain(..) {
                let connection = self.connections.borrow().get(timer.member as usize).cloned();
                if let Some(connection) = connection.filter(|one| one.serial == timer.serial && !one.is_ending()) {
                    self.wake(&connection, timer.what, now);
                }
            }
            self.flush();
        }
    }

    /// Sets the timers of a new connection.
    pub(super) fn watch(&self, connection: &Connection, now: Instant) {
        // A random part, from half to all, of the interval: clients that connected together are not pinged together.
        let interval = if connection.format.is_stream() { self.pace() } else { self.shared.config.timing.ping };
        let first = interval.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.schedule(connection, Wake::Ping, now + first);
        if let Some(idle) = self.shared.config.timing.idle {
            self.schedule(connection, Wake::Idle, now + idle);
        }
        self.watch_identity(connection, now);
    }

    /// Sets a timer for an incomplete message.
    pub(super) fn watch_message(&self, connection: &Connection, now: Instant) {
        let mut state = connection.state.borrow_mut();
        if !state.decoder.is_idle() && !std::mem::replace(&mut state.pulse.watched, true) {
            self.schedule(connection, Wake::Message, now + self.limits.message_time);
        }
    }

    fn wake(&self, connection: &Connection, what: Wake, now: Instant) {
        let timing = &self.shared.config.timing;
        match what {
            Wake::Identity => self.check_identity(connection),
            Wake::Ping if connection.format.is_stream() => self.beat(connection, now),
            Wake::Pong if connection.format.is_stream() => self.check_beat(connection, now),
            Wake::Ping => {
                self.watch_expiry(connection);
                connection.state.borrow_mut().pulse.asked(now);
                if let Output::Message(body) = self.ping(connection) {
                    connection.queue(self, self.backlog.frame(body.frame()));
                }
                // Every WebSocket library answers this ping by itself. Both pings leave in one write.
                connection.queue(self, self.backlog.frame(codec::ping(b"")));
                self.schedule(connection, Wake::Pong, now + timing.pong);
            }
            // A paused connection is not read, so its silence proves nothing.
            Wake::Pong if connection.state.borrow().is_silent() => {
                let due = connection.state.borrow().pulse.due(timing.pong);
                if due > now {
                    self.schedule(connection, Wake::Pong, due);
                } else {
                    self.end(connection, CloseReason::PingTimeout);
                }
            }
            Wake::Pong => {
                let rest = timing.ping.saturating_sub(timing.pong);
                let jitter = timing.ping.mul_f64(fastrand::f64() / 10.0);
                self.schedule(connection, Wake::Ping, now + rest.saturating_sub(jitter));
            }
            Wake::Message => {
                let mut state = connection.state.borrow_mut();
                state.pulse.watched = false;
                let overdue = state.waiting.is_none() && state.decoder.overdue(&self.limits, now);
                drop(state);
                if overdue {
                    self.end(connection, CloseReason::MessageTooSlow);
                } else {
                    self.watch_message(connection, now);
                }
            }
            Wake::Idle => {
                let mut state = connection.state.borrow_mut();
                let used =
                    std::mem::take(&mut state.pulse.used) || !state.seats.is_empty() || state.returning.is_some();
                drop(state);
                match timing.idle {
                    Some(idle) if used => self.schedule(connection, Wake::Idle, now + idle),
                    _ => self.end(connection, CloseReason::Idle),
                }
            }
        }
    }

    /// A ping with the position of each channel of which nothing waits outside the outbox: a client that resumes from there
    /// must not miss the newest message of a channel whose rule is `slow = latest`.
    pub(super) fn ping(&self, connection: &Connection) -> Output {
        let (state, hub, positions) = (connection.state.borrow(), self.hub.borrow(), self.positions.borrow());
        let all_queued = state.seats.iter().filter(|seat| !state.has_waiting(seat.channel));
        let positions = all_queued.filter_map(|seat| {
            let name = hub.name(seat.channel);
            Some((name, positions[usize::from(self.shared.log.partition_of(name).0)]?))
        });
        let positions: Vec<_> = positions.collect();
        connection.format.protocol().notice(Notice::Ping(&positions))
    }

    pub(super) fn schedule(&self, connection: &Connection, what: Wake, at: Instant) {
        let timer = Timer { member: connection.member, serial: connection.serial, what };
        self.wheel.borrow_mut().schedule(at, timer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paused_worker_reads_before_it_fires_timers_but_skips_only_once() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pauses = Pauses::new(start, second * 2);
        let judged = [1, 2, 30, 31, 60, 90, 120, 121].map(|at| !pauses.was_paused(start + second * at));
        assert_eq!(judged, [true, true, false, true, false, true, false, true]);
    }
}
