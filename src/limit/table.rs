//! Where budgets are kept: a table with a hard bound, in which a stranger can displace nobody.
//!
//! A flood of new keys must not push out a key that is blocked (it would be free again) nor one with a history (RATE-3). So
//! nothing is ever evicted to make room: an entry leaves only once its budget is full again, when forgetting it changes
//! nothing, and while the table is full new keys share one budget. Every call does a bounded amount of work: two look-ups,
//! and for a new key a few entries of the oldest looked at.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use governor::{
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};

use super::tally::{Tally, Terms};

/// A key as it is kept: two hashes under secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) place: u64,
    pub(super) shard: u64,
}

impl Hash for Digest {
    /// One half places it in its map; both are compared.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.place);
    }
}

/// A key that is asked about, and what came of it beside the decision.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub(super) digest: Digest,
    /// Whether the other nodes are to be told of it.
    pub(super) due: Cell<bool>,
}

impl Probe {
    pub(super) fn new(digest: Digest) -> Self {
        Self {
            digest,
            due: Cell::new(false),
        }
    }
}

impl PartialEq for Probe {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Probe {}

impl Hash for Probe {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// Takes a number for its own hash, for those that are hashes under a secret already.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Locks. A worker seldom meets another at one of so many, and holds it for tens of nanoseconds.
const SHARDS_MAX: usize = 64;
/// A shard for fewer keys than this would be full long before the table.
const SHARD_KEYS_MIN: usize = 1024;
/// How many of the oldest entries a new key looks at for one whose budget is full again: more than one, so that the table
/// shrinks faster than it can be filled.
const SWEEP: usize = 4;

/// The table. A clone is the same one, for governor keeps its own to itself.
#[derive(Debug, Clone)]
pub(super) struct Table {
    shards: Arc<[Mutex<Shard>]>,
    shard_keys_max: usize,
    /// What all new keys share while their shard is full.
    overflow: Arc<Mutex<Option<Nanos>>>,
    interval: Nanos,
    burst: u32,
    /// How many nodes share the budgets: below two nothing is told of.
    nodes: Arc<AtomicU32>,
}

#[derive(Debug, Default)]
struct Shard {
    budgets: HashMap<Digest, Budget, BuildHasherDefault<AsIs>>,
    /// The same keys in the order in which they are looked at for removal.
    oldest: VecDeque<Digest>,
}

#[derive(Debug, Clone, Copy)]
struct Budget {
    /// When it is full again, counted from the limiter's start.
    full_at: Nanos,
    tally: Tally,
}

impl Table {
    /// Makes a table for at most `max_keys`, each of which has such a budget. `nodes` says, now and later, how many share them.
    pub(super) fn new(max_keys: usize, quota: governor::Quota, nodes: Arc<AtomicU32>) -> Self {
        let shards = (max_keys / SHARD_KEYS_MIN).clamp(1, SHARDS_MAX);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_keys_max: max_keys / shards,
            overflow: Arc::default(),
            interval: quota.replenish_interval().into(),
            burst: quota.burst_size().get(),
            nodes,
        }
    }

    /// Gives one request back: to the key, or to what all share where the key is not kept.
    pub(super) fn give_back(&self, key: &Digest) {
        let is_shared = self.terms().is_some();
        let own = self.with(key, |budget| {
            budget.full_at = budget.full_at.saturating_sub(self.interval);
            if is_shared {
                budget.tally.take_back();
            }
        });
        let own = own.is_some();
        if !own {
            let mut shared = lock(&self.overflow);
            *shared = shared.map(|full_at| full_at.saturating_sub(self.interval));
        }
    }

    /// Takes what the other nodes are to be told of a key; 0 where there is nothing, or the key is not kept any more.
    pub(super) fn settle(&self, key: &Digest, now: Nanos) -> u32 {
        self.with(key, |budget| budget.tally.settle(now))
            .unwrap_or(0)
    }

    /// The key could not be told of.
    pub(super) fn wait_no_more(&self, key: &Digest) {
        self.with(key, |budget| budget.tally.wait_no_more());
    }

    /// Takes in that all nodes had used up so much of a key's budget that it would be full again at `full_at`. What this node
    /// has let through since comes on top. It never becomes fuller than it was, and never full later than `latest`.
    pub(super) fn learn(&self, key: &Digest, full_at: Nanos, now: Nanos, latest: Nanos) {
        let Some(shard) = self.shard(key) else {
            return;
        };
        let shard = &mut *lock(shard);
        if let Some(budget) = shard.budgets.get_mut(key) {
            let since = self.interval.as_u64();
            let since = since.saturating_mul(u64::from(budget.tally.untold()));
            let since = full_at.as_u64().saturating_add(since);
            budget.full_at = budget.full_at.max(since.min(latest.as_u64()).into());
        } else if full_at > now {
            let budget = Budget {
                full_at: full_at.min(latest),
                tally: Tally::default(),
            };
            shard.insert(key, budget, now, self.shard_keys_max);
        }
    }

