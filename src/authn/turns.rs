//! One token, many threads: whose turn is it to verify?
//!
//! A browser opens six connections with one new token, and each of its requests would have the signature checked. Instead
//! the first thread does, and the others wait for it and look in the cache again (CACHE-7). Nothing passes from one to the
//! other but the turn: what a thread goes on with is its own token's entry, or its own verification. So a thread that panics
//! or fails leaves the next one to do the work itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cache::Key;

/// How many turns there are. A key is a keyed digest, so nobody can choose tokens that share one, and two different tokens
/// that are verified at the same moment rarely do.
const TURNS: usize = 256;

/// The turns of all tokens, chosen by the first byte of the cache's key.
#[derive(Debug)]
pub(super) struct Turns(Box<[Mutex<()>]>);

/// The right to verify, until it is dropped. It is held over one verification and never over a wait.
#[derive(Debug)]
pub(super) struct Turn<'t>(
    #[expect(dead_code, reason = "held, not read")] Option<MutexGuard<'t, ()>>,
);

impl Turns {
    /// Nobody verifies.
    pub(super) fn new() -> Self {
        Self((0..TURNS).map(|_| Mutex::new(())).collect())
    }

    /// Waits for the turn of a token: at most for the verifications of those who came before, some 35 microseconds each. Whoever
    /// gets it looks in the cache again if anything was put into it since he last did, whether or not there was anybody to wait for:
    /// the one before may have come and gone meanwhile.
    pub(super) fn take(&self, key: &Key) -> Turn<'_> {
        let place = key.first().copied().map_or(0, usize::from);
        let turn = self.0.get(place);
        // Nothing is behind the lock, so a panic while it was held has broken nothing.
        Turn(turn.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
