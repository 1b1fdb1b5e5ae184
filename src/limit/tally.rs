//! What has a key used here that the other nodes do not know of?
//!
//! A node may let through a part of a key's budget before it has to tell: its lease. Who stays far below the node's part of
//! the rate is never told of, so that only keys which come near to a limit cost Redis anything.
//!
//! The lease is used in advance and settled afterwards. One that had to be granted first would refuse a burst that the limit
//! allows, or be kept back for a node that the client never comes to again.

use governor::nanos::Nanos;

/// All nodes together may leave a quarter of a burst untold: the lease of each is a quarter of its part.
const LEASES: u64 = 4;

/// From this burst on one request alone is never told of: a flood of addresses that ask once each has nothing to tell.
const ONE_IS_NONE: u32 = 8;

/// What uses less than this part of a node's part of the rate is not told of.
const THIN: u64 = 16;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// Milliseconds are counted in 31 bits; the bit above says that the key waits to be told of.
const WAITS: u32 = 1 << 31;

/// What makes a key worth telling of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// The nodes that share, 2 or more.
    pub(super) nodes: u32,
    /// Requests at once.
    pub(super) burst: u32,
    /// After which one request is given back.
    pub(super) interval: Nanos,
}

/// Eight bytes for each key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Since when, in milliseconds, and whether it waits. After 24 days the time begins anew, which may make a tally seem
    /// younger than it is: then it is told of, and nothing worse.
    since: u32,
    /// Requests; below zero where more were given back than taken since.
    untold: i32,
}

impl Tally {
    /// A tally that began now with one request, and whether that is to be told of.
    pub(super) fn begun(now: Nanos, terms: Terms) -> (Self, bool) {
        let mut tally = Self::default();
        let due = tally.add(now, terms);
        (tally, due)
    }

    /// Counts a request. True where the lease is used up and the key does not wait yet; from then on it waits.
    pub(super) fn add(&mut self, now: Nanos, terms: Terms) -> bool {
        let waits = self.since & WAITS != 0;
        if !waits && self.is_thin(now, terms) {
            self.since = millis(now);
            self.untold = self.untold.min(0);
        }
        self.untold = self.untold.saturating_add(1);
        let due = !waits && self.lease_is_used(terms);
        if due {
            self.since |= WAITS;
        }
        due
    }

    /// Uncounts a request that was given back.
    pub(super) fn take_back(&mut self) {
        self.untold = self.untold.saturating_sub(1);
    }

    /// Hands out what is to be told, 0 where it was given back meanwhile, and begins anew. The key waits no more.
    pub(super) fn settle(&mut self, now: Nanos) -> u32 {
        self.since = millis(now);
        let told = self.untold();
        self.untold = self.untold.min(0);
        told
    }

    /// It could not be told of; the next request tries again.
    pub(super) fn wait_no_more(&mut self) {
        self.since &= !WAITS;
    }

    /// Requests that nobody was told of.
    pub(super) fn untold(&self) -> u32 {
        self.untold.max(0).unsigned_abs()
    }

    fn lease_is_used(&self, terms: Terms) -> bool {
        let untold = u64::from(self.untold());
        let parts = untold.saturating_mul(LEASES * u64::from(terms.nodes));
        parts >= u64::from(terms.burst) && (untold > 1 || terms.burst < ONE_IS_NONE)
    }

    fn is_thin(&self, now: Nanos, terms: Terms) -> bool {
        let age = millis(now).wrapping_sub(self.since) & !WAITS;
        let age = u64::from(age).saturating_mul(NANOS_PER_MILLI);
        let slow = u64::from(self.untold())
            .saturating_mul(THIN * u64::from(terms.nodes))
            .saturating_mul(terms.interval.as_u64());
        age >= slow
    }
}

fn millis(now: Nanos) -> u32 {
    let millis = (now.as_u64() / NANOS_PER_MILLI) % u64::from(WAITS);
    u32::try_from(millis).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 100 a second, 200 at once, three nodes: a lease of 17, and a thin rate of 100 / 48 a second.
    fn terms() -> Terms {
        Terms {
            nodes: 3,
            burst: 200,
            interval: Duration::from_millis(10).into(),
        }
    }

    fn at(millis: u64) -> Nanos {
        Duration::from_millis(millis).into()
    }

    #[test]
    fn a_key_is_told_of_once_its_lease_is_used_up_and_once_alone() {
        let mut tally = Tally::default();
        let due: Vec<u64> = (1..=40).filter(|n| tally.add(at(*n), terms())).collect();
        assert_eq!(due, [17]);
        assert_eq!(tally.settle(at(41)), 40);
        let due: Vec<u64> = (42..=90).filter(|n| tally.add(at(*n), terms())).collect();
        assert_eq!(due, [58]);
        tally.wait_no_more();
        assert!(tally.add(at(91), terms()), "it is tried again");
        assert_eq!(tally.settle(at(92)), 50);
        assert_eq!(tally.settle(at(93)), 0);
    }

    #[test]
    fn who_stays_far_below_the_rate_is_never_told_of_and_who_does_not_is() {
        for (pause, told) in [(500, 0), (2_000, 0), (3_600_000, 0), (470, 1), (100, 1)] {
            let mut tally = Tally::default();
            let due = (1..=30).filter(|n| tally.add(at(n * pause), terms()));
            assert_eq!(due.count(), told, "one each {pause} ms");
        }
    }

    #[test]
    fn a_small_budget_has_a_lease_of_two_and_a_tiny_one_of_one() {
        for burst in 1..=24 {
            let terms = Terms { burst, ..terms() };
            let (mut tally, due) = Tally::begun(at(0), terms);
            assert_eq!(due, burst < 8, "{burst}");
            assert_eq!(tally.add(at(1), terms), burst >= 8, "{burst}");
        }
    }

    #[test]
    fn what_is_given_back_is_not_told_and_what_was_told_already_is_told_less_later() {
        let mut tally = Tally::default();
        for n in 0..20 {
            tally.add(at(n), terms());
        }
        for _ in 0..20 {
            tally.take_back();
        }
        assert_eq!(tally.settle(at(20)), 0);
        for n in 0..20 {
            tally.add(at(n), terms());
        }
        assert_eq!(tally.settle(at(20)), 20);
        for _ in 0..5 {
            tally.take_back();
        }
        assert_eq!(tally.untold(), 0);
        let due = (0..100).position(|n| tally.add(at(21 + n), terms()));
        assert_eq!(due, Some(21), "five, and the lease of seventeen");
        assert_eq!(tally.settle(at(200)), 17);
    }

    #[test]
    fn time_and_counts_beyond_reason_neither_overflow_nor_lock() {
        let mut tally = Tally {
            since: 0,
            untold: i32::MAX,
        };
        let terms = Terms {
            nodes: u32::MAX,
            burst: u32::MAX,
            interval: u64::MAX.into(),
        };
        assert!(tally.add(u64::MAX.into(), terms));
        assert_eq!(tally.settle(u64::MAX.into()), i32::MAX.unsigned_abs());
        let mut tally = Tally {
            since: 0,
            untold: i32::MIN,
        };
        tally.take_back();
        assert!(!tally.add(at(1), terms));
    }
}
