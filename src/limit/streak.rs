//! How often in a row did it go wrong for a key? A count that leads to a stop, in memory that has a bound.
//!
//! Each try is counted before it is made, so that many at once get no more than one after the other (RATE-6); one that goes well
//! begins a new count. What is counted is forgotten again, the later the more it is: `n` tries for `n` parts of the stop. So whoever
//! tries slowly enough never to be stopped has no more tries in the time of a stop than it takes to be stopped.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::settings::Quota;
use crate::policy::rejection::Exceeded;

/// How many of the oldest counts a new key looks at for one that is over, or for the lowest.
const SWEEP: usize = 8;

/// Counts for keys. A key is kept as a digest under secrets of the process.
pub struct Streaks {
    name: &'static str,
    quota: Quota,
    max_keys: usize,
    secrets: [RandomState; 2],
    counts: Mutex<Counts>,
}

type Digest = [u64; 2];

#[derive(Default)]
struct Counts {
    counts: HashMap<Digest, Count>,
    /// The same keys, each once, in the order in which they are looked at for removal.
    oldest: VecDeque<Digest>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    tries: u32,
    /// When it is forgotten, and a stop is over.
    until: Instant,
}

impl Streaks {
    /// `quota.count` tries in a row, then none for `quota.window`; its burst means nothing. `max_keys` bounds the memory. Beyond
    /// it a new key takes the place of one with few tries: to make this forget a key, others must be tried as often as it was.
    #[must_use]
    pub fn new(name: &'static str, quota: Quota, max_keys: usize) -> Self {
        Self {
            name,
            quota,
            max_keys: max_keys.max(1),
            secrets: [RandomState::new(), RandomState::new()],
            counts: Mutex::default(),
        }
    }

    /// Counts a try.
    ///
    /// # Errors
    /// [`Exceeded`] with the time until the stop is over. Such a try is not counted.
    pub fn check(&self, key: &str) -> Result<(), Exceeded> {
        self.check_at(key, Instant::now())
    }

    /// The same at another time.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_at(&self, key: &str, now: Instant) -> Result<(), Exceeded> {
        let digest = self.digest(key);
        let counts = &mut *self.lock();
        let kept = counts.counts.get(&digest).filter(|kept| kept.until > now);
        let tries = kept.map_or(0, |kept| kept.tries);
        if let Some(stop) = kept.filter(|_| tries >= self.quota.count) {
            return Err(Exceeded {
                limit: self.name,
                retry_after: stop.until.duration_since(now),
                quota: self.quota.count,
                window: self.quota.window,
            });
        }
        let tries = tries.saturating_add(1);
        let until = now.checked_add(self.life(tries)).unwrap_or(now);
        counts.put(digest, Count { tries, until }, now, self.max_keys);
        Ok(())
    }

    /// A try was not made after all.
    pub fn give_back(&self, key: &str) {
        if let Some(count) = self.lock().counts.get_mut(&self.digest(key)) {
            count.tries = count.tries.saturating_sub(1);
        }
    }

    /// A try went well: a new count begins.
    pub fn succeeded(&self, key: &str) {
        // The entry stays until it is swept, so that each key is in the queue once.
        if let Some(count) = self.lock().counts.get_mut(&self.digest(key)) {
            count.tries = 0;
        }
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().counts.len()
    }

    /// Whether no key is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For how long so many tries are remembered after the last.
    fn life(&self, tries: u32) -> Duration {
        let Quota { count, window, .. } = self.quota;
        window.saturating_mul(tries.min(count)) / count.max(1)
    }

    fn digest(&self, key: &str) -> Digest {
        self.secrets.each_ref().map(|secret| secret.hash_one(key))
    }

    /// A panic under it is impossible but for a fault of the allocator, and leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn put(&mut self, key: Digest, count: Count, now: Instant, max_keys: usize) {
        if let Some(known) = self.counts.get_mut(&key) {
            *known = count;
            return;
        }
        self.make_room(now, max_keys);
        self.counts.insert(key, count);
        self.oldest.push_back(key);
    }

    /// Forgets what is over among the oldest, and where that is not enough, the one with the fewest tries.
    fn make_room(&mut self, now: Instant, max_keys: usize) {
        let mut lowest: Option<(Digest, u32)> = None;
        for _ in 0..SWEEP {
            let Some(key) = self.oldest.pop_front() else {
                break;
            };
            let kept = self.counts.get(&key).copied();
            let Some(kept) = kept.filter(|kept| kept.tries > 0 && kept.until > now) else {
                self.counts.remove(&key);
                continue;
            };
            match lowest {
                Some((_, tries)) if tries <= kept.tries => self.oldest.push_back(key),
                other => {
                    self.oldest.extend(other.map(|(key, _)| key));
                    lowest = Some((key, kept.tries));
                }
            }
        }
        if let Some((key, _)) = lowest {
            if self.counts.len() < max_keys {
                self.oldest.push_back(key);
            } else {
                self.counts.remove(&key);
            }
        }
    }
}

