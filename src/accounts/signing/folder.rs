//! The folder of signing keys: made, listed, rotated, revoked. What a running process makes of it is not known here.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jsonwebtoken::Algorithm;
use zeroize::Zeroizing;

use super::{
    KeyError, PUBLISH_AHEAD,
    files::{self, Stamp},
    key::{PAIR, SECRET, SigningKey, Unfit},
    listing::{KeyInfo, listed},
    ring::{self, Entry, Ring},
};
use crate::{accounts::TOKEN_LIFE_MAX, store::KEYS_MAX};

/// Attempts to read a ring whose keys another process is changing.
const READS_MAX: u32 = 3;

/// The folder of the keys, for whoever changes them.
#[derive(Debug, Clone)]
pub struct KeyFolder {
    folder: PathBuf,
    algorithm: Algorithm,
}

impl KeyFolder {
    /// The folder, and what a key that is made in it signs with. Makes folder, ring and key where there are none, and begins a
    /// rotation where the newest key is of another algorithm. Blocks.
    ///
    /// # Errors
    /// [`KeyError`] by variant, about the first file with a fault.
    pub fn open(folder: &Path, algorithm: Algorithm, now: u64) -> Result<Self, KeyError> {
        files::private_folder(folder)?;
        let opened = Self {
            folder: folder.into(),
            algorithm,
        };
        let _lock = files::lock(folder)?;
        if folder.join(ring::FILE).exists() {
            opened.follow_algorithm(now)?;
        } else {
            opened.begin(now)?;
        }
        Ok(opened)
    }

    /// The folder, where it is there and has a ring; nothing is made. Blocks.
    ///
    /// # Errors
    /// [`KeyError::FolderOpen`], and [`KeyError::File`] where it cannot be looked at.
    pub(super) fn existing(folder: &Path, algorithm: Algorithm) -> Result<Option<Self>, KeyError> {
        if !folder.exists() {
            return Ok(None);
        }
        files::refuse_open(folder)?;
        Ok(folder.join(ring::FILE).exists().then(|| Self {
            folder: folder.into(),
            algorithm,
        }))
    }

    /// Whether there are keys in a folder.
    pub(super) fn is_there(folder: &Path) -> bool {
        let pairs = files::ending(folder, PAIR);
        folder.join(ring::FILE).exists() || pairs.is_ok_and(|pairs| !pairs.is_empty())
    }

    /// The keys of a folder that are in use, or will be, or were a short while ago, with the texts of their files; none where there
    /// is no folder. Blocks.
    pub(super) fn texts_of(
        folder: &Path,
        algorithm: Algorithm,
        now: u64,
    ) -> Result<Vec<(Entry, SigningKey, Zeroizing<String>)>, KeyError> {
        if !Self::is_there(folder) {
            return Ok(Vec::new());
        }
        let opened = Self::open(folder, algorithm, now)?;
        let _lock = files::lock(folder)?;
        let ring = Ring::read(folder)?;
        let good = ring.keys.into_iter().filter(|entry| entry.is_good(now));
        good.map(|entry| {
            let (key, text) = opened.read(&entry.kid)?;
            Ok((entry, key, text))
        })
        .collect()
    }

    /// What a key that is made signs with.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What tells one ring from the next.
    pub(super) fn stamp(&self) -> Result<Stamp, KeyError> {
        files::stamp(&self.folder.join(ring::FILE))
    }

    /// The keys, the one that signs first. Blocks.
    ///
    /// # Errors
    /// [`KeyError`] by variant.
    pub fn list(&self, now: u64) -> Result<Vec<KeyInfo>, KeyError> {
        let ring = Ring::read(&self.folder)?;
        // The file of one that is over may be gone.
        let good = ring.keys.iter().filter(|entry| entry.is_good(now));
        let keys = good
            .map(|entry| Ok((entry, self.read(&entry.kid)?.0.algorithm, None)))
            .collect::<Result<Vec<_>, KeyError>>()?;
        Ok(listed(&keys, now))
    }

    /// Makes a key that signs after a while, during which it is published; says its name. Blocks.
    ///
    /// # Errors
    /// [`KeyError`] by variant; then nothing has changed.
    pub fn rotate(&self, after: Duration, now: u64) -> Result<Box<str>, KeyError> {
        let _lock = files::lock(&self.folder)?;
        self.add(
            Ring::read(&self.folder)?,
            now.saturating_add(after.as_secs()),
            now,
        )
    }

