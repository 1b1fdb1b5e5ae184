//! What was counted so far, for whoever looks at it now and then: sums over the handles, read without stopping a worker.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{Telemetry, histogram::BOUNDS, labels::LimitLabel};

/// Names of limits: the label of `portcullis_rate_limited_total`.
const LIMITS: [&str; 16] = [
    "bad_tokens",
    "login_failures",
    "login_per_account",
    "login_per_device",
    "login_per_ip",
    "login_per_network",
    "mail_per_ip",
    "mail_per_network",
    "mail_total",
    "per_ip",
    "refresh_per_session",
    "register_per_ip",
    "register_per_network",
    "route",
    "route_ip",
    "route_user",
];

/// Durations in buckets: those of the histograms, and one for what is beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durations(pub(super) [u64; BOUNDS.len() + 1]);

/// What was counted of all requests since the start. It falls where a reload takes a route away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Exchanges by the class of their status: those of 2xx are at 2.
    pub classes: [u64; 6],
    /// Requests by code: `admitted`, or why not.
    pub codes: BTreeMap<&'static str, u64>,
    /// How long exchanges took.
    pub durations: Durations,
}

/// What was counted of one route since it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteTotals {
    /// Requests that were admitted.
    pub admitted: u64,
    /// Requests that were refused, by the gateway or for its backend's fault.
    pub refused: u64,
    /// How long exchanges took.
    pub durations: Durations,
}

impl RouteTotals {
    /// Requests, admitted or not.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.admitted.saturating_add(self.refused)
    }
}

impl Durations {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Those that came after `before`; none where there were more then.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut later = *self;
        for (now, before) in later.0.iter_mut().zip(before.0) {
            *now = now.saturating_sub(before);
        }
        later
    }

    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        for (sum, other) in self.0.iter_mut().zip(others.0) {
            *sum = sum.saturating_add(other);
        }
    }

    /// The duration that this part of them, of a thousand, does not exceed, as near as the buckets tell; `None` for none. What is
    /// beyond the last bucket counts as its end.
    #[must_use]
    pub fn quantile(&self, thousandths: u64) -> Option<Duration> {
        let rank = self.count().checked_mul(thousandths)?.div_ceil(1000).max(1);
        let mut below = 0_u64;
        let mut from = Duration::ZERO;
        for (count, to) in self.0.iter().zip(BOUNDS) {
            let inside = rank.saturating_sub(below);
            if *count > 0 && inside <= *count {
                let width = to.saturating_sub(from).as_nanos();
                let part = width * u128::from(inside) / u128::from(*count);
                return Some(from + Duration::from_nanos(u64::try_from(part).ok()?));
            }
            below = below.saturating_add(*count);
            from = to;
        }
        (self.count() > 0).then_some(from)
    }
}

impl Telemetry {
    /// What was counted of all requests. Takes the lock of each route that was in use for a moment, in turn.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for route in self.metrics.routes.in_use() {
            route.add_to(&mut totals);
        }
        totals
    }

    /// What was counted of each route that was in use, by its name.
    #[must_use]
    pub fn route_totals(&self) -> HashMap<Arc<str>, RouteTotals> {
        let routes = self.metrics.routes.in_use().into_iter();
        routes
            .map(|route| (Arc::clone(route.name_shared()), route.totals()))
            .collect()
    }

    /// How long each upstream took to answer, by its name.
    #[must_use]
    pub fn upstream_totals(&self) -> HashMap<Arc<str>, Durations> {
        self.metrics.upstreams.totals()
    }

    /// How many requests each limit has refused, those that refused any.
    #[must_use]
    pub fn limit_totals(&self) -> BTreeMap<&'static str, u64> {
        let limited = &self.metrics.rate_limited;
        let count = |limit| Some((limit, limited.get(&LimitLabel { limit })?.get()));
        LIMITS.into_iter().filter_map(count).collect()
    }

    /// The connections that are open at a listener.
    #[must_use]
    pub fn open_connections(&self, listener: &'static str) -> u64 {
        self.metrics.connections(listener).count()
    }

    /// The tunnels that are open.
    #[must_use]
    pub fn open_tunnels(&self) -> u64 {
        u64::try_from(self.metrics.tunnels.get()).unwrap_or_default()
    }

    /// Log lines that were dropped.
    #[must_use]
    pub fn log_dropped(&self) -> u64 {
        self.metrics.faults.log_dropped.get()
    }

    /// Tasks that panicked.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.metrics.faults.panics.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One in each of these buckets.
    fn durations(buckets: &[usize]) -> Durations {
        let mut durations = Durations::default();
        for bucket in buckets {
            durations.0[*bucket] += 1;
        }
        durations
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Durations::default().quantile(500), None);
        assert_eq!(Durations::default().quantile(0), None);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let all = durations(&[4, 4, 4, 9]); // 5 to 10 ms, and 250 to 500 ms
        let median = all.quantile(500).unwrap();
        let (low, high) = (Duration::from_millis(5), Duration::from_millis(10));
        assert!(low < median && median <= high, "{median:?}");
        assert_eq!(all.quantile(750), Some(high));
        assert_eq!(all.quantile(990), Some(Duration::from_millis(500)));
        assert!(all.quantile(0).unwrap() > low);
    }

    #[test]
    fn what_is_beyond_the_buckets_is_told_as_their_end() {
        let beyond = durations(&[BOUNDS.len()]);
        assert_eq!(beyond.quantile(500), Some(Duration::from_secs(30)));
    }

    #[test]
    fn quantiles_of_huge_counts_do_not_overflow() {
        let mut huge = Durations::default();
        huge.0[3] = u64::MAX / 2;
        assert_eq!(huge.quantile(999), None);
        huge.0[3] = u64::MAX / 2000;
        assert!(huge.quantile(999).unwrap() <= Duration::from_millis(5));
    }

    #[test]
    fn counters_that_fell_count_as_none() {
        let (few, many) = (durations(&[1]), durations(&[1, 1, 2]));
        assert_eq!(few.since(&many), Durations::default());
        assert_eq!(many.since(&few), durations(&[1, 2]));
        let mut sum = few;
        sum.add(&durations(&[1, 2]));
        assert_eq!(sum, many);
    }
}
