//! The keys of one issuer: read once, checked once, each bound to one algorithm.
//!
//! What a key may verify is fixed here, from the configuration and the key itself, before any token is seen (RFC 8725
//! §3.1). jsonwebtoken takes whatever bytes it is given, so curve, length and kind are checked here, and a private key or a
//! guessable secret is refused by name rather than found out later (JWT-8, KEY-5).

mod der;
mod fault;
mod jwks;
mod life;
mod live;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{encoding::AsDer, rsa, signature};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use zeroize::Zeroizing;

pub use self::fault::KeyFault;
pub(super) use self::life::KeyLife;
pub(super) use self::live::Demand;
pub use self::live::{KeyStatus, LiveKeys};
use super::settings::KeySource;

/// The shortest RSA modulus, in bits (NIST SP 800-131A, RFC 7518 §3.3).
const RSA_BITS_MIN: usize = 2048;
/// The longest RSA modulus that the back-end verifies with, in bits.
const RSA_BITS_MAX: usize = 8192;
/// The fewest different byte values in a secret. Among 32 random bytes fewer than eight would be a wonder; in a repeated
/// word or a placeholder they are usual.
const SECRET_VALUES_MIN: usize = 8;

/// Secrets long enough to pass, and printed in documentation that everybody has read.
const EXAMPLE_SECRETS: [&str; 6] = [
    "a-string-secret-at-least-256-bits-long",
    "a-valid-string-secret-that-is-at-least-384-bits-long",
    "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
    "your-256-bit-secret-your-256-bit-secret",
    "mysecretkeymysecretkeymysecretkey",
    "this-is-a-secret-key-change-me-in-production",
];

/// One key and the one algorithm that it verifies (JWT-1).
#[derive(Debug)]
pub(super) struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
    /// Whether it is still among its issuer's keys.
    pub(super) life: Arc<KeyLife>,
}

impl VerifyingKey {
    /// Whether `signature`, still encoded, is this key's over `signed`. An undecodable one is not.
    pub(super) fn verifies(&self, signed: &[u8], signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, signed, &self.key, self.algorithm).unwrap_or(false)
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
                    key: self.check(*algorithm)?,
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

    fn check(&self, algorithm: Algorithm) -> Result<DecodingKey, KeyFault> {
        match self {
            Self::P256(point) => {
                parse(&signature::ECDSA_P256_SHA256_FIXED, point, 65)?;
                Ok(DecodingKey::from_ec_der(point))
            }
            Self::P384(point) => {
                parse(&signature::ECDSA_P384_SHA384_FIXED, point, 97)?;
                Ok(DecodingKey::from_ec_der(point))
            }
            Self::Ed25519(key) => {
                parse(&signature::ED25519, key, 32)?;
                Ok(DecodingKey::from_ed_der(key))
            }
            Self::Rsa { n, e } => {
                check_rsa(n, e)?;
                Ok(DecodingKey::from_rsa_raw_components(n, e))
            }
            Self::Secret(secret) => {
                check_secret(secret, algorithm)?;
                Ok(DecodingKey::from_secret(secret))
            }
        }
    }
}

/// Lets the back-end read a public key: the right length, uncompressed, and a point of the curve.
fn parse(
    algorithm: &'static dyn signature::VerificationAlgorithm,
    key: &[u8],
    bytes: usize,
) -> Result<(), KeyFault> {
    let uncompressed = bytes == 32 || key.first() == Some(&4);
    if key.len() != bytes || !uncompressed {
        return Err(KeyFault::Malformed("wrong length, or a compressed point"));
    }
    signature::ParsedPublicKey::new(algorithm, key)
        .map(|_| ())
        .map_err(|_| KeyFault::Malformed("not a point of its curve"))
}

/// A number as the back-end wants it. The leading zero of a DER integer, and those that some write into a JWK, go.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), KeyFault> {
    let zeros = n.first().map_or(0, |byte| byte.leading_zeros());
    let bits = (n.len() * 8).saturating_sub(usize::try_from(zeros).unwrap_or(0));
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err(KeyFault::RsaBits(bits));
    }
    let malformed = || KeyFault::Malformed("modulus and exponent are no RSA key");
    let der = signature::RsaPublicKeyComponents { n, e }
        .as_der()
        .map_err(|_| malformed())?;
    // Reading the encoding back makes the back-end check exponent and modulus, which building it does not.
    rsa::PublicKey::from_der(der.as_ref()).map_err(|_| malformed())?;
    Ok(())
}

fn check_secret(secret: &[u8], algorithm: Algorithm) -> Result<(), KeyFault> {
    // RFC 7518 §3.2: as long as the hash, or longer.
    let needed = if algorithm == Algorithm::HS512 {
        64
    } else if algorithm == Algorithm::HS384 {
        48
    } else {
        32
    };
    if secret.len() < needed {
        return Err(KeyFault::SecretTooShort {
            bytes: secret.len(),
            needed,
        });
    }
    let trimmed = secret.trim_ascii();
    if EXAMPLE_SECRETS
        .iter()
        .any(|example| example.as_bytes().eq_ignore_ascii_case(trimmed))
    {
        return Err(KeyFault::ExampleSecret);
    }
    let values: HashSet<u8> = secret.iter().copied().collect();
    // A PEM file given as the secret is the key confusion attack, configured.
    if values.len() < SECRET_VALUES_MIN || trimmed.starts_with(b"-----BEGIN") {
        return Err(KeyFault::GuessableSecret);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
