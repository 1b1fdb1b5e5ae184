//! Signing keys in the store, encrypted, the same for all nodes: made, listed, rotated, revoked. What a running process makes of
//! them is not known here.
//!
//! A change is made from what was read and takes its place only if nobody else was faster; then it is made anew. So of nodes that
//! start together one makes the first key.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jsonwebtoken::Algorithm;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::{
    KeyError, KeyFolder, KeyInfo, PUBLISH_AHEAD,
    encryption::{KeyEncryption, Sealer, Sealers},
    key::SigningKey,
    listing::{KeyWrapping, listed},
    ring::Ring,
    rows::{algorithm_of, find, ring_of, tampered, timed, times, unsealed},
};
use crate::{
    accounts::TOKEN_LIFE_MAX,
    store::{KEYS_MAX, RingRead, SealedKey, SealedRing, Store, StoreError},
};

/// How often a change is made anew because another process was faster.
const ATTEMPTS_MAX: u32 = 8;

/// The keys in the store, for whoever changes them.
pub struct StoredKeys {
    store: Arc<dyn Store>,
    sealers: Sealers,
    algorithm: Algorithm,
    /// Where key files may lie from before.
    folder: PathBuf,
}

/// A key that is not encrypted yet.
struct Plain {
    kid: Box<str>,
    algorithm: Algorithm,
    text: Zeroizing<String>,
}

impl StoredKeys {
    /// The keys of a store. A key that is made signs with `algorithm`; the first ones are taken over from `folder`, if there are
    /// any. Nothing is read yet.
    ///
    /// # Errors
    /// [`KeyError::Encrypt`].
    pub fn new(
        store: Arc<dyn Store>,
        encryption: &KeyEncryption,
        algorithm: Algorithm,
        folder: PathBuf,
    ) -> Result<Self, KeyError> {
        Ok(Self {
            store,
            sealers: Sealers::new(encryption)?,
            algorithm,
            folder,
        })
    }

    /// Refuses a store that has keys, for whoever has nothing to decrypt them with: files beside it would be keys of their own. One that
    /// cannot be asked is taken for one that has none.
    ///
    /// # Errors
    /// [`KeyError::EncryptionMissing`].
    pub async fn refuse_any(store: &dyn Store) -> Result<(), KeyError> {
        match Self::are_in(store).await {
            Ok(true) => Err(KeyError::EncryptionMissing),
            Ok(false) | Err(_) => Ok(()),
        }
    }

    /// Whether a store has keys.
    pub(super) async fn are_in(store: &dyn Store) -> Result<bool, StoreError> {
        // A revision that no ring has: what matters is whether there is one.
        let read = store.signing_keys(Some("".into())).await?;
        Ok(read != RingRead::Absent)
    }

    /// Sees to it that there are keys and that this node can use them: takes over those of the folder or makes one where the store
    /// has none, and begins a rotation where the newest is of another algorithm.
    ///
    /// # Errors
    /// [`KeyError::OtherEncryption`] and [`KeyError::Tampered`] where one cannot be decrypted; [`KeyError`] by variant.
    pub async fn begin(&self, now: u64) -> Result<(), KeyError> {
        if self.ring().await?.is_none() {
            self.begin_ring(now).await?;
        }
        let ring = self.ring().await?.ok_or(StoreError::Unavailable)?;
        for key in &ring.keys {
            self.open(key)?;
        }
        self.tell_of_leftovers(&ring);
        if self.has_newest_of_ours(&ring) {
            return Ok(());
        }
        let new = self.make().await?;
        let done = self.change(|ring| {
            if self.has_newest_of_ours(ring) {
                return Ok(None);
            }
            let ahead = times(ring).newest().map_or(0, |_| PUBLISH_AHEAD.as_secs());
            self.with(ring.keys.clone(), &new, now.saturating_add(ahead), now)
                .map(Some)
        });
        tell_made(&done.await?, &new);
        Ok(())
    }

    /// The keys, the one that signs first. Needs nothing decrypted.
    ///
    /// # Errors
    /// [`KeyError::Store`], [`KeyError::TooMany`]; [`KeyError::Tampered`] for one of an algorithm that is none.
    pub async fn list(&self, now: u64) -> Result<Vec<KeyInfo>, KeyError> {
        let Some(ring) = self.ring().await? else {
            return Ok(Vec::new());
        };
        let times = times(&ring);
        let about = times.keys.iter().map(|entry| {
            let key = find(&ring.keys, &entry.kid).ok_or(KeyError::Unknown)?;
            Ok((entry, algorithm_of(key)?, Some(self.wrapping(key))))
        });
        let keys = about.collect::<Result<Vec<_>, KeyError>>()?;
        Ok(listed(&keys, now))
    }

    /// Makes a key that signs after a while, during which it is published; says its name.
    ///
    /// # Errors
    /// As [`StoredKeys::begin`]; then nothing has changed.
    pub async fn rotate(&self, after: Duration, now: u64) -> Result<Box<str>, KeyError> {
        self.begin(now).await?;
        let new = self.make().await?;
        let from = now.saturating_add(after.as_secs());
        let done = self.change(|ring| self.with(ring.keys.clone(), &new, from, now).map(Some));
        tell_made(&done.await?, &new);
        Ok(new.kid)
    }

