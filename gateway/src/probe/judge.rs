//! Concludes from the ends of idle connections what ended them.
//!
//! Pure. A WebSocket server sends a close frame when it ends a connection. A balancer cannot send one: it sends a FIN or a
//! reset. A NAT that forgets a connection sends nothing. An idle time-out spares *pinged*; an age limit does not.

use std::time::Duration;

use serde_json::json;

use super::idle::{Ending, Held, PING, Watch};
use super::step::{Outcome, Step, time};
use crate::client::End;

/// What ended a connection.
struct Finding {
    points_to: &'static str,
    /// Its length, if it is a time-out.
    timeout: Option<Duration>,
    what: String,
    means: String,
    look: String,
}

/// The step that says what ended the three connections, which were held for `idle`.
pub(super) fn step(held: &Held, idle: Duration) -> Step {
    let finding = find(held, idle);
    let pings = format!("pinged, a ping every {}", figure(PING.min(idle / 4)));
    let watches =
        [("quiet, only answers pings", &held.quiet), (&pings, &held.pinged), ("mute, answers nothing", &held.mute)];
    let mut notes: Vec<_> = watches.iter().map(|(name, watch)| format!("{name:<27} {}", describe(watch))).collect();
    notes.extend(server_pings(held));
    if held.quiet.messages > 0 {
        notes.push(format!("{} messages arrived meanwhile: choose a channel without messages.", held.quiet.messages));
    }
    let (outcome, points_to) = match &finding {
        Ok(_) => (Outcome::Ok, "nothing"),
        Err(finding) => (Outcome::Wrong, finding.points_to),
    };
    let took = held.quiet.life.max(held.pinged.life).max(held.mute.life);
    let facts = json!({
        "points_to": points_to,
        "timeout_ms": finding.as_ref().err().and_then(|finding| finding.timeout).map(|time| time.as_millis()),
        "quiet": held.quiet, "pinged": held.pinged, "mute": held.mute,
    });
    let (what, means, look) = match finding {
        Ok(what) => (what, String::new(), String::new()),
        Err(Finding { what, means, look, .. }) => (what, means, look),
    };
    Step { name: "idle", outcome, took: Some(took), what, notes, means, look, facts }
}

fn ended(watch: &Watch) -> bool {
    matches!(watch.end, Ending::Ended(_))
}

fn describe(watch: &Watch) -> String {
    let on = watch.node.as_ref().map_or(String::new(), |node| format!(" on {node}"));
    let after = match watch.unanswered {
        Some(since) => format!(", {} after a ping from the server that was not answered", figure(since)),
        None => format!(", after {} of silence", figure(watch.silence)),
    };
    match &watch.end {
        Ending::Open => format!("open after {}{on}", time(watch.life)),
        Ending::Silent => format!("dead after {}{on}: not closed, but no answer to a ping", time(watch.life)),
        Ending::Ended(end) => format!("ended at {}{on} {}{after}", time(watch.life), end.words()),
    }
}

/// A note about the server's own pings. They are traffic too, so they hide longer time-outs.
fn server_pings(held: &Held) -> Option<String> {
    let first = held.quiet.first_ping.or(held.mute.first_ping);
    let dropped = match (&held.mute.end, held.mute.unanswered) {
        (Ending::Ended(_), Some(since)) if !ended(&held.quiet) => Some(figure(since)),
        _ => None,
    };
    Some(match (first, dropped, &held.quiet.end) {
        (_, Some(since), _) => {
            format!("The node drops clients that leave its ping unanswered for {since} (`timing.pong`), as it should.")
        }
        (Some(first), None, Ending::Open) => {
            format!("The server sends pings itself, the first after {}. They are traffic too.", time(first))
        }
        (None, None, Ending::Open) => format!(
            "The server sent no ping in {}: a longer time-out may still end connections. Fanfare pings after 25 s at \
             the latest (`timing.ping`).",
            time(held.quiet.life)
        ),
        _ => return None,
    })
}

