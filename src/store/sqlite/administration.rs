//! The statements over administrators and invitations. Every value is bound, none is written into SQL (STORE-4).

use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params, params};

use super::{
    super::{
        Answer, Digest, Ending, Times, User, UserChange, UserKey,
        administration::{
            ADMIN, Act, Acted, AdministrationStore, INVITES_MAX, Invite, NewInvite, Redemption,
            UserEdit,
        },
        mail::Queued,
    },
    Sqlite, column, count, mail, sessions, users,
};

/// Who may administer: the condition of the index `users_admins`, word by word, or the index is not used.
const IS_ADMIN: &str =
    "instr(roles, '\"admin\"') > 0 AND disabled = 0 AND pending = 0 AND email IS NOT NULL";

const INVITE: &str = "id, bootstrap, roles, email, created_by, created_at, expires_at";

impl AdministrationStore for Sqlite {
    fn administer(&self, actor: Option<Box<str>>, act: Act, times: Times) -> Answer<Acted> {
        self.write(move |transaction| administer(transaction, actor.as_deref(), act, &times))
    }

    fn add_bootstrap(&self, new: NewInvite) -> Answer<bool> {
        self.write(move |transaction| {
            if has_admin_but(transaction, "")? {
                return Ok(false);
            }
            transaction.execute("DELETE FROM invites WHERE bootstrap = 1", [])?;
            add_invite(transaction, &new).map(|()| true)
        })
    }

    fn has_admin(&self) -> Answer<bool> {
        self.read(|connection| has_admin_but(connection, ""))
    }

    fn invites(&self, now: u64) -> Answer<Vec<Invite>> {
        self.read(move |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {INVITE} FROM invites WHERE expires_at > ?1 AND bootstrap = 0
                     ORDER BY created_at, id LIMIT ?2"
                ))?
                .query_map(params![column(now), INVITES_MAX], read_invite)?
                .collect()
        })
    }

    fn find_invite(&self, digest: Digest, bootstrap: bool, now: u64) -> Answer<Option<Invite>> {
        self.read(move |connection| find_invite(connection, &digest, bootstrap, now))
    }

    fn renew_invite(&self, id: Box<str>, digest: Digest, now: u64) -> Answer<Option<Invite>> {
        self.write(move |transaction| {
            transaction
                .prepare_cached(&format!(
                    "UPDATE invites SET digest = ?2 WHERE id = ?1 AND bootstrap = 0 AND expires_at > ?3
                     RETURNING {INVITE}"
                ))?
                .query_row(params![id, digest, column(now)], read_invite)
                .optional()
        })
    }

    fn redeem(&self, redemption: Redemption) -> Answer<Option<User>> {
        self.write(move |transaction| redeem(transaction, redemption))
    }
}

fn administer(
    connection: &Transaction<'_>,
    actor: Option<&str>,
    act: Act,
    times: &Times,
) -> rusqlite::Result<Acted> {
    // The actor's token was good a moment ago; whether he is an administrator still is decided here, where nothing can come
    // between.
    if let Some(actor) = actor
        && !is_admin(connection, actor)?
    {
        return Ok(Acted::Forbidden);
    }
    let would_be_last = |id: &str| -> rusqlite::Result<bool> {
        Ok(is_admin(connection, id)? && !has_admin_but(connection, id)?)
    };
    match act {
        Act::AddInvite(new) => admit_invite(connection, &new, times.now),
        Act::AddUser(user) => users::add(connection, &user).map(|()| Acted::Done(Vec::new())),
        Act::DeleteUser(id) => {
            if would_be_last(&id)? {
                return Ok(Acted::LastAdmin);
            }
            let found = users::change(connection, &id, &UserChange::Delete, times.now)?;
            ended(connection, found.then_some(id), times)
        }
        Act::EditUser(id, edit) => {
            let keeps = |roles: &Vec<Box<str>>| roles.iter().any(|role| **role == *ADMIN);
            let removes = edit.disabled == Some(true)
                || edit.roles.as_ref().is_some_and(|roles| !keeps(roles));
            if removes && would_be_last(&id)? {
                return Ok(Acted::LastAdmin);
            }
            edit_user(connection, id, &edit, times)
        }
        Act::EndSessions(id) => {
            let user = users::find(connection, &UserKey::Id(id.clone()))?;
            ended(connection, user.map(|_| id), times)
        }
        Act::RevokeInvite(id) => {
            let gone = connection
                .prepare_cached("DELETE FROM invites WHERE id = ?1 AND bootstrap = 0")?
                .execute([id])?;
            Ok(if gone == 1 {
                Acted::Done(Vec::new())
            } else {
                Acted::NotFound
            })
        }
    }
}