    /// Takes a key away at once, and with it every token that it has signed; or all of them. Where none is left to sign, another one
    /// does from now on: the one that waits, or a new one. Needs nothing decrypted.
    ///
    /// # Errors
    /// [`KeyError::Unknown`]; [`KeyError::OtherEncryption`] where a new one is needed and those that are there, which the other nodes
    /// can decrypt, are encrypted with a key that is not here. Then nothing has changed. All can be taken away in any case; the new
    /// one is then encrypted with the key that is here.
    pub async fn revoke(&self, kid: Option<&str>, now: u64) -> Result<(), KeyError> {
        let new = self.make().await?;
        let before = self.ring().await?.map_or_else(Vec::new, |ring| ring.keys);
        let done = self.change(|ring| {
            let Some(kid) = kid else {
                let keys = self.sealed(&self.sealers.current, &mut Ring::default(), &new, now)?;
                return Ok(Some(vec![keys]));
            };
            let mut times = times(ring);
            if !times.remove(kid, now) {
                return Err(KeyError::Unknown);
            }
            let left = timed(&ring.keys, &times);
            if times.newest().is_some() {
                return Ok(Some(left));
            }
            let sealer = self.sealer_of(&ring.keys)?;
            let added = self.sealed(sealer, &mut times, &new, now)?;
            Ok(Some(
                timed(&left, &times).into_iter().chain([added]).collect(),
            ))
        });
        let done = done.await?;
        for key in before.iter().filter(|key| find(&done, &key.kid).is_none()) {
            tracing::warn!(target: "audit", event = "key_revoked", kid = %key.kid);
        }
        tell_made(&done, &new);
        Ok(())
    }

    /// Encrypts with the present key-encryption key what is still encrypted with the old one; says how many that were.
    ///
    /// # Errors
    /// As [`StoredKeys::begin`]; then nothing has changed.
    pub async fn rewrap(&self) -> Result<usize, KeyError> {
        let count = AtomicUsize::new(0);
        let done = self.change(|ring| {
            let mut keys = ring.keys.clone();
            let is_old = |key: &&mut SealedKey| self.wrapping(key) != KeyWrapping::Current;
            let mut done = 0;
            for key in keys.iter_mut().filter(is_old) {
                let text = self.sealers.open(key)?;
                self.sealers.current.seal(key, &text)?;
                done += 1;
            }
            count.store(done, Ordering::Relaxed);
            Ok((done > 0).then_some(keys))
        });
        done.await?;
        let count = count.into_inner();
        if count > 0 {
            let encryption = &*self.sealers.current.name;
            tracing::info!(target: "audit", event = "keys_rewrapped", count, encryption);
        }
        Ok(count)
    }

    /// The keys, unless `known` is their revision.
    pub(super) async fn read(&self, known: Option<Box<str>>) -> Result<RingRead, KeyError> {
        let read = self.store.signing_keys(known).await?;
        match &read {
            RingRead::Changed(ring) if ring.keys.len() > KEYS_MAX => Err(KeyError::TooMany),
            RingRead::Absent | RingRead::Changed(_) | RingRead::Same => Ok(read),
        }
    }

    /// Decrypts a key.
    pub(super) fn open(&self, key: &SealedKey) -> Result<SigningKey, KeyError> {
        let text = self.sealers.open(key)?;
        let opened = if algorithm_of(key)? == Algorithm::HS256 {
            SigningKey::of_secret(&key.kid, &text)
        } else {
            SigningKey::of_pem(&text)
        };
        // What is inside says who it is.
        let same = |opened: &SigningKey| {
            opened.kid == key.kid && algorithm_of(key).is_ok_and(|one| one == opened.algorithm)
        };
        opened.ok().filter(same).ok_or_else(|| tampered(key))
    }

    async fn ring(&self) -> Result<Option<SealedRing>, KeyError> {
        match self.read(None).await? {
            RingRead::Changed(ring) => Ok(Some(ring)),
            RingRead::Absent | RingRead::Same => Ok(None),
        }
    }

    /// Puts other keys in the place of those that are there, unless there is nothing to do; says which are there then.
    async fn change(
        &self,
        edit: impl Fn(&SealedRing) -> Result<Option<Vec<SealedKey>>, KeyError>,
    ) -> Result<Vec<SealedKey>, KeyError> {
        for _ in 0..ATTEMPTS_MAX {
            let before = self.ring().await?;
            let ring = before.clone().unwrap_or_else(|| ring_of(Vec::new()));
            let Some(keys) = edit(&ring)? else {
                return Ok(ring.keys);
            };
            let expected = before.map(|ring| ring.revision);
            let next = ring_of(keys.clone());
            if self.store.replace_signing_keys(expected, next).await? {
                return Ok(keys);
            }
        }
        Err(StoreError::Busy.into())
    }

