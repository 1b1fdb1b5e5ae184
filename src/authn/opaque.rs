//! Tokens that say nothing: whose are they, and what does their issuer say of them?
//!
//! A token of three segments is a JWT and never comes here. Any other belongs to the one issuer with `introspection_url` whose
//! `token_prefix` it begins with. What the issuer answers is held against everything that a JWT's claims are held against; that
//! it was said over a connection to the address of the configuration stands in the place of the signature.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{
    cache::Key,
    claims,
    keys::KeyLife,
    remote::Introspector,
    settings::{IssuerSettings, KeySource},
    verifier::LEEWAY_MAX,
};
use crate::policy::{Claims, Rejection, TokenFault};

/// What some providers call a token that is active and yet no access token, in `typ`.
const OTHER_TYPES: [&str; 4] = ["id", "logout", "offline", "refresh"];

/// The issuers that are asked about their tokens.
#[derive(Debug)]
pub(super) struct OpaqueTokens(Vec<OpaqueIssuer>);

/// One of them.
#[derive(Debug)]
pub(super) struct OpaqueIssuer {
    settings: IssuerSettings,
    pub(super) leeway: Duration,
    prefix: Box<str>,
    /// `None`: nobody asks, so no token is good.
    pub(super) asks: Option<Arc<Introspector>>,
    /// In the place of a key's.
    pub(super) life: Arc<KeyLife>,
}

impl OpaqueTokens {
    /// Picks those that are asked.
    pub(super) fn of(issuers: &[IssuerSettings]) -> Self {
        Self(issuers.iter().filter_map(OpaqueIssuer::of).collect())
    }

    /// The issuer of a token that is no JWT.
    pub(super) fn issuer(&self, token: &str) -> Option<&OpaqueIssuer> {
        if self.0.is_empty() || is_compact(token) {
            return None;
        }
        // The configuration sees to it that no prefix begins with another.
        self.0
            .iter()
            .find(|issuer| token.starts_with(&*issuer.prefix))
    }
}

/// Whether a token has the three segments of a JWT (RFC 7515 §3.1).
fn is_compact(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl OpaqueIssuer {
    fn of(settings: &IssuerSettings) -> Option<Self> {
        let (prefix, asks) = match &settings.keys {
            KeySource::Introspection(how) => (how.token_prefix.clone(), None),
            KeySource::Introspected(asks) => (asks.token_prefix().into(), Some(Arc::clone(asks))),
            KeySource::Jwks(_)
            | KeySource::PublicKey(_)
            | KeySource::Secret(_)
            | KeySource::Live(_)
            | KeySource::Remote(_) => return None,
        };
        Some(Self {
            settings: settings.clone(),
            leeway: settings.leeway.min(LEEWAY_MAX),
            prefix,
            asks,
            life: Arc::new(KeyLife::of_words(&settings.name)),
        })
    }

    /// What the issuer said of a token a moment ago.
    pub(super) fn answer(&self, key: &Key) -> Option<Bytes> {
        self.asks.as_ref()?.answer(key)
    }

    /// The claims of an answer, without a look at the clock.
    ///
    /// # Errors
    /// [`TokenFault::Inactive`], [`TokenFault::Issuer`] where `iss` is there and another, [`TokenFault::Type`] for a token that
    /// is active and no bearer access token, and those of [`claims::read`]; [`Rejection::KeysUnavailable`] for an answer that
    /// is none.
    pub(super) fn claims(&self, answer: &[u8]) -> Result<Claims, Rejection> {
        let invalid = Rejection::TokenInvalid;
        let all: Map<String, Value> =
            serde_json::from_slice(answer).map_err(|_| Rejection::KeysUnavailable)?;
        match all.get("active") {
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Err(invalid(TokenFault::Inactive)),
            Some(_) | None => return Err(Rejection::KeysUnavailable),
        }
        match all.get("iss") {
            None => {}
            Some(Value::String(issuer)) if **issuer == *self.settings.issuer => {}
            Some(_) => return Err(invalid(TokenFault::Issuer)),
        }
        check_type(&all).map_err(invalid)?;
        claims::read(&self.settings, None, all).map_err(invalid)
    }
}

/// Refresh and ID tokens are active too, and whoever holds one is no caller (RFC 8725 §3.11).
fn check_type(all: &Map<String, Value>) -> Result<(), TokenFault> {
    let is = |name: &str, accepts: &dyn Fn(&str) -> bool| match all.get(name) {
        None => true,
        Some(Value::String(word)) => accepts(word),
        Some(_) => false,
    };
    let is_access_token = is("token_type", &|word| word.eq_ignore_ascii_case("bearer"))
        && is("token_use", &|word| word.starts_with("access"))
        && is("typ", &|word| {
            !OTHER_TYPES
                .iter()
                .any(|other| word.eq_ignore_ascii_case(other))
        });
    if is_access_token {
        Ok(())
    } else {
        Err(TokenFault::Type)
    }
}
