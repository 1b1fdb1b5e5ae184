//! The logout page: asked by GET, done by POST.

use askama::Template;
use http::StatusCode;

use super::{Pages, form::MessagePage};
use crate::{
    accounts::{Accounts, RefreshToken},
    authn::credential,
    policy::Rejection,
    portal::{
        cookies,
        endpoints::{Answered, Call},
        forms,
    },
    respond::page::Look,
};

#[derive(Template)]
#[template(path = "logout.html")]
struct LogoutPage<'a> {
    look: &'a Look,
    path: &'a str,
}

/// Asks.
pub(super) fn show(call: &Call, pages: &Pages) -> Answered {
    if let Some(answer) = pages.elsewhere(call) {
        return answer;
    }
    let page = LogoutPage {
        look: &pages.look,
        path: &pages.path,
    };
    pages.look.page(StatusCode::OK, &page, None)
}

/// Ends the session of the browser's cookies, whichever of them it has, on every host at once. One that has none is signed
/// out already (SESS-5).
pub(super) async fn submit(accounts: &Accounts, call: Call, pages: &Pages) -> Answered {
    let headers = &call.parts.headers;
    let [] = forms::read(headers, accounts.settings(), &call.body, [])?;
    let refresh = cookies::refresh_cookie(headers)?;
    if let Some(token) = refresh
        .as_deref()
        .and_then(|text| RefreshToken::parse(text))
    {
        accounts.logout(&token).await?;
    }
    if let Some(token) = credential::session(headers)? {
        let context = &call.context;
        let budget = context.bad_tokens.of(context.client);
        match context
            .authn
            .verify_session(token, accounts.time(), &budget)
        {
            Ok(identity) => {
                let claims = identity.claims();
                if let Some(session) = &claims.session {
                    accounts.end_session(&claims.subject, session).await?;
                }
            }
            // Nobody has looked at this token: to say that its session has ended would be untrue.
            Err(limited @ Rejection::RateLimited(_)) => return Err(limited),
            Err(_) => {}
        }
    }
    signed_out(accounts, pages)
}

/// Says that the session has ended, and takes the cookies back.
pub(super) fn signed_out(accounts: &Accounts, pages: &Pages) -> Answered {
    let texts = pages.look.texts;
    let page = MessagePage {
        look: &pages.look,
        heading: texts.signed_out,
        text: texts.signed_out_text,
        href: format!("{}/login", pages.path),
        label: texts.sign_in_again,
    };
    let response = pages.look.page(StatusCode::OK, &page, None)?;
    cookies::forget(response, accounts.settings())
}
