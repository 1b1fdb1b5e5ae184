//! The routes over passwords: changing one's own, asking for a link, using it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    answers, cookies,
    endpoints::{Answered, Call, claims},
    pages::{self, Page, form::is_of_page},
    requests::{self, Secret},
};
use crate::{
    accounts::{Accounts, ChangePassword, passwords::Password},
    policy::{HeadFault, Rejection},
};

/// The longest address that is looked at (RFC 5321 §4.5.3.1.3).
const EMAIL_BYTES_MAX: usize = 254;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ChangePassword")]
pub(super) struct ChangeBody {
    current_password: Secret,
    new_password: Secret,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ForgotPassword")]
pub(super) struct ForgotBody {
    email: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ResetPassword")]
pub(super) struct ResetBody {
    token: Secret,
    new_password: Secret,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Accepted")]
pub(super) struct AcceptedAnswer {
    status: &'static str,
}

/// Changes the caller's password. Needs the old one, not an access token alone (AUTH-9).
pub(super) async fn change(accounts: &Accounts, call: Call) -> Answered {
    let headers = &call.parts.headers;
    requests::refuse_foreign_origin(headers, accounts.settings())?;
    let claims = claims(&call)?;
    // Every token of ours names its session.
    let session_id = claims.session.as_deref().ok_or(Rejection::Internal)?;
    let body: ChangeBody = requests::json(headers, &call.body)?;
    let device = cookies::device(headers)?;
    let change = ChangePassword {
        user_id: &claims.subject,
        session_id,
        current: Password::new(body.current_password.0)?,
        new: Password::new(body.new_password.0)?,
        device: device.as_ref(),
        ip: call.context.client.ip(),
    };
    let renewed = accounts.change_password(change).await?;
    // A browser that was known stays so; a program that is none gets no cookie.
    match device {
        Some(_) => cookies::set_device(answers::no_content(), &renewed),
        None => Ok(answers::no_content()),
    }
}

/// Takes a request for a link. The answer is the same for every address.
pub(super) async fn forgot(accounts: &Accounts, call: Call) -> Answered {
    if is_of_page(&call) {
        return pages::serve(accounts, Page::SubmitForgot, call).await;
    }
    let headers = &call.parts.headers;
    requests::refuse_foreign_origin(headers, accounts.settings())?;
    let body: ForgotBody = requests::json(headers, &call.body)?;
    if body.email.len() > EMAIL_BYTES_MAX {
        return Err(Rejection::BadRequest(HeadFault::Body));
    }
    let ip = call.context.client.ip();
    accounts.forgot_password(&body.email, ip).await?;
    Ok(answers::accepted(&AcceptedAnswer { status: "accepted" }))
}

/// Sets a new password by a link's token. Signs nobody in (RST-3).
pub(super) async fn reset(accounts: &Accounts, call: Call) -> Answered {
    if is_of_page(&call) {
        return pages::serve(accounts, Page::SubmitReset, call).await;
    }
    let headers = &call.parts.headers;
    requests::refuse_foreign_origin(headers, accounts.settings())?;
    let body: ResetBody = requests::json(headers, &call.body)?;
    let new = Password::new(body.new_password.0)?;
    let ip = call.context.client.ip();
    accounts.reset_password(&body.token.0, new, ip).await?;
    Ok(answers::no_content())
}
