//! The pages of registration.

use http::StatusCode;
use zeroize::Zeroizing;

use super::{
    Pages,
    form::{self, Field, FormPage, MessagePage, Submitted, Token},
    parameter,
};
use crate::{
    accounts::{
        Accounts, Enrolled, NewAccount, Registered, canonical_email, canonical_username,
        is_site_name, passwords::Password, settings::Registration,
    },
    policy::Rejection,
    portal::{
        endpoints::{Answered, Call, NAME_BYTES_MAX},
        forms,
    },
    respond::page::redirect,
};

/// The longest invitation that is looked at: one that is good has 43 characters.
const INVITE_BYTES_MAX: usize = 64;

/// What is shown again of a form that was refused.
#[derive(Default)]
struct Filled<'a> {
    username: &'a str,
    email: &'a str,
    invite: Option<Zeroizing<String>>,
}

/// Asks for name, address and password, and, where one is needed and the link has none, for the invitation.
pub(super) fn show_register(accounts: &Accounts, call: &Call, pages: &Pages) -> Answered {
    if let Some(answer) = pages.elsewhere_bare(call) {
        return answer;
    }
    let filled = Filled {
        invite: parameter(call, "invite").map(Zeroizing::new),
        ..Filled::default()
    };
    let page = register(accounts, pages, &filled);
    pages.look.page(StatusCode::OK, &page, None)
}

fn register<'a>(accounts: &Accounts, pages: &'a Pages, filled: &Filled<'a>) -> FormPage<'a> {
    let texts = pages.look.texts;
    let field = |name, label, kind, value, autocomplete, most| Field {
        name,
        label,
        kind,
        value,
        autocomplete,
        hint: None,
        most,
    };
    let mut username = field(
        "username",
        texts.user,
        "text",
        filled.username,
        "username",
        64,
    );
    username.hint = Some(texts.username_hint.into());
    let mut fields = vec![
        username,
        field(
            "email",
            texts.email_address,
            "email",
            filled.email,
            "email",
            NAME_BYTES_MAX,
        ),
        super::new_password(accounts, texts.password, texts),
    ];
    let invite = filled.invite.clone();
    let invite = invite.filter(|invite| invite.len() <= INVITE_BYTES_MAX);
    if invite.is_none() && accounts.settings().registration == Registration::Invite {
        fields.push(field(
            "invite",
            texts.invite,
            "text",
            "",
            "off",
            INVITE_BYTES_MAX,
        ));
    }
    FormPage {
        look: &pages.look,
        path: &pages.path,
        heading: texts.register,
        text: None,
        action: format!("{}/register", pages.path),
        hidden: invite.map(|invite| ("invite", invite)),
        fields,
        button: texts.register_button,
        error: None,
    }
}

/// Registers. With mail the page that follows is the same for a name or an address that is taken.
pub(super) async fn submit_register(accounts: &Accounts, call: Call, pages: &Pages) -> Answered {
    let headers = &call.parts.headers;
    let names = ["username", "email", "password", "invite"];
    let [username, email, password, invite] =
        forms::read(headers, accounts.settings(), &call.body, names)?;
    let (username, email) = (username.unwrap_or_default(), email.unwrap_or_default());
    let (username, email) = (username.trim(), email.trim());
    let invite = invite.filter(|invite| !invite.is_empty());
    let short = |text| {
        if str::len(text) > NAME_BYTES_MAX {
            ""
        } else {
            text
        }
    };
    let texts = pages.look.texts;
    let refuse = |rejection: Rejection, error: Option<&str>| {
        // An invitation that is not good is asked for anew.
        let invite = invite.clone();
        let filled = Filled {
            username: short(username),
            email: short(email),
            invite: invite.filter(|_| rejection != Rejection::LinkInvalid),
        };
        let mut page = register(accounts, pages, &filled);
        page.error = error.map(Into::into);
        form::refused(&call, pages, &rejection, page)
    };
    if canonical_username(username).is_none() {
        return refuse(super::BAD, Some(texts.username_unfit));
    }
    if is_site_name(username) {
        return refuse(super::BAD, Some(texts.username_of_site));
    }
    if canonical_email(email).is_none() {
        return refuse(super::BAD, Some(texts.email_unfit));
    }
    let password = match Password::new(password.unwrap_or_default()) {
        Ok(password) => password,
        Err(error) => return refuse(error.into(), None),
    };
    let by = match &invite {
        Some(invite) => Registered::Invite(invite),
        None => Registered::Oneself,
    };
    let new = NewAccount {
        username,
        email,
        name: None,
        password: Some(password),
        roles: &[],
    };
    match accounts.register(by, new, call.context.client.ip()).await {
        Ok(Enrolled::Made(_)) => to_login(pages),
        Ok(Enrolled::Pending) => pending(pages),
        Err(rejection) => refuse(rejection, None),
    }
}

fn pending(pages: &Pages) -> Answered {
    let texts = pages.look.texts;
    let page = MessagePage {
        look: &pages.look,
        heading: texts.look_into_mail,
        text: texts.register_done,
        href: format!("{}/login", pages.path),
        label: texts.to_sign_in,
    };
    pages.look.page(form::ASKED, &page, None)
}

fn to_login(pages: &Pages) -> Answered {
    let login = format!("{}{}/login?done=registered", pages.origin, pages.path);
    redirect(StatusCode::SEE_OTHER, &login)
}

/// Asks for the password that was chosen, where the link has the form of one. Nothing is looked up.
pub(super) fn show_verify(call: &Call, pages: &Pages) -> Answered {
    if let Some(answer) = pages.elsewhere_bare(call) {
        return answer;
    }
    match form::opened_link(call) {
        Some(token) => pages.look.page(StatusCode::OK, &verify(pages, token), None),
        None => dead(call, pages),
    }
}

fn verify(pages: &Pages, token: Token) -> FormPage<'_> {
    let texts = pages.look.texts;
    FormPage {
        look: &pages.look,
        path: &pages.path,
        heading: texts.verify,
        text: Some(texts.verify_text),
        action: format!("{}/register/verify", pages.path),
        hidden: Some(("token", token)),
        fields: vec![Field {
            name: "password",
            label: texts.password,
            kind: "password",
            value: "",
            autocomplete: "current-password",
            hint: None,
            most: 256,
        }],
        button: texts.verify_button,
        error: None,
    }
}

/// Makes the account, and leads to the login page.
pub(super) async fn submit_verify(accounts: &Accounts, call: Call, pages: &Pages) -> Answered {
    let sent = form::submitted_link(accounts, &call, "password")?;
    let Some(Submitted { token, password }) = sent else {
        return dead(&call, pages);
    };
    let ip = call.context.client.ip();
    let made = match password {
        Ok(password) => accounts.verify_registration(&token, password, ip).await,
        Err(rejection) => Err(rejection),
    };
    match made {
        Ok(_) => to_login(pages),
        Err(Rejection::LinkInvalid) => dead(&call, pages),
        Err(rejection) => {
            let mut page = verify(pages, token);
            if rejection == Rejection::InvalidCredentials {
                page.error = Some(pages.look.texts.verify_wrong.into());
            }
            form::refused(&call, pages, &rejection, page)
        }
    }
}

/// A link that is not, or no longer, good.
fn dead(call: &Call, pages: &Pages) -> Answered {
    form::dead_link(call, pages, ("/register", pages.look.texts.register_again))
}
