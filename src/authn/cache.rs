//! Has this very token been verified before? Then its identity costs a digest and a look-up.
//!
//! Only good tokens are kept: a failure may be a key that is not published yet, and a stranger can make any number of
//! them (CACHE-5). What is kept is who the caller is, never what he may: rules are decided on every request (CACHE-2).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::{
    digest::{Context, SHA256, SHA256_OUTPUT_LEN},
    error::Unspecified,
    rand,
};
use moka::{Expiry, sync::Cache};

use super::{
    claims::Validity,
    clock::UnixMillis,
    keys::KeyLife,
    known::{Known, KnownTokens},
    settings::CacheSettings,
    verifier::Verified,
};
use crate::policy::Identity;

/// What an entry takes beyond its identity: key, entry, and moka's bookkeeping. 50 000 tokens of twelve claims took 4 980
/// bytes of resident memory each and weigh 5 142 with this.
const OVERHEAD_BYTES: usize = 640;

/// The part of the memory that is for tokens known to be well signed, beside those that are cached: one in so many bytes.
const KNOWN_SHARE: u64 = 16;

/// How many caches there have been.
static CACHES: AtomicU64 = AtomicU64::new(0);

/// The digest of a token under the secret of one cache.
pub(super) type Key = [u8; SHA256_OUTPUT_LEN];

/// Identities by the tokens that proved them.
#[derive(Debug)]
pub(super) struct TokenCache {
    entries: Cache<Key, Arc<Entry>>,
    /// Tokens that need no signature check to be refused, or no budget to be verified.
    pub(super) known: KnownTokens,
    max_ttl: Duration,
    /// Random, so that nobody can compute a key, and of its own for each policy that verifies tokens, so that an entry
    /// answers for the policy that made it alone (CACHE-1).
    secret: [u8; SHA256_OUTPUT_LEN],
    counts: Counts,
    /// How many entries were ever put in.
    insertions: AtomicU64,
    id: u64,
}

/// How look-ups ended: each once.
#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    joined: AtomicU64,
    misses: AtomicU64,
}

/// How a look-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookUp {
    /// The entry was there.
    Hit,
    /// It was there after a verification of the same token by another thread.
    Joined,
    /// It was not there: the token is verified.
    Miss,
}

/// A verified token.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) identity: Arc<Identity>,
    /// The key that verified it.
    pub(super) key: Arc<KeyLife>,
    validity: Validity,
    /// Fixed when the entry is made; reading does not extend it (CACHE-3).
    deadline: UnixMillis,
    /// How long from its making to its deadline.
    ttl: Duration,
    /// The revocation epoch at which it was last found not revoked.
    epoch: AtomicU64,
}

/// Rounds of moka's housekeeping for a cache to be empty: the largest has some hundred thousand entries.
const SETTLE_ROUNDS_MAX: usize = 1000;

/// What the cache has done and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Look-ups answered.
    pub hits: u64,
    /// Look-ups answered by a verification of the same token that was under way already.
    pub joined: u64,
    /// Look-ups that went on to verification.
    pub misses: u64,
    /// Bytes that the entries take, as weighed; settled in the background, so a moment old.
    pub bytes: u64,
}

