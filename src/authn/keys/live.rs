//! Keys that change while tokens are verified with them: swapped as a whole, awaited where they are not there yet.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwapOption, Guard};
use jsonwebtoken::Algorithm;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{KeyFault, KeySet, Keys, VerifyingKey};
use crate::authn::{arrival::Arrival, revocation::Revocations, settings::KeySource};

/// The keys of one issuer, as they are now. Reading takes no lock.
#[derive(Debug, Default)]
pub struct LiveKeys {
    /// `None`: there are none that may be used.
    set: ArcSwapOption<KeySet>,
    /// How a request asks for a fetch; `None` for keys that are not fetched.
    demand: Option<Arc<Demand>>,
    /// Who fetches them, as long as anybody has these keys.
    fetcher: OnceLock<AbortOnDropHandle<()>>,
}

/// What there is to say of an issuer's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStatus {
    /// Since they were loaded, or their provider last confirmed them.
    pub age: Duration,
    /// How many can be used.
    pub usable: usize,
    /// How many keys of the set were left out because they do not fit (KEY-6).
    pub skipped: usize,
}

/// How fetches are asked for: one at a time, and none within the cooldown of the last, whoever asks (KEY-1).
#[derive(Debug)]
pub(in crate::authn) struct Demand {
    cooldown: Duration,
    wait: Duration,
    slot: Mutex<Slot>,
    wake: Notify,
    /// Fetches that have ended.
    ended: watch::Sender<u64>,
}

#[derive(Debug)]
struct Slot {
    claimed: Instant,
    under_way: bool,
}

impl KeyStatus {
    /// Of two sets of one issuer: as old as the older one that has keys.
    pub(in crate::authn) fn together(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let (Some(one), Some(other)) = (one, other) else {
            return one.or(other);
        };
        let age = match (one.usable, other.usable) {
            (_, 0) => one.age,
            (0, _) => other.age,
            _ => one.age.max(other.age),
        };
        Some(Self {
            age,
            usable: one.usable + other.usable,
            skipped: one.skipped + other.skipped,
        })
    }
}

impl LiveKeys {
    /// Reads keys that stay as they are; takes over those that are live already, and none for those that nobody fetches.
    pub(in crate::authn) fn of(
        source: &KeySource,
        algorithms: &[Algorithm],
    ) -> Result<Arc<Self>, KeyFault> {
        match source {
            KeySource::Live(keys) => Ok(Arc::clone(keys)),
            KeySource::Remote(_) | KeySource::Introspection(_) | KeySource::Introspected(_) => {
                Ok(Arc::default())
            }
            KeySource::Jwks(_) | KeySource::PublicKey(_) | KeySource::Secret(_) => {
                let keys = Self::default();
                keys.set
                    .store(Some(Arc::new(KeySet::load(source, algorithms)?)));
                Ok(Arc::new(keys))
            }
        }
    }

    /// Keys that their owner puts in with [`put`](Self::put); none yet, so that no token is good.
    #[must_use]
    pub fn empty() -> Self {
        let keys = Self::default();
        keys.set.store(Some(Arc::new(KeySet::empty())));
        keys
    }

    /// Puts the keys of a JSON Web Key Set in place of those that are here. Identities that were verified with a key which the
    /// set does not have are verified anew. A set may be empty.
    ///
    /// # Errors
    /// [`KeyFault`] for a set in which anything is wrong; the keys then stay as they are.
    pub fn put(
        &self,
        jwks: Vec<u8>,
        algorithms: &[Algorithm],
        revocations: &Revocations,
    ) -> Result<(), KeyFault> {
        let set = match KeySet::load(&KeySource::Jwks(jwks), algorithms) {
            Err(KeyFault::NoUsableKey(0)) => KeySet::empty(),
            set => set?,
        };
        self.replace(set, revocations);
        Ok(())
    }

    /// Keys that will be fetched; none until then.
    pub(in crate::authn) fn awaited(demand: Arc<Demand>) -> Self {
        Self {
            demand: Some(demand),
            ..Self::default()
        }
    }

    /// Makes the fetcher live as long as these keys.
    pub(in crate::authn) fn own(&self, fetcher: AbortOnDropHandle<()>) {
        // A second one would be dropped, and stopped by that.
        let _ = self.fetcher.set(fetcher);
    }

    /// Ends the fetches: whoever still has these keys goes on with what is there.
    pub(in crate::authn) fn stop(&self) {
        if let Some(fetcher) = self.fetcher.get() {
            fetcher.abort();
        }
    }

