//! What can be wrong with an issuer's keys, by name.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use thiserror::Error;

/// Why an issuer's entry or its keys are not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyFault {
    /// `algorithms` is empty.
    #[error("no algorithm is configured")]
    AlgorithmsEmpty,
    /// Another entry, by its name, has the same `issuer` and accepts one of the same algorithms.
    #[error(
        "entry `{0}` has the same issuer and shares an algorithm; `iss` and `alg` together must choose one entry"
    )]
    AlgorithmShared(Arc<str>),
    /// Symmetric and asymmetric algorithms in one entry.
    #[error("symmetric and asymmetric algorithms are mixed; give each kind its own entry")]
    AlgorithmsMixed,
    /// `audience` is empty.
    #[error("no audience is configured")]
    AudienceEmpty,
    /// Two keys of a set bear this name.
    #[error("two keys of the set have the kid `{0}`")]
    DuplicateKeyId(Box<str>),
    /// A secret out of documentation.
    #[error("the secret is a known example; make one with `openssl rand 32`")]
    ExampleSecret,
    /// A secret of few different bytes, or a public key used as one.
    #[error("the secret can be guessed; make one with `openssl rand 32`")]
    GuessableSecret,
    /// Not a key in a format that is read.
    #[error("the key is malformed: {0}")]
    Malformed(&'static str),
    /// The system has no random bytes for the cache's secret.
    #[error("the system has no random bytes")]
    NoRandomness,
    /// A set in which no key fits the algorithms.
    #[error("no key of the set can be used; skipped: {0}")]
    NoUsableKey(usize),
    /// A private key where a public one belongs.
    #[error(
        "this is a private key; give the gateway the public one alone, and replace the pair if it was published"
    )]
    PrivateKey,
    /// An algorithm that needs a shared secret, for an issuer with public keys.
    #[error("{0:?} needs a shared secret, and this issuer has public keys")]
    PublicKeyForSecret(Algorithm),
    /// An RSA modulus of this many bits.
    #[error("the RSA key has {0} bits; 2048 to 8192 are accepted")]
    RsaBits(usize),
    /// An algorithm that needs a public key, for an issuer with a shared secret.
    #[error("{0:?} needs a public key, and this issuer has a shared secret")]
    SecretForPublicKey(Algorithm),
    /// A symmetric key in the set of an issuer with public keys.
    #[error(
        "the set publishes a symmetric key (`oct`), which everybody who can read it could sign with"
    )]
    SecretPublished,
    /// A secret shorter than the hash of its algorithm (RFC 7518 §3.2).
    #[error("the secret has {bytes} bytes; {needed} or more are needed")]
    SecretTooShort {
        /// Bytes of the secret.
        bytes: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// A file with more than one key or certificate.
    #[error("the file holds more than one key or certificate")]
    SeveralKeys,
    /// A set over the limit of bytes or keys.
    #[error("the set is larger than 256 KiB or 100 keys")]
    TooLarge,
    /// A key of a kind or curve that no configured algorithm takes.
    #[error("the key is {0}, which fits none of the configured algorithms")]
    Unfit(&'static str),
}