    /// Takes all keys away at once, and with them every token; a new one signs. Blocks.
    ///
    /// # Errors
    /// [`KeyError`] by variant; then nothing has changed, unless it is about a file that could not be removed.
    pub fn revoke_all(&self, now: u64) -> Result<(), KeyError> {
        let _lock = files::lock(&self.folder)?;
        let before = Ring::read(&self.folder)?;
        self.add(Ring::default(), now, now)?;
        for entry in &before.keys {
            tracing::warn!(target: "audit", event = "key_revoked", kid = %entry.kid);
            if let Some(path) = self.path_of(&entry.kid) {
                files::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Takes a key away at once, and with it every token that it has signed. Where it signed, another does from now on: the one
    /// that waits, or a new one. Blocks.
    ///
    /// # Errors
    /// [`KeyError::Unknown`], and [`KeyError`] by variant; then nothing has changed.
    pub fn revoke(&self, kid: &str, now: u64) -> Result<(), KeyError> {
        let _lock = files::lock(&self.folder)?;
        let mut ring = Ring::read(&self.folder)?;
        let path = self.path_of(kid);
        if !ring.remove(kid, now) {
            return Err(KeyError::Unknown);
        }
        if ring.newest().is_none() {
            self.add(ring, now, now)?;
        } else {
            ring.write(&self.folder)?;
        }
        tracing::warn!(target: "audit", event = "key_revoked", kid);
        path.map_or(Ok(()), |path| files::remove(&path))
    }

    /// Puts a new key into the ring, and takes out what is over.
    fn add(&self, mut ring: Ring, from: u64, now: u64) -> Result<Box<str>, KeyError> {
        if ring.keys.iter().filter(|key| key.is_good(now)).count() >= KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let (key, ending, text) = SigningKey::generate(self.algorithm).ok_or(KeyError::Generate)?;
        let path = self.folder.join(format!("{}.{ending}", key.kid));
        files::write(&path, text.as_bytes())?;
        ring.add(&key.kid, from, TOKEN_LIFE_MAX.as_secs());
        let over = ring.prune(now);
        if let Err(error) = ring.write(&self.folder) {
            files::remove(&path)?;
            return Err(error);
        }
        tracing::info!(target: "audit", event = "key_made", kid = %key.kid, algorithm = ?key.algorithm, from);
        for path in over.iter().filter_map(|kid| self.path_of(kid)) {
            files::remove(&path)?;
        }
        Ok(key.kid)
    }

    /// Makes the ring of a folder that has none: of the keys that lie there, or of a new one. An earlier version named the one that
    /// signs in the file `active`.
    fn begin(&self, now: u64) -> Result<(), KeyError> {
        let mut found = Vec::new();
        for path in files::ending(&self.folder, PAIR)? {
            found.push(read_pair(&path)?.kid);
        }
        let pointer = self.folder.join("active");
        let named = if pointer.exists() {
            let named = files::read_private(&pointer)?;
            let named: Box<str> = named.trim().into();
            if !found.contains(&named) {
                return Err(KeyError::Missing { path: pointer });
            }
            Some(named)
        } else {
            found.first().cloned()
        };
        let mut ring = Ring::default();
        let Some(named) = named else {
            return self.add(ring, 0, now).map(drop);
        };
        ring.keys = found
            .into_iter()
            .map(|kid| Entry {
                until: (kid != named).then(|| now.saturating_add(TOKEN_LIFE_MAX.as_secs())),
                from: u64::from(kid == named),
                kid,
            })
            .collect();
        ring.write(&self.folder)?;
        files::remove(&pointer)?;
        self.follow_algorithm(now)
    }

    /// Where the newest key is of another algorithm than the configuration says, one of that is made and waits for its turn.
    fn follow_algorithm(&self, now: u64) -> Result<(), KeyError> {
        let ring = Ring::read(&self.folder)?;
        let Some(newest) = ring.newest().map(|key| key.kid.clone()) else {
            return self.add(ring, now, now).map(drop);
        };
        if self.read(&newest)?.0.algorithm == self.algorithm {
            return Ok(());
        }
        let from = now.saturating_add(PUBLISH_AHEAD.as_secs());
        self.add(ring, from, now).map(drop)
    }

    fn path_of(&self, kid: &str) -> Option<PathBuf> {
        // A kid from a command line is no path.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let mut endings = [PAIR, SECRET].into_iter();
        let path = |ending: &str| self.folder.join(format!("{kid}.{ending}"));
        endings
            .find(|ending| kid.bytes().all(plain) && path(ending).exists())
            .map(path)
    }

    /// A key, with the text of its file.
    fn read(&self, kid: &str) -> Result<(SigningKey, Zeroizing<String>), KeyError> {
        let missing = || KeyError::Missing {
            path: self.folder.join(ring::FILE),
        };
        let path = self.path_of(kid).ok_or_else(missing)?;
        let text = files::read_private(&path)?;
        let key = if path.extension().is_some_and(|ending| ending == SECRET) {
            SigningKey::of_secret(kid, &text)
        } else {
            SigningKey::of_pem(&text)
        };
        let key = key.map_err(|unfit| unfit_error(unfit, &path))?;
        // A file under another key's name would be believed in that key's place.
        if *key.kid == *kid {
            Ok((key, text))
        } else {
            Err(missing())
        }
    }

    /// Every key of the ring. A key that another process took out after the ring was read is looked for in the ring of then.
    pub(super) fn read_all(&self) -> Result<(Stamp, Vec<(Entry, SigningKey)>), KeyError> {
        let mut attempt = 1;
        loop {
            let stamp = self.stamp()?;
            let ring = Ring::read(&self.folder)?;
            let keys: Result<Vec<_>, _> = ring
                .keys
                .into_iter()
                .map(|entry| Ok((entry.clone(), self.read(&entry.kid)?.0)))
                .collect();
            match keys {
                Err(KeyError::Missing { .. }) if attempt < READS_MAX => attempt += 1,
                keys => return Ok((stamp, keys?)),
            }
        }
    }
}

fn read_pair(path: &Path) -> Result<SigningKey, KeyError> {
    let text = files::read_private(path)?;
    SigningKey::of_pem(&text).map_err(|unfit| unfit_error(unfit, path))
}

fn unfit_error(unfit: Unfit, path: &Path) -> KeyError {
    match unfit {
        Unfit::Example => KeyError::Example { path: path.into() },
        Unfit::Malformed => KeyError::Malformed { path: path.into() },
    }
}
