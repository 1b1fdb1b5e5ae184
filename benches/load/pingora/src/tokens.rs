//! Who sends a request, by a verified bearer token. Verified tokens are kept in a bounded cache for as long as they live.

use std::{
    error::Error,
    fs,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use moka::sync::Cache;
use serde::Deserialize;

use crate::settings::Settings;

const LEEWAY_SECONDS: u64 = 30;
const CACHED_TOKENS: u64 = 50_000;
const TOKEN_BYTES_MAX: usize = 8192;

/// What the upstream is told of the caller, as fields that need no more work.
pub(crate) struct Identity {
    expires: u64,
    pub(crate) allowed: bool,
    pub(crate) user: HeaderValue,
    pub(crate) email: Option<HeaderValue>,
    pub(crate) name: Option<HeaderValue>,
    pub(crate) groups: HeaderValue,
    pub(crate) scopes: Option<HeaderValue>,
    pub(crate) issuer: HeaderValue,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    iss: String,
    exp: u64,
    iat: Option<u64>,
    email: Option<String>,
    preferred_username: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    scope: Option<String>,
}

struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
}

pub(crate) struct Tokens {
    verifiers: Vec<Verifier>,
    role: String,
    cache: Cache<Box<str>, Arc<Identity>, ahash::RandomState>,
}

impl Tokens {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Box<dyn Error>> {
        let mut verifiers = Vec::new();
        for (name, entry) in &settings.issuers {
            let bytes = fs::read(&entry.key_file)?;
            let (algorithm, key) = match name.as_str() {
                "HS256" => (Algorithm::HS256, DecodingKey::from_secret(&bytes)),
                "RS256" => (Algorithm::RS256, DecodingKey::from_rsa_pem(&bytes)?),
                "ES256" => (Algorithm::ES256, DecodingKey::from_ec_pem(&bytes)?),
                _ => return Err(format!("{name} is not supported").into()),
            };
            let mut validation = Validation::new(algorithm);
            validation.leeway = LEEWAY_SECONDS;
            validation.validate_nbf = true;
            validation.set_audience(&[&settings.audience]);
            validation.set_issuer(&[&entry.issuer]);
            validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
            verifiers.push(Verifier {
                algorithm,
                key,
                validation,
            });
        }
        Ok(Self {
            verifiers,
            role: settings.role.clone(),
            cache: Cache::builder()
                .max_capacity(CACHED_TOKENS)
                .build_with_hasher(ahash::RandomState::new()),
        })
    }

    /// The identity behind a token; none where the token is not good.
    pub(crate) fn identity(&self, token: &str) -> Option<Arc<Identity>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        if let Some(known) = self.cache.get(token) {
            if now < known.expires {
                return Some(known);
            }
            self.cache.invalidate(token);
            return None;
        }
        let identity = Arc::new(self.verify(token, now)?);
        self.cache.insert(token.into(), Arc::clone(&identity));
        Some(identity)
    }

    fn verify(&self, token: &str, now: u64) -> Option<Identity> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let header = decode_header(token).ok()?;
        if header.crit.is_some() {
            return None;
        }
        // The algorithm chooses the issuer, and with it the key: no key is ever used with another algorithm than its own.
        let verifier = self
            .verifiers
            .iter()
            .find(|verifier| verifier.algorithm == header.alg)?;
        let claims: Claims = decode(token, &verifier.key, &verifier.validation)
            .ok()?
            .claims;
        if claims.sub.is_empty() || claims.iat.is_some_and(|iat| iat > now + LEEWAY_SECONDS) {
            return None;
        }
        let field = |text: Option<String>| text.map(HeaderValue::try_from).transpose().ok();
        Some(Identity {
            expires: claims.exp.saturating_add(LEEWAY_SECONDS),
            allowed: claims.roles.contains(&self.role),
            user: HeaderValue::try_from(claims.sub).ok()?,
            email: field(claims.email)?,
            name: field(claims.preferred_username)?,
            groups: HeaderValue::try_from(claims.roles.join(",")).ok()?,
            scopes: field(claims.scope)?,
            issuer: HeaderValue::try_from(claims.iss).ok()?,
        })
    }
}
