//! The pages of forgotten passwords. A page that a link in a mail leads to does nothing by itself: programs open links, to
//! look for harm or to show a preview, and press no buttons.

use http::StatusCode;

use super::{
    Pages,
    form::{self, Field, FormPage, MessagePage, Submitted, Token},
};
use crate::{
    accounts::{Accounts, canonical_email},
    policy::Rejection,
    portal::{
        cookies,
        endpoints::{Answered, Call, NAME_BYTES_MAX},
        forms,
    },
    respond::page::redirect,
};

/// Asks for the address.
pub(super) fn show_forgot(call: &Call, pages: &Pages) -> Answered {
    if let Some(answer) = pages.elsewhere(call) {
        return answer;
    }
    pages.look.page(StatusCode::OK, &forgot(pages, ""), None)
}

fn forgot<'a>(pages: &'a Pages, email: &'a str) -> FormPage<'a> {
    let texts = pages.look.texts;
    FormPage {
        look: &pages.look,
        path: &pages.path,
        heading: texts.forgot,
        text: Some(texts.forgot_text),
        action: format!("{}/password/forgot", pages.path),
        hidden: None,
        fields: vec![Field {
            name: "email",
            label: texts.email_address,
            kind: "email",
            value: email,
            autocomplete: "email",
            hint: None,
            most: NAME_BYTES_MAX,
        }],
        button: texts.forgot_button,
        error: None,
    }
}

/// Takes the request. The page that follows is the same for every address.
pub(super) async fn submit_forgot(accounts: &Accounts, call: Call, pages: &Pages) -> Answered {
    let headers = &call.parts.headers;
    let [email] = forms::read(headers, accounts.settings(), &call.body, ["email"])?;
    let email = email.unwrap_or_default();
    let email = email.trim();
    let shown = if email.len() > NAME_BYTES_MAX {
        ""
    } else {
        email
    };
    let mut page = forgot(pages, shown);
    let texts = pages.look.texts;
    if canonical_email(email).is_none() {
        page.error = Some(texts.email_unfit.into());
        return form::refused(&call, pages, &super::BAD, page);
    }
    let ip = call.context.client.ip();
    if let Err(rejection) = accounts.forgot_password(email, ip).await {
        return form::refused(&call, pages, &rejection, page);
    }
    let page = MessagePage {
        look: &pages.look,
        heading: texts.look_into_mail,
        text: texts.forgot_done,
        href: format!("{}/login", pages.path),
        label: texts.to_sign_in,
    };
    pages.look.page(form::ASKED, &page, None)
}

/// Asks for the new password, where the link has the form of one. Whether it is good is not looked up.
pub(super) fn show_reset(accounts: &Accounts, call: &Call, pages: &Pages) -> Answered {
    if let Some(answer) = pages.elsewhere_bare(call) {
        return answer;
    }
    match form::opened_link(call) {
        Some(token) => {
            let page = reset(accounts, pages, token);
            pages.look.page(StatusCode::OK, &page, None)
        }
        None => dead(call, pages),
    }
}

fn reset<'a>(accounts: &Accounts, pages: &'a Pages, token: Token) -> FormPage<'a> {
    let texts = pages.look.texts;
    FormPage {
        look: &pages.look,
        path: &pages.path,
        heading: texts.reset,
        text: Some(texts.reset_text),
        action: format!("{}/password/reset", pages.path),
        hidden: Some(("token", token)),
        fields: vec![super::new_password(accounts, texts.new_password, texts)],
        button: texts.reset_button,
        error: None,
    }
}

/// Sets the password, and leads to the login page: whoever has a link is not signed in by it (RST-3).
pub(super) async fn submit_reset(accounts: &Accounts, call: Call, pages: &Pages) -> Answered {
    let sent = form::submitted_link(accounts, &call, "new_password")?;
    let Some(Submitted { token, password }) = sent else {
        return dead(&call, pages);
    };
    let ip = call.context.client.ip();
    let done = match password {
        Ok(new) => accounts.reset_password(&token, new, ip).await,
        Err(rejection) => Err(rejection),
    };
    match done {
        Ok(device) => {
            let login = format!("{}{}/login?done=password", pages.origin, pages.path);
            cookies::set_device(redirect(StatusCode::SEE_OTHER, &login)?, &device)
        }
        Err(Rejection::LinkInvalid) => dead(&call, pages),
        Err(rejection) => form::refused(&call, pages, &rejection, reset(accounts, pages, token)),
    }
}

/// A link that is not, or no longer, good.
fn dead(call: &Call, pages: &Pages) -> Answered {
    form::dead_link(
        call,
        pages,
        ("/password/forgot", pages.look.texts.forgot_again),
    )
}
