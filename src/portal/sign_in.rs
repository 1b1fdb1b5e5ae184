//! Login, refresh and logout: what a program sends as JSON. A form of a page is handed on to the page.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    answers, cookies,
    endpoints::{Answered, Call, Context, NAME_BYTES_MAX},
    forms,
    pages::{self, Page},
    requests::{self, Secret},
};
use crate::{
    accounts::{Accounts, Client, Grant, ISSUER_NAME, Login, RefreshToken, passwords::Password},
    policy::{Access, Caller, HeadFault, Rejection},
};

/// Where the refresh token goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Delivery {
    Body,
    #[default]
    Cookie,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Login")]
pub(super) struct LoginBody {
    username: String,
    password: Secret,
    #[serde(default)]
    delivery: Delivery,
}

#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RefreshToken")]
pub(super) struct TokenBody {
    refresh_token: Option<Secret>,
}

pub(super) async fn login(accounts: &Accounts, call: Call) -> Answered {
    if forms::is_form(&call.parts.headers) && call.context.pages.is_some() {
        return pages::serve(accounts, Page::SubmitLogin, call).await;
    }
    // A page elsewhere must not sign its visitor in to an account of its own choice (AUTH-8).
    requests::refuse_foreign_origin(&call.parts.headers, accounts.settings())?;
    let before = cookies::refresh_cookie(&call.parts.headers)?;
    let body: LoginBody = requests::json(&call.parts.headers, &call.body)?;
    if body.username.len() > NAME_BYTES_MAX {
        return Err(Rejection::BadRequest(HeadFault::Body));
    }
    let device = cookies::device(&call.parts.headers)?;
    let login = Login {
        device: device.as_ref(),
        name: &body.username,
        password: Password::new(body.password.0)?,
        client: Client {
            ip: call.context.client.ip(),
            device: requests::user_agent(&call.parts.headers),
        },
    };
    let grant = accounts.login(login).await?;
    // Whoever put that cookie there, its session is not this login's, and nobody goes on with it.
    if let Some(token) = before.as_deref().and_then(|text| RefreshToken::parse(text)) {
        accounts.logout(&token).await?;
    }
    deliver(accounts, &grant, body.delivery)
}

pub(super) async fn refresh(accounts: &Accounts, call: Call) -> Answered {
    let headers = &call.parts.headers;
    let cookie = cookies::refresh_cookie(headers)?;
    let body: TokenBody = if call.body.is_empty() {
        TokenBody::default()
    } else {
        requests::json(headers, &call.body)?
    };
    let (text, delivery) = match (cookie, body.refresh_token.map(|token| token.0)) {
        (Some(_), Some(_)) => return Err(Rejection::AmbiguousCredentials),
        (None, None) => return Err(Rejection::InvalidGrant),
        (None, Some(token)) => (token, Delivery::Body),
        (Some(token), None) => {
            requests::require_own_origin(headers, accounts.settings())?;
            (token, Delivery::Cookie)
        }
    };
    let token = RefreshToken::parse(&text).ok_or(Rejection::InvalidGrant)?;
    let grant = accounts.refresh(&token, call.context.client.ip()).await?;
    deliver(accounts, &grant, delivery)
}

/// Ends the session of whatever was presented: cookie, token in the body, access token. What is not good ends nothing, and
/// the answer is the same (SESS-5).
pub(super) async fn logout(accounts: &Accounts, call: Call) -> Answered {
    if forms::is_form(&call.parts.headers) && call.context.pages.is_some() {
        return pages::serve(accounts, Page::SubmitLogout, call).await;
    }
    let headers = &call.parts.headers;
    let cookie = cookies::refresh_cookie(headers)?;
    if cookie.is_some() {
        requests::require_own_origin(headers, accounts.settings())?;
    }
    let body: TokenBody = if call.body.is_empty() {
        TokenBody::default()
    } else {
        requests::json(headers, &call.body)?
    };
    for text in cookie
        .iter()
        .chain(&body.refresh_token.map(|token| token.0))
    {
        if let Some(token) = RefreshToken::parse(text) {
            accounts.logout(&token).await?;
        }
    }
    let Context {
        authn,
        bad_tokens,
        client,
        ..
    } = &call.context;
    let budget = bad_tokens.of(*client);
    let bearer = authn.authenticate(headers, Access::Optional, accounts.time(), &budget);
    // Nobody has looked at this token: to say that its session has ended would be untrue.
    if let Err(limited @ Rejection::RateLimited(_)) = bearer {
        return Err(limited);
    }
    if let Ok(Caller::Verified(identity)) = bearer {
        let claims = identity.claims();
        if let (true, Some(session)) = (*claims.issuer_name == *ISSUER_NAME, &claims.session) {
            accounts.end_session(&claims.subject, session).await?;
        }
    }
    match cookie {
        Some(_) => cookies::forget(answers::no_content(), accounts.settings()),
        None => Ok(answers::no_content()),
    }
}

fn deliver(accounts: &Accounts, grant: &Grant, delivery: Delivery) -> Answered {
    match delivery {
        Delivery::Body => Ok(answers::grant(grant, true)),
        Delivery::Cookie => {
            cookies::grant(answers::grant(grant, false), grant, accounts.settings())
        }
    }
}
