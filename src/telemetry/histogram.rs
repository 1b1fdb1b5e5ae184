//! A histogram of durations that is observed without a lock: `prometheus-client`'s own takes a mutex each time, which
//! workers would contend for on every request.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, TypedMetric, exemplar::Exemplar},
};

use super::totals::Durations;

/// Upper bounds of the buckets; one more takes the rest.
pub(super) const BOUNDS: [Duration; 15] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// Durations in buckets from 0.5 ms to 30 s. Clones share their counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    buckets: [AtomicU64; BOUNDS.len()],
    beyond: AtomicU64,
    /// Microseconds, for nanoseconds of many long streams would overflow within weeks.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub(super) fn observe(&self, duration: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < duration);
        let counts = &*self.0;
        let bucket = counts.buckets.get(bucket).unwrap_or(&counts.beyond);
        bucket.fetch_add(1, Ordering::Relaxed);
        let rounded = duration.saturating_add(Duration::from_nanos(500));
        let micros = u64::try_from(rounded.as_micros()).unwrap_or(u64::MAX);
        counts.sum.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Histogram {
    /// What was counted so far.
    pub(super) fn counts(&self) -> Durations {
        let buckets = self.0.buckets.iter().chain([&self.0.beyond]);
        let mut counts = Durations::default();
        for (count, bucket) in counts.0.iter_mut().zip(buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        counts
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut buckets: Vec<(f64, u64)> = BOUNDS
            .iter()
            .zip(&self.0.buckets)
            .map(|(bound, count)| (bound.as_secs_f64(), load(count)))
            .collect();
        buckets.push((f64::INFINITY, load(&self.0.beyond)));
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_micros(load(&self.0.sum)).as_secs_f64();
        let exemplars = None::<&HashMap<usize, Exemplar<[(&str, &str); 0], f64>>>;
        encoder.encode_histogram(sum, count, &buckets, exemplars)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}