    /// Puts the first keys into the store, unless another process was faster.
    async fn begin_ring(&self, now: u64) -> Result<(), KeyError> {
        let (folder, algorithm) = (self.folder.clone(), self.algorithm);
        // The disk may be slow, and other processes may hold the folder.
        let found = spawn_blocking(move || KeyFolder::texts_of(&folder, algorithm, now));
        let found = found.await.map_err(|_| KeyError::Generate)??;
        let mut keys = Vec::new();
        for (entry, key, text) in found {
            let mut sealed = unsealed(&entry, key.algorithm);
            self.sealers.current.seal(&mut sealed, &text)?;
            keys.push(sealed);
        }
        if keys.len() > KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let is_import = !keys.is_empty();
        let new = if is_import {
            None
        } else {
            Some(self.make().await?)
        };
        if let Some(new) = &new {
            keys = self.with(keys, new, 0, now)?;
        }
        if !self
            .store
            .replace_signing_keys(None, ring_of(keys.clone()))
            .await?
        {
            return Ok(());
        }
        if is_import {
            let kids: Vec<&str> = keys.iter().map(|key| &*key.kid).collect();
            let folder = self.folder.display();
            tracing::info!(target: "audit", event = "keys_imported", ?kids, %folder);
        }
        new.iter().for_each(|new| tell_made(&keys, new));
        Ok(())
    }

    /// What an operator may still have to do.
    fn tell_of_leftovers(&self, ring: &SealedRing) {
        if KeyFolder::is_there(&self.folder) {
            tracing::warn!(
                folder = %self.folder.display(),
                "signing keys are in the store; the files in this folder are not used any more: remove it, here and on every node"
            );
        }
        let is_old = |key: &SealedKey| self.wrapping(key) != KeyWrapping::Current;
        if ring.keys.iter().any(is_old) {
            tracing::warn!(
                "signing keys are still encrypted with the old key-encryption key; when every node has the new one, run: portcullis key rewrap"
            );
        }
    }

    fn wrapping(&self, key: &SealedKey) -> KeyWrapping {
        if *key.encryption == *self.sealers.current.name {
            KeyWrapping::Current
        } else if self.sealers.named(&key.encryption).is_some() {
            KeyWrapping::Old
        } else {
            KeyWrapping::Unknown
        }
    }

    fn has_newest_of_ours(&self, ring: &SealedRing) -> bool {
        let times = times(ring);
        let newest = times.newest();
        let newest = newest.and_then(|entry| find(&ring.keys, &entry.kid));
        newest.is_some_and(|key| algorithm_of(key).is_ok_and(|one| one == self.algorithm))
    }

    /// What a key is encrypted with that comes to these: the same, for every node has that. Only a rewrap goes over to another one.
    fn sealer_of(&self, keys: &[SealedKey]) -> Result<&Sealer, KeyError> {
        let Some(newest) = keys.iter().max_by_key(|key| key.from) else {
            return Ok(&self.sealers.current);
        };
        let sealer = self.sealers.named(&newest.encryption);
        sealer.ok_or_else(|| self.sealers.unknown(&newest.encryption))
    }

    /// These keys without those that are over, and a new one.
    fn with(
        &self,
        keys: Vec<SealedKey>,
        new: &Plain,
        from: u64,
        now: u64,
    ) -> Result<Vec<SealedKey>, KeyError> {
        let ring = ring_of(keys);
        let mut times = times(&ring);
        times.prune(now);
        if times.keys.len() >= KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let added = self.sealed(self.sealer_of(&ring.keys)?, &mut times, new, from)?;
        let kept = timed(&ring.keys, &times);
        Ok(kept.into_iter().chain([added]).collect())
    }

    /// Puts a key into the ring, and encrypts it.
    fn sealed(
        &self,
        sealer: &Sealer,
        times: &mut Ring,
        new: &Plain,
        from: u64,
    ) -> Result<SealedKey, KeyError> {
        times.add(&new.kid, from, TOKEN_LIFE_MAX.as_secs());
        let entry = times.keys.iter().find(|entry| entry.kid == new.kid);
        let mut key = unsealed(entry.ok_or(KeyError::Generate)?, new.algorithm);
        sealer.seal(&mut key, &new.text)?;
        Ok(key)
    }

    async fn make(&self) -> Result<Plain, KeyError> {
        let algorithm = self.algorithm;
        let made = spawn_blocking(move || SigningKey::generate(algorithm)).await;
        let (key, _, text) = made.ok().flatten().ok_or(KeyError::Generate)?;
        Ok(Plain {
            kid: key.kid,
            algorithm,
            text,
        })
    }
}

/// Tells of a new key, if it is among those that are there now.
fn tell_made(keys: &[SealedKey], new: &Plain) {
    if let Some(key) = find(keys, &new.kid) {
        let (kid, from) = (&*key.kid, key.from);
        tracing::info!(target: "audit", event = "key_made", kid, algorithm = ?new.algorithm, from);
    }
}

impl fmt::Debug for StoredKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKeys")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}
