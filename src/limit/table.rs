//! Where budgets are kept: a table with a hard bound, in which a stranger can displace nobody.
//!
//! A flood of new keys must not push out a key that is blocked (it would be free again) nor one with a history (RATE-3). So
//! nothing is ever evicted to make room: an entry leaves only once its budget is full again, when forgetting it changes
//! nothing, and while the table is full new keys share one budget. Every call does a bounded amount of work: two look-ups,
//! and for a new key a few entries of the oldest looked at.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};

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
}

#[derive(Debug, Default)]
struct Shard {
    /// For each key the time at which its budget is full again, counted from the limiter's start.
    full_at: HashMap<Digest, Nanos, BuildHasherDefault<AsIs>>,
    /// The same keys in the order in which they are looked at for removal.
    oldest: VecDeque<Digest>,
}

impl Table {
    /// Makes a table for at most `max_keys`, one of which gets a request back each `interval`.
    pub(super) fn new(max_keys: usize, interval: Duration) -> Self {
        let shards = (max_keys / SHARD_KEYS_MIN).clamp(1, SHARDS_MAX);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_keys_max: max_keys / shards,
            overflow: Arc::default(),
            interval: interval.into(),
        }
    }

    /// Gives one request back: to the key, or to what all share where the key is not kept.
    pub(super) fn give_back(&self, key: &Digest) {
        let own = self.shard(key).is_some_and(|shard| {
            let mut shard = lock(shard);
            let kept = shard.full_at.get_mut(key);
            kept.map(|full_at| *full_at = full_at.saturating_sub(self.interval))
                .is_some()
        });
        if !own {
            let mut shared = lock(&self.overflow);
            *shared = shared.map(|full_at| full_at.saturating_sub(self.interval));
        }
    }

    fn shard(&self, key: &Digest) -> Option<&Mutex<Shard>> {
        let shards = u64::try_from(self.shards.len()).ok()?;
        self.shards
            .get(usize::try_from(key.shard.checked_rem(shards)?).ok()?)
    }
}

impl StateStore for Table {
    type Key = Digest;

    fn measure_and_replace<T, F, E>(&self, key: &Digest, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let own = self.shard(key).and_then(|shard| {
            lock(shard).measure_and_replace(key, self.shard_keys_max, self.interval, &f)
        });
        own.unwrap_or_else(|| {
            let mut shared = lock(&self.overflow);
            let (outcome, full_at) = f(*shared)?;
            *shared = Some(full_at);
            Ok(outcome)
        })
    }
}

impl ShrinkableKeyedStateStore<Digest> for Table {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in self.shards.iter() {
            let shard = &mut *lock(shard);
            shard.full_at.retain(|_, full_at| *full_at > drop_below);
            shard.oldest.retain(|key| shard.full_at.contains_key(key));
        }
    }

    fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).full_at.len())
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
        key: &Digest,
        keys_max: usize,
        interval: Nanos,
        f: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    ) -> Option<Result<T, E>> {
        if let Some(known) = self.full_at.get_mut(key) {
            return Some(f(Some(*known)).map(|(outcome, full_at)| {
                *known = full_at;
                outcome
            }));
        }
        let (outcome, full_at) = match f(None) {
            Ok(taken) => taken,
            Err(refused) => return Some(Err(refused)),
        };
        // A budget that was full and gave one request is full again after one interval, which tells what time it is.
        self.sweep(full_at.saturating_sub(interval));
        if self.full_at.len() >= keys_max {
            return None;
        }
        self.full_at.insert(*key, full_at);
        self.oldest.push_back(*key);
        Some(Ok(outcome))
    }

    fn sweep(&mut self, now: Nanos) {
        for _ in 0..SWEEP {
            let Some(key) = self.oldest.pop_front() else {
                return;
            };
            if self.full_at.get(&key).is_some_and(|full_at| *full_at > now) {
                self.oldest.push_back(key);
            } else {
                self.full_at.remove(&key);
            }
        }
    }
}

/// A panic under one of these locks is impossible but for a fault of the allocator, and leaves the maps whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
