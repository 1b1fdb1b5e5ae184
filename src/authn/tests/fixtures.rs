//! Keys made at run time, and tokens made by hand, for nothing that a library makes is wrong enough.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, jwk::Jwk};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    authn::{
        Authenticator, Revocations,
        settings::{CacheSettings, ClaimNames, IssuerSettings, KeySource},
    },
    policy::{Identity, IdentityHeaders, Rejection, TokenFault, Unlimited},
};

/// The time of every test, in seconds since 1970.
pub(in crate::authn) const NOW: u64 = 1_800_000_000;
pub(in crate::authn) const ISSUER: &str = "https://idp.example.com";
pub(in crate::authn) const LEEWAY: u64 = 30;

pub(in crate::authn) const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
pub(in crate::authn) const SYMMETRIC: [Algorithm; 3] =
    [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// A pair of keys, or a secret.
pub(in crate::authn) struct Pair {
    pub(in crate::authn) signing: EncodingKey,
    pub(in crate::authn) public_pem: String,
    pub(in crate::authn) public_der: Vec<u8>,
    pub(in crate::authn) private_pem: String,
    pub(in crate::authn) private_der: Vec<u8>,
    pub(in crate::authn) jwk: Value,
    pub(in crate::authn) certificate_pem: String,
    pub(in crate::authn) certificate_der: Vec<u8>,
}

pub(in crate::authn) static RSA: LazyLock<Pair> =
    LazyLock::new(|| Pair::new(&rcgen::PKCS_RSA_SHA256, Algorithm::RS256));
pub(in crate::authn) static P256: LazyLock<Pair> =
    LazyLock::new(|| Pair::new(&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256));
pub(in crate::authn) static P256_OTHER: LazyLock<Pair> =
    LazyLock::new(|| Pair::new(&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256));
pub(in crate::authn) static P384: LazyLock<Pair> =
    LazyLock::new(|| Pair::new(&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::ES384));
pub(in crate::authn) static ED25519: LazyLock<Pair> =
    LazyLock::new(|| Pair::new(&rcgen::PKCS_ED25519, Algorithm::EdDSA));
pub(in crate::authn) static SECRET: LazyLock<[u8; 64]> = LazyLock::new(|| {
    let mut secret = [0; 64];
    aws_lc_rs::rand::fill(&mut secret).unwrap();
    secret
});

impl Pair {
    fn new(kind: &'static rcgen::SignatureAlgorithm, algorithm: Algorithm) -> Self {
        let key = rcgen::KeyPair::generate_for(kind).unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["idp.example.com".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let private_pem = key.serialize_pem();
        let signing = match algorithm.family() {
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(private_pem.as_bytes()),
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem(private_pem.as_bytes()),
            AlgorithmFamily::Rsa | AlgorithmFamily::Hmac => {
                EncodingKey::from_rsa_pem(private_pem.as_bytes())
            }
        };
        let signing = signing.unwrap();
        let raw = key.public_key_raw();
        let jwk = match algorithm.family() {
            AlgorithmFamily::Ec if algorithm == Algorithm::ES256 => ec_jwk("P-256", raw),
            AlgorithmFamily::Ec => ec_jwk("P-384", raw),
            AlgorithmFamily::Ed => json!({"kty": "OKP", "crv": "Ed25519", "x": base64(raw)}),
            AlgorithmFamily::Rsa | AlgorithmFamily::Hmac => {
                let jwk = Jwk::from_encoding_key(&signing, algorithm).unwrap();
                let jwk = serde_json::to_value(jwk).unwrap();
                json!({"kty": "RSA", "n": jwk["n"], "e": jwk["e"]})
            }
        };
        Self {
            signing,
            public_pem: key.public_key_pem(),
            public_der: rcgen::PublicKeyData::subject_public_key_info(&key),
            private_pem,
            private_der: key.serialize_der(),
            jwk,
            certificate_pem: certificate.pem(),
            certificate_der: certificate.der().to_vec(),
        }
    }

    pub(in crate::authn) fn named(&self, kid: &str) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = kid.into();
        jwk
    }
}

fn ec_jwk(curve: &str, point: &[u8]) -> Value {
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    json!({"kty": "EC", "crv": curve, "x": base64(x), "y": base64(y)})
}

/// The pair that signs with an algorithm.
pub(in crate::authn) fn pair(algorithm: Algorithm) -> &'static Pair {
    match algorithm.family() {
        AlgorithmFamily::Ec if algorithm == Algorithm::ES256 => &P256,
        AlgorithmFamily::Ec => &P384,
        AlgorithmFamily::Ed => &ED25519,
        AlgorithmFamily::Rsa | AlgorithmFamily::Hmac => &RSA,
    }
}

