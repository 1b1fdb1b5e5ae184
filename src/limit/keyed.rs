//! How often may one key ask? A budget for each, in memory that has a bound.
//!
//! The algorithm is governor's GCRA: a budget is one number, the time at which it would be full again, and asking whether
//! there is some left and taking it is one step under one lock (RATE-6). The table behind it is ours (`table`): governor's
//! own grow without end.

use std::{
    borrow::Borrow,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    marker::PhantomData,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{
    RateLimiter,
    clock::{Clock, DefaultClock, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
};

use super::{
    settings::Quota,
    share::{Account, Due, Named, Share},
    table::{Digest, Probe, Table},
};
use crate::policy::rejection::Exceeded;

/// A limit for each key of some kind. Keys themselves are not kept: an entry is a digest under a secret of the process, so
/// that it has a fixed size and says nothing of whom it counts (CACHE-8).
pub struct KeyedLimiter<K, C: Clock = DefaultClock> {
    limiter: RateLimiter<Probe, Table, C, NoOpMiddleware<C::Instant>>,
    /// The one that `limiter` works on.
    table: Table,
    /// Since when its times are counted.
    start: C::Instant,
    rate: governor::Quota,
    sharing: Option<Sharing>,
    name: &'static str,
    quota: Quota,
    max_keys: usize,
    /// Two secrets, for 64 bits alone would collide now and then among a million keys.
    secrets: [RandomState; 2],
    /// As if keys were made here, so that one that borrows may be asked about.
    key: PhantomData<fn() -> K>,
}

/// With whom budgets are shared.
#[derive(Debug)]
pub(super) struct Sharing {
    pub(super) share: Share,
    /// What distinguishes the limit from every other one of the node, and is the same on all nodes.
    pub(super) title: Box<str>,
    /// For how long the use of other nodes may make somebody wait beside what this node would make them wait.
    pub(super) wait_max: Duration,
}

impl<K: Hash + Eq> KeyedLimiter<K> {
    /// Makes a limiter in which every key has its whole burst. `name` is the limit's name in metrics; `max_keys` bounds the
    /// memory, at 65 to 90 bytes a key. Beyond it, keys not seen before share one budget.
    #[must_use]
    pub fn new(name: &'static str, quota: Quota, max_keys: usize) -> Self {
        Self::with_clock(name, quota, max_keys, DefaultClock::default())
    }
}

impl<K: Hash + Eq, C: Clock> KeyedLimiter<K, C> {
    /// The same by another clock.
    pub fn with_clock(name: &'static str, quota: Quota, max_keys: usize, clock: C) -> Self {
        Self::shared(name, quota, max_keys, clock, None)
    }

    /// The same, with budgets that other nodes take from too where `sharing` says with whom.
    pub(super) fn shared(
        name: &'static str,
        quota: Quota,
        max_keys: usize,
        clock: C,
        sharing: Option<Sharing>,
    ) -> Self {
        let rate = rate(quota);
        let nodes = sharing.as_ref().map(|sharing| sharing.share.nodes());
        let table = Table::new(max_keys, rate, nodes.unwrap_or_default());
        Self {
            start: clock.now(),
            limiter: RateLimiter::new(rate, table.clone(), clock),
            table,
            rate,
            sharing,
            name,
            quota,
            max_keys,
            secrets: [RandomState::new(), RandomState::new()],
            key: PhantomData,
        }
    }

    /// Takes one request from the key's budget, or from the shared one where the table is full and the key is new.
    ///
    /// # Errors
    /// [`Exceeded`] with the exact time until one request is allowed again. A refusal takes nothing.
    pub fn check(&self, key: K) -> Result<(), Exceeded> {
        self.check_ref(&key)
    }

    /// The same for a borrowed form of the key, so that one in a request's memory need not be copied.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_ref<Q>(&self, key: &Q) -> Result<(), Exceeded>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.ask(&Probe::new(self.digest(key)))
    }

    fn ask(&self, probe: &Probe) -> Result<(), Exceeded> {
        self.limiter.check_key(probe).map_err(|until| Exceeded {
            limit: self.name,
            retry_after: until.wait_time_from(self.limiter.clock().now()),
            quota: self.quota.count,
            window: self.quota.window,
        })
    }

    /// Gives back one request that was taken a moment ago.
    pub fn give_back<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.table.give_back(&self.digest(key));
    }

    fn digest<Q: Hash + ?Sized>(&self, key: &Q) -> Digest {
        let [place, shard] = self.secrets.each_ref().map(|secret| secret.hash_one(key));
        Digest { place, shard }
    }

    /// Whether it is the one that these settings ask for, so that it can go on and nobody gets a budget anew.
    #[must_use]
    pub fn is_for(&self, quota: Quota, max_keys: usize) -> bool {
        self.quota == quota && self.max_keys == max_keys
    }

    /// Whether two have the same settings.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.is_for(other.quota, other.max_keys)
    }

    /// How many keys are remembered: at most those asked about, never more than the bound.
    #[must_use]
    pub fn len(&self) -> usize {
        self.limiter.len()
    }

    /// Whether no key is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// With whom it shares.
    pub(super) fn share(&self) -> Option<&Share> {
        self.sharing.as_ref().map(|sharing| &sharing.share)
    }
}

