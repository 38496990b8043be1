//! The rule of rights, tried with histories that break it, and with good ones.

use std::time::Duration;

use law::{History, Outcome, Report};

/// Judges what readers met in a lane, where each of `publishes` was acknowledged after the other. In words: `a@4` is a
/// message that came in second 4, `a` one that came at an unknown time, `-4` a right that is withdrawn so that nothing may
/// come after second 4, `+` the right given again, `!` a mark, `^` a recovery.
fn judge(publishes: &str, readers: &[&str]) -> Report {
    let history = History::default();
    for payload in publishes.split(' ') {
        history.ended(history.publish("lane", payload), Outcome::Acknowledged);
    }
    let seconds = |text: &str| Duration::from_secs(text.parse().expect("seconds"));
    for (number, met) in readers.iter().enumerate() {
        let reader = history.reader(&format!("reader {number}"));
        for word in met.split(' ') {
            match (word, word.split_once('@'), word.strip_prefix('-')) {
                ("!", ..) => history.marked(reader, "lane"),
                ("^", ..) => history.recovered(reader, "lane"),
                ("+", ..) => history.given(reader, "lane"),
                (_, Some((payload, at)), _) => history.saw_at(reader, "lane", payload, seconds(at)),
                (.., Some(by)) => history.withdrawn(reader, "lane", seconds(by)),
                _ => history.saw(reader, "lane", word),
            }
        }
    }
    history.report()
}

#[track_caller]
fn lawful(publishes: &str, readers: &[&str]) {
    judge(publishes, readers).assert_whole();
}

#[track_caller]
fn breach(publishes: &str, readers: &[&str], why: &str) {
    let report = judge(publishes, readers);
    assert!(report.breaches.iter().any(|breach| breach.contains(why)), "expected `{why}`: {report}");
}

#[test]
fn messages_come_until_the_withdrawal_acts_and_again_when_the_right_is_given() {
    lawful("a b c", &["a@1 b@2 c@3", "a b c"]);
    lawful("a b c d", &["a@1 -3 b@2 c@3", "a b c d"]);
    lawful("a b c d", &["a@1 -3 b@2 + d@9", "a b c d"]);
    lawful("a b c d", &["a@1 -3 + ^ b@5 c@5 d@9", "a b c d"]);
    lawful("a b c d e", &["a@1 -3 + c@5 -6 + e@9", "a b c d e"]);
}

#[test]
fn a_message_after_a_right_was_withdrawn_is_a_breach() {
    breach("a b c", &["a@1 -3 b@4", "a b c"], "`b` came 1s later than the withdrawal");
    breach("a b c", &["a@1 -3 b@2 c@9", "a b c"], "`c` came 6s later than the withdrawal");
    breach("a b c", &["-0 a@1 + b@2 c@3", "a b c"], "`a` came 1s later than the withdrawal");
    breach("a b c", &["a@1 -3 + b@4 -5 c@6", "a b c"], "`c` came 1s later than the withdrawal");
    breach("a b c", &["a@1 -3 b c@3", "a b c"], "`b` came at an unknown time");
    assert_eq!(judge("a b c", &["a@1 -3 b@4 c@5"]).breaches.len(), 2);
}

#[test]
fn a_second_withdrawal_gives_no_more_time() {
    breach("a b", &["a@1 -3 -9 b@4", "a b"], "`b` came 1s later than the withdrawal");
    breach("a b", &["a@1 -9 -3 b@4", "a b"], "`b` came 1s later than the withdrawal");
}

#[test]
fn neither_a_mark_nor_a_recovery_gives_a_right_again() {
    breach("a b", &["a@1 -3 ! b@4", "a b"], "`b` came 1s later than the withdrawal");
    breach("a b", &["a@1 -3 ^ b@4", "a b"], "`b` came 1s later than the withdrawal");
}

#[test]
fn what_is_missed_without_the_right_is_not_lost_and_everything_else_is() {
    lawful("a b c d", &["a@1 -3", "a b c d"]);
    lawful("a b c d", &["-0 + d@5", "a b c d"]);
    breach("a b c d", &["a@1 c@2 -3", "a b c d"], "`b` was acknowledged, is missing, and there is no mark");
    breach("a b c d e", &["a@1 -3 + c@5 e@6", "a b c d e"], "`d` was acknowledged, is missing, and there is no mark");
    breach("a b c d e", &["b@1 -3 + e@6", "a b c d e"], "`a` was acknowledged, is missing");
    assert_eq!(judge("a b c d e", &["a@1 -3 + c@5 e@6", "a b c d e"]).silent_loss, 1);
}

#[test]
fn a_recovery_includes_what_was_missed_without_the_right() {
    breach("a b c", &["a@1 -3 + ^ c@5", "a b c"], "`b` was acknowledged, is missing, from a recovery");
    breach("a b c", &["a@1 -3 + ^", "a b c"], "`c` was acknowledged, is missing, from a recovery");
    lawful("a b c", &["a@1 -3 + ^ b@4 -5", "a b c"]);
    lawful("a b c", &["a@1 -3 + ^ -5", "a b c"]);
    judge("a b c", &["a@1 -3 + ! c@5", "a b c"]).assert_lawful();
}

#[test]
fn a_reader_with_the_right_is_judged_as_ever_beside_one_without() {
    breach("a b c", &["a@1 -3", "a c"], "`b` was acknowledged, is missing");
    breach("a b c", &["a@1 b@2 -3", "b a c"], "reversed");
    breach("a b c", &["a@1 -3 + a@4", "a b c"], "`a` came twice");
}
