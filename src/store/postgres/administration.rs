//! The statements over administrators and invitations. Every value is bound, none is written into SQL (STORE-4).
//!
//! Whoever changes who may administer, or decides by it, holds the administrators as a whole, before any row: of two who take
//! each other's role on two nodes, one waits, and is none any more when his turn comes.

use deadpool_postgres::Transaction;
use tokio_postgres::Row;

use super::{
    super::{
        Answer, Digest, Ending, Times, User, UserChange, UserKey,
        administration::{
            ADMIN, Act, Acted, AdministrationStore, INVITES_MAX, Invite, NewInvite, Redemption,
            UserEdit,
        },
        mail::Queued,
    },
    Fault, Postgres, column, count, hold, mail, names_nothing, sessions, users,
};

/// Who may administer: the condition of the index `users_admins`, or the index is not used.
const IS_ADMIN: &str =
    "'admin' = ANY (roles) AND NOT disabled AND NOT pending AND email IS NOT NULL";

const INVITE: &str = "id, bootstrap, roles, email, created_by, created_at, expires_at";

impl AdministrationStore for Postgres {
    fn administer(&self, actor: Option<Box<str>>, act: Act, times: Times) -> Answer<Acted> {
        self.call((actor, act, times), |transaction, (actor, act, times)| {
            Box::pin(administer(transaction, actor.as_deref(), act, times))
        })
    }

    fn add_bootstrap(&self, new: NewInvite) -> Answer<bool> {
        self.call(new, |transaction, new| {
            Box::pin(async move {
                hold_admins(transaction).await?;
                if has_admin_but(transaction, "").await? {
                    return Ok(false);
                }
                let statement = transaction
                    .prepare_cached("DELETE FROM invites WHERE bootstrap")
                    .await?;
                transaction.execute(&statement, &[]).await?;
                add_invite(transaction, new).await.map(|()| true)
            })
        })
    }

    fn has_admin(&self) -> Answer<bool> {
        self.call((), |transaction, ()| {
            Box::pin(has_admin_but(transaction, ""))
        })
    }

    fn invites(&self, now: u64) -> Answer<Vec<Invite>> {
        self.call(now, |transaction, now| {
            Box::pin(async move {
                let statement = transaction
                    .prepare_cached(&format!(
                        "SELECT {INVITE} FROM invites WHERE expires_at > $1 AND NOT bootstrap
                         ORDER BY created_at, id LIMIT $2"
                    ))
                    .await?;
                let rows = transaction
                    .query(&statement, &[&column(*now), &i64::from(INVITES_MAX)])
                    .await?;
                rows.iter().map(read_invite).collect()
            })
        })
    }

    fn find_invite(&self, digest: Digest, bootstrap: bool, now: u64) -> Answer<Option<Invite>> {
        self.call(
            (digest, bootstrap, now),
            |transaction, (digest, bootstrap, now)| {
                Box::pin(find_invite(transaction, digest, *bootstrap, *now))
            },
        )
    }

    fn renew_invite(&self, id: Box<str>, digest: Digest, now: u64) -> Answer<Option<Invite>> {
        self.call((id, digest, now), |transaction, (id, digest, now)| {
            Box::pin(async move {
                let statement = transaction
                    .prepare_cached(&format!(
                        "UPDATE invites SET digest = $2 WHERE id = $1 AND NOT bootstrap AND expires_at > $3
                         RETURNING {INVITE}"
                    ))
                    .await?;
                let row = transaction
                    .query_opt(&statement, &[id, &digest.as_slice(), &column(*now)])
                    .await?;
                row.map(|row| read_invite(&row)).transpose()
            })
        })
    }

    fn redeem(&self, redemption: Redemption) -> Answer<Option<User>> {
        self.call(redemption, |transaction, redemption| {
            Box::pin(redeem(transaction, redemption))
        })
    }
}

/// Waits until nobody else changes who may administer, and holds that until the transaction ends.
pub(super) async fn hold_admins(transaction: &Transaction<'_>) -> Result<(), Fault> {
    hold(transaction, "portcullis.admins").await
}

