//! The history checker, tried with histories that break each of its rules, and with good ones.

#[path = "conformance/history.rs"]
#[allow(dead_code, unreachable_pub)]
mod history;

use history::{History, Outcome, Report};

/// Judges a history in short words, all in one lane: `+a` a publish of `a` that is acknowledged, `-a` one that
/// fails, `?a` one of unknown end, `(a` and `)a` the begin and the acknowledgement of one that takes its time;
/// then, per reader, the messages it saw, `!` for a mark, `^` for a recovery.
fn judge(publishes: &str, readers: &[&str]) -> Report {
    let history = History::default();
    let mut open = std::collections::HashMap::new();
    for word in publishes.split_whitespace() {
        let (kind, payload) = word.split_at(1);
        let begin = || history.publish("lane", payload);
        match kind {
            "+" => history.ended(begin(), Outcome::Acknowledged),
            "-" => history.ended(begin(), Outcome::Failed),
            "?" => history.ended(begin(), Outcome::Unknown),
            "(" => drop(open.insert(payload, begin())),
            ")" => history.ended(open[payload], Outcome::Acknowledged),
            _ => panic!("what is {word}?"),
        }
    }
    for (n, seen) in readers.iter().enumerate() {
        let reader = history.reader(&format!("reader {n}"));
        for word in seen.split_whitespace() {
            match word {
                "!" => history.marked(reader, "lane"),
                "^" => history.recovered(reader, "lane"),
                _ => history.saw(reader, "lane", word),
            }
        }
    }
    history.report()
}

#[track_caller]
fn lawful(publishes: &str, readers: &[&str]) {
    judge(publishes, readers).assert_lawful();
}

#[track_caller]
fn breach(publishes: &str, readers: &[&str], why: &str) {
    let report = judge(publishes, readers);
    assert!(report.breaches.iter().any(|breach| breach.contains(why)), "expected `{why}`: {report}");
}

#[test]
fn good_histories_are_lawful() {
    lawful("+a +b +c", &["a b c", "a b c"]);
    lawful("+a -b ?c ?d +e", &["a c e", "a c e"]);
    lawful("(a (b )a )b", &["a b", "a b"]);
    lawful("(a (b )a )b", &["b a", "b a"]);
    lawful("+a (b", &["a b", "a b"]);
    assert_eq!(judge("+a +b", &["a b", "a b"]).delivered, 4);
}

#[test]
fn what_is_acknowledged_and_missing_needs_a_mark() {
    breach("+a +b +c", &["a c", "a b c"], "`b` was acknowledged, is missing");
    breach("+a +b +c", &["a c"], "`b` was acknowledged, is missing");
    breach("+a", &[""], "`a` was acknowledged, is missing");
    lawful("+a +b +c", &["a ! c", "a b c"]);
    lawful("+a +b +c", &["! c"]);
    assert_eq!(judge("+a +b +c", &["a", "c"]).silent_loss, 4);
}

#[test]
fn a_mark_at_another_place_excuses_nothing() {
    breach("+a +b +c", &["! a c"], "`b` was acknowledged, is missing");
    breach("+a +b +c", &["a c !"], "`b` was acknowledged, is missing");
    breach("(a (b (c )a )b )c", &["! a c", "a b c"], "`b` was acknowledged, is missing");
    breach("(a (b (c )a )b )c", &["a c !", "a b c"], "`b` was acknowledged, is missing");
    lawful("(a (b (c )a )b )c", &["a ! c", "a b c"]);
}

#[test]
fn a_recovery_is_whole_or_refused() {
    lawful("+a +b +c +d", &["a ^ b c ^ d", "a b c d"]);
    lawful("+a +b +c +d", &["a ! d", "a b c d"]);
    lawful("+a +b +c +d", &["a ! ^ d", "a b c d"]);
    breach("+a +b +c +d", &["a ^ c d", "a b c d"], "`b` was acknowledged, is missing, from a recovery");
    breach("+a +b +c +d", &["a b ^", "a b c d"], "`d` was acknowledged, is missing, from a recovery");
    breach("+a +b +c +d", &["a ^ b d", "a b c d"], "`c` was acknowledged, is missing, and nobody was told");
    breach("+a +b", &["a ^ a b"], "`a` came twice");
    assert_eq!(judge("+a +b +c", &["a ^", "a b c"]).silent_loss, 2);
}

#[test]
fn all_readers_have_one_order() {
    breach("(a (b )a )b", &["a b", "b a"], "reversed");
    breach("(a (b (c )a )b )c", &["a b c", "c b a"], "reversed");
}

#[test]
fn the_order_is_that_of_time() {
    breach("+a +b", &["b a", "b a"], "began after its end");
    breach("+a ?b", &["b a"], "began after its end");
    breach("+a +b +c", &["b c a"], "began after its end");
}

#[test]
fn no_message_comes_twice() {
    breach("+a +b", &["a b a"], "`a` came twice");
    breach("?a", &["a a"], "`a` came twice");
    assert_eq!(judge("+a", &["a a"]).duplicate, 1);
}

#[test]
fn no_message_is_invented() {
    breach("+a", &["a x"], "`x` was never published");
}

#[test]
fn a_failed_publish_is_never_seen() {
    breach("+a -b", &["a b"], "`b` had failed");
}

#[test]
fn a_run_without_faults_has_no_mark() {
    let report = judge("+a", &["! a"]);
    report.assert_lawful();
    assert!(std::panic::catch_unwind(|| report.assert_whole()).is_err());
}
