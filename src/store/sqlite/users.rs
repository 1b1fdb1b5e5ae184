//! The statements over accounts. Every value is bound, none is written into SQL (STORE-4).

use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::{
    super::{PasswordHash, User, UserChange, UserKey},
    column, count,
};

/// The columns that [`read`] reads, in its order.
pub(super) const COLUMNS: &str = "users.id, users.username, users.email, users.name, \
     users.password, users.roles, users.disabled, users.epoch, users.created_at, users.updated_at, users.pending, users.unlocks";

pub(super) const COLUMN_COUNT: usize = 12;

pub(super) fn add(connection: &Connection, user: &User) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO users (id, username, email, name, password, roles, disabled, pending, epoch, created_at, updated_at)
             VALUES (:id, :username, :email, :name, :password, :roles, :disabled, :pending, :epoch, :created_at, :updated_at)",
        )?
        .execute(named_params! {
            ":id": user.id,
            ":username": user.username,
            ":email": user.email,
            ":name": user.name,
            ":password": user.password.as_ref().map(|hash| &*hash.0),
            ":roles": roles_column(&user.roles),
            ":disabled": user.disabled,
            ":pending": user.pending,
            ":epoch": column(user.epoch),
            ":created_at": column(user.created_at),
            ":updated_at": column(user.updated_at),
        })?;
    Ok(())
}

pub(super) fn find(connection: &Connection, key: &UserKey) -> rusqlite::Result<Option<User>> {
    let (condition, value) = match key {
        UserKey::Email(email) => ("email = ?1", email),
        UserKey::Id(id) => ("id = ?1", id),
        UserKey::Username(username) => ("username = ?1", username),
    };
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM users WHERE {condition}"))?
        .query_row([value], |row| read(row, 0))
        .optional()
}

pub(super) fn list(
    connection: &Connection,
    after: &str,
    limit: u32,
) -> rusqlite::Result<Vec<User>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM users WHERE username > ?1 ORDER BY username LIMIT ?2"
        ))?
        .query_map((after, limit), |row| read(row, 0))?
        .collect()
}

/// Says whether there was such an account.
pub(super) fn change(
    connection: &Connection,
    id: &str,
    change: &UserChange,
    now: u64,
) -> rusqlite::Result<bool> {
    let set = match change {
        UserChange::Delete => {
            "disabled = 1, email = NULL, name = NULL, password = NULL, roles = '[]'"
        }
        UserChange::Disabled(_) => "disabled = :value",
        UserChange::Password(_) => "password = :value",
        UserChange::Roles(_) => "roles = :value",
    };
    let sql = format!(
        "UPDATE users SET {set}, epoch = epoch + 1, updated_at = :now WHERE id = :id AND email IS NOT NULL"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let now = column(now);
    let changed = match change {
        UserChange::Delete => statement.execute(named_params! {":id": id, ":now": now}),
        UserChange::Disabled(value) => {
            statement.execute(named_params! {":id": id, ":now": now, ":value": value})
        }
        UserChange::Password(hash) => {
            statement.execute(named_params! {":id": id, ":now": now, ":value": &*hash.0})
        }
        UserChange::Roles(roles) => {
            statement.execute(named_params! {":id": id, ":now": now, ":value": roles_column(roles)})
        }
    }?;
    Ok(changed == 1)
}

/// Says whether there was such an account. Its epoch stays: nothing that is bound to it ends.
pub(super) fn unlock(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE users SET unlocks = unlocks + 1 WHERE id = ?1 AND email IS NOT NULL",
        )?
        .execute([id])?;
    Ok(changed == 1)
}

pub(super) fn upgrade_password(
    connection: &Connection,
    id: &str,
    old: &PasswordHash,
    new: &PasswordHash,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE users SET password = ?3 WHERE id = ?1 AND password = ?2")?
        .execute((id, &*old.0, &*new.0))?;
    Ok(())
}

/// Reads an account from a row in which its columns begin at `first`.
pub(super) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<User> {
    Ok(User {
        id: row.get(first)?,
        username: row.get(first + 1)?,
        email: row.get(first + 2)?,
        name: row.get(first + 3)?,
        password: row.get::<_, Option<Box<str>>>(first + 4)?.map(PasswordHash),
        roles: read_roles(&row.get::<_, Box<str>>(first + 5)?),
        disabled: row.get(first + 6)?,
        epoch: count(row, first + 7)?,
        created_at: count(row, first + 8)?,
        updated_at: count(row, first + 9)?,
        pending: row.get(first + 10)?,
        unlocks: count(row, first + 11)?,
    })
}

pub(super) fn roles_column(roles: &[Box<str>]) -> String {
    serde_json::Value::from(roles.iter().map(|role| &**role).collect::<Vec<_>>()).to_string()
}

/// Roles that cannot be read are none: less may be done with them, never more.
pub(super) fn read_roles(text: &str) -> Vec<Box<str>> {
    serde_json::from_str(text).unwrap_or_default()
}
