//! Whether a request that failed may be sent once more, and how many of them may (UP-2).
//!
//! Without a budget retries would be a load of their own, just when a server can carry none: every request of a failing
//! upstream would come twice. The budget is a share of the requests of the last seconds and a small number beside it, so that
//! an upstream with few requests has retries too. All workers share it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::{Method, Request, header};
use tokio::time::Instant;

use super::{Upstream, body::RequestBody, settings::RetrySettings};
use crate::{moment, telemetry::RetryResult};

/// Retries granted in each second, whatever the share says.
const FLOOR: u64 = 10;
/// The share is one of the requests in the present stretch of time and the one before.
const STRETCH: Duration = Duration::from_secs(5);

/// How many requests to an upstream may be sent again.
#[derive(Debug)]
pub(super) struct Budget {
    settings: RetrySettings,
    made: Instant,
    /// Of the even stretches and of the odd ones.
    requests: [Slot; 2],
    retries: [Slot; 2],
    floor: Slot,
}

/// A count that belongs to one stretch of time: the stretch's number in the upper half, the count in the lower one.
#[derive(Debug, Default)]
struct Slot(AtomicU64);

/// What one request has left of the attempts that it may make.
#[derive(Debug)]
pub(super) struct Attempts<'u> {
    upstream: &'u Upstream,
    left: u32,
    retried: bool,
}

impl Budget {
    pub(super) fn new(settings: RetrySettings) -> Self {
        Self {
            settings,
            made: Instant::now(),
            requests: Default::default(),
            retries: Default::default(),
            floor: Slot::default(),
        }
    }

    /// Counts a request, from which the share is reckoned.
    fn request(&self, now: Instant) {
        let stretch = self.stretch(now);
        slot(&self.requests, stretch).add(stretch);
    }

    /// Takes one retry out of the budget, if there is one left.
    fn take(&self, now: Instant) -> bool {
        let stretch = self.stretch(now);
        let of_both = |slots| slot(slots, stretch).count(stretch) + before(slots, stretch);
        let share = of_both(&self.requests) * u64::from(self.settings.thousandths) / 1000;
        let most = share.saturating_sub(before(&self.retries, stretch));
        let second = self.passed(now).as_secs();
        slot(&self.retries, stretch).take(stretch, most) || self.floor.take(second, FLOOR)
    }

    fn stretch(&self, now: Instant) -> u64 {
        // From 1 on: the first one has a stretch before it, which is empty.
        self.passed(now).as_secs() / STRETCH.as_secs() + 1
    }

    fn passed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.made)
    }
}

fn slot(slots: &[Slot; 2], stretch: u64) -> &Slot {
    let [even, odd] = slots;
    if stretch.is_multiple_of(2) { even } else { odd }
}

/// The count of the stretch before.
fn before(slots: &[Slot; 2], stretch: u64) -> u64 {
    let stretch = stretch.saturating_sub(1);
    slot(slots, stretch).count(stretch)
}

impl Slot {
    const HALF: u32 = 32;

    fn of(stretch: u64, count: u64) -> u64 {
        stretch << Self::HALF | count
    }

    fn split(packed: u64) -> (u64, u64) {
        (packed >> Self::HALF, packed & u64::from(u32::MAX))
    }

    fn count(&self, stretch: u64) -> u64 {
        let (own, count) = Self::split(self.0.load(Ordering::Relaxed));
        if own == stretch { count } else { 0 }
    }

