//! The statements over registrations that wait for their address. Every value is bound, none is written into SQL (STORE-4).

use deadpool_postgres::Transaction;
use tokio_postgres::{Row, types::ToSql};

use super::{
    super::{
        Digest, NewMail, NewRegistration, PasswordHash, Queued, Redemption, RegistrationKey, User,
        mail::REGISTRATIONS_MAX,
    },
    Fault, administration, column, count, hold, mail, users,
};

/// Rows that one statement of housekeeping touches.
const BATCH: i64 = 500;

const COLUMNS: &str = "id, email, username, name, password, invite, expires_at";

pub(super) async fn add(
    transaction: &Transaction<'_>,
    new: &NewRegistration,
    notice: &NewMail,
    now: u64,
) -> Result<Queued, Fault> {
    // As in the queue: whoever counts and adds does it alone.
    hold(transaction, "portcullis.mail").await?;
    let statement = transaction
        .prepare_cached(
            "DELETE FROM registrations WHERE id IN (
                 SELECT id FROM registrations WHERE expires_at <= $1 LIMIT $2)",
        )
        .await?;
    transaction
        .execute(&statement, &[&column(now), &BATCH])
        .await?;
    let statement = transaction
        .prepare_cached("SELECT count(*) FROM registrations")
        .await?;
    let waiting = count(&transaction.query_one(&statement, &[]).await?, 0)?;
    if waiting >= u64::from(REGISTRATIONS_MAX) {
        return Ok(Queued::Full);
    }
    let queued = mail::queue(transaction, notice, now).await?;
    // Without a mail of its own a newer one would only make the last one's link useless.
    if queued != Queued::Yes {
        return Ok(queued);
    }
    let statement = transaction
        .prepare_cached("DELETE FROM registrations WHERE email = $1")
        .await?;
    transaction.execute(&statement, &[&new.email]).await?;
    let statement = transaction
        .prepare_cached(
            "INSERT INTO registrations (id, email, username, name, password, invite, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .await?;
    transaction
        .execute(
            &statement,
            &[
                &new.id,
                &new.email,
                &new.username,
                &new.name,
                &&*new.password.0,
                &new.invite.as_ref().map(<[u8; 32]>::as_slice),
                &column(now),
                &column(new.expires_at),
            ],
        )
        .await?;
    Ok(queued)
}

pub(super) async fn find(
    transaction: &Transaction<'_>,
    key: &RegistrationKey,
    now: u64,
) -> Result<Option<NewRegistration>, Fault> {
    let row = row(transaction, key, now, "").await?;
    row.map(|row| read(&row)).transpose()
}

pub(super) async fn add_token(
    transaction: &Transaction<'_>,
    id: &str,
    digest: &Digest,
    expires_at: u64,
) -> Result<bool, Fault> {
    let statement = transaction
        .prepare_cached("UPDATE registrations SET digest = $2, expires_at = $3 WHERE id = $1")
        .await?;
    let changed = transaction
        .execute(&statement, &[&id, &digest.as_slice(), &column(expires_at)])
        .await?;
    Ok(changed == 1)
}

/// Of two who come back with one link, the later waits at its row for the earlier, and finds nothing.
pub(super) async fn complete(
    transaction: &Transaction<'_>,
    digest: &Digest,
    user: &User,
    now: u64,
) -> Result<Option<User>, Fault> {
    let key = RegistrationKey::Digest(*digest);
    let Some(row) = row(transaction, &key, now, "FOR UPDATE").await? else {
        return Ok(None);
    };
    let registration = read(&row)?;
    let made = match registration.invite {
        Some(digest) => {
            let redemption = Redemption {
                digest,
                bootstrap: false,
                user: user.clone(),
                now,
            };
            // An invitation that is gone meanwhile changes nothing: the row stays until its end, and is of no use.
            let Some(made) = administration::redeem(transaction, &redemption).await? else {
                return Ok(None);
            };
            made
        }
        None => {
            users::add(transaction, user).await?;
            user.clone()
        }
    };
    let statement = transaction
        .prepare_cached("DELETE FROM registrations WHERE id = $1")
        .await?;
    transaction.execute(&statement, &[&registration.id]).await?;
    Ok(Some(made))
}

/// The row of a registration that is good now; `held` says whether it is held until the transaction ends.
async fn row(
    transaction: &Transaction<'_>,
    key: &RegistrationKey,
    now: u64,
    held: &'static str,
) -> Result<Option<Row>, Fault> {
    let (condition, value): (_, &(dyn ToSql + Sync)) = match key {
        RegistrationKey::Digest(digest) => ("digest = $1", &digest.as_slice()),
        RegistrationKey::Email(email) => ("email = $1", email),
    };
    let statement = transaction
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM registrations WHERE {condition} AND expires_at > $2 {held}"
        ))
        .await?;
    Ok(transaction
        .query_opt(&statement, &[value, &column(now)])
        .await?)
}

fn read(row: &Row) -> Result<NewRegistration, Fault> {
    let invite: Option<Vec<u8>> = row.try_get(5)?;
    Ok(NewRegistration {
        id: row.try_get(0)?,
        email: row.try_get(1)?,
        username: row.try_get(2)?,
        name: row.try_get(3)?,
        password: PasswordHash(row.try_get(4)?),
        // The table takes no other length.
        invite: invite.and_then(|bytes| bytes.try_into().ok()),
        expires_at: count(row, 6)?,
    })
}