impl TokenCache {
    /// Makes an empty cache with a secret of its own.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub(super) fn new(settings: &CacheSettings) -> Result<Self, Unspecified> {
        let mut secret = [0; SHA256_OUTPUT_LEN];
        rand::fill(&mut secret)?;
        let weigh = |_: &Key, entry: &Arc<Entry>| {
            u32::try_from(entry.identity.weight() + OVERHEAD_BYTES).unwrap_or(u32::MAX)
        };
        let known_bytes = settings.max_bytes / KNOWN_SHARE;
        Ok(Self {
            known: KnownTokens::new(known_bytes),
            entries: Cache::builder()
                .max_capacity(settings.max_bytes - known_bytes)
                .weigher(weigh)
                .expire_after(AtDeadline)
                .build(),
            max_ttl: settings.max_ttl,
            secret,
            counts: Counts::default(),
            insertions: AtomicU64::new(0),
            id: CACHES.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// The key of a token: a digest of the cache's secret, which has a fixed length, and all bytes of the token.
    pub(super) fn key(&self, token: &str) -> Key {
        let mut context = Context::new(&SHA256);
        context.update(&self.secret);
        context.update(token.as_bytes());
        let digest = context.finish();
        let mut key = [0; SHA256_OUTPUT_LEN];
        for (to, from) in key.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        key
    }

    /// The entry of a token, good or not ([`Entry::is_good`]).
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    /// What tells this cache from every other one of the process.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// How many entries were ever put in: as long as it stays, nobody need look again for what was not there.
    pub(super) fn insertions(&self) -> u64 {
        self.insertions.load(Ordering::Acquire)
    }

    /// Counts how a look-up ended.
    pub(super) fn count(&self, end: LookUp) {
        let counter = match end {
            LookUp::Hit => &self.counts.hits,
            LookUp::Joined => &self.counts.joined,
            LookUp::Miss => &self.counts.misses,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps a verified token until it expires, but no longer than the cache's limit. `epoch` is the revocation epoch read
    /// before it was verified.
    pub(super) fn insert(&self, key: Key, verified: &Verified, epoch: u64, now: UnixMillis) {
        let deadline = verified.validity.end.min(now.plus(self.max_ttl));
        let entry = Entry {
            identity: Arc::clone(&verified.identity),
            key: Arc::clone(&verified.key),
            validity: verified.validity,
            deadline,
            ttl: deadline.since(now),
            epoch: AtomicU64::new(epoch),
        };
        // A full cache takes in what was asked for more often than what it would have to let go, and a good token counts twice: once
        // when it was looked for, and once when it was found good. Those of whoever has come since displace those of whoever has gone
        // sooner by that.
        let _ = self.entries.get(&key);
        self.entries.insert(key, Arc::new(entry));
        self.insertions.fetch_add(1, Ordering::Release);
        let known = Known {
            key: Arc::clone(&verified.key),
            end: verified.validity.end,
            is_revoked: false,
        };
        self.known.insert(key, known);
    }

    /// Drops an entry.
    pub(super) fn remove(&self, key: &Key) {
        self.entries.invalidate(key);
    }

    /// Drops the entry of a token that was revoked, and remembers that it was.
    pub(super) fn bury(&self, key: Key, entry: &Entry) {
        self.remove(&key);
        let known = Known {
            key: Arc::clone(&entry.key),
            end: entry.validity.end,
            is_revoked: true,
        };
        self.known.insert(key, known);
    }

    /// Drops all entries, and gives their memory back at once as far as moka does.
    pub(super) fn clear(&self) {
        self.entries.invalidate_all();
        self.settle();
    }

    /// Has moka finish what it otherwise does when somebody uses the cache: dropping what has expired or is too much. Without it
    /// the entries of users who are gone would stay for as long as nobody comes.
    pub(super) fn settle(&self) {
        // It drops some hundreds at a time.
        for _ in 0..SETTLE_ROUNDS_MAX {
            let before = self.entries.entry_count();
            self.entries.run_pending_tasks();
            if self.entries.entry_count() == before {
                break;
            }
        }
        self.known.settle();
    }

    /// Entries, expired ones among them until they are dropped.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.entries.entry_count()
    }

    /// Counters and size.
    pub(super) fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.counts.hits.load(Ordering::Relaxed),
            joined: self.counts.joined.load(Ordering::Relaxed),
            misses: self.counts.misses.load(Ordering::Relaxed),
            bytes: self.entries.weighted_size() + self.known.bytes(),
        }
    }
}

impl Entry {
    /// Whether its time has begun and is not over. One past its deadline is no answer, whether or not it has been evicted yet.
    pub(super) fn is_good(&self, now: UnixMillis) -> bool {
        now < self.deadline && self.validity.check_begun(now).is_ok()
    }

    /// Whether nothing has been revoked since the entry was last checked.
    pub(super) fn is_current(&self, epoch: u64) -> bool {
        self.epoch.load(Ordering::Relaxed) == epoch
    }

    /// Remembers that the entry was found not revoked at this epoch.
    pub(super) fn set_checked(&self, epoch: u64) {
        self.epoch.fetch_max(epoch, Ordering::Relaxed);
    }
}

/// Lets moka evict an entry at its deadline, by its own monotonic clock.
struct AtDeadline;

impl Expiry<Key, Arc<Entry>> for AtDeadline {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.ttl)
    }

    /// Two verifications of one token may end one after the other; the later entry's deadline counts (moka keeps the old
    /// one unless told).
    fn expire_after_update(
        &self,
        _: &Key,
        entry: &Arc<Entry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}