    /// Counts one. Of several that begin a stretch at the same moment one is counted: rather too few than too many.
    fn add(&self, stretch: u64) {
        let packed = self.0.load(Ordering::Relaxed);
        let (own, _) = Self::split(packed);
        if own == stretch {
            self.0.fetch_add(1, Ordering::Relaxed);
        } else if own < stretch {
            let first = Self::of(stretch, 1);
            let _ = self
                .0
                .compare_exchange(packed, first, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Counts one, unless there are `most` already.
    fn take(&self, stretch: u64, most: u64) -> bool {
        let next = |packed| {
            let (own, count) = Self::split(packed);
            let count = if own == stretch { count } else { 0 };
            (own <= stretch && count < most).then(|| Self::of(stretch, count + 1))
        };
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.is_ok()
    }
}

impl<'u> Attempts<'u> {
    /// The attempts of a request that begins now.
    pub(super) fn new(upstream: &'u Upstream) -> Self {
        if let Some(budget) = &upstream.retries {
            budget.request(moment::recent_timer());
        }
        Self {
            upstream,
            left: upstream
                .retries
                .as_ref()
                .map_or(0, |budget| budget.settings.attempts),
            retried: false,
        }
    }

    /// Whether the request may be sent again, should it stay unanswered.
    pub(super) fn may_repeat(&self, request: &Request<RequestBody>) -> bool {
        self.left > 0 && is_repeatable(request)
    }

    /// Whether the request may be sent once more, after an attempt to which there was no answer. It must not go on beyond
    /// its `deadline`.
    pub(super) fn take(&mut self, deadline: Instant) -> bool {
        let now = Instant::now();
        let Some(budget) = self.upstream.retries.as_ref().filter(|_| now < deadline) else {
            return false;
        };
        if self.left == 0 {
            return false;
        }
        if !budget.take(now) {
            self.count(RetryResult::OverBudget);
            return false;
        }
        self.left -= 1;
        self.retried = true;
        true
    }

    /// Notes how the request ended.
    pub(super) fn end(&self, answered: bool) {
        if self.retried {
            self.count(if answered {
                RetryResult::Answered
            } else {
                RetryResult::Failed
            });
        }
    }

    fn count(&self, result: RetryResult) {
        if let Some(metrics) = self.upstream.metrics() {
            metrics.retried(result);
        }
    }
}

/// Whether a request does the same when it is done twice: its method says so (RFC 9110 §9.2.2), no body goes with it, and it
/// asks for no other protocol.
fn is_repeatable(request: &Request<RequestBody>) -> bool {
    matches!(request.body(), RequestBody::Empty)
        && matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
        )
        && !request.headers().contains_key(header::UPGRADE)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn up_2_only_what_does_the_same_twice_is_repeatable() {
        for (method, want) in [
            ("GET", true),
            ("HEAD", true),
            ("OPTIONS", true),
            ("PUT", true),
            ("DELETE", true),
            ("POST", false),
            ("PATCH", false),
            ("CONNECT", false),
            ("PROPFIND", false),
            ("get", false),
        ] {
            let mut request = Request::new(RequestBody::Empty);
            *request.method_mut() = method.parse().unwrap();
            assert_eq!(is_repeatable(&request), want, "{method}");
            let protocol = HeaderValue::from_static("websocket");
            request.headers_mut().insert(header::UPGRADE, protocol);
            assert!(!is_repeatable(&request), "{method} with an upgrade");
        }
    }

    fn budget(thousandths: u32) -> Budget {
        Budget::new(RetrySettings {
            attempts: 1,
            thousandths,
        })
    }

    fn at(budget: &Budget, millis: u64) -> Instant {
        budget.made + Duration::from_millis(millis)
    }

    /// How many of `asked` retries are granted.
    fn granted(budget: &Budget, millis: u64, asked: usize) -> usize {
        let now = at(budget, millis);
        (0..asked).filter(|_| budget.take(now)).count()
    }

    fn requests(budget: &Budget, millis: u64, count: usize) {
        for _ in 0..count {
            budget.request(at(budget, millis));
        }
    }

    #[test]
    fn up_2_without_requests_the_floor_alone_is_granted() {
        let budget = budget(200);
        assert_eq!(granted(&budget, 0, 100), 10);
        assert_eq!(granted(&budget, 999, 100), 0);
        assert_eq!(granted(&budget, 1000, 100), 10);
        assert_eq!(granted(&budget, 600_000, 100), 10);
    }

    #[test]
    fn up_2_beyond_the_floor_a_share_of_the_requests_is_granted() {
        let budget = budget(200);
        requests(&budget, 100, 1000);
        assert_eq!(granted(&budget, 200, 1000), 200 + 10);
        // What was spent in the stretch before is spent.
        requests(&budget, 5000, 100);
        assert_eq!(granted(&budget, 5000, 1000), 20 + 10);
        // Requests of long ago count no more.
        assert_eq!(granted(&budget, 20_000, 1000), 10);
    }

    #[test]
    fn up_2_requests_of_the_last_stretch_count_for_the_next() {
        let budget = budget(200);
        requests(&budget, 4999, 1000);
        assert_eq!(granted(&budget, 5000, 1000), 200 + 10);
        assert_eq!(granted(&budget, 10_000, 1000), 10);
    }

    #[test]
    fn up_2_a_budget_of_nothing_leaves_the_floor() {
        let budget = budget(0);
        requests(&budget, 0, 1000);
        assert_eq!(granted(&budget, 0, 1000), 10);
    }

    #[test]
    fn up_2_all_workers_together_keep_to_the_budget() {
        let budget = budget(200);
        requests(&budget, 0, 1000);
        let now = at(&budget, 1);
        let all: usize = std::thread::scope(|scope| {
            let ask = || (0..1000).filter(|_| budget.take(now)).count();
            let workers: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .sum()
        });
        assert_eq!(all, 210);
    }

    #[test]
    fn up_2_in_the_long_run_the_load_is_at_most_the_share_and_the_floor() {
        let budget = budget(200);
        let mut retries = 0;
        // Every request fails: 600 a second for a minute, unevenly.
        for tenth in 0..600 {
            let now = tenth * 100;
            requests(&budget, now, if tenth % 100 < 50 { 110 } else { 10 });
            retries += granted(&budget, now, 110);
        }
        let all = 300 * 110 + 300 * 10;
        assert!(retries <= all / 5 + 10 * 60, "{retries} of {all}");
    }
}
