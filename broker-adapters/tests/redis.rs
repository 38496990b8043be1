//! What only Redis can do to a log, on a real server. All that it shares with others is in the conformance suite.
#![cfg(feature = "redis")]

use std::sync::Arc;
use std::time::Duration;

use broker_adapters::{
    Append, AppendError, Broker, Budget, Entry, Epoch, LinkErrorKind, Log, Offset, Partition, Resume, Settings, Start,
    Tail, TailEvent, Timing, connect,
};
use bytes::Bytes;
use real_brokers::{PASSWORD, Redis, Server};
use tokio::time::{Instant, sleep, timeout};

const SETTINGS: Settings = Settings { partitions: 2, retention: 1000 };
const PATIENCE: Duration = Duration::from_secs(20);
const BUDGET: Budget = Budget { messages: 100, bytes: 1 << 20 };
const PARTITION: Partition = Partition(1);
/// The keys of that partition.
const META: &str = "fanfare:{1}:meta";
const LOG: &str = "fanfare:{1}:log";
const GREATEST: &str = "18446744073709551615-18446744073709551615";

type Words = &'static [&'static str];

async fn server(wires: usize) -> Redis {
    let server = Redis::new(wires).expect("a Redis");
    server.start().await.expect("Redis starts");
    server
}

fn broker(url: &str) -> Arc<dyn Broker> {
    connect(url, SETTINGS).expect("a good URL")
}

async fn tool(server: &Redis, words: &[&str]) -> String {
    server.tool(words).await.expect("Redis obeys")
}

async fn append(broker: &dyn Broker, text: &str) -> Result<(Epoch, u64), AppendError> {
    let record = Append { partition: PARTITION, bytes: Bytes::copy_from_slice(text.as_bytes()) };
    let mut stored = broker.append(&[record], Instant::now() + PATIENCE).await;
    let (epoch, offset) = stored.remove(0)?.at.expect("Redis says where");
    Ok((epoch, offset.0))
}

/// The epoch and the next offset of the partition, as a reader gets them.
async fn standing(broker: &dyn Broker) -> Result<(Epoch, u64), String> {
    let opened = broker.open(&[(PARTITION, Start::Head)]).await.map_err(|error| error.why)?;
    Ok((opened.standings[0].epoch, opened.standings[0].next.0))
}

async fn refused(broker: &dyn Broker) -> String {
    let why = standing(broker).await.expect_err("no reader");
    let appended = append(broker, "never").await;
    assert!(matches!(appended, Err(AppendError::NotStored(_))), "{appended:?}, but a reader had {why}");
    why
}

/// All that the partition keeps; every record must be of the epoch that the reader got.
async fn kept(broker: &dyn Broker) -> Vec<Entry> {
    let mut opened = broker.open(&[(PARTITION, Start::Back(1000))]).await.expect("it opens");
    let (epoch, next) = (opened.standings[0].epoch, opened.standings[0].next);
    let mut entries: Vec<Entry> = Vec::new();
    while entries.last().is_none_or(|last| last.offset.next() < next) {
        entries.extend(timeout(PATIENCE, opened.reader.next()).await.expect("in time").expect("readable"));
    }
    assert!(entries.iter().all(|entry| entry.epoch.is_none_or(|found| found == epoch)), "{epoch:?}: {entries:?}");
    entries
}

