//! One signing key: read, made, and shown to verifiers.

use aws_lc_rs::{
    digest, rand,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData};
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Keys that were printed in public (KEY-5): the `x` of RFC 7515 appendix A.3 and of the example of jwt.io, and the thumbprints
/// of RFC 7638 §3.1 and RFC 8037 appendix A.3.
const KNOWN_EXAMPLES: [&str; 4] = [
    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "EVs_o5-uQbTjL3chynL4wXgUg2R9q9UU8I5mEovUf84",
    "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
    "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
];

/// Bytes of a shared secret: as many as the block of SHA-256, of which the key is made.
const SECRET_BYTES: usize = 64;

/// The ending of the file of a key pair, as PKCS #8 in PEM.
pub(super) const PAIR: &str = "pem";
/// The ending of the file of a shared secret, in base64url.
pub(super) const SECRET: &str = "secret";

/// What a key that is read cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    Example,
    Malformed,
}

/// A key that signs tokens. It does not print.
pub(super) struct SigningKey {
    pub(super) kid: Box<str>,
    pub(super) algorithm: Algorithm,
    private: EncodingKey,
    half: Half,
}

/// What verifies.
enum Half {
    /// A JWK for everybody.
    Public(Value),
    /// The secret itself, in base64url.
    Secret(Zeroizing<String>),
}

impl SigningKey {
    /// Reads a key pair. Its name is its thumbprint (RFC 7638).
    pub(super) fn of_pem(text: &str) -> Result<Self, Unfit> {
        let pair = KeyPair::from_pem(text).map_err(|_| Unfit::Malformed)?;
        let key = Self::of_pair(&pair, text).ok_or(Unfit::Malformed)?;
        let Half::Public(jwk) = &key.half else {
            return Ok(key);
        };
        let x = jwk.get("x").and_then(Value::as_str).unwrap_or_default();
        if KNOWN_EXAMPLES.contains(&x) || KNOWN_EXAMPLES.contains(&&*key.kid) {
            return Err(Unfit::Example);
        }
        Ok(key)
    }

    /// Reads a shared secret. Its name says nothing of it.
    pub(super) fn of_secret(kid: &str, text: &str) -> Result<Self, Unfit> {
        let text = Zeroizing::new(text.trim().to_owned());
        let secret = BASE64URL.decode(text.as_bytes()).map(Zeroizing::new);
        let secret = secret.map_err(|_| Unfit::Malformed)?;
        if secret.len() < 32 {
            return Err(Unfit::Malformed);
        }
        Ok(Self {
            kid: kid.into(),
            algorithm: Algorithm::HS256,
            private: EncodingKey::from_secret(&secret),
            half: Half::Secret(text),
        })
    }

    /// Makes a key; gives it with the ending and the text of its file. `None` where the library cannot, or does not know the
    /// algorithm.
    pub(super) fn generate(
        algorithm: Algorithm,
    ) -> Option<(Self, &'static str, Zeroizing<String>)> {
        let kind = if algorithm == Algorithm::ES256 {
            &PKCS_ECDSA_P256_SHA256
        } else if algorithm == Algorithm::EdDSA {
            &PKCS_ED25519
        } else if algorithm == Algorithm::RS256 {
            &PKCS_RSA_SHA256
        } else {
            return Self::generate_secret(algorithm);
        };
        let pair = KeyPair::generate_for(kind).ok()?;
        let text = Zeroizing::new(pair.serialize_pem());
        Some((Self::of_pair(&pair, &text)?, PAIR, text))
    }

    fn generate_secret(algorithm: Algorithm) -> Option<(Self, &'static str, Zeroizing<String>)> {
        if algorithm != Algorithm::HS256 {
            return None;
        }
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rand::fill(&mut *secret).ok()?;
        let text = Zeroizing::new(BASE64URL.encode(*secret));
        let kid = uuid::Uuid::new_v4().to_string();
        Some((Self::of_secret(&kid, &text).ok()?, SECRET, text))
    }

    fn of_pair(pair: &KeyPair, pem: &str) -> Option<Self> {
        let pem = pem.as_bytes();
        let (algorithm, private, mut jwk) = if pair.algorithm() == &PKCS_ECDSA_P256_SHA256 {
            let private = EncodingKey::from_ec_pem(pem).ok()?;
            (Algorithm::ES256, private, ec_jwk(pair.der_bytes())?)
        } else if pair.algorithm() == &PKCS_ED25519 {
            let x = BASE64URL.encode(pair.der_bytes());
            let private = EncodingKey::from_ed_pem(pem).ok()?;
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
            (Algorithm::EdDSA, private, jwk)
        } else if pair.algorithm() == &PKCS_RSA_SHA256 {
            let private = EncodingKey::from_rsa_pem(pem).ok()?;
            let jwk = rsa_jwk(&private)?;
            (Algorithm::RS256, private, jwk)
        } else {
            return None;
        };
        let kid = thumbprint(&jwk)?;
        let members = jwk.as_object_mut()?;
        members.insert("kid".into(), kid.as_str().into());
        members.insert("alg".into(), format!("{algorithm:?}").into());
        members.insert("use".into(), "sig".into());
        Some(Self {
            kid: kid.into(),
            algorithm,
            private,
            half: Half::Public(jwk),
        })
    }

    /// Signs claims as an access token (RFC 9068 §2.1).
    pub(super) fn sign(&self, claims: &impl Serialize) -> Option<String> {
        let mut header = Header::new(self.algorithm);
        header.typ = Some("at+jwt".into());
        header.kid = Some(self.kid.to_string());
        jsonwebtoken::encode(&header, claims, &self.private).ok()
    }

    /// The pair itself, for whoever signs often: read once, where [`Self::sign`] reads it each time. `None` for other algorithms.
    pub(super) fn es256(&self) -> Option<EcdsaKeyPair> {
        if self.algorithm != Algorithm::ES256 {
            return None;
        }
        let pair = self.private.as_bytes();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair).ok()
    }

    /// The public parameters, and no other; nothing of a shared secret.
    pub(super) fn public(&self) -> Option<&Value> {
        match &self.half {
            Half::Public(jwk) => Some(jwk),
            Half::Secret(_) => None,
        }
    }

    /// The shared secret as a JWK for our own verifier; it goes nowhere else.
    pub(super) fn secret(&self) -> Option<Value> {
        match &self.half {
            Half::Public(_) => None,
            Half::Secret(k) => Some(json!({
                "kty": "oct", "k": **k, "kid": self.kid, "alg": "HS256", "use": "sig",
            })),
        }
    }
}

fn ec_jwk(point: &[u8]) -> Option<Value> {
    // SEC 1 §2.3.3: 4, then the coordinates, 32 bytes each.
    let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
    let (x, y) = (BASE64URL.encode(x), BASE64URL.encode(y));
    (y.len() == x.len()).then(|| json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}))
}

fn rsa_jwk(private: &EncodingKey) -> Option<Value> {
    let jwk = Jwk::from_encoding_key(private, Algorithm::RS256).ok()?;
    let jwk = serde_json::to_value(jwk).ok()?;
    Some(json!({"kty": "RSA", "n": jwk.get("n")?, "e": jwk.get("e")?}))
}

/// RFC 7638 §3: the digest of the required members, which are all that there are yet, in order and without spaces.
fn thumbprint(jwk: &Value) -> Option<String> {
    let mut members: Vec<_> = jwk.as_object()?.iter().collect();
    members.sort_by_key(|(name, _)| name.as_str());
    let members: Vec<String> = members
        .into_iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    let text = format!("{{{}}}", members.join(","));
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    Some(BASE64URL.encode(digest))
}