async fn administer(
    transaction: &Transaction<'_>,
    actor: Option<&str>,
    act: &Act,
    times: &Times,
) -> Result<Acted, Fault> {
    hold_admins(transaction).await?;
    // The actor's token was good a moment ago; whether he is an administrator still is decided here, where nothing can come
    // between.
    if let Some(actor) = actor
        && !is_admin(transaction, actor).await?
    {
        return Ok(Acted::Forbidden);
    }
    match act {
        Act::AddInvite(new) => admit_invite(transaction, new, times.now).await,
        Act::AddUser(user) => {
            users::add(transaction, user).await?;
            Ok(Acted::Done(Vec::new()))
        }
        Act::DeleteUser(id)
        | Act::EditUser(id, _)
        | Act::EndSessions(id)
        | Act::RevokeInvite(id)
            if names_nothing(id) =>
        {
            Ok(Acted::NotFound)
        }
        Act::DeleteUser(id) => {
            if is_last(transaction, id).await? {
                return Ok(Acted::LastAdmin);
            }
            let found = users::change(transaction, id, &UserChange::Delete, times.now).await?;
            end_of(transaction, found.then_some(id.as_ref()), times).await
        }
        Act::EditUser(id, edit) => {
            let keeps = |roles: &Vec<Box<str>>| roles.iter().any(|role| **role == *ADMIN);
            let removes = edit.disabled == Some(true)
                || edit.roles.as_ref().is_some_and(|roles| !keeps(roles));
            if removes && is_last(transaction, id).await? {
                return Ok(Acted::LastAdmin);
            }
            edit_user(transaction, id, edit, times).await
        }
        Act::EndSessions(id) => {
            let user = users::find(transaction, &UserKey::Id(id.clone())).await?;
            end_of(transaction, user.map(|_| id.as_ref()), times).await
        }
        Act::RevokeInvite(id) => {
            let statement = transaction
                .prepare_cached("DELETE FROM invites WHERE id = $1 AND NOT bootstrap")
                .await?;
            Ok(match transaction.execute(&statement, &[id]).await? {
                1 => Acted::Done(Vec::new()),
                _ => Acted::NotFound,
            })
        }
    }
}

async fn edit_user(
    transaction: &Transaction<'_>,
    id: &str,
    edit: &UserEdit,
    times: &Times,
) -> Result<Acted, Fault> {
    // A display name is no right: whoever gets another one need not sign in again.
    let matters = edit.email.is_some()
        || edit.password.is_some()
        || edit.roles.is_some()
        || edit.disabled.is_some();
    let statement = transaction
        .prepare_cached(
            "UPDATE users SET
                 email = coalesce($2, email),
                 name = CASE WHEN $3 THEN $4 ELSE name END,
                 password = coalesce($5, password),
                 roles = coalesce($6, roles),
                 disabled = coalesce($7, disabled),
                 epoch = epoch + CASE WHEN $8 THEN 1 ELSE 0 END,
                 updated_at = $9
             WHERE id = $1 AND email IS NOT NULL",
        )
        .await?;
    let changed = transaction
        .execute(
            &statement,
            &[
                &id,
                &edit.email,
                &edit.name.is_some(),
                &edit.name.clone().flatten(),
                &edit.password.as_ref().map(|hash| &*hash.0),
                &edit.roles,
                &edit.disabled,
                &matters,
                &column(times.now),
            ],
        )
        .await?;
    if let (1, Some(notice)) = (changed, &edit.notice) {
        mail::queue(transaction, notice, times.now).await?;
    }
    if changed == 1 && !matters {
        return Ok(Acted::Done(Vec::new()));
    }
    end_of(transaction, (changed == 1).then_some(id), times).await
}

/// Ends the sessions of an account that was found.
async fn end_of(
    transaction: &Transaction<'_>,
    user_id: Option<&str>,
    times: &Times,
) -> Result<Acted, Fault> {
    let Some(user_id) = user_id else {
        return Ok(Acted::NotFound);
    };
    let all = Ending::AllOf {
        user_id: user_id.into(),
    };
    sessions::end(transaction, &all, times)
        .await
        .map(Acted::Done)
}

/// Whether nobody could administer without this account.
async fn is_last(transaction: &Transaction<'_>, id: &str) -> Result<bool, Fault> {
    Ok(is_admin(transaction, id).await? && !has_admin_but(transaction, id).await?)
}

async fn is_admin(transaction: &Transaction<'_>, id: &str) -> Result<bool, Fault> {
    if names_nothing(id) {
        return Ok(false);
    }
    let statement = transaction
        .prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM users WHERE id = $1 AND {IS_ADMIN})"
        ))
        .await?;
    Ok(transaction
        .query_one(&statement, &[&id])
        .await?
        .try_get(0)?)
}

