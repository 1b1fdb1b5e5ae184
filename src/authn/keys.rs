//! The keys of one issuer: read once, checked once, each bound to one algorithm.
//!
//! What a key may verify is fixed here, from the configuration and the key itself, before any token is seen (RFC 8725
//! §3.1). Curve, length and kind are checked, and a private key or a guessable secret is refused by name rather than found out later
//! (JWT-8, KEY-5; `verifying`).

mod der;
mod fault;
mod jwks;
mod life;
mod live;
mod verifying;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use zeroize::Zeroizing;

pub use self::fault::KeyFault;
pub(super) use self::life::KeyLife;
pub(super) use self::live::Demand;
pub use self::live::{KeyStatus, LiveKeys};
use self::verifying::Checked;
use super::{compact, settings::KeySource};

/// One key and the one algorithm that it verifies (JWT-1).
#[derive(Debug)]
pub(super) struct VerifyingKey {
    algorithm: Algorithm,
    key: Checked,
    /// Whether it is still among its issuer's keys.
    pub(super) life: Arc<KeyLife>,
}

impl VerifyingKey {
    /// Whether `signature`, still encoded, is this key's over `signed`. An undecodable one is not.
    pub(super) fn verifies(&self, signed: &[u8], signature: &str) -> bool {
        compact::decode(signature).is_ok_and(|signature| self.key.verifies(signed, &signature))
    }
}

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Keys,
    /// How many keys of a JWKS were left out because they do not fit (KEY-6).
    pub(super) skipped: usize,
    /// When the set was loaded, for its age.
    loaded: Instant,
    /// How old it was by then: keys that were kept on the disk.
    aged: Duration,
}

/// A key, once for each algorithm that it may verify, under the name that its owner gave it.
#[derive(Debug)]
enum Keys {
    One(Option<Box<str>>, Vec<VerifyingKey>),
    Several(HashMap<Box<str>, Vec<VerifyingKey>>),
}

impl KeySet {
    /// Reads and checks an issuer's keys for these algorithms.
    ///
    /// # Errors
    /// A fault of the set as a whole, or of its only key. Keys of a JWKS that merely do not fit are skipped and counted
    /// (KEY-6); weak, private and published secret ones are a fault wherever they are found.
    pub(super) fn load(source: &KeySource, algorithms: &[Algorithm]) -> Result<Self, KeyFault> {
        let symmetric = is_symmetric(algorithms)?;
        let first = algorithms
            .first()
            .copied()
            .ok_or(KeyFault::AlgorithmsEmpty)?;
        match (source, symmetric) {
            (KeySource::Secret(secret), true) => {
                Self::of_one(Material::Secret(secret.clone()), algorithms)
            }
            (KeySource::PublicKey(bytes), false) => {
                Self::of_one(der::public_key(bytes)?, algorithms)
            }
            (KeySource::Jwks(json), _) => {
                let set = jwks::read(json, symmetric, Odd::Refused)?;
                Self::of_set(set, algorithms, Odd::Refused)
            }
            (KeySource::Secret(_), false) => Err(KeyFault::SecretForPublicKey(first)),
            (KeySource::PublicKey(_), true)
            | (
                KeySource::Introspected(_)
                | KeySource::Introspection(_)
                | KeySource::Live(_)
                | KeySource::Remote(_),
                _,
            ) => Err(KeyFault::PublicKeyForSecret(first)),
        }
    }

