//! Accounts that people make themselves: the first administrator's, by the secret that `portcullis init` told, and others' as
//! `accounts.registration` says.
//!
//! No field of these bodies is a role or a state (AUTH-7). Roles are those of the invitation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    administration::{created, password},
    answers,
    endpoints::{Answered, Call},
    pages::{self, Page, form::is_of_page},
    requests::{self, Secret},
};
use crate::{
    accounts::{Accounts, Enrolled, NewAccount, Registered, passwords::Password},
    policy::Rejection,
    store::User,
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Register")]
pub(super) struct RegisterBody {
    username: String,
    email: String,
    password: Secret,
    name: Option<String>,
    invite: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Bootstrap")]
pub(super) struct BootstrapBody {
    secret: Secret,
    username: String,
    email: String,
    password: Secret,
    name: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Registered")]
pub(super) struct RegisteredAnswer<'a> {
    user: RegisteredUser<'a>,
}

/// A mail is on its way; whether there will be an account is told nobody else.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Pending")]
pub(super) struct PendingAnswer {
    status: &'static str,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct RegisteredUser<'a> {
    id: &'a str,
    username: &'a str,
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    roles: &'a [Box<str>],
}

pub(super) async fn register(accounts: &Accounts, call: Call) -> Answered {
    if is_of_page(&call) {
        return pages::serve(accounts, Page::SubmitRegister, call).await;
    }
    requests::refuse_foreign_origin(&call.parts.headers, accounts.settings())?;
    let body: RegisterBody = requests::json(&call.parts.headers, &call.body)?;
    let by = match &body.invite {
        Some(invite) => Registered::Invite(&invite.0),
        None => Registered::Oneself,
    };
    let name = body.name.as_deref();
    let new = applicant(&body.username, &body.email, name, body.password)?;
    answer(accounts.register(by, new, call.context.client.ip()).await)
}

pub(super) async fn bootstrap(accounts: &Accounts, call: Call) -> Answered {
    requests::refuse_foreign_origin(&call.parts.headers, accounts.settings())?;
    let body: BootstrapBody = requests::json(&call.parts.headers, &call.body)?;
    let name = body.name.as_deref();
    let new = applicant(&body.username, &body.email, name, body.password)?;
    let by = Registered::Bootstrap(&body.secret.0);
    answer(accounts.register(by, new, call.context.client.ip()).await)
}

/// Whoever makes an account himself has no roles by that.
fn applicant<'a>(
    username: &'a str,
    email: &'a str,
    name: Option<&'a str>,
    secret: Secret,
) -> Result<NewAccount<'a>, Rejection> {
    Ok(NewAccount {
        username,
        email,
        name,
        password: password(Some(secret))?,
        roles: &[],
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "VerifyRegistration")]
pub(super) struct VerifyBody {
    token: Secret,
    password: Secret,
}

/// Makes the account of a registration whose link came by mail.
pub(super) async fn verify(accounts: &Accounts, call: Call) -> Answered {
    if is_of_page(&call) {
        return pages::serve(accounts, Page::SubmitVerify, call).await;
    }
    let headers = &call.parts.headers;
    requests::refuse_foreign_origin(headers, accounts.settings())?;
    let body: VerifyBody = requests::json(headers, &call.body)?;
    let password = Password::new(body.password.0)?;
    let ip = call.context.client.ip();
    let user = accounts.verify_registration(&body.token.0, password, ip);
    describe(&user.await?)
}

fn answer(made: Result<Enrolled, Rejection>) -> Answered {
    match made? {
        Enrolled::Made(user) => describe(&user),
        Enrolled::Pending => Ok(answers::accepted(&PendingAnswer { status: "pending" })),
    }
}

fn describe(user: &User) -> Answered {
    Ok(created(answers::json(&RegisteredAnswer {
        user: RegisteredUser {
            id: &user.id,
            username: &user.username,
            email: user.email.as_deref(),
            name: user.name.as_deref(),
            roles: &user.roles,
        },
    })))
}
