//! Signed statements to upstreams: who calls, told to one upstream, for one method and one target, for a minute (HDR-10).
//!
//! Identity headers are believed because nobody else can reach the upstream. A statement is believed because of its signature:
//! whoever comes past the gateway cannot make one, and one that was seen elsewhere fits neither another upstream nor another
//! request. Nobody is stated about whom no verifier vouches: there is no statement that says "anonymous", which an upstream that
//! forgets to look at `sub` would take for a user.

mod recent;
pub mod settings;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, uri::PathAndQuery};
use serde::Serialize;

use crate::{
    accounts::{AssertionKeys, KeyError},
    policy::{Identity, Rejection, rejection::ClaimFault},
};
pub use recent::Recent;
use settings::AssertionSettings;
pub use watch::Watch;

/// The header. Every request loses it before anything else is written, whether or not statements are made.
pub const X_PORTCULLIS_ASSERTION: HeaderName = HeaderName::from_static("x-portcullis-assertion");

/// Where the public keys are published, on every host.
pub const KEYS_PATH: &str = "/.well-known/portcullis-assertion-jwks.json";

/// `typ`: no verifier of access tokens takes it (RFC 8725 §3.11).
pub const TYPE: &str = "portcullis-assertion+jwt";

/// From `iat` to `exp`.
pub const LIFE: Duration = Duration::from_secs(60);

/// The longest header value, in bytes. Servers take 8 KiB of all fields together, many of them no more.
const BYTES_MAX: usize = 6 << 10;

/// Makes statements. Shared by all workers.
#[derive(Debug)]
pub struct Assertions {
    issuer: Arc<str>,
    /// `None`: it is told of statements, and none are made.
    keys: Option<AssertionKeys>,
}

/// What a statement is about.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'s> {
    /// Who calls.
    pub identity: &'s Arc<Identity>,
    /// `aud`: the upstream's name in the configuration.
    pub upstream: &'s Arc<str>,
    /// The method, as the upstream receives it.
    pub method: &'s Method,
    /// What the upstream's servers have before every path; empty for most.
    pub base_path: &'s str,
    /// Path and query behind that.
    pub target: &'s PathAndQuery,
}

/// The claims, in the order in which they are written. Those without a value are left out.
#[derive(Serialize)]
struct Payload<'s> {
    iss: &'s str,
    aud: &'s str,
    iat: u64,
    exp: u64,
    htm: &'s str,
    target_hash: &'s str,
    sub: &'s str,
    idp: &'s str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'s str>,
    roles: &'s [Box<str>],
    scopes: &'s [Box<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'s str>,
}

impl Assertions {
    /// Reads the keys, and makes folder and key where there are none. Blocks.
    ///
    /// # Errors
    /// [`KeyError`] by variant.
    pub fn open(settings: &AssertionSettings, now: SystemTime) -> Result<Arc<Self>, KeyError> {
        let keys = AssertionKeys::open(&settings.keys, TYPE, seconds(now))?;
        Ok(Arc::new(Self {
            issuer: Arc::clone(&settings.issuer),
            keys: Some(keys),
        }))
    }

    /// Without keys, for whoever only tells what would be done: nothing is read, and nothing can be signed.
    #[must_use]
    pub fn without_keys(settings: &AssertionSettings) -> Arc<Self> {
        Arc::new(Self {
            issuer: Arc::clone(&settings.issuer),
            keys: None,
        })
    }

    /// The public keys as a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> Bytes {
        let none = Bytes::from_static(b"{\"keys\":[]}");
        self.keys.as_ref().map_or(none, AssertionKeys::jwks)
    }

    /// The header value that states this, signed just now or taken from what this worker signed less than half a life ago. Never
    /// waits.
    ///
    /// # Errors
    /// [`Rejection::ClaimMismatch`] where the claims do not fit a header; [`Rejection::Internal`] where nothing can be signed.
    pub fn state(
        &self,
        recent: &Recent,
        statement: &Statement<'_>,
        now: SystemTime,
    ) -> Result<HeaderValue, Rejection> {
        let keys = self.keys.as_ref().ok_or(Rejection::Internal)?;
        let now = seconds(now);
        let found = recent.find(statement, now, |kid| keys.is_signing(kid, now));
        if let Some(value) = found {
            return Ok(value);
        }
        let payload = self.payload(statement, now)?;
        let signed = keys.sign(&payload, now).map_err(|_| Rejection::Internal)?;
        if signed.token.len() > BYTES_MAX {
            return Err(Rejection::ClaimMismatch(ClaimFault::Unprintable));
        }
        let mut value = HeaderValue::try_from(signed.token).map_err(|_| Rejection::Internal)?;
        value.set_sensitive(true);
        recent.keep(statement, now, signed.kid, value.clone());
        Ok(value)
    }

    fn payload(&self, statement: &Statement<'_>, now: u64) -> Result<Vec<u8>, Rejection> {
        let claims = statement.identity.claims();
        let target_hash = target_hash(statement.base_path, statement.target.as_str());
        let payload = Payload {
            iss: &self.issuer,
            aud: statement.upstream,
            iat: now,
            exp: now.saturating_add(LIFE.as_secs()),
            htm: statement.method.as_str(),
            target_hash: &target_hash,
            sub: &claims.subject,
            idp: &claims.issuer,
            user: claims.user.as_deref(),
            email: claims.email.as_deref(),
            name: claims.name.as_deref(),
            roles: &claims.roles,
            scopes: &claims.scopes,
            sid: claims.session.as_deref(),
        };
        serde_json::to_vec(&payload).map_err(|_| Rejection::Internal)
    }
}

/// SHA-256 over the request target byte by byte as the upstream reads it in the request line (or in `:path`), query included, in
/// base64url without padding.
fn target_hash(base_path: &str, target: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(base_path.as_bytes());
    context.update(target.as_bytes());
    BASE64URL.encode(context.finish())
}

/// Seconds since 1970; 1970 for a clock before it.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
