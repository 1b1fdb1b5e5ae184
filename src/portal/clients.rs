//! Token introspection (RFC 7662) and revocation (RFC 7009), for services that prove who they are.
//!
//! What is not a token of ours for that very service is answered as if there were none: inactive, or revoked already (SESS-8).

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::{
    answers,
    endpoints::{Answered, Call},
    requests::only,
};
use crate::{
    accounts::{Accounts, RefreshToken, settings::ClientSettings},
    policy::{HeadFault, Rejection, Unlimited},
};

const BAD: Rejection = Rejection::BadRequest(HeadFault::Body);

/// The fields that are looked at; others are none of ours (RFC 7662 §2.1).
#[derive(Default)]
struct Form {
    token: Option<Zeroizing<String>>,
    client_id: Option<Zeroizing<String>>,
    client_secret: Option<Zeroizing<String>>,
}

/// The same fields, for the description of the interface. Others are taken and not looked at.
pub(super) fn form_schema() -> serde_json::Value {
    serde_json::json!({
        "type": "object",
        "required": ["token"],
        "properties": {
            "token": { "type": "string" },
            "token_type_hint": { "type": "string", "description": "Not looked at." },
            "client_id": { "type": "string", "description": "With `client_secret`, where the client does not use HTTP Basic." },
            "client_secret": { "type": "string", "format": "password" },
        },
    })
}

/// Says of a token whether it is good, and what it says.
pub(super) async fn introspect(accounts: &Accounts, call: Call) -> Answered {
    let (client, token) = authenticated(accounts, &call.parts.headers, &call.body)?;
    // A refresh token is a secret between its client and us; no service is told of one.
    let Ok(identity) = call
        .context
        .authn
        .verify(&token, accounts.time(), &Unlimited)
    else {
        return Ok(answers::inactive());
    };
    if accounts.is_active(identity.claims(), client).await? {
        Ok(answers::active(identity.claims()))
    } else {
        Ok(answers::inactive())
    }
}

/// Takes a token back: an access token alone, a refresh token with its session. One that is not good needs nothing (RFC 7009 §2.2).
pub(super) async fn revoke(accounts: &Accounts, call: Call) -> Answered {
    let (client, token) = authenticated(accounts, &call.parts.headers, &call.body)?;
    if let Some(token) = RefreshToken::parse(&token) {
        if accounts.may_end_sessions(client) {
            accounts.logout(&token).await?;
        }
    } else if let Ok(identity) = call
        .context
        .authn
        .verify(&token, accounts.time(), &Unlimited)
    {
        accounts
            .revoke_access_token(identity.claims(), client)
            .await?;
    }
    let mut response = answers::no_content();
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

/// The client, and the token that it sent.
fn authenticated<'a>(
    accounts: &'a Accounts,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(&'a ClientSettings, Zeroizing<String>), Rejection> {
    let form = form(headers, body)?;
    let basic = only(headers, &AUTHORIZATION)?;
    let client = match (basic, form.client_secret) {
        // RFC 6749 §2.3: one method for each request.
        (Some(_), Some(_)) => return Err(BAD),
        (Some(basic), None) => by_basic(accounts, basic)?,
        (None, Some(secret)) => {
            let id = form.client_id.ok_or(Rejection::InvalidClient)?;
            accounts.client(&id, secret.as_bytes())?
        }
        (None, None) => return Err(Rejection::InvalidClient),
    };
    Ok((client, form.token.ok_or(BAD)?))
}

/// Name and secret should be form-encoded before they are joined (RFC 6749 §2.3.1), which half of all clients do not do; either
/// is taken, for both must fit a secret of 32 random bytes.
fn by_basic<'a>(accounts: &'a Accounts, field: &str) -> Result<&'a ClientSettings, Rejection> {
    let (scheme, rest) = field.split_once(' ').ok_or(Rejection::InvalidClient)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Rejection::InvalidClient);
    }
    let pair = STANDARD.decode(rest.trim_start_matches(' '));
    let pair = pair.map_err(|_| Rejection::InvalidClient)?;
    let pair = Zeroizing::new(String::from_utf8(pair).map_err(|_| Rejection::InvalidClient)?);
    let (id, secret) = pair.split_once(':').ok_or(Rejection::InvalidClient)?;
    accounts
        .client(id, secret.as_bytes())
        .or_else(|_| accounts.client(&decoded(id), decoded(secret).as_bytes()))
}

/// A form-encoded word, decoded. One with a `&` or `=` in it is no such word, and fits nothing.
fn decoded(word: &str) -> Zeroizing<String> {
    let mut pairs = form_urlencoded::parse(word.as_bytes());
    let first = pairs.next().map(|(name, _)| name.into_owned());
    Zeroizing::new(first.unwrap_or_default())
}

/// Reads `application/x-www-form-urlencoded`; a field that is looked at may not come twice (RFC 6749 §3.2).
fn form(headers: &HeaderMap, body: &[u8]) -> Result<Form, Rejection> {
    let media_type = only(headers, &CONTENT_TYPE)?.ok_or(Rejection::UnsupportedMediaType)?;
    let media_type = media_type.split(';').next().unwrap_or_default();
    if !media_type
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    {
        return Err(Rejection::UnsupportedMediaType);
    }
    let mut form = Form::default();
    for (name, value) in form_urlencoded::parse(body) {
        let place = match &*name {
            "token" => &mut form.token,
            "client_id" => &mut form.client_id,
            "client_secret" => &mut form.client_secret,
            _ => continue,
        };
        if place.replace(Zeroizing::new(value.into_owned())).is_some() {
            return Err(BAD);
        }
    }
    Ok(form)
}