fn find(held: &Held, idle: Duration) -> Result<String, Finding> {
    let (quiet, pinged) = (&held.quiet, &held.pinged);
    match (&quiet.end, &pinged.end) {
        (Ending::Open, Ending::Open) => Ok(format!("nothing ended quiet connections within {}", time(idle))),
        (Ending::Ended(End::Violation(why)), _) | (_, Ending::Ended(End::Violation(why))) => Err(Finding {
            points_to: "node",
            timeout: None,
            what: format!("the server breaks RFC 6455: {why}"),
            means: "Clients close such a connection.".to_owned(),
            look: "what sits between here and the node, and the server's library.".to_owned(),
        }),
        (Ending::Open, _) => Err(Finding {
            points_to: "unknown",
            timeout: None,
            what: "a connection with pings ended, a quiet one did not".to_owned(),
            means: "This is not an idle time-out.".to_owned(),
            look: "limits on pings; the logs of node and balancer at this moment; the same probe once more.".to_owned(),
        }),
        (Ending::Silent, _) => Err(forgotten(idle, ended(pinged) || pinged.end == Ending::Silent)),
        (Ending::Ended(End::Broken(why)), _) => Err(Finding {
            points_to: "network",
            timeout: None,
            what: format!("lost on the way after {}: {why}", figure(quiet.life)),
            means: "Neither side closed it: this machine got no more answers and gave up.".to_owned(),
            look: "the network between here and the server; whether either machine was suspended.".to_owned(),
        }),
        (Ending::Ended(End::Close(frame)), _) => {
            let code = frame.as_ref().map_or(1005, |frame| frame.code);
            Err(closed(code, quiet, together(quiet, pinged) && ended(pinged)))
        }
        (Ending::Ended(end), Ending::Ended(_)) if together(quiet, pinged) => Err(aged(end, quiet)),
        (Ending::Ended(_), Ending::Open) => Err(cut(quiet)),
        (Ending::Ended(_), _) => Err(Finding {
            points_to: "unknown",
            timeout: None,
            what: format!("both ended, at {} and {}", time(quiet.life), time(pinged.life)),
            means: "No time-out explains both ends.".to_owned(),
            look: "the logs of node and balancer at these moments; the same probe once more.".to_owned(),
        }),
    }
}

/// *Quiet* was cut without a close frame, and traffic prevents that.
fn cut(quiet: &Watch) -> Finding {
    let after = figure(quiet.silence);
    let setting = after.replace(' ', "");
    Finding {
        points_to: "balancer",
        timeout: Some(quiet.silence),
        what: format!("a time-out of {after} without traffic: the balancer's, or another proxy's on the way"),
        means: format!(
            "It was cut without a close frame, which a server would have sent, and pings prevent it. In HAProxy this is `timeout tunnel \
             {setting}` or, if that is not set, the shorter of `timeout client` and `timeout server`: all traffic counts for \
             both, so they look alike from outside. In nginx it is proxy_read_timeout, in a cloud's balancer its idle time-out."
        ),
        look: format!(
            "these time-outs: set them well above the 25 s between the node's pings, or `timing.ping` below {setting}. \
             HAProxy's log (without `option logasap`) names the side: cD is `timeout client` or `tunnel`, sD is \
             `timeout server`. To rule out the server, probe it directly, without the balancer."
        ),
    }
}

/// Both ended at the same time, with traffic or without, and without a close frame.
fn aged(end: &End, quiet: &Watch) -> Finding {
    let at = figure(quiet.life);
    Finding {
        points_to: "age",
        timeout: None,
        what: format!("both ended at {at}, traffic or not: no idle time-out"),
        means: format!(
            "They ended {}. If they end at {at} again in the next run, something limits the age of connections \
             (`hard-stop-after` after a reload, a cloud's maximum connection age). If not, something was restarted or killed.",
            end.words()
        ),
        look: "the same probe once more; the logs of node and balancer at this moment; reloads and deploys.".to_owned(),
    }
}

