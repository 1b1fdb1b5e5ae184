//! The keys that sign access tokens: files beside the database, of which the clock says which one signs.
//!
//! `keys/<kid>.pem` holds a key pair as PKCS #8, `keys/<kid>.secret` the shared secret of HS256, `keys/ring.json` the times of
//! each. Everything in it is made under a lock and appears whole, so processes that start together, and a command beside them,
//! agree. A new key is published before it signs, and an old one believed until its last token is dead (KEY-4).

mod assertion;
mod fault;
mod files;
mod folder;
mod key;
mod ring;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use jsonwebtoken::Algorithm;
use serde::Serialize;
use serde_json::{Value, json};

pub use self::{
    assertion::{ASSERTION_ALGORITHM, AssertionKeys, Signature},
    fault::KeyError,
    folder::{KeyFolder, KeyInfo, KeyState},
};
use self::{files::Stamp, key::SigningKey, ring::Entry};
use crate::authn::{LiveKeys, Revocations};

/// How long verifiers elsewhere may keep the published keys (`Cache-Control: max-age`).
pub const PUBLISHED_MAX_AGE: Duration = Duration::from_secs(300);

/// How long a new key is published before it signs, unless somebody says otherwise: twice as long as it may be unknown.
pub const PUBLISH_AHEAD: Duration = Duration::from_secs(600);

/// What asymmetric keys of ours sign with.
const ASYMMETRIC: [Algorithm; 3] = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256];

/// The keys as this process knows them.
pub(super) struct SigningKeys {
    folder: KeyFolder,
    state: ArcSwap<State>,
    /// One at a time puts a state in place, and what verifies with it.
    change: Mutex<()>,
    public: Arc<LiveKeys>,
    secret: Arc<LiveKeys>,
    /// Whether anything is verified with them: not before it is known what was revoked.
    trusted: AtomicBool,
    revocations: Arc<Revocations>,
}

/// The ring at a time.
struct State {
    stamp: Stamp,
    keys: Arc<Vec<(Entry, SigningKey)>>,
    /// Those whose tokens are believed.
    good: Vec<Box<str>>,
    jwks: Vec<u8>,
}

impl SigningKeys {
    /// Reads the keys of a folder. No token of theirs is believed until [`trust`](Self::trust) is called. Blocks.
    ///
    /// # Errors
    /// [`KeyError`] by variant.
    pub(super) fn open(
        folder: KeyFolder,
        revocations: Arc<Revocations>,
        now: u64,
    ) -> Result<Self, KeyError> {
        let (stamp, keys) = folder.read_all()?;
        let state = State::new(stamp, Arc::new(keys), now);
        // Read now, so that keys that cannot verify are found at the start.
        let (public, secret) = (LiveKeys::empty(), LiveKeys::empty());
        put_keys(&state, [&public, &secret], &Revocations::new())?;
        Ok(Self {
            folder,
            state: ArcSwap::from_pointee(state),
            change: Mutex::new(()),
            public: Arc::default(),
            secret: Arc::default(),
            trusted: AtomicBool::new(false),
            revocations,
        })
    }

    /// Believes tokens of these keys from now on.
    pub(super) fn trust(&self) {
        if self.trusted.load(Ordering::Acquire) {
            return;
        }
        let _one = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        self.trusted.store(true, Ordering::Release);
        if let Err(error) = self.verify_with(&self.state.load()) {
            tracing::error!(error = %error, "the signing keys cannot verify");
        }
    }

    /// Reads what another process changed, and lets go of what is over. Blocks, for a look at a file where nothing changed.
    ///
    /// # Errors
    /// [`KeyError`] by variant; the keys then stay as they were.
    pub(super) fn follow(&self, now: u64) -> Result<(), KeyError> {
        let _one = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state.load();
        let stamp = self.folder.stamp()?;
        let (stamp, keys) = if stamp == before.stamp {
            (stamp, Arc::clone(&before.keys))
        } else {
            let (stamp, keys) = self.folder.read_all()?;
            (stamp, Arc::new(keys))
        };
        let state = State::new(stamp, keys, now);
        if state.good != before.good {
            tracing::info!(keys = ?state.good, "the signing keys have changed");
            self.verify_with(&state)?;
        }
        self.state.store(Arc::new(state));
        Ok(())
    }