pub(in crate::authn) fn signing_key(algorithm: Algorithm) -> EncodingKey {
    if SYMMETRIC.contains(&algorithm) {
        EncodingKey::from_secret(&*SECRET)
    } else {
        pair(algorithm).signing.clone()
    }
}

/// Where an issuer of this algorithm has its key.
pub(in crate::authn) fn source(algorithm: Algorithm) -> KeySource {
    if SYMMETRIC.contains(&algorithm) {
        KeySource::Secret(Zeroizing::new(SECRET.to_vec()))
    } else {
        KeySource::PublicKey(pair(algorithm).public_pem.clone().into_bytes())
    }
}

pub(in crate::authn) fn jwks(keys: &[Value]) -> KeySource {
    KeySource::Jwks(json!({"keys": keys}).to_string().into_bytes())
}

pub(in crate::authn) fn settings(algorithm: Algorithm) -> IssuerSettings {
    IssuerSettings {
        name: "corp".into(),
        issuer: ISSUER.into(),
        audience: vec!["orders".into(), "billing".into()],
        algorithms: vec![algorithm],
        keys: source(algorithm),
        leeway: Duration::from_secs(LEEWAY),
        token_types: vec!["at+jwt".into(), "JWT".into(), "".into()],
        claims: ClaimNames::default(),
    }
}

pub(in crate::authn) fn authenticator(issuers: &[IssuerSettings]) -> Authenticator {
    with_revocations(issuers, Arc::new(Revocations::new()))
}

pub(in crate::authn) fn with_revocations(
    issuers: &[IssuerSettings],
    revocations: Arc<Revocations>,
) -> Authenticator {
    let templates = Arc::new(IdentityHeaders::default());
    Authenticator::new(issuers, &CacheSettings::default(), revocations, templates).unwrap()
}

pub(in crate::authn) fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs)
}

/// A payload in which nothing is wrong.
pub(in crate::authn) fn payload() -> Value {
    json!({"iss": ISSUER, "aud": "orders", "sub": "u1", "iat": NOW - 10, "exp": NOW + 300})
}

/// The good payload with one claim set, or with it removed for `Value::Null` given as `None`.
pub(in crate::authn) fn payload_with(name: &str, value: Option<Value>) -> Value {
    let mut payload = payload();
    match value {
        Some(value) => payload[name] = value,
        None => drop(payload.as_object_mut().unwrap().remove(name)),
    }
    payload
}

pub(in crate::authn) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of these texts as they are, signed.
pub(in crate::authn) fn sign(
    header: &str,
    payload: &str,
    key: &EncodingKey,
    algorithm: Algorithm,
) -> String {
    let signed = format!("{}.{}", base64(header), base64(payload));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

/// A good token for an algorithm.
pub(in crate::authn) fn good(algorithm: Algorithm) -> String {
    token(&json!({"alg": algorithm}), &payload())
}

/// A token signed by the right key of the algorithm in its header.
pub(in crate::authn) fn token(header: &Value, payload: &Value) -> String {
    let algorithm = header["alg"].as_str().unwrap().parse().unwrap();
    let (header, payload) = (header.to_string(), payload.to_string());
    sign(&header, &payload, &signing_key(algorithm), algorithm)
}

/// A token of an ES256 issuer with this payload.
pub(in crate::authn) fn es256(payload: &Value) -> String {
    token(&json!({"alg": "ES256"}), payload)
}

pub(in crate::authn) fn verify(
    authenticator: &Authenticator,
    token: &str,
) -> Result<Arc<Identity>, Rejection> {
    authenticator.verify(token, at(NOW), &Unlimited)
}

#[track_caller]
pub(in crate::authn) fn refused(authenticator: &Authenticator, token: &str, fault: TokenFault) {
    let shown: String = token.chars().take(300).collect();
    assert_eq!(
        verify(authenticator, token).map(|_| "accepted"),
        Err(Rejection::TokenInvalid(fault)),
        "{shown}"
    );
}
