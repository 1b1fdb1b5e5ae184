//! User administration over HTTP, for the role `admin` of our own accounts.
//!
//! The table of endpoints asks for the role before anything of this runs, and the store asks for it again in the transaction
//! of each change (AUTH-10). A bearer token alone opens these routes: nothing that a browser sends by itself does.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header::AUTHORIZATION};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::{
    answers,
    endpoints::{Answered, Call, claims},
    requests::{self, Secret},
};
use crate::{
    accounts::{Accounts, Actor, Edit, INVITE_TTL, NewAccount, NewInvitation, passwords::Password},
    policy::{HeadFault, Rejection},
    store::{Invite, User},
};

const BAD: Rejection = Rejection::BadRequest(HeadFault::Body);

/// Accounts in one answer.
pub(super) const PAGE: u32 = 50;
pub(super) const PAGE_MAX: u32 = 200;

/// The longest id or name in a path or query.
pub(super) const ID_BYTES_MAX: usize = 64;

/// What an administrator may ask for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    Change,
    Create,
    Delete,
    Invite,
    Invites,
    List,
    Logout,
    RevokeInvite,
    Show,
}

impl Operation {
    /// Whether it is of no use where nobody may register.
    pub(super) const fn is_of_invitations(self) -> bool {
        matches!(self, Self::Invite | Self::Invites | Self::RevokeInvite)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CreateUser")]
pub(super) struct CreateBody {
    username: String,
    email: String,
    name: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    password: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ChangeUser")]
pub(super) struct ChangeBody {
    email: Option<String>,
    /// `null` takes it away.
    #[serde(default, deserialize_with = "present")]
    name: Option<Option<String>>,
    roles: Option<Vec<String>>,
    disabled: Option<bool>,
    password: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CreateInvite")]
pub(super) struct InviteBody {
    #[serde(default)]
    roles: Vec<String>,
    email: Option<String>,
    /// Seconds.
    expires_in: Option<u64>,
    /// Whether it is sent to `email` by mail; then its secret is in no answer.
    #[serde(default)]
    send: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Account")]
pub(super) struct UserAnswer<'a> {
    id: &'a str,
    username: &'a str,
    email: Option<&'a str>,
    name: Option<&'a str>,
    roles: &'a [Box<str>],
    disabled: bool,
    deleted: bool,
    pending: bool,
    password: bool,
    created: u64,
    updated: u64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Accounts")]
pub(super) struct UsersAnswer<'a> {
    users: Vec<UserAnswer<'a>>,
    /// What to send as `after` for the accounts that follow; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Invite")]
pub(super) struct InviteAnswer<'a> {
    id: &'a str,
    roles: &'a [Box<str>],
    email: Option<&'a str>,
    created_by: Option<&'a str>,
    created: u64,
    expires: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    invite: Option<&'a str>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Invites")]
pub(super) struct InvitesAnswer<'a> {
    invites: Vec<InviteAnswer<'a>>,
}

pub(super) async fn operate(accounts: &Accounts, operation: Operation, call: Call) -> Answered {
    let headers = &call.parts.headers;
    if !headers.contains_key(AUTHORIZATION) {
        return Err(Rejection::CredentialsMissing);
    }
    requests::refuse_foreign_origin(headers, accounts.settings())?;
    let subject = claims(&call)?.subject.clone();
    let actor = Actor::Administrator(&subject);
    match operation {
        Operation::Change => change(accounts, actor, &call).await,
        Operation::Create => create(accounts, actor, &call).await,
        Operation::Delete => {
            accounts.erase_user(actor, segment(&call, 0)?).await?;
            Ok(answers::no_content())
        }
        Operation::Invite => invite(accounts, actor, &call).await,
        Operation::Invites => {
            let invites = accounts.invites().await?;
            let invites = invites.iter().map(|invite| describe_invite(invite, None));
            let invites = invites.collect();
            Ok(answers::json(&InvitesAnswer { invites }))
        }
        Operation::List => list(accounts, &call).await,
        Operation::Logout => {
            accounts.sign_out(actor, segment(&call, 1)?).await?;
            Ok(answers::no_content())
        }
        Operation::RevokeInvite => {
            accounts.revoke_invite(actor, segment(&call, 0)?).await?;
            Ok(answers::no_content())
        }
        Operation::Show => {
            let user = accounts.user_by_id(segment(&call, 0)?).await?;
            Ok(answers::json(&describe(&user)))
        }
    }
}

async fn list(accounts: &Accounts, call: &Call) -> Answered {
    let (after, limit) = page(call.parts.uri.query().unwrap_or_default())?;
    let users = accounts.users(&after, limit).await?;
    let full = usize::try_from(limit) == Ok(users.len());
    let last = users.last().filter(|_| full);
    Ok(answers::json(&UsersAnswer {
        users: users.iter().map(describe).collect(),
        next: last.map(|user| &*user.username),
    }))
}

async fn create(accounts: &Accounts, actor: Actor<'_>, call: &Call) -> Answered {
    let body: CreateBody = requests::json(&call.parts.headers, &call.body)?;
    let new = NewAccount {
        username: &body.username,
        email: &body.email,
        name: body.name.as_deref(),
        password: password(body.password)?,
        roles: &body.roles,
    };
    let user = accounts.create_user(actor, new).await?;
    Ok(created(answers::json(&describe(&user))))
}

async fn change(accounts: &Accounts, actor: Actor<'_>, call: &Call) -> Answered {
    let id = segment(call, 0)?;
    let body: ChangeBody = requests::json(&call.parts.headers, &call.body)?;
    let edit = Edit {
        email: body.email.as_deref(),
        name: body.name.as_ref().map(Option::as_deref),
        password: password(body.password)?,
        roles: body.roles.as_deref(),
        disabled: body.disabled,
    };
    let user = accounts.edit_user(actor, id, edit).await?;
    Ok(answers::json(&describe(&user)))
}

async fn invite(accounts: &Accounts, actor: Actor<'_>, call: &Call) -> Answered {
    let body: InviteBody = requests::json(&call.parts.headers, &call.body)?;
    let ttl = body.expires_in.map_or(INVITE_TTL, Duration::from_secs);
    let new = NewInvitation {
        roles: &body.roles,
        email: body.email.as_deref(),
        ttl,
        send: body.send,
    };
    let made = accounts.invite(actor, new).await?;
    let secret: Option<Zeroizing<String>> = made.secret.map(|secret| secret.reveal());
    let secret = secret.as_ref().map(|secret| secret.as_str());
    Ok(created(answers::json(&describe_invite(
        &made.invite,
        secret,
    ))))
}

/// What is told of an account to those who administer it and to its owner when it is made: never its hash.
fn describe(user: &User) -> UserAnswer<'_> {
    UserAnswer {
        id: &user.id,
        username: &user.username,
        email: user.email.as_deref(),
        name: user.name.as_deref(),
        roles: &user.roles,
        disabled: user.disabled,
        deleted: user.email.is_none(),
        pending: user.pending,
        password: user.password.is_some(),
        created: user.created_at,
        updated: user.updated_at,
    }
}

fn describe_invite<'a>(invite: &'a Invite, secret: Option<&'a str>) -> InviteAnswer<'a> {
    InviteAnswer {
        id: &invite.id,
        roles: &invite.roles,
        email: invite.email.as_deref(),
        created_by: invite.created_by.as_deref(),
        created: invite.created_at,
        expires: invite.expires_at,
        invite: secret,
    }
}

pub(super) fn created(mut response: Response<Bytes>) -> Response<Bytes> {
    *response.status_mut() = StatusCode::CREATED;
    response
}

pub(super) fn password(secret: Option<Secret>) -> Result<Option<Password>, Rejection> {
    let password = secret.map(|secret| Password::new(secret.0));
    Ok(password.transpose()?)
}

/// A segment of the path, counted from its end. An id that cannot be one is as unknown as any.
fn segment(call: &Call, from_end: usize) -> Result<&str, Rejection> {
    let segment = call.parts.uri.path().rsplit('/').nth(from_end);
    segment
        .filter(|id| id.len() <= ID_BYTES_MAX)
        .ok_or(Rejection::RouteNotFound)
}

/// Reads `after` and `limit`, each once at most, and nothing else.
fn page(query: &str) -> Result<(String, u32), Rejection> {
    let (mut after, mut limit) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let repeated = match &*name {
            "after" if value.len() <= ID_BYTES_MAX => after.replace(value.into_owned()).is_some(),
            "limit" => {
                let number: u32 = value.parse().map_err(|_| BAD)?;
                limit.replace(number).is_some()
            }
            _ => true,
        };
        if repeated {
            return Err(BAD);
        }
    }
    let limit = limit.unwrap_or(PAGE);
    if (1..=PAGE_MAX).contains(&limit) {
        Ok((after.unwrap_or_default(), limit))
    } else {
        Err(BAD)
    }
}

/// Tells a field that is `null` from one that is absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