fn edit_user(
    connection: &Transaction<'_>,
    id: Box<str>,
    edit: &UserEdit,
    times: &Times,
) -> rusqlite::Result<Acted> {
    // A display name is no right: whoever gets another one need not sign in again.
    let matters = edit.email.is_some()
        || edit.password.is_some()
        || edit.roles.is_some()
        || edit.disabled.is_some();
    let changed = connection
        .prepare_cached(
            "UPDATE users SET
                 email = coalesce(:email, email),
                 name = iif(:set_name, :name, name),
                 password = coalesce(:password, password),
                 roles = coalesce(:roles, roles),
                 disabled = coalesce(:disabled, disabled),
                 epoch = epoch + :matters,
                 updated_at = :now
             WHERE id = :id AND email IS NOT NULL",
        )?
        .execute(named_params! {
            ":id": id,
            ":email": edit.email,
            ":set_name": edit.name.is_some(),
            ":name": edit.name.clone().flatten(),
            ":password": edit.password.as_ref().map(|hash| &*hash.0),
            ":roles": edit.roles.as_deref().map(users::roles_column),
            ":disabled": edit.disabled,
            ":matters": matters,
            ":now": column(times.now),
        })?;
    if let (1, Some(notice)) = (changed, &edit.notice) {
        mail::queue(connection, notice, times.now)?;
    }
    if changed == 1 && !matters {
        return Ok(Acted::Done(Vec::new()));
    }
    ended(connection, (changed == 1).then_some(id), times)
}

/// Ends the sessions of an account that was found.
fn ended(
    connection: &Transaction<'_>,
    user_id: Option<Box<str>>,
    times: &Times,
) -> rusqlite::Result<Acted> {
    match user_id {
        None => Ok(Acted::NotFound),
        Some(user_id) => {
            sessions::end(connection, &Ending::AllOf { user_id }, times).map(Acted::Done)
        }
    }
}

fn is_admin(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM users WHERE id = ?1 AND {IS_ADMIN})"
        ))?
        .query_row([id], |row| row.get(0))
}

/// Whether an account other than this one may administer.
fn has_admin_but(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(&format!(
            // Left to itself SQLite takes the index of addresses, for `email IS NOT NULL`, and reads every account.
            "SELECT EXISTS (SELECT 1 FROM users INDEXED BY users_admins WHERE id <> ?1 AND {IS_ADMIN})"
        ))?
        .query_row([id], |row| row.get(0))
}

/// Adds an invitation if there is room for it, and for its mail.
fn admit_invite(
    connection: &Transaction<'_>,
    new: &NewInvite,
    now: u64,
) -> rusqlite::Result<Acted> {
    purge_invites(connection, now)?;
    let waiting: u32 =
        connection.query_row("SELECT count(*) FROM invites", [], |row| row.get(0))?;
    if waiting >= INVITES_MAX {
        return Ok(Acted::Full);
    }
    if let Some(mail) = &new.mail
        && mail::queue(connection, mail, now)? != Queued::Yes
    {
        return Ok(Acted::NoMail);
    }
    add_invite(connection, new)?;
    Ok(Acted::Done(Vec::new()))
}

fn add_invite(connection: &Connection, new: &NewInvite) -> rusqlite::Result<()> {
    let invite = &new.invite;
    connection
        .prepare_cached(
            "INSERT INTO invites (id, digest, bootstrap, roles, email, created_by, created_at, expires_at)
             VALUES (:id, :digest, :bootstrap, :roles, :email, :created_by, :created_at, :expires_at)",
        )?
        .execute(named_params! {
            ":id": invite.id,
            ":digest": new.digest,
            ":bootstrap": invite.bootstrap,
            ":roles": users::roles_column(&invite.roles),
            ":email": invite.email,
            ":created_by": invite.created_by,
            ":created_at": column(invite.created_at),
            ":expires_at": column(invite.expires_at),
        })?;
    Ok(())
}

fn find_invite(
    connection: &Connection,
    digest: &Digest,
    bootstrap: bool,
    now: u64,
) -> rusqlite::Result<Option<Invite>> {
    let found = connection
        .prepare_cached(&format!(
            "SELECT {INVITE} FROM invites WHERE digest = ?1 AND bootstrap = ?2 AND expires_at > ?3"
        ))?
        .query_row(params![digest, bootstrap, column(now)], read_invite)
        .optional()?;
    if bootstrap && found.is_some() && has_admin_but(connection, "")? {
        return Ok(None);
    }
    Ok(found)
}

pub(super) fn redeem(
    connection: &Connection,
    redemption: Redemption,
) -> rusqlite::Result<Option<User>> {
    let Redemption {
        digest,
        bootstrap,
        mut user,
        now,
    } = redemption;
    let Some(invite) = find_invite(connection, &digest, bootstrap, now)? else {
        return Ok(None);
    };
    if invite.email.is_some() && invite.email != user.email {
        return Ok(None);
    }
    user.roles = invite.roles;
    connection
        .prepare_cached("DELETE FROM invites WHERE id = ?1")?
        .execute([&invite.id])?;
    users::add(connection, &user)?; // where the name is taken, the transaction ends, and the invitation stays
    Ok(Some(user))
}

/// Erases invitations that are over.
pub(super) fn purge_invites(connection: &Connection, now: u64) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("DELETE FROM invites WHERE expires_at <= ?1")?
        .execute([column(now)])
}

fn read_invite(row: &Row<'_>) -> rusqlite::Result<Invite> {
    Ok(Invite {
        id: row.get(0)?,
        bootstrap: row.get(1)?,
        roles: users::read_roles(&row.get::<_, Box<str>>(2)?),
        email: row.get(3)?,
        created_by: row.get(4)?,
        created_at: count(row, 5)?,
        expires_at: count(row, 6)?,
    })
}