#[tokio::test]
async fn keys_of_another_program_are_refused_and_left_alone() {
    let server = server(0).await;
    let keys: [Words; 8] = [
        &["SET", "fanfare:settings", "x"],
        &["HSET", "fanfare:settings", "theme", "dark"],
        &["HSET", "fanfare:settings", "partitions", "2", "owner", "billing"],
        &["RPUSH", LOG, "job"],
        &["XADD", LOG, "1-0", "job", "7"],
        &["XGROUP", "CREATE", LOG, "workers", "$", "MKSTREAM"],
        &["SET", META, "x"],
        &["HSET", META, "title", "x"],
    ];
    for words in keys {
        tool(&server, &["FLUSHALL"]).await;
        tool(&server, words).await;
        let key = if words[0] == "XGROUP" { words[2] } else { words[1] };
        let before = tool(&server, &["DUMP", key]).await;
        let why = refused(&*broker(&server.inside_url())).await;
        assert!(why.contains(key) && why.contains("?prefix=") && why.contains("?adopt=true"), "{words:?}: {why}");
        assert_eq!(tool(&server, &["DUMP", key]).await, before, "{words:?}");
        assert_eq!(tool(&server, &["KEYS", "*"]).await.trim(), key, "{words:?}: nothing else was made");

        let meant = broker(&format!("{}?adopt=true", server.inside_url()));
        let (epoch, next) = standing(&*meant).await.unwrap_or_else(|why| panic!("{words:?}: {why}"));
        assert_eq!((next, append(&*meant, "first").await), (1, Ok((epoch, 1))), "{words:?}");
        assert_eq!(append(&*broker(&server.inside_url()), "second").await, Ok((epoch, 2)), "it is Fanfare's by now");
    }
}

#[tokio::test]
async fn a_log_that_was_made_before_there_was_a_mark_goes_on() {
    let server = server(0).await;
    tool(&server, &["HSET", "fanfare:settings", "partitions", "2"]).await;
    tool(&server, &["HSET", META, "epoch", "00000000000000ff", "last", "2"]).await;
    for id in ["1-0", "2-0"] {
        tool(&server, &["XADD", LOG, id, "00000000000000ff", "old"]).await;
    }
    let broker = broker(&server.inside_url());
    assert_eq!(standing(&*broker).await, Ok((Epoch(255), 3)));
    assert_eq!(append(&*broker, "new").await, Ok((Epoch(255), 3)));
    assert_eq!(kept(&*broker).await.len(), 3);
    // The next node finds the mark.
    assert_eq!(append(&*self::broker(&server.inside_url()), "newer").await, Ok((Epoch(255), 4)));
    assert_eq!(tool(&server, &["HGET", "fanfare:settings", "format"]).await.trim(), "fanfare 1");
}

#[tokio::test]
async fn a_damaged_partition_begins_anew_with_the_first_who_opens_or_appends() {
    let server = server(0).await;
    let damages: [Words; 16] = [
        &["XADD", LOG, GREATEST, "who", "a stranger"],
        &["XADD", LOG, "18446744073709551615-5", "who", "a stranger"],
        &["XADD", LOG, "9007199254740993-0", "who", "a stranger"],
        &["XSETID", LOG, GREATEST],
        &["HSET", META, "last", "a lot"],
        &["HSET", META, "last", ""],
        &["HSET", META, "last", "-1"],
        &["HSET", META, "last", "1e3"],
        &["HSET", META, "last", "9007199254740992"],
        &["HSET", META, "last", "18446744073709551616"],
        &["HDEL", META, "last"],
        &["HDEL", META, "epoch"],
        &["HSET", META, "epoch", "a word"],
        &["HSET", META, "epoch", "0000000000000000"],
        &["HSET", META, "epoch", "00000000000000ff"],
        &["DEL", META],
    ];
    for words in damages {
        for reader_first in [true, false] {
            tool(&server, &["FLUSHALL"]).await;
            let broker = broker(&server.inside_url());
            let mut old = None;
            for n in 1..=3 {
                old = append(&*broker, &n.to_string()).await.ok();
            }
            let (old, last) = old.expect("stored");
            assert_eq!(last, 3);
            tool(&server, words).await;
            if reader_first {
                assert_eq!(standing(&*broker).await.map(|(_, next)| next), Ok(1), "{words:?}");
            } else {
                append(&*broker, "goes on").await.unwrap_or_else(|why| panic!("{words:?}: {why}"));
            }
            // Another epoch tells everyone that the log is another one.
            let (new, next) = standing(&*broker).await.unwrap_or_else(|why| panic!("{words:?}: {why}"));
            assert_ne!(new, old, "{words:?}");
            assert_eq!(append(&*broker, "goes on").await, Ok((new, next)), "{words:?}");
            kept(&*broker).await;
        }
    }
}