    /// What the maps have taken from the allocator, nearly.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let entry = size_of::<(Digest, Budget)>() + 1;
        let of_one = |shard: &Mutex<Shard>| {
            let shard = lock(shard);
            // A map is filled to seven eighths.
            let map = shard.budgets.capacity() * 8 / 7 * entry;
            map + shard.oldest.capacity() * size_of::<Digest>()
        };
        self.shards.iter().map(of_one).sum()
    }

    fn with<T>(&self, key: &Digest, change: impl FnOnce(&mut Budget) -> T) -> Option<T> {
        let mut shard = lock(self.shard(key)?);
        shard.budgets.get_mut(key).map(change)
    }

    /// What makes a key worth telling of, where budgets are shared.
    fn terms(&self) -> Option<Terms> {
        let nodes = self.nodes.load(Ordering::Relaxed);
        (nodes >= 2).then_some(Terms {
            nodes,
            burst: self.burst,
            interval: self.interval,
        })
    }

    fn shard(&self, key: &Digest) -> Option<&Mutex<Shard>> {
        let shards = u64::try_from(self.shards.len()).ok()?;
        self.shards
            .get(usize::try_from(key.shard.checked_rem(shards)?).ok()?)
    }
}

impl StateStore for Table {
    type Key = Probe;

    fn measure_and_replace<T, F, E>(&self, key: &Probe, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let own = self
            .shard(&key.digest)
            .and_then(|shard| lock(shard).measure_and_replace(key, self, &f));
        own.unwrap_or_else(|| {
            let mut shared = lock(&self.overflow);
            let (outcome, full_at) = f(*shared)?;
            *shared = Some(full_at);
            Ok(outcome)
        })
    }
}

impl ShrinkableKeyedStateStore<Probe> for Table {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in self.shards.iter() {
            let shard = &mut *lock(shard);
            let budgets = &mut shard.budgets;
            budgets.retain(|_, budget| budget.full_at > drop_below);
            shard.oldest.retain(|key| budgets.contains_key(key));
        }
    }

    fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).budgets.len())
            .sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Shard {
    /// `None` where the key is new and there is no room.
    fn measure_and_replace<T, E>(
        &mut self,
        key: &Probe,
        table: &Table,
        f: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    ) -> Option<Result<T, E>> {
        let terms = table.terms();
        // A budget that was full and gave one request is full again after one interval, which tells what time it is.
        let now = |full_at: Nanos| full_at.saturating_sub(table.interval);
        if let Some(known) = self.budgets.get_mut(&key.digest) {
            return Some(f(Some(known.full_at)).map(|(outcome, full_at)| {
                known.full_at = full_at;
                if let Some((terms, Ok((_, full_at)))) = terms.map(|terms| (terms, f(None))) {
                    key.due.set(known.tally.add(now(full_at), terms));
                }
                outcome
            }));
        }
        let (outcome, full_at) = match f(None) {
            Ok(taken) => taken,
            Err(refused) => return Some(Err(refused)),
        };
        let now = now(full_at);
        let (tally, due) = terms.map_or_else(Default::default, |terms| Tally::begun(now, terms));
        let budget = Budget { full_at, tally };
        self.insert(&key.digest, budget, now, table.shard_keys_max)
            .then(|| {
                key.due.set(due);
                Ok(outcome)
            })
    }

    /// False where there is no room.
    fn insert(&mut self, key: &Digest, budget: Budget, now: Nanos, keys_max: usize) -> bool {
        self.sweep(now);
        let has_room = self.budgets.len() < keys_max;
        if has_room {
            self.budgets.insert(*key, budget);
            self.oldest.push_back(*key);
        }
        has_room
    }

    fn sweep(&mut self, now: Nanos) {
        for _ in 0..SWEEP {
            let Some(key) = self.oldest.pop_front() else {
                return;
            };
            let kept = self.budgets.get(&key);
            if kept.is_some_and(|budget| budget.full_at > now) {
                self.oldest.push_back(key);
            } else {
                self.budgets.remove(&key);
            }
        }
    }
}

/// A panic under one of these locks is impossible but for a fault of the allocator, and leaves the maps whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
