//! What a case may ask of a broker: connections over wires that it can break, and mischief.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker_adapters::{Broker, ConnectError, Partition, Settings};
use real_brokers::Direction;

/// The longest that anything may take. A case that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a broker has beyond a log and a wire. A case names what it needs; where a fixture lacks it the case is
/// not generated, and the run says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ability {
    /// Acknowledgements that tell a record's place.
    Positions,
    /// Each direction of a wire can die alone.
    HalfWire,
    /// A process that can be killed, restarted, stopped and continued.
    Process,
    /// Connections that the broker can count and close.
    Connections,
    /// A limit to its memory.
    MemoryLimit,
    /// Other programs can write to its log, in another format.
    Foreigners,
    /// What it keeps beside the records of a partition can be spoilt, or left without room behind it.
    Bookkeeping,
    /// Another server can take its place while connections to it stay open.
    Failover,
    /// Its data can be set back to an older state.
    Snapshots,
    /// Its data can be set back while clients read them.
    LiveSnapshots,
    /// A partition is kept in parts that can be deleted one by one.
    Parts,
    /// A number of partitions that outlives its clients.
    FixedPartitions,
    /// Partitions can be added later.
    MorePartitions,
    /// Other programs may have been at the log's names first.
    Squatters,
    /// It compresses what it stores.
    Codecs,
    /// Users who may read and not write.
    Rights,
    /// Users and passwords.
    Login,
    /// TLS.
    Tls,
}

/// A broker under test. All that it started ends when it is dropped.
#[async_trait]
pub(crate) trait Fixture: Send + Sync {
    /// A connection of its own to the broker, over the wire of this number (0 or 1).
    fn connect(&self, wire: usize, settings: Settings) -> Arc<dyn Broker>;

    /// Everything on the wire is reset, and nothing new gets through.
    fn cut(&self, wire: usize);
    /// The wire swallows everything and says nothing, for good where a connection is already made.
    fn stall(&self, wire: usize, directions: &[Direction]);
    /// New connections get through again.
    fn mend(&self, wire: usize);

    /// The broker loses all data and goes on.
    async fn wipe(&self);
    /// The broker keeps about this many records per partition.
    async fn trim(&self, keep: usize);

    /// The broker dies at once.
    async fn kill(&self) {
        lacks(Ability::Process)
    }
    /// The broker loses its disk, while it is dead.
    async fn lose_disk(&self) {
        lacks(Ability::Process)
    }
    /// Starts the broker and waits until its port is open.
    async fn start(&self) {
        lacks(Ability::Process)
    }
    /// The broker stands still, with its port open.
    async fn pause(&self) {
        lacks(Ability::Process)
    }
    /// The broker goes on.
    async fn resume(&self) {
        lacks(Ability::Process)
    }

    /// How many clients are connected.
    async fn connections(&self) -> usize {
        lacks(Ability::Connections)
    }
    /// The broker closes all its clients' connections.
    async fn close_connections(&self) {
        lacks(Ability::Connections)
    }

    /// The broker takes nothing more, or takes again.
    async fn full(&self, _full: bool) {
        lacks(Ability::MemoryLimit)
    }

    /// The broker has room for so many bytes more.
    async fn room(&self, _bytes: u64) {
        lacks(Ability::MemoryLimit)
    }

    /// Remembers the data as they are.
    async fn snapshot(&self) {
        lacks(Ability::Snapshots)
    }
    /// Brings back the remembered data, while the broker is dead.
    async fn roll_back(&self) {
        lacks(Ability::Snapshots)
    }

    /// Remembers the data as they are, within the running broker.
    async fn snapshot_live(&self) {
        lacks(Ability::LiveSnapshots)
    }
    /// Brings them back, at once and without ending a connection.
    async fn set_back_live(&self) {
        lacks(Ability::LiveSnapshots)
    }

    /// Deletes one of the parts in which a partition is kept, by number.
    async fn delete_part(&self, _partition: Partition, _part: usize) {
        lacks(Ability::Parts)
    }

    /// Another program writes to a partition's log, by other means than this library.
    async fn foreign_entry(&self, _partition: Partition) {
        lacks(Ability::Foreigners)
    }

    /// Spoils a partition in one of so many ways, by number; says what was done, or that there is no such way.
    async fn spoil(&self, _partition: Partition, _way: usize) -> Option<String> {
        lacks(Ability::Bookkeeping)
    }

    /// Another server, which has all records, takes its place; connections to the old one stay open.
    async fn fail_over(&self) {
        lacks(Ability::Failover)
    }

    /// Partitions are added, until there are this many.
    async fn grow(&self, _partitions: u16) {
        lacks(Ability::MorePartitions)
    }

    /// Another program keeps records of its own under names of the log, which no node has used yet.
    async fn squat(&self) {
        lacks(Ability::Squatters)
    }
    /// All that is kept under names of the log, in words.
    async fn kept(&self) -> String {
        lacks(Ability::Squatters)
    }
    /// A connection that may write there all the same.
    fn connect_adopting(&self, _settings: Settings) -> Arc<dyn Broker> {
        lacks(Ability::Squatters)
    }

    /// The broker compresses with this codec from now on.
    async fn compress(&self, _codec: &str) {
        lacks(Ability::Codecs)
    }

    /// A connection of a user who may write to this log or may not.
    async fn connect_guest(&self, _settings: Settings) -> Arc<dyn Broker> {
        lacks(Ability::Rights)
    }
    /// That user may write from now on, or may not any more.
    async fn let_guest_write(&self, _may: bool) {
        lacks(Ability::Rights)
    }

    /// A connection with another password than the right one, which is `hunter2`.
    fn connect_with_wrong_password(&self, _settings: Settings) -> Arc<dyn Broker> {
        lacks(Ability::Login)
    }

    /// A connection over TLS that trusts the broker's CA, or another one.
    fn connect_tls(&self, _trust: bool, _settings: Settings) -> Result<Arc<dyn Broker>, ConnectError> {
        lacks(Ability::Tls)
    }
}

fn lacks(ability: Ability) -> ! {
    unreachable!("a case that does not say so needs {ability:?}")
}

/// A future of a case or of a fixture's start.
pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A kind of broker.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) abilities: &'static [Ability],
    /// Starts a fresh one for a case with these needs.
    pub(crate) start: fn(&'static [Ability]) -> Boxed<Arc<dyn Fixture>>,
}
