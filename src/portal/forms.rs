//! Reads the forms of our own pages.

use http::{HeaderMap, header::CONTENT_TYPE};
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::requests;
use crate::{
    accounts::settings::AccountSettings,
    policy::{HeadFault, Rejection},
};

/// Whether the body is what a form of a page sends.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let kind = requests::only(headers, &CONTENT_TYPE).ok().flatten();
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| {
        kind.trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

/// Reads the fields of a form that one of our own pages sent: these and no others, each once at most.
///
/// A browser that says nothing of where a form was sent from is refused, for none does that any more; and so is `Origin: null`
/// without its word about the site, which stands for every page that hides its origin (AUTH-8).
///
/// # Errors
/// [`Rejection::OriginDenied`]; [`Rejection::BadRequest`] for other and repeated fields.
pub(super) fn read<const N: usize>(
    headers: &HeaderMap,
    settings: &AccountSettings,
    body: &[u8],
    names: [&str; N],
) -> Result<[Option<Zeroizing<String>>; N], Rejection> {
    requests::require_own_page(headers, settings)?;
    if !is_form(headers) {
        return Err(Rejection::UnsupportedMediaType);
    }
    let bad = Rejection::BadRequest(HeadFault::Body);
    let mut fields = [const { None }; N];
    for (name, value) in form_urlencoded::parse(body) {
        let mut places = names.iter().zip(&mut fields);
        let place = places.find(|(wanted, _)| **wanted == name);
        let (_, place) = place.ok_or(bad.clone())?;
        let value = Zeroizing::new(value.into_owned());
        if place.replace(value).is_some() {
            return Err(bad);
        }
    }
    Ok(fields)
}