    /// The keys of this moment.
    pub(in crate::authn) fn current(&self) -> Guard<Option<Arc<KeySet>>> {
        self.set.load()
    }

    /// Puts another set in place. Identities that were verified with a key which it does not have are verified anew.
    pub(in crate::authn) fn replace(&self, mut set: KeySet, revocations: &Revocations) {
        let before = self.set.load_full();
        if let Some(before) = &before {
            set.continue_from(before);
        }
        let set = Arc::new(set);
        self.set.store(Some(Arc::clone(&set)));
        let gone = before.map_or(0, |before| before.end_but(&set));
        if gone > 0 {
            revocations.advance();
        }
    }

    /// Takes every key away: nobody knows any more whether they are good.
    pub(in crate::authn) fn withdraw(&self, revocations: &Revocations) {
        if let Some(before) = self.set.swap(None) {
            before.verifying().for_each(|key| key.life.end());
            revocations.advance();
        }
    }

    /// What a token may wait for whose key is not here.
    pub(in crate::authn) fn arrival(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Option<Arrival> {
        let demand = self.demand.as_ref()?;
        let is_here = || {
            let set = self.current();
            set.as_ref()
                .is_some_and(|set| set.find(algorithm, kid).is_some())
        };
        if is_here() {
            return Some(Arrival::here());
        }
        // A fetch that ended since may have brought it.
        demand.join().or_else(|| is_here().then(Arrival::here))
    }

    /// What there is to say of them; `None` where there are none.
    #[must_use]
    pub fn status(&self) -> Option<KeyStatus> {
        self.set.load().as_ref().map(|set| KeyStatus {
            age: set.age(),
            usable: set.count(),
            skipped: set.skipped,
        })
    }
}

impl KeySet {
    fn verifying(&self) -> Box<dyn Iterator<Item = &VerifyingKey> + '_> {
        match &self.keys {
            Keys::One(_, keys) => Box::new(keys.iter()),
            Keys::Several(keys) => Box::new(keys.values().flatten()),
        }
    }

    /// Gives keys that were in the set before the lives that they had there.
    fn continue_from(&mut self, before: &Self) {
        let go_on = |key: &mut VerifyingKey| {
            if let Some(same) = before.verifying().find(|same| same.life.is_of(&key.life)) {
                key.life = Arc::clone(&same.life);
            }
        };
        match &mut self.keys {
            Keys::One(_, keys) => keys.iter_mut().for_each(go_on),
            Keys::Several(keys) => keys.values_mut().flatten().for_each(go_on),
        }
    }

    /// Ends the lives that do not go on in the next set; says how many.
    fn end_but(&self, next: &Self) -> usize {
        let gone = self
            .verifying()
            .filter(|key| !next.verifying().any(|other| other.life.is_of(&key.life)));
        gone.map(|key| key.life.end()).count()
    }
}

impl Demand {
    /// The first fetch is under way already: whoever comes may wait for it.
    pub(in crate::authn) fn new(cooldown: Duration, wait: Duration) -> Self {
        Self {
            cooldown,
            wait,
            slot: Mutex::new(Slot {
                claimed: Instant::now(),
                under_way: true,
            }),
            wake: Notify::new(),
            ended: watch::Sender::new(0),
        }
    }

    /// The fetch that is under way, or a new one where the cooldown of the last is over. The slot is taken before anything is
    /// sent, and what becomes of the fetch does not matter.
    fn join(&self) -> Option<Arrival> {
        let mut slot = self.slot();
        if !slot.under_way {
            if slot.claimed.elapsed() < self.cooldown {
                return None;
            }
            slot.claim();
            self.wake.notify_one();
        }
        Some(Arrival::fetch(self.ended.subscribe(), self.wait))
    }

    /// Waits until somebody has asked for a fetch.
    pub(in crate::authn) async fn asked(&self) {
        self.wake.notified().await;
    }

    /// Takes the slot for a fetch that nobody asked for, if nobody has.
    pub(in crate::authn) fn claim(&self) {
        let mut slot = self.slot();
        if !slot.under_way {
            slot.claim();
        }
    }

    /// Lets those go on who waited.
    pub(in crate::authn) fn finish(&self) {
        self.slot().under_way = false;
        self.ended.send_modify(|count| *count += 1);
    }

    // Nothing panics while it holds the lock, and a slot is whole at any time.
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn claim(&mut self) {
        self.under_way = true;
        self.claimed = Instant::now();
    }
}
