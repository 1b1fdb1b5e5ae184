//! Where an issuer's keys are, and what can be said of them without verifying anything with them.

use jsonwebtoken::Algorithm;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, pem::PemObject};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    context::Context,
    diagnostic::{Fault, Place},
    fetch,
    files::{self, Reader},
    issuer::is_symmetric,
    reader::Table,
};
use crate::authn::settings::KeySource;

pub(super) const SOURCES: [&str; 5] = [
    "jwks_url",
    "jwks_file",
    "public_key_file",
    "secret_file",
    "secret_env",
];

/// Parts of secrets that stand in documentation and were copied from it.
const EXAMPLES: [&str; 12] = [
    "256-bit-secret",
    "at-least-256-bits",
    "at-least-384-bits",
    "at-least-512-bits",
    "change-me",
    "change_me",
    "changeme",
    "example-secret",
    "replace-me",
    "supersecret",
    "your-secret",
    "your_secret",
];

/// The key of RFC 7515, appendix A.1.
const RFC_7515: [u8; 64] = [
    3, 35, 53, 75, 43, 15, 165, 188, 131, 126, 6, 101, 119, 123, 166, 143, 90, 179, 40, 230, 240,
    84, 201, 40, 169, 15, 132, 178, 210, 80, 46, 191, 211, 251, 90, 146, 210, 6, 71, 239, 150, 138,
    180, 195, 119, 98, 61, 34, 61, 46, 33, 114, 5, 46, 79, 8, 192, 205, 154, 245, 103, 208, 128,
    163,
];

/// Reads the one source of keys that an issuer names, or finds the one that its `issuer` says where it names none.
pub(super) fn read(
    table: &mut Table<'_>,
    issuer: Option<(&str, &Place)>,
    algorithms: &[Algorithm],
) -> Option<KeySource> {
    let given: Vec<&str> = SOURCES.into_iter().filter(|key| table.has(key)).collect();
    let remote = fetch::read(table, issuer, algorithms, &given);
    match *given {
        [] | [_] => {}
        [_, second, ..] => {
            let message = format!("is one source of keys too many: {}", given.join(", "));
            table.fault(second, Fault::new(message, "leave exactly one"));
        }
    }
    let context = table.context;
    let jwks = table.parsed("jwks_file", |text| jwks(context, text));
    let key = table.parsed("public_key_file", |text| {
        public_key(context, text, algorithms)
    });
    let file = table.parsed("secret_file", |text| secret_file(context, text, algorithms));
    let env = table.parsed("secret_env", |text| secret_env(context, text, algorithms));
    let [file, env] = [file, env].map(|secret| secret.map(KeySource::Secret));
    for key in ["public_key_file", "jwks_file", "secret_file", "secret_env"] {
        refuse_wrong_kind(table, key, algorithms);
    }
    jwks.or(key).or(file).or(env).or(remote)
}

/// Reads a secret of at least 32 bytes that is no key.
pub(super) fn secret(table: &mut Table<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let context = table.context;
    let file = table.parsed("secret_file", |text| secret_file(context, text, &[]));
    let env = table.parsed("secret_env", |text| secret_env(context, text, &[]));
    file.or(env)
}

/// Refuses a public key for `HS*` and a secret for the others: the first is how a public key becomes a secret that
/// everybody knows.
fn refuse_wrong_kind(table: &Table<'_>, key: &'static str, algorithms: &[Algorithm]) {
    let mut symmetric = algorithms.iter().copied().map(is_symmetric);
    let fault = match key {
        "public_key_file" if symmetric.any(|symmetric| symmetric) => Fault::new(
            "is a public key, and the algorithms are HS*",
            "HS* need secret_file or secret_env; a public key needs RS*, PS*, ES* or EdDSA",
        ),
        "secret_file" | "secret_env" if symmetric.any(|symmetric| !symmetric) => Fault::new(
            "is a shared secret, and the algorithms are not HS*",
            "RS*, PS*, ES* and EdDSA need public_key_file or jwks_file",
        ),
        _ => return,
    };
    if table.has(key) {
        table.fault(key, fault);
    }
}

fn jwks(context: &Context<'_>, text: &str) -> Result<KeySource, Fault> {
    let path = context.file(text);
    let content = files::read(&path, Reader::Anybody)?;
    let hint = "a JSON Web Key Set (RFC 7517): { \"keys\": [ .. ] }";
    let bad = |what: String| Fault::new(format!("{} {what}", path.display()), hint);
    let document: Value =
        serde_json::from_slice(&content).map_err(|error| bad(format!("is not JSON: {error}")))?;
    let keys = document
        .get("keys")
        .and_then(Value::as_array)
        .ok_or_else(|| bad("holds no list `keys`".to_owned()))?;
    if keys.is_empty() {
        return Err(bad("holds no key".to_owned()));
    }
    let has = |member: &str| keys.iter().any(|key| key.get(member).is_some());
    if keys
        .iter()
        .any(|key| key.get("kty").and_then(Value::as_str).is_none())
    {
        return Err(bad("holds a key without `kty`".to_owned()));
    }
    if has("d") {
        let message = format!("{} holds a private key", path.display());
        return Err(Fault::new(message, "verifying needs the public half alone"));
    }
    if has("k") {
        files::read(&path, Reader::Owner)?;
    }
    Ok(KeySource::Jwks(content.to_vec()))
}

