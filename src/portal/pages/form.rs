//! What the pages with a form have in common: fields, errors, and messages that follow.

use askama::Template;
use http::StatusCode;
use zeroize::Zeroizing;

use super::{Pages, parameter};
use crate::{
    accounts::{Accounts, RefreshToken, passwords::Password},
    policy::{PasswordFault, Rejection},
    portal::{
        endpoints::{Answered, Call},
        forms,
    },
    respond::{self, page::Look, texts::Texts},
};

/// A secret that goes from a link through a form.
pub(super) type Token = Zeroizing<String>;

/// A page with one form.
#[derive(Template)]
#[template(path = "form.html")]
pub(super) struct FormPage<'a> {
    pub(super) look: &'a Look,
    pub(super) path: &'a str,
    pub(super) heading: &'a str,
    pub(super) text: Option<&'a str>,
    pub(super) action: String,
    /// A field that goes along unseen.
    pub(super) hidden: Option<(&'static str, Token)>,
    pub(super) fields: Vec<Field<'a>>,
    pub(super) button: &'a str,
    pub(super) error: Option<String>,
}

/// A field that is filled in. All are needed.
pub(super) struct Field<'a> {
    pub(super) name: &'static str,
    pub(super) label: &'a str,
    pub(super) kind: &'static str,
    pub(super) value: &'a str,
    pub(super) autocomplete: &'static str,
    pub(super) hint: Option<String>,
    /// Characters.
    pub(super) most: usize,
}

/// A page that says something, with one way on.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct MessagePage<'a> {
    pub(super) look: &'a Look,
    pub(super) heading: &'a str,
    pub(super) text: &'a str,
    pub(super) href: String,
    pub(super) label: &'a str,
}

/// A form that was refused: what is said of it, and the answer whose status and fields stay.
pub(super) fn refused(
    call: &Call,
    pages: &Pages,
    rejection: &Rejection,
    mut page: FormPage<'_>,
) -> Answered {
    let document = respond::refusal(rejection, &call.context.request_id);
    page.error
        .get_or_insert_with(|| told(rejection, pages.look.texts));
    let page = pages.look.page(document.status(), &page, None)?;
    Ok(respond::page::instead_of(document, page))
}

/// Tells that the link of a mail is not, or no longer, good, and where there is another: a page below the prefix, and its label.
pub(super) fn dead_link(call: &Call, pages: &Pages, (path, label): (&str, &str)) -> Answered {
    let texts = pages.look.texts;
    let page = MessagePage {
        look: &pages.look,
        heading: texts.link_invalid,
        text: texts.link_invalid_text,
        href: format!("{}{path}", pages.path),
        label,
    };
    let document = respond::refusal(&Rejection::LinkInvalid, &call.context.request_id);
    let page = pages.look.page(document.status(), &page, None)?;
    Ok(respond::page::instead_of(document, page))
}

/// The token of the link that leads to a page, where it has the form of one. Whether it is good is not looked up.
pub(super) fn opened_link(call: &Call) -> Option<Token> {
    let token = parameter(call, "token").map(Zeroizing::new);
    token.filter(|token| RefreshToken::parse(token).is_some())
}

/// What the form behind a link brings.
pub(super) struct Submitted {
    pub(super) token: Token,
    /// As it was typed; or why it is none.
    pub(super) password: Result<Password, Rejection>,
}

/// Reads the form behind a link, with the password in this field; `None` where the token has not the form of one.
pub(super) fn submitted_link(
    accounts: &Accounts,
    call: &Call,
    field: &str,
) -> Result<Option<Submitted>, Rejection> {
    let headers = &call.parts.headers;
    let names = ["token", field];
    let [token, password] = forms::read(headers, accounts.settings(), &call.body, names)?;
    let token = token.filter(|token| RefreshToken::parse(token).is_some());
    let password = Password::new(password.unwrap_or_default()).map_err(Rejection::from);
    Ok(token.map(|token| Submitted { token, password }))
}

/// Whether a program or a form of a page sends this, where there are pages.
pub(in crate::portal) fn is_of_page(call: &Call) -> bool {
    forms::is_form(&call.parts.headers) && call.context.pages.is_some()
}

/// What a person is told of a refusal.
pub(super) fn told(rejection: &Rejection, texts: &Texts) -> String {
    if let Rejection::RateLimited(exceeded) = rejection {
        let wait = respond::whole_seconds(exceeded.retry_after);
        return format!("{} {wait} {}", texts.limited_before, texts.limited_after);
    }
    if let Rejection::PasswordRefused(fault) = rejection {
        return match fault {
            PasswordFault::Breached => texts.password_breached,
            PasswordFault::Common => texts.password_common,
            PasswordFault::TooLong => texts.password_too_long,
            PasswordFault::TooShort => texts.password_too_short,
        }
        .into();
    }
    let known = [
        (Rejection::AccountExists, texts.taken),
        (super::BAD, texts.unfit),
        (Rejection::InvalidCredentials, texts.wrong),
        (Rejection::LinkInvalid, texts.invite_invalid),
        (Rejection::Overloaded, texts.overloaded),
    ];
    let mut known = known.into_iter();
    let found = known.find(|(known, _)| known == rejection);
    let text = found.map_or(texts.unavailable, |(_, text)| text);
    text.into()
}

/// What a password needs, beside its field.
pub(super) fn password_hint(least: usize, texts: &Texts) -> String {
    format!("{} {least} {}", texts.least_before, texts.least_after)
}

/// The status of a page that says that something was asked for.
pub(super) const ASKED: StatusCode = StatusCode::ACCEPTED;
