//! Renewal without a form: a browser whose session cookie has expired and whose refresh cookie is good.
//!
//! The refresh cookie is `SameSite=Strict`, so a browser that followed a link from elsewhere does not send it, not even after
//! redirects to the login page. A page of our own that makes it go on by itself (`<meta http-equiv="refresh">`, no script)
//! begins a navigation that is same-origin, and that one carries the cookie. `__Host-portcullis-renewable`, which is `Lax`, says
//! whether the step is worth while.
//!
//! So a `GET` rotates a refresh token. It does so only for a browser that says by itself (`Sec-Fetch-Site`, which no page can set)
//! that a page of this very origin navigated there; the cookie is `Strict` besides; and all that it gives goes into cookies of
//! that browser, to a page that is one of ours. Whoever makes a browser do it gains nothing that a visit would not do.

use askama::Template;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode};

use super::{
    Pages,
    form::{MessagePage, told},
    parameter, query,
};
use crate::{
    accounts::{Accounts, RefreshToken},
    policy::{
        RedirectTarget, Rejection,
        browser::is_own_navigation,
        headers::{RENEWABLE_COOKIE, RENEWALS_COOKIE},
    },
    portal::{
        cookies,
        endpoints::{Answered, Call},
    },
    respond::{
        self,
        page::{Look, instead_of, redirect},
    },
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// More renewals than these within [`WINDOW`] lead nowhere.
const RENEWALS_MAX: u32 = 3;

/// In seconds: less than the shortest life of an access token, which is ten.
const WINDOW: u64 = 8;

#[derive(Template)]
#[template(path = "renew.html")]
struct RenewPage<'a> {
    look: &'a Look,
    target: &'a str,
}

/// The page that leads to the renewal; `None` for a browser that has nothing to renew.
pub(super) fn begin(
    call: &Call,
    pages: &Pages,
    next: Option<&RedirectTarget>,
) -> Result<Option<Response<Bytes>>, Rejection> {
    if cookies::find(&call.parts.headers, RENEWABLE_COOKIE)?.is_none_or(|value| value.is_empty()) {
        return Ok(None);
    }
    let target = match next {
        Some(next) => format!("{}/renew?{}", pages.path, query(&[("next", next.as_str())])),
        None => format!("{}/renew", pages.path),
    };
    let page = RenewPage {
        look: &pages.look,
        target: &target,
    };
    pages.look.page(StatusCode::OK, &page, None).map(Some)
}

/// Renews the session, and sends the browser on to the page that it wanted.
pub(super) async fn renew(accounts: &Accounts, call: Call, pages: &Pages) -> Answered {
    if let Some(answer) = pages.elsewhere(&call) {
        return answer;
    }
    let headers = &call.parts.headers;
    let next = pages.next(parameter(&call, "next").as_deref());
    let login = match &next {
        Some(next) => format!("{}{}", pages.origin, pages.login_path(next.as_str())),
        None => format!("{}{}/login", pages.origin, pages.path),
    };
    let to_login = || redirect(StatusCode::SEE_OTHER, &login);
    if !is_own_navigation(headers) {
        // From elsewhere, or typed in: the login page begins properly. A browser that says nothing would only be sent here again.
        return if headers.contains_key(SEC_FETCH_SITE) {
            to_login()
        } else {
            cookies::set_host_cookie(to_login()?, RENEWABLE_COOKIE, "", 0)
        };
    }
    let count = renewals(headers)?;
    if count >= RENEWALS_MAX {
        return looping(pages);
    }
    let presented = cookies::refresh_cookie(headers)?;
    let token = presented
        .as_deref()
        .and_then(|text| RefreshToken::parse(text));
    let renewed = match &token {
        Some(token) => accounts.refresh(token, call.context.client.ip()).await,
        None => Err(Rejection::InvalidGrant),
    };
    match renewed {
        Ok(grant) => {
            let response = redirect(StatusCode::SEE_OTHER, &pages.goal(next.as_ref()))?;
            let response = cookies::grant(response, &grant, accounts.settings())?;
            let count = count.saturating_add(1).to_string();
            cookies::set_host_cookie(response, RENEWALS_COOKIE, &count, WINDOW)
        }
        Err(Rejection::InvalidGrant) => cookies::forget(to_login()?, accounts.settings()),
        // The cookies stay: they are as good as before.
        Err(limited @ Rejection::RateLimited(_)) => {
            wait(&call, pages, &limited, pages.goal(next.as_ref()))
        }
        Err(rejection) => Err(rejection),
    }
}

/// Tells a person how long to wait; it is he who goes on then, for a page that did so by itself would come again and again.
fn wait(call: &Call, pages: &Pages, limited: &Rejection, goal: String) -> Answered {
    let page = MessagePage {
        look: &pages.look,
        heading: limited.title(),
        text: &told(limited, pages.look.texts),
        href: goal,
        label: pages.look.texts.go_on,
    };
    let document = respond::refusal(limited, &call.context.request_id);
    let page = pages.look.page(document.status(), &page, None)?;
    Ok(instead_of(document, page))
}

/// How often this browser was renewed just now. A value that is none of ours counts as too often: it heals within seconds.
fn renewals(headers: &HeaderMap) -> Result<u32, Rejection> {
    let value = cookies::find(headers, RENEWALS_COOKIE)?;
    Ok(value.map_or(0, |value| value.parse().unwrap_or(RENEWALS_MAX)))
}

/// Says why a browser is not sent on once more, and takes back what would begin it again.
pub(super) fn looping(pages: &Pages) -> Answered {
    let texts = pages.look.texts;
    let page = MessagePage {
        look: &pages.look,
        heading: texts.looping,
        text: texts.looping_text,
        href: format!("{}/login", pages.path),
        label: texts.sign_in_again,
    };
    let response = pages.look.page(StatusCode::BAD_REQUEST, &page, None)?;
    cookies::set_host_cookie(response, RENEWABLE_COOKIE, "", 0)
}
