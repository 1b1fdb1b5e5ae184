//! What was counted in each of the last seconds. A second takes some hundred bytes, and five minutes are kept.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::telemetry::{Durations, RouteTotals, Telemetry, Totals};

/// Seconds that are kept.
pub(super) const SECONDS_MAX: usize = 300;
/// Seconds between two marks, at which routes and upstreams are noted.
const MARK_EVERY: u32 = 10;
/// Marks that are kept: a minute.
const MARKS_MAX: usize = 6;
/// Routes that a mark has; others are told without their last minute.
const MARKED_ROUTES_MAX: usize = 1000;

/// Codes that say nothing against the request: what they stand for is a fault here or behind.
const FAULTS: [&str; 10] = [
    "internal",
    "keys_unavailable",
    "loop_detected",
    "no_healthy_upstream",
    "overloaded",
    "store_unavailable",
    "upstream_invalid",
    "upstream_timeout",
    "upstream_tls",
    "upstream_unreachable",
];

/// Everything that is counted, at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    pub(super) totals: Totals,
    pub(super) limits: BTreeMap<&'static str, u64>,
    /// Look-ups of the token cache: hit, joined, missed.
    pub(super) cache: [u64; 3],
}

/// What came in a while.
#[derive(Debug, Clone, Default)]
pub(super) struct Passed {
    pub(super) took: Duration,
    pub(super) requests: u64,
    /// Requests that the gateway refused for what they are.
    pub(super) refused: u64,
    /// Answers of 5xx, its own and those of backends.
    pub(super) failed: u64,
    pub(super) durations: Durations,
    pub(super) codes: BTreeMap<&'static str, u64>,
    pub(super) limits: BTreeMap<&'static str, u64>,
    pub(super) cache: [u64; 3],
}

/// Routes and upstreams at a moment.
#[derive(Debug, Default)]
pub(super) struct Mark {
    pub(super) routes: HashMap<Arc<str>, RouteTotals>,
    pub(super) upstreams: HashMap<Arc<str>, Durations>,
}

/// The last minutes.
#[derive(Debug, Default)]
pub(super) struct History {
    last: Option<(Instant, Reading)>,
    seconds: VecDeque<Passed>,
    marks: VecDeque<Mark>,
    until_mark: u32,
}

impl Reading {
    pub(super) fn of(telemetry: &Telemetry, cache: [u64; 3]) -> Self {
        Self {
            totals: telemetry.totals(),
            limits: telemetry.limit_totals(),
            cache,
        }
    }
}

impl History {
    /// Notes what has come since the last time; to be called each second.
    pub(super) fn push(&mut self, now: Instant, reading: Reading) {
        if let Some((then, before)) = &self.last {
            let took = now.saturating_duration_since(*then);
            if self.seconds.len() >= SECONDS_MAX {
                self.seconds.pop_front();
            }
            self.seconds
                .push_back(Passed::between(before, &reading, took));
        }
        self.last = Some((now, reading));
    }

    /// Whether a mark is due, which is asked once each second.
    pub(super) fn wants_mark(&mut self) -> bool {
        let due = self.until_mark == 0;
        self.until_mark = self.until_mark.checked_sub(1).unwrap_or(MARK_EVERY - 1);
        due
    }

    /// Notes routes and upstreams.
    pub(super) fn mark(&mut self, mut mark: Mark) {
        if mark.routes.len() > MARKED_ROUTES_MAX {
            let mut counts: Vec<u64> = mark.routes.values().map(RouteTotals::requests).collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            let least = counts.get(MARKED_ROUTES_MAX).copied().unwrap_or_default();
            mark.routes.retain(|_, route| route.requests() > least);
        }
        if self.marks.len() >= MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back(mark);
    }

    /// The mark of about a minute ago; the first one where there has been no minute yet.
    pub(super) fn minute_ago(&self) -> Option<&Mark> {
        self.marks.front()
    }

    /// What came in the last seconds, together.
    pub(super) fn over(&self, seconds: usize) -> Passed {
        let mut sum = Passed::default();
        for second in self.seconds.iter().rev().take(seconds) {
            sum.add(second);
        }
        sum
    }

    /// The seconds, the oldest first.
    pub(super) fn seconds(&self) -> impl Iterator<Item = &Passed> {
        self.seconds.iter()
    }

    /// What was counted at the last look.
    pub(super) fn reading(&self) -> Option<&Reading> {
        self.last.as_ref().map(|(_, reading)| reading)
    }
}

