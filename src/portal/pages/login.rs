//! The login page.

use askama::Template;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::COOKIE};

use super::{Pages, form::told, parameter, query, renewal};
use crate::{
    accounts::{
        Accounts, Client, Login, RefreshToken, passwords::Password, settings::Registration,
    },
    authn::credential,
    policy::{RedirectTarget, Rejection},
    portal::{
        cookies,
        endpoints::{Answered, Call, NAME_BYTES_MAX},
        forms, requests,
    },
    respond::{
        self,
        page::{Look, redirect},
    },
};

/// What `done` says where the cookies of a login were given out a moment ago, to a browser that had sent none.
const LOGIN: &str = "login";

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    look: &'a Look,
    path: &'a str,
    next: Option<&'a str>,
    username: &'a str,
    error: Option<String>,
    /// What was done just now.
    done: Option<&'static str>,
    has_mail: bool,
    has_registration: bool,
}

/// Shows the form; or the page behind it to whoever is signed in, and the step of a renewal to whoever may be renewed.
pub(super) fn show(accounts: &Accounts, call: &Call, pages: &Pages) -> Answered {
    if let Some(answer) = pages.elsewhere(call) {
        return answer;
    }
    let next = pages.next(parameter(call, "next").as_deref());
    if is_signed_in(accounts, call)? {
        return redirect(StatusCode::SEE_OTHER, &pages.goal(next.as_ref()));
    }
    let done = super::done(call, pages.look.texts);
    // Whoever has just set a new password has no session left to renew.
    if done.is_none()
        && let Some(answer) = renewal::begin(call, pages, next.as_ref())?
    {
        return Ok(answer);
    }
    let are_cookies_refused =
        parameter(call, "done").as_deref() == Some(LOGIN) && !has_cookies(&call.parts.headers);
    let (status, error) = if are_cookies_refused {
        (
            StatusCode::BAD_REQUEST,
            Some(pages.look.texts.cookies_refused.to_owned()),
        )
    } else {
        (StatusCode::OK, None)
    };
    let page = LoginPage {
        done,
        error,
        ..form(accounts, pages, next.as_ref(), "")
    };
    pages
        .look
        .page(status, &page, pages.form_target(next.as_ref()))
}

/// Whether the browser keeps cookies of this host. One without any may be new here, or refuse them all.
fn has_cookies(headers: &HeaderMap) -> bool {
    headers.contains_key(COOKIE)
}

/// Whether the browser's session cookie is good.
///
/// # Errors
/// Where there are two of them, and where nobody may look.
pub(super) fn is_signed_in(accounts: &Accounts, call: &Call) -> Result<bool, Rejection> {
    let Some(token) = credential::session(&call.parts.headers)? else {
        return Ok(false);
    };
    let context = &call.context;
    let budget = context.bad_tokens.of(context.client);
    match context
        .authn
        .verify_session(token, accounts.time(), &budget)
    {
        Err(limited @ Rejection::RateLimited(_)) => Err(limited),
        verified => Ok(verified.is_ok()),
    }
}

fn form<'a>(
    accounts: &Accounts,
    pages: &'a Pages,
    next: Option<&'a RedirectTarget>,
    username: &'a str,
) -> LoginPage<'a> {
    LoginPage {
        look: &pages.look,
        path: &pages.path,
        next: next.map(RedirectTarget::as_str),
        username,
        error: None,
        done: None,
        has_mail: accounts.has_mail(),
        has_registration: accounts.settings().registration != Registration::Closed,
    }
}

/// Signs in whoever filled in the form, and sends him on. Whatever session the browser had is over (AUTH-8).
pub(super) async fn submit(accounts: &Accounts, call: Call, pages: &Pages) -> Answered {
    let headers = &call.parts.headers;
    let names = ["username", "password", "next"];
    let [username, password, next] = forms::read(headers, accounts.settings(), &call.body, names)?;
    let before = cookies::refresh_cookie(headers)?;
    let device = cookies::device(headers)?;
    let username = username.unwrap_or_default();
    // Keyboards of phones put a space behind a word; no name and no address has one.
    let username = username.trim();
    let next = pages.next(next.as_deref().map(String::as_str));
    let refuse = |rejection: Rejection| {
        let document = respond::refusal(&rejection, &call.context.request_id);
        let shown = if username.len() > NAME_BYTES_MAX {
            ""
        } else {
            username
        };
        let page = LoginPage {
            error: Some(told(&rejection, pages.look.texts)),
            ..form(accounts, pages, next.as_ref(), shown)
        };
        let target = pages.form_target(next.as_ref());
        let page = pages.look.page(document.status(), &page, target)?;
        Ok(respond::page::instead_of(document, page))
    };
    if username.len() > NAME_BYTES_MAX || username.is_empty() {
        return refuse(super::BAD);
    }
    let password = match Password::new(password.unwrap_or_default()) {
        Ok(password) => password,
        Err(error) => return refuse(error.into()),
    };
    let login = Login {
        device: device.as_ref(),
        name: username,
        password,
        client: Client {
            ip: call.context.client.ip(),
            device: requests::user_agent(headers),
        },
    };
    let grant = match accounts.login(login).await {
        Ok(grant) => grant,
        Err(rejection) => return refuse(rejection),
    };
    if let Some(token) = before.as_deref().and_then(|text| RefreshToken::parse(text)) {
        accounts.logout(&token).await?;
    }
    let goal = if has_cookies(headers) {
        pages.goal(next.as_ref())
    } else {
        past_login(pages, next.as_ref())
    };
    let response: Response<Bytes> = redirect(StatusCode::SEE_OTHER, &goal)?;
    cookies::grant(response, &grant, accounts.settings())
}

/// Where somebody who has signed in goes whose browser may refuse cookies: by way of the login page, which sends him on if it is given
/// one, and else tells him. The page that he wants could only ask for a login once more.
fn past_login(pages: &Pages, next: Option<&RedirectTarget>) -> String {
    let mut pairs = vec![("done", LOGIN)];
    pairs.extend(next.map(|next| ("next", next.as_str())));
    format!("{}{}/login?{}", pages.origin, pages.path, query(&pairs))
}
