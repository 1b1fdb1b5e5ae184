//! Reads a JSON Web Key Set, key by key: one that is odd is left out, one that is dangerous fails the set.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{KeyFault, Material, Odd, without_zeros};
use crate::authn::{
    compact::is_key_id,
    strict_json::{Member, members},
};

/// The largest set, in bytes and in keys (KEY-2).
const BYTES_MAX: usize = 256 << 10;
const KEYS_MAX: usize = 100;

/// Members that only a private key has (RFC 7518 §6.2.2, §6.3.2).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// A key set as read.
pub(super) struct Jwks {
    pub(super) keys: Vec<Jwk>,
    /// Keys left out: not for signatures, of an unknown kind, or malformed.
    pub(super) skipped: usize,
}

/// A key of a set.
pub(super) struct Jwk {
    pub(super) id: Option<Box<str>>,
    /// `alg`: the only algorithm that its owner uses it with.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) material: Material,
}

/// Reads a set (RFC 7517 §5) of an issuer with symmetric or asymmetric algorithms.
///
/// # Errors
/// [`KeyFault::Malformed`], [`KeyFault::TooLarge`], [`KeyFault::PrivateKey`], and [`KeyFault::SecretPublished`] for an `oct`
/// key of an asymmetric issuer: whoever reads the set could sign with it, and jsonwebtoken would make an HMAC key of it. Where
/// odd keys are left out, these two are as well.
pub(super) fn read(json: &[u8], symmetric: bool, odd: Odd) -> Result<Jwks, KeyFault> {
    const NOT_A_SET: KeyFault = KeyFault::Malformed("not a JSON object with a list of `keys`");
    if json.len() > BYTES_MAX {
        return Err(KeyFault::TooLarge);
    }
    let Some([Some(Member::Other)]) = members(json, ["keys"]) else {
        return Err(NOT_A_SET);
    };
    let mut set: Map<String, Value> = serde_json::from_slice(json).map_err(|_| NOT_A_SET)?;
    let Some(Value::Array(list)) = set.remove("keys") else {
        return Err(NOT_A_SET);
    };
    if list.len() > KEYS_MAX {
        return Err(KeyFault::TooLarge);
    }
    let count = list.len();
    let mut keys = Vec::with_capacity(count);
    for key in list.iter().filter_map(Value::as_object) {
        match (dangerous(key, symmetric), odd) {
            (None, _) => keys.extend(read_key(key)),
            (Some(_), Odd::LeftOut) => {}
            (Some(fault), Odd::Refused) => return Err(fault),
        }
    }
    let skipped = count - keys.len();
    Ok(Jwks { keys, skipped })
}

fn dangerous(key: &Map<String, Value>, symmetric: bool) -> Option<KeyFault> {
    if PRIVATE.iter().any(|name| key.contains_key(*name)) {
        return Some(KeyFault::PrivateKey);
    }
    let is_secret = key.get("kty").and_then(Value::as_str) == Some("oct");
    (is_secret && !symmetric).then_some(KeyFault::SecretPublished)
}

fn read_key(key: &Map<String, Value>) -> Option<Jwk> {
    let verifies = match (key.get("use"), key.get("key_ops")) {
        (None, None) => true,
        (purpose, operations) => {
            purpose.is_none_or(|purpose| purpose == "sig")
                && operations.is_none_or(|operations| {
                    operations
                        .as_array()
                        .is_some_and(|list| list.iter().any(|operation| operation == "verify"))
                })
        }
    };
    if !verifies {
        return None;
    }
    let algorithm = match key.get("alg") {
        None => None,
        Some(name) => Some(name.as_str()?.parse().ok()?),
    };
    let id = match key.get("kid") {
        None => None,
        Some(kid) => Some(kid.as_str().filter(|kid| is_key_id(kid))?.into()),
    };
    Some(Jwk {
        id,
        algorithm,
        material: material(key)?,
    })
}

fn material(key: &Map<String, Value>) -> Option<Material> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let curve = text("crv");
    match text("kty")? {
        "EC" => {
            // RFC 7518 §6.2.1.2: each coordinate has the full length of the field.
            let (size, make): (usize, fn(Vec<u8>) -> Material) = match curve? {
                "P-256" => (32, Material::P256),
                "P-384" => (48, Material::P384),
                _ => return None,
            };
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == size && y.len() == size).then(|| make([&[4], &*x, &*y].concat()))
        }
        "OKP" if curve == Some("Ed25519") => Some(Material::Ed25519(bytes("x")?)),
        "RSA" => Some(Material::Rsa {
            n: without_zeros(&bytes("n")?).to_vec(),
            e: without_zeros(&bytes("e")?).to_vec(),
        }),
        "oct" => Some(Material::Secret(Zeroizing::new(bytes("k")?))),
        _ => None,
    }
}