impl Passed {
    fn between(before: &Reading, now: &Reading, took: Duration) -> Self {
        let durations = now.totals.durations.since(&before.totals.durations);
        let class = |class: usize| {
            let of = |totals: &Totals| totals.classes.get(class).copied().unwrap_or_default();
            of(&now.totals).saturating_sub(of(&before.totals))
        };
        let codes = growth(&before.totals.codes, &now.totals.codes);
        let refused = codes
            .iter()
            .filter(|(code, _)| **code != "admitted" && !FAULTS.contains(code));
        let mut cache = now.cache;
        for (now, before) in cache.iter_mut().zip(before.cache) {
            // A cache that a reload replaced starts at 0.
            *now = now.checked_sub(before).unwrap_or(*now);
        }
        Self {
            took,
            requests: durations.count(),
            refused: refused.map(|(_, count)| count).sum(),
            failed: class(5),
            durations,
            codes,
            limits: growth(&before.limits, &now.limits),
            cache,
        }
    }

    fn add(&mut self, other: &Self) {
        self.took += other.took;
        self.requests += other.requests;
        self.refused += other.refused;
        self.failed += other.failed;
        self.durations.add(&other.durations);
        for (sum, others) in [
            (&mut self.codes, &other.codes),
            (&mut self.limits, &other.limits),
        ] {
            for (name, count) in others {
                *sum.entry(name).or_default() += count;
            }
        }
        for (sum, other) in self.cache.iter_mut().zip(other.cache) {
            *sum += other;
        }
    }
}

/// What has grown, and by how much.
fn growth(
    before: &BTreeMap<&'static str, u64>,
    now: &BTreeMap<&'static str, u64>,
) -> BTreeMap<&'static str, u64> {
    let grown = now.iter().filter_map(|(name, now)| {
        let before = before.get(name).copied().unwrap_or_default();
        let grown = now.saturating_sub(before);
        (grown > 0).then_some((*name, grown))
    });
    grown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(admitted: u64, refused: u64) -> Reading {
        let mut reading = Reading::default();
        reading.totals.classes[2] = admitted;
        reading.totals.classes[4] = refused;
        reading.totals.codes = BTreeMap::from([("admitted", admitted), ("role_missing", refused)]);
        reading.cache = [admitted, 0, refused];
        reading
    }

    #[test]
    fn the_first_look_tells_nothing_and_the_next_what_came() {
        let mut history = History::default();
        let start = Instant::now();
        history.push(start, reading(1000, 50));
        assert_eq!(history.over(10).codes, BTreeMap::new());
        history.push(start + Duration::from_secs(1), reading(1010, 53));
        let passed = history.over(10);
        assert_eq!(passed.codes["admitted"], 10);
        assert_eq!(passed.refused, 3);
        assert_eq!(passed.cache, [10, 0, 3]);
        assert_eq!(passed.took, Duration::from_secs(1));
    }

    #[test]
    fn counters_that_fall_make_no_growth() {
        let mut history = History::default();
        let start = Instant::now();
        history.push(start, reading(1000, 50));
        history.push(start + Duration::from_secs(1), reading(10, 0));
        let passed = history.over(10);
        assert_eq!((passed.codes.len(), passed.refused), (0, 0));
        assert_eq!(passed.cache, [10, 0, 0]);
    }

    #[test]
    fn no_more_is_kept_than_may() {
        let mut history = History::default();
        let start = Instant::now();
        let mut marks = 0;
        for second in 0..1000 {
            history.push(start + Duration::from_secs(second), reading(second, 0));
            if history.wants_mark() {
                marks += 1;
                let routes = (0..5000_u64).map(|number| {
                    let totals = RouteTotals {
                        admitted: number,
                        ..RouteTotals::default()
                    };
                    (number.to_string().into(), totals)
                });
                history.mark(Mark {
                    routes: routes.collect(),
                    ..Mark::default()
                });
            }
        }
        assert_eq!(marks, 100);
        assert_eq!(history.seconds().count(), SECONDS_MAX);
        assert_eq!(history.marks.len(), MARKS_MAX);
        let kept = &history.minute_ago().unwrap().routes;
        assert!(kept.len() <= MARKED_ROUTES_MAX && kept.contains_key("4999"));
    }

    #[test]
    fn five_minutes_with_every_code_take_little() {
        let codes = 60 * (size_of::<&str>() + size_of::<u64>());
        assert!(SECONDS_MAX * (size_of::<Passed>() + codes) < 1 << 20);
    }
}