#[tokio::test]
async fn what_is_no_damage_leaves_the_log_as_it_is() {
    let server = server(0).await;
    let deeds: [(Words, u64); 8] = [
        (&["DEL", LOG], 4),
        (&["XTRIM", LOG, "MAXLEN", "0"], 4),
        (&["XDEL", LOG, "2-0"], 4),
        (&["HSET", META, "note", "of an operator"], 4),
        (&["HSET", META, "last", "1"], 4),
        (&["HSET", META, "last", "500"], 501),
        (&["XADD", LOG, "3-7", "who", "a stranger"], 4),
        (&["XADD", LOG, "7-7", "who", "a stranger"], 8),
    ];
    for (words, next) in deeds {
        for reader_first in [true, false] {
            tool(&server, &["FLUSHALL"]).await;
            let broker = broker(&server.inside_url());
            let mut epoch = None;
            for n in 1..=3 {
                epoch = append(&*broker, &n.to_string()).await.ok();
            }
            let (epoch, _) = epoch.expect("stored");
            tool(&server, words).await;
            if reader_first {
                assert_eq!(standing(&*broker).await, Ok((epoch, next)), "{words:?}: what comes next");
            }
            assert_eq!(append(&*broker, "goes on").await, Ok((epoch, next)), "{words:?}");
            assert_eq!(standing(&*broker).await, Ok((epoch, next + 1)), "{words:?}");
            assert_eq!(kept(&*broker).await.last().map(|last| last.offset), Some(Offset(next)), "{words:?}");
        }
    }
}

#[tokio::test]
async fn each_mistake_is_said_with_what_to_change() {
    let server = server(0).await;
    tool(&server, &["ACL", "SETUSER", "stranger", "on", ">pw", "~other:*", "+@all"]).await;
    tool(&server, &["ACL", "SETUSER", "idle", "on", ">pw", "~*", "+@read"]).await;
    let (plain, over_tls) = (server.inside_url(), server.tls_url("CA"));
    let (address, tls) = (server.port().address, over_tls.split(['@', '/']).nth(3).unwrap_or_default().to_owned());
    let ca = server.process().file("ca.pem").display().to_string();
    for (url, word) in [
        (format!("rediss://:{PASSWORD}@{address}?ca={ca}"), "write redis://"),
        (format!("redis://:{PASSWORD}@{tls}"), "write rediss://"),
        (format!("redis://{address}"), "put the password into"),
        (plain.replace(PASSWORD, "a-wrong-one"), "refused the user or the password"),
        (format!("redis://nobody:{PASSWORD}@{address}"), "refused the user or the password"),
        (format!("{plain}/99"), "/0 always exists"),
        (format!("redis://stranger:pw@{address}"), "ACL SETUSER"),
        (format!("redis://idle:pw@{address}"), "ACL SETUSER"),
    ] {
        let why = refused(&*broker(&url)).await;
        assert!(why.contains(word) && why.contains("127.0.0.1:"), "{word}: {why}");
        assert!(!why.contains(PASSWORD) && !why.contains("a-wrong-one"), "{why}");
    }
}

