//! The statements over registrations that wait for their address. Every value is bound, none is written into SQL (STORE-4).

use rusqlite::{Connection, OptionalExtension, Transaction, named_params};

use super::{
    super::{
        Digest, NewMail, NewRegistration, PasswordHash, Queued, Redemption, RegistrationKey, User,
        mail::REGISTRATIONS_MAX,
    },
    administration, column, count, mail, users,
};

/// Rows that one statement of housekeeping touches.
const BATCH: u32 = 500;

pub(super) fn add(
    transaction: &Transaction<'_>,
    new: &NewRegistration,
    notice: &NewMail,
    now: u64,
) -> rusqlite::Result<Queued> {
    purge(transaction, now)?;
    let waiting: u32 = transaction
        .prepare_cached("SELECT count(*) FROM registrations")?
        .query_row([], |row| row.get(0))?;
    if waiting >= REGISTRATIONS_MAX {
        return Ok(Queued::Full);
    }
    let queued = mail::queue(transaction, notice, now)?;
    // Without a mail of its own a newer one would only make the last one's link useless.
    if queued != Queued::Yes {
        return Ok(queued);
    }
    transaction
        .prepare_cached("DELETE FROM registrations WHERE email = ?1")?
        .execute([&new.email])?;
    transaction
        .prepare_cached(
            "INSERT INTO registrations (id, email, username, name, password, invite, created_at, expires_at)
             VALUES (:id, :email, :username, :name, :password, :invite, :now, :expires_at)",
        )?
        .execute(named_params! {
            ":id": new.id,
            ":email": new.email,
            ":username": new.username,
            ":name": new.name,
            ":password": &*new.password.0,
            ":invite": new.invite,
            ":now": column(now),
            ":expires_at": column(new.expires_at),
        })?;
    Ok(queued)
}

pub(super) fn find(
    connection: &Connection,
    key: &RegistrationKey,
    now: u64,
) -> rusqlite::Result<Option<NewRegistration>> {
    let (condition, value): (_, &dyn rusqlite::ToSql) = match key {
        RegistrationKey::Digest(digest) => ("digest = ?1", digest),
        RegistrationKey::Email(email) => ("email = ?1", email),
    };
    connection
        .prepare_cached(&format!(
            "SELECT id, email, username, name, password, invite, expires_at FROM registrations
             WHERE {condition} AND expires_at > ?2"
        ))?
        .query_row((value, column(now)), |row| {
            Ok(NewRegistration {
                id: row.get(0)?,
                email: row.get(1)?,
                username: row.get(2)?,
                name: row.get(3)?,
                password: PasswordHash(row.get(4)?),
                invite: row.get(5)?,
                expires_at: count(row, 6)?,
            })
        })
        .optional()
}

pub(super) fn add_token(
    transaction: &Transaction<'_>,
    id: &str,
    digest: &Digest,
    expires_at: u64,
) -> rusqlite::Result<bool> {
    let changed = transaction
        .prepare_cached("UPDATE registrations SET digest = ?2, expires_at = ?3 WHERE id = ?1")?
        .execute((id, digest, column(expires_at)))?;
    Ok(changed == 1)
}

pub(super) fn complete(
    transaction: &Transaction<'_>,
    digest: &Digest,
    user: User,
    now: u64,
) -> rusqlite::Result<Option<User>> {
    let key = RegistrationKey::Digest(*digest);
    let Some(registration) = find(transaction, &key, now)? else {
        return Ok(None);
    };
    let made = match registration.invite {
        Some(digest) => {
            let redemption = Redemption {
                digest,
                bootstrap: false,
                user,
                now,
            };
            // An invitation that is gone meanwhile changes nothing: the row stays until its end, and is of no use.
            let Some(made) = administration::redeem(transaction, redemption)? else {
                return Ok(None);
            };
            made
        }
        None => {
            users::add(transaction, &user)?;
            user
        }
    };
    transaction
        .prepare_cached("DELETE FROM registrations WHERE id = ?1")?
        .execute([&registration.id])?;
    Ok(Some(made))
}

/// Erases registrations that are over.
pub(super) fn purge(transaction: &Transaction<'_>, now: u64) -> rusqlite::Result<usize> {
    transaction
        .prepare_cached(
            "DELETE FROM registrations WHERE id IN (
                 SELECT id FROM registrations WHERE expires_at <= ?1 LIMIT ?2)",
        )?
        .execute((column(now), BATCH))
}
