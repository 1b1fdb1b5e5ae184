//! A key that was checked, in the form in which the cryptographic library verifies with it.
//!
//! jsonwebtoken reads a public key anew for each signature, and copies a secret: of the 16.6 microseconds that a bad RS256 token
//! took, four. Here both are read once, when the key is loaded.

use std::{collections::HashSet, fmt};

use aws_lc_rs::{
    encoding::AsDer,
    hmac, rsa,
    signature::{self, ParsedPublicKey, RsaParameters, VerificationAlgorithm},
};
use jsonwebtoken::Algorithm;

use super::{KeyFault, Material};

/// The shortest RSA modulus, in bits (NIST SP 800-131A, RFC 7518 §3.3).
const RSA_BITS_MIN: usize = 2048;
/// The longest RSA modulus that the back-end verifies with, in bits.
const RSA_BITS_MAX: usize = 8192;
/// The fewest different byte values in a secret. Among 32 random bytes fewer than eight would be a wonder; in a repeated
/// word or a placeholder they are usual.
const SECRET_VALUES_MIN: usize = 8;

/// Secrets long enough to pass, and printed in documentation that everybody has read.
pub(super) const EXAMPLE_SECRETS: [&str; 6] = [
    "a-string-secret-at-least-256-bits-long",
    "a-valid-string-secret-that-is-at-least-384-bits-long",
    "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
    "your-256-bit-secret-your-256-bit-secret",
    "mysecretkeymysecretkeymysecretkey",
    "this-is-a-secret-key-change-me-in-production",
];

/// A key that fits its algorithm. Any number of threads verify with it at once. (Those of RSA take a lock of the library's for reading,
/// while they find what it has computed for the key; it was computed when the key was loaded.)
pub(super) enum Checked {
    /// A public key, as the library has read it.
    Public(ParsedPublicKey),
    /// A shared secret, as the beginning of its two digests (RFC 2104 §4). The library overwrites it when it is dropped.
    Secret(Box<hmac::Key>),
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public(_) => "Public",
            Self::Secret(_) => "Secret",
        })
    }
}

impl Checked {
    /// # Errors
    /// What is wrong with the key, by itself or for this algorithm.
    pub(super) fn new(material: &Material, algorithm: Algorithm) -> Result<Self, KeyFault> {
        match material {
            Material::P256(point) => parse(&signature::ECDSA_P256_SHA256_FIXED, point, 65),
            Material::P384(point) => parse(&signature::ECDSA_P384_SHA384_FIXED, point, 97),
            Material::Ed25519(key) => parse(&signature::ED25519, key, 32),
            Material::Rsa { n, e } => parse_rsa(n, e, rsa_parameters(algorithm)?),
            Material::Secret(secret) => {
                let digest = digest(algorithm)?;
                check_secret(secret, digest)?;
                Ok(Self::Secret(Box::new(hmac::Key::new(digest, secret))))
            }
        }
    }

    /// Whether `signature` is this key's over `signed`. The time that a wrong one takes says nothing of the right one.
    pub(super) fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Public(key) => key.verify_sig(signed, signature).is_ok(),
            Self::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
        }
    }
}

/// How an algorithm of RSA pads and digests (RFC 7518 §3.3, §3.5).
fn rsa_parameters(algorithm: Algorithm) -> Result<&'static RsaParameters, KeyFault> {
    let all = [
        (Algorithm::RS256, &signature::RSA_PKCS1_2048_8192_SHA256),
        (Algorithm::RS384, &signature::RSA_PKCS1_2048_8192_SHA384),
        (Algorithm::RS512, &signature::RSA_PKCS1_2048_8192_SHA512),
        (Algorithm::PS256, &signature::RSA_PSS_2048_8192_SHA256),
        (Algorithm::PS384, &signature::RSA_PSS_2048_8192_SHA384),
        (Algorithm::PS512, &signature::RSA_PSS_2048_8192_SHA512),
    ];
    of(algorithm, all).ok_or(KeyFault::Unfit("an RSA key"))
}

/// The digest of an algorithm with a shared secret (RFC 7518 §3.2).
fn digest(algorithm: Algorithm) -> Result<hmac::Algorithm, KeyFault> {
    let all = [
        (Algorithm::HS256, hmac::HMAC_SHA256),
        (Algorithm::HS384, hmac::HMAC_SHA384),
        (Algorithm::HS512, hmac::HMAC_SHA512),
    ];
    of(algorithm, all).ok_or(KeyFault::Unfit("a shared secret"))
}

fn of<T, const N: usize>(algorithm: Algorithm, all: [(Algorithm, T); N]) -> Option<T> {
    let mut all = all.into_iter();
    let found = all.find(|(other, _)| *other == algorithm);
    found.map(|(_, parameters)| parameters)
}

/// Lets the back-end read a public key: the right length, uncompressed, and a point of the curve.
fn parse(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    bytes: usize,
) -> Result<Checked, KeyFault> {
    let uncompressed = bytes == 32 || key.first() == Some(&4);
    if key.len() != bytes || !uncompressed {
        return Err(KeyFault::Malformed("wrong length, or a compressed point"));
    }
    ParsedPublicKey::new(algorithm, key)
        .map(Checked::Public)
        .map_err(|_| KeyFault::Malformed("not a point of its curve"))
}

fn parse_rsa(n: &[u8], e: &[u8], parameters: &'static RsaParameters) -> Result<Checked, KeyFault> {
    let zeros = n.first().map_or(0, |byte| byte.leading_zeros());
    let bits = (n.len() * 8).saturating_sub(usize::try_from(zeros).unwrap_or(0));
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err(KeyFault::RsaBits(bits));
    }
    let malformed = || KeyFault::Malformed("modulus and exponent are no RSA key");
    let components = signature::RsaPublicKeyComponents { n, e };
    let der = components.as_der().map_err(|_| malformed())?;
    // Reading the encoding back makes the back-end check exponent and modulus, which building it does not.
    rsa::PublicKey::from_der(der.as_ref()).map_err(|_| malformed())?;
    let key = components.to_parsed_public_key(parameters);
    let key = key.map_err(|_| malformed())?;
    // What the library computes once for a key it computes now, and not while requests wait: of a signature as long as the modulus,
    // and less than it, it finds out only then that it is none.
    let _ = key.verify_sig(&[], &vec![0; n.len()]);
    Ok(Checked::Public(key))
}

fn check_secret(secret: &[u8], digest: hmac::Algorithm) -> Result<(), KeyFault> {
    // RFC 7518 §3.2: as long as the hash, or longer.
    let needed = digest.digest_algorithm().output_len();
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