#[tokio::test]
async fn the_rights_that_are_asked_for_are_enough() {
    let server = server(0).await;
    let rights = ["~fanfare:*", "+@read", "+@write", "+@scripting", "+@connection", "+info"];
    tool(&server, &[&["ACL", "SETUSER", "gateway", "on", ">pw"], &rights[..]].concat()).await;
    let broker = broker(&format!("redis://gateway:pw@{}", server.port().address));
    let (epoch, _) = append(&*broker, "first").await.expect("stored");
    assert_eq!(standing(&*broker).await, Ok((epoch, 2)));
    assert_eq!(broker.read_back(PARTITION, Offset(2), 10).await, Ok(kept(&*broker).await));

    // Whoever may no longer write does not go on reading either: it would look well.
    let mut opened = broker.open(&[(PARTITION, Start::At(Offset(2)))]).await.expect("it opens");
    tool(&server, &["ACL", "SETUSER", "gateway", "-@write"]).await;
    assert!(matches!(append(&*broker, "never").await, Err(AppendError::NotStored(_))));
    let ended = timeout(PATIENCE, opened.reader.next()).await.expect("in time").expect_err("no records");
    assert!(ended.why.contains("ACL SETUSER"), "{ended}");
    assert!(refused(&*broker).await.contains("ACL SETUSER"));
}

#[tokio::test]
async fn a_server_without_room_for_clients_says_so() {
    let server = server(0).await;
    // The one that sets it is counted, too, and one for the tool remains.
    let _held = tokio::net::TcpStream::connect(server.port().address).await.expect("a connection");
    let broker = broker(&server.inside_url());
    tool(&server, &["CONFIG", "SET", "maxclients", "1"]).await;
    let why = refused(&*broker).await;
    assert!(why.contains("maxclients"), "{why}");
}

#[tokio::test]
async fn a_node_that_could_not_append_is_not_let_read_either() {
    let server = server(0).await;
    let broker = broker(&server.inside_url());
    append(&*broker, "first").await.expect("stored");
    for (setting, bad, good, word) in
        [("min-replicas-to-write", "1", "0", "min-replicas-to-write"), ("maxmemory", "1", "0", "`maxmemory`")]
    {
        tool(&server, &["CONFIG", "SET", setting, bad]).await;
        let why = refused(&*broker).await;
        assert!(why.contains(word), "{why}");
        tool(&server, &["CONFIG", "SET", setting, good]).await;
        standing(&*broker).await.expect("it serves again");
        append(&*broker, "again").await.expect("stored");
    }
}