/// Whether an account other than this one may administer.
async fn has_admin_but(transaction: &Transaction<'_>, id: &str) -> Result<bool, Fault> {
    let statement = transaction
        .prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM users WHERE id <> $1 AND {IS_ADMIN})"
        ))
        .await?;
    Ok(transaction
        .query_one(&statement, &[&id])
        .await?
        .try_get(0)?)
}

/// Adds an invitation if there is room for it, and for its mail; the administrators are held, so nobody else adds one meanwhile.
async fn admit_invite(
    transaction: &Transaction<'_>,
    new: &NewInvite,
    now: u64,
) -> Result<Acted, Fault> {
    let statement = transaction
        .prepare_cached("DELETE FROM invites WHERE expires_at <= $1")
        .await?;
    transaction.execute(&statement, &[&column(now)]).await?;
    let statement = transaction
        .prepare_cached("SELECT count(*) FROM invites")
        .await?;
    let waiting = count(&transaction.query_one(&statement, &[]).await?, 0)?;
    if waiting >= u64::from(INVITES_MAX) {
        return Ok(Acted::Full);
    }
    if let Some(mail) = &new.mail
        && mail::queue(transaction, mail, now).await? != Queued::Yes
    {
        return Ok(Acted::NoMail);
    }
    add_invite(transaction, new).await?;
    Ok(Acted::Done(Vec::new()))
}

async fn add_invite(transaction: &Transaction<'_>, new: &NewInvite) -> Result<(), Fault> {
    let invite = &new.invite;
    let statement = transaction
        .prepare_cached(
            "INSERT INTO invites (id, digest, bootstrap, roles, email, created_by, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .await?;
    transaction
        .execute(
            &statement,
            &[
                &invite.id,
                &new.digest.as_slice(),
                &invite.bootstrap,
                &invite.roles,
                &invite.email,
                &invite.created_by,
                &column(invite.created_at),
                &column(invite.expires_at),
            ],
        )
        .await?;
    Ok(())
}

async fn find_invite(
    transaction: &Transaction<'_>,
    digest: &Digest,
    bootstrap: bool,
    now: u64,
) -> Result<Option<Invite>, Fault> {
    let statement = transaction
        .prepare_cached(&format!(
            "SELECT {INVITE} FROM invites WHERE digest = $1 AND bootstrap = $2 AND expires_at > $3"
        ))
        .await?;
    let row = transaction
        .query_opt(&statement, &[&digest.as_slice(), &bootstrap, &column(now)])
        .await?;
    if bootstrap && row.is_some() && has_admin_but(transaction, "").await? {
        return Ok(None);
    }
    row.map(|row| read_invite(&row)).transpose()
}

/// Of two who present one invitation, the later waits at its row for the earlier: it is gone, or, where the earlier failed,
/// still there.
pub(super) async fn redeem(
    transaction: &Transaction<'_>,
    redemption: &Redemption,
) -> Result<Option<User>, Fault> {
    if redemption.bootstrap {
        hold_admins(transaction).await?;
        if has_admin_but(transaction, "").await? {
            return Ok(None);
        }
    }
    let statement = transaction
        .prepare_cached(
            "DELETE FROM invites WHERE digest = $1 AND bootstrap = $2 AND expires_at > $3
             AND (email IS NULL OR email = $4) RETURNING roles",
        )
        .await?;
    let consumed = transaction
        .query_opt(
            &statement,
            &[
                &redemption.digest.as_slice(),
                &redemption.bootstrap,
                &column(redemption.now),
                &redemption.user.email,
            ],
        )
        .await?;
    let Some(row) = consumed else {
        return Ok(None);
    };
    let user = User {
        roles: row.try_get(0)?,
        ..redemption.user.clone()
    };
    users::add(transaction, &user).await?; // where the name is taken, the transaction ends, and the invitation stays
    Ok(Some(user))
}

fn read_invite(row: &Row) -> Result<Invite, Fault> {
    Ok(Invite {
        id: row.try_get(0)?,
        bootstrap: row.try_get(1)?,
        roles: row.try_get(2)?,
        email: row.try_get(3)?,
        created_by: row.try_get(4)?,
        created_at: count(row, 5)?,
        expires_at: count(row, 6)?,
    })
}
