//! The statements over accounts. Every value is bound, none is written into SQL (STORE-4).

use deadpool_postgres::Transaction;
use tokio_postgres::Row;

use super::{
    super::{PasswordHash, User, UserChange, UserKey},
    Fault, column, count,
};

/// The columns that [`read`] reads, in its order.
pub(super) const COLUMNS: &str = "users.id, users.username, users.email, users.name, \
     users.password, users.roles, users.disabled, users.epoch, users.created_at, users.updated_at, users.pending, users.unlocks";

pub(super) const COLUMN_COUNT: usize = 12;

pub(super) async fn add(transaction: &Transaction<'_>, user: &User) -> Result<(), Fault> {
    let statement = transaction
        .prepare_cached(
            "INSERT INTO users (id, username, email, name, password, roles, disabled, epoch, created_at, updated_at, pending)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .await?;
    let password = user.password.as_ref().map(|hash| &*hash.0);
    transaction
        .execute(
            &statement,
            &[
                &user.id,
                &user.username,
                &user.email,
                &user.name,
                &password,
                &user.roles,
                &user.disabled,
                &column(user.epoch),
                &column(user.created_at),
                &column(user.updated_at),
                &user.pending,
            ],
        )
        .await?;
    Ok(())
}

pub(super) async fn find(
    transaction: &Transaction<'_>,
    key: &UserKey,
) -> Result<Option<User>, Fault> {
    let (condition, value) = match key {
        UserKey::Email(email) => ("email = $1", email),
        UserKey::Id(id) => ("id = $1", id),
        UserKey::Username(username) => ("username = $1", username),
    };
    let statement = transaction
        .prepare_cached(&format!("SELECT {COLUMNS} FROM users WHERE {condition}"))
        .await?;
    let row = transaction.query_opt(&statement, &[value]).await?;
    row.map(|row| read(&row, 0)).transpose()
}

pub(super) async fn list(
    transaction: &Transaction<'_>,
    after: &str,
    limit: u32,
) -> Result<Vec<User>, Fault> {
    let statement = transaction
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM users WHERE username > $1 ORDER BY username LIMIT $2"
        ))
        .await?;
    let rows = transaction
        .query(&statement, &[&after, &i64::from(limit)])
        .await?;
    rows.iter().map(|row| read(row, 0)).collect()
}

/// Says whether there was such an account. Holds its row until the transaction ends, so that no login begins meanwhile.
pub(super) async fn change(
    transaction: &Transaction<'_>,
    id: &str,
    change: &UserChange,
    now: u64,
) -> Result<bool, Fault> {
    let set = match change {
        UserChange::Delete => {
            "disabled = TRUE, email = NULL, name = NULL, password = NULL, roles = '{}'"
        }
        UserChange::Disabled(_) => "disabled = $3",
        UserChange::Password(_) => "password = $3",
        UserChange::Roles(_) => "roles = $3",
    };
    let statement = transaction
        .prepare_cached(&format!(
            "UPDATE users SET {set}, epoch = epoch + 1, updated_at = $2 WHERE id = $1 AND email IS NOT NULL"
        ))
        .await?;
    let now = column(now);
    let changed = match change {
        UserChange::Delete => transaction.execute(&statement, &[&id, &now]).await,
        UserChange::Disabled(value) => transaction.execute(&statement, &[&id, &now, value]).await,
        UserChange::Password(hash) => transaction.execute(&statement, &[&id, &now, &hash.0]).await,
        UserChange::Roles(roles) => transaction.execute(&statement, &[&id, &now, roles]).await,
    }?;
    Ok(changed == 1)
}

/// Says whether there was such an account. Its epoch stays: nothing that is bound to it ends.
pub(super) async fn unlock(transaction: &Transaction<'_>, id: &str) -> Result<bool, Fault> {
    let statement = transaction
        .prepare_cached(
            "UPDATE users SET unlocks = unlocks + 1 WHERE id = $1 AND email IS NOT NULL",
        )
        .await?;
    Ok(transaction.execute(&statement, &[&id]).await? == 1)
}

pub(super) async fn upgrade_password(
    transaction: &Transaction<'_>,
    id: &str,
    old: &PasswordHash,
    new: &PasswordHash,
) -> Result<(), Fault> {
    let statement = transaction
        .prepare_cached("UPDATE users SET password = $3 WHERE id = $1 AND password = $2")
        .await?;
    transaction
        .execute(&statement, &[&id, &old.0, &new.0])
        .await?;
    Ok(())
}

/// Reads an account from a row in which its columns begin at `first`.
pub(super) fn read(row: &Row, first: usize) -> Result<User, Fault> {
    Ok(User {
        id: row.try_get(first)?,
        username: row.try_get(first + 1)?,
        email: row.try_get(first + 2)?,
        name: row.try_get(first + 3)?,
        password: row
            .try_get::<_, Option<Box<str>>>(first + 4)?
            .map(PasswordHash),
        roles: row.try_get(first + 5)?,
        disabled: row.try_get(first + 6)?,
        epoch: count(row, first + 7)?,
        created_at: count(row, first + 8)?,
        updated_at: count(row, first + 9)?,
        pending: row.try_get(first + 10)?,
        unlocks: count(row, first + 11)?,
    })
}
