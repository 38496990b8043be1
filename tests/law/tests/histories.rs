//! The history checker, tried with histories that break each of its rules, and with good ones.

use law::{History, Met, Outcome, Report};

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
            _ => panic!("{word} is no word of a history"),
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
    breach("+a +b +c +d", &["a ^ b d", "a b c d"], "`c` was acknowledged, is missing, and there is no mark");
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
    breach("+a +b", &["a ! b a b"], "`b` came twice");
}

#[test]
fn a_message_that_was_sent_again_may_come_again_after_a_mark() {
    lawful("(a +b )a +c", &["a b ! a c", "a b ! a c"]);
    lawful("(a +b )a +c", &["a b ! a c", "b ! a c"]);
    breach("(a +b )a +c", &["a b ^ a c"], "`a` came twice");
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

/// Judges views of one lane after publishes that were all acknowledged, in the words of [`judge`], with `<` for an
/// early message.
fn judge_views(publishes: &str, views: &[&str]) -> Report {
    let history = History::default();
    for payload in publishes.split(' ') {
        history.ended(history.publish("lane", payload), Outcome::Acknowledged);
    }
    let met = |word: &str| match word {
        "!" => Met::Mark,
        "^" => Met::Recovered,
        "<" => Met::Early("it is early".into()),
        _ => Met::Message(word.to_owned()),
    };
    history.report_of("lane", views.iter().map(|view| view.split(' ').map(met).collect()))
}

#[test]
fn readers_that_saw_the_same_are_counted_one_by_one() {
    let report = judge_views("a b c", &["a b c", "a b c", "a b c"]);
    report.assert_whole();
    assert_eq!((report.acked, report.delivered), (3, 9));
    assert_eq!(judge_views("a b", &["! b", "! b"]).lost_marked, 2);
}

#[test]
fn one_reader_that_saw_less_than_the_others_is_found() {
    let report = judge_views("a b c", &["a b c", "a c", "a b c", "a b c"]);
    assert_eq!((report.silent_loss, report.delivered), (1, 11));
    assert!(judge_views("a b c", &["a b c", "b a c"]).breaches.iter().any(|breach| breach.contains("reversed")));
    assert_eq!(judge_views("a b", &["a b", "a b b"]).duplicate, 1);
}

#[test]
fn a_reader_that_came_later_or_whose_connection_ended_has_lost_nothing_silently() {
    let report = judge_views("a b c", &["a b c", "! c", "a !"]);
    report.assert_lawful();
    assert_eq!(report.lost_marked, 2);
    assert_eq!(judge_views("a b c", &["a b c", "! a c"]).silent_loss, 1);
}

#[test]
fn a_reader_that_came_back_has_missed_nothing_or_knows_it() {
    let report = judge_views("a b c", &["a ^ b c", "a ! c", "a b c"]);
    report.assert_lawful();
    assert_eq!((report.delivered, report.lost_marked), (8, 1));
    assert_eq!(judge_views("a b c", &["a ^ c", "a b c"]).silent_loss, 1);
    assert_eq!(judge_views("a b c", &["a b ^ b c", "a b c"]).duplicate, 1);
    assert_eq!(
        judge_views("a b c", &["a ! < b c", "a b c"]).breaches.len(),
        1,
        "a refused recovery gives nothing of it"
    );
}

#[test]
fn readers_of_the_same_name_are_compared_too() {
    let history = History::default();
    for payload in ["a", "b"] {
        history.publish("lane", payload);
    }
    for seen in [["a", "b"], ["b", "a"]] {
        let reader = history.reader("reader");
        seen.iter().for_each(|payload| history.saw(reader, "lane", payload));
    }
    assert!(!history.report().breaches.is_empty());
}

#[test]
fn the_numbers_of_runs_are_added() {
    let mut sum = judge_views("a b", &["a b"]);
    sum += judge_views("a b c", &["a ! c c", "a b c"]);
    assert_eq!((sum.acked, sum.delivered, sum.duplicate, sum.lost_marked), (5, 8, 1, 1));
    assert_eq!(sum.breaches.len(), 1);
}