    /// Reads a set that an issuer publishes: whatever is odd in it is left out and counted, for it is not ours to repair, and
    /// one bad key must not take the good ones away (KEY-6).
    ///
    /// # Errors
    /// A fault of the set as a whole, such as one name for two keys, and a set without a key that can be used.
    pub(super) fn of_published(json: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeyFault> {
        if is_symmetric(algorithms)? {
            let first = algorithms.first().copied();
            return Err(first.map_or(KeyFault::AlgorithmsEmpty, KeyFault::PublicKeyForSecret));
        }
        let set = jwks::read(json, false, Odd::LeftOut)?;
        Self::of_set(set, algorithms, Odd::LeftOut)
    }

    /// No key.
    pub(super) fn empty() -> Self {
        Self {
            keys: Keys::Several(HashMap::new()),
            skipped: 0,
            loaded: Instant::now(),
            aged: Duration::ZERO,
        }
    }

    fn of_one(material: Material, algorithms: &[Algorithm]) -> Result<Self, KeyFault> {
        let verifying = material.bind(None, algorithms)?;
        if verifying.is_empty() {
            return Err(KeyFault::Unfit(material.kind()));
        }
        Ok(Self {
            keys: Keys::One(None, verifying),
            skipped: 0,
            loaded: Instant::now(),
            aged: Duration::ZERO,
        })
    }

    fn of_set(set: jwks::Jwks, algorithms: &[Algorithm], odd: Odd) -> Result<Self, KeyFault> {
        let mut skipped = set.skipped;
        let mut usable = Vec::new();
        for key in set.keys {
            let allowed: Vec<_> = algorithms
                .iter()
                .copied()
                .filter(|algorithm| key.algorithm.is_none_or(|only| only == *algorithm))
                .collect();
            match (key.material.bind(key.id.as_deref(), &allowed), odd) {
                (Ok(verifying), _) if !verifying.is_empty() => usable.push((key.id, verifying)),
                (Ok(_) | Err(KeyFault::Malformed(_)), _) | (Err(_), Odd::LeftOut) => skipped += 1,
                (Err(fault), Odd::Refused) => return Err(fault),
            }
        }
        let count = usable.len();
        let keys = if count == 1 {
            usable.pop().map(|(id, verifying)| Keys::One(id, verifying))
        } else {
            several(usable, &mut skipped)?
        };
        Ok(Self {
            keys: keys.ok_or(KeyFault::NoUsableKey(skipped))?,
            skipped,
            loaded: Instant::now(),
            aged: Duration::ZERO,
        })
    }

    /// Says how long ago the set was fetched that is only loaded now.
    pub(super) fn aged(self, aged: Duration) -> Self {
        Self { aged, ..self }
    }

    /// Since its provider gave it.
    pub(super) fn age(&self) -> Duration {
        self.aged + self.loaded.elapsed()
    }

    /// How many keys can be used.
    pub(super) fn count(&self) -> usize {
        match &self.keys {
            Keys::One(..) => 1,
            Keys::Several(keys) => keys.len(),
        }
    }

    /// Finds the one key for a token. A set of one key needs no `kid`, and a key without a name answers to any; no second
    /// key is ever tried.
    pub(super) fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Option<&VerifyingKey> {
        let key = match (&self.keys, kid) {
            (Keys::One(_, key), None) | (Keys::One(None, key), Some(_)) => key,
            (Keys::One(Some(id), key), Some(kid)) => (**id == *kid).then_some(key)?,
            (Keys::Several(keys), Some(kid)) => keys.get(kid)?,
            (Keys::Several(_), None) => return None,
        };
        key.iter().find(|key| key.algorithm == algorithm)
    }
}

/// Several keys by their names.
fn several(
    usable: Vec<(Option<Box<str>>, Vec<VerifyingKey>)>,
    skipped: &mut usize,
) -> Result<Option<Keys>, KeyFault> {
    let mut by_id = HashMap::new();
    for (id, verifying) in usable {
        // Among several, a key without a name could only be found by trying.
        let Some(id) = id else {
            *skipped += 1;
            continue;
        };
        if by_id.insert(id.clone(), verifying).is_some() {
            return Err(KeyFault::DuplicateKeyId(id));
        }
    }
    Ok((!by_id.is_empty()).then_some(Keys::Several(by_id)))
}

/// Whether these algorithms need a shared secret. One issuer has either kind: where both share a path, the bytes of a
/// public key can be taken for a secret (CVE-2015-9235 and its many heirs).
fn is_symmetric(algorithms: &[Algorithm]) -> Result<bool, KeyFault> {
    let is_hmac = |algorithm: &Algorithm| algorithm.family() == AlgorithmFamily::Hmac;
    let first = algorithms.first().ok_or(KeyFault::AlgorithmsEmpty)?;
    match algorithms
        .iter()
        .find(|other| is_hmac(other) != is_hmac(first))
    {
        Some(_) => Err(KeyFault::AlgorithmsMixed),
        None => Ok(is_hmac(first)),
    }
}

/// What becomes of a key that is weak, private, or secret where it should be public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Odd {
    /// It is skipped and counted.
    LeftOut,
    /// It is a fault of the whole set.
    Refused,
}

/// A key as read, not yet checked. It cannot be printed: one of its kinds is a secret.
enum Material {
    /// An uncompressed point of P-256.
    P256(Vec<u8>),
    /// An uncompressed point of P-384.
    P384(Vec<u8>),
    /// A public key of Ed25519.
    Ed25519(Vec<u8>),
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A shared secret.
    Secret(Zeroizing<Vec<u8>>),
}

impl Material {
    fn kind(&self) -> &'static str {
        match self {
            Self::P256(_) => "an EC key on P-256",
            Self::P384(_) => "an EC key on P-384",
            Self::Ed25519(_) => "an Ed25519 key",
            Self::Rsa { .. } => "an RSA key",
            Self::Secret(_) => "a shared secret",
        }
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::P256(_) => algorithm == Algorithm::ES256,
            Self::P384(_) => algorithm == Algorithm::ES384,
            Self::Ed25519(_) => algorithm == Algorithm::EdDSA,
            Self::Rsa { .. } => algorithm.family() == AlgorithmFamily::Rsa,
            Self::Secret(_) => algorithm.family() == AlgorithmFamily::Hmac,
        }
    }

    /// Checks the key and binds it to each of the algorithms that it fits; empty where it fits none.
    fn bind(
        &self,
        id: Option<&str>,
        algorithms: &[Algorithm],
    ) -> Result<Vec<VerifyingKey>, KeyFault> {
        algorithms
            .iter()
            .filter(|algorithm| self.fits(**algorithm))
            .map(|algorithm| {
                Ok(VerifyingKey {
                    algorithm: *algorithm,
                    key: Checked::new(self, *algorithm)?,
                    life: Arc::new(KeyLife::new(id, *algorithm, self.parts())),
                })
            })
            .collect()
    }

    /// The bytes that make the key what it is.
    fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::P256(bytes) | Self::P384(bytes) | Self::Ed25519(bytes) => [bytes, &[]],
            Self::Rsa { n, e } => [n, e],
            Self::Secret(bytes) => [bytes, &[]],
        }
    }
}

/// A number as the back-end wants it. The leading zero of a DER integer, and those that some write into a JWK, go.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
