//! What Redis refuses: the code, what to do about it, and whether other links may be better.

use std::borrow::Cow;
use std::fmt;

use redis::{ServerError, Value};

use crate::broker::{LinkError, LinkErrorKind};

/// What to do where there is no primary.
pub(super) const FOLLOW: &str = "let `broker.url` name the primary, or a name or balancer that follows it";

/// An error that the server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    code: String,
    details: String,
}

impl Refusal {
    pub(super) fn new(error: &ServerError) -> Self {
        Self::of(error.code(), error.details().unwrap_or_default())
    }

    fn of(code: &str, details: &str) -> Self {
        // Before Redis 7 a script's error is wrapped: `ERR Error running script (…): …: -CODE details`.
        let wrapped = details.rsplit_once(": -").filter(|_| code == "ERR" && details.contains("script"));
        let (code, details) = wrapped.and_then(|(_, inner)| inner.split_once(' ')).unwrap_or((code, details));
        // Within a script it has no code of its own.
        let code = if details.contains("The user executing the script can't") { "NOPERM" } else { code };
        // Where in our script it happened is of no use to the reader.
        let details = details.split(" script: ").next().unwrap_or_default();
        Self { code: code.to_owned(), details: details.trim().to_owned() }
    }

    /// The line that a server says before it closes, as it stands on the wire.
    pub(super) fn of_line(line: &str) -> Option<Self> {
        let (code, details) = line.strip_prefix('-')?.lines().next()?.split_once(' ')?;
        Some(Self::of(code, details))
    }

    /// The script is unknown there: it is loaded on each new connection.
    pub(super) fn is_no_script(&self) -> bool {
        self.code == "NOSCRIPT"
    }

    /// The connection has not logged in.
    pub(super) fn asks_for_login(&self) -> bool {
        self.code == "NOAUTH"
    }

    /// The server is not the primary (any more), or this node may not write there. A new connection may lead to another
    /// server, and otherwise gives the reason. A reader that stayed would make the node look ready.
    pub(super) fn ends_links(&self) -> bool {
        let no_primary = ["READONLY", "MASTERDOWN", "UNBLOCKED", "LOADING", "CLUSTERDOWN", "MOVED", "ASK"];
        let no_rights = ["NOPERM", "NOAUTH"];
        no_primary.iter().chain(&no_rights).any(|code| self.code == *code)
    }

    /// What helps. A replica may become the primary, and a full or busy server may have room again.
    fn kind(&self) -> LinkErrorKind {
        match (self.code.as_str(), self.details.as_str()) {
            ("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED", _) => LinkErrorKind::Refused,
            ("MOVED" | "ASK" | "CROSSSLOT" | "FOREIGN" | "WRONGTYPE", _) => LinkErrorKind::SetUp,
            ("ERR", details) if details.contains("invalid password") => LinkErrorKind::Refused,
            ("ERR", details) if details.contains("max number of clients") => LinkErrorKind::Unreachable,
            ("ERR", details) if advice_on(details).is_some() => LinkErrorKind::SetUp,
            _ => LinkErrorKind::Unreachable,
        }
    }

    /// What to change, where that is known.
    fn advice(&self) -> Option<Cow<'static, str>> {
        let advice = match (self.code.as_str(), self.details.as_str()) {
            ("READONLY" | "MASTERDOWN" | "UNBLOCKED", _) => {
                return Some(format!("this is a replica: {FOLLOW}").into());
            }
            ("NOAUTH", _) => "put the password into the broker's URL: redis://:PASSWORD@… or redis://USER:PASSWORD@…",
            ("WRONGPASS", _) => "it refused the user or the password of the broker's URL",
            ("NOPERM", _) => {
                "the user of the broker's URL may not write, or lacks another right: `ACL SETUSER NAME ~fanfare:* +@read \
                 +@write +@scripting +@connection +info` gives all that is needed, with the URL's `prefix` for `fanfare`"
            }
            ("MOVED" | "ASK" | "CROSSSLOT" | "TRYAGAIN" | "CLUSTERDOWN", _) => {
                "this is a node of a Redis Cluster, which is not supported yet: use a single primary"
            }
            ("MISCONF", _) => "Redis cannot write to its disk: see its log and its free space",
            ("OOM", _) => "Redis is full: raise its `maxmemory`, or lower `broker.retention`",
            ("NOREPLICAS", _) => "fewer replicas are connected than its `min-replicas-to-write` wants",
            ("LOADING", _) => "it reads its data from the disk; this ends by itself",
            ("BUSY", _) => "another client's script runs for too long there: `redis-cli SCRIPT KILL` ends it",
            ("DENIED", _) => "set a password or `bind` at the Redis, and then `protected-mode no`",
            ("FOREIGN", _) => {
                "it is left as it is: take another name with `?prefix=NAME` in the broker's URL, or have Fanfare delete \
                 it with `?adopt=true`"
            }
            ("WRONGTYPE", _) => "another program replaced one of Fanfare's keys: delete it, or take another `?prefix=`",
            ("ERR", details) => advice_on(details)?,
            _ => return None,
        };
        Some(advice.into())
    }
}

