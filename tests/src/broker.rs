//! What joins the nodes of a cluster: a broker of its own, or a part of one that many clusters share.
//!
//! Starting a broker costs seconds, so clusters that do it no harm share one.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use real_brokers::{Kafka, RabbitMq, Redis, Server};
use tokio::sync::OnceCell;

/// What joins the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// Nothing: each node has a log of its own.
    Memory,
    /// One Redis.
    Redis,
    /// One Kafka.
    Kafka,
    /// One RabbitMQ.
    RabbitMq,
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Kafka => "kafka",
            Self::RabbitMq => "rabbitmq",
        })
    }
}

impl Broker {
    /// How many nodes a cluster has, of three.
    #[must_use]
    pub fn nodes(self) -> usize {
        if self == Self::Memory { 1 } else { 3 }
    }

    /// A server of this kind that does not run yet, with so many wires to it; none for the log in memory.
    pub fn server(self, wires: usize) -> Result<Option<Box<dyn Server>>> {
        Ok(match self {
            Self::Memory => None,
            Self::Redis => Some(Box::new(Redis::new(wires)?)),
            Self::Kafka => Some(Box::new(Kafka::new(wires)?)),
            Self::RabbitMq => Some(Box::new(RabbitMq::new(wires)?)),
        })
    }

    async fn started(self, wires: usize) -> Result<Option<Box<dyn Server>>> {
        let server = self.server(wires)?;
        if let Some(server) = &server {
            server.start().await?;
        }
        Ok(server)
    }
}

/// Where a cluster has its log.
#[derive(Debug)]
pub(crate) enum Log {
    /// In memory, or on a server of its own.
    Own(Option<Box<dyn Server>>),
    /// On the server that clusters share, under a name of its own.
    Shared(&'static dyn Server, String),
}

impl Log {
    pub(crate) async fn on(broker: Broker, shared: bool, wires: usize) -> Result<Self> {
        static SERVERS: [OnceCell<Option<Box<dyn Server>>>; 4] = [const { OnceCell::const_new() }; 4];
        static LOGS: AtomicUsize = AtomicUsize::new(0);
        if shared {
            let server = SERVERS[broker as usize].get_or_try_init(|| broker.started(0)).await?;
            if let Some(server) = server.as_deref() {
                let name = format!("cluster-{}", LOGS.fetch_add(1, Ordering::Relaxed));
                return Ok(Self::Shared(server, name));
            }
        }
        Ok(Self::Own(broker.started(wires).await?))
    }

    pub(crate) fn server(&self) -> Option<&dyn Server> {
        match self {
            Self::Own(server) => server.as_deref(),
            Self::Shared(server, _) => Some(*server),
        }
    }

    /// What the node of this number is given.
    pub(crate) fn url(&self, number: usize) -> String {
        match self {
            Self::Own(None) => "memory:".to_owned(),
            Self::Own(Some(server)) => server.url(number),
            Self::Shared(server, name) => server.named_url(name),
        }
    }
}
