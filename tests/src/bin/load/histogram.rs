//! Latencies counted in logarithmic buckets, exact to 1.6 %.
//!
//! Fixed size, no allocation when recording, so that the client stays cheap at millions of deliveries per second.

use std::time::Duration;

/// Buckets per power of two.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Enough for every `u64` of nanoseconds.
const BUCKETS: usize = (64 - STEP_BITS as usize + 1) * STEPS as usize;

/// How often each latency was seen.
pub(crate) struct Histogram {
    buckets: Box<[u64]>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS].into(), total: 0 }
    }

    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.buckets[bucket(nanoseconds)] += 1;
        self.total += 1;
    }

    pub(crate) fn clear(&mut self) {
        self.buckets.fill(0);
        self.total = 0;
    }

    /// The least latency that `share` (0 to 1) of all records do not exceed; zero when nothing was recorded.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper_bound(index));
            }
        }
        Duration::ZERO
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = value.ilog2() - STEP_BITS;
    (u64::from(shift + 1) * STEPS + (value >> shift) - STEPS) as usize
}

/// The greatest value that falls into the bucket.
fn upper_bound(index: usize) -> u64 {
    let (row, step) = (index as u64 / STEPS, index as u64 % STEPS);
    match row {
        0 => step,
        _ => ((STEPS + step) << (row - 1)) | ((1 << (row - 1)) - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_its_bucket_and_the_bucket_is_narrow() {
        let mut values: Vec<u64> = (0..300).collect();
        values.extend((0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]));
        values.push(u64::MAX);
        for value in values {
            let index = bucket(value);
            assert!(index < BUCKETS, "{value}");
            let bound = upper_bound(index);
            assert!(bound >= value && bound - value <= value / STEPS, "{value} is counted as {bound}");
            assert!(index == 0 || upper_bound(index - 1) < value, "{value} belongs into an earlier bucket");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_records() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        (1..=1000).for_each(|value| histogram.record(value * 1000));
        for (share, exact) in [(0.0, 1_000), (0.5, 500_000), (0.99, 990_000), (1.0, 1_000_000)] {
            let got = histogram.quantile(share).as_nanos() as f64;
            assert!(got >= f64::from(exact) && got <= f64::from(exact) * 1.016, "{share}: {got}, not {exact}");
        }
        histogram.clear();
        assert_eq!(histogram.quantile(1.0), Duration::ZERO);
    }
}
