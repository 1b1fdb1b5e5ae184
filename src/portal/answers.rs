//! Writes the answers: their JSON, and the headers that keep tokens out of caches and logs.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY},
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    accounts::{Grant, PUBLISHED_MAX_AGE, RefreshToken},
    policy::Claims,
    store::Session,
};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Grant")]
pub(super) struct GrantAnswer<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    user: UserAnswer<'a>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "User")]
pub(super) struct UserAnswer<'a> {
    id: &'a str,
    username: Option<&'a str>,
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    roles: &'a [Box<str>],
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Me")]
pub(super) struct MeAnswer<'a> {
    user: UserAnswer<'a>,
    roles: &'a [Box<str>],
    scopes: &'a [Box<str>],
    session: Option<&'a str>,
    expires_in: u64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Sessions")]
pub(super) struct SessionsAnswer<'a> {
    sessions: Vec<SessionAnswer<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Session")]
pub(super) struct SessionAnswer<'a> {
    id: &'a str,
    device: &'a str,
    ip: &'a str,
    created: u64,
    last_used: u64,
    current: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InactiveToken")]
pub(super) struct Inactive {
    active: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ActiveToken")]
pub(super) struct Active<'a> {
    active: bool,
    token_type: &'static str,
    iss: &'a str,
    sub: &'a str,
    aud: &'a [Box<str>],
    username: Option<&'a str>,
    email: Option<&'a str>,
    roles: &'a [Box<str>],
    scope: String,
    sid: Option<&'a str>,
    jti: Option<&'a str>,
    exp: u64,
    iat: Option<u64>,
    nbf: Option<u64>,
}

/// What was asked for is done later, or not: nothing more is told.
pub(super) fn accepted(body: &impl Serialize) -> Response<Bytes> {
    let mut response = json(body);
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// Tokens, with the refresh token among them or without.
pub(super) fn grant(grant: &Grant, with_refresh_token: bool) -> Response<Bytes> {
    let token = grant.refresh_token.as_ref().filter(|_| with_refresh_token);
    let token = token.map(RefreshToken::reveal);
    json(&GrantAnswer {
        access_token: &grant.access_token,
        token_type: "Bearer",
        expires_in: grant.expires_in,
        refresh_token: token.as_ref().map(|token| token.as_str()),
        user: UserAnswer {
            id: &grant.user.id,
            username: Some(&grant.user.username),
            email: grant.user.email.as_deref(),
            name: grant.user.name.as_deref(),
            roles: &grant.user.roles,
        },
    })
}

/// The caller, as the access token says.
pub(super) fn me(claims: &Claims, now: SystemTime) -> Response<Bytes> {
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    json(&MeAnswer {
        user: UserAnswer {
            id: &claims.subject,
            username: claims.user.as_deref(),
            email: claims.email.as_deref(),
            // The display name; `claims.name` is what an upstream is told, which is the username.
            name: claims.all.get("name").and_then(|name| name.as_str()),
            roles: &claims.roles,
        },
        roles: &claims.roles,
        scopes: &claims.scopes,
        session: claims.session.as_deref(),
        expires_in: claims.expires_at.saturating_sub(now),
    })
}

/// A token that is not good, or not the asker's concern: nothing is said of it (RFC 7662 §2.2).
pub(super) fn inactive() -> Response<Bytes> {
    json(&Inactive { active: false })
}

/// A token that is good, and what it says (RFC 7662 §2.2).
pub(super) fn active(claims: &Claims) -> Response<Bytes> {
    json(&Active {
        active: true,
        token_type: "Bearer",
        iss: &claims.issuer,
        sub: &claims.subject,
        aud: &claims.audience,
        username: claims.user.as_deref(),
        email: claims.email.as_deref(),
        roles: &claims.roles,
        scope: claims.scopes.join(" "),
        sid: claims.session.as_deref(),
        jti: claims.token_id.as_deref(),
        exp: claims.expires_at,
        iat: claims.issued_at,
        nbf: claims.not_before,
    })
}

/// The caller's sessions.
pub(super) fn sessions(sessions: &[Session], current: Option<&str>) -> Response<Bytes> {
    json(&SessionsAnswer {
        sessions: sessions
            .iter()
            .map(|session| SessionAnswer {
                id: &session.id,
                device: &session.device,
                ip: &session.ip,
                created: session.created_at,
                last_used: session.last_used_at,
                current: current == Some(&*session.id),
            })
            .collect(),
    })
}

pub(super) fn no_content() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A public document, which may be kept for a while.
pub(super) fn document(json: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(json.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let kept = format!("public, max-age={}", PUBLISHED_MAX_AGE.as_secs());
    if let Ok(kept) = HeaderValue::from_str(&kept) {
        headers.insert(CACHE_CONTROL, kept);
    }
    response
}

/// Keeps an answer out of caches and its address out of `Referer`, unless it says otherwise itself (SESS-7).
pub(super) fn guard(mut response: Response<Bytes>) -> Response<Bytes> {
    let headers = response.headers_mut();
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers
        .entry(REFERRER_POLICY)
        .or_insert(HeaderValue::from_static("no-referrer"));
    response
}

pub(super) fn json(body: &impl Serialize) -> Response<Bytes> {
    // Strings, numbers and lists of strings cannot fail to be written.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
