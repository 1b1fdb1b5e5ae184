//! The gateway's cookies: found, set and taken back, each with its attributes in one place.
//!
//! | cookie | carries | attributes beside `HttpOnly; Secure` |
//! |---|---|---|
//! | `__Secure-portcullis-refresh` | the refresh token | `Path` of the account routes, `SameSite=Strict` |
//! | `__Host-portcullis-session` | the access token | `Path=/`, `SameSite=Lax` |
//! | `__Host-portcullis-renewable` | nothing: that there is a refresh cookie, where that one is not sent | as session |
//! | `__Host-portcullis-renewals` | how often the session was renewed within seconds | as session |
//! | `__Host-portcullis-handover` | a random word, on another host while its browser signs in | as session |
//! | `__Host-portcullis-device` | that an account was opened in this browser before | as session |

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{COOKIE, SET_COOKIE},
};
use zeroize::Zeroizing;

use crate::{
    accounts::{DEVICE_LIFE, DeviceToken, Grant, settings::AccountSettings},
    policy::{
        HeadFault, Rejection,
        headers::{
            DEVICE_COOKIE, REFRESH_COOKIE, RENEWABLE_COOKIE, RENEWALS_COOKIE, SESSION_COOKIE,
        },
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

/// Finds what an earlier login gave the browser. What has not its form is as good as none.
///
/// # Errors
/// [`Rejection::BadRequest`] where there are two of that name.
pub(super) fn device(headers: &HeaderMap) -> Result<Option<DeviceToken>, Rejection> {
    let text = find(headers, DEVICE_COOKIE)?;
    Ok(text.and_then(|text| DeviceToken::parse(&text)))
}

/// Makes the browser one that is known. It stays one when the session ends.
///
/// # Errors
/// [`Rejection::Internal`], which does not happen.
pub(super) fn set_device(
    response: Response<Bytes>,
    token: &DeviceToken,
) -> Result<Response<Bytes>, Rejection> {
    set_host_cookie(
        response,
        DEVICE_COOKIE,
        &token.reveal(),
        DEVICE_LIFE.as_secs(),
    )
}

/// Adds the cookies of a grant: the refresh token, and where browsers may sign in the access token too;
/// after a login what makes the browser a known one.
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
    let mut response = set_refresh(response, &token.reveal(), life, settings)?;
    if settings.pages.is_some() {
        let access = &grant.access_token;
        response = set_host_cookie(response, SESSION_COOKIE, access, grant.expires_in)?;
        response = set_host_cookie(response, RENEWABLE_COOKIE, "1", life)?;
    }
    match &grant.device {
        Some(device) => set_device(response, device),
        None => Ok(response),
    }
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
