//! Which tokens are dead before their time? Sessions and single tokens that were revoked, until they would have expired.
//!
//! Nobody looks here on the hot path: a cached identity remembers the epoch at which it was last checked, and asks again
//! only when the epoch has moved (CACHE-4). One value serves the whole process and outlives reloads.

use std::{
    collections::HashMap,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::{
    clock::{HighWater, Settled, UnixMillis},
    feed::FeedAge,
};
use crate::policy::Claims;

/// What this process must not forget about tokens: revocations, and how late it has been.
#[derive(Debug, Default)]
pub struct Revocations {
    epoch: AtomicU64,
    revoked: RwLock<Revoked>,
    high_water: HighWater,
    feed: FeedAge,
}

/// Names by issuer, each with the time after which nothing of it can be alive, in seconds since 1970.
#[derive(Debug, Default)]
struct Revoked {
    sessions: Names,
    tokens: Names,
}

#[derive(Debug, Default)]
struct Names(HashMap<Box<str>, HashMap<Box<str>, u64>>);

impl Revocations {
    /// Nothing revoked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A number that grows with every revocation. Read it before [`is_revoked`](Self::is_revoked): the answer then holds
    /// until the number is another.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// How old what is known here of other processes' revocations is.
    #[must_use]
    pub fn feed(&self) -> &FeedAge {
        &self.feed
    }

    /// Revokes every token of a session at once.
    ///
    /// `issuer` is the `iss` of its tokens and `session` their `sid`; `until` is the latest `exp` that one of them can have,
    /// plus the issuer's leeway, in seconds since 1970. The entry is kept until then.
    pub fn revoke_session(&self, issuer: &str, session: &str, until: u64) {
        let mut revoked = self.write();
        revoked.sessions.insert(issuer, session, until);
        self.advance();
    }

    /// Revokes one token at once, by its `iss` and `jti`; `until` as in [`revoke_session`](Self::revoke_session).
    pub fn revoke_token(&self, issuer: &str, token_id: &str, until: u64) {
        let mut revoked = self.write();
        revoked.tokens.insert(issuer, token_id, until);
        self.advance();
    }

    /// Whether the session or the token of these claims was revoked.
    #[must_use]
    pub fn is_revoked(&self, claims: &Claims) -> bool {
        if self.epoch() == 0 {
            return false;
        }
        let revoked = self.read();
        let held = |names: &Names, name: &Option<Box<str>>| {
            name.as_deref()
                .is_some_and(|name| names.contains(&claims.issuer, name))
        };
        held(&revoked.sessions, &claims.session) || held(&revoked.tokens, &claims.token_id)
    }

    /// How long a credential with these claims is good yet, unless it is revoked: until `exp` and the issuer's leeway. Nothing
    /// where its time is over.
    #[must_use]
    pub fn time_left(&self, claims: &Claims, now: SystemTime) -> Duration {
        let end = UnixMillis::from_secs(claims.expires_at).plus(claims.leeway);
        end.since(self.observe(now))
    }

    /// Forgets what expired before `now`, in seconds since 1970. To be called now and then: it is what bounds the memory.
    pub fn purge(&self, now: u64) {
        let mut revoked = self.write();
        revoked.sessions.purge(now);
        revoked.tokens.purge(now);
    }

    /// The time to erase by where the wall clock says this, which is not always the time that tokens are judged by: they are
    /// refused by a jump ahead at once, and nothing is erased by it before it has lasted.
    #[must_use]
    pub fn settle(&self, wall: SystemTime) -> Settled {
        self.high_water.settle(wall, Instant::now())
    }

    /// The time to judge tokens by.
    pub(super) fn observe(&self, wall: SystemTime) -> UnixMillis {
        self.high_water.observe(wall)
    }

    /// Makes every cached identity be checked again. To be called after the change that it shall see.
    pub(super) fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    // A panic between two map operations leaves both maps whole, so a poisoned lock still guards good data.
    fn read(&self) -> RwLockReadGuard<'_, Revoked> {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Revoked> {
        self.revoked.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn insert(&mut self, issuer: &str, name: &str, until: u64) {
        let names = self.0.entry(issuer.into()).or_default();
        let latest = names.entry(name.into()).or_default();
        *latest = until.max(*latest);
    }

    fn contains(&self, issuer: &str, name: &str) -> bool {
        self.0
            .get(issuer)
            .is_some_and(|names| names.contains_key(name))
    }

    fn purge(&mut self, now: u64) {
        for names in self.0.values_mut() {
            names.retain(|_, until| *until > now);
        }
        self.0.retain(|_, names| !names.is_empty());
    }
}
