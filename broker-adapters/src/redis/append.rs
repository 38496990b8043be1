//! Appending: one script call per partition of a batch, all in one pipeline.

use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::dial::Dialer;
use super::link::NoAnswer;
use super::url::Address;
use super::value;
use super::words::refusal;
use crate::broker::{Append, AppendError, Stored};
use crate::line::Line;
use crate::stored::position::{Epoch, Offset};

type Outcome = Result<Stored, AppendError>;

pub(super) async fn append(
    line: &Line<Dialer>,
    address: &Address,
    keep: usize,
    batch: &[Append],
    deadline: Instant,
) -> Vec<Outcome> {
    let all = |error: AppendError| batch.iter().map(|_| Err(error.clone())).collect();
    let (link, turn) = match line.turn(deadline).await {
        Ok(given) => given,
        Err(error) => return all(AppendError::NotStored(error)),
    };
    // Stable: the records of a partition stay in order.
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|&index| batch[index].partition);
    let calls = || order.chunk_by(|&a, &b| batch[a].partition == batch[b].partition);
    let mut pipeline = Pipeline::with_capacity(batch.len());
    for call in calls() {
        let command = pipeline.cmd("EVALSHA").arg(&link.scripts.append).arg(2);
        command.arg(&address.partition_keys(batch[call[0]].partition.0));
        command.arg(value::new_epoch()).arg(address.adopt()).arg(keep);
        for &index in call {
            command.arg(&batch[index].bytes[..]);
        }
    }
    let answers = match link.ask(&pipeline, deadline).await {
        Ok(answers) => answers,
        Err(NoAnswer::Late) => return all(AppendError::Unknown("no answer in time".into())),
        Err(NoAnswer::Broken(why)) => return all(AppendError::Unknown(why)),
    };
    answers.iter().filter_map(refusal).for_each(|refusal| line.heed(&link, &refusal));
    let mut outcomes: Vec<Outcome> = all(AppendError::Unknown("no answer".into()));
    for (call, answer) in calls().zip(&answers) {
        value::report_damage(batch[call[0]].partition, answer);
        for (&index, outcome) in call.iter().zip(outcomes_of(answer, call.len())) {
            outcomes[index] = outcome;
        }
    }
    turn.end(&outcomes);
    outcomes
}

/// What one script call says of its `count` records.
fn outcomes_of(answer: &Value, count: usize) -> impl Iterator<Item = Outcome> {
    let outcome: Result<(Epoch, u64), AppendError> = match value::standing(answer) {
        Some((epoch, last)) => Ok((epoch, (last + 1).saturating_sub(count as u64))),
        None => Err(match refusal(answer) {
            // Whatever the error: the script stores all of its records or none.
            Some(why) => AppendError::NotStored(why.into()),
            None => AppendError::Unknown("not the answer of the append script".into()),
        }),
    };
    (0..count as u64).map(move |nth| {
        let (epoch, first) = outcome.clone()?;
        Ok(Stored { at: Some((epoch, Offset(first + nth))) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gives_each_record_its_offset() {
        let answer = Value::Array(vec![Value::BulkString(b"00000000000000ff".to_vec()), Value::Int(7)]);
        let stored = |offset| Ok(Stored { at: Some((Epoch(255), Offset(offset))) });
        assert_eq!(outcomes_of(&answer, 3).collect::<Vec<_>>(), [stored(5), stored(6), stored(7)]);
    }

    #[test]
    fn what_is_no_answer_leaves_the_records_unknown() {
        for answer in [Value::Nil, Value::Int(3), Value::Array(vec![]), Value::Array(vec![Value::Nil, Value::Int(1)])] {
            assert!(matches!(outcomes_of(&answer, 1).next(), Some(Err(AppendError::Unknown(_)))), "{answer:?}");
        }
    }
}
