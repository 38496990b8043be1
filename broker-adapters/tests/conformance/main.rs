//! What every broker must do, written once and run on each.
//!
//! A case is listed once, below, with what it needs beyond a log and a wire. It runs on every broker that has
//! that; the others are named at the start of the run. A broker that is not installed fails its cases.

#![allow(clippy::print_stdout, reason = "tests print what they measured")]

mod cases;
mod fixture;
#[cfg(feature = "kafka")]
mod kafka_server;
mod lateness;
mod load;
mod memory;
mod node;
#[cfg(feature = "rabbitmq")]
mod rabbitmq_server;
#[cfg(feature = "redis")]
mod redis_server;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Ability, Boxed, Fixture, Kind};
use libtest_mimic::{Arguments, Failed, Trial};

/// The brokers.
const KINDS: &[Kind] = &[
    memory::KIND,
    #[cfg(feature = "redis")]
    redis_server::KIND,
    #[cfg(feature = "kafka")]
    kafka_server::KIND,
    #[cfg(feature = "rabbitmq")]
    rabbitmq_server::KIND,
];

struct Case {
    name: &'static str,
    needs: &'static [Ability],
    run: fn(Arc<dyn Fixture>) -> Boxed<()>,
}

macro_rules! cases {
    ($($module:ident { $($name:ident $([$($need:ident),*])?,)* })*) => {
        &[$($(Case {
            name: stringify!($name),
            needs: &[$($(Ability::$need),*)?],
            run: |broker| Box::pin(cases::$module::$name(broker)),
        }),*),*]
    };
}

/// All cases: by module, each with its needs.
const CASES: &[Case] = cases! {
    delivery {
        messages_arrive_once_and_in_one_order_on_every_node,
        a_repeated_id_is_delivered_once,
        ten_thousand_channels_work_side_by_side,
        a_late_tail_starts_at_the_end,
        a_tail_resumes_right_after_a_position,
        a_tail_follows_only_its_partitions,
        older_records_can_be_read_back,
        records_are_read_from_an_offset_on_and_the_head_is_the_last,
        records_are_read_up_to_an_offset_and_the_beginning_of_the_log_is_proven,
        recent_records_come_before_a_tail_is_up,
        an_acknowledgement_names_the_place_of_the_record,
        a_silent_log_stays_alive,
        closing_a_log_ends_its_tails,
    }
    content {
        every_channel_name_arrives_unchanged,
        a_channel_name_over_65535_bytes_is_refused,
        every_kind_of_payload_arrives_unchanged,
        extensions_arrive_unchanged_and_count_against_the_largest_record,
        the_largest_payload_arrives_and_one_byte_more_is_refused,
        records_that_the_broker_compresses_are_read [Codecs],
    }
    outage {
        a_cut_wire_loses_nothing,
        a_wire_reset_again_and_again_loses_nothing,
        a_dead_wire_is_found_and_replaced,
        a_wire_dead_towards_the_broker_is_found_and_replaced [HalfWire],
        a_wire_dead_from_the_broker_is_found_and_replaced [HalfWire],
        a_node_that_is_cut_off_does_not_disturb_the_other,
        a_broker_that_is_away_at_the_start_is_found_when_it_comes,
        publishes_during_an_outage_fail_by_their_deadline,
        reading_back_over_a_dead_wire_fails_in_time,
        short_deadlines_are_kept_behind_long_ones,
        publishes_beyond_the_budget_are_refused_at_once,
    }
    restart {
        a_killed_and_restarted_broker_loses_nothing [Process],
        a_paused_broker_delivers_nothing_twice [Process],
        a_broker_that_starts_after_the_node_is_found [Process],
        a_lost_disk_is_announced_and_the_log_goes_on [Process],
        connections_closed_by_the_broker_lose_nothing [Connections],
        no_connection_is_left_behind [Connections],
        a_failover_with_connections_open_loses_nothing [Failover],
    }
    damage {
        a_wiped_log_is_announced_and_goes_on,
        a_log_wiped_again_and_again_shows_what_is_acknowledged_afterwards,
        a_wiped_log_is_announced_by_the_next_publish [Positions],
        a_log_wiped_and_regrown_behind_a_cut_wire_is_announced,
        a_log_trimmed_behind_a_cut_wire_is_announced,
        a_position_that_was_trimmed_is_announced,
        a_position_of_a_wiped_log_is_announced,
        a_record_that_cannot_be_read_is_announced_and_skipped,
        a_log_set_back_to_an_older_state_is_announced [Process, Snapshots],
        a_log_set_back_and_regrown_behind_a_cut_wire_is_announced [Process, Snapshots],
        a_deleted_part_of_a_log_is_announced [Parts],
        an_entry_of_another_program_is_announced_and_skipped [Foreigners],
        a_damaged_partition_is_announced_and_goes_on [Bookkeeping],
        a_full_broker_takes_nothing_and_then_goes_on [MemoryLimit],
        a_broker_that_fills_up_gives_up_its_oldest_records [MemoryLimit],
    }
    order {
        new_connections_keep_the_order_of_publishes,
        a_wire_reset_again_and_again_keeps_the_order_of_publishes,
        a_broker_that_stands_still_keeps_the_order_of_publishes [Process],
        a_broker_killed_again_and_again_keeps_the_order_of_publishes [Process],
    }
    astray {
        what_is_acknowledged_and_not_read_is_announced,
        a_log_set_back_while_it_is_read_is_announced [LiveSnapshots],
    }
    newer {
        newer_records_that_may_be_skipped_are_no_loss,
        a_newer_record_that_may_not_be_skipped_is_announced_once,
    }
    entry {
        a_log_of_another_program_is_refused_and_left_as_it_is [Squatters],
        a_node_that_may_not_write_is_not_up_and_says_why [Rights],
        a_wrong_password_is_named_as_the_reason_and_never_shown [Login],
        another_number_of_partitions_is_refused_in_words [FixedPartitions],
        partitions_added_later_are_refused_in_words [MorePartitions],
        tls_works_with_a_private_ca [Tls],
        a_certificate_of_another_ca_is_refused [Tls],
    }
};

/// Cases mostly wait: more of them at a time than there are cores.
const THREADS: usize = 8;
/// The longest that a case may take; its steps have a patience of their own.
const WHOLE: Duration = Duration::from_secs(400);

fn run(kind: &Kind, case: &Case) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (start, run, needs) = (kind.start, case.run, case.needs);
    let run = async move {
        let broker = start(needs).await;
        tokio::time::timeout(WHOLE, run(broker)).await
    };
    let in_time = runtime.block_on(run);
    in_time.map_err(|_| Failed::from(format!("not done within {WHOLE:?}")))
}

fn main() {
    lateness::watch();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let mut trials = Vec::new();
    for kind in KINDS {
        for case in CASES {
            let lacks: Vec<_> = case.needs.iter().filter(|need| !kind.abilities.contains(need)).collect();
            if lacks.is_empty() {
                trials.push(Trial::test(format!("{}::{}", kind.name, case.name), || run(kind, case)));
            } else if !arguments.list {
                println!("not for {}, which has no {lacks:?}: {}", kind.name, case.name);
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}
