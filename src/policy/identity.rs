//! Who is calling: claims that a verifier vouches for, and the header values made of them.

use std::{sync::Arc, time::Duration};

use http::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::{headers::IdentityHeaders, rejection::Rejection};

/// What a token says, after the claim names of its issuer were applied. Not yet proof of anything.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// The issuer's name in the configuration; `portcullis` for the built-in one.
    pub issuer_name: Arc<str>,
    /// `iss`, exactly. With `subject` it is the identity; nothing else is (JWT-13).
    pub issuer: Arc<str>,
    /// `sub`.
    pub subject: Box<str>,
    /// The claim that the issuer's `claims.user` names.
    pub user: Option<Box<str>>,
    /// The e-mail address, for display and headers, never an identity.
    pub email: Option<Box<str>>,
    /// The display name.
    pub name: Option<Box<str>>,
    /// Roles, in the token's order.
    pub roles: Vec<Box<str>>,
    /// Scopes, in the token's order.
    pub scopes: Vec<Box<str>>,
    /// `aud`: one or several.
    pub audience: Vec<Box<str>>,
    /// `sid`: the session that the token belongs to.
    pub session: Option<Box<str>>,
    /// `jti`.
    pub token_id: Option<Box<str>>,
    /// `kid` of the key that verified it.
    pub key_id: Option<Box<str>>,
    /// `iat`, seconds since 1970.
    pub issued_at: Option<u64>,
    /// `exp`, seconds since 1970.
    pub expires_at: u64,
    /// `nbf`, seconds since 1970.
    pub not_before: Option<u64>,
    /// What the issuer's clock is granted beyond these times.
    pub leeway: Duration,
    /// Every claim of the payload, for rules and templates over others.
    pub all: Map<String, Value>,
}

/// A caller whom a verifier vouches for. Holding one is the proof: only `authn::verifier` calls
/// `Identity::assert_verified` (`tests/tidy.rs` checks that), and the claims cannot be changed afterwards (JWT-12).
///
/// ```compile_fail
/// // The fields are private: an identity cannot be written down.
/// let forged = portcullis::policy::Identity { claims: Default::default(), headers: Vec::new() };
/// ```
#[derive(Debug)]
pub struct Identity {
    claims: Claims,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Identity {
    /// Vouches for claims whose signature, issuer, audience and times were checked, and writes their header values once, so
    /// that a cached identity costs no formatting.
    ///
    /// # Errors
    /// [`Rejection::ClaimMismatch`] where a claim that must be told to the upstream cannot be written in a header (HDR-5).
    pub(crate) fn assert_verified(
        claims: Claims,
        templates: &IdentityHeaders,
    ) -> Result<Self, Rejection> {
        let headers = templates.render(&claims)?;
        Ok(Self { claims, headers })
    }

    /// The verified claims.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The identity headers that depend on the identity alone, ready to be inserted.
    #[must_use]
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// About how many bytes of memory this identity holds, for a cache that is bounded in bytes (CACHE-6). An estimate from
    /// above: strings with what an allocator adds, and JSON objects by the nodes of their trees.
    #[must_use]
    pub fn weight(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len() + 16);
        let texts = |list: &[Box<str>]| list.iter().map(|text| text.len() + 32).sum::<usize>();
        let claims = &self.claims;
        size_of::<Self>()
            + claims.subject.len()
            + text(&claims.user)
            + text(&claims.email)
            + text(&claims.name)
            + text(&claims.session)
            + text(&claims.token_id)
            + text(&claims.key_id)
            + texts(&claims.roles)
            + texts(&claims.scopes)
            + texts(&claims.audience)
            + map_weight(&claims.all)
            + self
                .headers
                .iter()
                .map(|(name, value)| 80 + name.as_str().len() + value.len())
                .sum::<usize>()
    }
}

/// The nodes of the map's tree, each of 11 places for a name and a value and at least 5 of them taken, and what names and
/// values hold besides.
fn map_weight(map: &Map<String, Value>) -> usize {
    const NODE: usize = 12 * (size_of::<String>() + size_of::<Value>()) + 64;
    map.len().div_ceil(5) * NODE
        + map
            .iter()
            .map(|(name, value)| 24 + name.len() + value_weight(value))
            .sum::<usize>()
}

/// What a value holds beyond its own place.
fn value_weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => 24 + text.len(),
        // A list may have grown to twice what it needs.
        Value::Array(list) => list
            .iter()
            .map(|value| 2 * size_of::<Value>() + value_weight(value))
            .sum(),
        Value::Object(map) => map_weight(map),
    }
}