/// Of errors without a code of their own.
fn advice_on(details: &str) -> Option<&'static str> {
    let known = [
        ("without any password", "the broker's URL has a password, this server has none: take it out of the URL"),
        ("no password is set", "the broker's URL has a password, this server has none: take it out of the URL"),
        ("invalid password", "it refused the password of the broker's URL"),
        ("'auth' command", "Redis before 6 knows no users: write redis://:PASSWORD@…"),
        ("max number of clients", "raise the server's `maxclients`, or its limit of open files"),
        ("DB index", "the broker's URL ends with a database that it does not have: /0 always exists"),
        (
            "SELECT is not allowed",
            "this is a node of a Redis Cluster, which is not supported yet: use a single primary",
        ),
        ("unknown command", "Redis 5 or newer is needed, with all of its commands"),
        ("Unknown Redis command", "Redis 5 or newer is needed, with all of its commands"),
    ];
    known.iter().find(|(part, _)| details.contains(part)).map(|(_, advice)| *advice)
}

impl From<&Refusal> for LinkError {
    fn from(refusal: &Refusal) -> Self {
        Self::of(refusal.kind(), refusal)
    }
}

impl From<Refusal> for LinkError {
    fn from(refusal: Refusal) -> Self {
        Self::from(&refusal)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, details } = self;
        // FOREIGN is a code of Fanfare's own scripts; ERR says nothing.
        let code = if code == "FOREIGN" || code == "ERR" { "" } else { &format!("{code} ") };
        match self.advice() {
            Some(advice) => write!(f, "{code}{details} ({advice})"),
            None => write!(f, "{code}{details}"),
        }
    }
}

/// The server's error in a value, if it is one.
pub(super) fn refusal(value: &Value) -> Option<Refusal> {
    match value {
        Value::ServerError(error) => Some(Refusal::new(error)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_change_and_whether_to_connect_anew() {
        for (line, word, ends) in [
            ("-READONLY You can't write against a read only replica.", "primary", true),
            ("-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "primary", true),
            ("-UNBLOCKED force unblock from blocking operation, instance state changed", "primary", true),
            ("-LOADING Redis is loading the dataset in memory", "by itself", true),
            ("-CLUSTERDOWN Hash slot not served", "single primary", true),
            ("-MOVED 3999 127.0.0.1:6381", "single primary", true),
            ("-TRYAGAIN Multiple keys request during rehashing of slot", "single primary", false),
            ("-MISCONF Redis is configured to save RDB snapshots, but it is unable to persist on disk.", "disk", false),
            ("-NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write", false),
            ("-OOM command not allowed when used memory > 'maxmemory'.", "maxmemory", false),
            ("-BUSY Redis is busy running a script.", "SCRIPT KILL", false),
            ("-NOAUTH Authentication required.", "redis://:PASSWORD@", true),
            ("-NOPERM this user has no permissions to run the 'xadd' command", "ACL SETUSER", true),
            ("-ERR The user executing the script can't run this command or subcommand", "ACL SETUSER", true),
            ("-DENIED Redis is running in protected mode because", "protected-mode", false),
            ("-WRONGTYPE Operation against a key holding the wrong kind of value", "prefix", false),
            ("-FOREIGN fanfare:{0}:log holds a list of another program", "?adopt=true", false),
            ("-ERR max number of clients reached", "maxclients", false),
            ("-ERR DB index is out of range", "/0", false),
            ("-ERR unknown command 'EVALSHA', with args beginning with:", "Redis 5", false),
            ("-ERR AUTH <password> called without any password configured for the default user.", "take it out", false),
        ] {
            let refusal = Refusal::of_line(&format!("{line}\r\n")).unwrap_or_else(|| panic!("{line} is one"));
            let text = refusal.to_string();
            assert!(text.contains(word) && !text.contains('\r'), "{line}: {text}");
            assert_eq!(refusal.ends_links(), ends, "{line}");
        }
    }

    #[test]
    fn the_code_of_a_scripts_error_is_found_in_each_version() {
        let details = "You can't write against a read only replica.";
        let new = format!("{details} script: 452d87888cb23581a701d870dc1adc60dc81d08d, on @user_script:1.");
        let old =
            format!("Error running script (call to f_452d8788): @user_script:1: @user_script: 1: -READONLY {details}");
        for (code, said) in [("READONLY", details), ("READONLY", &new), ("ERR", &old)] {
            assert_eq!(Refusal::of(code, said), Refusal { code: "READONLY".into(), details: details.into() }, "{said}");
        }
    }

    #[test]
    fn what_is_no_error_line_is_no_refusal() {
        for line in ["+PONG\r\n", "", "-", "\u{15}\u{3}\u{1}"] {
            assert_eq!(Refusal::of_line(line), None, "{line:?}");
        }
    }
}