impl fmt::Debug for Streaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaks")
            .field("name", &self.name)
            .field("quota", &self.quota)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Ten tries, then none for an hour.
    fn streaks(max_keys: usize) -> Streaks {
        let quota = Quota {
            count: 10,
            window: HOUR,
            burst: 10,
        };
        Streaks::new("login_failures", quota, max_keys)
    }

    /// How many tries pass.
    fn tries(streaks: &Streaks, key: &str, times: usize, now: Instant) -> usize {
        (0..times)
            .filter(|_| streaks.check_at(key, now).is_ok())
            .count()
    }

    fn in_queue(streaks: &Streaks) -> usize {
        streaks.lock().oldest.len()
    }

    #[test]
    fn rate_4_ten_in_a_row_and_no_more_until_the_stop_is_over() {
        let (streaks, now) = (streaks(100), Instant::now());
        assert_eq!(tries(&streaks, "ann", 50, now), 10);
        let refused = streaks.check_at("ann", now).unwrap_err();
        assert_eq!((refused.limit, refused.quota), ("login_failures", 10));
        assert_eq!((refused.retry_after, refused.window), (HOUR, HOUR));
        assert_eq!(tries(&streaks, "bob", 1, now), 1);
        // To try in vain makes it no longer.
        let last = now + HOUR - Duration::from_nanos(1);
        assert_eq!(tries(&streaks, "ann", 9, last), 0);
        assert_eq!(tries(&streaks, "ann", 50, now + HOUR), 10);
    }

    #[test]
    fn rate_4_one_that_goes_well_begins_anew_and_one_that_was_not_made_does_not_count() {
        let (streaks, now) = (streaks(100), Instant::now());
        for _ in 0..30 {
            assert_eq!(tries(&streaks, "ann", 10, now), 10);
            streaks.succeeded("ann");
        }
        assert_eq!(tries(&streaks, "ann", 9, now), 9);
        for _ in 0..30 {
            assert_eq!(tries(&streaks, "ann", 1, now), 1);
            streaks.give_back("ann");
        }
        assert_eq!(tries(&streaks, "ann", 9, now), 1);
        streaks.give_back("nobody");
        streaks.succeeded("nobody");
        assert_eq!(tries(&streaks, "nobody", 11, now), 10);
        assert_eq!(streaks.len(), 2);
    }

    #[test]
    fn rate_4_who_tries_slowly_has_no_more_in_the_time_of_a_stop() {
        let begun = Instant::now();
        let part = HOUR / 10;
        // One try in a tenth of the stop and a little is forgotten in time; a little faster, and it comes to a stop.
        for (pause, most) in [(part, 240), (part - Duration::from_secs(30), 241)] {
            let streaks = streaks(100);
            let mut now = begun;
            let mut passed = 0;
            while now < begun + 24 * HOUR {
                passed += tries(&streaks, "ann", 1, now);
                now += pause;
            }
            assert!(passed <= most, "{passed} in a day with {pause:?} between");
            assert!(passed > 100, "{passed}: not stopped for ever");
        }
    }

    #[test]
    fn rate_4_and_rate_6_a_thousand_at_once_get_ten() {
        let (streaks, passed) = (streaks(100), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let own = tries(&streaks, "ann", 50, Instant::now());
                    passed.fetch_add(own, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(passed.into_inner(), 10);
    }

    #[test]
    fn rate_3_and_rate_4_a_flood_of_names_is_bounded_and_makes_nobody_s_count_forgotten() {
        let (streaks, now) = (streaks(1000), Instant::now());
        assert_eq!(tries(&streaks, "stopped", 11, now), 10);
        assert_eq!(tries(&streaks, "tried", 2, now), 2);
        for number in 0..100_000 {
            assert_eq!(tries(&streaks, &format!("name{number}"), 1, now), 1);
        }
        assert!(streaks.len() <= 1000, "{}", streaks.len());
        assert_eq!(in_queue(&streaks), streaks.len());
        assert_eq!(tries(&streaks, "stopped", 5, now), 0);
        assert_eq!(tries(&streaks, "tried", 50, now), 8);
        // When it is over, the memory is free for others.
        for number in 0..1000 {
            let later = now + HOUR * 2;
            assert_eq!(tries(&streaks, &format!("other{number}"), 1, later), 1);
        }
        assert!(streaks.len() <= 1000);
        assert_eq!(in_queue(&streaks), streaks.len());
    }
}