impl<K: Hash + Eq + 'static, C: Clock + Send + Sync + 'static> KeyedLimiter<K, C> {
    /// As [`check_ref`](Self::check_ref), and hands the key over where the other nodes are to be told of it.
    pub(super) fn check_shared<Q: Hash + Named>(self: &Arc<Self>, key: &Q) -> Result<(), Exceeded> {
        let probe = Probe::new(self.digest(key));
        self.ask(&probe)?;
        if let Some(sharing) = self.sharing.as_ref().filter(|_| probe.due.get()) {
            let account: Arc<dyn Account> = Arc::<Self>::clone(self);
            let handed = sharing.share.hand_over(Due {
                account,
                digest: probe.digest,
                name: key.name(),
                since: Instant::now(),
            });
            if !handed {
                self.table.wait_no_more(&probe.digest);
            }
        }
        Ok(())
    }
}

impl<K: Hash + Eq, C: Clock + Send + Sync> Account for KeyedLimiter<K, C> {
    fn title(&self) -> &str {
        let sharing = self.sharing.as_ref();
        sharing.map_or(self.name, |sharing| &sharing.title)
    }

    fn quota(&self) -> Quota {
        self.quota
    }

    fn settle(&self, key: &Digest) -> (u32, Nanos) {
        let now = self.limiter.clock().now().duration_since(self.start);
        (self.table.settle(key, now), now)
    }

    fn learn(&self, key: &Digest, at: Nanos, debt: Duration) {
        // No sum of these overflows governor's numbers: a burst of 146 years is the longest.
        const LATEST: u64 = u64::MAX / 2;
        let after = |time: Duration| {
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(LATEST);
            Nanos::from(at.as_u64().saturating_add(nanos).min(LATEST))
        };
        let wait_max = self.sharing.as_ref().map(|sharing| sharing.wait_max);
        let whole = self.rate.burst_size_replenished_in();
        let latest = whole.saturating_add(wait_max.unwrap_or_default());
        let now = self.limiter.clock().now().duration_since(self.start);
        self.table.learn(key, after(debt), now, after(latest));
    }
}

impl<K, C: Clock> fmt::Debug for KeyedLimiter<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLimiter")
            .field("name", &self.name)
            .field("quota", &self.quota)
            .finish_non_exhaustive()
    }
}

/// The quota in governor's terms: one request each `window / count`, and a burst. Values beyond reason are brought down to
/// what nanoseconds in 64 bits hold: 146 years until a burst is full again.
fn rate(quota: Quota) -> governor::Quota {
    const LONGEST: u64 = u64::MAX / 4;
    let window = u64::try_from(quota.window.as_nanos())
        .unwrap_or(LONGEST)
        .min(LONGEST);
    let interval = (window / u64::from(quota.count.max(1))).max(1);
    let burst = u32::try_from(LONGEST / interval)
        .unwrap_or(u32::MAX)
        .min(quota.burst);
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    governor::Quota::with_period(Duration::from_nanos(interval))
        .unwrap_or(governor::Quota::per_second(NonZeroU32::MIN))
        .allow_burst(burst)
}

impl Quota {
    /// The same text on all nodes for the same budget.
    pub(super) fn title(self) -> String {
        format!("{}/{} {}", self.count, self.window.as_nanos(), self.burst)
    }
}

#[cfg(test)]
mod tests;
