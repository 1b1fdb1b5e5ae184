//! What does a payload say, once its signature is good? Every claim checked by type, required ones for presence, and
//! written under the names that the rest of the gateway knows.
//!
//! A JWT library checks a claim when it is there and has the type that it expects; an attacker leaves it out or sends an
//! array. Here a required claim that is missing is a refusal, and a malformed optional one is no less (JWT-3).

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};

use super::{clock::UnixMillis, settings::IssuerSettings};
use crate::policy::{Claims, TokenFault, authorize::find};

/// The latest time that a claim may name: the end of the year 9999. A token that outlives it was meant never to expire.
const SECONDS_MAX: u64 = 253_402_300_799;

/// The claims of a token of this issuer, whose `iss` was compared when the issuer was chosen. Times are read but not yet
/// compared with the clock.
///
/// # Errors
/// The first of: [`TokenFault::Subject`], [`TokenFault::Audience`], [`TokenFault::ExpiryMissing`], and
/// [`TokenFault::ClaimType`] for anything else of the wrong type.
pub(super) fn read(
    issuer: &IssuerSettings,
    key_id: Option<&str>,
    all: Map<String, Value>,
) -> Result<Claims, TokenFault> {
    let names = &issuer.claims;
    let audience = audience(&all, issuer)?;
    Ok(Claims {
        issuer_name: Arc::clone(&issuer.name),
        issuer: Arc::clone(&issuer.issuer),
        subject: subject(&all)?,
        user: text(&all, &names.user)?,
        email: text(&all, &names.email)?,
        name: text(&all, &names.name)?,
        roles: words(&all, &names.roles)?,
        scopes: words(&all, &names.scopes)?,
        audience,
        session: text(&all, "sid")?,
        token_id: text(&all, "jti")?,
        key_id: key_id.map(Box::from),
        issued_at: seconds(&all, "iat")?,
        expires_at: seconds(&all, "exp")?.ok_or(TokenFault::ExpiryMissing)?,
        not_before: seconds(&all, "nbf")?,
        leeway: Duration::ZERO,
        all,
    })
}

/// When a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    /// From `nbf` on, less the leeway.
    not_before: UnixMillis,
    /// From `iat` on, less the leeway.
    issued_at: UnixMillis,
    /// Until just before `exp` and the leeway (RFC 7519 §4.1.4: "on or after" it is refused).
    pub(super) end: UnixMillis,
}

impl Validity {
    /// Widens the claims' times by the leeway, the same for all three (JWT-10).
    pub(super) fn new(claims: &Claims, leeway: Duration) -> Self {
        let start = |time: Option<u64>| UnixMillis::from_secs(time.unwrap_or(0)).minus(leeway);
        Self {
            not_before: start(claims.not_before),
            issued_at: start(claims.issued_at),
            end: UnixMillis::from_secs(claims.expires_at).plus(leeway),
        }
    }

    /// # Errors
    /// [`TokenFault::NotYetValid`] or [`TokenFault::IssuedInFuture`].
    pub(super) fn check_begun(&self, now: UnixMillis) -> Result<(), TokenFault> {
        if now < self.not_before {
            return Err(TokenFault::NotYetValid);
        }
        if now < self.issued_at {
            return Err(TokenFault::IssuedInFuture);
        }
        Ok(())
    }
}

fn subject(all: &Map<String, Value>) -> Result<Box<str>, TokenFault> {
    match all.get("sub") {
        None => Err(TokenFault::Subject),
        Some(Value::String(subject)) if subject.is_empty() => Err(TokenFault::Subject),
        Some(Value::String(subject)) => Ok(subject.as_str().into()),
        Some(_) => Err(TokenFault::ClaimType),
    }
}

/// One string or a list of strings (RFC 7519 §4.1.3), one of which this issuer's entry names.
fn audience(
    all: &Map<String, Value>,
    issuer: &IssuerSettings,
) -> Result<Vec<Box<str>>, TokenFault> {
    let audience = match all.get("aud") {
        Some(Value::String(one)) => vec![Box::from(one.as_str())],
        Some(Value::Array(list)) => strings(list)?,
        None => return Err(TokenFault::Audience),
        Some(_) => return Err(TokenFault::ClaimType),
    };
    if audience.iter().any(|name| issuer.audience.contains(name)) {
        Ok(audience)
    } else {
        Err(TokenFault::Audience)
    }
}

/// A NumericDate that is a whole, non-negative number of seconds within range.
fn seconds(all: &Map<String, Value>, name: &str) -> Result<Option<u64>, TokenFault> {
    let Some(value) = all.get(name) else {
        return Ok(None);
    };
    match value.as_u64() {
        Some(seconds) if seconds <= SECONDS_MAX => Ok(Some(seconds)),
        Some(_) | None => Err(TokenFault::ClaimType),
    }
}

/// A claim that is a string, where it is present.
fn text(all: &Map<String, Value>, name: &str) -> Result<Option<Box<str>>, TokenFault> {
    match reach(all, name)? {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str().into())),
        Some(_) => Err(TokenFault::ClaimType),
    }
}

/// A claim that is a list of strings, or words in a string.
fn words(all: &Map<String, Value>, name: &str) -> Result<Vec<Box<str>>, TokenFault> {
    match reach(all, name)? {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(text.split_ascii_whitespace().map(Box::from).collect()),
        Some(Value::Array(list)) => strings(list),
        Some(_) => Err(TokenFault::ClaimType),
    }
}

fn strings(list: &[Value]) -> Result<Vec<Box<str>>, TokenFault> {
    list.iter()
        .map(|value| value.as_str().map(Box::from).ok_or(TokenFault::ClaimType))
        .collect()
}

/// Finds a claim as rules do, but takes a path through something that is no object for malformed instead of absent.
fn reach<'c>(all: &'c Map<String, Value>, name: &str) -> Result<Option<&'c Value>, TokenFault> {
    if let Some(value) = find(all, name) {
        return Ok(Some(value));
    }
    let Some((outer, inner)) = name.split_once('.') else {
        return Ok(None);
    };
    match all.get(outer) {
        None => Ok(None),
        Some(Value::Object(object)) => reach(object, inner),
        Some(_) => Err(TokenFault::ClaimType),
    }
}
