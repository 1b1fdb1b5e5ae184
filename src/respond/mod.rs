//! The only maker of refusals: a [`Rejection`] becomes a response.
//!
//! A refusal is a problem document (RFC 9457) with the code that log and metrics bear too, and with the fields that the
//! status calls for. What it says depends on the rejection's code and public data alone: which check a token failed does not
//! come this far (JWT-11).

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use crate::{
    policy::{Rejection, rejection::Exceeded},
    telemetry::RequestId,
};

pub mod answer;
pub mod grpc;
pub mod page;
pub mod texts;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_RATE_LIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The challenge where no token was refused: none was sent, or it was a login that failed (RFC 6750 §3.1: no error then).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"portcullis\"");
/// The challenge for a token that is not, or no longer, good. The body's code tells an expired one from the others.
const CHALLENGE_INVALID: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"portcullis\", error=\"invalid_token\"");

/// The challenge for a service that asks about tokens (RFC 6749 §5.2).
const CHALLENGE_CLIENT: HeaderValue = HeaderValue::from_static("Basic realm=\"portcullis\"");

/// Writes the refusal: a problem document with `type`, `title`, `status`, `detail`, `code` and `request_id`.
///
/// `type` is `urn:portcullis:problem:` and the code: a name that stays the same wherever a gateway runs and claims no host
/// that somebody else could own. `401` bears `WWW-Authenticate`, `405` bears `Allow`, `429` bears `RateLimit` and
/// `RateLimit-Policy`, and what may be tried again bears `Retry-After`. The rejection itself is in the extensions, for the
/// log and for whoever turns the refusal into a page.
#[must_use]
pub fn refusal(rejection: &Rejection, request_id: &RequestId) -> Response<Bytes> {
    refusal_as(rejection.status(), rejection, request_id)
}

/// Writes the same refusal under another status, for those who understand only some.
#[must_use]
pub fn refusal_as(
    status: StatusCode,
    rejection: &Rejection,
    request_id: &RequestId,
) -> Response<Bytes> {
    let body = problem(status, rejection, request_id);
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(10);
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, answer::NOSNIFF);
    if let Some(challenge) = challenge(rejection) {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(wait) = rejection.retry_after() {
        headers.insert(header::RETRY_AFTER, whole_seconds(wait).into());
    }
    if let Rejection::RateLimited(exceeded) = rejection {
        insert_limit(headers, exceeded);
    }
    if let Rejection::MethodNotAllowed(methods) = rejection {
        let names: Vec<&str> = methods.iter().map(http::Method::as_str).collect();
        insert_text(headers, header::ALLOW, names.join(", "));
    }
    *response.body_mut() = body;
    response.extensions_mut().insert(rejection.clone());
    response
}

/// The document. All texts are our own and need no escape, which a test checks for each rejection; a request id is
/// `[A-Za-z0-9-]`.
fn problem(status: StatusCode, rejection: &Rejection, request_id: &RequestId) -> Bytes {
    let code = rejection.code();
    // RFC 6749 §5.2 has a name of its own for the code.
    let error = if *rejection == Rejection::InvalidClient {
        "\",\"error\":\"invalid_client"
    } else {
        ""
    };
    let pieces = [
        "{\"type\":\"urn:portcullis:problem:",
        code,
        "\",\"title\":\"",
        rejection.title(),
        "\",\"status\":",
        status.as_str(),
        ",\"detail\":\"",
        rejection.detail(),
        "\",\"code\":\"",
        code,
        error,
        "\",\"request_id\":\"",
        request_id.as_str(),
        "\"}",
    ];
    pieces.concat().into()
}

/// RFC 6750 §3: every `401`, and the `403` for which a token with more scopes would do.
fn challenge(rejection: &Rejection) -> Option<HeaderValue> {
    match rejection {
        Rejection::CredentialsMissing
        | Rejection::InvalidCredentials
        | Rejection::InvalidGrant
        | Rejection::LinkInvalid => Some(CHALLENGE),
        Rejection::InvalidClient => Some(CHALLENGE_CLIENT),
        Rejection::TokenExpired | Rejection::TokenInvalid(_) => Some(CHALLENGE_INVALID),
        Rejection::ScopeMissing(scopes) => Some(insufficient_scope(scopes)),
        Rejection::AccountExists
        | Rejection::AddressDenied
        | Rejection::AmbiguousCredentials
        | Rejection::AmbiguousPath(_)
        | Rejection::BadRequest(_)
        | Rejection::BodyTooLarge
        | Rejection::ClaimMismatch(_)
        | Rejection::ExpectationFailed
        | Rejection::HeadersTooLarge
        | Rejection::HttpsRequired
        | Rejection::Internal
        | Rejection::KeysUnavailable
        | Rejection::LastAdmin
        | Rejection::LoopDetected
        | Rejection::MethodNotAllowed(_)
        | Rejection::MisdirectedRequest
        | Rejection::NoHealthyUpstream
        | Rejection::OriginDenied
        | Rejection::Overloaded
        | Rejection::PasswordRefused(_)
        | Rejection::RateLimited(_)
        | Rejection::RequestTimeout
        | Rejection::RoleMissing
        | Rejection::RouteNotFound
        | Rejection::StoreUnavailable
        | Rejection::UnsupportedMediaType
        | Rejection::UpstreamInvalid
        | Rejection::UpstreamTimeout
        | Rejection::UpstreamTls
        | Rejection::UpstreamUnreachable
        | Rejection::UriTooLong => None,
    }
}

fn insufficient_scope(scopes: &str) -> HeaderValue {
    // The characters that a scope may have (RFC 6749 §3.3), none of which ends the quoted string.
    let allowed = |c: &char| matches!(c, ' ' | '!' | '#'..='[' | ']'..='~');
    let scopes: String = scopes.chars().filter(allowed).collect();
    HeaderValue::try_from(format!(
        "Bearer realm=\"portcullis\", error=\"insufficient_scope\", scope=\"{scopes}\""
    ))
    .unwrap_or(CHALLENGE)
}

/// `RateLimit-Policy: "per_ip";q=100;w=1` and `RateLimit: "per_ip";r=0;t=1`: structured-field lists (RFC 9651) as in
/// draft-ietf-httpapi-ratelimit-headers-10, §3 and §4. Windows are whole seconds there.
fn insert_limit(headers: &mut HeaderMap, exceeded: &Exceeded) {
    let Exceeded {
        limit,
        retry_after,
        quota,
        window,
    } = exceeded;
    let window = whole_seconds(*window);
    let wait = whole_seconds(*retry_after);
    insert_text(
        headers,
        RATE_LIMIT_POLICY,
        format!("\"{limit}\";q={quota};w={window}"),
    );
    insert_text(headers, RATE_LIMIT, format!("\"{limit}\";r=0;t={wait}"));
}

/// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, which no standard describes: requests in the limit's window,
/// none of them left, and the seconds until one is, as in `Retry-After`.
pub fn insert_x_rate_limit(headers: &mut HeaderMap, exceeded: &Exceeded) {
    headers.insert(X_RATE_LIMIT_LIMIT, exceeded.quota.into());
    headers.insert(X_RATE_LIMIT_REMAINING, 0.into());
    let wait = whole_seconds(exceeded.retry_after);
    headers.insert(X_RATE_LIMIT_RESET, wait.into());
}

/// Whole seconds, rounded up, one at least: a client that waits so long does not come too early.
#[must_use]
pub fn whole_seconds(duration: Duration) -> u64 {
    let begun = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(begun).max(1)
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: String) {
    // Names of limits and methods are visible ASCII; a value that is not would be left out, not cut.
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests;
