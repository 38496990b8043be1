//! What a `redis://` or `rediss://` URL says.
//!
//! `redis[s]://[[user]:password@]host[:port][/database][?prefix=NAME][&adopt=true][&ca=FILE]`. Nothing here ever shows the
//! password.

use std::fmt;
use std::path::Path;

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

use crate::connect::ConnectError;
use crate::tls::Tls;

/// Where Redis is, how to log in, and under which names the log is kept there.
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) login: RedisConnectionInfo,
    pub(super) tls: Option<Tls>,
    prefix: String,
    adopt: bool,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, ConnectError> {
        let wrong = |why: String| ConnectError::Url(why);
        let mut url = redis::parse_redis_url(text)
            .ok_or_else(|| wrong("it should read redis://user:password@host:6379/0".into()))?;
        if url.fragment().is_some() {
            return Err(wrong("`#…` is not known here; for a private CA use `rediss://…?ca=FILE`".into()));
        }
        let tls = url.scheme() == "rediss";
        if url.password().is_none() && !url.username().is_empty() {
            return Err(wrong(
                "it has a user without a password; for a password alone write redis://:PASSWORD@…, and where the user \
                 needs none, any word"
                    .into(),
            ));
        }
        let (mut prefix, mut adopt, mut ca) = ("fanfare".to_owned(), false, None);
        for (key, value) in url.query_pairs() {
            match &*key {
                "prefix" => prefix = value.into_owned(),
                "adopt" if value == "true" => adopt = true,
                "adopt" => return Err(wrong("`adopt` takes `true` only; leave it out otherwise".into())),
                "ca" if tls => ca = Some(value.into_owned()),
                "ca" => return Err(wrong("`ca` needs rediss://".into())),
                key => {
                    let key = key.escape_debug();
                    return Err(wrong(format!("`{key}` is not known; there are `prefix`, `adopt` and `ca`")));
                }
            }
        }
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b)) {
            return Err(wrong("`prefix` takes letters, digits and `-_.:`".into()));
        }
        url.set_query(None);
        // TLS is made here, not by the client library: it would read the CAs again for each connection.
        let _ = url.set_scheme("redis");
        let info = url.into_connection_info().map_err(|error| wrong(error.to_string()))?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(wrong("a host is missing".into())) };
        let tls = tls.then(|| Tls::new(host, ca.as_deref().map(Path::new))).transpose()?;
        Ok(Self { host: host.clone(), port: *port, login: info.redis_settings().clone(), tls, prefix, adopt })
    }

    /// The scripts' argument for keys that are not Fanfare's.
    pub(super) fn adopt(&self) -> &'static str {
        if self.adopt { "adopt" } else { "" }
    }

    /// The hash of what holds for the whole log.
    pub(super) fn settings_key(&self) -> String {
        format!("{}:settings", self.prefix)
    }

    /// A partition's keys: its epoch and last offset, and its records. Both in one slot of a Redis Cluster.
    pub(super) fn partition_keys(&self, partition: u16) -> [String; 2] {
        ["meta", "log"].map(|part| format!("{}:{{{partition}}}:{part}", self.prefix))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis at {}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Address {
        Address::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn a_url_names_the_server_the_user_and_the_database() {
        let address = parse("redis://me:p%40ss@redis.example:6380/3");
        assert_eq!((address.host.as_str(), address.port), ("redis.example", 6380));
        let login = &address.login;
        assert_eq!((login.username(), login.password(), login.db()), (Some("me"), Some("p@ss"), 3));
        assert!(address.tls.is_none());

        let address = parse("redis://:secret@[::1]");
        assert_eq!((address.host.as_str(), address.port), ("::1", 6379));
        let login = &address.login;
        assert_eq!((login.username(), login.password(), login.db()), (None, Some("secret"), 0));
    }

    #[test]
    fn the_prefix_names_the_keys() {
        assert_eq!(parse("redis://h").partition_keys(3), ["fanfare:{3}:meta", "fanfare:{3}:log"]);
        assert_eq!(parse("redis://h/?prefix=chat.v2").partition_keys(11), ["chat.v2:{11}:meta", "chat.v2:{11}:log"]);
        assert_eq!(parse("redis://h?prefix=a").settings_key(), "a:settings");
    }

    #[test]
    fn a_lone_word_before_the_host_is_taken_for_no_password() {
        let Err(error) = Address::parse("redis://hunter2@host") else { panic!("it is taken") };
        let error = error.to_string();
        assert!(error.contains("redis://:PASSWORD@") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn adopting_must_be_meant() {
        assert_eq!((parse("redis://h").adopt(), parse("redis://h?adopt=true").adopt()), ("", "adopt"));
        assert!(Address::parse("redis://h?adopt").is_err() && Address::parse("redis://h?adopt=false").is_err());
    }

    #[test]
    fn a_wrong_url_is_explained_without_its_password() {
        for (rest, word) in [
            ("host/notanumber", "database"),
            ("host:99999", "should read"),
            ("host?prefix=", "prefix"),
            ("host?prefix={x}", "prefix"),
            ("host?colour=red", "colour"),
            ("host?ca=/etc/ca.pem", "rediss"),
            ("host#insecure", "ca=FILE"),
        ] {
            let Err(error) = Address::parse(&format!("redis://user:hunter2@{rest}")) else { panic!("{rest} is taken") };
            let error = error.to_string();
            assert!(error.contains(word), "{rest}: {error}");
            assert!(!error.contains("hunter2"), "{rest}: {error}");
        }
        let Err(error) = Address::parse("rediss://:hunter2@host?ca=/nowhere.pem") else { panic!("no such file") };
        assert!(error.to_string().contains("/nowhere.pem") && !error.to_string().contains("hunter2"), "{error}");
    }
}
