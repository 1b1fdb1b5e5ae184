//! Keys and certificates made at run time, and tokens of every kind, good and bad.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Map, Value, json};

/// The names in the test certificate.
pub(crate) const HOSTS: [&str; 4] = [
    "localhost",
    "app.example.com",
    "other.example.com",
    "127.0.0.1",
];

/// The one audience of the test issuers.
pub(crate) const AUDIENCE: &str = "orders";

/// Everything secret that the tests use, made once a run.
pub(crate) struct Keys {
    pub(crate) certificate_pem: String,
    pub(crate) certificate_key_pem: String,
    certificate: rustls::pki_types::CertificateDer<'static>,
    /// 48 characters that no log may show.
    pub(crate) secret: String,
    pub(crate) rsa: KeyPair,
    pub(crate) ec: KeyPair,
    pub(crate) ed: KeyPair,
    /// Keys of nobody in the configuration.
    pub(crate) foreign_rsa: KeyPair,
    pub(crate) foreign_ec: KeyPair,
}

pub(crate) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let names: Vec<String> = HOSTS.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let rsa = || KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let ec = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut random = [0; 36];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        Keys {
            certificate_pem: certificate.pem(),
            certificate_key_pem: key.serialize_pem(),
            certificate: certificate.der().clone(),
            secret: URL_SAFE_NO_PAD.encode(random),
            rsa: rsa(),
            ec: ec(),
            ed: KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
            foreign_rsa: rsa(),
            foreign_ec: ec(),
        }
    })
}

/// What a client trusts and offers.
pub(crate) fn tls_client(alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(keys().certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// The issuers of the standard site, one for each algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ed,
    Es,
    Hs,
    Ps,
    Rs,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Ed, Self::Es, Self::Hs, Self::Ps, Self::Rs];

    /// The issuer's name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ed => "ed",
            Self::Es => "es",
            Self::Hs => "hs",
            Self::Ps => "ps",
            Self::Rs => "rs",
        }
    }

    /// `alg`.
    pub(crate) fn algorithm(self) -> &'static str {
        match self {
            Self::Ed => "EdDSA",
            Self::Es => "ES256",
            Self::Hs => "HS256",
            Self::Ps => "PS256",
            Self::Rs => "RS256",
        }
    }

    /// `iss`.
    pub(crate) fn issuer(self) -> String {
        format!("https://{}.issuer.test", self.name())
    }

    /// The public key as PEM; none for a shared secret.
    pub(crate) fn public_key(self) -> Option<String> {
        match self {
            Self::Ed => Some(keys().ed.public_key_pem()),
            Self::Es => Some(keys().ec.public_key_pem()),
            Self::Hs => None,
            Self::Ps | Self::Rs => Some(keys().rsa.public_key_pem()),
        }
    }

    fn key(self) -> EncodingKey {
        match self {
            Self::Ed => ed_key(&keys().ed),
            Self::Es => ec_key(&keys().ec),
            Self::Hs => EncodingKey::from_secret(keys().secret.as_bytes()),
            Self::Ps | Self::Rs => rsa_key(&keys().rsa),
        }
    }
}

pub(crate) fn rsa_key(pair: &KeyPair) -> EncodingKey {
    EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap()
}

pub(crate) fn ec_key(pair: &KeyPair) -> EncodingKey {
    EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap()
}

fn ed_key(pair: &KeyPair) -> EncodingKey {
    EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap()
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn unbase64(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// A token in the making. Good as it starts; every method changes one thing.
#[derive(Clone)]
pub(crate) struct Token {
    kind: Kind,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl Token {
    /// A good token of this issuer for `alice`, five minutes long.
    pub(crate) fn new(kind: Kind) -> Self {
        let object = |value: Value| value.as_object().unwrap().clone();
        Self {
            kind,
            header: object(json!({ "alg": kind.algorithm(), "typ": "at+jwt" })),
            claims: object(json!({
                "iss": kind.issuer(),
                "aud": AUDIENCE,
                "sub": "alice",
                "iat": now(),
                "exp": now() + 300,
            })),
        }
    }

    /// A good token that is verified quickest.
    pub(crate) fn good() -> Self {
        Self::new(Kind::Hs)
    }

    pub(crate) fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.into(), value.into());
        self
    }

    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// The header as JSON.
    pub(crate) fn header_text(&self) -> String {
        Value::Object(self.header.clone()).to_string()
    }

    /// The claims as JSON.
    pub(crate) fn claims_text(&self) -> String {
        Value::Object(self.claims.clone()).to_string()
    }

    /// The token, signed by its issuer.
    pub(crate) fn sign(&self) -> String {
        self.sign_text(&self.header_text(), &self.claims_text())
    }

    /// These texts, signed by the issuer with the issuer's algorithm, whatever they say.
    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> String {
        let algorithm = self.kind.algorithm().parse().unwrap();
        sign_with(&self.kind.key(), algorithm, header, claims)
    }

    /// The token with a signature by another key.
    pub(crate) fn sign_by(&self, key: &EncodingKey, algorithm: Algorithm) -> String {
        sign_with(key, algorithm, &self.header_text(), &self.claims_text())
    }
}

fn sign_with(key: &EncodingKey, algorithm: Algorithm, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// `Authorization` for a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}
