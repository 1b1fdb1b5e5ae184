//! The gateway's cookies: found, set and taken back, each with its attributes in one place.
//!
//! | cookie | carries | attributes beside `HttpOnly; Secure` |
//! |---|---|---|
//! | `__Secure-portcullis-refresh` | the refresh token | `Path` of the account routes, `SameSite=Strict` |
//! | `__Host-portcullis-session` | the access token | `Path=/`, `SameSite=Lax` |
//! | `__Host-portcullis-renewable` | nothing: that there is a refresh cookie, where that one is not sent | as session |
//! | `__Host-portcullis-renewals` | how often the session was renewed within seconds | as session |
//! | `__Host-portcullis-handover` | a random word, on another host while its browser signs in | as session |

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{COOKIE, SET_COOKIE},
};
use zeroize::Zeroizing;

use crate::{
    accounts::{Grant, settings::AccountSettings},
    policy::{
        HeadFault, Rejection,
        headers::{REFRESH_COOKIE, RENEWABLE_COOKIE, RENEWALS_COOKIE, SESSION_COOKIE},
    },
};

/// Finds a cookie. What is not text is no value of ours, and reads as empty.
///
/// # Errors
/// [`Rejection::BadRequest`] where there are two of that name: one of them was put there by somebody else.
pub(super) fn find(
    headers: &HeaderMap,
    wanted: &str,
) -> Result<Option<Zeroizing<String>>, Rejection> {
    let repeated = Rejection::BadRequest(HeadFault::RepeatedField);
    let mut found = None;
    for line in headers.get_all(COOKIE) {
        for pair in line.as_bytes().split(|byte| *byte == b';') {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = halves.next().unwrap_or_default().trim_ascii();
            if name != wanted.as_bytes() {
                continue;
            }
            if found.is_some() {
                return Err(repeated);
            }
            let value = halves.next().unwrap_or_default().trim_ascii();
            let value = std::str::from_utf8(value).unwrap_or_default();
            found = Some(Zeroizing::new(value.to_owned()));
        }
    }
    Ok(found)
}

/// Finds the refresh cookie.
///
/// # Errors
/// [`Rejection::BadRequest`] where there are two of that name.
pub fn refresh_cookie(headers: &HeaderMap) -> Result<Option<Zeroizing<String>>, Rejection> {
    find(headers, REFRESH_COOKIE)
}

/// Adds the cookies of a grant: the refresh token, and where browsers may sign in the access token too.
///
/// # Errors
/// [`Rejection::Internal`] where the grant has no refresh token.
pub(super) fn grant(
    response: Response<Bytes>,
    grant: &Grant,
    settings: &AccountSettings,
) -> Result<Response<Bytes>, Rejection> {
    let token = grant.refresh_token.as_ref().ok_or(Rejection::Internal)?;
    let life = grant.refresh_expires_in;
    let response = set_refresh(response, &token.reveal(), life, settings)?;
    if settings.pages.is_none() {
        return Ok(response);
    }
    let response = set_host_cookie(
        response,
        SESSION_COOKIE,
        &grant.access_token,
        grant.expires_in,
    )?;
    set_host_cookie(response, RENEWABLE_COOKIE, "1", life)
}

/// Makes the browser forget what it was granted.
///
/// # Errors
/// [`Rejection::Internal`], which does not happen.
pub(super) fn forget(
    response: Response<Bytes>,
    settings: &AccountSettings,
) -> Result<Response<Bytes>, Rejection> {
    let mut response = set_refresh(response, "", 0, settings)?;
    if settings.pages.is_some() {
        for name in [SESSION_COOKIE, RENEWABLE_COOKIE, RENEWALS_COOKIE] {
            response = set_host_cookie(response, name, "", 0)?;
        }
    }
    Ok(response)
}

/// Adds a cookie of this host alone, for `life` seconds.
///
/// # Errors
/// [`Rejection::Internal`] where the value cannot be written.
pub(super) fn set_host_cookie(
    response: Response<Bytes>,
    name: &str,
    value: &str,
    life: u64,
) -> Result<Response<Bytes>, Rejection> {
    set(
        response,
        format!("{name}={value}; Path=/; Max-Age={life}; HttpOnly; Secure; SameSite=Lax"),
    )
}

fn set_refresh(
    response: Response<Bytes>,
    value: &str,
    life: u64,
    settings: &AccountSettings,
) -> Result<Response<Bytes>, Rejection> {
    let path = &settings.path;
    set(
        response,
        format!(
            "{REFRESH_COOKIE}={value}; Path={path}; Max-Age={life}; HttpOnly; Secure; SameSite=Strict"
        ),
    )
}

fn set(mut response: Response<Bytes>, cookie: String) -> Result<Response<Bytes>, Rejection> {
    let cookie = Zeroizing::new(cookie);
    let mut cookie = HeaderValue::from_str(&cookie).map_err(|_| Rejection::Internal)?;
    cookie.set_sensitive(true);
    response.headers_mut().append(SET_COOKIE, cookie);
    Ok(response)
}
