//! The keys that sign access tokens: files beside the database, or rows in it that are encrypted; the clock says which one signs.
//!
//! `keys/<kid>.pem` holds a key pair as PKCS #8, `keys/<kid>.secret` the shared secret of HS256, `keys/ring.json` the times of
//! each. Everything in it is made under a lock and appears whole, so processes that start together, and a command beside them,
//! agree; in the store a change takes the place of what it was made from, or is made anew. A new key is published before it signs,
//! and an old one believed until its last token is dead (KEY-4).

mod assertion;
mod claims;
mod encryption;
mod fault;
mod files;
mod folder;
mod key;
mod listing;
mod ring;
mod rows;
mod state;
mod stored;

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

pub(super) use self::claims::AccessClaims;
use self::state::{Mark, State};
pub use self::{
    assertion::{ASSERTION_ALGORITHM, AssertionKeys, Signature},
    encryption::{ENCRYPTION_KEY_BYTES, EncryptionKey, KeyEncryption},
    fault::KeyError,
    folder::KeyFolder,
    listing::{KeyInfo, KeyState, KeyWrapping},
    stored::StoredKeys,
};
use super::AccountError;
use crate::{
    authn::{LiveKeys, Revocations},
    store::{RingRead, SealedRing, Store, StoreError},
};

/// How long verifiers elsewhere may keep the published keys (`Cache-Control: max-age`).
pub const PUBLISHED_MAX_AGE: Duration = Duration::from_secs(300);

/// How long a new key is published before it signs, unless somebody says otherwise: twice as long as it may be unknown.
pub const PUBLISH_AHEAD: Duration = Duration::from_secs(600);

/// The keys as this process knows them.
pub(super) struct SigningKeys {
    place: Place,
    state: ArcSwap<State>,
    /// One at a time puts a state in place, and what verifies with it.
    change: Mutex<()>,
    public: Arc<LiveKeys>,
    secret: Arc<LiveKeys>,
    /// Whether the store was asked that decides where the keys are.
    begun: AtomicBool,
    /// Whether anything is verified with them: not before it is known what was revoked.
    trusted: AtomicBool,
    revocations: Arc<Revocations>,
}

