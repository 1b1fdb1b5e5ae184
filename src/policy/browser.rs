//! What a browser sends, and what it shows, decides more than for programs: whose page a request comes from, and whether a
//! person looks at the answer.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{self, ACCEPT, ORIGIN},
    request::Parts,
};

use super::{cors::Origins, rejection::Rejection, route::Route, upgrade::is_own};

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a route does for browsers. By default nothing: it knows bearer tokens alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Browsers {
    /// Whether the session cookie is a credential here, of the built-in issuer.
    pub cookie: bool,
    /// Whether whoever opens a page without a credential is sent to the login page.
    pub sign_in: bool,
}

/// Refuses a request that changes something and bears a session cookie, unless a page of the same host sent it, one of the
/// gateway's own, or one of an origin that the route's `cors` lets in with credentials: browsers add cookies to whatever any
/// page makes them send. `authority` is host and port as the client named them, `own` the origin of the gateway's pages.
///
/// The browser's word about the site (`Sec-Fetch-Site`) is enough where it says `same-origin`; `Origin` is asked otherwise,
/// for a page of the gateway may send a form to another of its hosts. A browser that says neither is refused.
///
/// # Errors
/// [`Rejection::OriginDenied`].
pub fn check_change(
    request: &Parts,
    authority: &str,
    own: &str,
    route: &Route,
) -> Result<(), Rejection> {
    if matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let headers = &request.headers;
    if only(headers, &SEC_FETCH_SITE).is_some_and(|site| site == "same-origin") {
        return Ok(());
    }
    let origin = only(headers, &ORIGIN).ok_or(Rejection::OriginDenied)?;
    let is_listed = || {
        let cors = route.cors.as_ref().filter(|cors| cors.credentials);
        cors.is_some_and(|cors| match &cors.origins {
            Origins::Any => false,
            Origins::Listed(list) => list.contains(origin),
        })
    };
    if is_own(origin, authority) || origin == own || is_listed() {
        Ok(())
    } else {
        Err(Rejection::OriginDenied)
    }
}

/// Whether a request carries its credential in the session cookie, once it is known that it carries a good one.
#[must_use]
pub fn is_by_cookie(route: &Route, headers: &HeaderMap) -> bool {
    route.browsers.cookie && !headers.contains_key(header::AUTHORIZATION)
}

/// Whether a person will look at the answer: a browser that opens a page says that it takes `text/html`, and, since 2023, that
/// it navigates. `*/*` alone, which programs say, is no such word. A form that was sent counts only by the browser's own word.
#[must_use]
pub fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let takes_pages = headers.get_all(ACCEPT).iter().any(|line| {
        let mut ranges = line.as_bytes().split(|byte| *byte == b',');
        ranges.any(|range| {
            let kind = range.split(|byte| *byte == b';').next();
            kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/html"))
        })
    });
    takes_pages
        && match headers.get(SEC_FETCH_MODE) {
            Some(mode) => mode == "navigate",
            None => reads(method),
        }
}

/// Whether a browser may be sent elsewhere for want of a credential: it opens a page, with nothing to send that would be lost.
#[must_use]
pub fn may_be_sent_on(method: &Method, headers: &HeaderMap) -> bool {
    reads(method) && is_navigation(method, headers) && !headers.contains_key(header::AUTHORIZATION)
}

/// Whether a page of the very same origin made the browser go here, by its own word.
#[must_use]
pub fn is_own_navigation(headers: &HeaderMap) -> bool {
    only(headers, &SEC_FETCH_SITE).is_some_and(|site| site == "same-origin")
        && only(headers, &SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate")
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// A field that is there exactly once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests;
