//! How old is what this process knows of revocations? (STORE-6)
//!
//! Other processes write revocations to a feed, which is read to its end again and again. Between two such readings nothing is
//! known of what they wrote: that is the lag. It is told by the monotonic clock, and grows by itself where nobody reads on,
//! whatever keeps him from it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// When the feed was last read to its end, and how long ago that may be.
#[derive(Debug)]
pub struct FeedAge {
    origin: Instant,
    /// Milliseconds after the origin, and one; 0 where there is no feed.
    read: AtomicU64,
    /// In milliseconds.
    bound: AtomicU64,
}

impl Default for FeedAge {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            read: AtomicU64::new(0),
            bound: AtomicU64::new(0),
        }
    }
}

impl FeedAge {
    /// From now on there is a feed, which counts as late once this much time has passed since it was last read to its end.
    pub fn begin(&self, bound: Duration) {
        self.bound.store(millis(bound), Ordering::Relaxed);
        self.read.fetch_max(1, Ordering::Release);
    }

    /// The feed was read to its end, by a look that began at `since`. To be called after what it said was
    /// obeyed.
    pub fn read_to_end(&self, since: Instant) {
        let at = millis(since.saturating_duration_since(self.origin)).saturating_add(1);
        self.read.fetch_max(at, Ordering::Release);
    }

    /// How old the knowledge is at this moment; `None` where there is no feed.
    #[must_use]
    pub fn lag(&self, now: Instant) -> Option<Duration> {
        let read = self.read.load(Ordering::Acquire).checked_sub(1)?;
        let now = millis(now.saturating_duration_since(self.origin));
        Some(Duration::from_millis(now.saturating_sub(read)))
    }

    /// Whether the knowledge is older than it may be for what must not go on without it.
    ///
    /// To be asked before a credential is looked at: what was obeyed by the time of a "no" is then seen by that look.
    #[must_use]
    pub fn is_late(&self, now: Instant) -> bool {
        let bound = Duration::from_millis(self.bound.load(Ordering::Relaxed));
        self.lag(now).is_some_and(|lag| lag > bound)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_6_the_lag_grows_until_the_feed_is_read_to_its_end_again() {
        let feed = FeedAge::default();
        let at = |millis| feed.origin + Duration::from_millis(millis);
        assert_eq!(feed.lag(at(50_000)), None);
        assert!(!feed.is_late(at(50_000)), "there is no feed");
        feed.begin(Duration::from_secs(15));
        for (now, late) in [
            (0, false),
            (15_000, false),
            (15_001, true),
            (u32::MAX, true),
        ] {
            assert_eq!(feed.is_late(at(now.into())), late, "{now}");
        }
        feed.read_to_end(at(20_000));
        assert_eq!(feed.lag(at(21_500)), Some(Duration::from_millis(1500)));
        for (now, late) in [(1, false), (35_000, false), (35_001, true)] {
            assert_eq!(feed.is_late(at(now)), late, "{now}");
        }
    }

    #[test]
    fn store_6_a_look_that_took_long_tells_nothing_of_what_came_meanwhile() {
        let feed = FeedAge::default();
        let at = |secs| feed.origin + Duration::from_secs(secs);
        feed.begin(Duration::from_secs(15));
        feed.read_to_end(at(30));
        // It began before that one and ends after it.
        feed.read_to_end(at(10));
        assert_eq!(feed.lag(at(40)), Some(Duration::from_secs(10)));
    }
}
