//! Keys as the store keeps them, and the ring that their times are.

use std::str::FromStr;

use jsonwebtoken::Algorithm;

use super::{
    KeyError,
    ring::{Entry, Ring},
};
use crate::store::{SealedKey, SealedRing};

/// The key of this name.
pub(super) fn find<'k>(keys: &'k [SealedKey], kid: &str) -> Option<&'k SealedKey> {
    keys.iter().find(|key| *key.kid == *kid)
}

/// What a key says that it signs with.
pub(super) fn algorithm_of(key: &SealedKey) -> Result<Algorithm, KeyError> {
    Algorithm::from_str(&key.algorithm).map_err(|_| tampered(key))
}

/// That a key is not what it says.
pub(super) fn tampered(key: &SealedKey) -> KeyError {
    KeyError::Tampered {
        kid: key.kid.clone(),
    }
}

/// These keys, as a revision of their own.
pub(super) fn ring_of(keys: Vec<SealedKey>) -> SealedRing {
    SealedRing {
        revision: uuid::Uuid::new_v4().to_string().into(),
        keys,
    }
}

/// A key that has everything but what signs.
pub(super) fn unsealed(entry: &Entry, algorithm: Algorithm) -> SealedKey {
    SealedKey {
        kid: entry.kid.clone(),
        algorithm: format!("{algorithm:?}").into(),
        from: entry.from,
        until: entry.until,
        encryption: Box::default(),
        sealed: Box::default(),
    }
}

/// The times of the keys.
pub(super) fn times(ring: &SealedRing) -> Ring {
    let entry = |key: &SealedKey| Entry {
        kid: key.kid.clone(),
        from: key.from,
        until: key.until,
    };
    Ring {
        keys: ring.keys.iter().map(entry).collect(),
    }
}

/// Those of the keys that have times, with these times.
pub(super) fn timed(keys: &[SealedKey], times: &Ring) -> Vec<SealedKey> {
    let with_times = |entry: &Entry| {
        let key = find(keys, &entry.kid)?;
        Some(SealedKey {
            from: entry.from,
            until: entry.until,
            ..key.clone()
        })
    };
    times.keys.iter().filter_map(with_times).collect()
}