/// The connection was dead, but not closed.
fn forgotten(idle: Duration, both: bool) -> Finding {
    let idle = time(idle);
    if both {
        return Finding {
            points_to: "network",
            timeout: None,
            what: format!("both dead after {idle}, traffic or not, and neither was closed"),
            means: "The network path to the server was cut, or the server hangs.".to_owned(),
            look: "the network; the server's load.".to_owned(),
        };
    }
    Finding {
        points_to: "network",
        timeout: None,
        what: "forgotten on the way: a NAT's or a firewall's time-out, most likely near the client".to_owned(),
        means: format!(
            "The quiet connection is dead but was not closed: neither balancer nor node ended it. A device that \
             keeps a table of connections dropped it after at most {idle} without traffic. Pings prevent that."
        ),
        look: "a shorter --idle, to find the time; the NAT's or firewall's idle time-out; `timing.ping` below it. \
               Clients should notice that pings stop, and not wait for a FIN."
            .to_owned(),
    }
}

/// The server sent a close frame.
fn closed(code: u16, quiet: &Watch, both: bool) -> Finding {
    let (after, at) = (figure(quiet.silence), figure(quiet.life));
    let end = if let Ending::Ended(end) = &quiet.end { end.words() } else { String::new() };
    let (points_to, timeout, what, means, look) = match code {
        1012 | 1001 if both || code == 1012 => (
            "restart",
            None,
            format!("the node was stopped at {at}"),
            "The node asked its clients to reconnect elsewhere. This is not a time-out.".to_owned(),
            "deploys and restarts at this moment.".to_owned(),
        ),
        _ if both => (
            "node",
            Some(quiet.life),
            format!("a time-out of the node: it ended both after {at}"),
            "Pings do not prevent it: the node wants messages or a subscription, or it limits the age.".to_owned(),
            "in Fanfare `timing.idle` (code 1000); the application's own limits; the node's log names the reason."
                .to_owned(),
        ),
        _ => (
            "node",
            Some(quiet.silence),
            format!("a time-out of the node: {after} without traffic"),
            "The node sent a close frame, which no balancer can send.".to_owned(),
            "the server's own idle or ping time-out; its log names the reason.".to_owned(),
        ),
    };
    Finding { points_to, timeout, what, means: format!("Ended {end}. {means}"), look }
}

/// Whether two connections ended at the same time, within the precision of the clocks.
fn together(one: &Watch, other: &Watch) -> bool {
    let apart = one.life.abs_diff(other.life);
    apart < PING / 2 || apart < one.life.mul_f64(0.02)
}

