//! The judge of all tests of delivery: nothing acknowledged is lost without a mark, all readers have one order, and no
//! message reaches a reader whose right was withdrawn.
//!
//! A [`History`] records publishes and what readers met; its [`Report`] holds the numbers and each breach in words. The
//! conformance suite of the brokers, the gateway's simulation, the end-to-end tests and the faults are judged here.
//! Knows no broker and no socket: a *lane* is anything that has one order (a partition, a channel), a *reader* should
//! see everything in it, and a message is its payload.

mod history;
mod report;
mod rights;
mod rules;

pub use history::{History, Met, Outcome, PublishId, ReaderId};
pub use report::Report;
