//! The statements over sessions, refresh tokens and the feed. Every value is bound, none is written into SQL (STORE-4).

use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params};

use super::{
    super::{
        Digest, Ending, LiveEnd, NewSession, Revocation, RevocationKind, Rotated, Rotation, Salt,
        Session, Times,
    },
    column, count, users,
};

const COLUMNS: &str = "sessions.id, sessions.user_id, sessions.created_at, sessions.last_used_at, \
     sessions.ends_at, sessions.device, sessions.ip";

/// A session is alive while this holds, at `:now` with the idle limit `:idle`.
const ALIVE: &str = "sessions.revoked_at IS NULL AND sessions.ends_at > :now AND sessions.last_used_at > :now - :idle";

/// How many tokens lie between one presented within its grace window and the live end, at most. Further is no accident.
const GRACE_STEPS_MAX: usize = 5;

/// Rows of one kind that one purge touches: a few milliseconds of the writer's time.
const PURGE_BATCH: u32 = 500;

pub(super) fn add(
    transaction: &Transaction<'_>,
    new: &NewSession,
) -> rusqlite::Result<Option<Vec<Box<str>>>> {
    let session = &new.session;
    // Password or state may have changed while the password was being verified.
    let unchanged: bool = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM users WHERE id = ?1 AND epoch = ?2 AND disabled = 0 AND pending = 0)",
        )?
        .query_row((&session.user_id, column(new.user_epoch)), |row| row.get(0))?;
    if !unchanged {
        return Ok(None);
    }
    let surplus = surplus(transaction, new)?;
    revoke(transaction, &surplus, &new.times)?;
    transaction
        .prepare_cached(
            "INSERT INTO sessions (id, user_id, created_at, last_used_at, ends_at, device, ip)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            &session.id,
            &session.user_id,
            column(session.created_at),
            column(session.last_used_at),
            column(session.ends_at),
            &session.device,
            &session.ip,
        ))?;
    if let Some(digest) = &new.token {
        insert_token(transaction, digest, &session.id, new.times.now)?;
    }
    Ok(Some(surplus))
}

/// The sessions that must end so that one more is within the cap: those idle for longest.
fn surplus(transaction: &Transaction<'_>, new: &NewSession) -> rusqlite::Result<Vec<Box<str>>> {
    transaction
        .prepare_cached(&format!(
            "SELECT sessions.id FROM sessions WHERE sessions.user_id = :user_id AND {ALIVE}
             ORDER BY sessions.last_used_at DESC, sessions.created_at DESC, sessions.rowid DESC
             LIMIT -1 OFFSET :kept"
        ))?
        .query_map(
            named_params! {
                ":user_id": new.session.user_id,
                ":now": column(new.times.now),
                ":idle": column(new.times.idle),
                ":kept": new.cap.saturating_sub(1),
            },
            |row| row.get(0),
        )?
        .collect()
}

/// A refresh token as it is kept.
struct Token {
    session_id: Box<str>,
    rotated_at: Option<u64>,
    successor: Option<Digest>,
    salt: Option<Salt>,
}

pub(super) fn live_end(
    connection: &Connection,
    presented: &Digest,
    times: &Times,
) -> rusqlite::Result<Option<LiveEnd>> {
    connection
        .prepare_cached(&format!(
            "SELECT sessions.user_id, sessions.id FROM refresh_tokens JOIN sessions ON sessions.id = refresh_tokens.session_id
             WHERE refresh_tokens.digest = :digest AND refresh_tokens.rotated_at IS NULL AND {ALIVE}"
        ))?
        .query_row(
            named_params! {":digest": presented, ":now": column(times.now), ":idle": column(times.idle)},
            |row| Ok(LiveEnd { user_id: row.get(0)?, session_id: row.get(1)? }),
        )
        .optional()
}

pub(super) fn rotate(
    transaction: &Transaction<'_>,
    rotation: &Rotation,
) -> rusqlite::Result<Rotated> {
    let times = &rotation.times;
    let Some(token) = find_token(transaction, &rotation.presented)? else {
        return Ok(Rotated::Ended);
    };
    let Some((session, user)) = find_alive(transaction, &token.session_id, times)? else {
        return Ok(Rotated::Ended);
    };
    let salts = match token.rotated_at {
        None => {
            replace(transaction, rotation, &token.session_id)?;
            vec![rotation.salt]
        }
        Some(at) => {
            if times.grace == 0 || times.now > at.saturating_add(times.grace) {
                revoke(transaction, std::slice::from_ref(&session.id), times)?;
                return Ok(Rotated::Reused {
                    user_id: session.user_id,
                    session_id: session.id,
                });
            }
            let Some(salts) = path_to_live_end(transaction, token)? else {
                return Ok(Rotated::Ended); // refused, but within the grace window nothing is ever revoked (SESS-2)
            };
            salts
        }
    };
    transaction
        .prepare_cached("UPDATE sessions SET last_used_at = ?2 WHERE id = ?1")?
        .execute((&session.id, column(times.now)))?;
    Ok(Rotated::Live {
        session: Session {
            last_used_at: times.now,
            ..session
        },
        user: Box::new(user),
        salts,
    })
}

