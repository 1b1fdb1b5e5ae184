//! Which tokens are known to be well signed, though they are not in the cache now?
//!
//! Two things are worth a few bytes for each. One that has expired or was revoked never becomes good again, so its repeat need
//! not cost a signature check (RATE-8); that is no cached failure of the kind that may pass, and a stranger cannot make
//! such tokens (CACHE-5). And one that is good is verified anew when its entry in the cache has ended, whatever its client's
//! budget of bad tokens says: a neighbour behind the same address shall not cost a caller his session.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;

use super::{cache::Key, clock::UnixMillis, keys::KeyLife};
use crate::policy::{Rejection, TokenFault};

/// What one takes: digest, entry, and moka's bookkeeping.
const WEIGHT_BYTES: u32 = 512;
/// One that nobody has shown for so long is forgotten.
const IDLE: Duration = Duration::from_secs(3600);

/// Digests of well-signed tokens.
#[derive(Debug)]
pub(super) struct KnownTokens(Cache<Key, Arc<Known>>);

/// A token whose signature was found good.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// The key that verified it.
    pub(super) key: Arc<KeyLife>,
    /// When its time is over, by its own word and the leeway.
    pub(super) end: UnixMillis,
    /// Whether it was revoked, which is for good.
    pub(super) is_revoked: bool,
}

impl KnownTokens {
    /// An empty store of so many bytes.
    pub(super) fn new(max_bytes: u64) -> Self {
        Self(
            Cache::builder()
                .max_capacity(max_bytes)
                .weigher(|_, _| WEIGHT_BYTES)
                .time_to_idle(IDLE)
                .build(),
        )
    }

    /// What is known of a token, unless the key that verified it was taken back since.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Known>> {
        self.0.get(key).filter(|known| !known.key.is_over())
    }

    /// Remembers a token.
    pub(super) fn insert(&self, key: Key, known: Known) {
        self.0.insert(key, Arc::new(known));
    }

    /// Forgets a token: its issuer takes back what it said.
    pub(super) fn remove(&self, key: &Key) {
        self.0.invalidate(key);
    }

    /// Lets moka finish what it does in the background, so that the size is exact.
    pub(super) fn settle(&self) {
        self.0.run_pending_tasks();
    }

    /// Bytes that they take, as weighed.
    pub(super) fn bytes(&self) -> u64 {
        self.0.weighted_size()
    }
}

impl Known {
    /// # Errors
    /// What the token has become, for good.
    pub(super) fn check(&self, now: UnixMillis) -> Result<(), Rejection> {
        if self.is_revoked {
            return Err(Rejection::TokenInvalid(TokenFault::Revoked));
        }
        if now >= self.end {
            return Err(Rejection::TokenExpired);
        }
        Ok(())
    }
}
