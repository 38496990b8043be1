//! The table of faults: each on every broker where it makes sense, with three real nodes, an audience that records, and
//! a seeded load. Each says in one line what became of the messages.
//!
//! `tests/faults/run` starts it: without arguments a bounded choice, `--all` the whole table, `--seed N` a load again.

#![allow(clippy::print_stdout, reason = "tests print what they measured")]

mod balancer;
mod flood;
mod host;
mod kafka;
mod load;
mod nodes;
mod outage;
mod rabbitmq;
mod readers;
mod redis;
mod returners;
mod stage;
mod wires;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::FutureExt;
use libtest_mimic::{Arguments, Failed, Trial};
use tests::Broker::{self, Kafka, Memory, RabbitMq, Redis};
use tokio::time::timeout;

use stage::Case;

/// One fault.
struct Row {
    fault: &'static str,
    /// Where it makes sense.
    on: &'static [Broker],
    /// Where the bounded choice has it.
    always: &'static [Broker],
    run: fn(Case) -> Ended,
}

type Ended = Pin<Box<dyn Future<Output = Result<()>>>>;

macro_rules! faults {
    ($($module:ident { $($fault:ident on $on:expr, always $always:expr;)* })*) => {
        &[$($(Row {
            fault: stringify!($fault),
            on: &$on,
            always: &$always,
            run: |case| Box::pin($module::$fault(case)),
        }),*),*]
    };
}

const ALL: [Broker; 3] = [Redis, Kafka, RabbitMq];

/// All faults, by module.
const FAULTS: &[Row] = faults! {
    outage {
        a_broker_killed_and_restarted_loses_nothing on ALL, always ALL;
        a_broker_killed_and_wiped_is_announced_to_every_subscriber on ALL, always [Redis, RabbitMq];
        a_broker_that_stands_still_for_2_s_delivers_nothing_twice on ALL, always [Redis];
        a_broker_that_stands_still_for_30_s_leaves_publishes_unknown on ALL, always [];
        a_broker_away_for_long_takes_neither_memory_nor_cpu_nor_sockets on ALL, always [Redis];
    }
    wires {
        packets_that_vanish_are_noticed_within_three_heartbeats on ALL, always ALL;
        connections_reset_every_second_leave_nothing_behind on ALL, always [Redis];
        a_node_cut_from_the_broker_tells_only_its_own_clients on ALL, always ALL;
        all_nodes_that_lose_the_broker_keep_their_clients on ALL, always [Redis];
        connections_closed_by_the_broker_lose_nothing on [Redis, RabbitMq], always [Redis, RabbitMq];
    }
    nodes {
        clients_of_a_killed_node_resume_elsewhere_without_loss on ALL, always [Redis, Kafka];
        clients_of_a_killed_embedded_log_are_not_recovered on [Memory], always [Memory];
    }
    host {
        a_log_whose_reader_is_gone_costs_its_lines_alone on ALL, always [Redis];
        a_log_without_a_reader_loses_only_its_lines on ALL, always [Redis];
        descriptors_used_up_while_the_broker_is_away_let_the_link_return on ALL, always [Redis];
    }
    balancer {
        sockets_outlive_a_reload_of_the_balancer on ALL, always [Redis];
        clients_recover_after_a_restart_of_the_balancer on ALL, always [Redis];
        clients_cut_all_at_once_come_back_without_the_broker on ALL, always [Redis];
    }
    readers {
        one_reader_in_100_that_stalls_is_ended_unnoticed on ALL, always [Redis];
        half_of_the_readers_that_stall_are_ended_unnoticed on ALL, always [Redis];
        sockets_that_join_and_leave_without_an_end_are_unnoticed on ALL, always [Redis];
    }
    returners {
        a_thousand_returners_to_a_quiet_channel_cost_one_reading on ALL, always [Redis];
        a_flood_of_forged_positions_is_bounded_work_and_unnoticed on ALL, always [Redis];
    }
    redis {
        flushall_is_announced_to_every_subscriber on [Redis], always [Redis];
        xtrim_is_announced_to_clients_that_had_not_read on [Redis], always [Redis];
        a_deleted_stream_is_announced_to_its_subscribers_only on [Redis], always [Redis];
        a_full_redis_fails_publishes_and_goes_on on [Redis], always [Redis];
        a_failover_with_connections_open_loses_nothing on [Redis], always [Redis];
        a_replica_promoted_while_its_primary_stalls_is_followed on [Redis], always [Redis];
        a_log_set_back_by_a_second_while_it_is_read_is_announced on [Redis], always [Redis];
        redis_demoted_with_connections_open_is_left_by_every_node on [Redis], always [Redis];
    }
    kafka {
        a_topic_made_anew_is_announced_to_every_subscriber on [Kafka], always [Kafka];
        retention_is_announced_to_clients_that_had_not_read on [Kafka], always [Kafka];
        a_node_refuses_to_start_where_partitions_were_added on [Kafka], always [Kafka];
    }
    rabbitmq {
        a_memory_alarm_fails_publishes_by_their_deadline on [RabbitMq], always [RabbitMq];
        a_deleted_stream_is_announced_and_made_anew on [RabbitMq], always [RabbitMq];
        channel_errors_lose_nothing on [RabbitMq], always [RabbitMq];
    }
};

/// Cases mostly wait, but their measurements want some quiet.
const THREADS: usize = 2;

/// The longest that a case may take; its steps have a patience of their own.
const LONGEST: Duration = Duration::from_secs(300);

/// The arguments of this program, beside those that every test program knows.
struct Wish {
    whole: bool,
    seed: u64,
}

impl Wish {
    /// Takes `--all` and `--seed N` out of the command line.
    fn take(words: &mut Vec<String>) -> Result<Self> {
        let mut wish = Self { whole: false, seed: fastrand::u64(..1_000_000) };
        if let Some(place) = words.iter().position(|word| word == "--all") {
            words.remove(place);
            wish.whole = true;
        }
        if let Some(place) = words.iter().position(|word| word == "--seed") {
            words.remove(place);
            wish.seed = (place < words.len()).then(|| words.remove(place)).context("--seed N")?.parse()?;
        }
        Ok(wish)
    }
}

fn run(row: &Row, case: Case) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let in_time = async { timeout(LONGEST, (row.run)(case)).await.context("it does not end")? };
    let ended = runtime.block_on(AssertUnwindSafe(in_time).catch_unwind());
    let Case { fault, broker, seed, .. } = case;
    if !matches!(ended, Ok(Ok(()))) {
        println!("{case} failed; the same load again: tests/faults/run --seed {seed} {broker}::{fault}");
    }
    match ended {
        Ok(ended) => ended.map_err(|error| format!("{error:#}").into()),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn main() -> Result<ExitCode> {
    let mut words: Vec<_> = std::env::args().collect();
    let Wish { whole, seed } = Wish::take(&mut words)?;
    let mut arguments = Arguments::from_iter(words);
    arguments.test_threads.get_or_insert(THREADS);
    let every = whole || arguments.filter.is_some();
    let mut trials = Vec::new();
    for row in FAULTS {
        for &broker in if every { row.on } else { row.always } {
            let case = Case { fault: row.fault, broker, seed, whole };
            trials.push(Trial::test(format!("{broker}::{}", row.fault), move || run(row, case)));
        }
    }
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}