fn find_token(connection: &Connection, digest: &Digest) -> rusqlite::Result<Option<Token>> {
    connection
        .prepare_cached(
            "SELECT session_id, rotated_at, successor, salt FROM refresh_tokens WHERE digest = ?1",
        )?
        .query_row([digest], |row| {
            Ok(Token {
                session_id: row.get(0)?,
                rotated_at: row
                    .get::<_, Option<i64>>(1)?
                    .map(|at| u64::try_from(at).unwrap_or(0)),
                successor: row.get(2)?,
                salt: row.get(3)?,
            })
        })
        .optional()
}

/// The session with its account, both as they are now, if both may go on.
fn find_alive(
    connection: &Connection,
    session_id: &str,
    times: &Times,
) -> rusqlite::Result<Option<(Session, super::super::User)>> {
    connection
        .prepare_cached(&format!(
            "SELECT {}, {COLUMNS} FROM sessions JOIN users ON users.id = sessions.user_id
             WHERE sessions.id = :id AND users.disabled = 0 AND users.pending = 0 AND {ALIVE}",
            users::COLUMNS
        ))?
        .query_row(
            named_params! {":id": session_id, ":now": column(times.now), ":idle": column(times.idle)},
            |row| Ok((read(row, users::COLUMN_COUNT)?, users::read(row, 0)?)),
        )
        .optional()
}

/// Consumes the presented token and issues its successor. The condition makes a second consumption impossible even if the
/// read before it were stale.
fn replace(
    transaction: &Transaction<'_>,
    rotation: &Rotation,
    session_id: &str,
) -> rusqlite::Result<()> {
    let now = column(rotation.times.now);
    let consumed = transaction
        .prepare_cached(
            "UPDATE refresh_tokens SET rotated_at = ?2, successor = ?3, salt = ?4
             WHERE digest = ?1 AND rotated_at IS NULL",
        )?
        .execute((
            &rotation.presented,
            now,
            &rotation.successor,
            &rotation.salt,
        ))?;
    if consumed != 1 {
        return Err(rusqlite::Error::StatementChangedRows(consumed));
    }
    insert_token(
        transaction,
        &rotation.successor,
        session_id,
        rotation.times.now,
    )
}

fn insert_token(
    connection: &Connection,
    digest: &Digest,
    session_id: &str,
    now: u64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO refresh_tokens (digest, session_id, issued_at) VALUES (?1, ?2, ?3)",
        )?
        .execute((digest, session_id, column(now)))?;
    Ok(())
}

/// The salts from a rotated token to the live end of its family; `None` where one was erased or the way is too long.
fn path_to_live_end(
    connection: &Connection,
    mut token: Token,
) -> rusqlite::Result<Option<Vec<Salt>>> {
    let mut salts = Vec::new();
    while token.rotated_at.is_some() {
        let (Some(salt), Some(successor)) = (token.salt, token.successor) else {
            return Ok(None);
        };
        salts.push(salt);
        let Some(next) = find_token(connection, &successor)? else {
            return Ok(None);
        };
        if salts.len() > GRACE_STEPS_MAX {
            return Ok(None);
        }
        token = next;
    }
    Ok(Some(salts))
}

pub(super) fn end(
    transaction: &Transaction<'_>,
    ending: &Ending,
    times: &Times,
) -> rusqlite::Result<Vec<Box<str>>> {
    // Every session that is not revoked, the idle ones too: their access tokens may live a little longer.
    let id = |row: &Row<'_>| row.get::<_, Box<str>>(0);
    let ids: rusqlite::Result<Vec<_>> = match ending {
        Ending::AllOf { user_id } => transaction
            .prepare_cached("SELECT id FROM sessions WHERE user_id = ?1 AND revoked_at IS NULL")?
            .query_map([user_id], id)?
            .collect(),
        Ending::One {
            user_id,
            session_id,
        } => transaction
            .prepare_cached(
                "SELECT id FROM sessions WHERE user_id = ?1 AND id = ?2 AND revoked_at IS NULL",
            )?
            .query_map((user_id, session_id), id)?
            .collect(),
        Ending::OfToken(digest) => transaction
            .prepare_cached(
                "SELECT sessions.id FROM refresh_tokens JOIN sessions ON sessions.id = refresh_tokens.session_id
                 WHERE refresh_tokens.digest = ?1 AND sessions.revoked_at IS NULL",
            )?
            .query_map([digest], id)?
            .collect(),
    };
    let ids = ids?;
    revoke(transaction, &ids, times)?;
    Ok(ids)
}

/// Ends every session of an account but one, and says which those were.
pub(super) fn end_others(
    transaction: &Transaction<'_>,
    user_id: &str,
    spared: &str,
    times: &Times,
) -> rusqlite::Result<Vec<Box<str>>> {
    let ids: rusqlite::Result<Vec<_>> = transaction
        .prepare_cached(
            "SELECT id FROM sessions WHERE user_id = ?1 AND id <> ?2 AND revoked_at IS NULL",
        )?
        .query_map((user_id, spared), |row| row.get::<_, Box<str>>(0))?
        .collect();
    let ids = ids?;
    revoke(transaction, &ids, times)?;
    Ok(ids)
}