    fn verify_with(&self, state: &State) -> Result<(), KeyError> {
        if !self.trusted.load(Ordering::Acquire) {
            return Ok(());
        }
        put_keys(state, [&self.public, &self.secret], &self.revocations)
    }

    /// What verifies our tokens: for each kind of algorithm that keys of ours have, the algorithms and the keys.
    pub(super) fn verifying(&self) -> Vec<(Vec<Algorithm>, Arc<LiveKeys>)> {
        let state = self.state.load();
        let has = |secret: bool| {
            (self.folder.algorithm() == Algorithm::HS256) == secret
                || state
                    .keys
                    .iter()
                    .any(|(_, key)| key.public().is_none() == secret)
        };
        let public = has(false).then(|| (ASYMMETRIC.to_vec(), Arc::clone(&self.public)));
        let secret = has(true).then(|| (vec![Algorithm::HS256], Arc::clone(&self.secret)));
        public.into_iter().chain(secret).collect()
    }

    /// The public keys as a JSON Web Key Set (RFC 7517 §5), the one that signs first.
    pub(super) fn jwks(&self) -> Vec<u8> {
        self.state.load().jwks.clone()
    }

    /// The keys whose tokens are believed, the one that signs first.
    pub(super) fn list(&self, now: u64) -> Vec<KeyInfo> {
        let state = self.state.load();
        let signing = state.signing(now).map(|key| &key.kid);
        let info = |(entry, key): &(Entry, SigningKey)| KeyInfo {
            kid: entry.kid.clone(),
            algorithm: key.algorithm,
            state: entry.state(signing.map(|kid| &**kid), now),
            from: entry.from,
            until: entry.until,
        };
        let good = state.keys.iter().filter(|(entry, _)| entry.is_good(now));
        let mut keys: Vec<KeyInfo> = good.map(info).collect();
        keys.sort_by_key(KeyInfo::rank);
        keys
    }

    /// What the published keys sign with, each once.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let state = self.state.load();
        let mut algorithms = Vec::new();
        for (_, key) in state.keys.iter().filter(|(_, key)| key.public().is_some()) {
            if !algorithms.contains(&key.algorithm) {
                algorithms.push(key.algorithm);
            }
        }
        algorithms
    }

    /// Signs claims as an access token (RFC 9068 §2.1) with the key whose turn it is.
    ///
    /// # Errors
    /// [`KeyError::Generate`] where the cryptographic library fails.
    pub(super) fn sign(&self, claims: &impl Serialize, now: u64) -> Result<String, KeyError> {
        let state = self.state.load();
        let key = state.signing(now).ok_or(KeyError::Generate)?;
        key.sign(claims).ok_or(KeyError::Generate)
    }
}

/// Puts the keys of a state where tokens are verified: the public ones, then the shared secrets.
fn put_keys(
    state: &State,
    [public, secret]: [&LiveKeys; 2],
    revocations: &Revocations,
) -> Result<(), KeyError> {
    let good = || {
        let keys = state.keys.iter();
        keys.filter(|(entry, _)| state.good.contains(&entry.kid))
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

impl State {
    fn new(stamp: Stamp, keys: Arc<Vec<(Entry, SigningKey)>>, now: u64) -> Self {
        let good = keys.iter().filter(|(entry, _)| entry.is_good(now));
        let good = good.map(|(entry, _)| entry.kid.clone()).collect();
        let mut state = Self {
            stamp,
            keys,
            good,
            jwks: Vec::new(),
        };
        let signing = state.signing(now).map(|key| key.kid.clone());
        let mut published: Vec<&SigningKey> = state
            .keys
            .iter()
            .filter(|(entry, _)| entry.is_good(now))
            .map(|(_, key)| key)
            .collect();
        published.sort_by_key(|key| Some(&key.kid) != signing.as_ref());
        let public: Vec<&Value> = published.iter().filter_map(|key| key.public()).collect();
        state.jwks = json!({ "keys": public }).to_string().into_bytes();
        state
    }

    fn signing(&self, now: u64) -> Option<&SigningKey> {
        let begun = self
            .keys
            .iter()
            .filter(|(entry, _)| entry.from <= now && entry.is_good(now));
        begun
            .max_by_key(|(entry, _)| entry.from)
            .map(|(_, key)| key)
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.load();
        let kids: Vec<_> = state.keys.iter().map(|(entry, _)| &entry.kid).collect();
        f.debug_struct("SigningKeys")
            .field("kids", &kids)
            .finish_non_exhaustive()
    }
}