fn public_key(
    context: &Context<'_>,
    text: &str,
    algorithms: &[Algorithm],
) -> Result<KeySource, Fault> {
    let path = context.file(text);
    let content = files::read(&path, Reader::Anybody)?;
    let pem = String::from_utf8_lossy(&content);
    if pem.contains("PRIVATE KEY-----") {
        let message = format!("{} holds a private key", path.display());
        return Err(Fault::new(message, "verifying needs the public half alone"));
    }
    let der: Option<Vec<u8>> = if pem.contains("-----BEGIN CERTIFICATE-----") {
        CertificateDer::from_pem_slice(&content)
            .ok()
            .map(|der| der.to_vec())
    } else if pem.contains("-----BEGIN PUBLIC KEY-----") {
        SubjectPublicKeyInfoDer::from_pem_slice(&content)
            .ok()
            .map(|der| der.to_vec())
    } else if pem.contains("-----BEGIN RSA PUBLIC KEY-----") {
        Some(RSA.to_vec())
    } else {
        // DER begins with a SEQUENCE.
        (content.first() == Some(&0x30)).then(|| content.to_vec())
    };
    let Some(der) = der else {
        return Err(Fault::new(
            format!("{} holds no public key", path.display()),
            "PEM: -----BEGIN PUBLIC KEY----- or a certificate; or the same as DER",
        ));
    };
    if let Some((kind, fitting)) = kind_of(&der)
        && let Some(other) = algorithms
            .iter()
            .find(|one| !is_symmetric(**one) && !fitting.contains(one))
    {
        let message = format!(
            "{} holds {kind} key, which {other:?} cannot use",
            path.display()
        );
        let words: Vec<String> = fitting.iter().map(|one| format!("{one:?}")).collect();
        return Err(Fault::new(
            message,
            format!("its algorithms: {}", words.join(", ")),
        ));
    }
    Ok(KeySource::PublicKey(content.to_vec()))
}

const RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const P256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: [u8; 5] = [0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];

/// What a key is, by the object identifiers in its DER. Those of curves and of `rsaEncryption` name keys alone;
/// Ed25519's names signatures too, so it comes last. Unknown kinds are left to whoever loads the key.
fn kind_of(der: &[u8]) -> Option<(&'static str, &'static [Algorithm])> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let holds = |oid: &[u8]| der.windows(oid.len()).any(|window| window == oid);
    if holds(&P256) {
        Some(("a P-256", &[ES256]))
    } else if holds(&P384) {
        Some(("a P-384", &[ES384]))
    } else if holds(&RSA) {
        Some(("an RSA", &[RS256, RS384, RS512, PS256, PS384, PS512]))
    } else if holds(&ED25519) {
        Some(("an Ed25519", &[EdDSA]))
    } else {
        None
    }
}

fn secret_file(
    context: &Context<'_>,
    text: &str,
    algorithms: &[Algorithm],
) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let path = context.file(text);
    let content = files::read(&path, Reader::Owner)?;
    check_secret(without_newline(&content), algorithms)
}

fn secret_env(
    context: &Context<'_>,
    text: &str,
    algorithms: &[Algorithm],
) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let value = (context.env)(text)
        .ok_or_else(|| Fault::from(format!("the environment variable {text} is not set")))?;
    let value = Zeroizing::new(value.into_encoded_bytes());
    if value.is_empty() {
        return Err(format!("the environment variable {text} is empty").into());
    }
    check_secret(&value, algorithms)
}

/// Editors and `openssl rand -base64` end a file of text with a newline, which nobody means to be part of the secret. A
/// secret of raw bytes is taken as it is.
pub(super) fn without_newline(content: &[u8]) -> &[u8] {
    if std::str::from_utf8(content).is_err() {
        return content;
    }
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    content.strip_suffix(b"\r").unwrap_or(content)
}

fn check_secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let hint = "make one: openssl rand -base64 48";
    // As long as the hash (RFC 7518 §3.2), and never shorter than 32 bytes.
    let least = if algorithms.contains(&Algorithm::HS512) {
        64
    } else if algorithms.contains(&Algorithm::HS384) {
        48
    } else {
        32
    };
    if secret.len() < least {
        let message = format!("the secret has {} bytes, {least} are needed", secret.len());
        return Err(Fault::new(message, hint));
    }
    let lower = Zeroizing::new(secret.to_ascii_lowercase());
    let copied = |example: &&str| {
        let example = example.as_bytes();
        lower.windows(example.len()).any(|window| window == example)
    };
    if secret == RFC_7515 || EXAMPLES.iter().any(copied) {
        return Err(Fault::new("the secret is a known example", hint));
    }
    if repeats(secret) {
        let message = "the secret is one piece, over and over";
        return Err(Fault::new(message, hint));
    }
    Ok(Zeroizing::new(secret.to_vec()))
}

/// Whether a secret is at most its first half, again and again.
fn repeats(secret: &[u8]) -> bool {
    (1..=secret.len() / 2).any(|period| {
        let later = secret.iter().skip(period);
        later.zip(secret).all(|(one, other)| one == other)
    })
}
