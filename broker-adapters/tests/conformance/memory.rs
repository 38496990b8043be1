//! The embedded log: no process and no socket, but links that break.

use std::sync::Arc;

use async_trait::async_trait;
use broker_adapters::memory::Memory;
use broker_adapters::{Broker, Settings};
use real_brokers::Direction;

use crate::fixture::{Ability, Fixture, Kind};
use crate::node::SETTINGS;

pub(crate) const KIND: Kind = Kind {
    name: "memory",
    abilities: &[Ability::Positions],
    start: |_| Box::pin(async { Arc::new(Embedded::new()) as Arc<dyn Fixture> }),
};

struct Embedded {
    wires: [Memory; 2],
}

impl Embedded {
    fn new() -> Self {
        let memory = Memory::new(SETTINGS);
        Self { wires: [memory.connect(), memory] }
    }
}

#[async_trait]
impl Fixture for Embedded {
    fn connect(&self, wire: usize, _: Settings) -> Arc<dyn Broker> {
        Arc::new(self.wires[wire].clone())
    }

    fn cut(&self, wire: usize) {
        self.wires[wire].link().cut();
    }

    fn stall(&self, wire: usize, _: &[Direction]) {
        self.wires[wire].link().stall();
    }

    fn mend(&self, wire: usize) {
        self.wires[wire].link().mend();
    }

    async fn wipe(&self) {
        self.wires[0].wipe();
    }

    async fn trim(&self, keep: usize) {
        self.wires[0].trim(keep);
    }
}