/// Where they are.
enum Place {
    Folder(KeyFolder),
    Store(StoredKeys),
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
        let state = State::of_folder(&folder, now)?;
        // Read now, so that keys that cannot verify are found at the start.
        let (public, secret) = (LiveKeys::empty(), LiveKeys::empty());
        state.put_keys([&public, &secret], &Revocations::new())?;
        Ok(Self::new(Place::Folder(folder), state, revocations))
    }

    /// The keys of a store. None are known until [`refresh`](Self::refresh) has read them.
    pub(super) fn of_store(keys: StoredKeys, revocations: Arc<Revocations>) -> Self {
        Self::new(Place::Store(keys), State::unknown(), revocations)
    }

    fn new(place: Place, state: State, revocations: Arc<Revocations>) -> Self {
        Self {
            place,
            state: ArcSwap::from_pointee(state),
            change: Mutex::new(()),
            public: Arc::default(),
            secret: Arc::default(),
            begun: AtomicBool::new(false),
            trusted: AtomicBool::new(false),
            revocations,
        }
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

    /// Reads what another process changed in the folder, and lets go of what is over. Blocks, for a look at a file where nothing
    /// changed.
    ///
    /// # Errors
    /// [`KeyError`] by variant; the keys then stay as they were.
    pub(super) fn follow(&self, now: u64) -> Result<(), KeyError> {
        let _one = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state.load();
        let state = match &self.place {
            Place::Folder(folder) if !before.is_of(folder)? => State::of_folder(folder, now)?,
            Place::Folder(_) | Place::Store(_) => before.at(now),
        };
        self.put(&before, state)
    }

    /// Reads what another process changed in the store, and makes the first key where there is none. Keys that cannot be decrypted are
    /// left out, and told of: those that are gone are gone all the same. Where keys are files, sees once that they are not in the
    /// store.
    ///
    /// # Errors
    /// [`KeyError`] by variant, about the first time above all; the keys then stay as they were.
    pub(super) async fn refresh(&self, store: &dyn Store, now: u64) -> Result<(), KeyError> {
        let begun = self.begun.load(Ordering::Acquire);
        match &self.place {
            Place::Folder(_) if begun => return Ok(()),
            Place::Folder(_) => {
                if StoredKeys::are_in(store).await? {
                    return Err(KeyError::EncryptionMissing);
                }
            }
            Place::Store(keys) => {
                if !begun {
                    keys.begin(now).await?;
                }
                let known = self.state.load().revision();
                let mut read = keys.read(known).await?;
                if read == RingRead::Absent {
                    keys.begin(now).await?;
                    read = keys.read(None).await?;
                }
                if let RingRead::Changed(ring) = read {
                    self.take(keys, &ring, now)?;
                }
            }
        }
        self.begun.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes over the keys of the store.
    fn take(&self, keys: &StoredKeys, ring: &SealedRing, now: u64) -> Result<(), KeyError> {
        let _one = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state.load();
        let state = before.followed_by(keys, ring, now);
        for (kid, error) in state.unusable() {
            tracing::error!(kid, error, "a signing key of the store cannot be used");
        }
        self.put(&before, state)
    }

    /// Puts a state in place.
    fn put(&self, before: &State, state: State) -> Result<(), KeyError> {
        if state.good != before.good {
            tracing::info!(keys = ?state.good, "the signing keys have changed");
            self.verify_with(&state)?;
        }
        self.state.store(Arc::new(state));
        Ok(())
    }

    fn verify_with(&self, state: &State) -> Result<(), KeyError> {
        if !self.trusted.load(Ordering::Acquire) || state.mark == Mark::Unknown {
            return Ok(());
        }
        state.put_keys([&self.public, &self.secret], &self.revocations)
    }

    /// What verifies our tokens: for each kind of algorithm that keys of ours have, the algorithms and the keys. Keys of the store may
    /// come to be of either, by another node's configuration.
    pub(super) fn verifying(&self) -> Vec<(Vec<Algorithm>, Arc<LiveKeys>)> {
        let state = self.state.load();
        let has = |secret: bool| match &self.place {
            Place::Folder(folder) => {
                (folder.algorithm() == Algorithm::HS256) == secret || state.has(secret)
            }
            Place::Store(_) => true,
        };
        let public = has(false).then(|| (state::ASYMMETRIC.to_vec(), Arc::clone(&self.public)));
        let secret = has(true).then(|| (vec![Algorithm::HS256], Arc::clone(&self.secret)));
        public.into_iter().chain(secret).collect()
    }

    /// The public keys as a JSON Web Key Set (RFC 7517 §5), the one that signs first.
    pub(super) fn jwks(&self) -> Vec<u8> {
        self.state.load().jwks.clone()
    }

    /// The keys whose tokens are believed, the one that signs first.
    pub(super) fn list(&self, now: u64) -> Vec<KeyInfo> {
        self.state.load().list(now)
    }

    /// What the published keys sign with, each once.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        self.state.load().algorithms()
    }

    /// Whether it is known which keys there are: not while they are in a store that could not be read yet.
    pub(super) fn are_known(&self) -> bool {
        self.state.load().mark != Mark::Unknown
    }

    /// Refuses where no key can sign now: none is known yet, or none can be used. They come with the store.
    pub(super) fn check(&self, now: u64) -> Result<(), AccountError> {
        match self.state.load().signing(now) {
            Some(_) => Ok(()),
            None => Err(AccountError::Store(StoreError::Unavailable)),
        }
    }

    /// What is wrong with keys of the store, in a line; `None` where all can be used.
    pub(super) fn fault(&self) -> Option<String> {
        let state = self.state.load();
        let mut faults = state.unusable().map(|(_, error)| error);
        faults.next().map(ToOwned::to_owned)
    }

    /// Signs claims as an access token (RFC 9068 §2.1) with the key whose turn it is.
    ///
    /// # Errors
    /// [`KeyError::Generate`] where no key may sign or the cryptographic library fails.
    pub(super) fn sign(&self, claims: &impl Serialize, now: u64) -> Result<String, KeyError> {
        let state = self.state.load();
        let key = state.signing(now).ok_or(KeyError::Generate)?;
        key.sign(claims).ok_or(KeyError::Generate)
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys")
            .field("kids", &self.state.load().kids())
            .finish_non_exhaustive()
    }
}
