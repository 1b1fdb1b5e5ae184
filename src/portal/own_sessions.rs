//! What callers are told of themselves, and the sessions of theirs that they end.

use super::{
    answers,
    endpoints::{Answered, Call, claims},
};
use crate::{accounts::Accounts, policy::Rejection};

pub(super) async fn logout_all(accounts: &Accounts, call: Call) -> Answered {
    accounts.logout_all(&claims(&call)?.subject).await?;
    Ok(answers::no_content())
}

pub(super) fn me(accounts: &Accounts, call: &Call) -> Answered {
    Ok(answers::me(claims(call)?, accounts.time()))
}

pub(super) async fn sessions(accounts: &Accounts, call: Call) -> Answered {
    let claims = claims(&call)?;
    let sessions = accounts.sessions(&claims.subject).await?;
    Ok(answers::sessions(&sessions, claims.session.as_deref()))
}

/// Sessions are looked for among the caller's own, so another's id is as unknown as a made-up one.
pub(super) async fn end_session(accounts: &Accounts, call: Call) -> Answered {
    let claims = claims(&call)?;
    let path = call.parts.uri.path();
    let id = path.rsplit('/').next().filter(|id| id.len() <= 64);
    let id = id.ok_or(Rejection::RouteNotFound)?;
    if accounts.end_session(&claims.subject, id).await? {
        Ok(answers::no_content())
    } else {
        Err(Rejection::RouteNotFound)
    }
}
