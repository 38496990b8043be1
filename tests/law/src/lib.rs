//! The judge of all tests of delivery: nothing acknowledged is lost without a mark, and all readers have one order.
//!
//! A [`History`] records publishes and what readers met; its [`Report`] holds the numbers and each breach in words. The
//! conformance suite of the brokers, the gateway's simulation, the end-to-end tests and the faults are judged here.
//! Knows no broker and no socket: a *lane* is anything that has one order (a partition, a channel), a *reader* should
//! see everything in it, and a message is its payload.

mod history;
mod report;
mod rules;

pub use history::{History, Met, Outcome, PublishId, ReaderId};
pub use report::Report;