/// Makes one Redis the replica of another, and waits until it has all.
async fn follow(replica: &Redis, primary: &Redis) {
    tool(replica, &["REPLICAOF", "127.0.0.1", &primary.port().number().to_string()]).await;
    let begin = Instant::now();
    while !tool(replica, &["INFO", "replication"]).await.contains("master_link_status:up") {
        assert!(begin.elapsed() < PATIENCE, "the replica does not come up");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn every_link_leaves_a_primary_that_was_demoted() {
    let (first, second) = (server(1).await, server(0).await);
    let broker = broker(&first.url(0));
    let (epoch, _) = append(&*broker, "one").await.expect("stored");
    let mut opened = broker.open(&[(PARTITION, Start::Head)]).await.expect("it opens");
    timeout(PATIENCE, opened.reader.next()).await.expect("in time").expect("readable");
    broker.read_back(PARTITION, Offset(2), 1).await.expect("readable");
    follow(&second, &first).await;

    // The name still leads to the old one, which lets no node in.
    tool(&second, &["REPLICAOF", "NO", "ONE"]).await;
    follow(&first, &second).await;
    let lost = append(&*broker, "two").await;
    assert!(matches!(&lost, Err(AppendError::NotStored(error)) if error.why.contains("primary")), "{lost:?}");
    let ended = timeout(PATIENCE, opened.reader.next()).await.expect("a reader on a replica ends");
    assert!(ended.is_err(), "{ended:?}");
    assert!(refused(&*broker).await.contains("this is a replica"));
    broker.read_back(PARTITION, Offset(2), 1).await.expect_err("a replica may be behind");

    // Connections stay open, new ones go to the new one.
    first.wires()[0].lead_to(second.port().address);
    assert_eq!(append(&*broker, "two").await, Ok((epoch, 2)));
    assert_eq!(standing(&*broker).await, Ok((epoch, 3)));
    assert_eq!(broker.read_back(PARTITION, Offset(3), 9).await.map(|entries| entries.len()), Ok(2));
}

#[tokio::test]
async fn a_reader_follows_when_appends_go_to_another_server() {
    let (first, second) = (server(1).await, server(0).await);
    let broker = broker(&first.url(0));
    append(&*broker, "one").await.expect("stored");
    let mut opened = broker.open(&[(PARTITION, Start::Head)]).await.expect("it opens");
    timeout(PATIENCE, opened.reader.next()).await.expect("in time").expect("readable");
    follow(&second, &first).await;
    tool(&second, &["REPLICAOF", "NO", "ONE"]).await;
    first.wires()[0].lead_to(second.port().address);
    // The old primary lives, takes writes, and keeps its connections; one node's reader, opened anew, finds the new.
    let mut other = broker.open(&[(PARTITION, Start::Head)]).await.expect("it opens");
    let ended = timeout(PATIENCE, opened.reader.next()).await.expect("a reader elsewhere ends");
    assert!(ended.is_err(), "{ended:?}");
    let (epoch, offset) = append(&*broker, "two").await.expect("stored");
    assert_eq!((standing(&*broker).await, offset), (Ok((epoch, 3)), 2));
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(timeout(PATIENCE, other.reader.next()).await.expect("in time").expect("readable"));
    }
    assert_eq!(tool(&first, &["XLEN", LOG]).await.trim(), "1", "nothing more went to the old one");
}

#[tokio::test]
async fn a_password_that_is_changed_while_a_node_runs_is_a_refusal_until_it_is_set_back() {
    let server = server(0).await;
    let admin: Words = &["--user", "admin", "--pass", "an-admin"];
    let as_admin = async |words: &[&str]| tool(&server, &[admin, words].concat()).await;
    tool(&server, &["ACL", "SETUSER", "admin", "on", ">an-admin", "~*", "&*", "+@all"]).await;
    let door = broker(&server.inside_url());
    let log = Log::start(Arc::clone(&door), SETTINGS.partitions, Timing::new(Duration::from_millis(200)), BUDGET);
    let mut tail = log.tail_all(Resume::Head);
    until(&mut tail, |event| matches!(event, TailEvent::Up { .. })).await;
    as_admin(&["CONFIG", "SET", "requirepass", "another"]).await;
    as_admin(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    let refused = |event: &TailEvent| matches!(event, TailEvent::Down { why } if why.contains("password"));
    until(&mut tail, refused).await;
    let error = door.open(&[(PARTITION, Start::Head)]).await.err().expect("it does not open");
    assert!(error.kind == LinkErrorKind::Refused && !error.why.contains(PASSWORD), "{error}");
    as_admin(&["CONFIG", "SET", "requirepass", PASSWORD]).await;
    until(&mut tail, |event| matches!(event, TailEvent::Up { .. })).await;
}

#[tokio::test]
async fn a_user_who_lacks_a_right_is_refused() {
    let server = server(0).await;
    let url = server.inside_url().replace(&format!(":{PASSWORD}"), "guest:a-guest");
    for rights in ["-@write", "-@read", "-@scripting"] {
        tool(&server, &["ACL", "SETUSER", "guest", "reset", "on", ">a-guest", "~fanfare:*", "+@all", rights]).await;
        let error = broker(&url).open(&[(PARTITION, Start::Head)]).await.err();
        let error = error.unwrap_or_else(|| panic!("{rights}: it opens"));
        assert!(error.kind == LinkErrorKind::Refused && error.why.contains("ACL SETUSER"), "{rights}: {error}");
    }
}

/// Waits until a tail gives this event.
async fn until(tail: &mut Tail, what: impl Fn(&TailEvent) -> bool) {
    let event = async { while !tail.next().await.expect("the log is open").iter().any(&what) {} };
    timeout(PATIENCE, event).await.expect("in time");
}
