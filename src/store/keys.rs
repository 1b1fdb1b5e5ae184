//! The keys that sign access tokens, as a store keeps them: encrypted, so that whoever has the store alone can sign nothing.

use std::fmt;

use super::Answer;

/// What the keys are for that are kept here, and no others yet.
pub const PURPOSE: &str = "access_token";

/// The most keys of a ring, those that wait and those that retire among them.
pub const KEYS_MAX: usize = 64;

/// One signing key. Its times and its name are no secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Its name.
    pub kid: Box<str>,
    /// What it signs with, by its JOSE name (RFC 7518 §3.1).
    pub algorithm: Box<str>,
    /// Seconds since 1970: it signs from then on, until another does.
    pub from: u64,
    /// Seconds since 1970: its tokens are refused from then on; `None` while it has no successor.
    pub until: Option<u64>,
    /// Names the key that it is encrypted with, and says nothing of it.
    pub encryption: Box<str>,
    /// What signs, encrypted and authenticated together with name and algorithm.
    pub sealed: Box<[u8]>,
}

/// All keys at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRing {
    /// Random, and another one with each change: a server that lost its last transactions must not give a number twice.
    pub revision: Box<str>,
    /// At most [`KEYS_MAX`] and one, by which too many are seen.
    pub keys: Vec<SealedKey>,
}

/// What a look at the keys brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RingRead {
    /// No key was ever put into this store.
    Absent,
    /// Other keys than those that the reader knows.
    Changed(SealedRing),
    /// Those that the reader knows.
    Same,
}

/// Keeps signing keys. As with [`Store`](super::Store) each method is one transaction.
pub trait SigningKeyStore {
    /// The keys, unless `known` is their revision.
    fn signing_keys(&self, known: Option<Box<str>>) -> Answer<RingRead>;

    /// Puts these keys in the place of those of the revision `expected`; with `None`, where there are none yet. `false` where
    /// another revision is there, and then nothing has changed: of several at once one gets it.
    fn replace_signing_keys(&self, expected: Option<Box<str>>, ring: SealedRing) -> Answer<bool>;
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .field("from", &self.from)
            .field("until", &self.until)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}
