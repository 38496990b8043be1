//! The settings of a node, the places that they come from, and the messages about wrong ones.
//!
//! Defaults, then the file, then the environment, then flags: [`load`] merges them. A loaded [`Config`] is valid; nothing
//! checks it again. No way of printing a `Config` shows a password or a secret.

mod address;
mod api_key;
mod broker_url;
mod duration;
mod environment;
mod errors;
mod hook_url;
mod jwks_url;
mod keys;
mod load;
mod name;
mod network;
mod number;
mod optional;
#[cfg(test)]
mod reference;
mod rules;
mod sections;
mod size;
mod token_key;
mod web_url;
mod webhook_url;

use std::{fmt, fs, process};

use serde::{Deserialize, Serialize};

pub(crate) use self::duration::parse as parse_duration;
pub(crate) use self::network::masked;
pub use self::{
    api_key::{ApiKey, InvalidHash, KeyHash},
    broker_url::{BrokerUrl, redacted},
    errors::{ConfigError, ConfigErrors, Place},
    hook_url::{HookUrl, InvalidHookUrl},
    jwks_url::{InvalidJwksUrl, JwksUrl},
    load::{Overrides, load},
    network::Network,
    sections::{
        Agent, Anonymous, Api, ApiListen, Auth, Broker, Channel, Cluster, Hook, Hooks, Http, Limits, Log, Node,
        Presence, Timing, Tls, WebhookEvent, Webhooks, Who, Window,
    },
    size::ByteSize,
    token_key::{InvalidSecret, Secret, TokenKey},
    webhook_url::{InvalidWebhookSecret, InvalidWebhookUrl, WebhookSecret, WebhookUrl},
};
pub use crate::gate::{Attendance, InvalidPattern, Pattern, Right, Slow};

/// All settings, by section.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The node's name and its threads.
    pub node: Node,
    /// Where the node accepts connections, and from which clients, pages and proxies.
    pub http: Http,
    /// Who the clients are: the keys that check their tokens, and whether clients without a token may connect.
    pub auth: Auth,
    /// TLS in the node, for deployments without a balancer that terminates it.
    pub tls: Tls,
    /// What one client, and all clients together, may use.
    pub limits: Limits,
    /// What clients may do on which channels: an ordered list of rules.
    pub channels: Vec<Channel>,
    /// Time-outs of connections, and the pace of a stop.
    pub timing: Timing,
    /// The log that connects the nodes.
    pub broker: Broker,
    /// Recent messages that the node keeps in memory, for clients that resume.
    pub window: Window,
    /// How the nodes know of each other.
    pub cluster: Cluster,
    /// Who is subscribed to channels.
    pub presence: Presence,
    /// The program's own log, on stderr.
    pub log: Log,
    /// The answer to HAProxy's agent-check.
    pub agent: Agent,
    /// The HTTP API for backends.
    pub api: Api,
    /// Your backend, asked before clients connect, subscribe and publish.
    pub hooks: Hooks,
    /// Your backend, notified of who comes and goes.
    pub webhooks: Webhooks,
}

impl Config {
    /// The node's name: `node.name`, or `<hostname>-<process id>` if that is empty. It does not change while the node runs.
    ///
    /// The hostname is the kernel's (Linux), else the variable `HOSTNAME`, else `node`.
    pub fn node_name(&self, environment: impl IntoIterator<Item = (String, String)>) -> String {
        if !self.node.name.is_empty() {
            return self.node.name.clone();
        }
        let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
        name::derived(kernel, environment, process::id())
    }
}

/// As TOML, without passwords and secrets.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&toml::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../deploy/fanfare.toml");

    #[test]
    fn the_example_file_holds_exactly_the_defaults() {
        assert_eq!(toml::from_str::<Config>(EXAMPLE), Ok(Config::default()));
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_configuration() {
        let config = Config::default();
        assert_eq!(toml::from_str::<Config>(&config.to_string()), Ok(config));
    }

    #[test]
    fn no_way_of_printing_shows_the_password() {
        let url = "redis://user:hunter2@host?token=hunter2".parse().expect("a URL");
        let config = Config { broker: Broker { url, ..Broker::default() }, ..Config::default() };
        for text in [format!("{config}"), format!("{config:?}"), format!("{config:#?}"), config.broker.url.to_string()]
        {
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains("redis://user:***@host?token=***"), "{text}");
        }
        assert_eq!(config.broker.url.expose(), "redis://user:hunter2@host?token=hunter2");
    }

    #[test]
    fn a_node_without_a_name_is_called_after_its_host_and_process() {
        let mut config = Config::default();
        assert!(config.node_name([]).ends_with(&format!("-{}", process::id())));
        config.node.name = "fanfare-1".into();
        assert_eq!(config.node_name([]), "fanfare-1");
    }
}
