//! The keys of a process at a time: which of them signs, and which are believed.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{
    KeyError, KeyFolder, KeyInfo, StoredKeys, files::Stamp, key::SigningKey, listing::listed,
    ring::Entry, rows::times,
};
use crate::{
    authn::{LiveKeys, Revocations},
    store::SealedRing,
};

/// What asymmetric keys of ours sign with.
pub(super) const ASYMMETRIC: [Algorithm; 3] =
    [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256];

type Keys = Arc<Vec<(Entry, Arc<SigningKey>)>>;

/// The ring at a time.
#[derive(Clone)]
pub(super) struct State {
    pub(super) mark: Mark,
    keys: Keys,
    /// Those that cannot be used, each with the reason.
    unusable: Arc<Vec<(Box<str>, String)>>,
    /// Those whose tokens are believed.
    pub(super) good: Vec<Box<str>>,
    pub(super) jwks: Vec<u8>,
}

/// What tells one ring from the next.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Mark {
    Folder(Stamp),
    Store(Box<str>),
    /// None was read yet.
    Unknown,
}

impl State {
    /// Before anything was read.
    pub(super) fn unknown() -> Self {
        Self::new(Mark::Unknown, Arc::default(), 0)
    }

    /// Reads a folder. Blocks.
    pub(super) fn of_folder(folder: &KeyFolder, now: u64) -> Result<Self, KeyError> {
        let (stamp, keys) = folder.read_all()?;
        let keys = keys.into_iter().map(|(entry, key)| (entry, Arc::new(key)));
        Ok(Self::new(
            Mark::Folder(stamp),
            Arc::new(keys.collect()),
            now,
        ))
    }

    /// Whether a folder is as it was when it was read.
    pub(super) fn is_of(&self, folder: &KeyFolder) -> Result<bool, KeyError> {
        Ok(self.mark == Mark::Folder(folder.stamp()?))
    }

    /// The same keys at another time.
    pub(super) fn at(&self, now: u64) -> Self {
        let state = Self::new(self.mark.clone(), Arc::clone(&self.keys), now);
        Self {
            unusable: Arc::clone(&self.unusable),
            ..state
        }
    }

    /// The keys that are in the store now. One that is known already is not decrypted again.
    pub(super) fn followed_by(&self, stored: &StoredKeys, ring: &SealedRing, now: u64) -> Self {
        let (mut keys, mut unusable) = (Vec::new(), Vec::new());
        for (sealed, entry) in ring.keys.iter().zip(times(ring).keys) {
            let known = self.keys.iter().find(|(known, _)| known.kid == entry.kid);
            let key = match known {
                Some((_, key)) => Ok(Arc::clone(key)),
                None => stored.open(sealed).map(Arc::new),
            };
            match key {
                Ok(key) => keys.push((entry, key)),
                Err(error) => unusable.push((entry.kid, error.to_string())),
            }
        }
        let mark = Mark::Store(ring.revision.clone());
        Self {
            unusable: Arc::new(unusable),
            ..Self::new(mark, Arc::new(keys), now)
        }
    }

    fn new(mark: Mark, keys: Keys, now: u64) -> Self {
        let good = keys.iter().filter(|(entry, _)| entry.is_good(now));
        let good = good.map(|(entry, _)| entry.kid.clone()).collect();
        let mut state = Self {
            mark,
            keys,
            unusable: Arc::default(),
            good,
            jwks: Vec::new(),
        };
        let signing = state.signing(now).map(|key| key.kid.clone());
        let published = state.keys.iter().filter(|(entry, _)| entry.is_good(now));
        let mut published: Vec<&SigningKey> = published.map(|(_, key)| &**key).collect();
        published.sort_by_key(|key| Some(&key.kid) != signing.as_ref());
        let public: Vec<&Value> = published.iter().filter_map(|key| key.public()).collect();
        state.jwks = json!({ "keys": public }).to_string().into_bytes();
        state
    }

    /// The revision that the store gave, if it has been read.
    pub(super) fn revision(&self) -> Option<Box<str>> {
        match &self.mark {
            Mark::Store(revision) => Some(revision.clone()),
            Mark::Folder(_) | Mark::Unknown => None,
        }
    }

    /// The key whose turn it is.
    pub(super) fn signing(&self, now: u64) -> Option<&SigningKey> {
        let begun = self
            .keys
            .iter()
            .filter(|(entry, _)| entry.from <= now && entry.is_good(now));
        begun
            .max_by_key(|(entry, _)| entry.from)
            .map(|(_, key)| &**key)
    }

    /// Puts the keys where tokens are verified: the public ones, then the shared secrets.
    pub(super) fn put_keys(
        &self,
        [public, secret]: [&LiveKeys; 2],
        revocations: &Revocations,
    ) -> Result<(), KeyError> {
        let good = || {
            let keys = self.keys.iter();
            keys.filter(|(entry, _)| self.good.contains(&entry.kid))
        };
        let public_keys: Vec<&Value> = good().filter_map(|(_, key)| key.public()).collect();
        let secrets: Vec<Value> = good().filter_map(|(_, key)| key.secret()).collect();
        let put = |live: &LiveKeys, keys: Value, algorithms: &[Algorithm]| {
            let set = json!({ "keys": keys }).to_string().into_bytes();
            live.put(set, algorithms, revocations)
                .map_err(KeyError::Unusable)
        };
        put(public, json!(public_keys), &ASYMMETRIC)?;
        put(secret, json!(secrets), &[Algorithm::HS256])
    }

    /// Whether there are shared secrets, or key pairs.
    pub(super) fn has(&self, secret: bool) -> bool {
        let mut keys = self.keys.iter();
        keys.any(|(_, key)| key.public().is_none() == secret)
    }

    /// What the published keys sign with, each once.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms = Vec::new();
        for (_, key) in self.keys.iter().filter(|(_, key)| key.public().is_some()) {
            if !algorithms.contains(&key.algorithm) {
                algorithms.push(key.algorithm);
            }
        }
        algorithms
    }

    /// The keys whose tokens are believed, the one that signs first.
    pub(super) fn list(&self, now: u64) -> Vec<KeyInfo> {
        let keys = self.keys.iter();
        let keys: Vec<_> = keys
            .map(|(entry, key)| (entry, key.algorithm, None))
            .collect();
        listed(&keys, now)
    }

    /// The names of all keys.
    pub(super) fn kids(&self) -> Vec<&str> {
        self.keys.iter().map(|(entry, _)| &*entry.kid).collect()
    }

    /// The keys that cannot be used, each with the reason.
    pub(super) fn unusable(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.unusable.iter();
        all.map(|(kid, error)| (&**kid, error.as_str()))
    }
}
