//! Reads one public key from PEM or DER: a `SubjectPublicKeyInfo`, a certificate, or a PKCS #1 RSA key.
//!
//! jsonwebtoken's own reader takes the first bit string that it meets, private keys included; this one follows the
//! structure, so that it can say what a file is instead.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    pki_types::{CertificateDer, alg_id},
    server::ParsedCertificate,
};

use super::{KeyFault, Material};

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

const NOT_A_KEY: KeyFault = KeyFault::Malformed("not a public key or certificate in PEM or DER");

/// Reads the one key of a file. A certificate's dates and issuer are not looked at: it is a container here.
///
/// # Errors
/// [`KeyFault::PrivateKey`], [`KeyFault::SeveralKeys`], [`KeyFault::Unfit`] for a kind that no algorithm has, and
/// [`KeyFault::Malformed`].
pub(super) fn public_key(bytes: &[u8]) -> Result<Material, KeyFault> {
    match str::from_utf8(bytes) {
        Ok(text) if text.contains("-----BEGIN ") => from_pem(text),
        Ok(_) | Err(_) => from_der(bytes),
    }
}

fn from_pem(text: &str) -> Result<Material, KeyFault> {
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyFault::PrivateKey);
    }
    let (_, rest) = text.split_once("-----BEGIN ").ok_or(NOT_A_KEY)?;
    let (label, rest) = rest.split_once("-----").ok_or(NOT_A_KEY)?;
    let (body, after) = rest
        .split_once(&*format!("-----END {label}-----"))
        .ok_or(NOT_A_KEY)?;
    if after.contains("-----BEGIN ") {
        return Err(KeyFault::SeveralKeys);
    }
    let digits: Vec<u8> = body
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let der = STANDARD.decode(digits).map_err(|_| NOT_A_KEY)?;
    match label {
        "CERTIFICATE" => from_certificate(&der),
        "PUBLIC KEY" => from_spki(&der),
        "RSA PUBLIC KEY" => from_pkcs1(&der),
        _ => Err(NOT_A_KEY),
    }
}

/// Tells the formats apart by the first elements of the outer sequence.
fn from_der(der: &[u8]) -> Result<Material, KeyFault> {
    let mut inner = Elements::of_sequence(der).ok_or(NOT_A_KEY)?;
    let tags =
        [inner.next(), inner.next(), inner.next()].map(|element| element.map(|(tag, _)| tag));
    match tags {
        [Some(SEQUENCE), Some(BIT_STRING), None] => from_spki(der),
        [Some(SEQUENCE), Some(SEQUENCE), Some(BIT_STRING)] => from_certificate(der),
        [Some(INTEGER), Some(INTEGER), None] => from_pkcs1(der),
        // PKCS #8, PKCS #1 and SEC 1 private keys all begin with their version.
        [Some(INTEGER), Some(_), Some(_)] | [Some(INTEGER), Some(_), None] => {
            Err(KeyFault::PrivateKey)
        }
        _ => Err(NOT_A_KEY),
    }
}

fn from_certificate(der: &[u8]) -> Result<Material, KeyFault> {
    let certificate = CertificateDer::from(der);
    let parsed = ParsedCertificate::try_from(&certificate).map_err(|_| NOT_A_KEY)?;
    from_spki(&parsed.subject_public_key_info())
}

/// `SEQUENCE { SEQUENCE { algorithm, parameters }, BIT STRING }` (RFC 5280 §4.1.2.7).
fn from_spki(der: &[u8]) -> Result<Material, KeyFault> {
    let mut inner = Elements::of_sequence(der).ok_or(NOT_A_KEY)?;
    let (Some((SEQUENCE, algorithm)), Some((BIT_STRING, [0, key @ ..])), None) =
        (inner.next(), inner.next(), inner.next())
    else {
        return Err(NOT_A_KEY);
    };
    if algorithm == alg_id::RSA_ENCRYPTION.as_ref() {
        from_pkcs1(key)
    } else if algorithm == alg_id::ECDSA_P256.as_ref() {
        Ok(Material::P256(key.to_vec()))
    } else if algorithm == alg_id::ECDSA_P384.as_ref() {
        Ok(Material::P384(key.to_vec()))
    } else if algorithm == alg_id::ED25519.as_ref() {
        Ok(Material::Ed25519(key.to_vec()))
    } else {
        Err(KeyFault::Unfit("of an unsupported kind or curve"))
    }
}

/// `SEQUENCE { INTEGER n, INTEGER e }` (RFC 8017 §A.1.1).
fn from_pkcs1(der: &[u8]) -> Result<Material, KeyFault> {
    let mut inner = Elements::of_sequence(der).ok_or(NOT_A_KEY)?;
    match (inner.next(), inner.next(), inner.next()) {
        (Some((INTEGER, n)), Some((INTEGER, e)), None) => Ok(Material::Rsa {
            n: super::without_zeros(n).to_vec(),
            e: super::without_zeros(e).to_vec(),
        }),
        _ => Err(NOT_A_KEY),
    }
}

/// The elements of a DER sequence, tag and content. It ends early at anything that is not DER, which the callers see as a
/// missing element.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// The elements of the one sequence that is all of `der`.
    fn of_sequence(der: &'a [u8]) -> Option<Self> {
        let mut outer = Elements(der);
        match (outer.next(), outer.0) {
            (Some((SEQUENCE, content)), []) => Some(Self(content)),
            _ => None,
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        // Definite lengths of at most two further bytes: nothing larger is a key.
        let (length, rest) = match (first, rest) {
            (0..=0x7f, rest) => (usize::from(first), rest),
            (0x81, [length, rest @ ..]) => (usize::from(*length), rest),
            (0x82, [high, low, rest @ ..]) => {
                (usize::from(u16::from_be_bytes([*high, *low])), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}