/// Marks sessions as revoked and tells every process of it, in the caller's transaction. Their rows are kept only until their
/// access tokens are dead.
fn revoke(
    transaction: &Transaction<'_>,
    session_ids: &[Box<str>],
    times: &Times,
) -> rusqlite::Result<()> {
    for id in session_ids {
        transaction
            .prepare_cached(
                "UPDATE sessions SET revoked_at = ?2, ends_at = min(ends_at, ?3) WHERE id = ?1",
            )?
            .execute((id, column(times.now), column(times.tokens_dead_at)))?;
        publish(transaction, RevocationKind::Session, id, times)?;
    }
    Ok(())
}

pub(super) fn revoke_token(
    transaction: &Transaction<'_>,
    token_id: &str,
    times: &Times,
) -> rusqlite::Result<()> {
    publish(transaction, RevocationKind::Token, token_id, times)
}

fn publish(
    connection: &Connection,
    kind: RevocationKind,
    key: &str,
    times: &Times,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO revocations (kind, key, until) VALUES (?1, ?2, ?3)")?
        .execute((kind.as_str(), key, column(times.tokens_dead_at)))?;
    Ok(())
}

pub(super) fn list(
    connection: &Connection,
    user_id: &str,
    times: &Times,
) -> rusqlite::Result<Vec<Session>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions WHERE sessions.user_id = :user_id AND {ALIVE}
             ORDER BY sessions.last_used_at DESC, sessions.rowid DESC LIMIT 100"
        ))?
        .query_map(
            named_params! {":user_id": user_id, ":now": column(times.now), ":idle": column(times.idle)},
            |row| read(row, 0),
        )?
        .collect()
}

pub(super) fn count_alive(
    connection: &Connection,
    times: &Times,
    most: u32,
) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(&format!(
            "SELECT count(*) FROM (SELECT 1 FROM sessions WHERE {ALIVE} LIMIT :most)"
        ))?
        .query_row(
            named_params! {":now": column(times.now), ":idle": column(times.idle), ":most": most},
            |row| count(row, 0),
        )
}

pub(super) fn revocations_after(
    connection: &Connection,
    id: u64,
) -> rusqlite::Result<Vec<Revocation>> {
    connection
        .prepare_cached(
            "SELECT id, kind, key, until FROM revocations WHERE id > ?1 ORDER BY id LIMIT 1000",
        )?
        .query_map([column(id)], |row| {
            Ok(Revocation {
                id: count(row, 0)?,
                kind: match &*row.get::<_, Box<str>>(1)? {
                    "token" => RevocationKind::Token,
                    _ => RevocationKind::Session,
                },
                key: row.get(2)?,
                until: count(row, 3)?,
            })
        })?
        .collect()
}

/// Erases salts that nobody may use any more, then sessions that are over together with their tokens, then entries of the
/// feed that can have no effect. No access token outlives its session's end, so nothing alive loses its session here.
pub(super) fn purge(transaction: &Transaction<'_>, times: &Times) -> rusqlite::Result<usize> {
    let now = column(times.now);
    let salts = transaction
        .prepare_cached(
            "UPDATE refresh_tokens SET salt = NULL WHERE digest IN (
                 SELECT digest FROM refresh_tokens WHERE salt IS NOT NULL AND rotated_at < ?1 LIMIT ?2)",
        )?
        .execute((column(times.now.saturating_sub(times.grace)), PURGE_BATCH))?;
    // Tokens first, by themselves: one session may have thousands, and a cascade knows no limit.
    let over = "SELECT id FROM sessions WHERE ends_at <= ?1";
    let tokens = transaction
        .prepare_cached(&format!(
            "DELETE FROM refresh_tokens WHERE digest IN (
                 SELECT digest FROM refresh_tokens WHERE session_id IN ({over}) LIMIT ?2)"
        ))?
        .execute((now, PURGE_BATCH))?;
    let sessions = transaction
        .prepare_cached(
            "DELETE FROM sessions WHERE id IN (
                 SELECT id FROM sessions WHERE ends_at <= ?1
                 AND NOT EXISTS (SELECT 1 FROM refresh_tokens WHERE session_id = sessions.id) LIMIT ?2)",
        )?
        .execute((now, PURGE_BATCH))?;
    let entries = transaction
        .prepare_cached(
            "DELETE FROM revocations WHERE id IN (SELECT id FROM revocations WHERE until < ?1 LIMIT ?2)",
        )?
        .execute((now, PURGE_BATCH))?;
    Ok(salts + tokens + sessions + entries)
}

fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Session> {
    Ok(Session {
        id: row.get(first)?,
        user_id: row.get(first + 1)?,
        created_at: count(row, first + 2)?,
        last_used_at: count(row, first + 3)?,
        ends_at: count(row, first + 4)?,
        device: row.get(first + 5)?,
        ip: row.get(first + 6)?,
    })
}
