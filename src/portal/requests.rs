//! Reads what a client sent: JSON bodies of closed types, and whether the request is from our own pages.

use http::{
    HeaderMap, HeaderName,
    header::{CONTENT_TYPE, ORIGIN, USER_AGENT},
};
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::{
    accounts::settings::AccountSettings,
    policy::{HeadFault, Rejection},
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A string field that is wiped when dropped, and does not print.
#[derive(Deserialize, JsonSchema)]
#[serde(from = "String")]
#[schemars(inline, extend("format" = "password"))]
pub(super) struct Secret(#[schemars(with = "String")] pub(super) Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Reads a body as a JSON object of a closed type.
///
/// # Errors
/// [`Rejection::UnsupportedMediaType`]; [`Rejection::BadRequest`] for syntax, for what is no object, for unknown and repeated
/// fields.
pub(super) fn json<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Rejection> {
    require_json(headers)?;
    // serde would take a list for the fields in their order, which nobody has been told (AUTH-7).
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Rejection::BadRequest(HeadFault::Body));
    }
    // The cause is not kept: it may quote what was sent, which may be a password.
    serde_json::from_slice(body).map_err(|_| Rejection::BadRequest(HeadFault::Body))
}

/// One `Content-Type`, `application/json`, with no parameter but `charset=utf-8`.
fn require_json(headers: &HeaderMap) -> Result<(), Rejection> {
    let value = only(headers, &CONTENT_TYPE)?.ok_or(Rejection::UnsupportedMediaType)?;
    let (media_type, parameter) = value.split_once(';').unwrap_or((value, "charset=utf-8"));
    let parameter = parameter.trim_matches([' ', '\t']);
    let fits = media_type
        .trim_end_matches([' ', '\t'])
        .eq_ignore_ascii_case("application/json")
        && (parameter.eq_ignore_ascii_case("charset=utf-8")
            || parameter.eq_ignore_ascii_case("charset=\"utf-8\""));
    if fits {
        Ok(())
    } else {
        Err(Rejection::UnsupportedMediaType)
    }
}

/// Refuses what a browser sent for another site, and what it sent for ours in a way that a mere form could have: a request
/// that is authenticated by a cookie alone (SESS-6).
///
/// # Errors
/// [`Rejection::OriginDenied`]; [`Rejection::UnsupportedMediaType`] without `Content-Type: application/json`, body or not.
pub(super) fn require_own_origin(
    headers: &HeaderMap,
    settings: &AccountSettings,
) -> Result<(), Rejection> {
    require_own_page(headers, settings)?;
    require_json(headers)
}

/// Refuses what no page of our own sent.
///
/// # Errors
/// [`Rejection::OriginDenied`].
pub(super) fn require_own_page(
    headers: &HeaderMap,
    settings: &AccountSettings,
) -> Result<(), Rejection> {
    match origin(headers, settings)? {
        Origin::Own => Ok(()),
        Origin::Foreign | Origin::Untold => Err(Rejection::OriginDenied),
    }
}

/// Refuses what a browser sent for another site. A client that is no browser says nothing of origins, and may go on.
///
/// # Errors
/// [`Rejection::OriginDenied`].
pub(super) fn refuse_foreign_origin(
    headers: &HeaderMap,
    settings: &AccountSettings,
) -> Result<(), Rejection> {
    match origin(headers, settings)? {
        Origin::Own | Origin::Untold => Ok(()),
        Origin::Foreign => Err(Rejection::OriginDenied),
    }
}

/// Whose page a request comes from.
enum Origin {
    Foreign,
    Own,
    Untold,
}

/// A browser's word about the site is finer than `Origin`, and decides where it is given: a page of another of our hosts is
/// same-origin there, while a sibling domain is only same-site.
fn origin(headers: &HeaderMap, settings: &AccountSettings) -> Result<Origin, Rejection> {
    let denied = |_| Rejection::OriginDenied;
    let site = only(headers, &SEC_FETCH_SITE).map_err(denied)?;
    let origin = only(headers, &ORIGIN).map_err(denied)?;
    Ok(match (site, origin) {
        (Some("same-origin"), _) => Origin::Own,
        (Some(_), _) => Origin::Foreign,
        (None, Some(origin)) if *origin == *settings.issuer => Origin::Own,
        (None, Some(_)) => Origin::Foreign,
        (None, None) => Origin::Untold,
    })
}

/// The user agent, where it is text.
pub(super) fn user_agent(headers: &HeaderMap) -> Option<&str> {
    headers.get(USER_AGENT)?.to_str().ok()
}

/// The value of a field that may appear once.
pub(super) fn only<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Rejection::BadRequest(HeadFault::RepeatedField));
    }
    first
        .map(|value| {
            value
                .to_str()
                .map_err(|_| Rejection::BadRequest(HeadFault::Body))
        })
        .transpose()
}