/// A time-out as an operator would write it.
fn figure(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let near = seconds.round();
    match seconds {
        s if s < 0.95 => format!("{:.0} ms", s * 1e3),
        s if (s - near).abs() < 0.2 && near < 120.0 => format!("{near} s"),
        s if s < 120.0 => format!("{s:.1} s"),
        s => format!("{:.1} min", s / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::CloseFrame;

    const IDLE: Duration = Duration::from_secs(20);

    fn watch(life: f64, silence: f64, end: Ending) -> Watch {
        let (life, silence) = (Duration::from_secs_f64(life), Duration::from_secs_f64(silence));
        Watch { node: None, life, silence, end, first_ping: None, unanswered: None, messages: 0 }
    }

    fn open() -> Watch {
        watch(20.0, 1.0, Ending::Open)
    }

    fn close(code: u16) -> Ending {
        Ending::Ended(End::Close(Some(CloseFrame { code, reason: String::new() })))
    }

    fn lost() -> Ending {
        Ending::Ended(End::Broken("timed out".into()))
    }

    fn violation() -> Ending {
        Ending::Ended(End::Violation("masked".into()))
    }

    const FIN: Ending = Ending::Ended(End::Fin);
    const RESET: Ending = Ending::Ended(End::Reset);

    #[test]
    fn each_kind_of_end_points_to_its_cause() {
        for (quiet, pinged, points_to, what) in [
            (open(), open(), "nothing", "nothing ended quiet connections within 20.0 s"),
            (watch(5.01, 5.0, FIN), open(), "balancer", "a time-out of 5 s without traffic"),
            (watch(5.01, 5.0, RESET), open(), "balancer", "a time-out of 5 s without traffic"),
            (watch(19.0, 5.4, FIN), open(), "balancer", "a time-out of 5.4 s without traffic"),
            (watch(5.0, 5.0, FIN), watch(5.1, 0.1, FIN), "age", "both ended at 5 s, traffic or not"),
            (watch(5.0, 5.0, FIN), watch(9.0, 0.1, FIN), "unknown", "both ended, at 5.0 s and 9.0 s"),
            (watch(20.0, 20.0, Ending::Silent), open(), "network", "forgotten on the way"),
            (watch(20.0, 20.0, Ending::Silent), watch(20.0, 1.0, Ending::Silent), "network", "traffic or not"),
            (watch(5.0, 5.0, close(1001)), open(), "node", "a time-out of the node: 5 s without traffic"),
            (watch(5.0, 5.0, close(1008)), open(), "node", "a time-out of the node: 5 s without traffic"),
            (watch(5.0, 5.0, close(1000)), watch(5.0, 0.2, close(1000)), "node", "it ended both after 5 s"),
            (watch(5.0, 5.0, close(1012)), watch(5.0, 0.2, close(1012)), "restart", "the node was stopped at 5 s"),
            (watch(5.0, 5.0, close(1012)), open(), "restart", "the node was stopped at 5 s"),
            (open(), watch(5.0, 0.2, FIN), "unknown", "a connection with pings ended"),
            (watch(9.0, 0.1, lost()), open(), "network", "lost on the way after 9 s: timed out"),
            (watch(5.0, 5.0, violation()), watch(5.0, 0.2, violation()), "node", "breaks RFC 6455: masked"),
        ] {
            let step = step(&Held { quiet, pinged, mute: open() }, IDLE);
            assert_eq!(step.facts["points_to"], points_to, "{step}");
            assert!(step.what.contains(what), "{what:?} is not in {step}");
            let timed = step.facts["timeout_ms"].as_u64();
            assert_eq!(timed.is_some(), step.what.contains("time-out of"), "{step}");
            let well = points_to == "nothing";
            assert_eq!((step.outcome == Outcome::Ok, step.look.is_empty()), (well, well), "{step}");
        }
    }

    #[test]
    fn dropping_a_client_that_answers_no_ping_is_correct_and_the_time_is_reported() {
        let mute = Watch { unanswered: Some(Duration::from_millis(10_040)), ..watch(24.0, 10.0, FIN) };
        let step = step(&Held { quiet: open(), pinged: open(), mute }, IDLE);
        assert_eq!(step.outcome, Outcome::Ok);
        let text = step.notes.join("\n");
        assert!(text.contains("unanswered for 10 s (`timing.pong`)"), "{text}");
        assert!(
            text.contains("ended at 24.0 s by FIN without a close frame, 10 s after a ping from the server"),
            "{text}"
        );
    }

    #[test]
    fn the_notes_say_whether_the_server_sends_pings() {
        let silent = step(&Held { quiet: open(), pinged: open(), mute: open() }, IDLE).notes.join(" ");
        assert!(silent.contains("sent no ping in 20.0 s"), "{silent}");
        let quiet = Watch { first_ping: Some(Duration::from_secs(14)), ..open() };
        let pinging = step(&Held { quiet, pinged: open(), mute: open() }, IDLE).notes.join(" ");
        assert!(pinging.contains("first after 14.0 s"), "{pinging}");
    }

    #[test]
    fn times_are_written_as_an_operator_writes_them() {
        for (millis, text) in
            [(400, "400 ms"), (4_990, "5 s"), (5_190, "5 s"), (5_400, "5.4 s"), (3_600_000, "60.0 min")]
        {
            assert_eq!(figure(Duration::from_millis(millis)), text);
        }
    }
}
