//! The keys that sign statements to upstreams. They lie in a folder of their own, so that what signs a statement never verifies an
//! access token, nor the other way round (JWT-4).

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use aws_lc_rs::{rand::SystemRandom, signature::EcdsaKeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use bytes::Bytes;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{KeyError, KeyFolder, files::Stamp, key::SigningKey, ring::Entry};

/// What these keys sign with, whatever the configuration says of access tokens.
pub const ASSERTION_ALGORITHM: Algorithm = Algorithm::ES256;

/// The keys of statements as this process knows them. Signing reads no file and takes no lock.
pub struct AssertionKeys {
    folder: KeyFolder,
    /// `typ` of what is signed.
    kind: &'static str,
    state: ArcSwap<State>,
    /// One at a time puts a state in place.
    change: Mutex<()>,
}

/// What was signed, and by which key.
#[derive(Debug)]
pub struct Signature {
    /// The key's name.
    pub kid: Arc<str>,
    /// The compact form (RFC 7515 §7.1).
    pub token: String,
}

/// The ring at a time.
struct State {
    stamp: Stamp,
    keys: Arc<Vec<Key>>,
    /// Those that are published.
    good: Vec<Arc<str>>,
    jwks: Bytes,
}

struct Key {
    entry: Entry,
    kid: Arc<str>,
    pair: EcdsaKeyPair,
    /// The protected header and its dot: the same for everything that the key signs.
    head: Box<str>,
    public: Value,
}

impl AssertionKeys {
    /// Reads the keys of a folder, and makes folder (0700) and key (0600) where there are none. `kind` is `typ` of all that they
    /// sign. Blocks.
    ///
    /// # Errors
    /// [`KeyError`] by variant; [`KeyError::NotEs256`] for a key that is no pair of P-256.
    pub fn open(folder: &Path, kind: &'static str, now: u64) -> Result<Self, KeyError> {
        let folder = KeyFolder::open(folder, ASSERTION_ALGORITHM, now)?;
        let (stamp, keys) = read(&folder, kind)?;
        Ok(Self {
            folder,
            kind,
            state: ArcSwap::from_pointee(State::new(stamp, Arc::new(keys), now)),
            change: Mutex::new(()),
        })
    }

    /// Looks for faults without making anything: a folder that is not there has none. Blocks.
    ///
    /// # Errors
    /// As [`AssertionKeys::open`].
    pub fn inspect(folder: &Path) -> Result<(), KeyError> {
        match KeyFolder::existing(folder, ASSERTION_ALGORITHM)? {
            Some(folder) => read(&folder, "").map(drop),
            None => Ok(()),
        }
    }

    /// Reads what another process changed, and lets go of what is over. Blocks, for a look at a file where nothing changed.
    ///
    /// # Errors
    /// [`KeyError`] by variant; the keys then stay as they were.
    pub fn follow(&self, now: u64) -> Result<(), KeyError> {
        let _one = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state.load();
        let stamp = self.folder.stamp()?;
        let (stamp, keys) = if stamp == before.stamp {
            (stamp, Arc::clone(&before.keys))
        } else {
            let (stamp, keys) = read(&self.folder, self.kind)?;
            (stamp, Arc::new(keys))
        };
        let state = State::new(stamp, keys, now);
        if state.good != before.good {
            tracing::info!(keys = ?state.good, "the keys of assertions have changed");
        }
        self.state.store(Arc::new(state));
        Ok(())
    }

    /// The public keys as a JSON Web Key Set (RFC 7517 §5), those included that will sign.
    #[must_use]
    pub fn jwks(&self) -> Bytes {
        self.state.load().jwks.clone()
    }

    /// Whether this key is the one whose turn it is.
    #[must_use]
    pub fn is_signing(&self, kid: &str, now: u64) -> bool {
        let state = self.state.load();
        state.signing(now).is_some_and(|key| *key.kid == *kid)
    }

    /// Signs a payload with the key whose turn it is.
    ///
    /// # Errors
    /// [`KeyError::Generate`] where no key may sign or the cryptographic library fails.
    pub fn sign(&self, payload: &[u8], now: u64) -> Result<Signature, KeyError> {
        let state = self.state.load();
        let key = state.signing(now).ok_or(KeyError::Generate)?;
        // The signature of P-256 has 64 bytes, which are 86 characters.
        let mut token = String::with_capacity(key.head.len() + payload.len() * 4 / 3 + 90);
        token.push_str(&key.head);
        BASE64URL.encode_string(payload, &mut token);
        let signature = key.pair.sign(&SystemRandom::new(), token.as_bytes());
        let signature = signature.map_err(|_| KeyError::Generate)?;
        token.push('.');
        BASE64URL.encode_string(signature.as_ref(), &mut token);
        Ok(Signature {
            kid: Arc::clone(&key.kid),
            token,
        })
    }
}

fn read(folder: &KeyFolder, kind: &str) -> Result<(Stamp, Vec<Key>), KeyError> {
    let (stamp, keys) = folder.read_all()?;
    let keys = keys.into_iter().map(|(entry, key)| {
        let made = Key::new(entry, &key, kind);
        made.ok_or(KeyError::NotEs256 { kid: key.kid })
    });
    Ok((stamp, keys.collect::<Result<_, _>>()?))
}

impl Key {
    /// `None` for a key that signs with anything else.
    fn new(entry: Entry, key: &SigningKey, kind: &str) -> Option<Self> {
        let pair = key.es256()?;
        let head = json!({ "alg": "ES256", "typ": kind, "kid": *key.kid }).to_string();
        Some(Self {
            kid: (*key.kid).into(),
            head: format!("{}.", BASE64URL.encode(head)).into(),
            public: key.public()?.clone(),
            pair,
            entry,
        })
    }
}

impl State {
    fn new(stamp: Stamp, keys: Arc<Vec<Key>>, now: u64) -> Self {
        let published = || keys.iter().filter(|key| key.entry.is_good(now));
        let public: Vec<&Value> = published().map(|key| &key.public).collect();
        let jwks = json!({ "keys": public }).to_string().into_bytes().into();
        let good = published().map(|key| Arc::clone(&key.kid)).collect();
        Self {
            stamp,
            good,
            jwks,
            keys,
        }
    }

    fn signing(&self, now: u64) -> Option<&Key> {
        let begun = |key: &&Key| key.entry.from <= now && key.entry.is_good(now);
        let begun = self.keys.iter().filter(begun);
        begun.max_by_key(|key| key.entry.from)
    }
}

impl fmt::Debug for AssertionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssertionKeys")
            .field("kids", &self.state.load().good)
            .finish_non_exhaustive()
    }
}
